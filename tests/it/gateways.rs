//! What gateways, browsers and other applications add to a request without being asked.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::routing::get;
use futures_util::stream;
use hero_sse::auth::{AuthError, Secret, Tickets, authenticator_fn};
use hero_sse::prelude::*;
use hero_sse::{Principal, SseContext, SseOptions};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{Server, burst, eventually, options, public, sse_with};

/// Reads until 200 ms of silence.
async fn read(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let silence = Duration::from_millis(200);
    while let Ok(Ok(1..)) = timeout(silence, socket.read_buf(&mut answer)).await {}
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(server: &Server, request: &str) -> String {
    let mut socket = TcpStream::connect(server.address).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("sent");
    read(&mut socket).await
}

const CHUNKED: &str = "GET /s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn an_empty_body_is_no_body_whenever_it_ends() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    for (body, status) in [
        ("0\r\n\r\n", 200),
        ("0;ext=1\r\ntrailer: x\r\n\r\n", 200),
        ("1\r\nx\r\n0\r\n\r\n", 400),
        ("zz\r\n\r\n", 400),
    ] {
        let got = ask(&server, &format!("{CHUNKED}{body}")).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{body:?}: {got}");
    }
    let long = "GET /s HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
    assert!(ask(&server, long).await.starts_with("HTTP/1.1 400"));
    // The end arrives after the head.
    let mut late = TcpStream::connect(server.address).await.expect("a connection");
    late.write_all(CHUNKED.as_bytes()).await.expect("sent");
    assert_eq!(read(&mut late).await, "");
    late.write_all(b"0\r\n\r\n").await.expect("sent");
    assert!(read(&mut late).await.starts_with("HTTP/1.1 200"));
    assert_eq!(sse.connections().len(), 1);
    // The server notices that this client disconnects.
    drop(late);
    let connections = sse.connections().clone();
    eventually("the stream ends", || connections.is_empty()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_holds_no_slot_and_is_answered() {
    let sse = sse_with(options("MaxConnections = 1"));
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let mut slow = TcpStream::connect(server.address).await.expect("a connection");
    slow.write_all(format!("{CHUNKED}0;").as_bytes()).await.expect("sent");
    for _ in 0..4 {
        sleep(Duration::from_millis(300)).await;
        slow.write_all(b"x").await.expect("sent");
    }
    assert!(sse.connections().is_empty());
    let open = ask(&server, "GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(open.contains("event: message") || open.contains("data: "), "{open}");
    let mut answer = [0; 12];
    timeout(Duration::from_secs(6), slow.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("it");
    assert_eq!(&answer, b"HTTP/1.1 408");
    server.stop().await;
}

#[tokio::test]
async fn over_http2_an_empty_data_frame_is_no_body() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let (requests, connection) = h2::client::handshake(socket).await.expect("a handshake");
    let driver = tokio::spawn(connection);
    for (data, status) in [(&b""[..], 200), (b"x", 400)] {
        let request = Request::get("http://localhost/s").body(()).expect("a request");
        let mut requests = requests.clone().ready().await.expect("a free place");
        let (answer, mut body) = requests.send_request(request, false).expect("sent");
        sleep(Duration::from_millis(50)).await;
        body.send_data(Bytes::from_static(data), true).expect("sent");
        let answer = timeout(Duration::from_secs(3), answer).await.expect("in time");
        assert_eq!(answer.expect("an answer").status(), status, "{data:?}");
    }
    driver.abort();
    server.stop().await;
}

/// Accepts `good` and `gone`, which has expired.
fn with_cookies() -> HeroSse {
    let authenticate =
        authenticator_fn(async |token: Secret<String>| match token.expose().as_str() {
            "good" => Ok(Principal::new("ann")),
            "gone" => Ok(Principal::new("ann").valid_until(std::time::SystemTime::UNIX_EPOCH)),
            "down" => Err(AuthError::unavailable("the database is down")),
            _ => Err(AuthError::invalid("unknown")),
        });
    HeroSse::builder()
        .options(options("TokenCookie = \"sid\"\nOverLimit = \"refuse\""))
        .environment(Vec::<(String, String)>::new())
        .authenticator(authenticate)
        .build()
        .expect("a server")
}

#[tokio::test]
async fn a_stale_cookie_on_a_public_endpoint_is_nobodys() {
    let sse = with_cookies();
    let name = |who: Option<Principal>| {
        let name = who.map_or("nobody".to_owned(), |who| who.subject().to_owned());
        stream::iter([Event::text(name)])
    };
    let open = sse.endpoint("/open").public().handler(async move |who| name(who));
    let closed = sse.endpoint("/closed").handler(async move |who| name(who));
    let context = async move |sse: SseContext, who| sse.public().stream(name(who)).await;
    let context_closed = async move |sse: SseContext| sse.stream(name(None)).await;
    let app: Router = open.expect("a route").merge(closed.expect("a route"));
    let app = app.route("/context", get(context)).route("/context/closed", get(context_closed));
    let server = Server::start(&sse, app).await;
    let get = async |path: &str, headers: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nsec-fetch-site: same-origin\r\n");
        ask(&server, &format!("{head}{headers}\r\n")).await
    };
    for cookie in ["yesterday", "gone", "a b", "1; sid=2", &"x".repeat(8193)] {
        let cookie = format!("cookie: sid={cookie}\r\n");
        for path in ["/open", "/context"] {
            let got = get(path, &cookie).await;
            assert!(got.starts_with("HTTP/1.1 200"), "{path} {cookie}: {got}");
            assert!(got.contains("data: nobody\n"), "{path} {cookie}: {got}");
        }
        for path in ["/closed", "/context/closed"] {
            let got = get(path, &cookie).await;
            assert!(got.starts_with("HTTP/1.1 40"), "{path} {cookie}: {got}");
        }
    }
    let got = get("/closed", "cookie: sid=yesterday\r\n").await;
    assert!(got.starts_with("HTTP/1.1 401") && got.contains("invalid_token"), "{got}");
    // What a client sends on purpose must be right. And a cookie that nobody can check may be good.
    for (headers, status, data) in [
        ("cookie: sid=good\r\n", 200, "data: ann\n"),
        ("authorization: Bearer yesterday\r\n", 401, ""),
        ("authorization: Bearer yesterday\r\ncookie: sid=yesterday\r\n", 401, ""),
        ("authorization: Bearer good\r\ncookie: sid=yesterday\r\n", 400, ""),
        ("cookie: sid=down\r\n", 503, ""),
    ] {
        let got = get("/open", headers).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {got}");
        assert!(got.contains(data), "{headers}: {got}");
    }
    let got = get("/open?access_token=yesterday", "").await;
    assert!(got.starts_with("HTTP/1.1 401"), "{got}");
    server.stop().await;
}

#[tokio::test]
async fn without_tickets_a_parameter_called_ticket_is_the_applications() {
    type Params = Query<Vec<(String, String)>>;
    let show = get(async |Query(all): Query<Vec<(String, String)>>| format!("{all:?}"));
    let builder = || HeroSse::builder().environment(Vec::<(String, String)>::new());
    for (sse, left) in [
        (builder().build(), r#"[("ticket", "ST-123"), ("x", "1")]"#),
        (builder().tickets(Tickets::new().audience("a")).build(), r#"[("x", "1")]"#),
    ] {
        let sse = sse.expect("a server");
        let numbered = sse.endpoint("/s").public();
        let numbered = numbered
            .handler(async |Query(all): Params| stream::iter([Event::text(format!("{all:?}"))]));
        let app: Router = Router::new().route("/login/cas", show.clone());
        let server = Server::start(&sse, app.merge(numbered.expect("a route"))).await;
        let head = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let got =
            ask(&server, &format!("GET /login/cas?ticket=ST-123&x=1&access_token=t {head}")).await;
        assert!(got.ends_with(left), "{got}");
        let got = ask(&server, &format!("GET /s?ticket=ST-123&x=1 {head}")).await;
        let is_on = !left.contains("ST-123");
        // A ticket that is none is refused where there are tickets.
        let status = if is_on { "HTTP/1.1 401" } else { "HTTP/1.1 200" };
        assert!(got.starts_with(status) && (is_on || got.contains(left)), "{got}");
        server.stop().await;
    }
}
