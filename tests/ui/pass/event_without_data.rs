//! `data = "none"` makes a comment, an id, a reconnection time or a name alone; `comment` also goes before data.
#![deny(warnings)]

use std::fmt;
use std::time::Duration;

use hero_sse::prelude::*;
use hero_sse::testing::frame;
use serde::Serialize;

/// Neither `Serialize` nor `Display`.
struct Opaque;

#[derive(SseEvent)]
#[sse(data = "none")]
struct Padding<T: fmt::Display> {
    #[sse(comment)]
    text: T,
    _more: Opaque,
}

#[derive(Serialize, SseEvent)]
struct Usage {
    #[sse(comment)]
    #[serde(skip)]
    source: String,
    used: u64,
}

#[derive(SseEvent)]
#[sse(rename_all = "snake_case")]
enum Step<'a> {
    #[sse(data = "none")]
    Working(#[sse(comment)] &'a str),
    #[sse(data = "none")]
    Position(#[sse(id)] u64),
    #[sse(data = "none", retry = "30s")]
    Busy,
    #[sse(data = "none")]
    Later(#[sse(retry)] Option<Duration>),
    #[sse(data = "none", event = "ping")]
    Ping(Opaque),
    #[sse(data = "none", event = "error")]
    Both(#[sse(comment)] Shown, #[sse(id)] u8),
    Line(#[sse(comment)] Shown, u8),
}

struct Shown;

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a\nb")
    }
}

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit()
    }
}

fn main() {
    assert_eq!(frame(&Padding { text: 'x', _more: Opaque }).unwrap(), ": x\n");
    let usage = Usage { source: "disk".into(), used: 1 };
    assert_eq!(frame(&usage).unwrap(), ": disk\nevent: usage\ndata: {\"used\":1}\n\n");
    for (step, wire) in [
        (Step::Working("a\nb"), ": a\n: b\n"),
        (Step::Position(7), "id: 7\n\n"),
        (Step::Busy, "retry: 30000\n"),
        (Step::Later(Some(Duration::from_secs(1))), "retry: 1000\n"),
        (Step::Later(None), ":\n"),
        (Step::Ping(Opaque), "event: ping\n\n"),
        (Step::Both(Shown, 1), ": a\n: b\nevent: error\nid: 1\n\n"),
        (Step::Line(Shown, 2), ": a\n: b\nevent: line\ndata: [null,2]\n\n"),
    ] {
        assert_eq!(frame(&step).unwrap(), wire);
    }
}
