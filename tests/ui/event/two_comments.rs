use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Step {
    #[sse(data = "none")]
    Working(#[sse(comment)] String, #[sse(comment)] String),
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Step>();
}
