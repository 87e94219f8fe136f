//! Tickets: how they are made, what they open, and how their streams end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use futures_util::{FutureExt, future::BoxFuture, stream};
use hero_sse::auth::{
    AuthError, Permission, Secret, TicketGrant, TicketStore, Tickets, authenticator_fn,
    authorizer_fn,
};
use hero_sse::server::Builder;
use hero_sse::{CloseReason, Event, HeroSse, Principal, Refusal, SetupErrors};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::testing::{self, OpenError};
use crate::support::{burst, options};

/// Accepts tokens such as `ann`, `ann.may` and `ann.may.1500`: the subject, whether it has all permissions, and
/// its lifetime in milliseconds.
fn named(token: &str) -> Result<Principal, AuthError> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("bad"), ..) => Err(AuthError::invalid("the token is bad")),
        (Some("down"), ..) => Err(AuthError::unavailable("the issuer is down")),
        (Some(subject), may, life) => {
            let mut who = Principal::new(subject).with_claim("plan", "pro");
            if may == Some("may") {
                who = who.permission("usage.read").with_tenant("t1");
            }
            if let Some(life) = life.and_then(|life| life.parse().ok()) {
                who = who.valid_until(SystemTime::now() + Duration::from_millis(life));
            }
            Ok(who)
        }
        _ => Err(AuthError::invalid("no token")),
    }
}

pub(crate) fn builder(toml: &str) -> Builder {
    HeroSse::builder()
        .options(options(toml))
        .environment(Vec::<(String, String)>::new())
        .authenticator(authenticator_fn(async |token: Secret<String>| named(token.expose())))
}

pub(crate) fn sse_with(toml: &str) -> HeroSse {
    builder(toml).tickets(Tickets::new().audience("usage")).build().expect("a server")
}

/// `/api/usage` needs `usage.read` and sends the subject. `/api/other/{id}` needs a token. `/api/public` needs
/// nothing. `/api/answers` is a `POST`.
pub(crate) fn app(sse: &HeroSse) -> Router {
    let api = sse.at("/api");
    let told = |who: Option<Principal>| {
        let told = who.map(|who| {
            let plan: Option<String> = who.claim("plan");
            format!("{} {:?} {:?} {:?}", who.subject(), who.tenant(), who.has("usage.read"), plan)
        });
        stream::iter([Event::text(told.unwrap_or_default())])
    };
    let usage = api.endpoint("/usage").permission("usage.read").max_per_principal(2);
    let held = api.endpoint("/held").handler(async || burst(1)).expect("a route");
    Router::new()
        .merge(api.tickets("/tickets").expect("a route"))
        .merge(usage.handler(async move |who: Principal| told(Some(who))).expect("a route"))
        .merge(api.endpoint("/other/{id}").handler(async || burst(1)).expect("a route"))
        .merge(held)
        .merge(
            api.endpoint("/public")
                .public()
                .handler(async move |who: Option<Principal>| told(who))
                .expect("a route"),
        )
        .merge(api.endpoint("/answers").post_handler(async || burst(1)).expect("a route"))
}

pub(crate) async fn post(app: &Router, path: &str, token: &str, body: impl Into<Body>) -> Response {
    let request = Request::post(path).header("authorization", format!("Bearer {token}"));
    app.clone().oneshot(request.body(body.into()).expect("a request")).await.expect("an answer")
}

pub(crate) async fn json_of(response: Response) -> Value {
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    serde_json::from_slice(&body).expect("JSON")
}

/// Buys a ticket for `path` with `token`.
pub(crate) async fn buy(app: &Router, token: &str, path: &str) -> String {
    let answer = post(app, "/api/tickets", token, json!({ "path": path }).to_string()).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    json_of(answer).await["ticket"].as_str().expect("a ticket").to_owned()
}

pub(crate) async fn open(app: &Router, path: &str, ticket: &str) -> Result<String, OpenError> {
    let mut stream = testing::open(app, &format!("{path}?ticket={ticket}")).await?;
    Ok(stream.next().await.expect("in time").expect("an event").data)
}

const NOT_ACCEPTED: &str = "the ticket is not accepted: ask for a new one";

