//! Types of fields, and names of variants and parameters, that are hard to write twice.
#![deny(warnings)]

use std::collections::BTreeMap;
use std::marker::PhantomData;

use hero_sse::prelude::*;
use serde::Serialize;
use hero_sse::testing::frame;

macro_rules! number {
    () => {
        u8
    };
    ($ty:ty) => {
        ($ty, $ty)
    };
}

mod inner {
    #[derive(serde::Serialize)]
    pub struct Odd<const N: usize = { 1 + 1 }>(#[serde(skip)] pub [u8; N], pub usize);
}

trait Family {
    type Member;
}

impl Family for () {
    type Member = Vec<u8>;
}

#[derive(SseEvent)]
enum Build<'event, T: 'event + Copy = u8, const __N: usize = { 3 * 2 }>
where
    Self: Sized,
    for<'any> &'any T: Copy,
{
    None,
    Some(Option<&'event T>),
    Ok((u8, String, [u8; 2])),
    Err(<() as Family>::Member),
    Macro(number!(), number!(u8)),
    Inner(self::inner::Odd<{ 1 + 2 }>),
    Slices(&'event [&'event str], &'event mut u8),
    Raw(BTreeMap<String, Vec<Option<(u8, bool)>>>),
    Function(#[serde(skip)] fn(&str) -> u8, u8),
    Phantom(PhantomData<[T; __N]>),
    Char(char, f64, i128, ()),
}

#[derive(Serialize, SseEvent)]
struct Plain<'de, 'a: 'de, S>(&'de str, &'a S, number!())
where
    S: ?Sized;

fn main() {
    use Build::*;
    let frames: [(Build<'_>, _); 11] = [
        (None, "none: null"),
        (Some(Option::Some(&1)), "some: 1"),
        (Ok((1, String::new(), [2, 3])), "ok: [1,\"\",[2,3]]"),
        (Err(vec![1]), "err: [1]"),
        (Macro(1, (2, 3)), "macro: [1,[2,3]]"),
        (Inner(inner::Odd([0; 3], 3)), "inner: [3]"),
        (Slices(&["a"], &mut 1), "slices: [[\"a\"],1]"),
        (Raw([("a".to_owned(), vec![Option::Some((1, true))])].into()), "raw: {\"a\":[[1,true]]}"),
        (Function(|_| 1, 2), "function: [2]"),
        (Phantom(PhantomData), "phantom: null"),
        (Char('c', 0.5, -1, ()), "char: [\"c\",0.5,-1,null]"),
    ];
    for (event, expected) in frames {
        let (name, data) = expected.split_once(": ").unwrap();
        assert_eq!(frame(&event).unwrap(), format!("event: {name}\ndata: {data}\n\n"));
    }
    assert_eq!(frame(&Plain("a", "b", 1)).unwrap(), "event: plain\ndata: [\"a\",\"b\",1]\n\n");
}
