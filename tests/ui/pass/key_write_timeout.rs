//! `write_timeout` is a duration, or `"off"`.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", write_timeout = "00:00:07")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("write_timeout: Some(Some(7s))", "write_timeout: None");
}
