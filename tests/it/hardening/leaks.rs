//! Where a token may leak: referrers, request spans, logs, panics, metric labels.

use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use futures_util::stream;
use hero_sse::auth::{AuthError, Secret, authenticator_fn};
use hero_sse::server::{QueryToken, request_span};
use hero_sse::{Event, HeroSse, Principal, SseContext};
use http::{HeaderMap, Method};
use metrics_util::debugging::DebuggingRecorder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower_http::trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tracing::Level;

use super::site::{Site, raw};
use crate::http2::Client;
use crate::support::{Log, Server, burst, jwt, options, sse_with, token};

#[tokio::test]
async fn no_response_lets_its_url_leak_as_a_referrer() {
    let site = Site::new("");
    let bearer = format!("Bearer {}", token());
    for headers in
        [&[("authorization", bearer.as_str())][..], &[], &[("authorization", "Bearer x y")]]
    {
        let answer = site.request(Method::GET, "/s", headers).await;
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{}", answer.status);
    }
}

#[tokio::test]
async fn an_application_can_read_removed_parameters_or_keep_them_in_the_uri() {
    let show = async |uri: http::Uri, query: QueryToken| {
        let text = |secret: Option<&Secret<String>>| secret.map_or("-", |s| s.expose()).to_owned();
        format!("{uri} {} {}", text(query.access_token()), text(query.ticket()))
    };
    for (toml, uri) in
        [("", "/show?ticket=42&x=1"), ("RedactQuery = false", "/show?ticket=42&x=1&access_token=t")]
    {
        let sse = sse_with(options(toml));
        let server = Server::start(&sse, Router::new().route("/show", get(show))).await;
        let request = "GET /show?ticket=42&x=1&access_token=t HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut socket = TcpStream::connect(server.address).await.expect("a socket");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with(&format!("{uri} t 42")), "{answer}");
        server.stop().await;
    }
}

#[test]
fn the_span_of_a_request_has_no_query() {
    let (log, _guard) = Log::everything();
    let request = http::Request::get("/s?access_token=canary-7f3a").body(()).expect("a request");
    request_span(&request).in_scope(|| tracing::info!("handled"));
    let log = log.text();
    assert!(log.contains("/s") && log.contains("GET") && log.contains("HTTP/1.1"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

/// Accepts tokens that end in `good`, and fails in every other way. Its own messages contain no token.
async fn authenticate(token: Secret<String>) -> Result<Principal, AuthError> {
    tracing::trace!(?token, "authenticating");
    match token.expose().rsplit('-').next() {
        Some("good") => Ok(Principal::new("ann").permission("usage.read")),
        Some("panics") => panic!("the authenticator panics on purpose: {token:?}"),
        Some("unknown") => Err(AuthError::unavailable("the issuer is down on purpose")),
        _ => Err(AuthError::invalid("the token is not accepted")),
    }
}

const CANARY: &str = "canary-7f3a";

/// The messages of this process's panics.
fn panics() -> &'static Mutex<String> {
    static MESSAGES: OnceLock<Mutex<String>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(mut messages) = panics().lock() {
                messages.push_str(&panic.to_string());
            }
            before(panic);
        }));
        Mutex::default()
    })
}

#[derive(serde::Deserialize)]
struct Page {
    #[allow(dead_code, reason = "it is there to be missing")]
    page: u64,
}

/// An application with everything that can happen to a request.
fn app(sse: &HeroSse) -> Router {
    let made = |made: Result<Router, hero_sse::SetupErrors>| made.expect("a route");
    let endpoint = |path: &str| sse.endpoint(path).permission("usage.read");
    let log = async |who: Principal, headers: HeaderMap, cursor: hero_sse::LastEventId| {
        tracing::info!(?who, ?headers, ?cursor, "the application logs");
        burst(1)
    };
    let panics = async move || {
        assert!(CANARY.is_empty(), "the function panics on purpose");
        burst(1)
    };
    let later = || {
        stream::poll_fn(|_| -> std::task::Poll<Option<Event>> {
            panic!("the stream panics on purpose")
        })
    };
    let fails = || stream::iter([Err::<Event, _>("the stream fails on purpose".to_owned())]);
    Router::new()
        .merge(made(endpoint("/s").handler(log)))
        .merge(made(sse.endpoint("/public").public().handler(async |who: Option<Principal>| {
            tracing::info!(?who, "the application logs");
            burst(1)
        })))
        .merge(made(endpoint("/panics").handler(panics)))
        .merge(made(endpoint("/later").handler(async move || later())))
        .merge(made(endpoint("/fails").handler(async move || fails())))
        .merge(made(endpoint("/rejects").handler(async |_: Query<Page>| burst(1))))
        .route("/own", get(async |who: Principal| format!("{who:?}")))
        .route("/context", get(async |sse: SseContext| sse.stream(burst(1)).await))
        .layer(axum::Extension(sse.clone()))
}

