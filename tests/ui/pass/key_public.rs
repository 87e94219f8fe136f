//! `public` lets anybody in.
#![deny(warnings)]

use hero_sse::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/said", public)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/silent")]
async fn silent() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let (said, silent) = (format!("{:?}", said::DESCRIPTOR), format!("{:?}", silent::DESCRIPTOR));
    assert!(said.contains("access: Public"), "{said}");
    assert!(silent.contains("access: Token { rule: None }"), "{silent}");
}
