//! `write_timeout` is a duration, or `"off"`.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", write_timeout = "00:00:07")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("write_timeout: Some(Some(7s))", "write_timeout: None");
}
