//! What events a plain stream has, and what `retry` and names mean on either profile.

use std::time::Duration;

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::connections::ConnectionFilter;
use hero_sse::options::{Overflow, Profile};
use hero_sse::prelude::*;
use hero_sse::testing::{Open, ReadError};
use hero_sse::{CloseReason, Event, HeroSse, SseOptions};
use http::StatusCode;
use serde::Serialize;

use super::sse;
use crate::support::testing::{self, EventReader};
use crate::support::{burst, options, sse_with};

/// Reads to the end. Returns the bytes, and whether the end was clean.
async fn all(open: Open<Router>) -> (String, bool) {
    let mut reader = open.await.expect("a stream").timeout(Duration::from_secs(3_600));
    rest(&mut reader).await
}

async fn rest(reader: &mut EventReader) -> (String, bool) {
    let clean = loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break true,
            Err(ReadError::Broken(_)) => break false,
            Err(late) => panic!("{late} after {:?}", reader.raw()),
        }
    };
    (reader.raw(), clean)
}

#[derive(SseEvent)]
enum Message {
    Delta { n: u64 },
    Error { message: String },
}

#[sse_endpoint("/messages", method = "post", public)]
async fn messages() -> impl Stream<Item = Message> {
    let error = Message::Error { message: "overloaded".to_owned() };
    stream::iter([Message::Delta { n: 1 }, error])
}

#[sse_endpoint("/messages", public)]
async fn native_messages() -> impl Stream<Item = Message> {
    stream::pending()
}

#[sse_endpoint("/messages", public, profile = "plain")]
async fn plain_messages() -> Result<impl Stream<Item = Message>, Refusal> {
    Ok(stream::pending())
}

