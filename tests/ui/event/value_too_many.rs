use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(last = true)]
    Finished,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
