use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(retry = "100ms")]
struct Maintenance {
    hours: u64,
}

fn main() {}
