use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
struct Usage {
    #[sse(key)]
    tenant: Vec<u8>,
}

fn main() {}
