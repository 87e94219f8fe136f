use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(event = "")]
    Queued,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
