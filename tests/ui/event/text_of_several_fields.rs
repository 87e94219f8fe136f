use hero_sse::prelude::*;

#[derive(SseEvent)]
#[sse(data = "text")]
struct Line {
    level: String,
    text: String,
}

fn main() {}
