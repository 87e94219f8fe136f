use hero_sse::prelude::*;

type Numbers = futures_util::stream::Empty<u64>;

#[sse_endpoint("/usage")]
async fn usage() -> Numbers {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
