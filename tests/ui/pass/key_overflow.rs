//! `overflow` says what happens to one frame more than the buffer holds.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", overflow = "drop_oldest")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("overflow: Some(DropOldest)", "overflow: None");
}
