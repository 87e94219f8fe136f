//! `early = true`: the head and heartbeats leave before the function is ready.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use futures_util::stream;
use hero_sse::connections::ConnectionFilter;
use hero_sse::prelude::*;
use hero_sse::{CloseReason, SseOptions};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::support::testing::{self, EventReader};
use crate::support::{Alive, Log, options, sse_with};

const SECOND: Duration = Duration::from_secs(1);

type Events = stream::Iter<std::array::IntoIter<Event, 1>>;

fn one() -> Events {
    stream::iter([Event::text("one").last()])
}

/// Answers after some seconds as the path says.
async fn slowly(seconds: u64, how: &str) -> Result<Events, Refusal> {
    sleep(SECOND * seconds as u32).await;
    match how {
        "ok" => Ok(one()),
        "panics" => panic!("the function panics on purpose"),
        _ => Err(Refusal::not_found("there is no such job")),
    }
}

#[sse_endpoint("/get/{how}", public, early = true, heartbeat = "1s")]
async fn get(Path(how): Path<String>) -> Result<Events, Refusal> {
    slowly(4, &how).await
}

#[sse_endpoint("/post/{how}", method = "post", public, early = true, heartbeat = "1s")]
async fn post(Path(how): Path<String>, _body: String) -> Result<Events, Refusal> {
    slowly(4, &how).await
}

#[sse_endpoint("/json", method = "post", public, early = true)]
async fn json(Json(_): Json<u64>) -> Events {
    one()
}

#[sse_endpoint("/private", early = true, max_connections = 1)]
async fn private() -> stream::Pending<Event> {
    panic!("it must not run")
}

#[sse_endpoint("/full", public, early = true, max_connections = 1, over_limit = "refuse")]
async fn full() -> stream::Pending<Event> {
    std::future::pending().await
}

type Hidden = (HeaderMap, Events);

/// Nothing shows its headers before it runs.
#[sse_endpoint("/hidden", public)]
async fn hidden() -> Hidden {
    (HeaderMap::new(), one())
}

fn app(sse: &HeroSse) -> Router {
    sse.routes(endpoints![get, post, json, private, full]).expect("routes")
}

