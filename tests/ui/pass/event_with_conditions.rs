//! Variants and fields under a `#[cfg]` that is off are not part of the event.
#![deny(warnings)]

use hero_sse::prelude::*;
use hero_sse::testing::frame;

#[derive(SseEvent)]
enum Build {
    #[cfg(any())]
    Gone(NoSuchType),
    #[cfg(all())]
    Queued {
        #[cfg(any())]
        #[sse(id)]
        no: NoSuchType,
        #[cfg_attr(all(), sse(id))]
        job: u64,
    },
    #[cfg_attr(any(), sse(event = "other"))]
    #[cfg_attr(all(), sse(last))]
    Done,
}

#[cfg(any())]
#[derive(SseEvent)]
struct Away(NoSuchType);

fn main() {
    assert_eq!(
        frame(&Build::Queued { job: 1 }).unwrap(),
        "event: queued\nid: 1\ndata: {\"job\":1}\n\n"
    );
    assert_eq!(frame(&Build::Done).unwrap(), "event: done\ndata: null\nid: hero.end\n\n");
}
