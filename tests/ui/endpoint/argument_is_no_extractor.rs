use hero_sse::prelude::*;

struct Meter;

#[sse_endpoint("/usage")]
async fn usage(_: Meter) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
