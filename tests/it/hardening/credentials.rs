//! Attacks on where credentials come from and where they go: cookies, origins, hosts, URLs, logs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request};
use axum::middleware::{Next, from_fn};
use axum::routing::{get, post};
use futures_util::stream;
use hero_sse::auth::{AuthError, Secret, authenticator_fn};
use hero_sse::options::{Cors, TokenSource};
use hero_sse::server::{QueryToken, request_span};
use hero_sse::{Event, HeroSse, Principal, SseContext, SseOptions};
use http::{HeaderMap, Method, StatusCode};
use metrics_util::debugging::DebuggingRecorder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower_http::trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tracing::Level;

use crate::http2::Client;
use crate::support::testing;
use crate::support::{Log, Server, burst, claims, jwt, options, sign, sse_with, token};

const COOKIE: &str = "TokenCookie = \"__Host-t\"\n";
const SITE: (&str, &str) = ("host", "app.example.com");

/// An application under attack: how often its code ran.
struct Site {
    app: Router,
    sse: HeroSse,
    runs: Arc<AtomicUsize>,
}

impl Site {
    /// `/s` and `/post` ask for a token, `/public` for none, `/own` is a route of the application's own.
    fn new(toml: &str) -> Self {
        let sse = sse_with(options(&format!("{COOKIE}{toml}")));
        let runs = Arc::new(AtomicUsize::new(0));
        let run = {
            let runs = runs.clone();
            move || {
                runs.fetch_add(1, Ordering::SeqCst);
                burst(1)
            }
        };
        let route = |path: &str, public: bool| {
            let endpoint = sse.endpoint(path);
            let endpoint = if public { endpoint.public() } else { endpoint };
            let run = run.clone();
            endpoint.handler(async move || run()).expect("a route")
        };
        let posted = run.clone();
        let posted = sse.endpoint("/post").post_handler(async move || posted()).expect("a route");
        let run = run.clone();
        let own = async move |_: Principal| drop(run());
        let app = Router::new()
            .merge(route("/s", false))
            .merge(route("/public", true))
            .merge(posted)
            .route("/own", get(own.clone()).merge(post(own)))
            .layer(axum::Extension(sse.clone()));
        Self { app, sse, runs }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut open = testing::open(&self.app, path).method(method);
        for (name, value) in headers {
            open = open.header(name, *value);
        }
        match open.await {
            Ok(stream) => Answer {
                status: stream.status(),
                headers: stream.headers().clone(),
                body: String::new(),
            },
            Err(error) => Answer {
                status: error.status.expect("an answer"),
                headers: error.headers,
                body: error.body,
            },
        }
    }

    /// What becomes of a `GET` with the right cookie.
    async fn with_cookie(&self, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let cookie = format!("__Host-t={}", token());
        let mut all = vec![("cookie", cookie.as_str())];
        all.extend(headers);
        self.ask(Method::GET, path, &all).await.status
    }