#[sse_endpoint("/results", public)]
async fn native_results() -> Result<impl Stream<Item = Result<Message, String>>, Refusal> {
    Ok(stream::pending())
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_have_events_called_error() {
    let sse = sse("");
    let app: Router = sse.routes(endpoints![messages, plain_messages]).expect("routes");
    let (raw, clean) = all(testing::open(&app, "/messages").body("")).await;
    assert!(raw.ends_with("event: error\ndata: {\"message\":\"overloaded\"}\n\n"), "{raw}");
    assert!(clean);
}

#[test]
fn a_native_endpoint_of_events_called_error_is_refused_with_the_cure() {
    let sse = sse("");
    let cure = "called `error`, and an `EventSource` passes those";
    for wrong in
        [sse.routes::<()>(endpoints![native_messages]), sse.routes(endpoints![native_results])]
    {
        let error = wrong.expect_err("a trap").to_string();
        assert!(error.contains(cure) && error.contains("profile = \"plain\""), "{error}");
    }
    let built = sse.endpoint("/b").public();
    let error =
        built.handler::<_, _, ()>(async || stream::pending::<Message>()).expect_err("a trap");
    assert!(error.to_string().contains(cure), "{error}");
    let named = sse.endpoint("/b").public().event("open");
    let error = named.handler::<_, _, ()>(async || burst(1)).expect_err("a trap");
    assert!(error.to_string().contains("called `open`"), "{error}");
    let cured = sse.endpoint("/b").public().profile(Profile::Plain);
    let _app: Router = cured.handler(async || stream::pending::<Message>()).expect("plain");
}

#[tokio::test(start_paused = true)]
async fn an_event_called_error_ends_a_native_stream_with_the_cure_in_the_log() {
    let (log, _guard) = crate::support::Log::everything();
    let sse = sse("");
    let trap = || Event::text("x").named("error").expect("a name");
    let topic = Topic::<Event>::new("traps");
    let of_topic = topic.clone();
    let own = sse
        .endpoint("/own")
        .public()
        .handler(async move || stream::iter([Event::text("1"), trap()]).chain(stream::pending()));
    let shared =
        sse.endpoint("/topic").public().handler(async move || of_topic.subscribe().recent(9));
    let app = own.expect("a route").merge(shared.expect("a route"));
    topic.publish(Event::text("1")).await.expect("published");
    topic.publish(trap()).await.expect("published");
    for path in ["/own", "/topic"] {
        let (raw, clean) = all(testing::open(&app, path)).await;
        assert!(raw.contains("data: 1\n\n") && !raw.contains("event: error"), "{raw}");
        assert!(raw.contains("\"stream_error\"") && clean, "{raw}");
    }
    assert_eq!(log.text().matches("write `profile = \"plain\"`").count(), 2, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_single_lines_and_nothing_is_added() {
    let sse = sse("HeartbeatInterval = \"10s\"\nHeartbeatEvent = true");
    let slow = || {
        let late = stream::once(async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Event::text("2").with_id(8).expect("an id").last()
        });
        stream::iter([Event::text("1").with_id(7).expect("an id")]).chain(late)
    };
    let app: Router =
        sse.endpoint("/s").public().post_handler(async move || slow()).expect("a route");
    let (raw, clean) = all(testing::open(&app, "/s").body("")).await;
    assert_eq!((raw.as_str(), clean), ("id: 7\ndata: 1\n\n:\n:\nid: 8\ndata: 2\n\n", true));
    // An id is the application's, so a client that returns with it is the application's affair.
    for id in ["8", "8;hero.end", "hero.end"] {
        let again = testing::open(&app, "/s").body("").last_event_id(id).await.expect("no 204");
        assert_eq!(again.status(), StatusCode::OK, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_under_plain_sends_its_events_alone_and_ends_cleanly() {
    let sse = sse("");
    for merged in [false, true] {
        let (topic, other) = (Topic::<Event>::new("plain"), Topic::<Event>::new("other"));
        let (one, two) = (topic.clone(), other.clone());
        let plain = sse.endpoint(if merged { "/m" } else { "/s" }).public().profile(Profile::Plain);
        let app: Router = match merged {
            false => plain.handler(async move || one.subscribe()),
            true => plain.handler(async move || one.subscribe().and(two.subscribe())),
        }
        .expect("a route");
        let mut reader =
            testing::open(&app, if merged { "/m" } else { "/s" }).await.expect("a stream");
        let publish = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            topic.publish(Event::text("1")).await.expect("published");
            topic.publish(Event::text("2").last()).await.expect("published");
            other.publish(Event::text("3").last()).await.expect("published");
        });
        let (raw, clean) = rest(&mut reader).await;
        publish.await.expect("no panic");
        assert!(clean && !raw.contains("hero.") && !raw.contains("retry"), "{raw}");
        let data: Vec<_> = raw.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data, if merged { vec!["1", "2", "3"] } else { vec!["1", "2"] });
        assert_eq!(raw.matches("id: ").count(), data.len(), "{raw}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_a_410_before_the_head_unless_something_answers_it() {
    let sse = sse("");
    let topic = Topic::<Event>::builder("gaps").retain_events(2).build();
    let (bare, answered) = (topic.clone(), topic.clone());
    let plain = |path: &str| sse.endpoint(path).public().profile(Profile::Plain);
    let bare = plain("/bare").handler(async move || bare.subscribe());
    let answered = plain("/answered").handler(async move || {
        answered.subscribe().on_gap(|_| async { Ok(vec![Event::text("state")]) })
    });
    let app = bare.expect("a route").merge(answered.expect("a route"));
    for n in 0..10 {
        topic.publish(Event::text(n.to_string())).await.expect("published");
    }
    let gone = testing::open(&app, "/bare").last_event_id("of-elsewhere").await.expect_err("a gap");
    assert_eq!(gone.status, Some(StatusCode::GONE));
    assert!(gone.body.contains("no longer available"), "{}", gone.body);
    assert!(sse.connections().is_empty() && sse.connections().gaps() == 1);
    let mut state =
        testing::open(&app, "/answered").last_event_id("of-elsewhere").await.expect("open");
    assert_eq!(state.next().await.expect("in time").expect("an event").data, "state");
    assert!(!state.raw().contains("hero."), "{}", state.raw());
}

#[tokio::test(start_paused = true)]
async fn a_plain_stream_that_drops_events_breaks_off() {
    let sse = sse("");
    let flood = || stream::iter(0..1_000).map(|n| Event::text(n.to_string()));
    for overflow in [Overflow::Disconnect, Overflow::DropOldest] {
        let path = format!("/{overflow:?}");
        let route = sse.endpoint(path.as_str()).public().buffer(8).overflow(overflow);
        let app: Router = route.post_handler(async move || flood()).expect("a route");
        let open = testing::open(&app, &path).body("");
        let mut reader = open.await.expect("a stream");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (raw, clean) = rest(&mut reader).await;
        assert!(!clean && !raw.contains("hero."), "{raw}");
    }
    assert_eq!(sse.connections().closed(CloseReason::Overflow), 2);
}

#[tokio::test(start_paused = true)]
async fn direct_messages_reach_a_plain_stream_only_if_it_asks_for_them() {
    let sse = sse("");
    let quiet = sse.endpoint("/quiet").public().post_handler(async || burst(1)).expect("a route");
    let asks = sse.endpoint("/asks").public().direct_events(true);
    let app: Router = quiet.merge(asks.post_handler(async || burst(1)).expect("a route"));
    let mut quiet = testing::open(&app, "/quiet").body("").await.expect("a stream");
    let mut asks = testing::open(&app, "/asks").body("").await.expect("a stream");
    let sent = sse.connections().send(&ConnectionFilter::all(), Event::text("direct"));
    assert_eq!(sent.expect("an event").accepted, 1);
    for reader in [&mut quiet, &mut asks] {
        while reader.next().await.is_ok() {}
    }
    assert!(!quiet.raw().contains("direct") && asks.raw().contains("direct"));
}

/// The application's word about reconnecting stands.
#[tokio::test(start_paused = true)]
async fn a_closing_event_repeats_the_applications_own_reconnection_time() {
    #[derive(Serialize, SseEvent)]
    struct Slow {
        #[sse(retry)]
        retry: Option<Duration>,
    }
    let sse = sse_with(options("Retry = \"2s\""));
    let events = || [Slow { retry: Some(Duration::from_secs(30)) }, Slow { retry: None }];
    let topic = Topic::<Slow>::new("slow");
    let (one, two) = (topic.clone(), topic.clone());
    let other = Topic::<Slow>::new("other");
    let direct = sse.endpoint("/direct").public().handler(async move || stream::iter(events()));
    let buffered = sse.endpoint("/buffered").public().buffer(8);
    let buffered = buffered.handler(async move || stream::iter(events()));
    let route = |path| sse.endpoint(path).public().max_age(Duration::from_secs(60));
    let shared = route("/topic").handler(async move || one.subscribe().recent(9));
    let merged =
        route("/merged").handler(async move || two.subscribe().recent(9).and(other.subscribe()));
    let routes =
        [direct, buffered, shared, merged].into_iter().map(|route| route.expect("a route"));
    let app = routes.fold(Router::new(), Router::merge);
    for event in events() {
        topic.publish(event).await.expect("published");
    }
    for path in ["/direct", "/buffered", "/topic", "/merged"] {
        let (raw, clean) = all(testing::open(&app, path)).await;
        let close = raw.split("event: hero.close\n").nth(1).expect("a closing event");
        assert!(clean && close.starts_with("retry: 30000\ndata: "), "{path}: {raw}");
        assert!(close.contains("\"retry_ms\":30000") && close.ends_with("}\n\n"), "{path}: {raw}");
        assert!(raw.starts_with("retry: ") && !raw.starts_with("retry: 30000"), "{path}: {raw}");
    }
}

async fn of_context(sse: SseContext) -> axum::response::Response {
    sse.public().stream(stream::iter([Event::text("1").last()])).await
}

#[tokio::test(start_paused = true)]
async fn a_handler_with_a_context_is_plain_by_post_as_well() {
    let sse: HeroSse = sse_with(SseOptions::default());
    let app: Router = Router::new()
        .route("/s", axum::routing::get(of_context).post(of_context))
        .layer(axum::Extension(sse));
    assert_eq!(all(testing::open(&app, "/s").body("")).await, ("data: 1\n\n".to_owned(), true));
    assert!(all(testing::open(&app, "/s")).await.0.contains("hero.close"));
    let head = testing::open(&app, "/s").method(http::Method::HEAD).await.expect("a head");
    assert_eq!(head.raw(), "");
}

/// Direct events, and what hooks of a topic send, are not seen by `routes()`.
#[tokio::test(start_paused = true)]
async fn no_way_sends_an_event_called_error_to_a_native_stream() {
    let sse = sse("");
    let error = || Event::text("x").named("error").expect("a name");
    let topic = Topic::<Event>::new("t");
    let other = Topic::<Event>::new("other");
    let (one, two) = (topic.clone(), topic.clone());
    let alone = async move || one.subscribe().begin_with(async move || Ok(vec![error()]));
    let merged = async move || {
        let begun = two.subscribe().begin_with(async move || Ok(vec![error()]));
        begun.and(other.subscribe())
    };
    let alone: Router = sse.endpoint("/alone").public().handler(alone).expect("a route");
    let merged = sse.endpoint("/merged").public().handler(merged).expect("a route");
    let app = alone.merge(merged);
    for path in ["/alone", "/merged"] {
        let (raw, clean) = all(testing::open(&app, path)).await;
        assert!(clean && raw.contains("stream_error") && !raw.contains("event: error"), "{raw}");
    }
    let sent = sse.connections().send(&ConnectionFilter::all(), error());
    assert!(sent.expect_err("a trap").to_string().contains("error"));
}
