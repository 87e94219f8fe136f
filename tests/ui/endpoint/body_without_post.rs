use hero_sse::axum::Json;
use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage(_: Json<u64>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
