use hero_sse::prelude::*;

#[derive(Serialize, SseEvent)]
struct Usage {
    used: u64,
}

#[sse_endpoint("/usage")]
async fn usage(State(usage): State<Topic<Usage>>) -> Topic<Usage> {
    usage
}

fn main() {
    let _: hero_sse::Endpoints<Topic<Usage>> = hero_sse::endpoints![usage];
}
