//! An argument may be any pattern.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::State;
use serde::Serialize;

#[derive(Clone)]
struct App {
    name: &'static str,
}

#[derive(Serialize, SseEvent)]
struct Usage {
    name: &'static str,
}

#[sse_endpoint("/usage")]
async fn usage(
    State(App { name }): State<App>,
    mut _who: Option<Principal>,
    _: LastEventId,
    r#type @ State(_): State<App>,
) -> impl Stream<Item = Usage> {
    let _ = r#type;
    futures_util::stream::iter([Usage { name }])
}

fn main() {
    let _: hero_sse::extend::Endpoints<App> = hero_sse::endpoints![usage];
}
