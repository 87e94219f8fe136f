//! `early` sends the head before the function is ready.
#![deny(warnings)]

include!("../with_and_without.rs");

#[sse_endpoint("/with-key", early = true)]
async fn with_key() -> Result<impl Stream<Item = Event>, Refusal> {
    Ok(futures_util::stream::empty())
}

fn main() {
    shown("early: Some(true)", "early: None");
}
