//! Authentication of requests: which tokens are accepted, and the responses to the others.

use axum::Router;
use futures_util::stream;
use hero_sse::auth::{AuthError, authenticator_fn};
use hero_sse::{CloseReason, Event, HeroSse, Principal, Refusal, SseOptions};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::testing::{self, OpenError};
use crate::support::{
    Log, SECRET, Wrapped, burst, claims, jwt, now, options, sign, sse_with, token,
};

/// `/s` needs `usage.read` and sends the caller's subject.
fn app(sse: &HeroSse) -> Router {
    sse.endpoint("/s")
        .permission("usage.read")
        .handler(async |who: Principal| stream::iter([Event::text(who.subject())]))
        .expect("a route")
}

async fn with_token(token: &str) -> Result<String, OpenError> {
    let app = app(&sse_with(SseOptions::default()));
    let mut stream = testing::open(&app, "/s").bearer(token).await?;
    Ok(stream.next().await.expect("in time").expect("an event").data)
}

fn header<'a>(error: &'a OpenError, name: &str) -> &'a str {
    error.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn a_valid_token_opens_the_stream_from_the_header_and_from_the_query() {
    assert_eq!(with_token(&token()).await.expect("a stream"), "ann");
    let app = app(&sse_with(SseOptions::default()));
    let path = format!("/s?access_token={}", token());
    let mut stream = testing::open(&app, &path).await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "ann");
}

#[tokio::test]
async fn invalid_tokens_get_401_with_a_reason() {
    let changed = |change: fn(&mut Value)| sign(&claims(change));
    let good = token();
    let (head, rest) = good.split_once('.').expect("three parts");
    let (body, signature) = rest.split_once('.').expect("three parts");
    // {"alg":"none","typ":"JWT"}
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.");
    let none_signed = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.{signature}");
    let other_key = {
        let key = jsonwebtoken::EncodingKey::from_secret(b"another secret of thirty-two bytes..");
        jsonwebtoken::encode(&Default::default(), &claims(|_| ()), &key).expect("a token")
    };
    let other_algorithm = {
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS512);
        jsonwebtoken::encode(&header, &claims(|_| ()), &key).expect("a token")
    };
    let critical = {
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let crit = Some(vec!["exp-policy".to_owned()]);
        let header = jsonwebtoken::Header { crit, ..Default::default() };
        jsonwebtoken::encode(&header, &claims(|_| ()), &key).expect("a token")
    };
    for (what, token, reason) in [
        ("expired", changed(|c| c["exp"] = json!(now() - 60)), "expired"),
        ("not yet", changed(|c| c["nbf"] = json!(now() + 60)), "not valid yet"),
        ("no exp", changed(|c| c["exp"] = Value::Null), "malformed"),
        (
            "exp missing",
            changed(|c| drop(c.as_object_mut().expect("a map").remove("exp"))),
            "lacks",
        ),
        ("no sub", changed(|c| drop(c.as_object_mut().expect("a map").remove("sub"))), "lacks"),
        ("sub of another type", changed(|c| c["sub"] = json!(7)), "malformed"),
        ("issuer", changed(|c| c["iss"] = json!("mallory")), "issuer"),
        ("audience", changed(|c| c["aud"] = json!("mail")), "audience"),
        ("no issuer", changed(|c| drop(c.as_object_mut().expect("a map").remove("iss"))), "lacks"),
        (
            "permissions of another type",
            changed(|c| c["permissions"] = json!(["usage.read", 7])),
            "malformed",
        ),
        ("alg none", none, "signature"),
        ("alg none with a signature", none_signed, "signature"),
        ("another key", other_key, "signature"),
        ("another algorithm", other_algorithm, "signature"),
        ("another's signature", format!("{head}.{body}.{}", "A".repeat(43)), "signature"),
        ("empty sub", changed(|c| c["sub"] = json!("")), "malformed"),
        ("expired beyond the leeway", changed(|c| c["exp"] = json!(now() - 33)), "expired"),
        ("critical extension", critical, "extensions"),
        ("noise", "noise".to_owned(), "malformed"),
        ("three noises", "a.b.c".to_owned(), "malformed"),
        ("huge", "a".repeat(9000), "too long"),
    ] {
        let error = with_token(&token).await.expect_err(what);
        assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED), "{what}: {error}");
        let challenge = header(&error, "www-authenticate");
        assert!(challenge.starts_with("Bearer "), "{what}: {challenge}");
        assert!(challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
        assert!(challenge.contains(reason), "{what}: {challenge}");
        let problem: Value = serde_json::from_str(&error.body).expect("problem+json");
        assert!(
            problem["detail"].as_str().expect("a detail").contains(reason),
            "{what}: {problem}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_problem_json_with_a_challenge_and_no_byte_of_the_stream() {
    let sse = sse_with(SseOptions::default());
    let app = app(&sse);
    let none = testing::open(&app, "/s").await.expect_err("401");
    assert_eq!(none.status, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(header(&none, "www-authenticate"), "Bearer realm=\"hero-sse\"");
    assert_eq!(header(&none, "content-type"), "application/problem+json");
    assert_eq!(header(&none, "cache-control"), "no-store");
    assert!(!none.body.contains("retry:"), "{}", none.body);
    let problem: Value = serde_json::from_str(&none.body).expect("JSON");
    assert_eq!((&problem["status"], &problem["title"]), (&json!(401), &json!("Unauthorized")));

    let lacking = sign(&claims(|c| c["permissions"] = json!(["audit.read"])));
    let lacking = testing::open(&app, "/s").bearer(&lacking).await.expect_err("403");
    assert_eq!(lacking.status, Some(StatusCode::FORBIDDEN));
    assert_eq!(
        header(&lacking, "www-authenticate"),
        "Bearer realm=\"hero-sse\", error=\"insufficient_scope\", scope=\"usage.read\""
    );

    let path = format!("/s?access_token={}", token());
    let two = testing::open(&app, &path).bearer("another").await.expect_err("400");
    assert_eq!(two.status, Some(StatusCode::BAD_REQUEST));
    assert!(header(&two, "www-authenticate").contains("error=\"invalid_request\""));
    assert!(sse.connections().is_empty());
}

#[tokio::test]
async fn all_listed_permissions_must_hold() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .permission("usage.read")
        .permission("usage.detail")
        .handler(async || burst(1))
        .expect("a route");
    let open = |who: Principal| testing::open(&app, "/s").principal(who);
    let one = Principal::test("ann").permission("usage.read");
    let error = open(one.clone()).await.expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert!(error.body.contains("usage.detail") && !error.body.contains("usage.read"));
    open(one.permission("usage.detail")).await.expect("a stream");
}

#[tokio::test]
async fn silence_about_permissions_still_asks_for_a_token() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let error = testing::open(&app, "/s").await.expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    testing::open(&app, "/s").principal("ann").await.expect("a stream");
}

