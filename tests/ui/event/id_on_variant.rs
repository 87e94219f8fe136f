use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(id)]
    Queued { job: u64 },
}

fn main() {}
