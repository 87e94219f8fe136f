use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[serde(skip)]
    Queued { job: u64 },
}

fn main() {}
