//! An endpoint and its events may be inside a function, as in tests.
#![deny(warnings)]

use hero_sse::prelude::*;
use serde::Serialize;

fn main() {
    #[derive(Serialize, SseEvent)]
    struct Usage {
        used: u64,
    }

    #[derive(SseEvent)]
    enum Build {
        Queued { job: u64 },
    }

    #[sse_endpoint("/usage")]
    async fn usage() -> impl Stream<Item = Usage> {
        futures_util::stream::iter([Usage { used: 1 }])
    }

    #[sse_endpoint("/build")]
    async fn build() -> Result<impl Stream<Item = Build>, Refusal> {
        Ok(futures_util::stream::iter([Build::Queued { job: 1 }]))
    }

    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage, build];
}
