use hero_sse::prelude::*;

#[sse_endpoint("/usage", event = "hero.usage")]
async fn usage() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
