//! Other attributes on a function or a type keep their meaning.
#![deny(warnings)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;
use serde::Serialize;

#[must_use = "it is an event"]
#[derive(Serialize, SseEvent, Clone, Debug, PartialEq)]
#[deprecated]
#[non_exhaustive]
#[repr(C)]
pub struct Usage {
    #[deprecated]
    #[sse(id)]
    used: u64,
}

#[derive(SseEvent)]
pub enum Build {
    #[deprecated]
    #[allow(dead_code)]
    Queued(#[sse(id, key)] u64),
    #[allow(non_camel_case_types)]
    done,
}

#[inline]
#[must_use]
#[deprecated(since = "1.0.0", note = "use another")]
#[sse_endpoint("/usage")]
#[cold]
#[expect(clippy::unused_async, deprecated, reason = "it is a test")]
#[warn(unused)]
pub async fn usage() -> impl Stream<Item = Usage> {
    futures_util::stream::iter([Usage { used: 1 }])
}

#[sse_endpoint("/build")]
pub async fn build() -> impl Stream<Item = Build> {
    futures_util::stream::iter([Build::done])
}

fn main() {
    assert_eq!(usage::DESCRIPTOR.path(), "/usage");
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage, build];
    #[expect(deprecated)]
    drop(usage());
}
