use hero_sse::axum::http::HeaderMap;
use hero_sse::prelude::*;

#[sse_endpoint("/usage", early = true)]
async fn usage() -> (HeaderMap, impl Stream<Item = Event>) {
    (HeaderMap::new(), futures_util::stream::empty())
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
