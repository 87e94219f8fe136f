//! `state` fixes the endpoint's state. Extractors of a part of that state remain extractors.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::FromRef;
use axum::extract::State;
use hero_sse::extend::{Endpoint, EndpointMeta};

#[derive(Clone)]
struct App<T>(T);

impl FromRef<App<u64>> for u64 {
    fn from_ref(app: &App<u64>) -> Self {
        app.0
    }
}

#[sse_endpoint("/usage", state = App<u64>)]
async fn usage(State(_): State<u64>, State(App(_)): State<App<u64>>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

#[sse_endpoint("/none", state = ())]
async fn none() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

/// Its state need not be written, since there is only one.
fn path<S, T: Endpoint<S>>(_: Option<T>) -> &'static str {
    <T as EndpointMeta>::DESCRIPTOR.path()
}

fn main() {
    assert_eq!(path(None::<usage>), "/usage");
    assert_eq!(path(None::<none>), "/none");
    let _: hero_sse::extend::Endpoints<App<u64>> = hero_sse::endpoints![usage];
}
