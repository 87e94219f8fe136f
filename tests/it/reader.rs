//! The reader of `hero_sse::testing`, as an application's tests use it.

use std::time::Duration;

use axum::Router;
use futures_util::{StreamExt, stream};
use hero_sse::testing::{ReadError, open};
use hero_sse::{CloseReason, Event, SseOptions};

use crate::support::{options, public, sse_with};

const HEARTBEATS: &str = "HeartbeatEvent = true\nHeartbeatInterval = \"1s\"";

/// Two events with ten seconds between them, and the heartbeats of those seconds.
fn slow(options: SseOptions) -> Router {
    public(&sse_with(options), || {
        stream::iter(["one", "two"]).then(|text| async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Event::text(text)
        })
    })
}

#[tokio::test(start_paused = true)]
async fn control_events_are_skipped_by_default() {
    let app = slow(options(HEARTBEATS));
    let mut stream = open(&app, "/s").await.expect("a stream").timeout(Duration::from_secs(15));
    for text in ["one", "two"] {
        let event = stream.next().await.expect("in time").expect("an event");
        assert_eq!((event.event.as_str(), event.data.as_str()), ("message", text));
        assert!(!event.is_control());
    }
    assert_eq!((stream.next().await, stream.next().await), (Ok(None), Ok(None)));
    assert!(stream.raw().matches("event: hero.heartbeat\n").count() >= 18, "{}", stream.raw());

    let mut stream = open(&app, "/s").await.expect("a stream").timeout(Duration::from_secs(30));
    let texts = stream.read_to_end().await.expect("in time").into_iter().map(|event| event.data);
    assert_eq!(texts.collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn control_events_are_yielded_on_request_in_their_order() {
    let app = slow(options(HEARTBEATS));
    let stream = open(&app, "/s").with_control_events().await.expect("a stream");
    let events = stream.timeout(Duration::from_secs(30)).read_to_end().await.expect("in time");
    let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    let position = |name| names.iter().position(|found| *found == name);
    assert_eq!((position("hero.heartbeat"), names.last()), (Some(0), Some(&"hero.close")));
    assert!(events.iter().all(|event| event.is_control() == (event.event != "message")));
    assert_eq!(names.iter().filter(|name| **name == "message").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_the_end_is_known_with_and_without_control_events() {
    let app = slow(SseOptions::default());
    for control_events in [false, true] {
        let request = open(&app, "/s");
        let request = if control_events { request.with_control_events() } else { request };
        let mut stream = request.await.expect("a stream").timeout(Duration::from_secs(30));
        assert_eq!(stream.close_reason(), None);
        stream.read_to_end().await.expect("in time");
        assert_eq!(stream.close_reason(), Some(CloseReason::Ended));
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_extend_the_timeout() {
    let app = slow(options(HEARTBEATS));
    let mut stream = open(&app, "/s").await.expect("a stream").timeout(Duration::from_secs(5));
    let start = tokio::time::Instant::now();
    assert_eq!(stream.next().await, Err(ReadError::TimedOut(Duration::from_secs(5))));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    // The event is not missed: it comes with a later read.
    let text = stream.timeout(Duration::from_secs(10)).next().await.expect("in time");
    assert_eq!(text.expect("an event").data, "one");
}
