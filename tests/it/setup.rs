//! Set-up: where options come from, and how mistakes in options and declarations are reported.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::Request;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream;
use hero_sse::options::SetupErrorKind;
use hero_sse::prelude::*;
use hero_sse::{JwtAuthenticator, SseOptions};
use http::StatusCode;
use tower::ServiceExt;

use crate::support::testing;
use crate::support::{Log, Server, burst, options, public, sse_with, token};

fn bare() -> HeroSse {
    HeroSse::builder().environment(Vec::<(String, String)>::new()).build().expect("a server")
}

#[tokio::test]
async fn a_server_without_endpoints_exposes_nothing() {
    let sse = bare();
    let app: Router = sse.at("/api").routes(hero_sse::endpoints![]).expect("no route");
    for path in ["/", "/api", "/api/s"] {
        let error = testing::open(&app, path).await.expect_err("404");
        assert_eq!(error.status, Some(StatusCode::NOT_FOUND), "{path}");
    }
}

#[test]
fn build_reports_all_mistakes_of_options_environment_and_authenticator_together() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    std::fs::write(file.path(), "[SseOptions]\nWriteTimeout = 5\nRetri = \"3s\"").expect("written");
    let error = HeroSse::builder()
        .options_file(file.path())
        .environment([("HERO_SSE_MAX_AGE", "soon"), ("PATH", "/bin")])
        .authenticator(JwtAuthenticator::hs256("short"))
        .build()
        .expect_err("mistakes");
    let all: Vec<_> = error.iter().map(ToString::to_string).collect();
    for words in
        ["WriteTimeout", "Retri", "HERO_SSE_MAX_AGE", "5 bytes", "no issuer", "no audience"]
    {
        assert!(all.iter().any(|mistake| mistake.contains(words)), "{words} in {error}");
    }
    assert_eq!(all.len(), 6, "{error}");
    assert!(error.to_string().starts_with("6 mistakes:\n  - "), "{error}");
    let name = file.path().display().to_string();
    assert!(all[0].contains(&name), "{error}");
    let mut about: Vec<_> =
        error.iter().map(|mistake| (mistake.subject(), mistake.kind())).collect();
    about.sort_by_key(|(subject, _)| *subject);
    let expected = [
        ("", SetupErrorKind::Auth),
        ("", SetupErrorKind::Auth),
        ("", SetupErrorKind::Auth),
        ("HERO_SSE_MAX_AGE", SetupErrorKind::Environment),
        ("SseOptions.Retri", SetupErrorKind::Options),
        ("SseOptions.WriteTimeout", SetupErrorKind::Options),
    ];
    assert_eq!(about, expected);
}

#[tokio::test]
async fn a_files_options_win_over_the_codes_key_by_key_and_the_environments_over_both() {
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
    std::fs::write(file.path(), r#"{"SseOptions": {"Retry": "7s", "MaxConnections": 2}}"#)
        .expect("written");
    let sse = HeroSse::builder()
        .options_file(file.path())
        .options(
            SseOptions::default()
                .max_connections(1)
                .max_per_principal(1)
                .token_sources([hero_sse::options::TokenSource::Header]),
        )
        .environment([("HERO_SSE_RETRY", "20s"), ("HERO_SSE_SERVICE_HOST", "10.0.0.1")])
        .authenticator(crate::support::jwt())
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let open = |who: &str| testing::open(&app, "/s").principal(who);
    let mut one = open("ann").await.expect("one");
    one.next().await.expect("in time").expect("an event");
    assert!(one.retry().is_some_and(|retry| retry >= Duration::from_secs(20)), "{:?}", one.retry());
    let mut again = open("ann").await.expect("a closing event");
    assert!(again.read_to_end().await.expect("an end")[0].data.contains("over_limit"));
    let _two = open("bob").await.expect("two");
    let mut three = open("eve").await.expect("a closing event");
    assert!(three.read_to_end().await.expect("an end")[0].data.contains("over_limit"));
    assert_eq!(sse.connections().len(), 2);
}

#[test]
fn the_process_environment_is_read() {
    if std::env::var_os("HERO_SSE_RETRY").is_some() {
        let error = HeroSse::builder().build().expect_err("a mistake");
        assert!(error.to_string().contains("variable HERO_SSE_RETRY"), "{error}");
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "setup::the_process_environment_is_read"])
        .env("HERO_SSE_RETRY", "soon")
        .status()
        .expect("a child");
    assert!(status.success(), "the child did not see the variable");
}

