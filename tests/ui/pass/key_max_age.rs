//! `max_age` is how long a stream lasts.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", max_age = "30m")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("max_age: Some(Some(1800s))", "max_age: None");
}
