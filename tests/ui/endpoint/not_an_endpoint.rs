use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
struct Usage {
    used: u64,
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![Usage];
}
