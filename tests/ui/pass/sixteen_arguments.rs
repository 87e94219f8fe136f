//! An endpoint has up to sixteen arguments, as a handler of axum.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::State;

#[sse_endpoint("/many")]
async fn many(
    _: Option<Principal>,
    _: LastEventId,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
    _: State<u64>,
) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<u64> = hero_sse::endpoints![many];
}
