//! What a function in an argument's type borrows is not the endpoint's to own.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::State;

#[sse_endpoint("/length")]
async fn length(_: State<fn(&str) -> usize>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<fn(&str) -> usize> = hero_sse::endpoints![length];
}
