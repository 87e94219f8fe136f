//! A function type in an argument's type may have borrows.
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
