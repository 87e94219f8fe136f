//! `reauthorize` is how often it is asked again whether the caller may stay.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", reauthorize = "30s")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("reauthorize: Some(Some(30s))", "reauthorize: None");
}