#[tokio::test]
async fn a_public_endpoint_knows_its_caller_if_there_is_one_and_refuses_a_bad_token() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async |who: Option<Principal>| {
            let name = who.as_ref().map_or("nobody", Principal::subject).to_owned();
            stream::iter([Event::text(name)])
        })
        .expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "nobody");
    let mut stream = testing::open(&app, "/s").bearer(&token()).await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "ann");
    let error = testing::open(&app, "/s").bearer("a.b.c").await.expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn query_tokens_can_be_switched_off() {
    let sse = sse_with(options("[SseOptions.Endpoints.\"/s\"]\nTokenSources = [\"header\"]"));
    let path = format!("/s?access_token={}", token());
    let error = testing::open(&app(&sse), &path).await.expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn head_is_answered_without_a_stream_and_other_methods_are_405() {
    let sse = sse_with(SseOptions::default());
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = calls.clone();
    let app: Router = sse
        .endpoint("/s")
        .permission("usage.read")
        .handler(async move || {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            burst(1)
        })
        .expect("a route");
    let open = |method| testing::open(&app, "/s").bearer(&token()).method(method);
    let mut head = open(Method::HEAD).await.expect("a head");
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert_eq!(head.read_to_end().await.expect("an end"), vec![]);
    assert_eq!(head.raw(), "");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    let refused = testing::open(&app, "/s").method(Method::HEAD).await.expect_err("401");
    assert_eq!(refused.status, Some(StatusCode::UNAUTHORIZED));
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let error = open(method).await.expect_err("405");
        assert_eq!(error.status, Some(StatusCode::METHOD_NOT_ALLOWED));
    }
}

