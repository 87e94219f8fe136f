use hero_sse::prelude::*;

#[derive(SseEvent)]
#[sse(event = "build")]
enum Build {
    Queued,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
