//! `query_token = false` takes no token from the query.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", query_token = false)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("query_token: Some(false)", "query_token: None");
}
