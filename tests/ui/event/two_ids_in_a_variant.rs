use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    Log(#[sse(id)] u64, #[sse(id)] u64),
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
