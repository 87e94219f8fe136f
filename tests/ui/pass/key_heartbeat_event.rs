//! `heartbeat_event` makes each heartbeat an event.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", heartbeat_event = true)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("heartbeat_event: Some(true)", "heartbeat_event: None");
}
