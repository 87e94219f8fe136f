//! `method = "post"` maps the endpoint for `POST`.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", method = "post")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("method: Post", "method: Get");
}
