//! Keys of `#[serde(..)]` for other purposes are no mistakes, and do not change the events.
#![deny(warnings)]

use std::marker::PhantomData;

use hero_sse::prelude::*;
use hero_sse::testing::frame;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, SseEvent)]
#[serde(tag = "kind", rename_all = "SCREAMING-KEBAB-CASE", deny_unknown_fields)]
#[serde(expecting = "a build", rename(serialize = "A", deserialize = "B"))]
enum Build {
    #[serde(alias = "waiting", rename = "waits")]
    Queued { #[serde(default, alias = "number")] job: u64 },
    #[serde(rename_all(deserialize = "camelCase"))]
    Done { exit_code: u8 },
    #[serde(other)]
    Unknown,
}

/// The bound is for `Deserialize` alone. The bound for `Serialize` is inferred.
#[derive(Deserialize, SseEvent)]
#[serde(bound(deserialize = "T: Default + Deserialize<'de>"))]
enum Loaded<T> {
    Value(T),
    Fields { #[serde(bound(deserialize = "T: Deserialize<'de>"))] list: Vec<T> },
}

#[derive(Deserialize, SseEvent)]
enum Borrowed<'a> {
    #[serde(borrow)]
    Text(std::borrow::Cow<'a, str>),
    Note { #[serde(borrow)] text: &'a str },
}

/// A type without `Serialize`.
struct Opaque;

#[derive(SseEvent)]
enum Marked<T> {
    Value(u8, PhantomData<T>),
    Nested(Vec<PhantomData<T>>),
}

mod mine {
    use serde::{Serialize, Serializer};

    /// Is named like the standard type, and has a value.
    pub struct PhantomData<T>(pub T);

    impl<T: ToString> Serialize for PhantomData<T> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(&self.0.to_string())
        }
    }

    /// Is named like the standard type.
    #[derive(Serialize)]
    pub struct Option<T>(pub T, pub u8);
}

#[derive(SseEvent)]
pub enum Mine<T> {
    Value(mine::PhantomData<T>),
    Pair(mine::Option<&'static str>, u8),
}

fn check<E: SseEvent>(event: E, data: &str) {
    let frame = frame(&event).unwrap();
    assert!(frame.ends_with(&format!("data: {data}\n\n")), "{frame}");
}

fn main() {
    check(Build::Queued { job: 1 }, r#"{"job":1}"#);
    check(Build::Done { exit_code: 2 }, r#"{"exit_code":2}"#);
    check(Build::Unknown, "null");
    check(Loaded::Value(3_u8), "3");
    check(Loaded::Fields { list: vec![4_u8] }, r#"{"list":[4]}"#);
    check(Borrowed::Text("a".into()), r#""a""#);
    check(Borrowed::Note { text: "b" }, r#"{"text":"b"}"#);
    check(Marked::<Opaque>::Value(5, PhantomData), "[5,null]");
    check(Marked::<Opaque>::Nested(vec![PhantomData]), "[null]");
    check(Mine::Value(mine::PhantomData('c')), r#""c""#);
    check(Mine::<char>::Pair(mine::Option("d", 6), 7), r#"[["d",6],7]"#);
    let loaded: Loaded<u8> = serde_json::from_str(r#"{"Value":8}"#).unwrap();
    check(loaded, "8");
    let borrowed: Borrowed<'_> = serde_json::from_str(r#"{"Note":{"text":"e"}}"#).unwrap();
    check(borrowed, r#"{"text":"e"}"#);
    let build: Build = serde_json::from_str(r#"{"kind":"waiting","job":9}"#).unwrap();
    check(build, r#"{"job":9}"#);
    let _ = Opaque;
}
