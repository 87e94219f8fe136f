//! The docs of the function are the docs of the endpoint, and are in its descriptor.
#![deny(warnings, missing_docs)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

/// Live usage gauge.
///
///     indented
#[sse_endpoint("/lines")]
pub async fn lines() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

/**
 * A block.
 */
#[sse_endpoint("/block")]
pub async fn block() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[doc = include_str!("docs_in_a_file.md")]
#[sse_endpoint("/file")]
pub async fn file() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

/// Before.
#[sse_endpoint("/mixed")]
#[doc = include_str!("docs_in_a_file.md")]
/// Between.
#[doc = concat!("Put ", "together.")]
#[doc(hidden)]
#[doc(alias = "mixture")]
pub async fn mixed() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[doc(hidden)]
#[sse_endpoint("/hidden")]
pub async fn hidden() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    assert_eq!(lines::DESCRIPTOR.documentation(), "Live usage gauge.\n\n    indented");
    assert_eq!(block::DESCRIPTOR.documentation().replace(['*', ' '], ""), "\nAblock.\n");
    assert_eq!(file::DESCRIPTOR.documentation(), "Text of a file.\n");
    let mixed = mixed::DESCRIPTOR.documentation();
    assert_eq!(mixed, "Before.\nText of a file.\n\nBetween.\nPut together.");
    assert_eq!(hidden::DESCRIPTOR.documentation(), "");
}
