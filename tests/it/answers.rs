//! What a function answers besides its events: headers, and other responses in place of a stream.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json, Router};
use futures_util::stream;
use hero_sse::SseOptions;
use hero_sse::prelude::*;
use serde_json::{Value, json};

use crate::support::testing;
use crate::support::{Alive, Log, Watched, sse_with};

type Events = stream::Iter<std::array::IntoIter<Event, 1>>;
type Session = [(&'static str, &'static str); 1];

fn one() -> Events {
    stream::iter([Event::text("one")])
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[sse_endpoint("/cookies", public)]
async fn cookies() -> (HeaderMap, impl Stream<Item = Event>) {
    (headers(&[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("mcp-session-id", "7")]), one())
}

#[sse_endpoint("/parts", public)]
async fn parts() -> (Session, AppendHeaders<Session>, Extension<u64>, Option<HeaderMap>, Events) {
    ([("x-one", "1")], AppendHeaders([("x-one", "2")]), Extension(5), None, one())
}

/// Headers of a page's handler, used by mistake.
#[sse_endpoint("/wrong", public)]
async fn wrong() -> (HeaderMap, Events) {
    let of_a_page = [
        ("content-type", "text/html"),
        ("cache-control", "max-age=600"),
        ("content-length", "3"),
        ("content-encoding", "gzip"),
        ("connection", "close"),
        ("x-accel-buffering", "yes"),
        ("x-mine", "1"),
    ];
    (headers(&of_a_page), one())
}

#[sse_endpoint("/maybe/{ok}", public)]
async fn maybe(Path(ok): Path<bool>) -> Result<(HeaderMap, impl Stream<Item = Event>), Refusal> {
    if ok { Ok((headers(&[("x-mine", "1")]), one())) } else { Err(Refusal::not_found("none")) }
}

#[sse_endpoint("/in-axum/{ok}", public)]
async fn in_axum(Path(ok): Path<bool>) -> axum::response::Result<(Session, Events)> {
    if !ok {
        Err((StatusCode::CONFLICT, "taken"))?;
    }
    Ok(([("x-mine", "1")], one()))
}

/// A value that no header can have.
#[sse_endpoint("/illegal", public)]
async fn illegal() -> ([(&'static str, &'static str); 1], Watched<Events>) {
    ([("x-mine", "two\nlines")], ALIVE.with(|alive| alive.watch(one())))
}

thread_local! {
    static ALIVE: Alive = Alive::default();
}

#[sse_endpoint("/rpc", method = "post", public, max_connections = 1)]
async fn rpc(Json(call): Json<Value>) -> Result<(Session, stream::Pending<Event>), Response> {
    match call.get("id").and_then(Value::as_u64) {
        None => Err(StatusCode::ACCEPTED.into_response()),
        Some(0) => Ok(([("mcp-session-id", "9")], stream::pending())),
        Some(1) => Err(Refusal::not_found("no such call").into_response()),
        Some(id) => Err(([("x-mine", "1")], Json(json!({"id": id}))).into_response()),
    }
}

#[sse_endpoint("/success", public)]
async fn success() -> Result<stream::Pending<Event>, Response> {
    Err(Json(json!({})).into_response())
}

fn app(sse: &HeroSse) -> Router {
    let endpoints = endpoints![cookies, parts, wrong, maybe, in_axum, illegal, rpc, success];
    sse.routes(endpoints).expect("routes")
}

async fn head(path: &str) -> HeaderMap {
    let app = app(&sse_with(SseOptions::default()));
    let mut stream = testing::open(&app, path).await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "one", "{path}");
    stream.headers().clone()
}

