use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    Finished {
        #[sse(last)]
        ok: bool,
    },
}

fn main() {}
