//! `crate` is the path to hero-sse. `crate_renamed.rs` has more of it.
#![deny(warnings)]

use ::hero_sse as sse;
use sse::extend::EndpointMeta;
use sse::prelude::*;

mod hero_sse {}

#[sse_endpoint("/usage", crate = sse)]
async fn usage() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    assert_eq!(usage::DESCRIPTOR.path(), "/usage");
}