#[tokio::test]
async fn headers_and_cookies_come_with_the_stream() {
    let head = self::head("/cookies").await;
    assert!(head.get_all(SET_COOKIE).iter().eq(["a=1", "b=2"]), "{head:?}");
    assert_eq!(head["mcp-session-id"], "7");
    assert_eq!(head[CONTENT_TYPE], "text/event-stream");
    let head = self::head("/parts").await;
    assert!(head.get_all("x-one").iter().eq(["1", "2"]), "{head:?}");
    for path in ["/maybe/true", "/in-axum/true"] {
        assert_eq!(self::head(path).await["x-mine"], "1", "{path}");
    }
    let app = app(&sse_with(SseOptions::default()));
    for (path, status) in [("/maybe/false", 404), ("/in-axum/false", 409)] {
        let error = testing::open(&app, path).await.expect_err("refused");
        assert_eq!(error.status.map(|status| status.as_u16()), Some(status), "{path}");
    }
}

#[tokio::test]
async fn extensions_arrive_for_outer_layers() {
    use tower::ServiceExt as _;
    let app = app(&sse_with(SseOptions::default()));
    let request = http::Request::get("/parts").body(axum::body::Body::empty()).expect("a request");
    let response = app.oneshot(request).await.expect("infallible");
    assert_eq!(response.extensions().get::<u64>(), Some(&5));
}

/// A stream with these would not arrive, be cut, or be kept by a cache.
#[tokio::test]
async fn what_a_stream_needs_stays_the_librarys() {
    let (log, _guard) = Log::everything();
    let head = head("/wrong").await;
    assert_eq!(head[CONTENT_TYPE], "text/event-stream");
    assert_eq!(head[CACHE_CONTROL], "no-cache, no-store, no-transform");
    assert_eq!(head["x-accel-buffering"], "no");
    assert_eq!(head["x-mine"], "1");
    for absent in [CONTENT_LENGTH, http::header::CONTENT_ENCODING, http::header::CONNECTION] {
        assert!(!head.contains_key(&absent), "{absent}");
    }
    let warnings = log.text().lines().filter(|line| line.contains("sets a header")).count();
    assert_eq!(warnings, 1, "{}", log.text());
}

#[tokio::test]
async fn a_part_that_fails_is_the_answer_and_frees_the_slot() {
    let sse = sse_with(SseOptions::default());
    let error = testing::open(&app(&sse), "/illegal").await.expect_err("no such header");
    assert_eq!(error.status, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!((sse.connections().len(), ALIVE.with(Alive::count)), (0, 0));
}

#[tokio::test]
async fn a_post_may_answer_anything_in_place_of_a_stream() {
    let sse = sse_with(SseOptions::default());
    let app = app(&sse);
    let ask = |call: Value| testing::open(&app, "/rpc").json(&call);
    // With one slot: each answer must free it.
    for _ in 0..2 {
        let note = ask(json!({})).await.expect_err("no stream");
        assert_eq!((note.status, note.body.as_str()), (Some(StatusCode::ACCEPTED), ""));
        let mut answer = ask(json!({"id": 3})).await.expect("a success");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()["x-mine"], "1");
        drop(answer.read_to_end().await);
        assert_eq!(answer.raw(), "{\"id\":3}");
        let refused = ask(json!({"id": 1})).await.expect_err("refused");
        assert_eq!(refused.status, Some(StatusCode::NOT_FOUND));
        assert_eq!(sse.connections().len(), 0);
    }
    let counts: Vec<_> = sse.connections().counts().filter(|(_, count)| *count > 0).collect();
    assert!(counts.is_empty(), "{counts:?}");
    let stream = ask(json!({"id": 0})).await.expect("a stream");
    assert_eq!(stream.headers()["mcp-session-id"], "9");
}

#[tokio::test]
async fn a_get_that_answers_a_success_without_a_stream_is_a_mistake() {
    let (log, _guard) = Log::everything();
    let app = app(&sse_with(SseOptions::default()));
    let error = testing::open(&app, "/success").await.expect_err("no stream");
    assert_eq!(error.status, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert!(log.text().contains("the answer is 500"), "{}", log.text());
}
