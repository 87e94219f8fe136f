//! Attacks on tickets, and on the limit of failed attempts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hero_sse::auth::{AuthError, Authenticator, Secret, TicketGrant, TicketStore, Tickets};
use hero_sse::connections::ConnectionFilter;
use hero_sse::options::OverLimit;
use hero_sse::{CloseReason, HeroSse, Principal};
use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tower::ServiceExt;

use crate::support::testing;
use crate::support::{Log, Server, burst};
use crate::tickets::{
    Shared, app, assert_not_accepted, builder, buy, json_of, open, post, sse_with,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn double_spend_of_a_hundred_opens_at_once_one_wins() {
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
async fn a_ticket_of_one_path_opens_no_other_and_is_gone_after_the_attempt() {
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
    open(&app, "/api/usage", &ticket).await.expect("none of it spent the ticket");
}

#[tokio::test]
async fn a_preview_by_head_neither_spends_a_ticket_nor_tells_whether_it_is_good() {
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
async fn a_ticket_opens_no_post_and_no_route_of_the_applications_own() {
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
async fn a_page_whose_name_was_made_to_lead_here_gets_and_uses_no_ticket() {
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
    assert_eq!(using("app.example.com").await, StatusCode::OK, "it was not spent");
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

/// Keeps tickets for ever, and gives them back as if they had been made a while ago.
struct Hoarder {
    inner: Shared,
    older_by: u64,
}

impl TicketStore for Hoarder {
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
async fn a_store_that_forgets_nothing_makes_no_ticket_live_longer() {
    let app = |older_by| {
        let store = Hoarder { inner: Shared::default(), older_by };
        let tickets = Tickets::new().audience("usage").store(store);
        app(&builder("").tickets(tickets).build().expect("a server"))
    };
    // 30 s to live, and 30 s that the clocks of two nodes may differ.
    let fresh = app(50);
    let ticket = buy(&fresh, "ann.may", "/api/usage").await;
    open(&fresh, "/api/usage", &ticket).await.expect("a stream");
    let old = app(70);
    let ticket = buy(&old, "ann.may", "/api/usage").await;
    assert_not_accepted(open(&old, "/api/usage", &ticket).await, "its time is over");
    let ticket = buy(&fresh, "ann.may.100", "/api/usage").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_not_accepted(open(&fresh, "/api/usage", &ticket).await, "its token's time is over");
}

#[tokio::test]
async fn no_two_tickets_are_alike() {
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
async fn a_redirect_repeats_neither_ticket_nor_token() {
    let sse = sse_with("");
    // What many an application has: to the same place with a slash, to another scheme.
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
    for (path, headers, place) in [
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
        assert!(answer.contains(&format!("location: {place}\r\n")), "{answer}");
        assert!(!answer.contains(&ticket) && !answer.contains("ann.may"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_kit_redirects_nobody() {
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
async fn the_farewell_of_a_stream_by_a_ticket_never_says_to_come_back() {
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
async fn a_caller_that_buys_without_end_pushes_out_nobody_else() {
    let app = app(&sse_with(""));
    let bobs = buy(&app, "bob.may", "/api/usage").await;
    let first = buy(&app, "ann.may", "/api/usage").await;
    for _ in 0..300 {
        buy(&app, "ann.may", "/api/usage").await;
    }
    assert_not_accepted(open(&app, "/api/usage", &first).await, "her own oldest went");
    open(&app, "/api/usage", &bobs).await.expect("his is there");
}

/// The authenticator is not asked again when a ticket is used.
#[tokio::test]
async fn a_ticket_kept_for_later_brings_nobody_back_who_was_sent_away() {
    let sse = sse_with("");
    let app = app(&sse);
    let [anns, bobs, late] = [
        buy(&app, "ann.may", "/api/usage").await,
        buy(&app, "bob.may", "/api/usage").await,
        buy(&app, "bob.may", "/api/usage").await,
    ];
    let ann = ConnectionFilter::all().subject("ann");
    sse.connections().disconnect(&ann, CloseReason::Revoked);
    let told = open(&app, "/api/usage", &anns).await.expect("a closing event");
    let close: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&close["reason"], &close["reconnect"]), (&"unverified".into(), &false.into()));
    assert!(open(&app, "/api/usage", &bobs).await.expect("a stream").starts_with("bob"));
    // Whom the authenticator still accepts may buy another.
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    assert!(open(&app, "/api/usage", &ticket).await.expect("a stream").starts_with("ann"));
    // Where more were sent away than is remembered, nobody's is taken on trust.
    for n in 0..300 {
        let other = ConnectionFilter::all().subject(n.to_string());
        sse.connections().disconnect(&other, CloseReason::Revoked);
    }
    let told = open(&app, "/api/usage", &late).await.expect("a closing event");
    assert!(told.contains("unverified"), "{told}");
}

#[tokio::test]
async fn a_ticket_keeps_no_permission_that_was_not_its_tokens() {
    let app = app(&sse_with(""));
    // No permission, so no ticket for the one; and the other's opens nothing more.
    let answer = post(&app, "/api/tickets", "bob", r#"{"path": "/api/usage"}"#).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let ticket = buy(&app, "bob", "/api/held").await;
    assert_not_accepted(open(&app, "/api/usage", &ticket).await, "another path");
}

// ---------------------------------------------------------------------------------------------------------------------
// Guessing

/// A request of a client at `peer`, through the router alone.
async fn from(app: &Router, peer: &str, path: &str, headers: &[(&'static str, &str)]) -> Response {
    let mut request = Request::get(path).body(Body::empty()).expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::try_from(*value).expect("a header"));
    }
    let peer: SocketAddr = peer.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(peer));
    app.clone().oneshot(request).await.expect("an answer")
}

const BAD: (&str, &str) = ("authorization", "Bearer bad");
const GOOD: (&str, &str) = ("authorization", "Bearer ann.may");

/// `/api/refuse` answers with a status, what `app` has with a farewell.
fn guarded(toml: &str) -> (HeroSse, Router) {
    let sse = sse_with(toml);
    let refuse = sse.endpoint("/refuse").over_limit(OverLimit::Refuse);
    let refuse = refuse.handler(async || burst(1)).expect("a route");
    let open = sse.endpoint("/open").public().handler(async || burst(1)).expect("a route");
    let app = app(&sse).merge(refuse).merge(open);
    (sse, app)
}

#[tokio::test(start_paused = true)]
async fn guessing_is_stopped_after_a_minutes_attempts_whatever_comes_next() {
    let (sse, app) = guarded("FailedAttemptsPerMinute = 6\nMaxPerPrincipal = 100");
    let status = async |path: &str, header| {
        let answer = from(&app, "203.0.113.9:1", path, &[header]).await;
        let retry =
            answer.headers().get("retry-after").map(|v| v.to_str().expect("a number").to_owned());
        (answer.status().as_u16(), retry)
    };
    // Good tokens, no tokens and lacking permissions are no guesses.
    for _ in 0..20 {
        assert_eq!(status("/refuse", GOOD).await.0, 200);
        assert_eq!(status("/refuse", ("accept", "*/*")).await.0, 401);
        assert_eq!(status("/api/usage", ("authorization", "Bearer bob")).await.0, 403);
        assert_eq!(status("/refuse", ("authorization", "Bearer")).await.0, 400);
    }
    // Tokens and tickets count alike.
    let wrong = "/api/usage?ticket=7";
    for n in 0..6 {
        let tried = if n % 2 == 0 {
            status("/refuse", BAD).await
        } else {
            status(wrong, ("accept", "*/*")).await
        };
        assert_eq!(tried.0, 401, "{n}");
    }
    let (code, retry) = status("/refuse", GOOD).await;
    assert_eq!(code, 429, "a good one is not looked at either");
    let seconds: f64 = retry.expect("a time").parse().expect("a number");
    assert!((10.0..=16.0).contains(&seconds), "{seconds}");
    let body = from(&app, "203.0.113.9:2", "/refuse", &[BAD]).await;
    assert!(json_of(body).await.to_string().contains("too many tokens from your address"));
    // A browser is asked to come back.
    let farewell = from(&app, "203.0.113.9:1", "/api/held", &[BAD]).await;
    assert_eq!(
        (farewell.status().as_u16(), &farewell.headers()["content-type"]),
        (200, &HeaderValue::from_static("text/event-stream"))
    );
    let text = axum::body::to_bytes(farewell.into_body(), 9999).await.expect("a body");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("over_limit") && text.contains("\"reconnect\":true"), "{text}");
    // Who brings no credential, or comes from elsewhere, is not meant.
    assert_eq!(status("/open", ("accept", "*/*")).await.0, 200);
    assert_eq!(from(&app, "203.0.113.10:1", "/refuse", &[GOOD]).await.status(), 200);
    // Attempts in vain cost nothing more: one place is free again after a sixth of a minute.
    tokio::time::advance(Duration::from_millis(9_990)).await;
    assert_eq!(status("/refuse", GOOD).await.0, 429);
    tokio::time::advance(Duration::from_millis(20)).await;
    assert_eq!(status("/refuse", GOOD).await.0, 200);
    assert_eq!(status("/refuse", BAD).await.0, 401);
    assert_eq!(status("/refuse", BAD).await.0, 429);
    assert!(sse.connections().closed(hero_sse::CloseReason::OverLimit) >= 4);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_too_long_to_look_at_are_guesses_too() {
    let (_, app) = guarded("FailedAttemptsPerMinute = 3");
    let long = format!("Bearer {}", "a".repeat(9_000));
    let ask = async |header: &str| {
        let headers = [("authorization", header)];
        from(&app, "203.0.113.9:1", "/refuse", &headers).await.status().as_u16()
    };
    for _ in 0..3 {
        assert_eq!(ask(&long).await, 401);
    }
    for header in [&*long, "Bearer bad", "Bearer ann.may", "Bearer mal formed"] {
        assert_eq!(ask(header).await, 429, "{:.20}", header);
    }
}

/// A token that is looked up: the answer takes a while.
struct Slow(Arc<AtomicUsize>);

impl Authenticator for Slow {
    fn authenticate<'a>(
        &'a self,
        _: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(AuthError::invalid("the key is not known"))
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn guesses_that_come_all_at_once_do_not_pass_the_limit_together() {
    let looked_at = Arc::new(AtomicUsize::new(0));
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Slow(looked_at.clone()))
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    for _ in 0..300 {
        let burst = (0..100).map(|_| from(&app, "203.0.113.9:1", "/s", &[BAD]));
        futures_util::future::join_all(burst).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let looked_at = looked_at.load(Ordering::SeqCst);
    // In five minutes: as many as come at once, again and again, but not each second.
    assert!(looked_at <= 800, "{looked_at} guesses in five minutes");
}

/// `<img src="https://victim.example/stream?access_token=bad">`, sixty times a minute.
#[tokio::test(start_paused = true)]
async fn another_sites_page_does_not_shut_its_visitors_out() {
    let (_, app) = guarded("FailedAttemptsPerMinute = 3\nMaxPerPrincipal = 100");
    let status = async |site: Option<&'static str>, header| {
        let mut headers = vec![header];
        headers.extend(site.map(|site| ("sec-fetch-site", site)));
        from(&app, "203.0.113.9:1", "/refuse", &headers).await.status().as_u16()
    };
    for site in ["cross-site", "same-site", "cross-site"] {
        assert_eq!(status(Some(site), BAD).await, 401);
    }
    assert_eq!(status(Some("cross-site"), GOOD).await, 429, "what pages bring is limited too");
    for own in [Some("same-origin"), Some("none"), None] {
        assert_eq!(status(own, GOOD).await, 200, "{own:?}");
    }
    for _ in 0..3 {
        assert_eq!(status(None, BAD).await, 401);
    }
    assert_eq!(status(Some("same-origin"), GOOD).await, 429);
}

#[tokio::test(start_paused = true)]
async fn a_network_of_a_billion_billion_addresses_is_one_guesser() {
    let (_, app) = guarded("FailedAttemptsPerMinute = 6");
    for n in 0..6 {
        let peer = format!("[2001:db8:0:1::{n}]:1");
        assert_eq!(from(&app, &peer, "/refuse", &[BAD]).await.status(), 401);
    }
    assert_eq!(from(&app, "[2001:db8:0:1:ffff::]:1", "/refuse", &[BAD]).await.status(), 429);
    assert_eq!(from(&app, "[2001:db8:0:2::1]:1", "/refuse", &[BAD]).await.status(), 401);
}

#[tokio::test(start_paused = true)]
async fn a_forged_header_neither_hides_a_guesser_nor_blames_another() {
    let (_, app) = guarded("FailedAttemptsPerMinute = 2\nTrustedProxies = [\"10.0.0.1\"]");
    for n in 0..2 {
        let forged = format!("198.51.100.{n}");
        let answer =
            from(&app, "203.0.113.9:1", "/refuse", &[BAD, ("x-forwarded-for", &forged)]).await;
        assert_eq!(answer.status(), 401);
    }
    let forged = [BAD, ("x-forwarded-for", "198.51.100.7")];
    assert_eq!(from(&app, "203.0.113.9:1", "/refuse", &forged).await.status(), 429);
    assert_eq!(from(&app, "198.51.100.0:1", "/refuse", &[BAD]).await.status(), 401);
    // Through the proxy, each client for itself.
    for _ in 0..2 {
        let of = |client| [BAD, ("x-forwarded-for", client)];
        assert_eq!(from(&app, "10.0.0.1:1", "/refuse", &of("192.0.2.1")).await.status(), 401);
        assert_eq!(from(&app, "10.0.0.1:1", "/refuse", &of("192.0.2.2")).await.status(), 401);
    }
    let third = [BAD, ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(from(&app, "10.0.0.1:1", "/refuse", &third).await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn one_guesser_behind_a_proxy_that_nobody_named_does_not_shut_out_the_others() {
    let (log, _guard) = Log::everything();
    let (_, app) = guarded("FailedAttemptsPerMinute = 2");
    let through = [BAD, ("x-forwarded-for", "192.0.2.1")];
    for _ in 0..50 {
        assert_eq!(from(&app, "10.0.0.1:1", "/refuse", &through).await.status(), 401);
    }
    let text = log.text();
    assert_eq!(text.matches("a proxy that `TrustedProxies` does not name").count(), 1, "{text}");
    // From the internet nobody is taken for one.
    for _ in 0..2 {
        assert_eq!(from(&app, "203.0.113.9:1", "/refuse", &through).await.status(), 401);
    }
    assert_eq!(from(&app, "203.0.113.9:1", "/refuse", &through).await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn an_attack_is_a_line_a_second_in_the_log() {
    let (log, _guard) = Log::everything();
    let (_, app) = guarded("FailedAttemptsPerMinute = 1");
    for _ in 0..100 {
        from(&app, "203.0.113.9:1", "/refuse", &[BAD]).await;
    }
    let line = "too many tokens from this address were not accepted";
    let warned =
        |text: &str| text.lines().filter(|l| l.contains("WARN") && l.contains(line)).count();
    let text = log.text();
    assert_eq!(warned(&text), 1, "{text}");
    assert!(text.contains("203.0.113.9"), "{text}");
    tokio::time::advance(Duration::from_secs(1)).await;
    from(&app, "203.0.113.9:1", "/refuse", &[BAD]).await;
    let text = log.text();
    assert_eq!(warned(&text), 2, "{text}");
    assert!(text.contains("kept_back=98"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_guess_is_counted_under_the_limit_that_stopped_it() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (_, app) = guarded("FailedAttemptsPerMinute = 1");
    for _ in 0..3 {
        from(&app, "203.0.113.9:1", "/refuse", &[BAD]).await;
    }
    let all = format!("{:?}", snapshotter.snapshot().into_vec());
    assert!(all.contains("this address's failed attempts a minute"), "{all}");
    assert!(!all.contains("203.0.113.9"), "no label is a client's to make: {all}");
}

#[tokio::test]
async fn guessing_over_sockets_at_endpoints_at_the_tickets_and_at_routes_of_ones_own_is_one_count()
{
    let sse = sse_with("FailedAttemptsPerMinute = 9");
    let own = get(async |who: Principal| who.subject().to_owned());
    let server = Server::start(&sse, app(&sse).route("/own", own)).await;
    let router = Plain(server.address);
    let bad = "authorization: Bearer bad\r\n";
    for _ in 0..3 {
        assert_eq!(router.send("GET", "/own", bad).await.0, 401);
        assert_eq!(router.send("GET", "/api/usage", bad).await.0, 401);
        assert_eq!(router.send("POST", "/api/tickets", bad).await.0, 401);
    }
    let good = "authorization: Bearer ann.may\r\n";
    for (method, path) in [("GET", "/own"), ("POST", "/api/tickets")] {
        let (status, answer) = router.send(method, path, good).await;
        assert_eq!(status, 429, "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
    }
    let (status, answer) = router.send("GET", "/api/usage", good).await;
    assert!(status == 200 && answer.contains("over_limit"), "{answer}");
    let (status, _) = router.send("GET", "/api/usage", "").await;
    assert_eq!(status, 401, "without a token nothing is guessed");
    server.stop().await;
}

// ---------------------------------------------------------------------------------------------------------------------

/// Requests over sockets, read to their end or for as long as something comes.
struct Plain(SocketAddr);

impl Plain {
    async fn send(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        self.send_body(method, path, headers, "").await
    }

    async fn send_body(
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
        // A stream goes on: what it says at once is enough.
        while let Ok(Ok(1..)) =
            tokio::time::timeout(Duration::from_millis(300), socket.read_buf(&mut answer)).await
        {
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        (status, text)
    }

    async fn status(&self, path: &str) -> u16 {
        self.send("GET", path, "").await.0
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, answer) = self.send("GET", path, "").await;
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    async fn buy(&self, path: &str) -> String {
        let body = serde_json::json!({ "path": path }).to_string();
        let token = "authorization: Bearer ann.may\r\n";
        let (status, answer) = self.send_body("POST", "/api/tickets", token, &body).await;
        assert_eq!(status, 200, "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let answer: Value = serde_json::from_str(body).expect("JSON");
        answer["ticket"].as_str().expect("a ticket").to_owned()
    }
}
