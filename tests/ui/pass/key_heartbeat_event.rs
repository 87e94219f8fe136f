//! `heartbeat_event` makes each heartbeat an event.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", heartbeat_event = true)]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("heartbeat_event: Some(true)", "heartbeat_event: None");
}
