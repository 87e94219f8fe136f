use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
struct Usage {
    #[sse(key)]
    tenant: String,
    #[sse(key)]
    meter: String,
}

fn main() {}
