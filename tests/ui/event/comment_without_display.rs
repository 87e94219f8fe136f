use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Step {
    #[sse(data = "none")]
    Working(#[sse(comment)] Vec<u8>),
}

fn main() {}
