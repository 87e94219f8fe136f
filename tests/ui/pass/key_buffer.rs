//! `buffer` is the number of events that may wait for a slow client.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", buffer = 256)]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("buffer: Some(Some(256))", "buffer: None");
}