pub(crate) fn assert_not_accepted(result: Result<String, OpenError>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED), "{what}: {error}");
    let problem: Value = serde_json::from_str(&error.body).expect("problem+json");
    let detail = json!({ "type": "about:blank", "title": "Unauthorized", "status": 401, "detail": NOT_ACCEPTED });
    assert_eq!(problem, detail, "{what}");
    let challenge = error.headers["www-authenticate"].to_str().expect("ASCII");
    let expected = format!(
        "Bearer realm=\"hero-sse\", error=\"invalid_token\", error_description=\"{NOT_ACCEPTED}\""
    );
    assert_eq!(challenge, expected, "{what}");
}

#[tokio::test]
async fn a_ticket_opens_the_stream_of_the_token_that_bought_it() {
    let app = app(&sse_with(""));
    let answer = post(&app, "/api/tickets", "ann.may", r#"{"path": "/api/usage"}"#).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let who = answer.extensions().get::<Principal>().expect("for access logs").subject().to_owned();
    let bought = json_of(answer).await;
    let ticket = bought["ticket"].as_str().expect("a ticket").to_owned();
    assert_eq!((who.as_str(), &bought["expires_in"]), ("ann", &json!(30)));
    assert_eq!(ticket.len(), 64);
    assert!(ticket.bytes().all(|byte| byte.is_ascii_hexdigit()), "{ticket}");
    let told = open(&app, "/api/usage", &ticket).await.expect("a stream");
    assert_eq!(told, "ann Some(\"t1\") true Some(\"pro\")");
    let ticket = buy(&app, "bob", "/api/public").await;
    assert!(open(&app, "/api/public", &ticket).await.expect("a stream").starts_with("bob"));
}

/// A broken body would bring an `EventSource` back with the same ticket, which is spent.
#[tokio::test(start_paused = true)]
async fn a_stream_by_ticket_says_how_it_ends_even_without_clean_ends() {
    let app = app(&sse_with("CleanEnd = false\nMaxAge = \"1m\""));
    let ticket = buy(&app, "ann.may", "/api/held").await;
    let stream = testing::open(&app, &format!("/api/held?ticket={ticket}"));
    let mut stream = stream.await.expect("a stream").timeout(Duration::from_secs(90));
    let events = stream.read_to_end().await.expect("a clean end");
    let close = &events.last().expect("a closing event").data;
    assert!(close.contains("max_age") && close.contains("\"reconnect\":false"), "{close}");
}

#[tokio::test]
async fn a_caller_that_may_not_open_the_stream_gets_no_ticket_and_the_same_error() {
    let app = app(&sse_with(""));
    let of = async |token: &str, body: &str| {
        let answer = post(&app, "/api/tickets", token, body.to_owned()).await;
        let challenge = answer.headers().get("www-authenticate").cloned();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        (answer.status().as_u16(), challenge, json_of(answer).await["detail"].clone())
    };
    let (status, challenge, detail) = of("bob", r#"{"path": "/api/usage"}"#).await;
    let opened = testing::open(&app, "/api/usage").bearer("bob").await.expect_err("403");
    assert_eq!((status, opened.status), (403, Some(StatusCode::FORBIDDEN)));
    assert_eq!(challenge.as_ref(), opened.headers.get("www-authenticate"));
    assert!(opened.body.contains(detail.as_str().expect("a sentence")), "{detail} {}", opened.body);
    for path in [
        "/",
        "/api",
        "/api/none",
        "/api/usage/",
        "/api/USAGE",
        "/api/other",
        "/api/answers",
        "/api/tickets",
    ] {
        let (status, _, detail) = of("ann.may", &json!({ "path": path }).to_string()).await;
        assert_eq!(
            (status, detail),
            (404, json!("no stream is opened by GET at this path")),
            "{path}"
        );
    }
    for path in [
        "",
        "api/usage",
        "/api/usage?x=1",
        "/api/usage#x",
        "/api/us age",
        "http://h/api/usage",
        "*",
        "//",
        "/\u{e4}",
    ] {
        let (status, ..) = of("ann.may", &json!({ "path": path }).to_string()).await;
        let legal = matches!(path, "//" | "/\u{e4}");
        assert_eq!(status, if legal { 404 } else { 400 }, "{path}");
    }
    let long = json!({ "path": format!("/{}", "a".repeat(5000)) }).to_string();
    for body in [
        "",
        "{}",
        "[]",
        "\"/api/usage\"",
        r#"{"path": 7}"#,
        r#"{"path": "/api/usage", "x": 1}"#,
        long.as_str(),
    ] {
        assert_eq!(of("ann.may", body).await.0, 400, "{body:.40}");
    }
    assert_eq!(of("bad", r#"{"path": "/api/usage"}"#).await.0, 401);
    assert_eq!(of("down", r#"{"path": "/api/usage"}"#).await.0, 503);
}

#[tokio::test]
async fn an_authorizer_is_called_when_a_ticket_is_used() {
    let members = authorizer_fn(|who: Principal, _: Permission| async move {
        Ok::<_, std::convert::Infallible>(who.subject() == "bob")
    });
    let sse = builder("").tickets(Tickets::new().audience("usage")).authorizer(members);
    let app = app(&sse.build().expect("a server"));
    // Neither token has the permission. With an authorizer, that does not matter.
    for (who, status) in [("bob", None), ("eve", Some(StatusCode::FORBIDDEN))] {
        let ticket = buy(&app, who, "/api/usage").await;
        let opened = open(&app, "/api/usage", &ticket).await;
        assert_eq!(opened.err().and_then(|error| error.status), status, "{who}");
    }
}

#[tokio::test]
async fn only_a_token_in_the_header_buys_a_ticket() {
    let app = app(&sse_with(""));
    let body = r#"{"path": "/api/usage"}"#;
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    for uri in [
        "/api/tickets?access_token=ann.may",
        &format!("/api/tickets?ticket={ticket}"),
        "/api/tickets",
    ] {
        let request = Request::post(uri).header("cookie", "token=ann.may").body(Body::from(body));
        let answer = app.clone().oneshot(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{uri}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"hero-sse\"");
    }
    let get = Request::get("/api/tickets").body(Body::empty()).expect("a request");
    let answer = app.clone().oneshot(get).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    open(&app, "/api/usage", &ticket).await.expect("still good");
}

#[tokio::test(start_paused = true)]
async fn a_ticket_expires_after_its_time_to_live() {
    let sse = builder("").tickets(Tickets::new().audience("usage").ttl(Duration::from_secs(5)));
    let app = app(&sse.build().expect("a server"));
    let in_time = buy(&app, "ann.may", "/api/usage").await;
    let late = buy(&app, "ann.may", "/api/usage").await;
    tokio::time::advance(Duration::from_millis(4_999)).await;
    open(&app, "/api/usage", &in_time).await.expect("in time");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_not_accepted(open(&app, "/api/usage", &late).await, "late");
}

#[tokio::test(start_paused = true)]
async fn a_stream_by_ticket_ends_with_the_token_that_bought_it_and_says_not_to_reconnect() {
    let sse = sse_with("MaxAge = \"40s\"");
    let app = app(&sse);
    let life = async |token: &str| {
        let ticket = buy(&app, token, "/api/held").await;
        tokio::time::advance(Duration::from_secs(10)).await;
        let start = tokio::time::Instant::now();
        let stream = testing::open(&app, &format!("/api/held?ticket={ticket}")).await;
        let mut stream = stream.expect("a stream").timeout(Duration::from_secs(3600));
        let close =
            stream.read_to_end().await.expect("a clean end").pop().expect("a closing event");
        (start.elapsed().as_secs_f64(), close.json::<Value>().expect("JSON"))
    };
    // The system's clock does not advance with the paused one, so the token's remaining time is unchanged.
    let (seconds, close) = life("ann.may.20000").await;
    assert!((17.9..=20.1).contains(&seconds), "{seconds}");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("token_expired"), &json!(false)));
    let (seconds, close) = life("ann.may").await;
    assert!((31.9..=40.1).contains(&seconds), "{seconds}");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("max_age"), &json!(false)));
    // With a token, it may.
    let stream = testing::open(&app, "/api/held").bearer("ann.may").await.expect("a stream");
    let close =
        stream.timeout(Duration::from_secs(3600)).read_to_end().await.expect("a clean end").pop();
    assert_eq!(
        close.expect("a closing event").json::<Value>().expect("JSON")["reconnect"],
        json!(true)
    );
}

#[tokio::test]
async fn over_a_limit_the_ticket_is_spent_and_the_client_needs_another() {
    let sse = sse_with("MaxPerPrincipal = 1");
    let app = app(&sse);
    let _held = testing::open(&app, "/api/held").bearer("ann.may").await.expect("a stream");
    let ticket = buy(&app, "ann.may", "/api/other/7").await;
    let path = format!("/api/other/7?ticket={ticket}");
    let mut stream = testing::open(&app, &path).await.expect("a closing event");
    let close = stream.read_to_end().await.expect("a clean end").pop().expect("a closing event");
    let close: Value = close.json().expect("JSON");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("over_limit"), &json!(false)));
    assert_not_accepted(open(&app, "/api/other/7", &ticket).await, "spent");
}

