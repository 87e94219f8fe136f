//! Events with a number, and readers of them, for the tests of subscriptions.

pub(super) use crate::support::testing::{self, EventReader, Received};
pub(super) use crate::support::{Log, options, serving, sse_with};
pub(super) use futures_util::{FutureExt, StreamExt};
pub(super) use hero_sse::event::{FrameWriter, InvalidEvent};
pub(super) use hero_sse::options::Overflow;
pub(super) use hero_sse::prelude::*;
pub(super) use hero_sse::topic::EncodedEvents;
pub(super) use hero_sse::{CloseReason, SseOptions};
pub(super) use serde::Serialize;
pub(super) use serde_json::Value;
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(super) use std::time::Duration;
pub(super) use tokio::sync::Semaphore;

#[derive(Clone, Debug, SseEvent)]
pub(super) enum Step {
    Step {
        n: u64,
        #[sse(key)]
        of: u64,
    },
    #[sse(last)]
    Done { n: u64 },
}

pub(super) fn step(n: u64) -> Step {
    Step::Step { n, of: n % 3 }
}

#[derive(Clone, Default, Serialize, SseEvent)]
pub(super) struct State {
    pub(super) n: u64,
}

/// The sum of the numbers.
pub(super) fn summed(keep: usize) -> Topic<Step> {
    let add = |state: &mut State, step: &Step| match step {
        Step::Step { n, .. } | Step::Done { n } => state.n += n,
    };
    Topic::builder("steps").retain_events(keep).snapshot(State::default(), add).build()
}

pub(super) async fn next(reader: &mut EventReader) -> Received {
    reader.next().await.expect("an event").expect("more")
}

/// What is there without waiting, by name and number.
pub(super) fn there(reader: &mut EventReader) -> Vec<(String, u64)> {
    let mut events = Vec::new();
    while let Some(Ok(Some(event))) = reader.next().now_or_never() {
        events.push(what(&event));
    }
    events
}

/// As many as are said, and the client does not look whether there are more.
pub(super) async fn some(reader: &mut EventReader, count: usize) -> Vec<(String, u64)> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(what(&next(reader).await));
    }
    events
}

pub(super) fn what(event: &Received) -> (String, u64) {
    let n = event.json::<Value>().expect("JSON")["n"].as_u64().unwrap_or_default();
    (event.event.clone(), n)
}

pub(super) fn steps(numbers: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    numbers.into_iter().map(|n| ("step".to_owned(), n)).collect()
}

/// A topic of which the first event is gone, and its id.
pub(super) async fn with_a_gap() -> (Topic<Step>, String) {
    let topic = Topic::builder("steps").retain_events(3).build();
    let first = topic.publish(step(1)).await.expect("sent").to_string();
    topic.publish_all((2..=9).map(step)).await.expect("sent");
    (topic, first)
}

#[derive(Serialize, SseEvent)]
pub(super) struct Reading {
    pub(super) n: u64,
    #[sse(key)]
    pub(super) of: u64,
    pub(super) pad: String,
}

pub(super) fn reading(n: u64, pad: usize) -> Reading {
    Reading { n, of: 0, pad: "x".repeat(pad) }
}