/// Query and headers of each request: a token of every kind at every location.
fn every_credential() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for state in ["good", "bad", "panics", "unknown"] {
        let token = format!("{CANARY}-{state}");
        all.extend([
            (String::new(), format!("authorization: Bearer {token}\r\n")),
            (String::new(), format!("cookie: a=b; t={token}; c=d\r\n")),
            (format!("?a=1&access_token={token}&b=2"), String::new()),
            (format!("?access%5Ftoken={token}"), "accept: text/event-stream\r\n".to_owned()),
            (format!("?access_token={token}"), format!("authorization: Bearer {token}-x\r\n")),
        ]);
    }
    let headers = [
        format!("authorization: Bearer {CANARY} x\r\n"),
        format!("authorization: Bearer {CANARY}\"\r\n"),
        format!("authorization: Basic {CANARY}\r\n"),
        format!("authorization: Bearer {CANARY}\r\nauthorization: Bearer {CANARY}\r\n"),
        format!("authorization: Bearer {CANARY}{}\r\n", "x".repeat(9000)),
        format!("proxy-authorization: Bearer {CANARY}\r\n"),
        format!("cookie: t={CANARY}-good; t={CANARY}-other\r\n"),
        format!("cookie: t={CANARY}\\\r\n"),
        format!("cookie: t={CANARY}-good\r\norigin: https://evil.example\r\n"),
        format!("referer: https://app.example.com/?access_token={CANARY}\r\n"),
        format!("x-original-uri: /s?access_token={CANARY}\r\n"),
    ];
    all.extend(headers.map(|header| (String::new(), header)));
    let queries = [
        format!("?access_token={CANARY}-good&access_token={CANARY}-other"),
        format!("?Access_Token={CANARY}&access_token[]={CANARY};ACCESS_TOKEN={CANARY}"),
        format!("?ticket={CANARY}&x=1"),
        format!("?%74icket={CANARY}&TICKET={CANARY}&ticket={CANARY}"),
        format!("?page=none&access_token={CANARY}-good"),
        format!("?access_token={CANARY}-good&last_event_id=%09"),
    ];
    all.extend(queries.map(|query| (query, String::new())));
    all
}

/// A `TraceLayer` that logs everything.
macro_rules! trace_everything {
    ($span:expr) => {
        TraceLayer::new_for_http()
            .make_span_with($span)
            .on_request(DefaultOnRequest::new().level(Level::TRACE))
            .on_response(DefaultOnResponse::new().level(Level::TRACE).include_headers(true))
    };
}

/// A server with [`authenticate`], or with JSON Web Tokens.
fn sse_with_canaries(use_jwt: bool) -> HeroSse {
    let builder = HeroSse::builder()
        .options(options(
            "TokenCookie = \"t\"\nConnectsPerMinute = \"off\"\nFailedAttemptsPerMinute = \"off\"",
        ))
        .tickets(hero_sse::auth::Tickets::new().audience("usage"))
        .environment(Vec::<(String, String)>::new());
    match use_jwt {
        true => builder.authenticator(jwt()).build().expect("a server"),
        false => builder.authenticator(authenticator_fn(authenticate)).build().expect("a server"),
    }
}

/// Sends every credential to every route over HTTP/1.1. Checks that no response and no log has the canary.
async fn send_all(address: SocketAddr, log: &Log) {
    let routes = [
        "/s", "/public", "/panics", "/later", "/fails", "/rejects", "/own", "/context", "/nowhere",
    ];
    let mut opened = 0;
    for (query, header) in every_credential() {
        for route in routes {
            let request =
                format!("GET {route}{query} HTTP/1.1\r\nhost: app.example.com\r\n{header}\r\n");
            let answer = raw(address, &request).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{request}: {answer}");
            assert!(!answer.contains(CANARY), "{request}: {answer}");
            opened += usize::from(answer.starts_with("HTTP/1.1 200"));
        }
    }
    assert!(opened > 0, "no token was accepted");
    let text = log.text();
    assert!(text.contains("request refused"), "nothing was logged: {text}");
    assert_no_canary(&text);
}

#[track_caller]
fn assert_no_canary(text: &str) {
    let line = text.lines().find(|line| line.contains(CANARY));
    assert_eq!(line, None, "the canary is in the log");
    assert!(!panics().lock().expect("no panic").contains(CANARY), "the canary is in a panic");
}

async fn axum_serve(app: Router) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (address, tokio::spawn(axum::serve(listener, app).into_future()))
}

