//! Streams whose access ends while they open or are open: by reauthorization, and by `disconnect`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::auth::{Permission, authorizer_fn};
use hero_sse::connections::ConnectionFilter;
use hero_sse::options::{OverLimit, Profile};
use hero_sse::{CloseReason, Event, HeroSse, Principal, SseOptions};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::support::testing;
use crate::support::{Alive, burst, claims, options, sign, token};

use crate::access::{
    Answer, ScriptedAuthorizer, challenge, read_close, reading, sse_with_authorizer,
};

/// An event every second.
fn ticks() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        sleep(Duration::from_secs(1)).await;
        Some((Event::text(n.to_string()), n + 1))
    })
}

fn reauthorized<F, T>(sse: &HeroSse, make: F) -> (Router, Alive)
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
async fn a_stream_is_reauthorized_after_80_to_100_percent_of_the_interval() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let (app, _alive) = reauthorized(&sse, stream::pending);
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    // No event ever comes, so each read times out.
    let reading = async { while stream.next().await.is_err() {} };
    assert!(tokio::time::timeout(Duration::from_secs(3_000), reading).await.is_err());
    let times = oracle.call_times();
    let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    assert!(gaps.iter().all(|gap| (24.0..=30.01).contains(gap)), "{gaps:?}");
    assert!((100..=125).contains(&gaps.len()), "{}", gaps.len());
    let spread = gaps.iter().any(|gap| *gap < 25.5) && gaps.iter().any(|gap| *gap > 28.5);
    assert!(spread, "{gaps:?}");
    assert!(oracle.calls()[1..].iter().all(|what| what == "/s ann read again"));
    // No heartbeat was skipped for a recheck.
    let heartbeats = stream.raw().matches("\n:").count();
    assert!((195..=205).contains(&heartbeats), "{heartbeats}");
    oracle.set_answer(Answer::No);
    let stream = &mut stream.timeout(Duration::from_secs(31));
    assert_eq!(read_close(stream).await, ("revoked".to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn a_recheck_that_does_not_grant_ends_the_stream_and_events_go_on_until_then() {
    for (answer, reason, reconnect, seconds) in [
        (Answer::No, "revoked", false, 24..=31),
        (Answer::UserDeleted, "revoked", false, 24..=31),
        (Answer::Error, "unverified", true, 24..=31),
        (Answer::Panic, "unverified", true, 24..=31),
        (Answer::PanicLater, "unverified", true, 24..=31),
        (Answer::Never, "unverified", true, 29..=36),
    ] {
        for buffered in [false, true] {
            let oracle = ScriptedAuthorizer::new(Answer::Yes);
            let toml = if buffered { "Buffer = 100" } else { "" };
            let sse = sse_with_authorizer(options(toml), oracle.clone());
            let (app, alive) = reauthorized(&sse, ticks);
            let stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
            let mut stream = stream.timeout(Duration::from_secs(60));
            oracle.set_answer(answer);
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
            assert_eq!(oracle.calls().len(), 2, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_always_ready_is_reauthorized_too() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
    let sse = sse_with_authorizer(options("ReauthorizeInterval = \"200ms\""), oracle.clone());
    let endpoint = sse.endpoint("/s").permission("read");
    let app: Router = endpoint
        .handler(async || stream::repeat_with(|| Event::text("x".repeat(17_000))))
        .expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    oracle.set_answer(Answer::No);
    let start = std::time::Instant::now();
    let events = stream.read_to_end().await.expect("a clean end");
    assert!(start.elapsed() >= Duration::from_millis(160), "{:?}", start.elapsed());
    assert!(events.last().expect("a closing event").data.contains("revoked"));
    assert!(events.len() > 2, "{}", events.len());
}

/// The interval starts with the last check and not with the stream.
#[tokio::test(start_paused = true)]
async fn a_decision_is_not_older_than_the_interval_even_after_a_slow_handler() {
    for (taken, most) in [(3_000, 1_001), (4_500, 0)] {
        let oracle = ScriptedAuthorizer::new(Answer::Yes);
        let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
        let endpoint = sse.endpoint("/s").permission("read").reauthorize(Duration::from_secs(4));
        let app: Router = endpoint
            .handler(async move || {
                sleep(Duration::from_millis(taken)).await;
                burst(1)
            })
            .expect("a route");
        let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
        oracle.set_answer(Answer::No);
        let start = Instant::now();
        assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
        assert!(start.elapsed() <= Duration::from_millis(most), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn an_authorizer_that_blocks_its_thread_in_a_recheck_is_logged() {
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

/// Under a server of another's making, which gets the body as it is.
#[tokio::test(start_paused = true)]
async fn a_stream_under_another_server_is_reauthorized_and_can_be_disconnected() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
    let sse = sse_with_authorizer(SseOptions::default(), oracle.clone());
    let (app, alive) = reauthorized(&sse, ticks);
    let open = async |app: &Router| {
        let request = Request::get(format!("/s?access_token={}", token()));
        let request = request.body(Body::empty()).expect("a request");
        app.clone().oneshot(request).await.expect("an answer").into_body()
    };
    let body = open(&app).await;
    oracle.set_answer(Answer::No);
    let text = body.collect().await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("\"revoked\""));
    oracle.set_answer(Answer::Yes);
    // Nobody polls this one: within a second its stream is gone all the same.
    let mut kept = open(&app).await;
    assert!(kept.frame().await.expect("a frame").is_ok());
    assert_eq!((alive.count(), sse.connections().len()), (1, 1));
    let all = ConnectionFilter::all();
    assert_eq!(sse.connections().disconnect(&all, CloseReason::Revoked), 1);
    sleep(Duration::from_millis(999)).await;
    assert_eq!((alive.count(), sse.connections().len()), (0, 0));
    assert_eq!(sse.connections().closed(CloseReason::Revoked), 2);
    assert!(kept.frame().await.expect("a break").is_err(), "it breaks off");
}

#[tokio::test(start_paused = true)]
async fn the_authorizer_and_its_rechecks_see_captures_of_the_path() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
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
    assert_eq!(oracle.calls(), expected);
    oracle.set_answer(Answer::No);
    let stream = &mut stream.timeout(Duration::from_secs(31));
    assert_eq!(read_close(stream).await.0, "revoked");
    let error = testing::open(&app, "/t/t1/builds/7").principal("ann").await.expect_err("403");
    assert!(challenge(&error).ends_with("scope=\"t.t1 b.7\""), "{}", challenge(&error));
}

#[tokio::test]
async fn a_filter_selects_callers_by_permission_claim_and_issuer() {
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
        // A value that cannot be JSON matches no caller.
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
async fn a_caller_that_is_disconnected_while_its_handler_runs_is_refused() {
    let sse = crate::support::sse_with(SseOptions::default());
    let slow = async || {
        sleep(Duration::from_secs(3)).await;
        burst(1)
    };
    let asked = sse.endpoint("/s").handler(slow).expect("a route");
    let posted = sse.endpoint("/s").profile(Profile::Native).over_limit(OverLimit::Retry);
    let posted = posted.post_handler(slow).expect("a route");
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
        // A drain lets the handler of a `POST` finish.
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
async fn buffered_events_are_not_sent_to_a_disconnected_caller() {
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
