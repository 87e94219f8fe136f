use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
