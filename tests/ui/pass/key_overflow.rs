//! `overflow` is what happens when the buffer is full.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", overflow = "drop_oldest")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("overflow: Some(DropOldest)", "overflow: None");
}
