use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(data = "xml")]
struct Usage {
    used: u64,
}

fn main() {}
