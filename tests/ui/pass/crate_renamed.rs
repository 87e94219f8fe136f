//! `crate = ..` is the path to hero-sse.
#![deny(warnings)]

mod hero_sse {}

mod lib {
    #[allow(deprecated)]
    pub use ::hero_sse::__private;
}

use ::hero_sse::prelude::{SseEvent, Stream, sse_endpoint};
use ::serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(crate = crate::lib)]
struct Usage<T> {
    used: T,
}

#[derive(SseEvent)]
#[sse(crate = lib)]
enum Build {
    Queued { job: u64 },
}

#[sse_endpoint("/usage", crate = crate::lib)]
async fn usage() -> impl Stream<Item = Usage<u64>> {
    futures_util::stream::iter([Usage { used: 1 }])
}

#[sse_endpoint("/build", crate = lib)]
async fn build() -> impl Stream<Item = Build> {
    futures_util::stream::iter([Build::Queued { job: 1 }])
}

fn main() {
    let _: ::hero_sse::extend::Endpoints<()> = ::hero_sse::endpoints![usage, build];
}
