//! Who may have a stream, and for how long: the authorizer, re-checks, and what ends by demand.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::routing::get;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use hero_sse::auth::{
    Access, AuthError, Authorizer, Decision, Permission, PermissionRule, authorizer_fn,
};
use hero_sse::connections::ConnectionFilter;
use hero_sse::options::OverLimit;
use hero_sse::{
    CloseReason, Event, HeroSse, Principal, SseContext, SseOptions, endpoints, sse_endpoint,
};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::support::testing::{self, EventReader, OpenError};
use crate::support::{Alive, Log, burst, claims, jwt, options, sign, sse_with, token};

/// What an oracle says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Yes,
    No,
    Gone,
    Error,
    Panic,
    PanicLater,
    Never,
}

/// An authorizer that says what it is told to, and remembers when and what it was asked.
#[derive(Clone)]
pub(crate) struct Oracle(Arc<Mutex<Mind>>);

struct Mind {
    answer: Answer,
    asked: Vec<(Instant, String)>,
}

impl Oracle {
    pub(crate) fn new(answer: Answer) -> Self {
        Self(Arc::new(Mutex::new(Mind { answer, asked: Vec::new() })))
    }

    pub(crate) fn says(&self, answer: Answer) {
        self.0.lock().expect("no panic").answer = answer;
    }

    /// What it was asked, `path rule` and perhaps `again`.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mind = self.0.lock().expect("no panic");
        mind.asked.iter().map(|(_, what)| what.clone()).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.0.lock().expect("no panic").asked.iter().map(|(at, _)| *at).collect()
    }
}

impl Authorizer for Oracle {
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>> {
        let answer = {
            let mut mind = self.0.lock().expect("no panic");
            let again = if access.is_recheck() { " again" } else { "" };
            let endpoint = access.endpoint().unwrap_or("own");
            let what =
                format!("{endpoint} {} {}{again}", access.principal().subject(), access.rule());
            mind.asked.push((Instant::now(), what));
            mind.answer
        };
        assert!(!matches!(answer, Answer::Panic), "the authorizer panics on purpose");
        async move {
            match answer {
                Answer::Yes => Ok(Decision::granted()),
                Answer::No => Ok(Decision::denied()),
                Answer::Gone => Err(AuthError::invalid("the user is gone")),
                Answer::Never => std::future::pending().await,
                Answer::Error => Err(AuthError::unavailable("no route to db-7")),
                Answer::Panic | Answer::PanicLater => panic!("the authorizer panics, later"),
            }
        }
        .boxed()
    }
}

pub(crate) fn sse_with_authorizer(options: SseOptions, authorizer: impl Authorizer) -> HeroSse {
    HeroSse::builder()
        .options(options)
        .environment(Vec::<(String, String)>::new())
        .authenticator(jwt())
        .authorizer(authorizer)
        .build()
        .expect("a server")
}

fn reading(sse: &HeroSse, path: &str) -> Router {
    sse.endpoint(path).permission("read").handler(async || burst(1)).expect("a route")
}

fn challenge(error: &OpenError) -> &str {
    error.headers.get("www-authenticate").map_or("", |value| value.to_str().expect("ASCII"))
}

/// The farewell's reason, and whether to come back; nothing else may be left.
pub(crate) async fn read_close(stream: &mut EventReader) -> (String, bool) {
    let events = stream.read_to_end().await.expect("a clean end");
    let close = events.last().expect("a closing event");
    assert_eq!(close.event, "hero.close");
    let data: Value = close.json().expect("JSON");
    let reason = data["reason"].as_str().expect("a text").to_owned();
    (reason, data["reconnect"].as_bool().expect("a flag"))
}

