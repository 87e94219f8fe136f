//! `over_limit` says what those over a limit get.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", over_limit = "refuse")]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("over_limit: Some(Refuse)", "over_limit: None");
}
