//! `max_per_principal` limits the streams of one caller.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", max_per_principal = 0x4)]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("max_per_principal: Some(4)", "max_per_principal: None");
}