#[tokio::test]
async fn a_ticket_never_outlives_its_token() {
    let app = app(&sse_with(""));
    let body = r#"{"path": "/api/usage"}"#;
    let answer = post(&app, "/api/tickets", "ann.may.4500", body).await;
    let bought = json_of(answer).await;
    assert_eq!(bought["expires_in"], json!(4));
    let bought = json_of(post(&app, "/api/tickets", "ann.may.300", body).await).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let ticket = bought["ticket"].as_str().expect("a ticket");
    assert_not_accepted(open(&app, "/api/usage", ticket).await, "the token has expired");
}

#[tokio::test]
async fn in_a_nested_router_the_paths_are_those_of_the_url() {
    let sse = sse_with("");
    let app: Router = Router::new().nest("/outer", app(&sse)).nest("/elsewhere", public_page());
    let sell = async |path: &str| {
        let body = json!({ "path": path }).to_string();
        let answer = post(&app, "/outer/api/tickets", "ann.may", body).await;
        (answer.status().as_u16(), json_of(answer).await["ticket"].as_str().map(str::to_owned))
    };
    let (status, ticket) = sell("/outer/api/usage").await;
    assert_eq!(status, 200);
    open(&app, "/outer/api/usage", &ticket.expect("a ticket")).await.expect("a stream");
    for path in ["/outer", "/outer/api", "/outer/api/usagex", "/elsewhere/", "/outer/api/usage/"] {
        assert_eq!(sell(path).await.0, 404, "{path}");
    }
    // The server does not know where an endpoint is nested. A ticket opens the whole path and no other.
    for path in ["/api/usage", "/elsewhere/api/usage", "/outerx/api/usage"] {
        let (status, ticket) = sell(path).await;
        assert_eq!(status, 200, "{path}");
        let opened = open(&app, "/outer/api/usage", &ticket.expect("a ticket")).await;
        assert_not_accepted(opened, path);
    }
}

