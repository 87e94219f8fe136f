//! The data of a variant is its fields alone, as their `#[serde(..)]` attributes have them.
//! The kit's side of the expansion is played by a module here.
#![allow(missing_docs)]
#![deny(warnings)]

use std::collections::BTreeMap;
use std::marker::PhantomData;

use hero_sse_macros::SseEvent;
use kit::__private::SseEvent;
use serde::Serialize;

mod kit {
    pub(crate) mod __private {
        pub(crate) use core::primitive::bool;
        pub(crate) use core::result::Result;
        pub(crate) use serde::{self, Serialize, Serializer};

        /// Notes what an event writes.
        #[derive(Default)]
        pub(crate) struct FrameWriter<'a> {
            pub(crate) name: &'static str,
            pub(crate) id: String,
            pub(crate) data: String,
            marker: std::marker::PhantomData<&'a mut ()>,
        }
        #[derive(Debug)]
        pub(crate) struct InvalidEvent;
        pub(crate) struct EventName(&'static str);

        pub(crate) trait SseEvent {
            fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;
            fn is_last(&self) -> bool {
                false
            }
        }
        pub(crate) const fn event_name(name: &'static str) -> EventName {
            EventName(name)
        }
        pub(crate) fn explicit_name(frame: &mut FrameWriter<'_>, name: &EventName) {
            frame.name = name.0;
        }
        pub(crate) fn default_name(frame: &mut FrameWriter<'_>, name: &EventName) {
            frame.name = name.0;
        }
        pub(crate) fn id<T: ToString>(
            frame: &mut FrameWriter<'_>,
            id: &T,
        ) -> Result<(), InvalidEvent> {
            frame.id = id.to_string();
            Ok(())
        }
        pub(crate) fn json<T: Serialize>(
            frame: &mut FrameWriter<'_>,
            data: &T,
        ) -> Result<(), InvalidEvent> {
            frame.data = serde_json::to_string(data).map_err(|_| InvalidEvent)?;
            Ok(())
        }
    }
}

fn data<T: SseEvent>(event: &T) -> String {
    let mut frame = kit::__private::FrameWriter::default();
    event.encode(&mut frame).unwrap();
    frame.data
}

#[derive(Serialize)]
struct LogLine {
    text: String,
}

mod seconds {
    pub(super) fn serialize<S: serde::Serializer>(n: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{n}s"))
    }
}

fn shout<S: serde::Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text.to_uppercase())
}

#[derive(SseEvent)]
#[sse(crate = kit)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum Build<'a, T, const N: usize>
where
    T: Clone,
{
    Queued {
        job_number: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<T>,
    },
    Log(LogLine),
    Pair(u8, &'a str),
    Many([u8; 2], #[serde(skip)] PhantomData<[u8; N]>),
    #[serde(rename = "else", rename_all = "SCREAMING_SNAKE_CASE")]
    Renamed {
        exit_code: i32,
        #[serde(rename = "how-long", with = "seconds")]
        took: u32,
    },
    Flat {
        #[serde(flatten)]
        line: LogLine,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    },
    Loud(#[serde(serialize_with = "shout")] String),
    #[serde(other)]
    Unit,
    Boxed(Box<Inner<T>>),
    #[sse(last)]
    Children {
        of: Vec<Self>,
    },
}

#[derive(Serialize)]
#[serde(transparent)]
struct Inner<T>(T);

impl<T: Clone, const N: usize> Serialize for Build<'_, T, N> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("child")
    }
}

#[derive(SseEvent)]
#[sse(crate = kit)]
#[serde(bound = "T: ToString")]
enum Bound<T> {
    Text(#[serde(serialize_with = "text")] T),
    Ghost(#[serde(skip)] Option<T>, u8),
}

fn text<T: ToString, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.to_string())
}

#[track_caller]
fn check<T: SseEvent>(event: &T, expected: &str) {
    assert_eq!(data(event), expected);
}

type Any<'a> = Build<'a, u8, 3>;

#[test]
fn fields_are_all_that_is_sent() {
    let line = || LogLine { text: "hi".into() };
    check::<Any<'_>>(&Build::Queued { job_number: 1, owner: None }, r#"{"jobNumber":1}"#);
    check::<Any<'_>>(
        &Build::Queued { job_number: 1, owner: Some(2) },
        r#"{"jobNumber":1,"owner":2}"#,
    );
    check::<Any<'_>>(&Build::Log(line()), r#"{"text":"hi"}"#);
    check::<Any<'_>>(&Build::Pair(1, "a"), r#"[1,"a"]"#);
    check::<Any<'_>>(&Build::Many([1, 2], PhantomData), r#"[[1,2]]"#);
    check::<Any<'_>>(
        &Build::Renamed { exit_code: -1, took: 5 },
        r#"{"EXIT_CODE":-1,"how-long":"5s"}"#,
    );
    check::<Any<'_>>(
        &Build::Flat { line: line(), more: [("n".to_owned(), 1)].into() },
        r#"{"text":"hi","n":1}"#,
    );
    check::<Any<'_>>(&Build::Loud("hi".into()), r#""HI""#);
    check::<Any<'_>>(&Build::Unit, "null");
    check::<Any<'_>>(&Build::Boxed(Box::new(Inner(7))), "7");
    check::<Any<'_>>(&Build::Children { of: vec![Build::Unit] }, r#"{"of":["child"]}"#);
}

#[test]
fn bounds_are_the_users() {
    check(&Bound::Text('x'), r#""x""#);
    check(&Bound::Ghost(None::<char>, 1), "[1]");
}

#[derive(SseEvent)]
#[sse(crate = kit)]
enum Step {
    Queued,
    #[sse(event = "line")]
    Log(#[sse(id)] u64, &'static str),
    #[sse(last)]
    BuildDone {
        #[sse(id)]
        r#type: char,
    },
}

#[test]
fn each_variant_has_its_name_id_and_end() {
    for (event, name, id, last) in [
        (Step::Queued, "queued", "", false),
        (Step::Log(7, "x"), "line", "7", false),
        (Step::BuildDone { r#type: 'c' }, "build-done", "c", true),
    ] {
        let mut frame = kit::__private::FrameWriter::default();
        event.encode(&mut frame).unwrap();
        assert_eq!((frame.name, &*frame.id, event.is_last()), (name, id, last));
    }
}
