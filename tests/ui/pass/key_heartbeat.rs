//! `heartbeat` is a duration, or `"off"`.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", heartbeat = "20s")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("heartbeat: Some(Some(20s))", "heartbeat: None");
}
