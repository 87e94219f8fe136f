use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage(_: State<(u64, &str)>) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::Endpoints<()> = hero_sse::endpoints![usage];
}
