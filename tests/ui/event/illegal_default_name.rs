use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    __,
    Closed,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
