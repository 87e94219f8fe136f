//! `heartbeat` is a duration, or `"off"`.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", heartbeat = "20s")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("heartbeat: Some(Some(20s))", "heartbeat: None");
}
