use hero_sse::prelude::*;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(event = "gauge")]
struct Usage {
    used: u64,
}

#[sse_endpoint("/usage", event = "usage")]
async fn usage() -> Result<impl Stream<Item = Result<Usage, Refusal>>, Refusal> {
    Ok(futures_util::stream::empty())
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
