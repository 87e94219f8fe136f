//! `public` lets anybody in.
#![deny(warnings)]

include!("../said_and_silent.rs");

#[sse_endpoint("/said", public)]
async fn said() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("access: Public", "access: Token { rule: None }");
}
