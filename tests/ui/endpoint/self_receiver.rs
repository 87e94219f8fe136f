use hero_sse::prelude::*;

struct Meter;

impl Meter {
    #[sse_endpoint("/usage")]
    async fn usage(&self) -> impl Stream<Item = Event> {
        futures_util::stream::empty()
    }
}

fn main() {}