    #[track_caller]
    fn ran(&self, times: usize) {
        assert_eq!(self.runs.load(Ordering::SeqCst), times, "how often the application's code ran");
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// No header of CORS but `Vary`.
    #[track_caller]
    fn lets_nobody_read(&self) {
        let cors = self.headers.keys().filter(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors.collect::<Vec<_>>(), Vec::<&http::HeaderName>::new());
    }
}

// ---- cookies ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_page_of_another_site_opens_a_stream_with_its_visitors_cookie() {
    let site = Site::new("");
    for headers in [
        &[SITE, ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..],
        &[SITE, ("origin", "https://evil.example")],
        &[SITE, ("origin", "https://app.example.com.evil.example")],
        // A proxy's word on the host is not asked: anybody can send it.
        &[SITE, ("origin", "https://evil.example"), ("x-forwarded-host", "evil.example")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.ran(0);
    assert!(site.sse.connections().is_empty());
    // The site's own page does.
    for headers in [
        &[SITE, ("origin", "https://app.example.com"), ("sec-fetch-site", "same-origin")][..],
        &[SITE, ("sec-fetch-site", "same-origin")],
        &[SITE],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::OK, "{headers:?}");
    }
    site.ran(3);
}

#[tokio::test]
async fn a_refusal_of_a_foreign_page_is_a_problem_without_a_stream_byte_and_tells_the_log() {
    let (log, _guard) = Log::everything();
    let site = Site::new("");
    let cookie = format!("__Host-t={}", token());
    let headers = [SITE, ("cookie", cookie.as_str()), ("origin", "https://evil.example")];
    let refused = site.ask(Method::GET, "/s", &headers).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(!refused.body.contains("retry:") && !refused.body.contains("evil"), "{}", refused.body);
    let log = log.text();
    assert!(log.contains("a cookie came from a page of another site"), "{log}");
    assert!(log.contains("https://evil.example") && log.contains("app.example.com"), "{log}");
}

#[tokio::test]
async fn a_page_on_another_port_or_a_sibling_host_is_another_origin() {
    let site = Site::new("");
    for headers in [
        &[SITE, ("origin", "https://app.example.com:8443"), ("sec-fetch-site", "same-site")][..],
        &[SITE, ("origin", "https://blog.example.com"), ("sec-fetch-site", "same-site")],
        // An image or a script of the sibling's page, without an Origin.
        &[SITE, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.ran(0);
}

#[tokio::test]
async fn an_image_or_a_link_of_another_site_sends_no_origin() {
    let site = Site::new("");
    for mode in ["no-cors", "navigate"] {
        let headers = [SITE, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)];
        assert_eq!(site.with_cookie("/s", &headers).await, StatusCode::FORBIDDEN, "{mode}");
    }
    site.ran(0);
}

#[tokio::test]
async fn a_sandboxed_frame_says_null() {
    let site = Site::new("");
    for headers in [
        &[SITE, ("origin", "null")][..],
        &[SITE, ("origin", "null"), ("sec-fetch-site", "same-origin")],
        &[("host", "null"), ("origin", "null")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.ran(0);
}

#[tokio::test]
async fn two_origins_or_two_hosts_hide_the_wrong_one() {
    let site = Site::new("");
    let (good, evil) = (("origin", "https://app.example.com"), ("origin", "https://evil.example"));
    for headers in [
        &[SITE, good, evil][..],
        &[SITE, evil, good],
        &[SITE, good, good],
        &[SITE, ("host", "evil.example"), evil],
        &[SITE, ("origin", "https://app.example.com, https://evil.example")],
        &[SITE, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(site.with_cookie("/s", headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    site.ran(0);
}

#[tokio::test]
async fn a_form_of_another_site_posts_with_its_visitors_cookie() {
    let site = Site::new("");
    let cookie = format!("__Host-t={}", token());
    let cookie = ("cookie", cookie.as_str());
    let server = Server::start(&site.sse, site.app.clone()).await;
    for origin in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        // Every browser sends an Origin with a POST.
        &[],
    ] {
        let headers = [&[SITE, cookie], origin].concat();
        let answer = site.ask(Method::POST, "/post", &headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
        let mut own = testing::connect(server.address, "/own").method(Method::POST);
        for (name, value) in [&[cookie], origin].concat() {
            own = own.header(name, value);
        }
        let answer = own.await.expect_err("403");
        assert_eq!(answer.status, Some(StatusCode::FORBIDDEN), "{origin:?}");
    }
    site.ran(0);
    let own = [SITE, cookie, ("origin", "https://app.example.com")];
    assert_eq!(site.ask(Method::POST, "/post", &own).await.status, StatusCode::OK);
    site.ran(1);
    server.stop().await;
}

#[tokio::test]
async fn routes_of_the_applications_own_are_behind_the_same_check() {
    let site = Site::new("");
    let server = Server::start(&site.sse, site.app.clone()).await;
    let cookie = format!("__Host-t={}", token());
    let status = async |origin: &str| {
        let open = testing::connect(server.address, "/own").header("cookie", cookie.as_str());
        match open.header("origin", origin).await {
            Ok(answer) => answer.status(),
            Err(error) => error.status.expect("an answer"),
        }
    };
    assert_eq!(status("https://evil.example").await, StatusCode::FORBIDDEN);
    site.ran(0);
    assert_eq!(status(&format!("http://{}", server.address)).await, StatusCode::OK);
    site.ran(1);
    server.stop().await;

    let asked = |origin: &str| {
        let request = http::Request::get("/").header("cookie", cookie.as_str());
        let request = request.header("host", "app.example.com").header("origin", origin);
        request.body(()).expect("a request").into_parts().0
    };
    let refused = site.sse.authenticate(&asked("https://evil.example")).await.expect_err("403");
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let ann = site.sse.authenticate(&asked("https://app.example.com")).await.expect("a caller");
    assert_eq!(ann.subject(), "ann");
}

#[tokio::test]
async fn a_foreign_page_is_nobody_on_a_public_endpoint_only_without_the_cookie() {
    let site = Site::new("");
    let evil = [SITE, ("origin", "https://evil.example")];
    assert_eq!(site.with_cookie("/public", &evil).await, StatusCode::FORBIDDEN);
    site.ran(0);
    assert_eq!(site.ask(Method::GET, "/public", &evil).await.status, StatusCode::OK);
    site.ran(1);
}

#[tokio::test]
async fn a_sibling_host_plants_a_cookie_beside_the_right_one() {
    let site = Site::new("");
    let (ann, eve) = (token(), sign(&claims(|claims| claims["sub"] = json!("eve"))));
    let both = format!("__Host-t={eve}; __Host-t={ann}");
    let (first, second) = (format!("__Host-t={eve}"), format!("x=1; __Host-t={ann}"));
    for cookies in [&[("cookie", both.as_str())][..], &[("cookie", &first), ("cookie", &second)]] {
        let answer = site.ask(Method::GET, "/s", cookies).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.header("www-authenticate").is_some_and(|c| c.contains("invalid_request")));
    }
    site.ran(0);
    // HTTP/2 sends each cookie by itself.
    let split = [("cookie", "x=1"), ("cookie", &second[5..]), ("cookie", "y=2")];
    assert_eq!(site.ask(Method::GET, "/s", &split).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_beside_the_cookie_overrides_it() {
    let site = Site::new("");
    let ann = token();
    let (bearer, cookie) = (format!("Bearer {ann}"), format!("__Host-t={ann}"));
    let eve = sign(&claims(|claims| claims["sub"] = json!("eve")));
    let planted = format!("/s?access_token={eve}");
    let two = site.ask(Method::GET, &planted, &[SITE, ("cookie", &cookie)]).await;
    assert_eq!(two.status, StatusCode::BAD_REQUEST);
    let other = format!("Bearer {eve}");
    let two = site.ask(Method::GET, "/s", &[("authorization", &other), ("cookie", &cookie)]).await;
    assert_eq!(two.status, StatusCode::BAD_REQUEST);
    site.ran(0);
    // No page can make a browser send a header by itself, so who has one needs no Origin.
    let foreign = ("origin", "https://evil.example");
    let one = [SITE, ("authorization", bearer.as_str()), ("cookie", &cookie), foreign];
    assert_eq!(site.ask(Method::GET, "/s", &one).await.status, StatusCode::OK);
    // The same token in the query as in the cookie: whoever wrote it there knew it; the cookie counts.
    let known = format!("/s?access_token={ann}");
    let one = site.ask(Method::GET, &known, &[SITE, ("cookie", &cookie), foreign]).await;
    assert_eq!(one.status, StatusCode::FORBIDDEN);
    site.ran(1);
}

#[tokio::test]
async fn a_cookie_that_nobody_named_is_no_credential() {
    let site = Site::new("");
    for cookie in [format!("t={}", token()), format!("__host-t={}", token()), token()] {
        let answer = site.ask(Method::GET, "/s", &[("cookie", &cookie)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{cookie}");
    }
    let unnamed = sse_with(SseOptions::default());
    let app: Router = unnamed.endpoint("/s").handler(async || burst(1)).expect("a route");
    let open = testing::open(&app, "/s").header("cookie", format!("__Host-t={}", token()));
    assert_eq!(open.await.expect_err("401").status, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn a_token_where_none_may_stand_is_none() {
    let site = Site::new("TokenSources = [\"header\"]");
    assert_eq!(site.with_cookie("/s", &[]).await, StatusCode::UNAUTHORIZED);
    let query = format!("/s?access_token={}", token());
    assert_eq!(site.ask(Method::GET, &query, &[]).await.status, StatusCode::UNAUTHORIZED);
    // Nor does it disturb the one that may.
    let bearer = format!("Bearer {}", token());
    let headers = [("authorization", bearer.as_str()), ("cookie", "__Host-t=another")];
    let answer = site.ask(Method::GET, "/s?access_token=another", &headers).await;
    assert_eq!(answer.status, StatusCode::OK);
    site.ran(1);
}

#[tokio::test]
async fn what_is_posted_has_no_token_in_its_query() {
    let sse = sse_with(SseOptions::default());
    let posted: Router = sse.endpoint("/s").post_handler(async || burst(1)).expect("a route");
    let context = async |sse: SseContext| sse.stream(burst(1)).await;
    let app = posted.route("/context", get(context).post(context)).layer(axum::Extension(sse));
    for (method, path, status) in [
        (Method::POST, "/s", Some(StatusCode::UNAUTHORIZED)),
        (Method::POST, "/context", Some(StatusCode::UNAUTHORIZED)),
        (Method::GET, "/context", None),
    ] {
        let path = format!("{path}?access_token={}", token());
        let opened = testing::open(&app, &path).method(method.clone()).await;
        assert_eq!(opened.err().and_then(|error| error.status), status, "{method} {path:.9}");
    }
}

#[tokio::test]
async fn a_declaration_cannot_open_a_source_that_the_operator_shut() {
    let sse = sse_with(options("TokenCookie = \"t\"\nTokenSources = [\"header\"]"));
    let declare = |sources: &[TokenSource]| {
        let endpoint = sse.endpoint("/s").token_sources(sources.iter().copied());
        endpoint.handler::<_, _, ()>(async || burst(1))
    };
    let error = declare(&[TokenSource::Query]).expect_err("no way in").to_string();
    assert!(
        error.contains("no part of a request may hold one") && error.contains("credentials.rs"),
        "{error}"
    );
    let app = declare(&[TokenSource::Header, TokenSource::Query]).expect("a route");
    let query = format!("/s?access_token={}", token());
    let refused = testing::open(&app, &query).await.expect_err("401");
    assert_eq!(refused.status, Some(StatusCode::UNAUTHORIZED));

    let sse = sse_with(SseOptions::default());
    let cookie = sse.endpoint("/s").token_sources([TokenSource::Cookie]);
    let error = cookie.handler::<_, _, ()>(async || burst(1)).expect_err("no cookie").to_string();
    assert!(error.contains("set TokenCookie"), "{error}");
    let post = sse.endpoint("/s").token_sources([TokenSource::Query]);
    let error =
        post.post_handler::<_, _, (), _>(async || burst(1)).expect_err("a POST").to_string();
    assert!(error.contains("no part of a request may hold one"), "{error}");
}

#[tokio::test]
async fn behind_a_proxy_the_public_origin_counts_and_no_host_that_it_made_up() {
    let site = Site::new("PublicOrigins = [\"https://app.example.com\"]");
    let inner = ("host", "10.0.0.7:8080");
    let own = [inner, ("origin", "https://app.example.com")];
    assert_eq!(site.with_cookie("/s", &own).await, StatusCode::OK);
    for origin in ["http://app.example.com", "http://10.0.0.7:8080", "https://10.0.0.7:8080"] {
        let status = site.with_cookie("/s", &[inner, ("origin", origin)]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
    }
    site.ran(1);
}

#[tokio::test]
async fn where_tls_ends_here_a_page_without_it_is_another_origin() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let tls = hero_sse::server::Tls::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let tls = tls.expect("a certificate");
    let site = Site::new("");
    let server = Server::start_as(&site.sse, site.app.clone(), |serve| serve.tls(tls)).await;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).expect("a root");
    let client = tokio_rustls::rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    for (origin, status) in [("https://localhost", "200"), ("http://localhost", "403")] {
        let socket = TcpStream::connect(server.address).await.expect("a socket");
        let name = "localhost".try_into().expect("a name");
        let mut socket = connector.connect(name, socket).await.expect("a handshake");
        let cookie = token();
        let request = format!(
            "GET /s HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\ncookie: __Host-t={cookie}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 4096];
        let read = socket.read(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {answer}");
    }
    site.ran(1);
    server.stop().await;
}

// ---- hosts --------------------------------------------------------------------------------------

/// Sends these bytes and returns what comes back, up to the head's end or the connection's.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("a socket");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let reading = async {
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match socket.read(&mut piece).await {
                Ok(read) if read > 0 => answer.extend_from_slice(&piece[..read]),
                _ => break,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_page_whose_name_was_made_to_lead_here_asks_for_its_own_host() {
    let site = Site::new("AllowedHosts = [\"app.example.com\", \"localhost:8080\"]");
    let server = Server::start(&site.sse, site.app.clone()).await;
    let bearer = format!("authorization: Bearer {}\r\n", token());
    for (target, hosts, status) in [
        ("/public", "host: app.example.com\r\n", "200"),
        ("/s", "host: APP.EXAMPLE.COM.:3000\r\n", "200"),
        ("/public", "host: localhost:8080\r\n", "200"),
        ("http://app.example.com/public", "host: app.example.com\r\n", "200"),
        ("/public", "host: evil.example\r\n", "403"),
        ("/s", "host: evil.example\r\n", "403"),
        ("/public", "host: localhost:8081\r\n", "403"),
        ("/public", "host: localhost\r\n", "403"),
        ("/public", "host: 127.0.0.1\r\n", "403"),
        ("/public", "host: app.example.com@evil.example\r\n", "403"),
        ("/public", "host: evil.example@app.example.com\r\n", "403"),
        ("/public", "host: app.example.com.evil.example\r\n", "403"),
        ("/public", "host: \r\n", "403"),
        ("/public", "host: app.example.com\r\nhost: evil.example\r\n", "403"),
        ("/public", "host: evil.example\r\nx-forwarded-host: app.example.com\r\n", "403"),
        ("http://evil.example/public", "host: app.example.com\r\n", "403"),
        ("http://app.example.com/public", "host: evil.example\r\n", "403"),
    ] {
        let runs = site.runs.load(Ordering::SeqCst);
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}{bearer}\r\n");
        let answer = raw(server.address, &request).await;
        // hyper itself may turn down what is malformed.
        let refused = status == "403" && answer.starts_with("HTTP/1.1 400");
        let fits = answer.starts_with(&format!("HTTP/1.1 {status}")) || refused;
        assert!(fits, "{target} {hosts}: {answer}");
        site.ran(runs + usize::from(status == "200"));
    }
    let old = raw(server.address, "GET /public HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 403 "), "without any host: {old}");

    let mut client = Client::connect(server.address).await;
    let answer = client.get("/public").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "`localhost` without its port");
    let ask = |uri: &str| http::Request::get(uri).body(()).expect("a request");
    let answer = client.send(ask("http://app.example.com/public")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = client.send(ask("http://evil.example/public")).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    for (authority, host) in
        [("evil.example", "app.example.com"), ("app.example.com", "evil.example")]
    {
        let request = http::Request::get(format!("http://{authority}/public")).header("host", host);
        let answer = client.send(request.body(()).expect("a request")).await;
        assert_ne!(answer.status(), StatusCode::OK, "{authority} and {host}");
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn other_routes_answer_to_any_host_so_that_balancers_can_ask_by_address() {
    let site = Site::new("AllowedHosts = [\"app.example.com\"]");
    let app = site.app.clone().route("/readyz", get(site.sse.readiness()));
    let server = Server::start(&site.sse, app).await;
    let answer = raw(server.address, "GET /readyz HTTP/1.1\r\nhost: 10.0.0.7\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let bearer = format!("authorization: Bearer {}", token());
    let own = format!("GET /own HTTP/1.1\r\nhost: 10.0.0.7\r\n{bearer}\r\n\r\n");
    let answer = raw(server.address, &own).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "whoever asks who it is: {answer}");
    server.stop().await;
}

// ---- CORS ---------------------------------------------------------------------------------------

const FRIEND: (&str, &str) = ("origin", "https://pages.example.net");
const CORS: &str = "CorsOrigins = [\"https://pages.example.net\", \"http://localhost:5173\"]\n";

#[tokio::test]
async fn without_cors_no_header_says_anything_of_it() {
    let site = Site::new("");
    let bearer = format!("Bearer {}", token());
    for (method, headers, status) in [
        (Method::GET, &[SITE, FRIEND, ("authorization", &bearer)][..], StatusCode::OK),
        (Method::GET, &[SITE, FRIEND], StatusCode::UNAUTHORIZED),
        (Method::OPTIONS, &[SITE, FRIEND], StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = site.ask(method, "/s", headers).await;
        assert_eq!(answer.status, status);
        answer.lets_nobody_read();
        assert_eq!(answer.header("vary"), None);
    }
}

#[tokio::test]
async fn an_origin_is_never_reflected() {
    let site = Site::new(&format!("{CORS}CorsCredentials = true"));
    let cookie = format!("__Host-t={}", token());
    for origin in [
        "https://evil.example",
        "https://pages.example.net.evil.example",
        "https://evilpages.example.net",
        "http://pages.example.net",
        "https://pages.example.net:8443",
        "https://pages.example.net/",
        "https://pages.example.net@evil.example",
        "https://pages.example.net, https://evil.example",
        "null",
        "*",
        "file://",
        "",
    ] {
        for method in [Method::GET, Method::OPTIONS, Method::POST] {
            let headers = [SITE, ("origin", origin), ("cookie", &cookie)];
            let answer = site.ask(method.clone(), "/s", &headers).await;
            answer.lets_nobody_read();
            assert_eq!(answer.header("vary"), Some("origin"), "{method} {origin}");
            if method == Method::GET {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
            }
        }
    }
    let two =
        site.ask(Method::GET, "/s", &[SITE, FRIEND, ("origin", "https://evil.example")]).await;
    two.lets_nobody_read();
    site.ran(0);
    // As the operator wrote it, not as it came.
    let shouted = site.ask(Method::GET, "/s", &[SITE, ("origin", "HTTPS://PAGES.example.net:443")]);
    let shouted = shouted.await;
    assert_eq!(shouted.header("access-control-allow-origin"), Some("https://pages.example.net"));
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_token_and_runs_nothing() {
    let site = Site::new(CORS);
    for path in ["/s", "/post", "/public"] {
        let headers = [
            SITE,
            FRIEND,
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization,last-event-id,x-evil"),
        ];
        let answer = site.ask(Method::OPTIONS, path, &headers).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("access-control-allow-origin"), Some(FRIEND.1));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, Some("authorization, content-type, last-event-id"));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    site.ran(0);
    assert!(site.sse.connections().is_empty());
}

#[tokio::test]
async fn every_answer_to_a_page_that_is_let_in_can_be_read_by_it() {
    let site = Site::new(&format!("{CORS}MaxConnections = 1"));
    let (bearer, lacking) = (format!("Bearer {}", token()), "Bearer a.b.c");
    let first = testing::open(&site.app, "/s").bearer(&token()).await.expect("a stream");
    for (method, authorization, status) in [
        (Method::GET, None, StatusCode::UNAUTHORIZED),
        (Method::GET, Some(lacking), StatusCode::UNAUTHORIZED),
        // A farewell: there is no place.
        (Method::GET, Some(bearer.as_str()), StatusCode::OK),
        (Method::HEAD, Some(bearer.as_str()), StatusCode::OK),
        (Method::DELETE, Some(bearer.as_str()), StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let mut headers = vec![SITE, FRIEND];
        headers.extend(authorization.map(|bearer| ("authorization", bearer)));
        let answer = site.ask(method.clone(), "/s", &headers).await;
        assert_eq!(answer.status, status, "{method} {authorization:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(FRIEND.1), "{method}");
        assert_eq!(answer.header("vary"), Some("origin"));
        let exposed = answer.header("access-control-expose-headers");
        assert_eq!(exposed, Some("www-authenticate, retry-after"));
    }
    drop(first);
    // Without an Origin the answer varies all the same, or a cache would keep it for everybody.
    let plain = site.ask(Method::GET, "/s", &[SITE]).await;
    assert_eq!(plain.header("vary"), Some("origin"));
    plain.lets_nobody_read();
}

#[tokio::test]
async fn cors_without_credentials_trusts_nobody_with_a_cookie() {
    let reads = Site::new(CORS);
    assert_eq!(reads.with_cookie("/s", &[SITE, FRIEND]).await, StatusCode::FORBIDDEN);
    reads.ran(0);
    let acts = Site::new(&format!("{CORS}CorsCredentials = true"));
    let friend = [SITE, FRIEND, ("sec-fetch-site", "cross-site")];
    assert_eq!(acts.with_cookie("/s", &friend).await, StatusCode::OK);
    let answer = acts.ask(Method::GET, "/s", &friend).await;
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    acts.ran(1);
}

#[tokio::test]
async fn a_get_and_a_post_on_one_path_share_their_preflight() {
    let sse = sse_with(SseOptions::default().cors(Cors::origins([FRIEND.1])));
    let reads: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    let posts = sse.endpoint("/s").public().post_handler(async || burst(1)).expect("a route");
    let app = reads.merge(posts);
    for method in [Method::GET, Method::POST, Method::OPTIONS, Method::PUT] {
        let open = testing::open(&app, "/s").method(method.clone()).header("origin", FRIEND.1);
        let headers = match open.await {
            Ok(stream) => stream.headers().clone(),
            Err(error) => error.headers,
        };
        assert_eq!(headers["access-control-allow-origin"], FRIEND.1, "{method}");
        assert_eq!(headers.get_all("vary").iter().count(), 1, "{method}");
    }
}

// ---- URLs and logs ------------------------------------------------------------------------------

#[tokio::test]
async fn no_answer_lets_its_url_out_as_a_referrer() {
    let site = Site::new("");
    let bearer = format!("Bearer {}", token());
    for headers in
        [&[("authorization", bearer.as_str())][..], &[], &[("authorization", "Bearer x y")]]
    {
        let answer = site.ask(Method::GET, "/s", headers).await;
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{}", answer.status);
    }
}

#[tokio::test]
async fn an_application_reads_parameters_that_left_the_uri_or_keeps_them_there() {
    let show = async |uri: http::Uri, query: QueryToken| {
        let text = |secret: Option<&Secret<String>>| secret.map_or("-", |s| s.expose()).to_owned();
        format!("{uri} {} {}", text(query.access_token()), text(query.ticket()))
    };
    for (toml, uri) in
        [("", "/show?x=1"), ("RedactQuery = false", "/show?ticket=42&x=1&access_token=t")]
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
fn the_span_of_a_request_names_no_query() {
    let (log, _guard) = Log::everything();
    let request = http::Request::get("/s?access_token=canary-7f3a").body(()).expect("a request");
    request_span(&request).in_scope(|| tracing::info!("said"));
    let log = log.text();
    assert!(log.contains("/s") && log.contains("GET") && log.contains("HTTP/1.1"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

/// Accepts what ends in `good`, and has every way to fail. Its own texts name no token.
async fn whim(token: Secret<String>) -> Result<Principal, AuthError> {
    tracing::trace!(?token, "asked who holds a token");
    match token.expose().rsplit('-').next() {
        Some("good") => Ok(Principal::new("ann").permission("usage.read")),
        Some("panics") => panic!("the authenticator panics on purpose: {token:?}"),
        Some("unknown") => Err(AuthError::unavailable("the issuer is away on purpose")),
        _ => Err(AuthError::invalid("the token is not accepted")),
    }
}

const CANARY: &str = "canary-7f3a";

/// What this process's panics said.
fn panics() -> &'static Mutex<String> {
    static SAID: OnceLock<Mutex<String>> = OnceLock::new();
    SAID.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(mut said) = panics().lock() {
                said.push_str(&panic.to_string());
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

/// Everything an application can do with a request, and everything that can go wrong in it.
fn every_way(sse: &HeroSse) -> Router {
    let made = |made: Result<Router, hero_sse::SetupErrors>| made.expect("a route");
    let endpoint = |path: &str| sse.endpoint(path).permission("usage.read");
    let log = async |who: Principal, headers: HeaderMap, cursor: hero_sse::LastEventId| {
        tracing::info!(?who, ?headers, ?cursor, "the application logs too");
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
            tracing::info!(?who, "the application logs too");
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

/// The requests: a token at every place, in every state.
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

/// A `TraceLayer` that tells all it is told.
macro_rules! tells_all {
    ($span:expr) => {
        TraceLayer::new_for_http()
            .make_span_with($span)
            .on_request(DefaultOnRequest::new().level(Level::TRACE))
            .on_response(DefaultOnResponse::new().level(Level::TRACE).include_headers(true))
    };
}

fn whims(jwt_instead: bool) -> HeroSse {
    let builder = HeroSse::builder()
        .options(options(
            "TokenCookie = \"t\"\nConnectsPerMinute = \"off\"\nFailedAttemptsPerMinute = \"off\"",
        ))
        .environment(Vec::<(String, String)>::new());
    match jwt_instead {
        true => builder.authenticator(jwt()).build().expect("a server"),
        false => builder.authenticator(authenticator_fn(whim)).build().expect("a server"),
    }
}

/// Drives all requests through all ways of the server at `address`, over HTTP/1.1; no answer has the
/// canary either. How often each status came.
async fn drive(address: SocketAddr, log: &Log) {
    let ways = [
        "/s", "/public", "/panics", "/later", "/fails", "/rejects", "/own", "/context", "/nowhere",
    ];
    let mut opened = 0;
    for (query, header) in every_credential() {
        for way in ways {
            let request =
                format!("GET {way}{query} HTTP/1.1\r\nhost: app.example.com\r\n{header}\r\n");
            let answer = raw(address, &request).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{request}: {answer}");
            assert!(!answer.contains(CANARY), "{request}: {answer}");
            opened += usize::from(answer.starts_with("HTTP/1.1 200"));
        }
    }
    assert!(opened > 0, "no token was good");
    let text = log.text();
    assert!(text.contains("request refused"), "the kit said nothing: {text}");
    seen_nowhere(&text);
}

#[track_caller]
fn seen_nowhere(text: &str) {
    let line = text.lines().find(|line| line.contains(CANARY));
    assert_eq!(line, None, "the canary was seen");
    assert!(!panics().lock().expect("no panic").contains(CANARY), "a panic told the canary");
}

async fn axum_serve(app: Router) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (address, tokio::spawn(axum::serve(listener, app).into_future()))
}

/// A layer that looks at everything, as an access log does.
async fn looks(request: Request, next: Next) -> axum::response::Response {
    tracing::trace!(uri = %request.uri(), headers = ?request.headers(), "an access log");
    tracing::trace!(?request, "a careless access log");
    let original = request.extensions().get::<axum::extract::OriginalUri>();
    tracing::trace!(?original, "a careful access log");
    next.run(request).await
}

#[tokio::test]
async fn a_canary_is_seen_by_no_log_span_panic_or_label_under_serve() {
    let (log, _guard) = Log::everything();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    panics();
    for jwt_instead in [false, true] {
        let sse = whims(jwt_instead);
        let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
        let app = every_way(&sse).layer(from_fn(looks)).layer(tells_all!(span));
        let server = Server::start(&sse, app).await;
        match jwt_instead {
            false => drive(server.address, &log).await,
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
    seen_nowhere(&text);
    for told in ["an access log", "stream opened", "panicked", "could not be verified", "Sensitive"]
    {
        assert!(text.contains(told), "{told} is not in the log");
    }
    let said = panics().lock().expect("no panic").clone();
    for told in ["authenticator panics on purpose", "function panics", "stream panics"] {
        assert!(said.contains(told), "{told} is in no panic");
    }
    let labels = format!("{:?}", snapshotter.snapshot().into_vec());
    assert!(labels.contains("hero_sse_refused_total") && !labels.contains(CANARY), "{labels}");
}

#[tokio::test]
async fn a_canary_is_seen_by_nobody_under_axum_serve_with_guarded_connections() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = whims(false);
    let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
    let app = every_way(&sse).layer(from_fn(looks)).layer(tells_all!(span));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, app) = sse.guard(listener, app);
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    drive(address, &log).await;
    assert!(log.text().contains("an access log"));
    serving.abort();
}

#[tokio::test]
async fn a_canary_is_seen_by_nobody_behind_the_redact_layer() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = whims(false);
    let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
    let app = every_way(&sse).layer(from_fn(looks)).layer(tells_all!(span));
    // Twice is as once.
    let app = app.layer(sse.redact_layer()).layer(sse.redact_layer());
    let (address, serving) = axum_serve(app.clone()).await;
    drive(address, &log).await;
    serving.abort();
    let server = Server::start(&sse, app).await;
    drive(server.address, &log).await;
    server.stop().await;
}

#[tokio::test]
async fn a_canary_is_in_no_request_span_though_nothing_took_it_out() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = whims(false);
    let app = every_way(&sse).layer(tells_all!(request_span));
    let (address, serving) = axum_serve(app).await;
    // The headers that a handler logs were marked by nobody.
    for (query, _) in every_credential() {
        for way in ["/s", "/public", "/panics", "/own", "/nowhere"] {
            let request = format!("GET {way}{query} HTTP/1.1\r\nhost: a\r\n\r\n");
            assert!(!raw(address, &request).await.contains(CANARY));
        }
    }
    let text = log.text();
    assert!(text.contains("request{method=GET path=\"/s\" version=HTTP/1.1}"), "{text}");
    seen_nowhere(&text);
    serving.abort();
}

/// The transport's own words, too: h2 says a lot at TRACE, but tells neither paths nor headers of requests
/// that are well formed. Those that are not it quotes: `docs/monitoring.md` says so.
#[tokio::test]
async fn a_canary_is_seen_by_nobody_over_http2() {
    let (log, _guard) = Log::everything();
    panics();
    let sse = whims(false);
    let span = DefaultMakeSpan::new().level(Level::TRACE).include_headers(true);
    let app = every_way(&sse).layer(from_fn(looks)).layer(tells_all!(span));
    let server = Server::start(&sse, app).await;
    let address = server.address;
    // The client's own log is not the matter: its frames are made where nobody listens.
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let mut client = Client::connect(address).await;
            for (query, headers) in every_credential() {
                for way in ["/s", "/public", "/panics", "/own", "/nowhere"] {
                    let uri = format!("http://app.example.com{way}{query}");
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
    assert!(text.contains("h2::") && text.contains("an access log"), "h2 and the layer spoke");
    seen_nowhere(&text);
}
