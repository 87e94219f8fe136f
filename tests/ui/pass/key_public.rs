//! `public` requires no token.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", public)]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("access: Public", "access: Token { rule: None }");
}
