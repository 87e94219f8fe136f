use hero_sse::prelude::*;

#[derive(Serialize, SseEvent)]
#[sse(retry = "100ms")]
struct Maintenance {
    hours: u64,
}

fn main() {}
