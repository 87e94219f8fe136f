use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
struct Maintenance {
    #[sse(retry)]
    back_in: u64,
}

fn main() {}
