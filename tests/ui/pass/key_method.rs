//! `method = "post"` maps the endpoint for `POST`.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", method = "post")]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("method: Post", "method: Get");
}
