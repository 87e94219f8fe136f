//! `retry` is the time after which a browser reconnects.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", retry = "1500ms")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("retry: Some(1.5s)", "retry: None");
}
