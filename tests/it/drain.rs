//! Draining: at a shutdown, and on demand.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, HeroSse, SseOptions};
use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::testing::{self, EventReader, SlowReader};
use crate::support::{
    Alive, Server, burst, eventually, flood, options, public, sse_with, token, watched,
};

async fn opened(address: SocketAddr, path: &str) -> EventReader {
    let mut stream = testing::connect(address, path).await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    stream
}

/// Returns the reason and the reconnection time (milliseconds) of the closing event.
async fn read_close(stream: &mut EventReader) -> (String, u64) {
    let events = stream.read_to_end().await.expect("a clean end");
    let [close] = events.as_slice() else { panic!("{events:?}") };
    let data: Value = close.json().expect("JSON");
    let millis = data["retry_ms"].as_u64().expect("a number");
    assert_eq!((close.event.as_str(), data["reconnect"].as_bool()), ("hero.close", Some(true)));
    assert_eq!(stream.retry(), Some(Duration::from_millis(millis)));
    (data["reason"].as_str().expect("a text").to_owned(), millis)
}

/// Returns status and body of an ordinary request; `None` without an answer.
async fn ask(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.contains("cache-control: no-store"), "{head}");
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn app(sse: &HeroSse, paths: &[&str]) -> Router {
    paths.iter().fold(Router::new(), |app, path| {
        app.merge(sse.endpoint(*path).public().handler(async || burst(1)).expect("a route"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_shutdown_reconnect_spread_over_the_jitter() {
    const STREAMS: usize = 200;
    let sse = sse_with(options("Retry = \"2s\"\nDrainJitter = \"8s\""));
    let server = Server::start(&sse, app(&sse, &["/s"])).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(opened(server.address, "/s").await);
    }
    let took = server.stop().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    let mut times = Vec::new();
    for stream in &mut streams {
        let (reason, millis) = read_close(stream).await;
        assert_eq!(reason, "draining");
        times.push(millis);
    }
    times.sort_unstable();
    let (least, most) = (times[0], times[STREAMS - 1]);
    assert!(least >= 2_000 && most <= 10_000, "{least} to {most}");
    // Twenty-five are expected in each eighth of the window, with a standard deviation below five.
    let eighths: Vec<_> = (0..8)
        .map(|n| 2_000 + n * 1_000)
        .map(|from| times.iter().filter(|time| (from..from + 1_000).contains(*time)).count())
        .collect();
    let mean = times.iter().sum::<u64>() / STREAMS as u64;
    println!("{STREAMS} streams: {least} to {most} ms, mean {mean} ms, by second {eighths:?}");
    assert!(eighths.iter().all(|count| (3..=55).contains(count)), "{eighths:?}");
    assert!((5_200..=6_800).contains(&mean), "{mean}");
    assert_eq!(sse.connections().closed(CloseReason::Draining), STREAMS as u64);
}

/// First it is not ready, then nothing changes for a while, then the listener is closed, then the streams end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_first_stops_being_ready_and_then_waits_for_the_delay() {
    const DELAY: Duration = Duration::from_secs(2);
    let sse = sse_with(options("DrainDelay = \"2s\"\nRetry = \"2s\""));
    let readiness = sse.readiness();
    let app = app(&sse, &["/s"]).route("/readyz", get(sse.readiness()));
    assert!(!readiness.is_ready(), "no server runs yet");
    let server = Server::start(&sse, app).await;
    let address = server.address;
    assert_eq!(ask(address, "/readyz").await, Some((200, "ready".to_owned())));
    assert!(readiness.is_ready());
    let mut before = opened(address, "/s").await;
    let start = Instant::now();
    let stopping = tokio::spawn(server.stop());
    eventually("the flip", || !readiness.is_ready()).await;
    assert_eq!(ask(address, "/readyz").await, Some((503, "draining".to_owned())));
    let mut meanwhile = opened(address, "/s").await;
    assert_eq!(sse.connections().len(), 2);
    assert_eq!(sse.connections().closed(CloseReason::Draining), 0);
    assert!(start.elapsed() < DELAY, "too slow a machine to tell");
    for stream in [&mut before, &mut meanwhile] {
        assert_eq!(read_close(stream).await.0, "draining");
        assert!(start.elapsed() >= DELAY, "{:?}", start.elapsed());
        let refused = TcpStream::connect(address).await;
        assert!(refused.is_err(), "it still listened when the streams ended");
    }
    let took = stopping.await.expect("no panic");
    assert!(took >= DELAY && took < DELAY + Duration::from_secs(3), "{took:?}");
    assert!(!readiness.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delay_and_timeout_together_bound_a_shutdown() {
    let sse = sse_with(options(
        "WriteTimeout = \"60s\"\nDrainDelay = \"500ms\"\nDrainTimeout = \"500ms\"",
    ));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;
    let stalled = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    assert_eq!(stalled.reset_within(Duration::from_millis(300)).await, None);
    let took = server.stop().await;
    assert!((1.0..4.0).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!((sse.connections().len(), alive.count()), (0, 0));
}

#[tokio::test]
async fn readiness_distinguishes_starting_ready_and_draining() {
    let answer = async |sse: &HeroSse| {
        use http_body_util::BodyExt as _;
        use tower::ServiceExt as _;
        let app: Router = Router::new().route("/readyz", get(sse.readiness()));
        let request = http::Request::get("/readyz").body(axum::body::Body::empty());
        let answer = app.oneshot(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let sse = sse_with(SseOptions::default());
    let unavailable = |text: &str| (StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
    assert_eq!(answer(&sse).await, unavailable("starting"));
    let server = Server::start(&sse, app(&sse, &["/s"])).await;
    let readiness = sse.readiness();
    eventually("ready", || readiness.is_ready()).await;
    assert_eq!(answer(&sse).await, (StatusCode::OK, "ready".to_owned()));
    server.stop().await;
    assert_eq!(answer(&sse).await, unavailable("draining"));
    assert_eq!(format!("{readiness:?}"), "Readiness(\"draining\")");

    let sse = sse_with(SseOptions::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = tokio::spawn(sse.serve(listener, Router::new()).into_future());
    let readiness = sse.readiness();
    eventually("ready", || readiness.is_ready()).await;
    serving.abort();
    eventually("a server that is dropped is not ready", || !readiness.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_one_endpoint_leaves_the_others() {
    let sse = sse_with(options("Retry = \"2s\"\nDrainJitter = \"3s\""));
    let alive = Alive::default();
    let watch = alive.clone();
    let watched = sse.at("/api").endpoint("/x").public();
    let watched = watched.handler(async move || watch.watch(burst(1))).expect("a route");
    let server = Server::start(&sse, app(&sse, &["/y"]).merge(watched)).await;
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        leaving.push(opened(server.address, "/api/x").await);
        staying.push(opened(server.address, "/y").await.timeout(Duration::from_millis(300)));
    }
    let connections = sse.connections();
    assert_eq!(connections.drain(&ConnectionFilter::all().endpoint("/api/x")), 20);
    for stream in &mut leaving {
        let (reason, millis) = read_close(stream).await;
        assert_eq!(reason, "draining");
        assert!((2_000..=5_000).contains(&millis), "{millis}");
    }
    eventually("only the others are left", || connections.len() == 20).await;
    assert_eq!(alive.count(), 0, "the application's streams are dropped");
    assert!(connections.snapshot().iter().all(|one| one.path == "/y"));
    assert!(staying[0].next().await.is_err(), "it went, too");
    let mut back = opened(server.address, "/api/x").await;
    assert!(sse.readiness().is_ready(), "the server goes on");
    assert_eq!(connections.closed(CloseReason::Draining), 20);
    assert_eq!(connections.drain(&ConnectionFilter::all().endpoint("/nowhere")), 0);
    server.stop().await;
    assert_eq!(read_close(&mut back).await.0, "draining");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_one_subject_leaves_the_others() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let bob = crate::support::sign(&crate::support::claims(|claims| claims["sub"] = "bob".into()));
    let server = Server::start(&sse, app).await;
    let open = async |token: &str| {
        let open = testing::connect(server.address, "/s").bearer(token);
        let mut stream = open.await.expect("a stream");
        stream.next().await.expect("in time").expect("an event");
        stream
    };
    let (mut ann, _bob) = (open(&token()).await, open(&bob).await);
    assert_eq!(sse.connections().drain(&ConnectionFilter::all().subject("ann")), 1);
    assert_eq!(read_close(&mut ann).await.0, "draining");
    let connections = sse.connections().clone();
    eventually("bob is left", || connections.len() == 1).await;
    assert_eq!(connections.snapshot()[0].subject.as_deref(), Some("bob"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_over_a_window_takes_the_whole_window() {
    let sse = sse_with(options("Retry = \"2s\""));
    let server = Server::start(&sse, app(&sse, &["/s"])).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(opened(server.address, "/s").await);
    }
    let window = Duration::from_secs(1);
    let start = Instant::now();
    let drain = tokio::spawn(sse.connections().drain_over(&ConnectionFilter::all(), window));
    let mut ends = Vec::new();
    for stream in &mut streams {
        assert_eq!(read_close(stream).await.0, "draining");
        ends.push(start.elapsed());
    }
    assert_eq!(drain.await.expect("no panic"), 20);
    // The oldest first, and none too early.
    for (place, end) in ends.iter().enumerate() {
        assert!(*end >= window.mul_f64(place as f64 / 19.0), "{place}: {ends:?}");
    }
    assert!(ends[19] < window + Duration::from_secs(2), "{ends:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_closed_endpoint_asks_clients_to_reconnect_later_and_others_stay_open() {
    let sse = sse_with(options(
        "Retry = \"2s\"\nDrainJitter = \"30s\"\n[SseOptions.Endpoints.\"/z\"]\nOverLimit = \"refuse\"",
    ));
    let app = app(&sse, &["/x", "/y", "/z"]);
    let mut held = testing::open(&app, "/x").await.expect("a stream");
    held.next().await.expect("in time").expect("an event");
    let connections = sse.connections();
    assert!(connections.close_endpoint("/x") && connections.close_endpoint("/z"));
    let mut times = Vec::new();
    for _ in 0..50 {
        let mut late = testing::open(&app, "/x").await.expect("a closing event in a 200");
        let (reason, millis) = read_close(&mut late).await;
        assert_eq!(reason, "draining");
        assert!((2_000..=32_000).contains(&millis), "{millis}");
        times.push(millis);
    }
    assert!(times.iter().max() > times.iter().min().map(|least| least + 10_000).as_ref());
    let error = testing::open(&app, "/z").await.expect_err("503");
    assert_eq!(error.status, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(error.to_string().contains("this endpoint is closed for now"), "{error}");
    let after: u64 = error.headers["retry-after"].to_str().expect("ASCII").parse().expect("s");
    assert!((2..=32).contains(&after), "{after}");
    let _other = testing::open(&app, "/y").await.expect("a stream");
    assert_eq!(connections.len(), 2, "the open stream goes on");
    assert_eq!(connections.closed(CloseReason::Draining), 51);
    assert!(connections.open_endpoint("/x"));
    let mut back = testing::open(&app, "/x").await.expect("a stream");
    assert_eq!(back.next().await.expect("in time").expect("an event").data, "1");
}

#[tokio::test]
async fn clients_rejected_during_a_drain_are_spread_as_well() {
    let sse = sse_with(options("Retry = \"2s\"\nDrainJitter = \"30s\""));
    let app = public(&sse, || burst(1));
    Server::start(&sse, app.clone()).await.stop().await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let mut late = testing::open(&app, "/s").await.expect("a closing event in a 200");
        let (reason, millis) = read_close(&mut late).await;
        assert_eq!(reason, "draining");
        times.push(millis);
    }
    let (least, most) = (times.iter().min().expect("some"), times.iter().max().expect("some"));
    assert!(*least >= 2_000 && *most <= 32_000 && most - least > 10_000, "{times:?}");
}

#[tokio::test]
async fn counts_returns_every_reason_with_its_count() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, || burst(1));
    let _held = testing::open(&app, "/s").await.expect("a stream");
    drop(testing::open(&app, "/s").await.expect("a stream"));
    let counts: Vec<_> = sse.connections().counts().collect();
    assert_eq!(counts.len(), CloseReason::ALL.len());
    for (reason, count) in counts {
        assert_eq!(count, u64::from(reason == CloseReason::ClientGone), "{reason}");
        assert_eq!(count, sse.connections().closed(reason));
    }
}
