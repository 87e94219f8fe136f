//! `heartbeat` is a duration, or `"off"`.
#![deny(warnings)]

use hero_sse::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/said", heartbeat = "20s")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/silent")]
async fn silent() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let (said, silent) = (format!("{:?}", said::DESCRIPTOR), format!("{:?}", silent::DESCRIPTOR));
    assert!(said.contains("heartbeat: Some(Some(20s))"), "{said}");
    assert!(silent.contains("heartbeat: None"), "{silent}");
}
