use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    Queued {
        #[serde(renam = "number")]
        job: u64,
    },
}

fn main() {}
