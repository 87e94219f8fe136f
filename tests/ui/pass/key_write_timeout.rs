//! `write_timeout` is a duration, or `"off"`.
#![deny(warnings)]

use hero_sse::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/said", write_timeout = "00:00:07")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/silent")]
async fn silent() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let (said, silent) = (format!("{:?}", said::DESCRIPTOR), format!("{:?}", silent::DESCRIPTOR));
    assert!(said.contains("write_timeout: Some(Some(7s))"), "{said}");
    assert!(silent.contains("write_timeout: None"), "{silent}");
}
