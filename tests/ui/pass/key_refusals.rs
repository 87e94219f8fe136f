//! `refusals` is the format of refusals.
#![deny(warnings)]

use hero_sse::axum::Json;
use hero_sse::server::RefusalInfo;

include!("../with_and_without.rs");

fn openai_error(refusal: &RefusalInfo<'_>) -> Json<String> {
    Json(refusal.detail().to_owned())
}

#[sse_endpoint("/with-key", refusals = openai_error)]
async fn with_key() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    shown("refusals: Some(", "refusals: None");
}
