use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Step {
    #[sse(comment)]
    Working(String),
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Step>();
}
