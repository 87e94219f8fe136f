//! `event` is the name of events without a name of their own.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", event = "usage")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown(r#"event: Some("usage")"#, "event: None");
}
