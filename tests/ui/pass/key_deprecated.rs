//! `deprecated` is in the descriptor. The function can be called without a warning.
#![deny(warnings)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/old", deprecated)]
async fn old() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/new", retry = "2s")]
async fn new() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    drop(old());
    assert!(old::DESCRIPTOR.is_deprecated());
    assert!(!new::DESCRIPTOR.is_deprecated());
}
