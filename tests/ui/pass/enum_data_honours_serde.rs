//! The data of a variant is its fields alone, as their `#[serde(..)]` attributes have them.
#![deny(warnings)]

use std::collections::BTreeMap;
use std::marker::PhantomData;

use hero_sse::prelude::*;

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
#[serde(tag = "kind", content = "data", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum Build<'a, T, const N: usize>
where
    T: Clone,
{
    Queued { job_number: u64, #[serde(skip_serializing_if = "Option::is_none")] owner: Option<T> },
    Log(LogLine),
    Pair(u8, &'a str),
    Many([u8; 2], #[serde(skip)] PhantomData<[u8; N]>),
    #[serde(rename = "else", rename_all = "SCREAMING_SNAKE_CASE")]
    Renamed { exit_code: i32, #[serde(rename = "how-long", with = "seconds")] took: u32 },
    Flat { #[serde(flatten)] line: LogLine, #[serde(flatten)] more: BTreeMap<String, u8> },
    Loud(#[serde(serialize_with = "shout")] String),
    #[serde(other)]
    Unit,
    Boxed(Box<Inner<T>>),
    #[sse(last)]
    Children { of: Vec<Self> },
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
#[serde(bound = "T: ToString")]
enum Bound<T> {
    Text(#[serde(serialize_with = "text")] T),
    Ghost(#[serde(skip)] Option<T>, u8),
}

fn text<T: ToString, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.to_string())
}

fn check<T: SseEvent>(event: &T, expected: &str) {
    assert_eq!(hero_sse::testing::data_of(event), expected);
}

fn main() {
    let line = || LogLine { text: "hi".into() };
    check::<Build<'_, u8, 3>>(&Build::Queued { job_number: 1, owner: None }, r#"{"jobNumber":1}"#);
    check::<Build<'_, u8, 3>>(
        &Build::Queued { job_number: 1, owner: Some(2) },
        r#"{"jobNumber":1,"owner":2}"#,
    );
    check::<Build<'_, u8, 3>>(&Build::Log(line()), r#"{"text":"hi"}"#);
    check::<Build<'_, u8, 3>>(&Build::Pair(1, "a"), r#"[1,"a"]"#);
    check::<Build<'_, u8, 3>>(&Build::Many([1, 2], PhantomData), r#"[[1,2]]"#);
    check::<Build<'_, u8, 3>>(
        &Build::Renamed { exit_code: -1, took: 5 },
        r#"{"EXIT_CODE":-1,"how-long":"5s"}"#,
    );
    check::<Build<'_, u8, 3>>(
        &Build::Flat { line: line(), more: [("n".to_owned(), 1)].into() },
        r#"{"text":"hi","n":1}"#,
    );
    check::<Build<'_, u8, 3>>(&Build::Loud("hi".into()), r#""HI""#);
    check::<Build<'_, u8, 3>>(&Build::Unit, "null");
    check::<Build<'_, u8, 3>>(&Build::Boxed(Box::new(Inner(7))), "7");
    check::<Build<'_, u8, 3>>(&Build::Children { of: vec![Build::Unit] }, r#"{"of":["child"]}"#);
    check(&Bound::Text('x'), r#""x""#);
    check(&Bound::Ghost(None::<char>, 1), "[1]");
}
