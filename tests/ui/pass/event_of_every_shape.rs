//! Structs and variants with named fields, with unnamed fields, without fields, and with empty lists of them.
#![deny(warnings)]

use hero_sse::prelude::*;
use serde::Serialize;
use hero_sse::testing::frame;

#[derive(Serialize, SseEvent)]
struct Named {
    used: u64,
}

#[derive(Serialize, SseEvent)]
struct NoNames {}

#[derive(Serialize, SseEvent)]
struct One(u64);

#[derive(Serialize, SseEvent)]
#[sse(event = "two")]
struct Two(u64, #[sse(id)] u64);

#[derive(Serialize, SseEvent)]
struct NoPlaces();

#[derive(Serialize, SseEvent)]
struct Unit;

#[derive(SseEvent)]
#[repr(u8)]
enum Build {
    Named {
        used: u64,
    },
    NoNames {},
    One(u64),
    Two(u64, #[sse(id)] u64),
    NoPlaces(),
    Unit,
    #[sse(last)]
    Numbered = 7,
}

#[derive(SseEvent)]
enum Single {
    Only,
}

fn main() {
    let data = |frame: Result<String, hero_sse::event::InvalidEvent>| {
        let frame = frame.unwrap();
        frame.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("|")
    };
    let structs = [
        (data(frame(&Named { used: 1 })), r#"event: named|data: {"used":1}"#),
        (data(frame(&NoNames {})), "event: no-names|data: {}"),
        (data(frame(&One(1))), "event: one|data: 1"),
        (data(frame(&Two(1, 2))), "event: two|id: 2|data: [1,2]"),
        (data(frame(&NoPlaces())), "event: no-places|data: []"),
        (data(frame(&Unit)), "event: unit|data: null"),
        (data(frame(&Single::Only)), "event: only|data: null"),
    ];
    let variants = [
        (data(frame(&Build::Named { used: 1 })), r#"event: named|data: {"used":1}"#),
        (data(frame(&Build::NoNames {})), "event: no-names|data: {}"),
        (data(frame(&Build::One(1))), "event: one|data: 1"),
        (data(frame(&Build::Two(1, 2))), "event: two|id: 2|data: [1,2]"),
        (data(frame(&Build::NoPlaces())), "event: no-places|data: []"),
        (data(frame(&Build::Unit)), "event: unit|data: null"),
        (data(frame(&Build::Numbered)), "event: numbered|data: null|id: hero.end"),
    ];
    for (frame, expected) in structs.into_iter().chain(variants) {
        assert_eq!(frame, expected);
    }
}