async fn error_of(stream: &mut EventReader) -> Option<String> {
    stream.read_to_end().await.err().map(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_slow_function_does_not_hold_the_head_and_the_heartbeats() {
    let app = app(&sse_with(SseOptions::default()));
    for (open, begin) in [
        (testing::open(&app, "/get/ok"), "retry: "),
        (testing::open(&app, "/post/ok").body("x"), ":\n"),
    ] {
        let start = Instant::now();
        let mut stream = open.await.expect("a stream");
        assert_eq!((stream.status(), start.elapsed()), (StatusCode::OK, Duration::ZERO));
        let event = stream.next().await.expect("in time").expect("an event");
        assert_eq!((event.data.as_str(), start.elapsed()), ("one", 4 * SECOND));
        let before = stream.raw().split("data:").next().expect("a text").to_owned();
        assert!(before.starts_with(begin), "{before:?}");
        assert!(before.lines().filter(|line| *line == ":").count() >= 3, "{before:?}");
    }
}

/// Before the head, it would have been a status.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_function_ends_the_stream_by_its_profile() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let app = app(&sse);
    for (how, reason) in [("fails", "stream_error"), ("panics", "stream_panic")] {
        let mut native = testing::open(&app, &format!("/get/{how}")).await.expect("a stream");
        let events = native.read_to_end().await.expect("a clean end");
        assert!(events.last().expect("a closing event").data.contains(reason), "{events:?}");
        assert!(!native.raw().contains("no such job"));
        let mut plain =
            testing::open(&app, &format!("/post/{how}")).body("x").await.expect("a stream");
        assert!(error_of(&mut plain).await.is_some(), "{how}: {}", plain.raw());
    }
    let mut rejected = testing::open(&app, "/json").json(&"x").await.expect("a stream");
    assert!(error_of(&mut rejected).await.is_some());
    drop(rejected);
    assert_eq!(sse.connections().closed(CloseReason::StreamError), 3);
    assert_eq!(sse.connections().closed(CloseReason::StreamPanic), 2);
    assert!(sse.connections().is_empty());
    let log = log.text();
    assert!(log.contains("answered 404 after the head was sent: there is no such job"), "{log}");
    assert!(log.contains("answered 422 after the head was sent: Failed to deserialize"), "{log}");
}

#[tokio::test]
async fn token_and_limits_are_decided_before_the_head() {
    let app = app(&sse_with(SseOptions::default()));
    let error = testing::open(&app, "/private").await.expect_err("refused");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    let _open = testing::open(&app, "/full").await.expect("a stream");
    let error = testing::open(&app, "/full").await.expect_err("rejected");
    assert_eq!(error.status, Some(StatusCode::SERVICE_UNAVAILABLE));
}

/// Opens streams whose function never returns, and counts the functions that are alive.
fn waiting(sse: &HeroSse) -> (Router, Alive) {
    let alive = Alive::default();
    let wait = |alive: Alive, seconds: u64| async move {
        let held = alive.watch(stream::pending::<()>());
        sleep(SECOND * seconds as u32).await;
        drop(held);
        one()
    };
    let (of_get, of_post) = (alive.clone(), alive.clone());
    let get = sse.endpoint("/get").public().early(true).max_age(30 * SECOND);
    let get = get.handler(async move || wait(of_get, 3600).await).expect("a route");
    let post = sse.endpoint("/post").public().early(true);
    let post = post.post_handler(async move |_: String| wait(of_post, 10).await).expect("a route");
    (get.merge(post), alive)
}

#[tokio::test(start_paused = true)]
async fn the_function_is_cancelled_with_its_stream() {
    let sse = sse_with(SseOptions::default());
    let (app, alive) = waiting(&sse);
    let all = ConnectionFilter::all();
    let started = async |open: testing::Open<Router>| {
        let mut stream = open.await.expect("a stream").timeout(60 * SECOND);
        assert!(tokio::time::timeout(SECOND, stream.next()).await.is_err(), "no event yet");
        stream
    };
    // The client leaves.
    let stream = started(testing::open(&app, "/get")).await;
    assert_eq!(alive.count(), 1);
    drop(stream);
    assert_eq!((alive.count(), sse.connections().len()), (0, 0));
    // Its maximum age, and a drain.
    let mut stream = started(testing::open(&app, "/get")).await;
    drop(stream.read_to_end().await);
    assert_eq!((stream.close_reason(), alive.count()), (Some(CloseReason::MaxAge), 0));
    let mut stream = started(testing::open(&app, "/get")).await;
    assert_eq!(sse.connections().drain(&all), 1);
    drop(stream.read_to_end().await);
    assert_eq!((stream.close_reason(), alive.count()), (Some(CloseReason::Draining), 0));
    // The function of a `POST` finishes what it has begun, unless access is withdrawn.
    let mut stream = started(testing::open(&app, "/post").body("x")).await;
    assert_eq!(sse.connections().drain(&all), 1);
    assert!(tokio::time::timeout(SECOND, stream.next()).await.is_err(), "it goes on");
    assert_eq!(alive.count(), 1);
    drop(stream.read_to_end().await);
    drop(stream);
    assert_eq!((alive.count(), sse.connections().len()), (0, 0));
    let mut stream = started(testing::open(&app, "/post").body("x")).await;
    assert_eq!(sse.connections().disconnect(&all, CloseReason::Revoked), 1);
    drop(tokio::time::timeout(SECOND, stream.next()).await);
    assert_eq!(alive.count(), 0, "long before it is ready");
}

#[derive(Serialize, SseEvent)]
struct Order {
    number: u64,
}

#[sse_endpoint("/orders", public, early = true)]
async fn orders(State(topic): State<Topic<Order>>) -> Subscription<Order> {
    sleep(SECOND).await;
    topic.subscribe()
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_comes_late_resumes() {
    let topic = Topic::<Order>::new("orders");
    let sse = sse_with(SseOptions::default());
    let app = sse.routes(endpoints![orders]).expect("a route").with_state(topic.clone());
    let publish = async |number| topic.publish(Order { number }).await.expect("published");
    let mut stream = testing::open(&app, "/orders").await.expect("a stream");
    let cursor = stream.next().await.expect("in time").expect("a cursor");
    assert_eq!(cursor.event, "hero.cursor");
    publish(1).await;
    let event = stream.next().await.expect("in time").expect("an event");
    assert_eq!(event.data, "{\"number\":1}");
    let id = event.id.expect("an id");
    drop(stream);
    publish(2).await;
    for (cursor, control) in [(id.as_str(), None), ("unknown", Some("hero.gap"))] {
        let mut stream =
            testing::open(&app, "/orders").last_event_id(cursor).await.expect("a stream");
        let event = stream.next().await.expect("in time").expect("an event");
        assert_eq!(control.unwrap_or("order"), event.event, "{cursor}");
    }
    // The policy is that of a subscription, which ends after half an hour.
    let stream = testing::open(&app, "/orders").await.expect("a stream");
    let mut stream = stream.timeout(3600 * SECOND);
    drop(stream.read_to_end().await);
    assert_eq!(stream.close_reason(), Some(CloseReason::MaxAge));
}

#[tokio::test]
async fn headers_that_would_come_too_late_are_a_mistake_of_the_set_up() {
    let headed = async || (HeaderMap::new(), one());
    let sse = sse_with(SseOptions::default());
    let built = sse.endpoint("/built").public().early(true).handler::<_, _, ()>(headed);
    assert!(built.expect_err("a mistake").to_string().contains("returns headers"));
    let sse = sse_with(options("Early = true"));
    let built = sse.endpoint("/built").public().handler::<_, _, ()>(headed);
    assert!(built.expect_err("a mistake").to_string().contains("returns headers"));
    #[sse_endpoint("/shown", public)]
    async fn shown() -> Result<(HeaderMap, Events), Refusal> {
        Ok((HeaderMap::new(), one()))
    }
    let error = sse.routes::<()>(endpoints![shown]).expect_err("a mistake").to_string();
    assert!(error.contains("/shown") && error.contains("`Early`"), "{error}");
    // Behind an alias they show when the function returns.
    let (log, _guard) = Log::everything();
    let app: Router = sse.routes(endpoints![hidden]).expect("a route");
    let mut stream = testing::open(&app, "/hidden").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "one");
    assert!(log.text().contains("returns headers after the head"), "{}", log.text());
}
