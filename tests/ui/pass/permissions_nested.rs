//! `all` and `any` nest. Names may have one segment, and lists may end with a comma.
#![deny(warnings)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

const ALL: &str = "all";
const ANY: &str = "any";

/// Constants with the names of the two words.
#[allow(non_upper_case_globals)]
mod words {
    pub const all: &str = "the.word.all";
    pub const any: &str = "the.word.any";
}
use words::{all, any};

#[sse_endpoint(
    "/usage",
    permission = all("usage.read", any(ALL, ANY, all("a", "b",)), any("admin"), all, any),
)]
async fn usage() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/one", permission = any, retry = "2s")]
async fn one() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    for descriptor in [usage::DESCRIPTOR, one::DESCRIPTOR] {
        let shown = format!("{descriptor:?}");
        assert!(shown.contains("Token { rule: Some("), "{shown}");
    }
}
