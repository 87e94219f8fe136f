use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize)]
struct Usage {
    used: u64,
}

#[sse_endpoint("/usage")]
async fn usage() -> impl Stream<Item = Usage> {
    futures_util::stream::iter([Usage { used: 1 }])
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
