//! `token_sources` says where a token may be.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", token_sources = ["header", "query"])]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("token_sources: Some([\"header\", \"query\"])", "token_sources: None");
}
