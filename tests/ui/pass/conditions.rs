//! An endpoint under a `#[cfg]` that is off does not exist, whether the `#[cfg]` is above the attribute or
//! below it. Another endpoint may then have its name.
#![deny(warnings)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

#[cfg(any())]
#[sse_endpoint("/off")]
async fn above(_: NoSuchType) -> NoSuchType {}

#[cfg(all())]
#[sse_endpoint("/on")]
async fn above() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/off")]
#[cfg(any())]
async fn below(_: NoSuchType) -> NoSuchType {}

#[sse_endpoint("/on")]
#[cfg(all())]
#[cfg(not(any()))]
async fn below() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[cfg_attr(all(), sse_endpoint("/on"))]
async fn given() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[cfg_attr(all(), cfg(any()))]
#[sse_endpoint("/off")]
async fn nested_above(_: NoSuchType) -> NoSuchType {}

#[sse_endpoint("/off")]
#[cfg_attr(all(), cfg(any()))]
async fn nested_below(_: NoSuchType) -> NoSuchType {}

#[sse_endpoint("/on")]
#[cfg_attr(all(), cfg(all()), doc = "Documented.", must_use)]
async fn nested_below() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![above, below, given, nested_below];
    for descriptor in
        [above::DESCRIPTOR, below::DESCRIPTOR, given::DESCRIPTOR, nested_below::DESCRIPTOR]
    {
        assert_eq!(descriptor.path(), "/on");
    }
}
