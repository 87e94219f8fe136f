use hero_sse::prelude::*;

#[derive(SseEvent)]
#[sse(unnamed, rename_all = "snake_case")]
enum Build {
    Queued,
    Started,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
