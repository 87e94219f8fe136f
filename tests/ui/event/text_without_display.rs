use hero_sse::prelude::*;

#[derive(SseEvent)]
enum Build {
    #[sse(data = "text")]
    Log(Vec<u8>),
}

fn main() {}
