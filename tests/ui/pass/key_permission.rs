//! A permission is a string, in every form of a string.
#![deny(warnings)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/plain", permission = "usage.read")]
async fn plain() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint(r"/raw", permission = r#"usage.read"#)]
async fn raw() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/builds/{build}/{step}", permission = any("admin", "builds.{build}:{step}/read"))]
async fn keyed() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/without-key")]
async fn without_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    for (descriptor, asks) in [
        (plain::DESCRIPTOR, true),
        (raw::DESCRIPTOR, true),
        (keyed::DESCRIPTOR, true),
        (without_key::DESCRIPTOR, false),
    ] {
        let text = format!("{descriptor:?}");
        assert_eq!(text.contains("Token { rule: Some("), asks, "{text}");
    }
}
