use hero_sse::prelude::*;

#[derive(Clone, Copy, SseEvent)]
union Usage {
    used: u64,
    free: u64,
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Usage>();
}
