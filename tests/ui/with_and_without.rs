// For cases that declare `with_key`: the same endpoint without the key, and a comparison of the two.
use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/without-key")]
async fn without_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

/// Asserts that the descriptor of `with_key` contains the first text, and that of `without_key` the second.
fn shown(with: &str, without: &str) {
    let (one, other) = (with_key::DESCRIPTOR, without_key::DESCRIPTOR);
    let (one, other) = (format!("{one:?}"), format!("{other:?}"));
    assert!(one.contains(with), "{one}");
    assert!(other.contains(without), "{other}");
}
