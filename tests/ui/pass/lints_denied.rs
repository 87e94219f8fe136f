//! What the macros make obeys the lints of the crate it stands in.
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    missing_copy_implementations,
    unreachable_pub,
    unused_qualifications,
    single_use_lifetimes,
    unused,
    clippy::all,
    clippy::pedantic
)]

use hero_sse::prelude::*;

/// A reading.
#[derive(Debug, Clone, Copy, Serialize, SseEvent)]
pub struct Usage {
    #[sse(id)]
    seq: u64,
}

/// A note that borrows its text.
#[derive(Debug, Clone, Copy, Serialize, SseEvent)]
#[sse(event = "note")]
pub struct Note<'a, T: Copy>(#[sse(id)] &'a str, T);

/// What a build reports.
#[derive(Debug, Clone, SseEvent)]
pub enum Build<'a, T>
where
    T: Clone,
{
    /// It waits.
    Queued {
        /// Which one.
        #[sse(id)]
        job: u64,
    },
    /// It says something.
    Line(&'a str, T),
    /// It is over.
    #[sse(last)]
    Finished,
}

/// What the endpoints share.
#[derive(Debug, Clone, Copy)]
pub struct Meter;

/// The endpoints.
pub mod feeds {
    use hero_sse::prelude::*;

    use crate::{Meter, Usage};

    /// Live usage gauge.
    #[sse_endpoint("/usage/stream", event = "usage", permission = "usage.read")]
    pub async fn usage_stream(State(_): State<Meter>, _: Principal) -> impl Stream<Item = Usage> {
        futures_util::stream::iter([Usage { seq: 1 }])
    }

    #[sse_endpoint("/private", public, heartbeat = "off", write_timeout = "00:00:20")]
    #[deprecated = "endpoints may be deprecated"]
    pub(super) async fn private_stream() -> impl Stream<Item = Usage> {
        futures_util::stream::iter([Usage { seq: 1 }])
    }
}

fn main() {
    #[allow(deprecated)]
    let _: hero_sse::Endpoints<Meter> = hero_sse::endpoints![feeds::usage_stream, feeds::private_stream];
}
