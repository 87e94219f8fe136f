use std::time::Duration;

use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(retry = "30s")]
struct Maintenance {
    #[sse(retry)]
    back_in: Duration,
}

fn main() {}
