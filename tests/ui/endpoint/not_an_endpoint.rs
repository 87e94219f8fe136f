use hero_sse::prelude::*;

#[derive(Serialize, SseEvent)]
struct Usage {
    used: u64,
}

fn main() {
    let _: hero_sse::Endpoints<()> = hero_sse::endpoints![Usage];
}
