use hero_sse::prelude::*;

#[derive(Serialize, SseEvent)]
struct Usage {
    #[sse(key)]
    tenant: Vec<u8>,
}

fn main() {}
