use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(lasst)]
    Finished,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