/// The route that makes tickets is in another router than the endpoints, whose prefix may have captures.
#[tokio::test]
async fn a_ticket_opens_an_endpoint_in_any_nested_router() {
    let sse = sse_with("");
    let usage = sse.endpoint("/usage").permission("usage.read").handler(async || burst(1));
    let jobs = sse.endpoint("/jobs/{id}").handler(async || burst(1));
    let tickets: Router = sse.at("/api").tickets("/tickets").expect("a route");
    let inner = Router::new().nest("/deep", jobs.expect("a route"));
    let app = Router::new()
        .nest("/t/{tenant}", usage.expect("a route"))
        .nest_service("/service", inner)
        .merge(tickets);
    for path in ["/t/1/usage", "/service/deep/jobs/7"] {
        let ticket = buy(&app, "ann.may", path).await;
        open(&app, path, &ticket).await.expect(path);
    }
    for (bought, opened) in [
        ("/t/1/usage", "/t/2/usage"),
        ("/usage", "/t/1/usage"),
        ("/service/deep/jobs/7", "/service/deep/jobs/8"),
        ("/jobs/7", "/service/deep/jobs/7"),
        ("/deep/jobs/7", "/service/deep/jobs/7"),
    ] {
        let ticket = buy(&app, "ann.may", bought).await;
        assert_not_accepted(open(&app, opened, &ticket).await, opened);
    }
    let lacking = post(&app, "/api/tickets", "bob", r#"{"path": "/t/1/usage"}"#).await;
    assert_eq!(lacking.status(), StatusCode::FORBIDDEN);
    let long = format!("/{}usage", "a/".repeat(2_000));
    let none = post(&app, "/api/tickets", "ann.may", json!({ "path": long }).to_string()).await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND, "too deep");
}

