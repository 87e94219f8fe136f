use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(crate = hero_sse)]
    Queued,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
