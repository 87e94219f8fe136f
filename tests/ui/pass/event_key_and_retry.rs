//! Keys, and reconnection times: one for all values of a type, or one from a field.
#![deny(warnings)]

use std::time::Duration;

use hero_sse::prelude::*;
use serde::Serialize;
use hero_sse::testing::frame;

/// One field may be both.
#[derive(Serialize, SseEvent)]
#[sse(retry = "30s")]
struct Usage {
    #[sse(id, key)]
    meter: u8,
}

#[derive(Serialize, SseEvent)]
struct Pause {
    #[sse(retry)]
    #[serde(skip)]
    after: Option<Duration>,
}

#[derive(SseEvent)]
enum Build {
    #[sse(retry = "2s")]
    Queued(
        #[sse(key)]
        #[sse(id)]
        u8,
    ),
    Slow {
        #[sse(retry)]
        #[serde(skip)]
        wait: Duration,
        #[sse(key)]
        job: &'static str,
    },
    Done,
}

fn main() {
    let frames = [
        (frame(&Usage { meter: 1 }), "event: usage\nid: 1\nretry: 30000\ndata: {\"meter\":1}\n\n"),
        (frame(&Pause { after: None }), "event: pause\ndata: {}\n\n"),
        (
            frame(&Pause { after: Some(Duration::from_secs(1)) }),
            "event: pause\nretry: 1000\ndata: {}\n\n",
        ),
        (frame(&Build::Queued(4)), "event: queued\nid: 4\nretry: 2000\ndata: 4\n\n"),
        (
            frame(&Build::Slow { wait: Duration::from_millis(1500), job: "j" }),
            "event: slow\nretry: 1500\ndata: {\"job\":\"j\"}\n\n",
        ),
        (frame(&Build::Done), "event: done\ndata: null\n\n"),
    ];
    for (frame, expected) in frames {
        assert_eq!(frame.unwrap(), expected);
    }
    let slow = Build::Slow { wait: Duration::ZERO, job: "j" };
    let keys = [
        Usage { meter: 1 }.key(),
        Build::Queued(4).key(),
        slow.key(),
        Build::Done.key(),
        Pause { after: None }.key(),
    ];
    assert_eq!(
        keys.each_ref().map(Option::as_deref),
        [Some("1"), Some("4"), Some("j"), None, None]
    );
}
