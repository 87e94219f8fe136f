use hero_sse::prelude::*;

#[derive(SseEvent)]
#[sse(rename_all = "kebab")]
enum Build {
    Queued { job: u64 },
}

fn main() {}