/// Members of tenants, by the tenant in the path.
struct Members(&'static [(&'static str, &'static str)]);

impl Authorizer for Members {
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>> {
        async move {
            assert_eq!(access.endpoint(), Some("/api/audit/{tenant}/{*rest}"));
            assert!(access.path().expect("a path").starts_with("/api/audit/"));
            assert!(!access.path().expect("a path").contains('?'));
            assert_eq!(access.capture("rest"), Some("a/b"));
            assert_eq!(access.capture("nothing"), None);
            let tenant = access.capture("tenant").unwrap_or_default();
            let member = self.0.contains(&(access.principal().subject(), tenant));
            Ok(access.decide(|_| member))
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_rule_of_the_database_may_depend_on_the_path() {
    let sse =
        sse_with_authorizer(SseOptions::default(), Members(&[("ann", "té st"), ("bob", "t2")]));
    let at = sse.at("/api");
    let audit = at.endpoint("/audit/{tenant}/{*rest}").permission("audit.read");
    let app: Router = audit.handler(async || burst(1)).expect("a route");
    let open =
        |path: &str, who: &str| testing::open(&app, &format!("/api/audit/{path}")).principal(who);
    open("t%C3%A9%20st/a/b?x=1", "ann").await.expect("a stream");
    open("t2/a/b", "bob").await.expect("a stream");
    for (path, who) in [("t2/a/b", "ann"), ("t%C3%A9%20st/a/b", "bob")] {
        let error = open(path, who).await.expect_err("403");
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
        assert!(error.body.contains("lacks the permission audit.read"), "{error}");
        assert!(challenge(&error).contains("scope=\"audit.read\""), "{}", challenge(&error));
    }
}

#[tokio::test]
async fn a_closure_is_asked_for_each_permission_of_the_rule_once() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let held = Arc::new(Mutex::new(BTreeSet::from(["a", "c"])));
    let (note, holds) = (asked.clone(), held.clone());
    let authorizer = authorizer_fn(move |who: Principal, permission: Permission| {
        note.lock().expect("no panic").push(format!("{} {permission}", who.subject()));
        let held = holds.lock().expect("no panic").contains(permission.as_str());
        async move { Ok::<_, std::fmt::Error>(held) }
    });
    let sse = sse_with_authorizer(SseOptions::default(), authorizer);
    let one = |name| PermissionRule::One(Permission::from_static(name));
    let rule = PermissionRule::All(vec![
        one("a"),
        PermissionRule::Any(vec![one("b"), one("c"), one("a")]),
    ]);
    let nested = sse.endpoint("/s").permissions(rule).handler(async || burst(1)).expect("a route");
    let silent = sse.endpoint("/t").handler(async || burst(1)).expect("a route");
    let app: Router = nested.merge(silent);
    testing::open(&app, "/s").principal("ann").await.expect("a stream");
    assert_eq!(*asked.lock().expect("no panic"), ["ann a", "ann b", "ann c"]);
    // Nothing is remembered from one stream to another.
    held.lock().expect("no panic").remove("a");
    let error = testing::open(&app, "/s").principal("ann").await.expect_err("403");
    assert!(error.body.contains("lacks the permission a\""), "{error}");
    assert_eq!(asked.lock().expect("no panic").len(), 6);
    // The claims of the token count for nothing here.
    let claims = Principal::test("ann").permission("a").permission("b");
    assert!(testing::open(&app, "/s").principal(claims).await.is_err());
    testing::open(&app, "/t").principal("ann").await.expect("a stream");
    assert_eq!(asked.lock().expect("no panic").len(), 9, "a valid token is enough there");
}

#[tokio::test]
async fn whoever_brings_a_token_is_asked_about_and_nobody_else() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let silent = sse.endpoint("/silent").handler(async || burst(1)).expect("a route");
    let public = sse.endpoint("/public").public().handler(async || burst(1)).expect("a route");
    let app: Router = silent.merge(public).merge(reading(&sse, "/read"));
    assert!(testing::open(&app, "/read").await.is_err());
    testing::open(&app, "/public").await.expect("a stream");
    assert_eq!(oracle.asked(), Vec::<String>::new());
    for path in ["/silent", "/public", "/read"] {
        testing::open(&app, path).bearer(&token()).await.expect("a stream");
    }
    let expected = ["/silent ann a valid token", "/public ann a valid token", "/read ann read"];
    assert_eq!(oracle.asked(), expected);
    oracle.says(Answer::No);
    for path in ["/silent", "/public"] {
        let error = testing::open(&app, path).bearer(&token()).await.expect_err("403");
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
        let expected = "Bearer realm=\"hero-sse\", error=\"insufficient_scope\"";
        assert_eq!(challenge(&error), expected);
    }
    oracle.says(Answer::Gone);
    let error = testing::open(&app, "/read").bearer(&token()).await.expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    assert!(challenge(&error).contains("the user is gone"), "{}", challenge(&error));
    assert!(sse.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_authorizer_that_fails_refuses_before_the_function_runs_and_the_log_tells() {
    let (log, _guard) = Log::everything();
    let oracle = Oracle::new(Answer::Yes);
    let options = options("AuthorizerTimeout = \"2s\"");
    let sse = sse_with_authorizer(options, oracle.clone());
    let ran = Arc::new(Mutex::new(0));
    let count = ran.clone();
    let route = |path: &str, answer| {
        let count = count.clone();
        let endpoint = sse.endpoint(path).permission("read").over_limit(answer);
        endpoint.handler(async move || {
            *count.lock().expect("no panic") += 1;
            burst(1)
        })
    };
    let app: Router = route("/retry", OverLimit::Retry)
        .expect("a route")
        .merge(route("/refuse", OverLimit::Refuse).expect("a route"));
    for (answer, words, seconds) in [
        (Answer::Error, "no route to db-7", 0),
        (Answer::Panic, "it panicked", 0),
        (Answer::PanicLater, "it panicked", 0),
        (Answer::Never, "no answer within 2s", 2),
    ] {
        oracle.says(answer);
        // The log has one line a second.
        sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        let mut stream =
            testing::open(&app, "/retry").principal("ann").await.expect("a closing event");
        assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), true), "{answer:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(seconds), "{answer:?}");
        assert!(!stream.raw().contains("db-7"), "{}", stream.raw());
        let error = testing::open(&app, "/refuse").principal("ann").await.expect_err("503");
        assert_eq!(error.status, Some(StatusCode::SERVICE_UNAVAILABLE), "{answer:?}");
        assert!(error.headers.contains_key("retry-after") && !error.body.contains("db-7"));
        let text = log.text();
        assert!(text.contains("ERROR") && text.contains(words), "{words} in {text}");
    }
    assert_eq!(*ran.lock().expect("no panic"), 0);
    assert_eq!(sse.connections().closed(CloseReason::Unverified), 8);
    assert!(sse.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_down_is_a_line_a_second_in_the_log() {
    let (log, _guard) = Log::everything();
    let sse = sse_with_authorizer(SseOptions::default(), Oracle::new(Answer::Error));
    let app = reading(&sse, "/s");
    let attempts = async |count: usize| {
        for _ in 0..count {
            testing::open(&app, "/s").principal("ann").await.expect("a closing event");
        }
    };
    let lines = || log.text().lines().filter(|line| line.contains("no route to db-7")).count();
    attempts(50).await;
    assert_eq!(lines(), 1);
    sleep(Duration::from_secs(1)).await;
    attempts(1).await;
    assert_eq!(lines(), 2);
    assert!(log.text().contains("kept_back=49"), "{}", log.text());
}

#[tokio::test]
async fn a_permission_that_nobody_checks_is_a_mistake_at_the_start() {
    let builder = || HeroSse::builder().environment(Vec::<(String, String)>::new());
    let sse = builder().authorizer(Oracle::new(Answer::Yes)).build().expect("a server");
    let mapped: Result<Router, _> =
        sse.endpoint("/s").permission("read").handler(async || burst(1));
    let error = mapped.expect_err("no authenticator").to_string();
    assert!(error.contains("the server has no authenticator"), "{error}");

    let reauthorize = SseOptions::default().reauthorize_interval(Duration::from_secs(30));
    let error = builder().options(reauthorize).authenticator(jwt()).build().expect_err("a mistake");
    assert!(
        error
            .to_string()
            .contains("SseOptions.ReauthorizeInterval: reauthorization needs an authorizer"),
        "{error}"
    );
    let sse = builder().authenticator(jwt()).build().expect("a server");
    let endpoint = sse.endpoint("/s").reauthorize(Duration::from_secs(30));
    let mapped: Result<Router, _> = endpoint.handler(async || burst(1));
    let error = mapped.expect_err("a mistake").to_string();
    assert!(error.contains("endpoint /s: reauthorization needs an authorizer"), "{error}");
    let endpoint = sse.endpoint("/s").reauthorize(None);
    let _: Router = endpoint.handler(async || burst(1)).expect("a route");
}

#[tokio::test]
async fn handlers_and_routes_of_the_applications_own_obey_the_authorizer() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let app: Router = Router::new()
        .route(
            "/old/{id}",
            get(async |sse: SseContext| sse.permission("read").stream(burst(1)).await),
        )
        .layer(axum::Extension(sse.clone()));
    let holder = Principal::test("ann").permission("read");
    let open = || testing::open(&app, "/old/7").principal(holder.clone());
    open().await.expect("a stream");
    sse.authorize(&holder, "write").await.expect("a yes");
    assert_eq!(oracle.asked(), ["/old/{id} ann read", "own ann write"]);
    oracle.says(Answer::No);
    assert_eq!(open().await.expect_err("403").status, Some(StatusCode::FORBIDDEN));
    let refusal = sse.authorize(&holder, "read").await.expect_err("a no");
    assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
    holder.require("read").expect("its claims say so");
    oracle.says(Answer::Error);
    let refusal = sse.authorize(&holder, "read").await.expect_err("nobody knows");
    assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
    let mut stream = open().await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await.0, "unverified");
    // Without an authorizer the claims decide.
    let sse = crate::support::sse_with(SseOptions::default());
    sse.authorize(&holder, "read").await.expect("a yes");
    assert!(sse.authorize(&holder, "write").await.is_err());
}

#[tokio::test]
async fn an_authorizer_that_blocks_its_thread_is_told_of() {
    let (log, _guard) = Log::everything();
    let authorizer = authorizer_fn(|_: Principal, _: Permission| {
        std::thread::sleep(Duration::from_millis(120));
        async { Ok::<_, std::fmt::Error>(true) }
    });
    let sse = sse_with_authorizer(SseOptions::default(), authorizer);
    let app = reading(&sse, "/s");
    testing::open(&app, "/s").principal("ann").await.expect("a stream");
    assert_eq!(sse.connections().blocking_polls(), 1);
    assert!(log.text().contains("blocked a worker thread"), "{}", log.text());
}

/// A tick every second, for ever.
fn ticks() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        sleep(Duration::from_secs(1)).await;
        Some((Event::text(n.to_string()), n + 1))
    })
}

