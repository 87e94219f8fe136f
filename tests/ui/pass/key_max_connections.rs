//! `max_connections` limits the streams of one endpoint.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", max_connections = 1_00)]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("max_connections: Some(Some(100))", "max_connections: None");
}
