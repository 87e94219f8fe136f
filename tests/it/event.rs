//! The frames that the derive writes. The data of a variant is its fields, as their `#[serde(..)]` attributes say.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use hero_sse::prelude::*;
use hero_sse::testing::frame;
use serde::Serialize;

fn data<T: SseEvent>(event: &T) -> String {
    field(&frame(event).unwrap(), "data")
}

/// The value of a field of a frame, or an empty text. A field occurs at most once.
fn field(frame: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    let mut values = frame.lines().filter_map(|line| line.strip_prefix(&prefix));
    let value = values.next().unwrap_or_default().to_owned();
    assert_eq!(values.next(), None, "{frame}");
    value
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
#[sse()]
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
#[sse()]
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
fn the_data_of_a_variant_is_its_fields() {
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
fn a_written_bound_is_used() {
    check(&Bound::Text('x'), r#""x""#);
    check(&Bound::Ghost(None::<char>, 1), "[1]");
}

#[derive(SseEvent)]
#[sse()]
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
        let frame = frame(&event).unwrap();
        assert_eq!((&*field(&frame, "event"), event.is_last()), (name, last));
        let mark = if id.is_empty() { "hero.end" } else { ";hero.end" };
        let id = if last { format!("{id}{mark}") } else { id.to_owned() };
        assert_eq!(field(&frame, "id"), id);
    }
}