/// The proxy serves `/billing/..`, and asks the server for the rest of the path.
#[tokio::test]
async fn behind_a_proxy_that_strips_a_prefix_tickets_are_for_the_rest() {
    let tickets = Tickets::new().audience("usage").public_prefix("/billing");
    let app = app(&builder("").tickets(tickets).build().expect("a server"));
    let ticket = buy(&app, "ann.may", "/billing/api/usage").await;
    open(&app, "/api/usage", &ticket).await.expect("a stream");
    let ticket = buy(&app, "ann.may", "/api/usage").await;
    open(&app, "/api/usage", &ticket).await.expect("a stream");
    for (bought, opened) in [
        ("/billing/api/usage", "/api/held"),
        ("/billing/billing/api/usage", "/api/usage"),
        ("/billingx/api/usage", "/api/usage"),
    ] {
        let ticket = buy(&app, "ann.may", bought).await;
        assert_not_accepted(open(&app, opened, &ticket).await, bought);
    }
    for prefix in ["billing", "/billing/", "/", ""] {
        let tickets = Tickets::new().audience("usage").public_prefix(prefix);
        let error = builder("").tickets(tickets).build().expect_err(prefix).to_string();
        assert!(error.contains("must start with a slash"), "{error}");
    }
}

fn public_page() -> Router {
    Router::new().route("/", axum::routing::get(async || "page"))
}

#[test]
fn missing_settings_are_reported_at_the_start() {
    let errors = |result: Result<HeroSse, SetupErrors>| result.expect_err("mistakes").to_string();
    let no_audience = builder("").tickets(Tickets::new());
    assert!(errors(no_audience.build()).contains("Tickets: no audience"));
    for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(601), Duration::MAX]
    {
        let tickets = Tickets::new().audience("usage").ttl(ttl);
        assert!(
            errors(builder("").tickets(tickets).build()).contains("out of bounds: 1 s to 10 min")
        );
    }
    let map = |sse: &HeroSse, path: &str| match sse.at("/api").tickets::<()>(path) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let none =
        HeroSse::builder().environment(Vec::<(String, String)>::new()).build().expect("a server");
    let told = map(&none, "/tickets");
    assert!(told.contains("no authenticator") && told.contains("no tickets"), "{told}");
    assert!(told.contains("tickets.rs:"), "where: {told}");
    let sse = sse_with("");
    assert_eq!(map(&sse, "/tickets"), "");
    assert!(map(&sse, "/tickets").contains("the path is taken by /api/tickets"));
    assert!(map(&sse, "tickets").contains("must begin with `/`"));
    assert!(map(&sse_with("Enabled = false"), "/tickets").contains("disabled"));
    let endpoint = |sse: &HeroSse| {
        sse.at("/api").endpoint("/x").post_handler::<_, _, (), _>(async || burst(1))
    };
    let _: Router = endpoint(&sse).expect("a route");
    assert!(map(&sse, "/x").contains("the path is taken by /api/x"));
}

