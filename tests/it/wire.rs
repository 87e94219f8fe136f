//! The bytes of a stream: one test for each rule.

use std::time::Duration;

use axum::Router;
use futures_util::{StreamExt, stream};
use hero_sse::{CloseReason, Event, SseOptions};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::testing::{self, ReadError, Received};
use crate::support::{Alive, burst, options, public, sse_with};

fn names(events: &[Received]) -> Vec<&str> {
    events.iter().map(|event| event.event.as_str()).collect()
}

#[tokio::test]
async fn the_head_is_that_of_an_event_stream() {
    let app = public(&sse_with(SseOptions::default()), || burst(1));
    let stream = testing::open(&app, "/s").await.expect("a stream");
    let headers = stream.headers();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-store, no-transform"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(headers.get(name).map(|v| v.as_bytes()), Some(value.as_bytes()), "{name}");
    }
    for absent in ["connection", "content-length", "content-encoding"] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_reconnection_time_and_all_ready_events_leave_in_one_chunk() {
    let app = public(&sse_with(options("Retry = \"2s\"")), || burst(3));
    let chunk = chunk(&mut body(app).await).await.expect("data");
    let (retry, events) =
        std::str::from_utf8(&chunk).expect("UTF-8").split_once('\n').expect("lines");
    assert_eq!(events, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    let millis: u32 = retry.strip_prefix("retry: ").expect("retry").parse().expect("digits");
    assert!((2000..=3000).contains(&millis), "{millis}");
}

/// The body of a stream from `/s`.
async fn body(app: axum::Router) -> axum::body::Body {
    use tower::ServiceExt as _;
    let request = http::Request::get("/s").body(axum::body::Body::empty()).expect("a request");
    app.oneshot(request).await.expect("an answer").into_body()
}

/// The next write of a stream, `None` at its end.
async fn chunk(body: &mut axum::body::Body) -> Option<bytes::Bytes> {
    use http_body_util::BodyExt as _;
    let frame = body.frame().await?.expect("no error");
    Some(frame.into_data().expect("data"))
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_on_time_while_the_stream_has_no_events() {
    let app = public(&sse_with(options("HeartbeatInterval = \"10s\"")), || burst(0));
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let start = Instant::now();
    let mut stream_35 = stream.timeout(Duration::from_secs(35));
    assert!(matches!(stream_35.next().await, Err(ReadError::TimedOut(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(35));
    stream = stream_35;
    let raw = stream.raw();
    let (_, beats) = raw.split_once('\n').expect("a prelude");
    assert_eq!(beats, ":\n:\n:\n");
}

#[tokio::test(start_paused = true)]
async fn an_event_postpones_the_heartbeat_and_no_pause_exceeds_the_interval() {
    // Events at 0, 4, 8, 12 s, then none: heartbeats at 22 and 32 s.
    let app = public(&sse_with(options("HeartbeatInterval = \"10s\"")), || {
        stream::iter(0..4)
            .then(|n| async move {
                if n > 0 {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
                Event::text(n.to_string())
            })
            .chain(stream::pending())
    });
    let mut stream =
        testing::open(&app, "/s").await.expect("a stream").timeout(Duration::from_millis(9_900));
    for _ in 0..4 {
        assert_eq!(stream.next().await.expect("in time").expect("an event").event, "message");
    }
    assert!(stream.next().await.is_err());
    assert!(!stream.raw().contains("\n:\n"), "a heartbeat came early: {}", stream.raw());
    let mut stream = stream.timeout(Duration::from_millis(200));
    assert!(stream.next().await.is_err());
    assert!(stream.raw().ends_with("data: 3\n\n:\n"), "{}", stream.raw());
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_event_has_the_interval_and_comes_at_the_start_too() {
    let app =
        public(&sse_with(options("HeartbeatInterval = \"10s\"\nHeartbeatEvent = true")), || {
            burst(0)
        });
    let mut stream =
        testing::open(&app, "/s").await.expect("a stream").timeout(Duration::from_secs(11));
    let start = Instant::now();
    for seconds in [0, 10, 20] {
        let beat = stream.next().await.expect("in time").expect("an event");
        assert_eq!(beat.event, "hero.heartbeat");
        assert_eq!(beat.data, r#"{"interval_ms":10000}"#);
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    assert_eq!(stream.raw().matches("\n\n:\nevent: hero.heartbeat\n").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_can_be_off() {
    let app = public(&sse_with(options("HeartbeatInterval = \"off\"")), || burst(0));
    let mut stream =
        testing::open(&app, "/s").await.expect("a stream").timeout(Duration::from_secs(3600));
    assert!(stream.next().await.is_err());
    assert!(stream.raw().starts_with("retry: "), "{}", stream.raw());
    assert_eq!(stream.raw().matches('\n').count(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_end_by_the_server_sends_hero_close_with_its_reason() {
    let sse = sse_with(options("MaxAge = \"60s\"\nRetry = \"2s\""));
    let route = |path: &str, events: Vec<Result<Event, String>>, then_pending: bool| {
        sse.endpoint(path)
            .public()
            .handler(async move || {
                let events = events.clone();
                let tail = stream::pending().take(usize::from(then_pending));
                stream::iter(events).chain(tail)
            })
            .expect("a route")
    };
    let event = || Ok(Event::text("x"));
    let app = Router::new()
        .merge(route("/ended", vec![event()], false))
        .merge(route("/last", vec![event(), Ok(Event::text("y").last())], true))
        .merge(route("/error", vec![event(), Err("a secret of the database".into())], true))
        .merge(route("/age", vec![event()], true));
    for (path, reason, reconnect) in [
        ("/ended", CloseReason::Ended, true),
        ("/last", CloseReason::LastEvent, false),
        ("/error", CloseReason::StreamError, true),
        ("/age", CloseReason::MaxAge, true),
    ] {
        let mut stream =
            testing::open(&app, path).await.expect("a stream").timeout(Duration::from_secs(61));
        let events = stream.read_to_end().await.expect("a clean end");
        let close = events.last().expect("a closing event");
        assert_eq!(close.event, "hero.close", "{path}");
        let data: Value = close.json().expect("JSON");
        assert_eq!(data["reason"], json!(reason.as_str()), "{path}");
        assert_eq!(data["reconnect"], json!(reconnect), "{path}");
        let retry = data["retry_ms"].as_u64().expect("a number");
        assert!((2000..=3000).contains(&retry), "{retry}");
        assert_eq!(stream.retry(), Some(Duration::from_millis(retry)), "{path}");
        assert_eq!(close.id, None, "a closing event must not move the cursor");
        assert!(!stream.raw().contains("secret"), "{}", stream.raw());
        assert_eq!(sse.connections().closed(reason), 1, "{path}");
    }
    assert!(sse.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn maximum_ages_are_spread_at_random() {
    let sse = sse_with(options("MaxAge = \"100s\"\nMaxPerPrincipal = 1000"));
    let app = public(&sse, || burst(0));
    let mut ages = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        let stream = testing::open(&app, "/s").await.expect("a stream");
        stream.timeout(Duration::from_secs(101)).read_to_end().await.expect("a clean end");
        ages.push(start.elapsed().as_secs());
    }
    assert!(ages.iter().all(|age| (80..=100).contains(age)), "{ages:?}");
    assert!(ages.iter().max() > ages.iter().min(), "{ages:?}");
}

#[tokio::test]
async fn an_event_whose_encoding_panics_is_not_sent() {
    struct Half;
    impl hero_sse::SseEvent for Half {
        fn encode(
            &self,
            frame: &mut hero_sse::event::FrameWriter<'_>,
        ) -> Result<(), hero_sse::event::InvalidEvent> {
            frame.text("seen by nobody");
            assert!(std::env::args().count() == 0, "the event panics on purpose");
            Ok(())
        }
    }
    let sse = sse_with(SseOptions::default());
    let app: Router =
        sse.endpoint("/s").public().handler(async || stream::iter([Half])).expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(names(&events), ["hero.close"]);
    assert!(!stream.raw().contains("seen by nobody"), "{}", stream.raw());
}

#[tokio::test]
async fn the_applications_stream_is_dropped_with_the_closing_event_not_with_the_connection() {
    let sse = sse_with(SseOptions::default());
    let alive = Alive::default();
    let watch = alive.clone();
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async move || {
            watch.watch(stream::iter([Event::text("x").last()]).chain(stream::pending()))
        })
        .expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    assert_eq!((alive.count(), sse.connections().len()), (0, 1));
}

#[tokio::test]
async fn a_panicking_stream_is_contained() {
    let sse = sse_with(SseOptions::default());
    let alive = Alive::default();
    let watch = alive.clone();
    let app = sse
        .endpoint("/s")
        .public()
        .handler(async move || {
            watch.watch(stream::iter(0..5).map(|n| {
                assert!(n < 2, "the application's stream panics on purpose");
                Event::text(n.to_string())
            }))
        })
        .expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(names(&events), ["message", "message", "hero.close"]);
    assert!(events[2].data.contains("stream_panic"), "{:?}", events[2]);
    assert_eq!((alive.count(), sse.connections().len()), (0, 0));
    assert_eq!(sse.connections().closed(CloseReason::StreamPanic), 1);
}

#[tokio::test]
async fn a_function_that_panics_is_a_500_and_its_slot_is_released() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async || {
            assert!(std::env::args().count() == 0, "the function panics on purpose");
            burst(0)
        })
        .expect("a route");
    let error = testing::open(&app, "/s").await.expect_err("a refusal");
    assert_eq!(error.status.map(|s| s.as_u16()), Some(500));
    assert!(!error.body.contains("on purpose"), "{}", error.body);
    assert!(sse.connections().is_empty());
}

#[tokio::test]
async fn a_client_that_received_the_last_event_gets_204_before_the_function_runs() {
    let sse = sse_with(SseOptions::default());
    let calls = Alive::default();
    let count = calls.clone();
    let app = sse
        .endpoint("/s")
        .public()
        .handler(async move || {
            std::mem::forget(count.watch(stream::empty::<Event>()));
            stream::iter([Event::text("x"), Event::text("y").with_id(7).expect("an id").last()])
        })
        .expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(events[1].id.as_deref(), Some("7;hero.end"));
    assert_eq!(calls.count(), 1);
    for cursor in ["7;hero.end", "hero.end"] {
        let error = testing::open(&app, "/s").last_event_id(cursor).await.expect_err("204");
        assert_eq!(error.status.map(|s| s.as_u16()), Some(204), "{cursor}");
    }
    let query = testing::open(&app, "/s?last_event_id=7%3Bhero.end").await.expect_err("204");
    assert_eq!(query.status.map(|s| s.as_u16()), Some(204));
    assert_eq!(calls.count(), 1, "the function ran for a client that was done");
    testing::open(&app, "/s").last_event_id("7").await.expect("a stream");
}

#[tokio::test]
async fn an_event_that_cannot_be_encoded_ends_the_stream_and_is_not_sent() {
    #[derive(serde::Serialize, Clone)]
    struct Bad;
    impl hero_sse::SseEvent for Bad {
        fn encode(
            &self,
            frame: &mut hero_sse::event::FrameWriter<'_>,
        ) -> Result<(), hero_sse::event::InvalidEvent> {
            frame.text("seen by nobody");
            frame.id("two\nlines")
        }
    }
    let sse = sse_with(SseOptions::default());
    let app: Router =
        sse.endpoint("/s").public().handler(async || stream::iter([Bad])).expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(names(&events), ["hero.close"]);
    assert!(events[0].data.contains("stream_error"));
    assert!(!stream.raw().contains("seen by nobody"));
}

#[tokio::test(start_paused = true)]
async fn an_always_ready_stream_leaves_in_batches_and_ends_at_its_maximum_age() {
    let sse = sse_with(options("MaxAge = \"1s\"\nHeartbeatInterval = \"500ms\""));
    let app = public(&sse, || stream::repeat_with(|| Event::text("x".repeat(100))));
    let (start, mut body) = (Instant::now(), body(app).await);
    let mut last = bytes::Bytes::new();
    while let Some(write) = chunk(&mut body).await {
        assert!(write.len() < 17 * 1024, "{}", write.len());
        last = write;
        // The stream is never idle, so time does not pass by itself.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(start.elapsed() <= Duration::from_millis(1001), "it never ended");
    }
    assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
    assert!(last.ends_with(b"\n\n") && says_max_age(&last), "{last:?}");
}

fn says_max_age(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains("\"reason\":\"max_age\"")
}

mod property {
    //! A parser of another crate reads every event back as it was sent.

    use crate::support::testing;
    use bytes::BytesMut;
    use futures_util::StreamExt as _;
    use proptest::prelude::*;
    use tokio_util::codec::Decoder as _;

    use super::*;

    #[derive(Clone, Debug)]
    struct Sent {
        name: Option<String>,
        id: Option<String>,
        data: String,
    }

    /// Texts with many of the characters that break event streams.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\n".to_owned()),
            Just("\r".to_owned()),
            Just("\r\n".to_owned()),
            Just("\n\n".to_owned()),
            Just(" ".to_owned()),
            Just(":".to_owned()),
            Just("data: x".to_owned()),
            Just("event: hero.close".to_owned()),
            Just("id: 1".to_owned()),
            Just("\u{feff}".to_owned()),
            Just("\0".to_owned()),
            Just("\u{2028}\u{85}".to_owned()),
            any::<char>().prop_map(String::from),
            "[a-z]{1,8}",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn sent() -> impl Strategy<Value = Sent> {
        (proptest::option::of(text()), proptest::option::of(text()), text())
            .prop_map(|(name, id, data)| Sent { name, id, data })
    }

    /// Illegal names and ids are refused; then the event is sent without.
    fn event(sent: &Sent) -> (Event, Option<String>, Option<String>) {
        let mut event = Event::text(sent.data.clone());
        let (mut name, mut id) = (None, None);
        if let Some(text) = &sent.name
            && let Ok(named) = event.clone().named(text.clone())
        {
            (event, name) = (named, Some(text.clone()));
        }
        if let Some(text) = &sent.id
            && let Ok(with_id) = event.clone().with_id(text)
        {
            (event, id) = (with_id, Some(text.clone()));
        }
        (event, name, id)
    }

    fn joined(data: &str) -> String {
        data.replace("\r\n", "\n").replace('\r', "\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn what_is_sent_is_what_a_conforming_parser_reads(all in proptest::collection::vec(sent(), 0..6)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let made: Vec<_> = all.iter().map(event).collect();
            let raw = runtime.block_on(async {
                let events: Vec<Event> = made.iter().map(|(event, ..)| event.clone()).collect();
                let app = public(&sse_with(SseOptions::default()), move || {
                    stream::iter(events.clone()).boxed()
                });
                let mut stream = testing::open(&app, "/s").await.expect("a stream");
                let ours = stream.read_to_end().await.expect("a clean end");
                // The reader of `testing` must agree first.
                for ((_, name, id), (sent, got)) in made.iter().zip(all.iter().zip(&ours)) {
                    assert_eq!(got.data, joined(&sent.data));
                    assert_eq!(got.event, name.clone().unwrap_or("message".into()));
                    assert_eq!(&got.id, id);
                }
                assert_eq!(ours.len(), all.len() + 1);
                stream.raw()
            });
            let mut decoder = russe::Decoder::default();
            let mut bytes = BytesMut::from(raw.as_bytes());
            let mut read = Vec::new();
            while let Some(event) = decoder.decode(&mut bytes).expect("a legal stream") {
                if let russe::Event::Message(message) = event {
                    read.push(message);
                }
            }
            prop_assert_eq!(read.len(), all.len() + 1);
            for ((_, name, id), (sent, got)) in made.iter().zip(all.iter().zip(&read)) {
                prop_assert_eq!(got.data.to_string(), joined(&sent.data));
                prop_assert_eq!(got.event.as_ref().map(ToString::to_string), name.clone());
                prop_assert_eq!(got.id.as_ref().map(ToString::to_string), id.clone());
            }
        }
    }
}