/// Every status but `200` and `204` is final for an `EventSource`.
#[tokio::test]
async fn an_invalid_cursor_opens_the_stream_and_needs_a_token() {
    let app = app(&sse_with(SseOptions::default()));
    for cursor in [b"a\tb".to_vec(), vec![b'x'; 300], vec![0xff, 0xfe]] {
        let open = testing::open(&app, "/s").bearer(&token()).header("last-event-id", cursor);
        open.await.expect("a stream");
    }
    let open = testing::open(&app, "/s").last_event_id("x".repeat(300));
    assert_eq!(open.await.expect_err("401").status, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let sse = HeroSse::builder()
        .options(options("HeartbeatInterval = \"200ms\""))
        .environment(Vec::<(String, String)>::new())
        .authenticator(jwt().leeway(std::time::Duration::ZERO))
        .build()
        .expect("a server");
    let app: Router =
        sse.endpoint("/s").permission("usage.read").handler(async || burst(1)).expect("a route");
    let short = sign(&claims(|c| c["exp"] = json!(now() + 2)));
    let start = std::time::Instant::now();
    let mut stream = testing::open(&app, "/s").bearer(&short).await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    let seconds = start.elapsed().as_secs_f64();
    // The test may start near the end of a second of `exp`. The jitter takes up to a tenth.
    assert!((0.7..=2.1).contains(&seconds), "{seconds}");
    let close: Value = events.last().expect("a closing event").json().expect("JSON");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("token_expired"), &json!(false)));
    assert_eq!(sse.connections().closed(CloseReason::TokenExpired), 1);
    let later = testing::open(&app, "/s").bearer(&short);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let error = later.await.expect_err("401");
    assert!(error.body.contains("expired"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn within_the_leeway_a_stream_opens_and_stays_open() {
    let sse = sse_with(SseOptions::default());
    let late = sign(&claims(|c| c["exp"] = json!(now() - 10)));
    let app: Router =
        sse.endpoint("/s").permission("usage.read").handler(async || burst(1)).expect("a route");
    let stream = testing::open(&app, "/s").bearer(&late).await.expect("a stream");
    let mut stream = stream.timeout(std::time::Duration::from_secs(15));
    stream.next().await.expect("in time").expect("an event");
    assert!(stream.next().await.is_err(), "it ended before the leeway was over");
    let mut stream = stream.timeout(std::time::Duration::from_secs(10));
    assert!(stream.read_to_end().await.expect("an end")[0].data.contains("token_expired"));
}

#[tokio::test]
async fn an_authenticator_that_panics_or_is_not_set_up_refuses_every_token() {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use hero_sse::JwtAuthenticator;
    use hero_sse::auth::{AuthError, Authenticator, Secret};

    /// Panics at once, or later.
    struct Panics(bool);
    impl Authenticator for Panics {
        fn authenticate<'a>(
            &'a self,
            _: &'a Secret<String>,
        ) -> BoxFuture<'a, Result<Principal, AuthError>> {
            assert!(!self.0, "the authenticator panics on purpose");
            async { panic!("the authenticator panics on purpose, later") }.boxed()
        }
    }
    async fn status(authenticator: impl Authenticator) -> Option<StatusCode> {
        let sse = HeroSse::builder()
            .environment(Vec::<(String, String)>::new())
            .authenticator(authenticator)
            .build()
            .expect("a server");
        testing::open(&app(&sse), "/s").bearer(&token()).await.expect_err("a refusal").status
    }
    assert_eq!(status(Panics(true)).await, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(status(Panics(false)).await, Some(StatusCode::INTERNAL_SERVER_ERROR));
    let open_to_all = Wrapped(JwtAuthenticator::hs256(SECRET));
    assert_eq!(status(open_to_all).await, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn a_reason_that_does_not_fit_a_header_is_left_out_of_the_challenge() {
    let rude = authenticator_fn(async |_| Err(AuthError::invalid("no \"good\"\r\nx: y")));
    let builder = HeroSse::builder().environment(Vec::<(String, String)>::new());
    let sse = builder.authenticator(rude).build().expect("a server");
    let error = testing::open(&app(&sse), "/s").bearer("t").await.expect_err("401");
    let challenge = header(&error, "www-authenticate");
    assert_eq!(challenge, "Bearer realm=\"hero-sse\", error=\"invalid_token\"");
}

#[tokio::test]
async fn the_principal_extractor_works_on_other_routes() {
    use axum::routing::get;
    let sse = sse_with(options("TokenSources = [\"header\"]"));
    let own = async |who: Principal| who.subject().to_owned();
    let maybe = async |who: Option<Principal>| format!("{:?}", who.map(|w| w.subject().to_owned()));
    let app = app(&sse).route("/own", get(own)).route("/maybe", get(maybe));
    let server = crate::support::Server::start(&sse, app).await;
    let status = async |path: &str| {
        let open = testing::connect(server.address, path).await;
        open.err().and_then(|error| error.status)
    };
    assert_eq!(status("/own").await, Some(StatusCode::UNAUTHORIZED));
    let query = format!("/own?access_token={}", token());
    assert_eq!(status(&query).await, Some(StatusCode::UNAUTHORIZED), "query tokens are off");
    assert_eq!(status("/maybe").await, None);
    let own = testing::connect(server.address, "/own").bearer(&token()).await.expect("200");
    assert_eq!(own.status(), StatusCode::OK);
    let bad = testing::connect(server.address, "/maybe").bearer("a.b.c").await.expect_err("401");
    assert_eq!(bad.status, Some(StatusCode::UNAUTHORIZED));
    server.stop().await;
}

#[tokio::test]
async fn token_sources_of_an_endpoint_hold_for_its_extractors_too() {
    use hero_sse::SseContext;
    let sse = sse_with(options(
        "[SseOptions.Endpoints.\"/p\"]\nTokenSources = [\"header\"]\n[SseOptions.Endpoints.\"/c\"]\nTokenSources = [\"header\"]",
    ));
    let name = |who: Option<Principal>| {
        let name = who.map_or("nobody".to_owned(), |who| who.subject().to_owned());
        stream::iter([Event::text(name)])
    };
    let app: Router = sse
        .endpoint("/p")
        .public()
        .handler(async move |who: Option<Principal>| name(who))
        .expect("a route");
    let context =
        async move |sse: SseContext, who: Option<Principal>| sse.public().stream(name(who)).await;
    let app = app.route("/c", axum::routing::get(context));
    let server = crate::support::Server::start(&sse, app).await;
    for path in ["/p", "/c"] {
        let query = format!("{path}?access_token={}", token());
        let mut stream = testing::connect(server.address, &query).await.expect("a stream");
        let event = stream.next().await.expect("in time").expect("an event");
        assert_eq!(event.data, "nobody", "{path}");
        let open = testing::connect(server.address, path).bearer(&token());
        let mut stream = open.await.expect("a stream");
        assert_eq!(stream.next().await.expect("in time").expect("an event").data, "ann", "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn outer_layers_find_the_caller_in_the_response() {
    use std::sync::{Arc, Mutex};
    let sse = sse_with(SseOptions::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = seen.clone();
    let app = app(&sse).layer(axum::middleware::map_response(
        move |response: axum::response::Response| {
            let who = response.extensions().get::<Principal>().map(|w| w.subject().to_owned());
            see.lock().expect("no panic").push((response.status().as_u16(), who));
            std::future::ready(response)
        },
    ));
    testing::open(&app, "/s").bearer(&token()).await.expect("a stream");
    let _ = testing::open(&app, "/s").principal("bob").await;
    let _ = testing::open(&app, "/s").await;
    let expected = [(200, Some("ann".into())), (403, Some("bob".into())), (401, None)];
    assert_eq!(*seen.lock().expect("no panic"), expected);
}

#[tokio::test]
async fn other_routes_authenticate_by_the_same_rules() {
    let sse = sse_with(SseOptions::default());
    let check =
        async |request: http::request::Builder, permission: &str| -> Result<String, Refusal> {
            let parts = request.body(()).expect("a request").into_parts().0;
            let who = sse.authenticate(&parts).await?;
            who.require(permission)?;
            Ok(who.subject().to_owned())
        };
    let request = || http::Request::post("/");
    let with = || request().header("authorization", format!("Bearer {}", token()));
    assert_eq!(check(with(), "usage.read").await.expect("ann"), "ann");
    let status = |result: Result<String, Refusal>| result.expect_err("a refusal").status();
    assert_eq!(status(check(with(), "builds.start").await), StatusCode::FORBIDDEN);
    assert_eq!(status(check(request(), "usage.read").await), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_principal_has_tenant_and_claims_and_the_handler_may_refuse() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .handler(async |who: Principal| {
            let tenant = who.require_tenant()?.to_owned();
            let level: u8 = who.claim("level").unwrap_or_default();
            Ok::<_, Refusal>(stream::iter([Event::text(format!("{tenant} {level}"))]))
        })
        .expect("a route");
    let full = sign(&claims(|c| {
        c["tenant"] = json!("t1");
        c["level"] = json!(3);
    }));
    let mut stream = testing::open(&app, "/s").bearer(&full).await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "t1 3");
    drop(stream);
    let error = testing::open(&app, "/s").bearer(&token()).await.expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert!(sse.connections().is_empty());
}

/// No other test may extract `Principal` on such a route: it is logged once per process.
#[tokio::test]
async fn a_principal_on_a_route_without_authentication_is_logged_once() {
    use tower::ServiceExt;

    let (log, _guard) = Log::everything();
    let own = axum::routing::get(async |who: Principal| who.subject().to_owned());
    let sse = sse_with(SseOptions::default());
    let maybe = sse.endpoint("/s").public();
    let maybe =
        maybe.handler(async |who: Option<Principal>| stream::iter(who.map(|_| Event::text(""))));
    let app: Router = Router::new().route("/own", own).merge(maybe.expect("a route"));
    testing::open(&app, "/s").await.expect("a stream");
    assert!(
        !log.text().contains("on a route without authentication"),
        "an endpoint authenticates its caller"
    );
    for _ in 0..2 {
        let request =
            http::Request::get("/own").header("authorization", format!("Bearer {}", token()));
        let request = request.body(axum::body::Body::empty()).expect("a request");
        let answer = app.clone().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    let text = log.text();
    assert_eq!(text.matches("on a route without authentication").count(), 1, "{text}");
}
