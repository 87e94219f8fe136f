//! `retry` is how long a browser waits.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", retry = "1500ms")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("retry: Some(1.5s)", "retry: None");
}