#[test]
fn times_and_limits_from_code_are_checked_as_texts_are() {
    let year = Duration::from_secs(367 * 86_400);
    let tiny = Duration::from_micros(900);
    let options = SseOptions::default();
    for (options, words) in [
        (options.clone().heartbeat_interval(Duration::ZERO), "HeartbeatInterval: 0ns is out of"),
        (options.clone().heartbeat_interval(Duration::MAX), "HeartbeatInterval: 18446744073709"),
        (options.clone().write_timeout(tiny), "WriteTimeout: 900µs is out of bounds"),
        (options.clone().max_age(year), "MaxAge: 31708800s is out of bounds"),
        (options.clone().peer_timeout(tiny), "PeerTimeout: 900µs is out of bounds"),
        (options.clone().drain_timeout(year), "DrainTimeout: 31708800s is out of bounds"),
        (options.clone().retry(Duration::MAX), "Retry: 18446744073709"),
        (options.clone().max_connections(0), "MaxConnections: 0 is not a limit"),
        (options.clone().max_per_principal(0), "MaxPerPrincipal: 0 is not a limit"),
        (options.clone().buffer(0), "Buffer: 0 is not a limit"),
    ] {
        let builder = HeroSse::builder().environment(Vec::<(String, String)>::new());
        let error = builder.options(options).build().expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let sse = bare();
    let endpoint = sse.endpoint("/s").public().heartbeat(Duration::MAX);
    let error = endpoint.handler::<_, _, ()>(async || burst(0)).expect_err("a heartbeat");
    assert!(error.to_string().contains("`heartbeat`: 18446744073709"), "{error}");
    let endpoint = sse.endpoint("/s").public().buffer(0);
    let error = endpoint.handler::<_, _, ()>(async || burst(0)).expect_err("a buffer");
    assert!(error.to_string().contains("`buffer`: 0 is not a limit"), "{error}");
}

#[test]
fn prefixes_and_paths_that_could_never_match_are_mistakes() {
    let sse = bare();
    for (prefix, path) in [
        ("/api", "s"),
        ("/api/", "/s"),
        ("api", "/s"),
        ("", "/a?x"),
        ("", "/a#x"),
        ("", "/a b"),
        ("", "/{id}/{id}"),
        ("/{id}", "/{*id}"),
        ("/ä", "/s"),
        ("/..", "/s"),
        ("/{tenant:int}", "/s"),
    ] {
        let endpoint = sse.at(prefix).endpoint(path).public();
        let mapped = endpoint.handler::<_, _, ()>(async || burst(0));
        assert!(mapped.is_err(), "{prefix} {path}");
    }
    for endpoint in
        [sse.endpoint("/p").public().permission("p"), sse.endpoint("/p").permission("p").public()]
    {
        let error = endpoint.handler::<_, _, ()>(async || burst(0)).expect_err("both");
        assert!(error.to_string().contains("choose one"), "{error}");
    }
}

#[test]
fn mapping_reports_where_the_mistake_is_declared() {
    let sse = bare();
    let here = format!("{}:", file!());
    let ok = sse.endpoint("/a/{id}").public().handler::<_, _, ()>(async || burst(0));
    let _: Router = ok.expect("a route");
    for (path, words) in [
        ("/a/{id}", "the path is taken by /a/{id}"),
        ("/a/{other}", "the path is taken by /a/{id}"),
        ("a", "must begin with `/`"),
        ("/b/ä", "write `%C3%A4`"),
        ("/b/../c", "`..`"),
        ("/b/{id:int}", "`id:int`"),
        ("/b/:id", "`{name}`"),
        ("/b/*rest", "`{*rest}`"),
        ("/b/{id", "malformed"),
        ("/b/{}", "malformed"),
    ] {
        let error = sse
            .endpoint(path)
            .public()
            .handler::<_, _, ()>(async || burst(0))
            .expect_err(path)
            .to_string();
        assert!(error.contains(words), "{error}");
        assert!(error.contains(&here), "{error}");
    }
    let error = sse
        .endpoint("/c")
        .event("hero.x")
        .permission("not a scope")
        .retry(Duration::from_millis(10))
        .handler::<_, _, ()>(async || burst(0))
        .expect_err("four mistakes");
    assert_eq!(error.iter().count(), 4, "{error}");
    assert!(error.to_string().contains("no authenticator"), "{error}");
    for mistake in &error {
        assert_eq!((mistake.kind(), mistake.subject()), (SetupErrorKind::Endpoint, "/c"));
    }
}

#[sse_endpoint("/u", public)]
async fn fetched() -> impl Stream<Item = Event> {
    burst(1)
}

#[sse_endpoint("/u", method = "post", public, max_connections = 2)]
async fn posted() -> impl Stream<Item = Event> {
    burst(2)
}

#[tokio::test]
async fn get_and_post_may_share_a_path_and_then_share_its_limits() {
    let in_one = |sse: &HeroSse| sse.routes(endpoints![fetched, posted]).expect("one path");
    let in_two = |sse: &HeroSse| {
        let fetched: Router = sse.routes(endpoints![fetched]).expect("its path");
        fetched.merge(sse.routes(endpoints![posted]).expect("the same path"))
    };
    let built = |sse: &HeroSse| {
        let posted = sse.endpoint("/u").public().max_connections(2);
        let posted: Router = posted.post_handler(async || burst(2)).expect("a path");
        let fetched = sse.endpoint("/u").public().handler(async || burst(1));
        posted.merge(fetched.expect("the same path"))
    };
    for map in [&in_one as &dyn Fn(&HeroSse) -> Router, &in_two, &built] {
        let sse = sse_with(SseOptions::default());
        let app = map(&sse);
        let _one = testing::open(&app, "/u").await.expect("a stream");
        let _two = testing::open(&app, "/u").body("").await.expect("a stream");
        let three = testing::open(&app, "/u").body("").await.expect_err("the limit of a plain one");
        assert_eq!(three.status, Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(sse.connections().len(), 2);
        let put = testing::open(&app, "/u").method(http::Method::PUT);
        let put = put.await.expect_err("neither");
        assert_eq!(put.status, Some(StatusCode::METHOD_NOT_ALLOWED));

        for again in [sse.routes::<()>(endpoints![fetched]), sse.routes(endpoints![posted])] {
            let error = again.expect_err("the same path and method").to_string();
            assert!(error.contains(&format!("the path is taken by /u ({}:", file!())), "{error}");
        }
        let other = sse.endpoint("/{u}").public().post_handler::<_, _, (), _>(async || burst(1));
        assert!(other.is_ok(), "{other:?}");
    }
}

#[test]
fn one_path_with_captures_of_two_names_is_two_paths_to_the_router() {
    let sse = bare();
    let first = sse.endpoint("/u/{id}").public().handler::<_, _, ()>(async || burst(1));
    let _: Router = first.expect("a route");
    let second = sse.endpoint("/u/{name}").public().post_handler::<_, _, (), _>(async || burst(1));
    let error = second.expect_err("the names differ").to_string();
    assert!(error.contains("the path is taken by /u/{id} ("), "{error}");
}

#[sse_endpoint("/u/{id}", public)]
async fn by_position(_: Path<u64>) -> impl Stream<Item = Event> {
    burst(1)
}

#[test]
fn captures_by_position_must_be_all_of_the_whole_path() {
    let sse = bare();
    for (prefix, captures) in
        [("", 1), ("/api", 1), ("/{{x}}", 1), ("/{tenant}", 2), ("/{tenant}/v{n}", 3)]
    {
        let mapped = sse.at(prefix).routes::<()>(endpoints![by_position]);
        if captures == 1 {
            assert!(mapped.is_ok(), "{prefix}: {mapped:?}");
            continue;
        }
        let error = mapped.expect_err(prefix);
        assert_eq!(error.iter().count(), 1, "{error}");
        let words = format!(
            "endpoint {prefix}/u/{{id}}: its `Path` takes captures by position (1), and with the prefix \
             there are {captures}: take them by name, with a struct"
        );
        assert!(error.to_string().contains(&words), "{error}");
    }
}

#[test]
fn a_disabled_server_refuses_to_map() {
    let error = sse_with(options("Enabled = false"))
        .endpoint("/s")
        .public()
        .handler::<_, _, ()>(async || burst(0))
        .expect_err("disabled");
    assert!(error.to_string().contains("Enabled = false"), "{error}");
}

#[test]
fn a_heartbeat_as_long_as_the_maximum_age_is_a_mistake() {
    let error = sse_with(options("MaxAge = \"10s\""))
        .endpoint("/s")
        .public()
        .handler::<_, _, ()>(async || burst(0))
        .expect_err("a heartbeat of 15 s");
    assert!(error.to_string().contains("heartbeat (15s)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_options_table_for_a_path_wins() {
    let sse = sse_with(options(
        "HeartbeatInterval = \"20s\"\n[SseOptions.Endpoints.\"/b\"]\nHeartbeatInterval = \"2s\"",
    ));
    let route = |path: &str| {
        let endpoint = sse.endpoint(path).public().heartbeat(Duration::from_secs(7));
        endpoint.handler(async || burst(0)).expect("a route")
    };
    let app = Router::new().merge(route("/a")).merge(route("/b"));
    for (path, beats) in [("/a", 2), ("/b", 7)] {
        let stream = testing::open(&app, path).await.expect("a stream");
        let mut stream = stream.timeout(Duration::from_millis(15_500));
        stream.next().await.expect_err("silence");
        assert_eq!(stream.raw().matches("\n:").count(), beats, "{path}");
    }
}

#[tokio::test]
async fn sub_states_and_extractors_of_axum_reach_the_function() {
    #[derive(Clone)]
    struct App {
        greeting: Greeting,
    }
    #[derive(Clone)]
    struct Greeting(&'static str);
    impl axum::extract::FromRef<App> for Greeting {
        fn from_ref(app: &App) -> Self {
            app.greeting.clone()
        }
    }
    use axum::extract::{Path, Query, State};
    use std::collections::HashMap;

    let sse = sse_with(SseOptions::default());
    let route = sse
        .endpoint("/hello/{name}")
        .public()
        .handler(
            async |State(greeting): State<Greeting>,
                   Path(name): Path<String>,
                   Query(query): Query<HashMap<String, String>>| {
                let end = query.get("end").cloned().unwrap_or_default();
                stream::iter([Event::text(format!("{} {name}{end}", greeting.0))])
            },
        )
        .expect("a route");
    let app = Router::new().merge(route).with_state(App { greeting: Greeting("hello") });
    let mut stream = testing::open(&app, "/hello/ann?end=!").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "hello ann!");
}

#[tokio::test]
async fn the_context_extractor_has_the_rules_of_an_endpoint() {
    let sse = sse_with(options("Retry = \"2s\"\nMaxPerPrincipal = 1"));
    let app: Router = Router::new()
        .route("/open", get(async |sse: SseContext| sse.public().event("x").stream(burst(1)).await))
        .route(
            "/closed",
            get(async |sse: SseContext| sse.permission("usage.read").stream(burst(1)).await),
        )
        .route(
            "/cursor",
            get(async |sse: SseContext| {
                let cursor = sse.last_event_id().unwrap_or("none").to_owned();
                sse.public().stream(stream::iter([Event::text(cursor)])).await
            }),
        )
        .layer(Extension(sse.clone()));
    let mut stream = testing::open(&app, "/open").await.expect("a stream");
    assert_eq!(stream.headers()["x-accel-buffering"], "no");
    assert_eq!(stream.next().await.expect("in time").expect("an event").event, "x");
    assert!(stream.raw().starts_with("retry: 2"), "{}", stream.raw());
    assert_eq!(sse.connections().snapshot()[0].path, "/open");

    let status = async |path: &str, who: Option<Principal>| {
        let mut open = testing::open(&app, path);
        if let Some(who) = who {
            open = open.principal(who);
        }
        open.await.expect_err("a refusal").status.map(|status| status.as_u16())
    };
    assert_eq!(status("/closed", None).await, Some(401));
    assert_eq!(status("/closed", Some(Principal::test("ann"))).await, Some(403));
    let mut stream = testing::open(&app, "/closed").bearer(&token()).await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    let mut second =
        testing::open(&app, "/closed").bearer(&token()).await.expect("a closing event");
    assert!(second.read_to_end().await.expect("an end")[0].data.contains("over_limit"));

    let mut stream = testing::open(&app, "/cursor").last_event_id("41").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "41");
    let ended = testing::open(&app, "/cursor").last_event_id("41;hero.end").await;
    assert_eq!(ended.expect_err("204").status, Some(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn the_context_extractor_refuses_what_an_endpoint_would() {
    let status = async |sse: HeroSse, both: bool| {
        let app: Router = Router::new()
            .route(
                "/s",
                get(async move |sse: SseContext| {
                    let sse = if both { sse.permission("p") } else { sse };
                    sse.public().stream(burst(1)).await
                }),
            )
            .layer(Extension(sse));
        let error = testing::open(&app, "/s").await.err();
        error.and_then(|error| error.status)
    };
    assert_eq!(status(sse_with(SseOptions::default()), false).await, None);
    let failed = Some(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status(sse_with(SseOptions::default()), true).await, failed);
    assert_eq!(status(sse_with(options("Enabled = false")), false).await, failed);
}

#[tokio::test]
async fn a_context_without_a_server_is_a_500_and_logged() {
    let (log, _guard) = Log::everything();
    let app: Router =
        Router::new().route("/s", get(async |sse: SseContext| sse.public().stream(burst(1)).await));
    let error = testing::open(&app, "/s").await.expect_err("no server");
    assert_eq!(error.status, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert!(log.text().contains("add `.layer(Extension(sse))`"), "{}", log.text());
}

#[tokio::test]
async fn outside_of_serve_the_missing_protection_is_logged_once() {
    let (log, _guard) = Log::everything();
    let app = public(&sse_with(SseOptions::default()), || burst(1));
    testing::open(&app, "/s").await.expect("a stream");
    let logged = || log.text().matches("runs without `sse.serve`").count();
    assert_eq!(logged(), 0, "a test is no server: {}", log.text());
    for _ in 0..3 {
        let request = Request::get("/s").body(Body::empty()).expect("a request");
        app.clone().oneshot(request).await.expect("an answer");
    }
    assert_eq!(logged(), 1, "{}", log.text());
    for words in [
        "keep their connections",
        "tokens stay in URIs",
        "`sse.serve(listener, app)`",
        "`sse.guard`",
    ] {
        assert!(log.text().contains(words), "{words}: {}", log.text());
    }
}

#[tokio::test]
async fn a_table_for_a_path_that_is_not_mapped_is_logged_at_the_start() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(options("[SseOptions.Endpoints.\"/t\"]\nWriteTimeout = \"1s\""));
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    server.stop().await;
    assert!(log.text().contains("path=\"/t\""), "{}", log.text());
}
