use hero_sse::prelude::*;

#[derive(SseEvent)]
#[sse(data = "text")]
struct Tick;

fn main() {}
