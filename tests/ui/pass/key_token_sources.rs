//! `token_sources` says where a token may stand.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", token_sources = ["header", "query"])]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("token_sources: Some([\"header\", \"query\"])", "token_sources: None");
}
