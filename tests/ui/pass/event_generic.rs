//! Events with every kind of parameter. A generic struct is an event where it is `Serialize`.
#![deny(warnings)]

use std::fmt::{Debug, Display};

use hero_sse::prelude::*;
use serde::Serialize;
use hero_sse::testing::frame;

#[derive(Serialize, SseEvent)]
struct Reading<'a, I, T: Copy = u64, const N: usize = 1>
where
    I: Display,
{
    #[sse(id)]
    #[serde(skip)]
    id: I,
    #[sse(key)]
    meter: &'a str,
    values: Vec<[T; 1]>,
    #[serde(skip)]
    _more: [T; N],
}

#[derive(SseEvent)]
enum Build<'a, I: Display, T, const N: usize>
where
    T: Clone + Debug,
{
    Queued(#[sse(id)] I, #[serde(skip)] [T; N]),
    Value { value: &'a T },
    Nested(Box<Pair<T>>),
    Text(Vec<Option<T>>),
}

#[derive(Serialize)]
struct Pair<T>(T, T);

/// `T` is not sent, and need not be `Serialize`.
#[derive(SseEvent)]
#[serde(bound = "")]
enum Quiet<T> {
    One(#[serde(skip)] Option<T>, u8),
    #[sse(data = "text")]
    Two(u8, #[sse(key)] u8, #[sse(id)] u8),
}

#[derive(SseEvent)]
#[sse(data = "text")]
struct Plain<T: Display>(T);

struct NotSerialize;

fn main() {
    let reading = Reading::<_, _, 2> { id: 1, meter: "m", values: vec![[1_u8]], _more: [0; 2] };
    assert_eq!(
        frame(&reading).unwrap(),
        "event: reading\nid: 1\ndata: {\"meter\":\"m\",\"values\":[[1]]}\n\n"
    );
    let plain: Reading<'_, char> = Reading { id: 'c', meter: "n", values: vec![], _more: [1] };
    assert_eq!(plain.key().as_deref(), Some("n"));
    let events: [(Build<'_, u8, u8, 0>, _); 4] = [
        (Build::Queued(1, []), "event: queued\nid: 1\ndata: [1]\n\n"),
        (Build::Value { value: &3 }, "event: value\ndata: {\"value\":3}\n\n"),
        (Build::Nested(Box::new(Pair(1, 2))), "event: nested\ndata: [1,2]\n\n"),
        (Build::Text(vec![None, Some(1)]), "event: text\ndata: [null,1]\n\n"),
    ];
    for (event, expected) in events {
        assert_eq!(frame(&event).unwrap(), expected);
    }
    assert_eq!(frame(&Quiet::One(None::<NotSerialize>, 1)).unwrap(), "event: one\ndata: [1]\n\n");
    assert_eq!(
        frame(&Quiet::Two::<NotSerialize>(1, 2, 3)).unwrap(),
        "event: two\nid: 3\ndata: 1\n\n"
    );
    assert_eq!(frame(&Plain("hi")).unwrap(), "event: plain\ndata: hi\n\n");
}
