//! Authorization: what the authorizer is called for, and what its decisions do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hero_sse::auth::{
    Access, AuthError, Authorizer, Decision, Permission, PermissionRule, authorizer_fn,
};
use hero_sse::options::OverLimit;
use hero_sse::{CloseReason, HeroSse, Principal, SseContext, SseOptions};
use http::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::testing::{self, EventReader, OpenError};
use crate::support::{Log, burst, jwt, options, token};

/// What a [`ScriptedAuthorizer`] does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Yes,
    No,
    UserDeleted,
    Error,
    Panic,
    PanicLater,
    Never,
}

/// An authorizer that does what the test has set, and records its calls.
#[derive(Clone)]
pub(crate) struct ScriptedAuthorizer(Arc<Mutex<Script>>);

struct Script {
    answer: Answer,
    calls: Vec<(Instant, String)>,
}

impl ScriptedAuthorizer {
    pub(crate) fn new(answer: Answer) -> Self {
        Self(Arc::new(Mutex::new(Script { answer, calls: Vec::new() })))
    }

    pub(crate) fn set_answer(&self, answer: Answer) {
        self.0.lock().expect("no panic").answer = answer;
    }

    /// Returns its calls as `path subject rule`, with `again` for a recheck.
    pub(crate) fn calls(&self) -> Vec<String> {
        let script = self.0.lock().expect("no panic");
        script.calls.iter().map(|(_, what)| what.clone()).collect()
    }

    pub(crate) fn call_times(&self) -> Vec<Instant> {
        self.0.lock().expect("no panic").calls.iter().map(|(at, _)| *at).collect()
    }
}

impl Authorizer for ScriptedAuthorizer {
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>> {
        let answer = {
            let mut script = self.0.lock().expect("no panic");
            let again = if access.is_recheck() { " again" } else { "" };
            let endpoint = access.endpoint().unwrap_or("own");
            let what =
                format!("{endpoint} {} {}{again}", access.principal().subject(), access.rule());
            script.calls.push((Instant::now(), what));
            script.answer
        };
        assert!(!matches!(answer, Answer::Panic), "the authorizer panics on purpose");
        async move {
            match answer {
                Answer::Yes => Ok(Decision::granted()),
                Answer::No => Ok(Decision::denied()),
                Answer::UserDeleted => Err(AuthError::invalid("the user is gone")),
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

pub(crate) fn reading(sse: &HeroSse, path: &str) -> Router {
    sse.endpoint(path).permission("read").handler(async || burst(1)).expect("a route")
}

pub(crate) fn challenge(error: &OpenError) -> &str {
    error.headers.get("www-authenticate").map_or("", |value| value.to_str().expect("ASCII"))
}

/// Reads the stream to its end, which must be `hero.close`. Returns its `reason` and `reconnect`.
pub(crate) async fn read_close(stream: &mut EventReader) -> (String, bool) {
    let events = stream.read_to_end().await.expect("a clean end");
    let close = events.last().expect("a closing event");
    assert_eq!(close.event, "hero.close");
    let data: Value = close.json().expect("JSON");
    let reason = data["reason"].as_str().expect("a text").to_owned();
    (reason, data["reconnect"].as_bool().expect("a flag"))
}

/// Allows the members of the tenant in the path.
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
async fn an_authorizer_may_decide_by_the_path() {
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
async fn a_closure_is_called_once_for_each_permission_of_the_rule() {
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
    // No decision is cached for the next stream.
    held.lock().expect("no panic").remove("a");
    let error = testing::open(&app, "/s").principal("ann").await.expect_err("403");
    assert!(error.body.contains("lacks the permission a\""), "{error}");
    assert_eq!(asked.lock().expect("no panic").len(), 6);
    // With an authorizer, the token's claims do not count.
    let claims = Principal::test("ann").permission("a").permission("b");
    assert!(testing::open(&app, "/s").principal(claims).await.is_err());
    testing::open(&app, "/t").principal("ann").await.expect("a stream");
    assert_eq!(asked.lock().expect("no panic").len(), 9, "a valid token is enough for /t");
}

#[tokio::test]
async fn the_authorizer_is_called_for_requests_with_a_token_only() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let silent = sse.endpoint("/silent").handler(async || burst(1)).expect("a route");
    let public = sse.endpoint("/public").public().handler(async || burst(1)).expect("a route");
    let app: Router = silent.merge(public).merge(reading(&sse, "/read"));
    assert!(testing::open(&app, "/read").await.is_err());
    testing::open(&app, "/public").await.expect("a stream");
    assert_eq!(oracle.calls(), Vec::<String>::new());
    for path in ["/silent", "/public", "/read"] {
        testing::open(&app, path).bearer(&token()).await.expect("a stream");
    }
    let expected = ["/silent ann a valid token", "/public ann a valid token", "/read ann read"];
    assert_eq!(oracle.calls(), expected);
    oracle.set_answer(Answer::No);
    for path in ["/silent", "/public"] {
        let error = testing::open(&app, path).bearer(&token()).await.expect_err("403");
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
        let expected = "Bearer realm=\"hero-sse\", error=\"insufficient_scope\"";
        assert_eq!(challenge(&error), expected);
    }
    oracle.set_answer(Answer::UserDeleted);
    let error = testing::open(&app, "/read").bearer(&token()).await.expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    assert!(challenge(&error).contains("the user is gone"), "{}", challenge(&error));
    assert!(sse.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_authorizer_that_fails_refuses_before_the_handler_runs_and_is_logged() {
    let (log, _guard) = Log::everything();
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
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
        oracle.set_answer(answer);
        // The log has at most one line a second.
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
async fn a_failing_authorizer_is_logged_once_a_second() {
    let (log, _guard) = Log::everything();
    let sse = sse_with_authorizer(SseOptions::default(), ScriptedAuthorizer::new(Answer::Error));
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
    assert!(log.text().contains("suppressed=49"), "{}", log.text());
}

#[tokio::test]
async fn a_permission_without_an_authenticator_is_a_mistake_at_the_start() {
    let builder = || HeroSse::builder().environment(Vec::<(String, String)>::new());
    let sse = builder().authorizer(ScriptedAuthorizer::new(Answer::Yes)).build().expect("a server");
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
async fn sse_context_and_authorize_use_the_authorizer() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
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
    sse.authorize(&holder, "write").await.expect("granted");
    assert_eq!(oracle.calls(), ["/old/{id} ann read", "own ann write"]);
    oracle.set_answer(Answer::No);
    assert_eq!(open().await.expect_err("403").status, Some(StatusCode::FORBIDDEN));
    let refusal = sse.authorize(&holder, "read").await.expect_err("denied");
    assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
    holder.require("read").expect("its claims say so");
    oracle.set_answer(Answer::Error);
    let refusal = sse.authorize(&holder, "read").await.expect_err("unavailable");
    assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
    let mut stream = open().await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await.0, "unverified");
    // Without an authorizer the claims decide.
    let sse = crate::support::sse_with(SseOptions::default());
    sse.authorize(&holder, "read").await.expect("granted");
    assert!(sse.authorize(&holder, "write").await.is_err());
}

#[tokio::test]
async fn an_authorizer_that_blocks_its_thread_is_logged() {
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
