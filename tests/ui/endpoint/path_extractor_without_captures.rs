use hero_sse::prelude::*;
use axum::extract::Path;

#[sse_endpoint("/builds")]
async fn usage(_: Path<(String, u64)>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
