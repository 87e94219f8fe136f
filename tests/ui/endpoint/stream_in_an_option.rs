use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage() -> Option<impl Stream<Item = Event>> {
    Some(futures_util::stream::empty())
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
