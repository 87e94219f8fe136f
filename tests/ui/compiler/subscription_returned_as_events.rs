//! A subscription yields [`Published<E>`](crate::topic::Published), which all subscribers share, and not `E`. Return
//! the subscription itself: `-> Subscription<Usage>`, or `-> Result<Subscription<Usage>, Refusal>`. If you wrap it in
//! an adapter, write `impl Stream<Item = Published<Usage>>`.
use axum::extract::State;
use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
struct Usage {
    used: u64,
}

#[sse_endpoint("/usage")]
async fn usage(State(usage): State<Topic<Usage>>) -> impl Stream<Item = Usage> {
    usage.subscribe()
}

fn main() {
    let _: hero_sse::extend::Endpoints<Topic<Usage>> = hero_sse::endpoints![usage];
}
