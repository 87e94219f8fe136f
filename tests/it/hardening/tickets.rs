//! Attacks on tickets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hero_sse::auth::{AuthError, TicketGrant, TicketStore, Tickets};
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, Principal};
use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tower::ServiceExt;

use crate::support::testing;
use crate::support::{Log, Server};
use crate::tickets::{
    Shared, app, assert_not_accepted, builder, buy, json_of, open, post, sse_with,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_simultaneous_opens_with_one_ticket_one_succeeds() {
    let sse = sse_with("FailedAttemptsPerMinute = \"off\"");
    let server = Server::start(&sse, app(&sse)).await;
    for _ in 0..3 {
        let ticket = Plain(server.address).buy("/api/held").await;
        let start = Arc::new(Barrier::new(100));
        let opens: Vec<_> = (0..100)
            .map(|_| {
                let (start, address) = (start.clone(), server.address);
                let path = format!("/api/held?ticket={ticket}");
                tokio::spawn(async move {
                    let mut socket = TcpStream::connect(address).await.expect("a connection");
                    start.wait().await;
                    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
                    socket.write_all(head.as_bytes()).await.expect("sent");
                    let mut answer = [0; 12];
                    socket.read_exact(&mut answer).await.expect("an answer");
                    (String::from_utf8_lossy(&answer).into_owned(), socket)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for open in opens {
            answers.push(open.await.expect("no panic"));
        }
        let count = |status: &str| answers.iter().filter(|(a, _)| a.ends_with(status)).count();
        assert_eq!((count("200"), count("401")), (1, 99));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_spent_an_unknown_an_expired_and_a_malformed_ticket_look_the_same() {
    let app = app(&sse_with(""));
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    open(&app, "/api/usage", &ticket).await.expect("a stream");
    let over = buy(&app, "ann.may.50", "/api/usage").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let flipped = format!("{}{}", if ticket.starts_with('0') { '1' } else { '0' }, &ticket[1..]);
    let long = "a".repeat(6000);
    for (what, ticket) in [
        ("spent", ticket.as_str()),
        ("expired", over.as_str()),
        ("another digit", flipped.as_str()),
        ("capitals", &ticket.to_uppercase()),
        ("short", "a"),
        ("long", long.as_str()),
        ("no text", "%00%ff"),
        ("a star", "*"),
        ("a token", "ann.may"),
    ] {
        assert_not_accepted(open(&app, "/api/usage", ticket).await, what);
    }
}

#[tokio::test]
async fn a_ticket_opens_no_other_path_and_is_spent_by_the_attempt() {
    let app = app(&sse_with(""));
    for (bought, opened) in [
        ("/api/held", "/api/usage"),
        ("/api/usage", "/api/held"),
        ("/api/public", "/api/usage"),
        ("/api/usage", "/api/public"),
        ("/api/other/7", "/api/other/8"),
        ("/api/other/a%2fb", "/api/other/a%2Fb"),
        ("/api/other/a", "/api/other/%61"),
        ("/api/other/a", "/api/other/A"),
    ] {
        let ticket = buy(&app, "ann.may", bought).await;
        assert_not_accepted(open(&app, opened, &ticket).await, opened);
        assert_not_accepted(open(&app, bought, &ticket).await, "guessing is not free");
    }
    // The escaped slash is a letter of the capture here, and a path of its own.
    let ticket = buy(&app, "ann.may", "/api/other/a%2Fb").await;
    open(&app, "/api/other/a%2Fb", &ticket).await.expect("to the byte");
}

#[tokio::test]
async fn a_ticket_with_another_credential_or_a_second_ticket_is_refused() {
    let app = app(&sse_with(""));
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    let path = format!("/api/usage?ticket={ticket}");
    let refused = async |path: &str, header: &str| {
        let error = testing::open(&app, path).header("authorization", header).await;
        let error = error.expect_err("400");
        assert_eq!(error.status, Some(StatusCode::BAD_REQUEST), "{path} {header}");
        assert!(
            error.headers["www-authenticate"].to_str().expect("ASCII").contains("invalid_request")
        );
    };
    refused(&path, "Bearer ann.may").await;
    refused(&path, "Bearer mallory").await;
    refused(&path, "Bearer").await;
    refused(&format!("{path}&access_token=ann.may"), "Basic dTpw").await;
    refused(&format!("{path}&ticket={ticket}"), "Basic dTpw").await;
    refused(&format!("{path}&ticket=other"), "Basic dTpw").await;
    open(&app, "/api/usage", &ticket).await.expect("the ticket is not spent");
}

#[tokio::test]
async fn a_preview_by_head_neither_spends_a_ticket_nor_reveals_whether_it_is_valid() {
    let app = app(&sse_with(""));
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    let head = async |ticket: &str| {
        let path = format!("/api/usage?ticket={ticket}");
        let error = testing::open(&app, &path).method(Method::HEAD).await.expect_err("400");
        (error.status, format!("{:?}", error.headers))
    };
    let good = head(&ticket).await;
    assert_eq!(good.0, Some(StatusCode::BAD_REQUEST));
    assert_eq!(good, head(&"a".repeat(64)).await);
    open(&app, "/api/usage", &ticket).await.expect("a stream");
}

#[tokio::test]
async fn a_ticket_opens_no_post_and_no_other_route() {
    let sse = sse_with("");
    let own = get(async |who: Option<Principal>| who.map_or("nobody", |_| "somebody").to_owned());
    let server = Server::start(&sse, app(&sse).route("/own", own)).await;
    let router = Plain(server.address);
    let ticket = router.buy("/api/held").await;
    assert_eq!(router.get(&format!("/own?ticket={ticket}")).await, (200, "nobody".to_owned()));
    let (status, _) = router.send("POST", &format!("/api/answers?ticket={ticket}"), "").await;
    assert_eq!(status, 401);
    assert_eq!(router.status(&format!("/api/held?ticket={ticket}")).await, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_page_with_a_rebound_dns_name_can_neither_buy_nor_use_a_ticket() {
    let app = app(&sse_with("AllowedHosts = [\"app.example.com\"]"));
    let at = |host: &str, request: http::request::Builder, body: &str| {
        let request = request.header("host", host).body(Body::from(body.to_owned()));
        app.clone().oneshot(request.expect("a request"))
    };
    let buying = async |host| {
        let request = Request::post("/api/tickets").header("authorization", "Bearer ann.may");
        at(host, request, r#"{"path": "/api/usage"}"#).await.expect("an answer")
    };
    assert_eq!(buying("evil.example").await.status(), StatusCode::FORBIDDEN);
    let answer = buying("app.example.com").await;
    let ticket = json_of(answer).await["ticket"].as_str().expect("a ticket").to_owned();
    let using = async |host| {
        let request = Request::get(format!("/api/usage?ticket={ticket}"));
        at(host, request, "").await.expect("an answer").status()
    };
    assert_eq!(using("evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(using("app.example.com").await, StatusCode::OK, "the ticket is not spent");
}

#[tokio::test]
async fn a_leaked_store_opens_nothing() {
    let shared = Shared::default();
    let sse = builder("").tickets(Tickets::new().audience("usage").store(shared.clone()));
    let app = app(&sse.build().expect("a server"));
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    let leak = shared.everything();
    assert!(leak.contains("ann") && !leak.contains(&ticket), "{leak}");
    let key = leak.split('"').nth(1).expect("a key").to_owned();
    assert_eq!(key.len(), 64);
    assert_not_accepted(open(&app, "/api/usage", &key).await, "the store's key as a ticket");
    open(&app, "/api/usage", &ticket).await.expect("a stream");
}

/// Never drops tickets, and returns them as if they had been made a while ago.
struct NeverExpires {
    inner: Shared,
    older_by: u64,
}

impl TicketStore for NeverExpires {
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        _: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        self.inner.put(key, grant, Duration::from_secs(3600))
    }

    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        async move {
            let Some(text) = self.inner.take(key).await? else { return Ok(None) };
            let mut grant: Value = serde_json::from_str(&text).expect("JSON");
            let until = &mut grant["until"]["secs_since_epoch"];
            *until = (until.as_u64().expect("seconds") - self.older_by).into();
            Ok(Some(grant.to_string()))
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_store_that_drops_no_ticket_does_not_extend_its_life() {
    let app = |older_by| {
        let store = NeverExpires { inner: Shared::default(), older_by };
        let tickets = Tickets::new().audience("usage").store(store);
        app(&builder("").tickets(tickets).build().expect("a server"))
    };
    // A time to live of 30 s, and 30 s of clock skew.
    let fresh = app(50);
    let ticket = buy(&fresh, "ann.may", "/api/usage").await;
    open(&fresh, "/api/usage", &ticket).await.expect("a stream");
    let old = app(70);
    let ticket = buy(&old, "ann.may", "/api/usage").await;
    assert_not_accepted(open(&old, "/api/usage", &ticket).await, "it has expired");
    let ticket = buy(&fresh, "ann.may.100", "/api/usage").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_not_accepted(open(&fresh, "/api/usage", &ticket).await, "its token has expired");
}

#[tokio::test]
async fn tickets_are_unique_and_random() {
    let app = app(&sse_with(""));
    let mut tickets = std::collections::HashSet::new();
    let mut ones = 0;
    for _ in 0..500 {
        let ticket = buy(&app, "ann.may", "/api/usage").await;
        ones += ticket.chars().filter_map(|c| c.to_digit(16)).map(u32::count_ones).sum::<u32>();
        assert!(tickets.insert(ticket));
    }
    // 128,000 bits: half of them, within ten standard deviations.
    assert!((62_200..65_800).contains(&ones), "{ones}");
}

#[tokio::test]
async fn a_redirect_contains_neither_ticket_nor_token() {
    let sse = sse_with("");
    // Common redirects: to the path without a slash, and to another scheme.
    let slash = async |request: Request, next: Next| {
        let uri = request.uri().clone();
        let path = uri.path();
        if path.starts_with("/api/usage/") {
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            return Redirect::permanent(&format!("{}{query}", path.trim_end_matches('/')))
                .into_response();
        }
        if request.headers().get("x-scheme") == Some(&HeaderValue::from_static("http")) {
            let all = uri.path_and_query().map_or("/", |all| all.as_str());
            return Redirect::temporary(&format!("https://example.com{all}")).into_response();
        }
        next.run(request).await
    };
    let server = Server::start(&sse, app(&sse).layer(from_fn(slash))).await;
    let router = Plain(server.address);
    let ticket = router.buy("/api/usage").await;
    for (path, headers, location) in [
        (format!("/api/usage/?a=1&ticket={ticket}&access_token=ann.may"), "", "/api/usage?a=1"),
        (
            format!("/api/usage?ticket={ticket}"),
            "x-scheme: http\r\n",
            "https://example.com/api/usage",
        ),
        (
            "/api/usage?access_token=ann.may&b".to_owned(),
            "x-scheme: http\r\n",
            "https://example.com/api/usage?b",
        ),
        (
            format!("/elsewhere?Ticket={ticket}"),
            "x-scheme: http\r\n",
            "https://example.com/elsewhere",
        ),
    ] {
        let (status, answer) = router.send("GET", &path, headers).await;
        assert!(status == 308 || status == 307, "{status}");
        assert!(answer.contains(&format!("location: {location}\r\n")), "{answer}");
        assert!(!answer.contains(&ticket) && !answer.contains("ann.may"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_server_never_redirects() {
    let sse = sse_with("");
    let server = Server::start(&sse, app(&sse)).await;
    let router = Plain(server.address);
    for path in ["/api/usage/", "//api/usage", "/api/usage/../usage", "/api/./usage", "/api//usage"]
    {
        let ticket = router.buy("/api/usage").await;
        let (status, answer) = router.send("GET", &format!("{path}?ticket={ticket}"), "").await;
        assert_eq!(status, 404, "{path}");
        assert!(!answer.contains(&ticket) && !answer.contains("location"), "{path}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn neither_log_nor_debug_shows_a_ticket() {
    let (log, _guard) = Log::everything();
    let shared = Shared::default();
    let tickets = Tickets::new().audience("usage").store(shared);
    let shown = format!("{tickets:?}");
    let sse = builder("").tickets(tickets).build().expect("a server");
    let app = app(&sse).layer(from_fn(async |request: Request, next: Next| {
        tracing::info!("{:?}", request.extensions());
        next.run(request).await
    }));
    let server = Server::start(&sse, app).await;
    let router = Plain(server.address);
    let ticket = router.buy("/api/held").await;
    for path in ["/api/held", "/api/usage", "/none"] {
        router.status(&format!("{path}?ticket={ticket}")).await;
    }
    server.stop().await;
    let log = log.text();
    assert!(log.contains("/api/held") || log.contains("stream opened"), "{log}");
    assert!(!log.contains(&ticket) && !shown.contains(&ticket), "{log}");
}

#[tokio::test]
async fn the_closing_event_of_a_stream_by_ticket_never_says_reconnect() {
    let sse = sse_with("");
    let server = Server::start(&sse, app(&sse)).await;
    let router = Plain(server.address);
    for path in ["/api/held", "/api/usage"] {
        let ticket = router.buy(path).await;
        let mut stream = testing::connect(server.address, &format!("{path}?ticket={ticket}"))
            .await
            .expect("a stream");
        stream.next().await.expect("in time").expect("an event");
        if path == "/api/held" {
            sse.connections().drain(&hero_sse::connections::ConnectionFilter::all());
        }
        let close =
            stream.read_to_end().await.expect("a clean end").pop().expect("a closing event");
        assert_eq!(
            close.json::<Value>().expect("JSON")["reconnect"],
            Value::Bool(false),
            "{close:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_caller_that_buys_endlessly_evicts_no_other_callers_ticket() {
    let app = app(&sse_with(""));
    let bobs = buy(&app, "bob.may", "/api/usage").await;
    let first = buy(&app, "ann.may", "/api/usage").await;
    for _ in 0..300 {
        buy(&app, "ann.may", "/api/usage").await;
    }
    assert_not_accepted(open(&app, "/api/usage", &first).await, "her own oldest was evicted");
    open(&app, "/api/usage", &bobs).await.expect("his is not evicted");
}

/// The authenticator is not called again when a ticket is used.
#[tokio::test]
async fn a_ticket_from_before_a_disconnect_opens_nothing_after_it() {
    let sse = sse_with("");
    let app = app(&sse);
    let [anns, bobs, late] = [
        buy(&app, "ann.may", "/api/usage").await,
        buy(&app, "bob.may", "/api/usage").await,
        buy(&app, "bob.may", "/api/usage").await,
    ];
    let ann = ConnectionFilter::all().subject("ann");
    sse.connections().disconnect(&ann, CloseReason::Revoked);
    let close = open(&app, "/api/usage", &anns).await.expect("a closing event");
    let close: Value = serde_json::from_str(&close).expect("JSON");
    assert_eq!((&close["reason"], &close["reconnect"]), (&"unverified".into(), &false.into()));
    assert!(open(&app, "/api/usage", &bobs).await.expect("a stream").starts_with("bob"));
    // A caller that the authenticator still accepts may buy another ticket.
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    assert!(open(&app, "/api/usage", &ticket).await.expect("a stream").starts_with("ann"));
    // After more disconnects than are recorded, no earlier ticket is accepted.
    for n in 0..300 {
        let other = ConnectionFilter::all().subject(n.to_string());
        sse.connections().disconnect(&other, CloseReason::Revoked);
    }
    let close = open(&app, "/api/usage", &late).await.expect("a closing event");
    assert!(close.contains("unverified"), "{close}");
}

#[tokio::test]
async fn a_ticket_has_only_the_permissions_of_its_token() {
    let app = app(&sse_with(""));
    // Without the permission there is no ticket for one path. A ticket for another path does not open it.
    let answer = post(&app, "/api/tickets", "bob", r#"{"path": "/api/usage"}"#).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let ticket = buy(&app, "bob", "/api/held").await;
    assert_not_accepted(open(&app, "/api/usage", &ticket).await, "another path");
}

/// A client over sockets. It reads a response until its end or until 300 ms of silence.
pub(super) struct Plain(pub(super) SocketAddr);

impl Plain {
    pub(super) async fn send(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        self.send_body(method, path, headers, "").await
    }

    pub(super) async fn send_body(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String) {
        let mut socket = TcpStream::connect(self.0).await.expect("a connection");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        socket.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // A stream does not end, so its first part is enough.
        while let Ok(Ok(1..)) =
            tokio::time::timeout(Duration::from_millis(300), socket.read_buf(&mut answer)).await
        {
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        (status, text)
    }

    pub(super) async fn status(&self, path: &str) -> u16 {
        self.send("GET", path, "").await.0
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let (status, answer) = self.send("GET", path, "").await;
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    pub(super) async fn buy(&self, path: &str) -> String {
        let body = serde_json::json!({ "path": path }).to_string();
        let token = "authorization: Bearer ann.may\r\n";
        let (status, answer) = self.send_body("POST", "/api/tickets", token, &body).await;
        assert_eq!(status, 200, "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let answer: Value = serde_json::from_str(body).expect("JSON");
        answer["ticket"].as_str().expect("a ticket").to_owned()
    }
}
