use hero_sse::prelude::*;

const PATH: &str = "/usage";

#[sse_endpoint(PATH, public)]
async fn usage() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
