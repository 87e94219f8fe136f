//! `max_per_principal` limits the streams of one caller.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", max_per_principal = 0x4)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("max_per_principal: Some(4)", "max_per_principal: None");
}
