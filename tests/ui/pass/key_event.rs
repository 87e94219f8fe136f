//! `event` names the events that do not name themselves.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", event = "usage")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown(r#"event: Some("usage")"#, "event: None");
}
