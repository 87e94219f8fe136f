use hero_sse::prelude::*;
use axum::extract::State;

#[derive(Clone)]
struct Meter;

#[sse_endpoint("/usage")]
async fn usage(_: State<Meter>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
