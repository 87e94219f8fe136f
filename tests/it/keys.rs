//! The effect of each key of `#[sse_endpoint]`, and that the options of an endpoint take precedence over it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::FromRef;
use axum::extract::State;
use futures_util::stream;
use hero_sse::auth::Permission;
use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::testing::{self, Open, OpenError, Received, SlowReader};
use crate::support::{Log, Server, flood, options, sse_with, token};

#[derive(Clone)]
struct App {
    greeting: &'static str,
}

#[derive(Clone)]
struct Greeting(&'static str);

impl FromRef<App> for Greeting {
    fn from_ref(app: &App) -> Self {
        Self(app.greeting)
    }
}

/// A reading of one of several meters.
#[derive(Serialize, SseEvent)]
struct Reading {
    #[sse(key)]
    meter: char,
    value: u64,
}

#[derive(serde::Deserialize)]
struct Question {
    words: Vec<String>,
}

const APP: App = App { greeting: "hello" };

/// An application with these endpoints and options.
fn app(toml: &str, endpoints: hero_sse::extend::Endpoints<App>) -> (HeroSse, Router) {
    let sse = sse_with(options(toml));
    let routes = sse.routes(endpoints).expect("routes");
    (sse, Router::new().merge(routes).with_state(APP))
}

/// The options of an endpoint.
fn table(path: &str, setting: &str) -> String {
    format!("[SseOptions.Endpoints.\"{path}\"]\n{setting}")
}

async fn first(open: Open<Router>) -> Received {
    let mut stream = open.await.expect("a stream");
    stream.next().await.expect("in time").expect("an event")
}

async fn refused(open: Open<Router>) -> OpenError {
    open.await.expect_err("a refusal")
}

fn reason(close: &Received) -> String {
    assert_eq!(close.event, "hero.close");
    close.json::<Value>().expect("JSON")["reason"].as_str().expect("a reason").to_owned()
}

#[sse_endpoint("/beats", public, heartbeat = "10s", heartbeat_event = true)]
async fn beats() -> impl Stream<Item = Event> {
    stream::pending()
}

#[tokio::test(start_paused = true)]
async fn heartbeat_and_its_event() {
    let general = "HeartbeatInterval = \"1m\"\nHeartbeatEvent = false\n";
    let slower = general.to_owned() + &table("/beats", "HeartbeatInterval = \"20s\"");
    for (toml, millis) in [(general, 10_000), (&slower, 20_000)] {
        let (_, app) = app(toml, endpoints![beats]);
        let open = testing::open(&app, "/beats").await.expect("a stream");
        let mut stream = open.timeout(Duration::from_secs(30));
        let start = Instant::now();
        for beat in 0..3 {
            let event = stream.next().await.expect("in time").expect("an event");
            assert_eq!(event.event, "hero.heartbeat");
            assert_eq!(event.json::<Value>().expect("JSON"), json!({"interval_ms": millis}));
            assert_eq!(start.elapsed().as_millis(), beat * millis);
        }
    }
    let (_, app) = app(&table("/beats", "HeartbeatEvent = false"), endpoints![beats]);
    let mut stream = testing::open(&app, "/beats").await.expect("a stream");
    assert!(stream.next().await.is_err(), "{}", stream.raw());
}

#[sse_endpoint("/aged", public, heartbeat = "20s", max_age = "60s")]
async fn aged() -> impl Stream<Item = Event> {
    stream::pending()
}

#[tokio::test(start_paused = true)]
async fn max_age() {
    let longer = table("/aged", "MaxAge = \"10m\"");
    for (toml, seconds) in [("MaxAge = \"1h\"", 48..=60), (&longer, 480..=600)] {
        let (_, app) = app(toml, endpoints![aged]);
        let start = Instant::now();
        let open = testing::open(&app, "/aged").await.expect("a stream");
        let mut stream = open.timeout(Duration::from_secs(1200));
        let close = stream.next().await.expect("in time").expect("an event");
        assert_eq!(reason(&close), "max_age");
        assert!(seconds.contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }
}

#[sse_endpoint("/retried", public, retry = "20s")]
async fn retried() -> impl Stream<Item = Event> {
    stream::iter([Event::text("one")])
}

#[tokio::test]
async fn retry() {
    for (toml, seconds) in
        [("Retry = \"1s\"", 20..=30), (&table("/retried", "Retry = \"2m\""), 120..=180)]
    {
        let (_, app) = app(toml, endpoints![retried]);
        let mut stream = testing::open(&app, "/retried").await.expect("a stream");
        stream.next().await.expect("in time").expect("an event");
        let retry = stream.retry().expect("a reconnection time").as_secs();
        assert!(seconds.contains(&retry), "{retry}");
    }
}

#[sse_endpoint("/few", max_per_principal = 1, max_connections = 2)]
async fn few() -> impl Stream<Item = Event> {
    stream::iter([Event::text("in")]).chain_pending()
}

/// Keeps a stream open.
trait ChainPending: Stream + Sized {
    fn chain_pending(self) -> impl Stream<Item = Self::Item> {
        futures_util::StreamExt::chain(self, stream::pending())
    }
}

impl<T: Stream> ChainPending for T {}

#[tokio::test]
async fn max_per_principal_and_max_connections() {
    let open = |app: &Router, who: &str| testing::open(app, "/few").principal(who);
    let (sse, few_app) = app("MaxPerPrincipal = 9", endpoints![few]);
    let ann = open(&few_app, "ann").await.expect("a stream");
    assert_eq!(reason(&first(open(&few_app, "ann")).await), "over_limit");
    let bob = open(&few_app, "bob").await.expect("a stream");
    assert_eq!(sse.connections().snapshot().len(), 2);
    assert_eq!(reason(&first(open(&few_app, "cid")).await), "over_limit");
    drop(ann);
    assert_eq!(first(open(&few_app, "cid")).await.data, "in");
    drop(bob);

    let more = table("/few", "MaxPerPrincipal = 2\nMaxConnections = 3");
    let (sse, app) = app(&more, endpoints![few]);
    let _streams = [open(&app, "ann").await, open(&app, "ann").await, open(&app, "bob").await];
    assert_eq!(sse.connections().len(), 3);
    assert_eq!(reason(&first(open(&app, "cid")).await), "over_limit");
}

#[sse_endpoint("/strict", max_per_principal = 1, max_connections = 2, over_limit = "refuse")]
async fn strict() -> impl Stream<Item = Event> {
    stream::iter([Event::text("in")]).chain_pending()
}

#[tokio::test]
async fn over_limit() {
    let open = |app: &Router, who: &str| testing::open(app, "/strict").principal(who);
    let (_, strict_app) = app("OverLimit = \"retry\"", endpoints![strict]);
    let _ann = open(&strict_app, "ann").await.expect("a stream");
    let again = refused(open(&strict_app, "ann")).await;
    assert_eq!(again.status, Some(StatusCode::TOO_MANY_REQUESTS));
    let _bob = open(&strict_app, "bob").await.expect("a stream");
    let third = refused(open(&strict_app, "cid")).await;
    assert_eq!(third.status, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(third.headers.contains_key(RETRY_AFTER));

    let (_, app) = app(&table("/strict", "OverLimit = \"retry\""), endpoints![strict]);
    let _ann = open(&app, "ann").await.expect("a stream");
    assert_eq!(reason(&first(open(&app, "ann")).await), "over_limit");
}

#[sse_endpoint("/careful", token_sources = ["header"])]
async fn careful(who: Principal) -> impl Stream<Item = Event> {
    stream::iter([Event::text(who.subject())])
}

#[tokio::test]
async fn token_sources() {
    let query = format!("/careful?access_token={}", token());
    let (_, careful_app) = app("TokenSources = [\"header\", \"query\"]", endpoints![careful]);
    let none = refused(testing::open(&careful_app, &query)).await;
    assert_eq!(none.status, Some(StatusCode::UNAUTHORIZED));
    let open = testing::open(&careful_app, "/careful").bearer(&token());
    assert_eq!(first(open).await.data, "ann");

    let (_, app) = app(&table("/careful", "TokenSources = [\"query\"]"), endpoints![careful]);
    assert_eq!(first(testing::open(&app, &query)).await.data, "ann");
}

#[sse_endpoint("/old", public, deprecated)]
async fn old() -> impl Stream<Item = Event> {
    stream::iter([Event::text("still here")])
}

#[tokio::test]
async fn deprecated_is_logged_once() {
    assert!(old::DESCRIPTOR.is_deprecated() && !careful::DESCRIPTOR.is_deprecated());
    let (log, _guard) = Log::everything();
    let (_, app) = app("", endpoints![old, retried]);
    let told = || {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("marked as deprecated"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    first(testing::open(&app, "/retried")).await;
    assert_eq!(told(), Vec::<String>::new(), "not used yet");
    for _ in 0..3 {
        assert_eq!(first(testing::open(&app, "/old")).await.data, "still here");
    }
    let told = told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(" INFO ") && told[0].contains("/old"), "{told:?}");
}

#[sse_endpoint("/impatient", public, write_timeout = "300ms")]
async fn impatient() -> impl Stream<Item = Event> {
    flood()
}

#[tokio::test]
async fn write_timeout() {
    let patient = table("/impatient", "WriteTimeout = \"1m\"");
    for (toml, gives_up) in [("WriteTimeout = \"off\"", true), (&patient, false)] {
        let (sse, app) = app(toml, endpoints![impatient]);
        let server = Server::start(&sse, app).await;
        let slow = SlowReader::connect(server.address, "/impatient", &[]).await.expect("a socket");
        let limit = Duration::from_millis(if gives_up { 5000 } else { 1200 });
        assert_eq!(slow.reset_within(limit).await.is_some(), gives_up, "{toml}");
        drop(slow);
        server.stop().await;
    }
}

fn readings(count: u64) -> impl Stream<Item = Reading> {
    stream::iter((1..=count).map(|value| Reading { meter: ['a', 'b'][value as usize % 2], value }))
}

#[sse_endpoint("/buffered", public, buffer = 2, overflow = "drop_oldest")]
async fn buffered() -> impl Stream<Item = Reading> {
    readings(10)
}

#[sse_endpoint("/latest", public, overflow = "latest")]
async fn latest() -> impl Stream<Item = Reading> {
    readings(10)
}

/// What a late reader receives.
async fn found_late(toml: &str, path: &str) -> Vec<String> {
    let (_, app) = app(toml, endpoints![buffered, latest]);
    let mut stream = testing::open(&app, path).await.expect("a stream");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let events = stream.read_to_end().await.expect("a clean end");
    let text = |event: &Received| match event.json::<Value>().expect("JSON") {
        data if event.event == "hero.gap" => format!("gap of {}", data["missed"]),
        _ if event.event == "hero.close" => reason(event),
        data => data["value"].to_string(),
    };
    events.iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn buffer_and_overflow() {
    let general = "Buffer = 100\nOverflow = \"disconnect\"";
    assert_eq!(found_late(general, "/buffered").await, ["gap of 8", "9", "10", "ended"]);
    assert_eq!(found_late(general, "/latest").await, ["9", "10", "ended"]);
    let larger = table("/buffered", "Buffer = 3");
    assert_eq!(found_late(&larger, "/buffered").await, ["gap of 7", "8", "9", "10", "ended"]);
    let other = table("/buffered", "Overflow = \"disconnect\"");
    assert_eq!(found_late(&other, "/buffered").await, ["1", "2", "overflow"]);
}

#[sse_endpoint("/state", public, state = App)]
async fn state(State(Greeting(greeting)): State<Greeting>) -> impl Stream<Item = Event> {
    stream::iter([Event::text(greeting)])
}

#[tokio::test]
async fn state_is_the_state_of_the_application() {
    let (_, app) = app("", endpoints![state]);
    assert_eq!(first(testing::open(&app, "/state")).await.data, "hello");
}

#[sse_endpoint("/ask", method = "post", event = "answer", max_connections = 1)]
async fn ask(
    State(App { greeting }): State<App>,
    who: Principal,
    Json(question): Json<Question>,
) -> impl Stream<Item = Event> {
    let who = who.subject().to_owned();
    let answer = move |word| Event::text(format!("{greeting} {who}: {word}"));
    stream::iter(question.words.into_iter().map(answer)).chain_pending()
}

#[tokio::test]
async fn post_passes_its_body_to_the_handler() {
    let (sse, app) = app("", endpoints![ask]);
    let question = json!({"words": ["what", "why"]});
    let mut stream =
        testing::open(&app, "/ask").bearer(&token()).json(&question).await.expect("200");
    for word in ["what", "why"] {
        let event = stream.next().await.expect("in time").expect("an event");
        assert_eq!((event.event.as_str(), event.data), ("answer", format!("hello ann: {word}")));
    }
    drop(stream);

    let server = Server::start(&sse, app).await;
    let open = testing::connect(server.address, "/ask").bearer(&token()).json(&question);
    assert_eq!(first(open).await.data, "hello ann: what");
    server.stop().await;
}

#[tokio::test]
async fn post_does_not_answer_get_and_takes_no_token_from_the_query() {
    let (_, app) = app("TokenSources = [\"header\", \"query\"]", endpoints![ask]);
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let open = testing::open(&app, "/ask").bearer(&token()).method(method.clone());
        let other = refused(open).await;
        assert_eq!(other.status, Some(StatusCode::METHOD_NOT_ALLOWED), "{method}");
        assert_eq!(other.headers[ALLOW], "POST", "{method}");
    }
    let query = format!("/ask?access_token={}", token());
    let question = json!({"words": []});
    let none = refused(testing::open(&app, &query).json(&question)).await;
    assert_eq!(none.status, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn an_invalid_body_is_refused_before_the_stream_and_frees_the_slot() {
    let (sse, app) = app("", endpoints![ask]);
    let open = || testing::open(&app, "/ask").bearer(&token());
    let json = |body: &'static str| open().header("content-type", "application/json").body(body);
    for (open, status) in [
        (json("{"), StatusCode::BAD_REQUEST),
        (json("{\"words\": 3}"), StatusCode::UNPROCESSABLE_ENTITY),
        (open().body("{\"words\": []}"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (json(String::leak("x".repeat(3 << 20))), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let error = refused(open).await;
        assert_eq!(error.status, Some(status));
        let kind = &error.headers[CONTENT_TYPE];
        assert!(!kind.as_bytes().starts_with(b"text/event-stream"), "{kind:?}");
        assert!(sse.connections().is_empty(), "{status}");
    }
    // There is one slot, and it is free.
    open().json(&json!({"words": []})).await.expect("a stream");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_arrives_times_out() {
    let (sse, app) = app("", endpoints![ask]);
    let never = Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>());
    let bearer = format!("Bearer {}", token());
    let request = Request::post("/ask")
        .header(CONTENT_TYPE, "application/json")
        .header("authorization", bearer)
        .body(never)
        .expect("a request");
    let start = Instant::now();
    // Without `testing::open`, whose timeout is five seconds.
    let response = app.oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(start.elapsed().as_secs(), 30);
    assert!(sse.connections().is_empty());
}

enum Scope {
    UsageRead,
}

impl From<Scope> for Permission {
    fn from(Scope::UsageRead: Scope) -> Self {
        Self::from_static("usage.read")
    }
}

const READ: &str = "const.read";

#[sse_endpoint("/string", permission = "string.read")]
async fn string() -> impl Stream<Item = Event> {
    stream::pending()
}

#[sse_endpoint("/constant", permission = READ)]
async fn constant() -> impl Stream<Item = Event> {
    stream::pending()
}

#[sse_endpoint("/enum", permission = Scope::UsageRead)]
async fn of_an_enum() -> impl Stream<Item = Event> {
    stream::pending()
}

#[sse_endpoint("/all", permission = all("a", READ))]
async fn all() -> impl Stream<Item = Event> {
    stream::pending()
}

#[sse_endpoint("/any", permission = any("a", Scope::UsageRead))]
async fn any() -> impl Stream<Item = Event> {
    stream::pending()
}

#[sse_endpoint("/nested", permission = all("a", any("b", all("c", READ)), "d"))]
async fn nested() -> impl Stream<Item = Event> {
    stream::pending()
}

#[tokio::test]
async fn permissions() {
    let (_, app) = app("", endpoints![string, constant, of_an_enum, all, any, nested]);
    let open = |path: &str, held: &str| {
        let ann = held.split_whitespace().map(str::to_owned);
        let ann = ann.fold(Principal::test("ann"), Principal::permission);
        testing::open(&app, path).principal(ann)
    };
    for (path, held, lacking, scope) in [
        ("/string", "a", "string.read", "string.read"),
        ("/constant", "string.read", "const.read", "const.read"),
        ("/enum", "", "usage.read", "usage.read"),
        ("/all", "a", "const.read", "a const.read"),
        ("/all", "", "a and const.read", "a const.read"),
        ("/any", "b", "a or usage.read", "a"),
        ("/nested", "a d", "b or (c and const.read)", "a b d"),
        ("/nested", "c const.read", "a and d", "a b d"),
        ("/nested", "a c d", "b or (c and const.read)", "a b d"),
    ] {
        let error = refused(open(path, held)).await;
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN), "{path} {held}");
        let problem: Value = serde_json::from_str(&error.body).expect("JSON");
        assert_eq!(problem["detail"], format!("the caller lacks the permission {lacking}"));
        let expected =
            format!("Bearer realm=\"hero-sse\", error=\"insufficient_scope\", scope=\"{scope}\"");
        assert_eq!(error.headers[WWW_AUTHENTICATE], expected.as_str(), "{path} {held}");
        let none = refused(testing::open(&app, path)).await;
        assert_eq!(none.status, Some(StatusCode::UNAUTHORIZED), "{path}");
    }
    for (path, held) in [
        ("/string", "string.read"),
        ("/constant", "const.read"),
        ("/enum", "usage.read"),
        ("/all", "const.read a"),
        ("/any", "usage.read"),
        ("/any", "a"),
        ("/nested", "a b d"),
        ("/nested", "d const.read c a"),
    ] {
        open(path, held).await.unwrap_or_else(|error| panic!("{path} {held}: {error}"));
    }
}