/// A layer that logs everything, as an access log may.
async fn access_log(request: Request, next: Next) -> axum::response::Response {
    tracing::trace!(uri = %request.uri(), headers = ?request.headers(), "an access log");
    tracing::trace!(?request, "a careless access log");
    let original = request.extensions().get::<axum::extract::OriginalUri>();
    tracing::trace!(?original, "a careful access log");
    next.run(request).await
}

#[tokio::test]
async fn a_canary_is_in_no_log_span_panic_or_label_under_serve() {
    let (log, _guard) = Log::everything();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    panics();
    for use_jwt in [false, true] {
        let sse = sse_with_canaries(use_jwt);
        let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
        let app = app(&sse).layer(from_fn(access_log)).layer(trace_everything!(span));
        let server = Server::start(&sse, app).await;
        match use_jwt {
            false => send_all(server.address, &log).await,
            true => {
                for (query, header) in every_credential() {
                    let request = format!("GET /s{query} HTTP/1.1\r\nhost: a\r\n{header}\r\n");
                    assert!(!raw(server.address, &request).await.contains(CANARY));
                }
            }
        }
        server.stop().await;
    }
    let text = log.text();
    assert_no_canary(&text);
    for expected in
        ["an access log", "stream opened", "panicked", "could not be verified", "Sensitive"]
    {
        assert!(text.contains(expected), "{expected} is not in the log");
    }
    let messages = panics().lock().expect("no panic").clone();
    for expected in ["authenticator panics on purpose", "function panics", "stream panics"] {
        assert!(messages.contains(expected), "{expected} is in no panic");
    }
    let labels = format!("{:?}", snapshotter.snapshot().into_vec());
    assert!(labels.contains("hero_sse_refused_total") && !labels.contains(CANARY), "{labels}");
}

#[tokio::test]
async fn a_canary_leaks_nowhere_under_axum_serve_with_guarded_connections() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = sse_with_canaries(false);
    let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
    let app = app(&sse).layer(from_fn(access_log)).layer(trace_everything!(span));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, app) = sse.guard(listener, app);
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    send_all(address, &log).await;
    assert!(log.text().contains("an access log"));
    serving.abort();
}

#[tokio::test]
async fn a_canary_leaks_nowhere_behind_the_redact_layer() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = sse_with_canaries(false);
    let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
    let app = app(&sse).layer(from_fn(access_log)).layer(trace_everything!(span));
    // Applied twice, it does the same as once.
    let app = app.layer(sse.redact_layer()).layer(sse.redact_layer());
    let (address, serving) = axum_serve(app.clone()).await;
    send_all(address, &log).await;
    serving.abort();
    let server = Server::start(&sse, app).await;
    send_all(server.address, &log).await;
    server.stop().await;
}

#[tokio::test]
async fn a_canary_is_in_no_request_span_even_without_redaction() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = sse_with_canaries(false);
    let app = app(&sse).layer(trace_everything!(request_span));
    let (address, serving) = axum_serve(app).await;
    // Without redaction, headers are not marked as sensitive. So these requests have none.
    for (query, _) in every_credential() {
        for route in ["/s", "/public", "/panics", "/own", "/nowhere"] {
            let request = format!("GET {route}{query} HTTP/1.1\r\nhost: a\r\n\r\n");
            assert!(!raw(address, &request).await.contains(CANARY));
        }
    }
    let text = log.text();
    assert!(text.contains("request{method=GET path=\"/s\" version=HTTP/1.1}"), "{text}");
    assert_no_canary(&text);
    serving.abort();
}

/// Includes the log of h2, which at `TRACE` shows neither paths nor headers of well-formed requests. It quotes
/// malformed ones, as `docs/monitoring.md` says.
#[tokio::test]
async fn a_canary_leaks_nowhere_over_http2() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = sse_with_canaries(false);
    let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
    let app = app(&sse).layer(from_fn(access_log)).layer(trace_everything!(span));
    let server = Server::start(&sse, app).await;
    let address = server.address;
    // The client runs on a thread without a subscriber, so that its log does not count.
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let mut client = Client::connect(address).await;
            for (query, headers) in every_credential() {
                for route in ["/s", "/public", "/panics", "/own", "/nowhere"] {
                    let uri = format!("http://app.example.com{route}{query}");
                    let mut request = http::Request::get(uri);
                    for header in headers.lines() {
                        let (name, value) = header.split_once(": ").expect("a header");
                        request = request.header(name, value);
                    }
                    let answer = client.send(request.body(()).expect("a request")).await;
                    assert!(!format!("{answer:?}").contains(CANARY), "{answer:?}");
                }
            }
        });
    });
    while !client.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.join().expect("no panic");
    server.stop().await;
    let text = log.text();
    assert!(
        text.contains("h2::") && text.contains("an access log"),
        "h2 and the layer have logged"
    );
    assert_no_canary(&text);
}
