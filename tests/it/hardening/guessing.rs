//! Guessing of tokens and tickets: the limit of failed attempts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hero_sse::auth::{AuthError, Authenticator, Secret};
use hero_sse::options::OverLimit;
use hero_sse::{HeroSse, Principal};
use http::HeaderValue;
use tower::ServiceExt;

use crate::support::{Log, Server, burst};
use crate::tickets::{app, json_of, sse_with};

use super::tickets::Plain;

/// Sends a request from a client at `peer`, through the router without a socket.
async fn send_from(
    app: &Router,
    peer: &str,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Response {
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

/// An application whose `/refuse` answers with `429` over the limit. The other endpoints send `hero.close`.
fn limited(toml: &str) -> (HeroSse, Router) {
    let sse = sse_with(toml);
    let refuse = sse.endpoint("/refuse").over_limit(OverLimit::Refuse);
    let refuse = refuse.handler(async || burst(1)).expect("a route");
    let open = sse.endpoint("/open").public().handler(async || burst(1)).expect("a route");
    let app = app(&sse).merge(refuse).merge(open);
    (sse, app)
}

#[tokio::test(start_paused = true)]
async fn after_a_minutes_failed_attempts_every_credential_is_refused() {
    let (sse, app) = limited("FailedAttemptsPerMinute = 6\nMaxPerPrincipal = 100");
    let status = async |path: &str, header| {
        let answer = send_from(&app, "203.0.113.9:1", path, &[header]).await;
        let retry =
            answer.headers().get("retry-after").map(|v| v.to_str().expect("a number").to_owned());
        (answer.status().as_u16(), retry)
    };
    // Valid tokens, no tokens and missing permissions are not failed attempts.
    for _ in 0..20 {
        assert_eq!(status("/refuse", GOOD).await.0, 200);
        assert_eq!(status("/refuse", ("accept", "*/*")).await.0, 401);
        assert_eq!(status("/api/usage", ("authorization", "Bearer bob")).await.0, 403);
        assert_eq!(status("/refuse", ("authorization", "Bearer")).await.0, 400);
    }
    // Tokens and tickets count together.
    let wrong = "/api/usage?ticket=7";
    for n in 0..6 {
        let attempt = if n % 2 == 0 {
            status("/refuse", BAD).await
        } else {
            status(wrong, ("accept", "*/*")).await
        };
        assert_eq!(attempt.0, 401, "{n}");
    }
    let (code, retry) = status("/refuse", GOOD).await;
    assert_eq!(code, 429, "a valid token is not checked either");
    let seconds: f64 = retry.expect("a time").parse().expect("a number");
    assert!((10.0..=16.0).contains(&seconds), "{seconds}");
    let body = send_from(&app, "203.0.113.9:2", "/refuse", &[BAD]).await;
    assert!(json_of(body).await.to_string().contains("too many tokens from your address"));
    // A browser is asked to reconnect later.
    let close = send_from(&app, "203.0.113.9:1", "/api/held", &[BAD]).await;
    assert_eq!(
        (close.status().as_u16(), &close.headers()["content-type"]),
        (200, &HeaderValue::from_static("text/event-stream"))
    );
    let text = axum::body::to_bytes(close.into_body(), 9999).await.expect("a body");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("over_limit") && text.contains("\"reconnect\":true"), "{text}");
    // Requests without a credential and from other networks are not limited.
    assert_eq!(status("/open", ("accept", "*/*")).await.0, 200);
    assert_eq!(send_from(&app, "203.0.113.10:1", "/refuse", &[GOOD]).await.status(), 200);
    // Refused attempts do not extend the wait: after a sixth of a minute, one attempt is allowed.
    tokio::time::advance(Duration::from_millis(9_990)).await;
    assert_eq!(status("/refuse", GOOD).await.0, 429);
    tokio::time::advance(Duration::from_millis(20)).await;
    assert_eq!(status("/refuse", GOOD).await.0, 200);
    assert_eq!(status("/refuse", BAD).await.0, 401);
    assert_eq!(status("/refuse", BAD).await.0, 429);
    assert!(sse.connections().closed(hero_sse::CloseReason::OverLimit) >= 4);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_too_long_count_as_failed_attempts() {
    let (_, app) = limited("FailedAttemptsPerMinute = 3");
    let long = format!("Bearer {}", "a".repeat(9_000));
    let status = async |header: &str| {
        let headers = [("authorization", header)];
        send_from(&app, "203.0.113.9:1", "/refuse", &headers).await.status().as_u16()
    };
    for _ in 0..3 {
        assert_eq!(status(&long).await, 401);
    }
    for header in [&*long, "Bearer bad", "Bearer ann.may", "Bearer mal formed"] {
        assert_eq!(status(header).await, 429, "{:.20}", header);
    }
}

/// An authenticator that takes a while and accepts no token. Counts its calls.
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
async fn simultaneous_attempts_do_not_exceed_the_limit_together() {
    let checked = Arc::new(AtomicUsize::new(0));
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Slow(checked.clone()))
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    for _ in 0..300 {
        let burst = (0..100).map(|_| send_from(&app, "203.0.113.9:1", "/s", &[BAD]));
        futures_util::future::join_all(burst).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let checked = checked.load(Ordering::SeqCst);
    // Each burst of 100 passes together after a long wait, but not every second.
    assert!(checked <= 800, "{checked} attempts in five minutes");
}

/// A page with `<img src="https://victim.example/stream?access_token=bad">`, sixty times a minute.
#[tokio::test(start_paused = true)]
async fn another_sites_page_does_not_lock_its_visitors_out() {
    let (_, app) = limited("FailedAttemptsPerMinute = 3\nMaxPerPrincipal = 100");
    let status = async |site: Option<&'static str>, header| {
        let mut headers = vec![header];
        headers.extend(site.map(|site| ("sec-fetch-site", site)));
        send_from(&app, "203.0.113.9:1", "/refuse", &headers).await.status().as_u16()
    };
    for site in ["cross-site", "same-site", "cross-site"] {
        assert_eq!(status(Some(site), BAD).await, 401);
    }
    assert_eq!(
        status(Some("cross-site"), GOOD).await,
        429,
        "requests of other sites are limited as well"
    );
    for own in [Some("same-origin"), Some("none"), None] {
        assert_eq!(status(own, GOOD).await, 200, "{own:?}");
    }
    for _ in 0..3 {
        assert_eq!(status(None, BAD).await, 401);
    }
    assert_eq!(status(Some("same-origin"), GOOD).await, 429);
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_network_counts_as_one_client() {
    let (_, app) = limited("FailedAttemptsPerMinute = 6");
    for n in 0..6 {
        let peer = format!("[2001:db8:0:1::{n}]:1");
        assert_eq!(send_from(&app, &peer, "/refuse", &[BAD]).await.status(), 401);
    }
    assert_eq!(send_from(&app, "[2001:db8:0:1:ffff::]:1", "/refuse", &[BAD]).await.status(), 429);
    assert_eq!(send_from(&app, "[2001:db8:0:2::1]:1", "/refuse", &[BAD]).await.status(), 401);
}

#[tokio::test(start_paused = true)]
async fn a_forged_header_neither_hides_an_attacker_nor_locks_out_another() {
    let (_, app) = limited("FailedAttemptsPerMinute = 2\nTrustedProxies = [\"10.0.0.1\"]");
    for n in 0..2 {
        let forged = format!("198.51.100.{n}");
        let answer =
            send_from(&app, "203.0.113.9:1", "/refuse", &[BAD, ("x-forwarded-for", &forged)]).await;
        assert_eq!(answer.status(), 401);
    }
    let forged = [BAD, ("x-forwarded-for", "198.51.100.7")];
    assert_eq!(send_from(&app, "203.0.113.9:1", "/refuse", &forged).await.status(), 429);
    assert_eq!(send_from(&app, "198.51.100.0:1", "/refuse", &[BAD]).await.status(), 401);
    // Through the proxy, each client counts by itself.
    for _ in 0..2 {
        let of = |client| [BAD, ("x-forwarded-for", client)];
        assert_eq!(send_from(&app, "10.0.0.1:1", "/refuse", &of("192.0.2.1")).await.status(), 401);
        assert_eq!(send_from(&app, "10.0.0.1:1", "/refuse", &of("192.0.2.2")).await.status(), 401);
    }
    let third = [BAD, ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(send_from(&app, "10.0.0.1:1", "/refuse", &third).await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn an_attacker_behind_an_unlisted_proxy_does_not_lock_out_the_others() {
    let (log, _guard) = Log::everything();
    let (_, app) = limited("FailedAttemptsPerMinute = 2");
    let through = [BAD, ("x-forwarded-for", "192.0.2.1")];
    for _ in 0..50 {
        assert_eq!(send_from(&app, "10.0.0.1:1", "/refuse", &through).await.status(), 401);
    }
    let text = log.text();
    assert_eq!(text.matches("a proxy that is not in `TrustedProxies`").count(), 1, "{text}");
    // A public address is never taken for a proxy.
    for _ in 0..2 {
        assert_eq!(send_from(&app, "203.0.113.9:1", "/refuse", &through).await.status(), 401);
    }
    assert_eq!(send_from(&app, "203.0.113.9:1", "/refuse", &through).await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn an_attack_is_logged_once_a_second() {
    let (log, _guard) = Log::everything();
    let (_, app) = limited("FailedAttemptsPerMinute = 1");
    for _ in 0..100 {
        send_from(&app, "203.0.113.9:1", "/refuse", &[BAD]).await;
    }
    let line = "too many invalid tokens from this address";
    let warnings =
        |text: &str| text.lines().filter(|l| l.contains("WARN") && l.contains(line)).count();
    let text = log.text();
    assert_eq!(warnings(&text), 1, "{text}");
    assert!(text.contains("203.0.113.9"), "{text}");
    tokio::time::advance(Duration::from_secs(1)).await;
    send_from(&app, "203.0.113.9:1", "/refuse", &[BAD]).await;
    let text = log.text();
    assert_eq!(warnings(&text), 2, "{text}");
    assert!(text.contains("suppressed=98"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_is_counted_under_the_limit_that_refused_it() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (_, app) = limited("FailedAttemptsPerMinute = 1");
    for _ in 0..3 {
        send_from(&app, "203.0.113.9:1", "/refuse", &[BAD]).await;
    }
    let all = format!("{:?}", snapshotter.snapshot().into_vec());
    assert!(all.contains("this address's failed attempts a minute"), "{all}");
    assert!(!all.contains("203.0.113.9"), "a client must not choose labels: {all}");
}

#[tokio::test]
async fn attempts_at_endpoints_tickets_and_other_routes_count_together() {
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
    assert_eq!(status, 401, "without a token there is no attempt");
    server.stop().await;
}
