//! `max_connections` limits the streams of one endpoint.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", max_connections = 1_00)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("max_connections: Some(Some(100))", "max_connections: None");
}
