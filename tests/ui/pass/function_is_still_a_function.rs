//! One `use` imports the function and the endpoint, and a test can call the function.
#![deny(warnings)]

use axum::extract::State;
use builds::r#match;

mod builds {
    use axum::extract::State;
    use hero_sse::prelude::*;
    use serde::Serialize;

    #[derive(Serialize, SseEvent)]
    pub struct Usage {
        pub used: u64,
    }

    /// The name of an endpoint may be a keyword.
    #[sse_endpoint("/usage")]
    pub async fn r#match(State(used): State<u64>) -> impl Stream<Item = Usage> {
        futures_util::stream::iter([Usage { used }])
    }
}

fn main() {
    drop(r#match(State(3)));
    let _: hero_sse::extend::Endpoints<u64> = hero_sse::endpoints![r#match];
}
