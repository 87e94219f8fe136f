//! `max_per_principal` limits the streams of one caller.
#![deny(warnings)]

use hero_sse::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/said", max_per_principal = 0x4)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/silent")]
async fn silent() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let (said, silent) = (format!("{:?}", said::DESCRIPTOR), format!("{:?}", silent::DESCRIPTOR));
    assert!(said.contains("max_per_principal: Some(4)"), "{said}");
    assert!(silent.contains("max_per_principal: None"), "{silent}");
}
