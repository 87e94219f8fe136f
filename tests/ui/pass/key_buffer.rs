//! `buffer` is how many frames may wait for a slow client.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", buffer = 256)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("buffer: Some(Some(256))", "buffer: None");
}
