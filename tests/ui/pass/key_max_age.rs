//! `max_age` is the maximum age of a stream.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", max_age = "30m")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("max_age: Some(Some(1800s))", "max_age: None");
}
