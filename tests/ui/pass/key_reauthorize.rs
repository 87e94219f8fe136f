//! `reauthorize` is the interval at which the authorizer is asked again.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", reauthorize = "30s")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("reauthorize: Some(Some(30s))", "reauthorize: None");
}
