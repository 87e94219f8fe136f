use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
struct Usage;

fn main() {}
