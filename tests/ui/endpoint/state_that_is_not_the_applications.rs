use hero_sse::prelude::*;

#[derive(Clone)]
struct Meter;

#[sse_endpoint("/usage")]
async fn usage(_: State<Meter>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::Endpoints<()> = hero_sse::endpoints![usage];
}
