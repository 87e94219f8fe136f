use hero_sse::prelude::*;

const LIMIT: u64 = 3;

#[sse_endpoint("/usage", permission = LIMIT)]
async fn usage() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