fn rechecked<F, T>(sse: &HeroSse, make: F) -> (Router, Alive)
where
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Stream<Item = Event> + Send + 'static,
{
    let alive = Alive::default();
    let watch = alive.clone();
    let endpoint = sse.endpoint("/s").permission("read").reauthorize(Duration::from_secs(30));
    (endpoint.handler(async move || watch.watch(make())).expect("a route"), alive)
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_looked_at_again_after_four_fifths_of_the_interval_or_more() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let (app, _alive) = rechecked(&sse, stream::pending);
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    // It ends nobody's patience: the reader waits for what never comes.
    let reading = async { while stream.next().await.is_err() {} };
    assert!(tokio::time::timeout(Duration::from_secs(3_000), reading).await.is_err());
    let times = oracle.times();
    let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    assert!(gaps.iter().all(|gap| (24.0..=30.01).contains(gap)), "{gaps:?}");
    assert!((100..=125).contains(&gaps.len()), "{}", gaps.len());
    let spread = gaps.iter().any(|gap| *gap < 25.5) && gaps.iter().any(|gap| *gap > 28.5);
    assert!(spread, "{gaps:?}");
    assert!(oracle.asked()[1..].iter().all(|what| what == "/s ann read again"));
    // Heartbeats went on: none was lost to the look.
    let heartbeats = stream.raw().matches(":\n\n").count();
    assert!((195..=205).contains(&heartbeats), "{heartbeats}");
    oracle.says(Answer::No);
    let stream = &mut stream.timeout(Duration::from_secs(31));
    assert_eq!(read_close(stream).await, ("revoked".to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn a_second_look_that_is_no_yes_ends_the_stream_and_events_go_on_until_then() {
    for (answer, reason, reconnect, seconds) in [
        (Answer::No, "revoked", false, 24..=31),
        (Answer::Gone, "revoked", false, 24..=31),
        (Answer::Error, "unverified", true, 24..=31),
        (Answer::Panic, "unverified", true, 24..=31),
        (Answer::PanicLater, "unverified", true, 24..=31),
        (Answer::Never, "unverified", true, 29..=36),
    ] {
        for buffered in [false, true] {
            let oracle = Oracle::new(Answer::Yes);
            let toml = if buffered { "Buffer = 100" } else { "" };
            let sse = sse_with_authorizer(options(toml), oracle.clone());
            let (app, alive) = rechecked(&sse, ticks);
            let stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
            let mut stream = stream.timeout(Duration::from_secs(60));
            oracle.says(answer);
            let start = Instant::now();
            let events = stream.read_to_end().await.expect("a clean end");
            let took = start.elapsed().as_secs();
            assert!(seconds.contains(&took), "{answer:?}: {took} s");
            let (close, ticks) = events.split_last().expect("events");
            assert!(ticks.len() as u64 + 1 >= took, "{answer:?}: {} in {took} s", ticks.len());
            let data: Value = close.json().expect("JSON");
            assert_eq!(
                (&data["reason"], &data["reconnect"]),
                (&json!(reason), &json!(reconnect)),
                "{answer:?}"
            );
            assert_eq!((alive.count(), sse.connections().len()), (0, 0), "{answer:?}");
            assert_eq!(oracle.asked().len(), 2, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_always_ready_is_looked_at_again_too() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(options("ReauthorizeInterval = \"200ms\""), oracle.clone());
    let endpoint = sse.endpoint("/s").permission("read");
    let app: Router = endpoint
        .handler(async || stream::repeat_with(|| Event::text("x".repeat(17_000))))
        .expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    oracle.says(Answer::No);
    let start = std::time::Instant::now();
    let events = stream.read_to_end().await.expect("a clean end");
    assert!(start.elapsed() >= Duration::from_millis(160), "{:?}", start.elapsed());
    assert!(events.last().expect("a closing event").data.contains("revoked"));
    assert!(events.len() > 2, "{}", events.len());
}

/// Under a server of another's making, which gets the body as it is.
#[tokio::test(start_paused = true)]
async fn a_lent_stream_is_looked_at_again_and_ends_by_demand() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let (app, alive) = rechecked(&sse, ticks);
    let open = async |app: &Router| {
        let request = Request::get(format!("/s?access_token={}", token()));
        let request = request.body(Body::empty()).expect("a request");
        app.clone().oneshot(request).await.expect("an answer").into_body()
    };
    let body = open(&app).await;
    oracle.says(Answer::No);
    let text = body.collect().await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("\"revoked\""));
    oracle.says(Answer::Yes);
    // Nobody polls this one: within a second its stream is gone all the same.
    let mut kept = open(&app).await;
    assert!(kept.frame().await.expect("a frame").is_ok());
    assert_eq!((alive.count(), sse.connections().len()), (1, 1));
    let all = ConnectionFilter::all();
    assert_eq!(sse.connections().disconnect(&all, CloseReason::Revoked), 1);
    sleep(Duration::from_millis(999)).await;
    assert_eq!((alive.count(), sse.connections().len()), (0, 0));
    assert_eq!(sse.connections().closed(CloseReason::Revoked), 2);
    assert!(kept.frame().await.is_none(), "to the server it has ended");
}

#[tokio::test]
async fn a_filter_means_callers_by_permission_claim_and_issuer_too() {
    let sse = crate::support::sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let public = sse.endpoint("/p").public().handler(async || burst(1)).expect("a route");
    let app = app.merge(public);
    let of = |change: fn(&mut Value)| sign(&claims(change));
    let mut streams = Vec::new();
    for token in [
        of(|c| c["sid"] = json!("s1")),
        of(|c| {
            c["sid"] = json!("s2");
            c["tenant"] = json!("t1");
            c["permissions"] = json!(["usage.read", "audit.read"]);
        }),
        of(|c| {
            c["sid"] = json!(7);
            c["sub"] = json!("bob");
            c["vip"] = json!(true);
        }),
    ] {
        streams.push(testing::open(&app, "/s").bearer(&token).await.expect("a stream"));
    }
    streams.push(testing::open(&app, "/p").await.expect("a stream"));
    let all = ConnectionFilter::all;
    let connections = sse.connections();
    for (filter, count) in [
        (all(), 4),
        (all().permission("usage.read"), 3),
        (all().permission("usage.read").permission("audit.read"), 1),
        (all().permission("nobody.has"), 0),
        (all().claim("sid", "s1"), 1),
        (all().claim("sid", 7), 1),
        (all().claim("sid", "7"), 0),
        (all().claim("sid", "s1").subject("bob"), 0),
        (all().claim("vip", true), 1),
        (all().claim("vip", ()), 0),
        (all().claim("absent", "x"), 0),
        // What is no JSON is nobody's, not everybody's.
        (all().claim("absent", f64::NAN), 0),
        (all().claim("absent", std::collections::BTreeMap::from([((1, 2), 3)])), 0),
        (all().issuer("tests"), 3),
        (all().issuer("others"), 0),
        (all().tenant("t1"), 1),
        (all().endpoint("/p"), 1),
        (all().endpoint("/s").subject("ann"), 2),
    ] {
        assert_eq!(connections.count(&filter), count, "{filter:?}");
        assert_eq!(connections.matching(&filter).len(), count, "{filter:?}");
    }
    let theirs = connections.matching(&all().tenant("t1"));
    assert_eq!(theirs[0].issuer.as_deref(), Some("tests"));
    assert_eq!(theirs[0].subject.as_deref(), Some("ann"));
    assert_eq!(connections.disconnect(&all().claim("sid", "s1"), CloseReason::Revoked), 1);
    assert_eq!(read_close(&mut streams[0]).await, ("revoked".to_owned(), false));
    assert_eq!(connections.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_is_disconnected_while_its_function_runs_is_refused() {
    let sse = crate::support::sse_with(SseOptions::default());
    let slow = async || {
        sleep(Duration::from_secs(3)).await;
        burst(1)
    };
    let asked = sse.endpoint("/s").handler(slow).expect("a route");
    let posted = sse.endpoint("/s").post_handler(slow).expect("a route");
    let app: Router = asked.merge(posted);
    for (reason, post, status) in [
        (CloseReason::Revoked, false, Some(403)),
        (CloseReason::Revoked, true, Some(403)),
        (CloseReason::TokenExpired, false, Some(401)),
        (CloseReason::TokenExpired, true, Some(401)),
        (CloseReason::Draining, false, None),
        (CloseReason::Draining, true, None),
        (CloseReason::Unverified, false, None),
        (CloseReason::Unverified, true, None),
    ] {
        let open = testing::open(&app, "/s").principal("ann");
        let open = tokio::spawn(if post { open.body("") } else { open }.into_future());
        sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        let all = ConnectionFilter::all();
        assert_eq!(sse.connections().disconnect(&all, reason), 1, "{reason} {post}");
        let opened = open.await.expect("no panic");
        // A `POST` may finish where nobody's access is withdrawn.
        let finishes = post && reason == CloseReason::Draining;
        let took = Duration::from_secs(if finishes { 2 } else { 0 });
        assert_eq!(start.elapsed(), took, "{reason} {post}");
        match (opened, status) {
            (Err(error), Some(status)) => {
                assert_eq!(error.status.map(|status| status.as_u16()), Some(status), "{reason}");
                let withdrawn = error.body.contains("access was withdrawn");
                assert_eq!(withdrawn, reason == CloseReason::Revoked, "{error}");
            }
            (Ok(mut stream), None) => assert_eq!(read_close(&mut stream).await.0, reason.as_str()),
            (opened, _) => panic!("{reason} {post}: {opened:?}"),
        }
        assert_eq!(sse.connections().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_buffer_is_not_sent_to_who_is_disconnected() {
    let sse = crate::support::sse_with(options("Buffer = 1000"));
    let many = || stream::iter((0..900).map(|n| Event::text(format!("{n} {}", "x".repeat(1000)))));
    let (app, alive) = {
        let alive = Alive::default();
        let watch = alive.clone();
        let make = move || watch.watch(many().chain(stream::pending()));
        let endpoint = sse.endpoint("/s");
        let app: Router = endpoint.handler(async move || make()).expect("a route");
        (app, alive)
    };
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    sleep(Duration::from_secs(1)).await;
    let ann = ConnectionFilter::all().subject("ann");
    assert_eq!(sse.connections().disconnect(&ann, CloseReason::Revoked), 1);
    let events = stream.read_to_end().await.expect("a clean end");
    assert!(events.len() < 100, "{} were still sent", events.len());
    assert!(events.last().expect("a closing event").data.contains("revoked"));
    assert_eq!(alive.count(), 0);
}

/// The interval runs from the last look, not from the stream's start.
#[tokio::test(start_paused = true)]
async fn an_answer_is_no_older_than_the_interval_however_long_the_function_took() {
    for (taken, most) in [(3_000, 1_001), (4_500, 0)] {
        let oracle = Oracle::new(Answer::Yes);
        let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
        let endpoint = sse.endpoint("/s").permission("read").reauthorize(Duration::from_secs(4));
        let app: Router = endpoint
            .handler(async move || {
                sleep(Duration::from_millis(taken)).await;
                burst(1)
            })
            .expect("a route");
        let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
        oracle.says(Answer::No);
        let start = Instant::now();
        assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
        assert!(start.elapsed() <= Duration::from_millis(most), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn an_authorizer_that_blocks_its_thread_at_a_second_look_is_told_of() {
    let again = Arc::new(Mutex::new(false));
    let blocks = again.clone();
    let authorizer = authorizer_fn(move |_: Principal, _: Permission| {
        if std::mem::replace(&mut *blocks.lock().expect("no panic"), true) {
            std::thread::sleep(Duration::from_millis(120));
        }
        async { Ok::<_, std::fmt::Error>(true) }
    });
    let sse = sse_with_authorizer(options("ReauthorizeInterval = \"1s\""), authorizer);
    let mut stream =
        testing::open(&reading(&sse, "/s"), "/s").principal("ann").await.expect("a stream");
    let reading = async { while let Ok(Some(_)) = stream.next().await {} };
    assert!(tokio::time::timeout(Duration::from_millis(1_500), reading).await.is_err());
    assert!(sse.connections().blocking_polls() >= 1);
}

#[sse_endpoint("/builds/{build}/stream", permission = any("admin", all("staff", "builds.{build}.read")))]
async fn build(Path(build): Path<String>) -> impl Stream<Item = Event> {
    stream::iter([Event::text(build)])
}

const OF_THE_TENANT: &str = "tenants.{tenant}.builds";

#[sse_endpoint("/builds", permission = OF_THE_TENANT)]
async fn of_the_tenant() -> impl Stream<Item = Event> {
    burst(1)
}

#[tokio::test]
async fn a_permission_may_name_the_build_in_the_path() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let prefixed = sse.at("/t/{tenant}").routes(endpoints![of_the_tenant]).expect("a prefix's");
    let audit = sse.endpoint("/audit/{tenant}").permission("audit.{tenant}.read");
    let audit = audit.handler(async || burst(1)).expect("a route");
    let app: Router = sse.routes(endpoints![build]).expect("routes").merge(prefixed).merge(audit);
    let ann = ["staff", "builds.7.read", "tenants.t1.builds", "audit.t1.read"];
    let ann = ann.into_iter().fold(Principal::test("ann"), Principal::permission);
    let open = |path: &str, who: &Principal| testing::open(&app, path).principal(who.clone());
    for path in ["/builds/7/stream", "/builds/%37/stream", "/t/t1/builds", "/audit/t1"] {
        open(path, &ann).await.expect(path);
    }
    for (path, asked, lacks) in [
        ("/builds/8/stream", "admin", "admin or (staff and builds.8.read)"),
        ("/builds/7-/stream", "admin", "admin or (staff and builds.7-.read)"),
        ("/t/t2/builds", "tenants.t2.builds", "tenants.t2.builds"),
        ("/audit/T1", "audit.T1.read", "audit.T1.read"),
    ] {
        let error = open(path, &ann).await.expect_err(path);
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN), "{path}");
        let scope = format!("scope=\"{asked}\"");
        assert!(challenge(&error).ends_with(&scope), "{path}: {}", challenge(&error));
        let lacks = format!("the caller lacks the permission {lacks}");
        assert!(error.body.contains(&lacks) && log.text().contains(&lacks), "{path}: {error}");
    }
    open("/builds/8/stream", &Principal::test("eve").permission("admin")).await.expect("any");
    let without = testing::open(&app, "/builds/a.b/stream").await.expect_err("401");
    assert_eq!(without.status, Some(StatusCode::UNAUTHORIZED), "who has no token learns nothing");
}

#[tokio::test(start_paused = true)]
async fn the_authorizer_and_its_rechecks_see_the_build_of_the_path() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(options("ReauthorizeInterval = \"30s\""), oracle.clone());
    let at = sse.at("/t/{tenant}");
    let endpoint = at.endpoint("/builds/{build}").permission("t.{tenant}").permission("b.{build}");
    let app: Router = endpoint.handler(async || burst(1)).expect("a route");
    let mut stream =
        testing::open(&app, "/t/t1/builds/7").principal("ann").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    let reading = async { while stream.next().await.is_err() {} };
    assert!(tokio::time::timeout(Duration::from_secs(35), reading).await.is_err(), "it goes on");
    let path = "/t/{tenant}/builds/{build}";
    let expected = [format!("{path} ann t.t1 and b.7"), format!("{path} ann t.t1 and b.7 again")];
    assert_eq!(oracle.asked(), expected);
    oracle.says(Answer::No);
    let stream = &mut stream.timeout(Duration::from_secs(31));
    assert_eq!(read_close(stream).await.0, "revoked");
    let error = testing::open(&app, "/t/t1/builds/7").principal("ann").await.expect_err("403");
    assert!(challenge(&error).ends_with("scope=\"t.t1 b.7\""), "{}", challenge(&error));
}

#[tokio::test]
async fn a_handler_of_the_applications_own_may_name_the_build_in_its_path() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let own = |permission: &'static str| {
        get(async move |sse: SseContext| sse.permission(permission).stream(burst(1)).await)
    };
    let inner = Router::new().route("/builds/{build}", own("t.{tenant}.{build}"));
    let app: Router = Router::new()
        .nest("/t/{tenant}", inner)
        .route("/wrong/{build}", own("builds.{id}"))
        .route("/rest/{*build}", own("builds.{build}"))
        .layer(axum::Extension(sse));
    let ann = Principal::test("ann").permission("t.t1.7").permission("builds.7");
    let open = |path: &str| testing::open(&app, path).principal(ann.clone());
    open("/t/t1/builds/7").await.expect("a stream");
    let error = open("/t/t1/builds/8").await.expect_err("403");
    assert!(challenge(&error).ends_with("scope=\"t.t1.8\""), "{}", challenge(&error));
    let error = open("/t/t1.7/builds/7").await.expect_err("403");
    assert_eq!((error.status, challenge(&error)), (Some(StatusCode::FORBIDDEN), ""));
    for path in ["/wrong/7", "/rest/7"] {
        let error = open(path).await.expect_err("a mistake");
        assert_eq!(error.status, Some(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let text = log.text();
    assert!(text.contains("builds.{id} has `{id}`, which is no capture of the path"), "{text}");
    assert!(text.contains("builds.{build} has `{build}`, which takes all that follows"), "{text}");
}

#[test]
fn a_permission_of_a_capture_that_is_not_there_is_a_mistake_with_its_place() {
    let sse = sse_with(SseOptions::default());
    let error = sse.routes::<()>(endpoints![of_the_tenant]).expect_err("no prefix").to_string();
    let place = format!("{}:", file!());
    let words = "endpoint /builds: the permission tenants.{tenant}.builds has `{tenant}`, which is no capture of \
                 the path, prefix included";
    assert!(error.contains(&place) && error.contains(words), "{error}");
    let one = |name: &'static str| PermissionRule::One(Permission::from_static(name));
    let rule = PermissionRule::Any(vec![one("a.{b}"), one("c.{d"), one("e{b}"), one("f.{r}")]);
    let endpoint = sse.endpoint("/x/{b}/{*r}").permission("g.{h}").permissions(rule);
    let error = endpoint.handler::<_, _, ()>(async || burst(1)).expect_err("four mistakes");
    assert_eq!(error.iter().count(), 4, "{error}");
    assert!(error.iter().all(|mistake| mistake.to_string().contains(&place)), "{error}");
    let text = error.to_string();
    for (permission, what) in [
        ("g.{h}", "no capture of the path"),
        ("c.{d", "a brace without its partner"),
        ("e{b}", "beside other text"),
        ("f.{r}", "takes all that follows"),
    ] {
        let mistake = text.lines().find(|line| line.contains(permission));
        assert!(mistake.is_some_and(|mistake| mistake.contains(what)), "{permission}: {text}");
    }
}

#[tokio::test]
async fn braces_are_braces_wherever_no_endpoint_asks() {
    let who = Principal::new("ann").permission("builds.{build}.read").permission("builds.7.read");
    who.require("builds.{build}.read").expect("to the byte");
    who.require("builds.7.read").expect("to the byte");
    assert!(who.require("builds.8.read").is_err());
    let sse = sse_with(SseOptions::default());
    sse.authorize(&who, "builds.{build}.read").await.expect("to the byte");
    assert!(sse.authorize(&who, "builds.{x}.read").await.is_err());
}
