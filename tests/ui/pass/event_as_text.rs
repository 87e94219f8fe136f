//! `data = "text"` sends one field as its `Display` prints it. The field need not be `Serialize`.
#![deny(warnings)]

use hero_sse::prelude::*;
use hero_sse::testing::frame;

/// Not `Serialize`.
struct Loud(&'static str);

impl std::fmt::Display for Loud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}!", self.0)
    }
}

#[derive(SseEvent)]
#[sse(event = "line", data = "text")]
struct Line {
    #[sse(id)]
    number: u64,
    text: Loud,
}

/// The only field, which also has a key of its own.
#[derive(SseEvent)]
#[sse(data = "text")]
struct Tick(#[sse(id)] u64);

#[derive(SseEvent)]
#[sse(data = "text")]
enum Build {
    Log(Loud),
    Step {
        #[sse(key)]
        job: u64,
        text: String,
    },
    #[sse(data = "json")]
    Done {
        ok: bool,
    },
}

#[derive(SseEvent)]
enum Mixed<T: std::fmt::Display> {
    #[sse(data = "text")]
    Text(T),
    Json(u8),
}

fn main() {
    let frames = [
        (
            frame(&Line { number: 1, text: Loud("a\nb") }),
            "event: line\nid: 1\ndata: a\ndata: b!\n\n",
        ),
        (frame(&Tick(3)), "event: tick\nid: 3\ndata: 3\n\n"),
        (frame(&Build::Log(Loud("c"))), "event: log\ndata: c!\n\n"),
        (frame(&Build::Step { job: 1, text: "d".to_owned() }), "event: step\ndata: d\n\n"),
        (frame(&Build::Done { ok: true }), "event: done\ndata: {\"ok\":true}\n\n"),
        (frame(&Mixed::Text('e')), "event: text\ndata: e\n\n"),
        (frame(&Mixed::<char>::Json(1)), "event: json\ndata: 1\n\n"),
    ];
    for (frame, expected) in frames {
        assert_eq!(frame.unwrap(), expected);
    }
    assert_eq!(Build::Step { job: 1, text: String::new() }.key().as_deref(), Some("1"));
    assert_eq!(Build::Log(Loud("")).key(), None);
}
