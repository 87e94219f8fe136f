//! `heartbeat_event` makes each heartbeat an event.
#![deny(warnings)]

use hero_sse::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/said", heartbeat_event = true)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/silent")]
async fn silent() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let (said, silent) = (format!("{:?}", said::DESCRIPTOR), format!("{:?}", silent::DESCRIPTOR));
    assert!(said.contains("heartbeat_event: Some(true)"), "{said}");
    assert!(silent.contains("heartbeat_event: None"), "{silent}");
}
