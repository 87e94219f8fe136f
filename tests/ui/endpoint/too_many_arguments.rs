use hero_sse::prelude::*;
use axum::extract::State;

#[sse_endpoint("/usage")]
async fn usage(
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
    _: State<()>,
) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
