//! Streams that another server made, passed on.

mod cuts;
mod model;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, sse};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hero_sse::adopt::{self, AdoptError, Adopted};
use hero_sse::{CloseReason, Event, HeroSse, LastEventId, Refusal, SseOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::testing::{self, SlowReader};
use crate::support::{Alive, Log, Server, eventually, options, sse_with};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";

/// A server on a socket that does to each connection, after the head of its request, what a test says.
struct Upstream {
    address: SocketAddr,
    /// The heads of all requests.
    requests: mpsc::UnboundedReceiver<String>,
    /// Number of open connections.
    open: Arc<AtomicUsize>,
    /// Number of bytes that it has sent.
    sent: Arc<AtomicUsize>,
}

impl Upstream {
    /// Sends the parts of the answer, then repeats the last until the connection breaks, if `forever`.
    async fn start(parts: &[&str], forever: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (heads, requests) = mpsc::unbounded_channel();
        let (open, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let parts: Vec<_> = parts.iter().map(|part| part.to_string()).collect();
        let (counted, counted_sent) = (open.clone(), sent.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (heads, parts) = (heads.clone(), parts.clone());
                let (open, sent) = (counted.clone(), counted_sent.clone());
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    let _ = heads.send(head(&mut socket).await);
                    let mut parts = parts.iter();
                    let mut next = parts.next();
                    while let Some(part) = next {
                        if socket.write_all(part.as_bytes()).await.is_err() {
                            break;
                        }
                        sent.fetch_add(part.len(), Ordering::SeqCst);
                        next = parts.next().or(next.filter(|_| forever));
                        // So that the parts arrive one by one.
                        tokio::task::yield_now().await;
                    }
                    drop(socket);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, requests, open, sent }
    }

    async fn answering(parts: &[&str]) -> Self {
        Self::start(parts, false).await
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Reads the head of a request, which has no body.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("UTF-8")
}

async fn get(url: String, cursor: LastEventId) -> http::Response<reqwest::Body> {
    let mut request = reqwest::Client::new().get(url);
    if let Some(id) = cursor.as_str() {
        request = request.header("last-event-id", id);
    }
    request.send().await.expect("an answer").into()
}

/// An endpoint `/s` that passes on what is at `url`.
fn passing_on(sse: &HeroSse, url: String) -> Router {
    let pass_on = async move |cursor: LastEventId| -> Result<Adopted, AdoptError> {
        adopt::response(get(url, cursor).await)
    };
    sse.endpoint("/s").public().handler(pass_on).expect("a route")
}

fn server() -> HeroSse {
    sse_with(SseOptions::default())
}

/// The events of a stream without `hero.*`, as name, id and data.
async fn events(app: &Router) -> Vec<(String, Option<String>, String)> {
    let mut reader = hero_sse::testing::open(app, "/s").await.expect("a stream");
    let events = reader.read_to_end().await.expect("a clean end");
    events.into_iter().map(|event| (event.event, event.id, event.data)).collect()
}

fn event(name: &str, id: Option<&str>, data: &str) -> (String, Option<String>, String) {
    (name.into(), id.map(Into::into), data.into())
}

#[tokio::test]
async fn a_response_of_reqwest_is_passed_on_block_by_block() {
    let upstream = Upstream::answering(&[
        HEAD,
        ": hello\n\nevent: us",
        "age\r\nid: 7\r\nda",
        "ta: {\"used\":1}\r",
        "\n\r",
        "\n:\n\ndata: a\ndata: b\n",
        "\ndata: [DONE]\n\n",
    ])
    .await;
    let sse = server();
    let app = passing_on(&sse, upstream.url());
    assert_eq!(
        events(&app).await,
        [
            event("usage", Some("7"), "{\"used\":1}"),
            event("message", None, "a\nb"),
            event("message", None, "[DONE]"),
        ]
    );
    assert_eq!(sse.connections().closed(CloseReason::Ended), 1);
}

#[tokio::test]
async fn an_unnamed_event_gets_no_name_and_a_comment_is_not_passed_on() {
    let sse = server();
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async || {
            adopt::stream(stream::iter([Ok::<_, Infallible>(": noise\ndata: x\nfoo: bar\n\n")]))
        })
        .expect("a route");
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    reader.read_to_end().await.expect("a clean end");
    let raw = reader.raw();
    assert!(raw.contains("\ndata: x\n\n"), "{raw}");
    assert!(!raw.contains("noise") && !raw.contains("foo"), "{raw}");
}

/// The bytes of our stream for one of the upstream, between the preamble and the closing event.
async fn passed_on(text: &'static str, name: Option<&'static str>) -> String {
    let sse = server();
    let endpoint = sse.endpoint("/s").public();
    let endpoint = match name {
        Some(name) => endpoint.event(name),
        None => endpoint,
    };
    let upstream = async move || adopt::stream(stream::iter([Ok::<_, Infallible>(text)]));
    let app: Router = endpoint.handler(upstream).expect("a route");
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    reader.read_to_end().await.expect("a clean end");
    let raw = reader.raw();
    let (_, events) = raw.split_once("data: start\n\n").expect("the first event");
    let (events, _) = events.split_once("data: end\n\n").expect("the last event");
    events.to_owned()
}

#[tokio::test]
async fn blocks_arrive_as_the_table_of_the_module_says() {
    macro_rules! case {
        ($text:literal, $expected:expr) => {
            let text = concat!("data: start\n\n", $text, "data: end\n\n");
            assert_eq!(passed_on(text, None).await, $expected, "{}", $text);
            assert_eq!(passed_on(text, Some("declared")).await, $expected, "{}", $text);
        };
    }
    let long = "x".repeat(256);
    case!("event: usage\rid:7\r\ndata:a\ndata: b\n\n", "event: usage\nid: 7\ndata: a\ndata: b\n\n");
    case!("data: a\nretry: 2000\n\n", "retry: 2000\ndata: a\n\n");
    case!(
        "retry: 1\ndata: a\n\nretry: 99999999999999999999\ndata: b\n\n",
        "retry: 500\ndata: a\n\nretry: 86400000\ndata: b\n\n"
    );
    // Alone, it is no block of its own.
    case!("retry: 2000\n\n", "retry: 2000\n");
    case!("id: 7\n\n", "id: 7\n\n");
    case!("id: 7\nid\ndata: a\n\n", "id:\ndata: a\n\n");
    case!("id:\n\n", "id:\n\n");
    case!("event: complete\n\n", "event: complete\n\n");
    case!("event: complete\ndata\n\n", "event: complete\ndata:\n\n");
    case!(":\n\n: x\nfoo: bar\n\n\n\n", "");
    for id in ["", " ", "7\t", "\u{85}", &long] {
        let text = format!("data: start\n\nid: {id} \ndata: a\n\ndata: end\n\n");
        assert_eq!(passed_on(text.leak(), None).await, "data: a\n\n", "{id:?}");
    }
    case!("event: hero.heartbeat\nretry: 3000\ndata: {}\n\n", "retry: 3000\n");
    case!("event: hero.cursor\nid: 7\ndata: {}\n\n", "id: 7\n\n");
    case!("data: a\u{0}b\u{2028}c\n\n", "data: a\u{0}b\u{2028}c\n\n");
}

#[tokio::test(start_paused = true)]
async fn another_handlers_sse_gets_our_heartbeats_and_none_of_its_own() {
    let sse = sse_with(options("HeartbeatInterval = \"10s\""));
    let handler = async || {
        let events = stream::iter(1..=2).then(|n| async move {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Ok::<_, Infallible>(sse::Event::default().event("n").data(n.to_string()))
        });
        let keep_alive = sse::KeepAlive::new().interval(Duration::from_secs(1)).text("theirs");
        sse::Sse::new(events).keep_alive(keep_alive)
    };
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async move || adopt::response(handler().await.into_response()))
        .expect("a route");
    let mut reader =
        testing::open(&app, "/s").await.expect("a stream").timeout(Duration::from_secs(99));
    let events = reader.read_to_end().await.expect("a clean end");
    assert_eq!(
        events.iter().map(|event| event.data.as_str()).take(2).collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert!(!reader.raw().contains("theirs"), "{}", reader.raw());
    let heartbeats = reader.raw().lines().filter(|line| *line == ":").count();
    assert_eq!(heartbeats, 4, "{}", reader.raw());
}

#[tokio::test]
async fn a_reconnecting_client_resumes_at_the_upstream() {
    let mut upstream = Upstream::answering(&[HEAD, "id: 8\ndata: x\n\n"]).await;
    let app = passing_on(&server(), upstream.url());
    let mut reader = testing::open(&app, "/s").last_event_id("7").await.expect("a stream");
    assert_eq!(reader.next().await.expect("in time").expect("an event").id.as_deref(), Some("8"));
    let request = upstream.requests.recv().await.expect("a request");
    assert!(request.contains("last-event-id: 7\r\n"), "{request}");
}

/// What [`adopt::response`] refuses is a response, and says nothing about the upstream.
#[tokio::test]
async fn a_response_that_is_no_event_stream_is_a_502() {
    const STREAM: &str = "content-type: text/event-stream\r\n";
    for (status, headers, logged) in [
        ("500 Oops", STREAM, "status 500"),
        ("429 Slow", STREAM, "status 429"),
        ("204 None", STREAM, "status 204"),
        ("200 OK", "content-type: text/html\r\n", "content type is \"text/html\""),
        ("200 OK", "content-type: text/event-stream-of-mine\r\n", "content type is"),
        ("200 OK", "", "no content type"),
        ("200 OK", &format!("{STREAM}content-encoding: gzip\r\n"), "accept-encoding: identity"),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\n{headers}\r\n");
        let upstream = Upstream::answering(&[&answer, "data: secret\n\n"]).await;
        let (log, _guard) = Log::everything();
        let refused = adopt::response(get(upstream.url(), LastEventId::default()).await);
        let refusal = Refusal::from(refused.expect_err("no stream"));
        assert_eq!(refusal.status(), 502, "{answer}");
        // The log has one such line a second at most.
        let lines = log.text();
        assert!(
            lines.contains(logged) || !lines.contains("upstream's answer"),
            "{answer}: {lines}"
        );
        let app = passing_on(&server(), upstream.url());
        let error = testing::open(&app, "/s").await.expect_err("a refusal");
        assert_eq!(error.status.map(|status| status.as_u16()), Some(502), "{answer}");
        for word in ["secret", "status", "html", "gzip", "encoding", "127.0.0.1"] {
            assert!(!error.body.contains(&format!("{word} ")), "{word}: {}", error.body);
        }
    }
    for headers in [
        "content-type: Text/Event-Stream;x=y\r\n",
        &format!("{STREAM}content-encoding: identity\r\n"),
    ] {
        let upstream = Upstream::answering(&[&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")]).await;
        let answer = get(upstream.url(), LastEventId::default()).await;
        assert!(adopt::response(answer).is_ok(), "{headers}");
    }
}

/// The error with which a stream of this upstream ends, and the number of events before it.
async fn failure(parts: &[&str]) -> (usize, Option<AdoptError>) {
    let upstream = Upstream::answering(parts).await;
    let answer = get(upstream.url(), LastEventId::default()).await;
    let mut adopted = adopt::response(answer).expect("a stream").max_block(1000);
    let mut events = 0;
    while let Some(item) = adopted.next().await {
        match item {
            Ok(_) => events += 1,
            Err(error) => {
                assert!(adopted.next().await.is_none(), "it went on after {error}");
                return (events, Some(error));
            }
        }
    }
    (events, None)
}

#[tokio::test]
async fn an_upstream_that_breaks_off_or_lies_ends_in_an_error() {
    let whole = "data: a\n\n";
    for torn in
        ["d", "data: b", "data: b\n", "event: x\r\n", "id: 8\n", "data: b\r", "{\"error\":1}"]
    {
        let (events, error) = failure(&[HEAD, whole, torn]).await;
        assert!(matches!(error, Some(AdoptError::Torn)) && events == 1, "{torn:?}: {error:?}");
    }
    for fine in ["", ":", ": x\n", "retry: 1\n", "<html>\n", "\n\n"] {
        let (events, error) = failure(&[HEAD, whole, fine]).await;
        assert!(error.is_none() && events == 1, "{fine:?}: {error:?}");
    }
    let html = "<!doctype html>\n\n<body>data: x</body>\n\n";
    assert!(matches!(failure(&[HEAD, html]).await, (0, None)));
    let (events, error) = failure(&[HEAD, whole, &"<p>\n".repeat(1000)]).await;
    assert!(matches!(error, Some(AdoptError::TooLong { max: 1000 })) && events == 1, "{error:?}");
    let chunked = HEAD.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n");
    let (events, error) = failure(&[&chunked, "9\r\ndata: a\n\n\r\n"]).await;
    assert!(matches!(error, Some(AdoptError::Body(_))) && events == 1, "{error:?}");
    let (_, error) = failure(&[HEAD, "event: a\tb\ndata: x\n\n"]).await;
    assert!(matches!(error, Some(AdoptError::Name(_))), "{error:?}");
    // Gzip that no header announces has no line that is a field.
    let (events, error) = failure(&[HEAD, "\x1f\u{8b}\x08\0\0\0\0\0\0\u{3}KI,I"]).await;
    assert!(matches!(error, Some(AdoptError::Torn)) && events == 0, "{error:?}");
}

#[tokio::test]
async fn a_stream_whose_upstream_breaks_off_ends_with_stream_error_and_the_log_says_why() {
    let upstream = Upstream::answering(&[HEAD, "data: a\n\ndata: never\n"]).await;
    let (log, _guard) = Log::everything();
    let sse = server();
    let app = passing_on(&sse, upstream.url());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    reader.read_to_end().await.expect("an end");
    assert_eq!(sse.connections().closed(CloseReason::StreamError), 1);
    assert!(!reader.raw().contains("never"), "{}", reader.raw());
    assert!(log.text().contains("the upstream's stream ended inside an event"), "{}", log.text());
}

#[tokio::test]
async fn gigabytes_without_a_line_break_ends_the_stream_and_the_upstream() {
    let upstream = Upstream::start(&[HEAD, "data: ", &"x".repeat(1 << 20)], true).await;
    let (log, _guard) = Log::everything();
    let sse = server();
    let app = passing_on(&sse, upstream.url());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    reader.read_to_end().await.expect("an end");
    assert_eq!(reader.close_reason(), Some(CloseReason::StreamError));
    assert!(log.text().contains("longer than 1048576 bytes"), "{}", log.text());
    // What the sockets hold, and no more.
    let sent = upstream.sent.load(Ordering::SeqCst);
    assert!(sent < 64 << 20, "{sent}");
    eventually("the upstream's connection is closed", || upstream.open() == 0).await;
}

/// Comments and unknown fields without end, always ready.
#[tokio::test]
async fn an_upstream_that_sends_only_noise_does_not_keep_the_thread_from_other_tasks() {
    let noise = Bytes::from(": x\n<p>\n\n".repeat(10_000));
    let sse = server();
    let endless = async move || {
        // So that the test ends without a wait, too.
        let pieces = stream::repeat_with(move || Ok::<_, Infallible>(noise.clone())).take(2_000);
        adopt::stream(pieces)
    };
    let app: Router = sse.endpoint("/s").public().handler(endless).expect("a route");
    let mut reader =
        testing::open(&app, "/s").await.expect("a stream").timeout(Duration::from_millis(200));
    reader.next().await.expect_err("no event");
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_ends_after_the_idle_timeout_and_comments_are_no_silence() {
    let pieces = [(9, "data: a\n\n"), (9, ":\n"), (9, "data: b\n"), (11, "\n")];
    let upstream = stream::iter(pieces).then(|(seconds, piece)| async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok::<_, Infallible>(piece)
    });
    let start = tokio::time::Instant::now();
    let mut adopted = adopt::stream(upstream).idle_timeout(Duration::from_secs(10));
    assert!(matches!(adopted.next().await, Some(Ok(_))));
    // A client that does not read for long is no silence of the upstream.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let error = adopted.next().await;
    assert!(matches!(error, Some(Err(AdoptError::Idle { .. }))), "{error:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(9 + 60 + 9 + 9 + 10));
    assert!(adopted.next().await.is_none());
}

#[tokio::test]
async fn the_upstream_is_read_as_fast_as_the_client_reads_and_dropped_with_it() {
    let events = format!("data: {}\n\n", "x".repeat(1000)).repeat(100);
    let upstream = Upstream::start(&[HEAD, &events], true).await;
    let sse = sse_with(options("WriteTimeout = \"1h\""));
    let server = Server::start(&sse, passing_on(&sse, upstream.url())).await;
    let client = SlowReader::connect(server.address, "/s", &[]).await.expect("a connection");
    eventually("the upstream sends", || upstream.sent.load(Ordering::SeqCst) > 0).await;
    let sent = || upstream.sent.load(Ordering::SeqCst);
    let mut last = 0;
    while sent() > last {
        last = sent();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // What four sockets' buffers hold.
    assert!(last < 64 << 20, "{last}");
    assert_eq!(upstream.open(), 1);
    drop(client);
    eventually("the upstream's connection is closed", || upstream.open() == 0).await;
    assert!(sse.connections().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn the_upstreams_body_is_dropped_at_the_end_and_after_an_error() {
    for (text, items) in [("data: a\n\n", 1), ("data: a\n\ndata", 2), ("event: hero.close\n\n", 1)]
    {
        let alive = Alive::default();
        let body = alive.watch(stream::iter([Ok::<_, Infallible>(text)]).chain(stream::empty()));
        let mut adopted = adopt::stream(body);
        for _ in 0..items {
            assert!(adopted.next().await.is_some(), "{text:?}");
        }
        assert!(adopted.next().await.is_none() && adopted.next().await.is_none());
        assert_eq!(alive.count(), 0, "{text:?}");
    }
}

/// One server of hero-sse in front of another.
#[tokio::test]
async fn a_native_stream_of_hero_sse_is_passed_on_with_its_last_event() {
    let inner = server();
    let events = || {
        let event = |n: u32| Event::text(n.to_string()).with_id(n).expect("an id");
        stream::iter([event(1), event(2).last()])
    };
    let app: Router =
        inner.endpoint("/s").public().handler(async move || events()).expect("a route");
    let inner_server = Server::start(&inner, app).await;
    let outer = server();
    let app = passing_on(&outer, format!("http://{}/s", inner_server.address));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let events = reader.read_to_end().await.expect("a clean end");
    let ids: Vec<_> = events.iter().map(|event| event.id.as_deref()).collect();
    assert_eq!(ids, [Some("1"), Some("2;hero.end"), None]);
    assert_eq!(reader.close_reason(), Some(CloseReason::LastEvent));
    assert_eq!(reader.raw().matches("hero.close").count(), 1);
    inner_server.stop().await;
}

#[tokio::test]
async fn control_events_of_the_upstream_end_the_stream_or_report_a_gap() {
    let text = "event: hero.heartbeat\ndata: {}\n\nevent: hero.gap\ndata: {}\n\ndata: a\n\n";
    let close =
        |reason: &str| format!("{text}event: hero.close\ndata: {reason}\n\ndata: never\n\n");
    for (reason, expected) in [
        (r#"{"reason":"ended","reconnect":true}"#, None),
        (r#"{"reason":"last_event"}"#, None),
        (r#"{"reason":"draining"}"#, Some(Some(CloseReason::Draining))),
        (r#"{"reason":"new"}"#, Some(None)),
        ("what", Some(None)),
    ] {
        let mut adopted = adopt::stream(stream::iter([Ok::<_, Infallible>(close(reason))]));
        assert!(matches!(adopted.next().await, Some(Err(AdoptError::Missed))));
        assert!(matches!(adopted.next().await, Some(Ok(_))));
        match (adopted.next().await, expected) {
            (None, None) => {}
            (Some(Err(AdoptError::Closed(found))), Some(why)) if found == why => {}
            (found, _) => panic!("{reason}: {found:?}"),
        }
        assert!(adopted.next().await.is_none());
    }
}

/// Everything that a function may return beside a stream works with an adopted one.
#[tokio::test]
async fn an_adopted_stream_has_headers_and_its_error_the_servers_own_format() {
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .refusals(|refusal| (refusal.status(), "in a format of its own"))
        .build()
        .expect("a server");
    let content_type = |kind: &str| {
        let answer = http::Response::builder().header("content-type", kind).header("x-model", "m1");
        answer.body(axum::body::Body::from("data: a\n\n")).expect("a response")
    };
    type Answer = Result<([(&'static str, String); 1], Adopted), AdoptError>;
    let pass_on = async move |kind: String| -> Answer {
        let answer = content_type(&kind);
        let model = answer.headers()["x-model"].to_str().unwrap_or_default().to_owned();
        Ok(([("x-model", model)], adopt::response(answer)?))
    };
    let app: Router = sse.endpoint("/s").public().post_handler(pass_on).expect("a route");
    let ask = |kind: &'static str| {
        testing::open(&app, "/s")
            .method(http::Method::POST)
            .header("content-type", "text/plain")
            .body(kind)
    };
    let mut reader = ask("text/event-stream").await.expect("a stream");
    assert_eq!(reader.headers()["x-model"], "m1");
    reader.read_to_end().await.expect("a clean end");
    assert_eq!(reader.raw(), "data: a\n\n");
    let error = ask("text/html").await.expect_err("a refusal");
    assert_eq!(error.status.map(|status| status.as_u16()), Some(502));
    assert_eq!(error.body, "in a format of its own");
}

#[tokio::test]
async fn user_code_that_panics_in_an_adopted_stream_ends_it_alone() {
    let sse = server();
    let upstream = || {
        stream::iter(["data: a\n\n", "data: b\n\n"]).map(Ok::<_, Infallible>).chain(
            stream::poll_fn(|_| -> std::task::Poll<Option<Result<&'static str, Infallible>>> {
                panic!("the upstream's body panics on purpose")
            }),
        )
    };
    let body = sse.endpoint("/body").public().handler(async move || adopt::stream(upstream()));
    let last = sse.endpoint("/last").public().handler(async move || {
        adopt::stream(upstream()).last_event(|event| {
            assert_ne!(event.data(), Some("b"), "the closure panics on purpose");
            false
        })
    });
    let app: Router = body.expect("a route").merge(last.expect("a route"));
    for path in ["/body", "/last"] {
        let mut reader = testing::open(&app, path).await.expect("a stream");
        reader.read_to_end().await.expect("a clean end");
        assert_eq!(reader.close_reason(), Some(CloseReason::StreamPanic), "{path}");
    }
    assert!(sse.connections().is_empty());
}

#[tokio::test]
async fn an_old_handler_passes_a_stream_on_through_its_context() {
    let handler = async |context: hero_sse::SseContext| {
        let text = stream::iter([Ok::<_, Infallible>(": theirs\n\ndata: a\n\n")]);
        context.public().stream(adopt::stream(text)).await
    };
    let app: Router =
        Router::new().route("/s", axum::routing::get(handler)).layer(axum::Extension(server()));
    let events = events(&app).await;
    assert_eq!(events, [event("message", None, "a")]);
}
