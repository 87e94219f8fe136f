use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(lasst)]
    Queued,
    #[sse(event = "hero.log")]
    Log {
        #[sse(id)]
        a: u64,
        #[sse(id)]
        b: u64,
    },
}

fn is_event<T: SseEvent>() {}

fn main() {
    is_event::<Build>();
}
