use hero_sse::prelude::*;

struct Mistake;

#[sse_endpoint("/usage")]
async fn usage() -> Result<impl Stream<Item = Event>, Mistake> {
    Ok(futures_util::stream::empty())
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
