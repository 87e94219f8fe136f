use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(unnamed = true)]
struct Usage {
    used: u64,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Usage>();
}
