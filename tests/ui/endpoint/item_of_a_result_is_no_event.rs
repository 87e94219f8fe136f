use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage() -> impl Stream<Item = Result<u64, Refusal>> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
