use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Step {
    #[sse(data = "none")]
    Working(String),
    Done,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Step>();
}
