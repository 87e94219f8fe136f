use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(rename_all = "snake_case")]
struct UsageReading {
    used: u64,
}

fn main() {}
