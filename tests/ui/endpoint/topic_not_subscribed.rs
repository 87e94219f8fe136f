use hero_sse::prelude::*;
use axum::extract::State;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
struct Usage {
    used: u64,
}

#[sse_endpoint("/usage")]
async fn usage(State(usage): State<Topic<Usage>>) -> Topic<Usage> {
    usage
}

fn main() {
    let _: hero_sse::extend::Endpoints<Topic<Usage>> = hero_sse::endpoints![usage];
}
