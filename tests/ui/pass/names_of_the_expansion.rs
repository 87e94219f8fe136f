//! Constants of the user may have the names of variables and items in the expansion.
#![deny(warnings)]
#![allow(non_upper_case_globals, dead_code)]

use hero_sse::prelude::*;
use axum::extract::State;
use serde::Serialize;

const frame: i8 = 1;
const serializer: i8 = 1;
const parts: i8 = 1;
const NAME: i8 = 1;

#[derive(Serialize, SseEvent)]
struct Usage {
    #[sse(id)]
    used: u64,
}

#[derive(SseEvent)]
enum Build {
    Queued { #[sse(id)] job: u64 },
    #[sse(last)]
    Finished,
}

#[sse_endpoint("/state")]
async fn state(_: State<u64>) -> impl Stream<Item = Usage> {
    futures_util::stream::iter([Usage { used: 1 }])
}

#[sse_endpoint("/open")]
async fn open() -> impl Stream<Item = Build> {
    futures_util::stream::iter([Build::Queued { job: 1 }, Build::Finished])
}

mod more {
    use axum::extract::State;
    use hero_sse::prelude::*;

    #[sse_endpoint("/parts")]
    pub(super) async fn parts(_: State<u64>) -> impl Stream<Item = Event> {
        futures_util::stream::empty()
    }
}

fn main() {
    let _: hero_sse::extend::Endpoints<u64> = hero_sse::endpoints![state, open, more::parts];
}
