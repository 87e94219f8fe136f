use futures_util::stream::Empty;
use hero_sse::axum::http::HeaderMap;
use hero_sse::prelude::*;

type Headed = Result<(HeaderMap, Empty<Event>), Refusal>;

#[sse_endpoint("/usage", early = true)]
async fn usage() -> Headed {
    Ok((HeaderMap::new(), futures_util::stream::empty()))
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
