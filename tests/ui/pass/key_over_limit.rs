//! `over_limit` is what a client gets above a limit.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", over_limit = "refuse")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("over_limit: Some(Refuse)", "over_limit: None");
}
