// For cases that declare `said` with a key: the same without it, and what tells the two apart.
use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/silent")]
async fn silent() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

/// What the descriptor of `said` shows, and that of `silent`.
fn shown(with: &str, without: &str) {
    let (said, silent) = (format!("{:?}", said::DESCRIPTOR), format!("{:?}", silent::DESCRIPTOR));
    assert!(said.contains(with), "{said}");
    assert!(silent.contains(without), "{silent}");
}
