//! A generic enum has the bounds that its data needs, and no others.
use std::fmt::Display;
use std::marker::PhantomData;

use hero_sse::prelude::*;
use hero_sse::testing::frame;

trait Unit {
    type Value;
}

struct Grams;

impl Unit for Grams {
    type Value = u64;
}

/// Only `U::Value` is sent.
#[derive(SseEvent)]
enum Weight<U: Unit> {
    Gross(U::Value),
    Net { of: Vec<U::Value> },
}

/// `T` is sent as text, `K` is an id outside of the data, and `P` is not used.
#[derive(SseEvent)]
enum Note<T: Display, K: Display, P> {
    #[sse(data = "text")]
    Text(T),
    Entry {
        #[sse(id)]
        #[serde(skip)]
        key: K,
        used: u64,
        #[serde(skip)]
        marker: PhantomData<P>,
    },
}

/// The word `Self` in a condition.
#[derive(SseEvent)]
enum Copies<T>
where
    Self: Sized,
{
    Of(T),
}

/// `Display`, but not `Serialize`.
struct Shown;

impl Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("shown")
    }
}

fn main() {
    assert!(frame(&Weight::<Grams>::Gross(7)).unwrap().ends_with("data: 7\n\n"));
    assert!(frame(&Weight::<Grams>::Net { of: vec![7] }).unwrap().contains("{\"of\":[7]}"));
    assert!(frame(&Note::<Shown, Shown, Shown>::Text(Shown)).unwrap().contains("data: shown\n"));
    let entry = Note::<Shown, Shown, Shown>::Entry { key: Shown, used: 1, marker: PhantomData };
    assert!(frame(&entry).unwrap().contains("id: shown\ndata: {\"used\":1}\n"));
    assert!(frame(&Copies::<u8>::Of(1)).unwrap().ends_with("data: 1\n\n"));
}
