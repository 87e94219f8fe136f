use hero_sse::prelude::*;

#[derive(Serialize, SseEvent)]
#[sse(data = "xml")]
struct Usage {
    used: u64,
}

fn main() {}