/// Otherwise a ticket would bypass the options, which do not accept tokens in the header.
#[test]
fn without_tokens_in_the_header_no_tickets_are_made() {
    let mistakes = |sources: &str| {
        let toml = format!("TokenSources = [{sources}]\nTokenCookie = \"t\"");
        let made: Result<Router, SetupErrors> = sse_with(&toml).at("").tickets("/tickets");
        made.err().map(|error| error.to_string())
    };
    assert_eq!(mistakes(r#""header", "cookie""#), None);
    let told = mistakes(r#""cookie", "query""#).expect("a mistake");
    assert!(told.contains("TokenSources has no \"header\""), "{told}");
}

#[tokio::test]
async fn without_tickets_the_parameter_has_no_meaning() {
    let sse = builder("").build().expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let error = testing::open(&app, "/s?ticket=7").await.expect_err("401");
    assert_eq!(error.headers["www-authenticate"], "Bearer realm=\"hero-sse\"");
    testing::open(&app, "/s?ticket=7").bearer("ann").await.expect("a stream");
}

/// A store that several servers of a test share.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<std::sync::Mutex<Texts>>);

/// Grants with their expiry, by key.
type Texts = std::collections::HashMap<String, (String, tokio::time::Instant)>;

impl Shared {
    /// Everything that an attacker with access to the store would see.
    pub(crate) fn everything(&self) -> String {
        format!("{:?}", self.0.lock().expect("no panic"))
    }
}

impl TicketStore for Shared {
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        async move {
            tokio::task::yield_now().await;
            let grant = (grant.as_str().to_owned(), tokio::time::Instant::now() + ttl);
            self.0.lock().expect("no panic").insert(key.to_owned(), grant);
            Ok(())
        }
        .boxed()
    }

    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        async move {
            tokio::task::yield_now().await;
            let taken = self.0.lock().expect("no panic").remove(key);
            let in_time = taken.filter(|(_, end)| *end > tokio::time::Instant::now());
            Ok(in_time.map(|(grant, _)| grant))
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_ticket_of_one_server_opens_at_another_that_shares_its_store() {
    let shared = Shared::default();
    let node = |audience: &str| {
        let tickets = Tickets::new().audience(audience).store(shared.clone());
        app(&builder("").tickets(tickets).build().expect("a server"))
    };
    let (one, two, other) = (node("usage"), node("usage"), node("mail"));
    let ticket = buy(&one, "ann.may", "/api/usage").await;
    assert!(open(&two, "/api/usage", &ticket).await.expect("a stream").starts_with("ann"));
    assert_not_accepted(open(&one, "/api/usage", &ticket).await, "spent elsewhere");
    let ticket = buy(&one, "ann.may", "/api/usage").await;
    assert_not_accepted(open(&other, "/api/usage", &ticket).await, "another audience");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_store_fulfils_the_contract_and_broken_ones_fail_it() {
    testing::ticket_store_contract(Shared::default()).await.expect("the contract");
    let broken = |fault| Broken { fault, inner: Shared::default() };
    for (fault, words) in [
        ("get and delete", "at the same time"),
        ("for ever", "an expired ticket"),
        ("keeps", "second take"),
    ] {
        let told = testing::ticket_store_contract(broken(fault)).await.expect_err(fault);
        let told = told.to_string();
        assert!(told.contains(words), "{fault}: {told}");
    }
}

struct Broken {
    fault: &'static str,
    inner: Shared,
}

impl TicketStore for Broken {
    fn put<'a>(
        &'a self,
        key: &'a str,
        grant: &'a TicketGrant,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let ttl = if self.fault == "for ever" { Duration::from_secs(3600) } else { ttl };
        self.inner.put(key, grant, ttl)
    }

    fn take<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        match self.fault {
            "for ever" => self.inner.take(key),
            _ => async move {
                let found = self.inner.0.lock().expect("no panic").get(key).cloned();
                tokio::time::sleep(Duration::from_millis(1)).await;
                if self.fault == "get and delete" {
                    self.inner.0.lock().expect("no panic").remove(key);
                }
                Ok(found.map(|(grant, _)| grant))
            }
            .boxed(),
        }
    }
}

/// A store that always fails.
struct Down;

impl TicketStore for Down {
    fn put<'a>(
        &'a self,
        _: &'a str,
        _: &'a TicketGrant,
        _: Duration,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        async { Err(AuthError::unavailable("redis-3 refuses")) }.boxed()
    }

    fn take<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, AuthError>> {
        async { Err(AuthError::unavailable("redis-3 refuses")) }.boxed()
    }
}

#[tokio::test]
async fn while_the_store_is_down_no_ticket_opens_and_callers_are_asked_to_reconnect() {
    let sse = builder("")
        .tickets(Tickets::new().audience("usage").store(Down))
        .build()
        .expect("a server");
    let app = app(&sse);
    let answer = post(&app, "/api/tickets", "ann.may", r#"{"path": "/api/usage"}"#).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(!json_of(answer).await.to_string().contains("redis"));
    let path = format!("/api/usage?ticket={}", "a".repeat(64));
    let mut stream = testing::open(&app, &path).await.expect("a closing event");
    let close = stream.read_to_end().await.expect("a clean end").pop().expect("a closing event");
    let close: Value = close.json().expect("JSON");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("unverified"), &json!(false)));
    assert_eq!(sse.connections().closed(CloseReason::Unverified), 1);
}

#[tokio::test]
async fn a_principal_can_be_created_and_read_in_one_line() {
    let who =
        Principal::test("ann").with_tenant("t1").permission("usage.read").with_claim("plan", "pro");
    let read = |who: &Principal| -> Result<String, Refusal> {
        who.require_tenant_is("t1")?;
        who.require("usage.read")?;
        let plan: String = who.claim("plan").unwrap_or_default();
        Ok(format!("{} {plan}", who.subject()))
    };
    assert_eq!(read(&who).expect("all of it"), "ann pro");
    let until = SystemTime::now() + Duration::from_secs(9);
    assert_eq!(
        (who.expires_at(), who.clone().valid_until(until).expires_at()),
        (None, Some(until))
    );
    assert_eq!(
        (who.issuer(), who.clone().issued_by("https://id.example").issuer()),
        (None, Some("https://id.example"))
    );
}
