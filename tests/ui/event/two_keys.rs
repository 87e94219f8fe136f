use hero_sse::prelude::*;

#[derive(Serialize, SseEvent)]
struct Usage {
    #[sse(key)]
    tenant: String,
    #[sse(key)]
    meter: String,
}

fn main() {}
