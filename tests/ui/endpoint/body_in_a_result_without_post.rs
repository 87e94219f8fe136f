use hero_sse::axum::extract::rejection::JsonRejection;
use hero_sse::prelude::*;
use axum::Json;

#[sse_endpoint("/usage")]
async fn usage(_: Result<Json<u64>, JsonRejection>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
