//! Clients that stop reading to outlast a revocation, and connections that must survive one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, Event, HeroSse, SseOptions};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::http2;
use crate::support::testing::{self, SlowReader};
use crate::support::{
    Alive, Server, burst, claims, eventually, flood, options, sign, sse_with, token, watched,
};

use super::revocation::of;

/// Opens a stream and does not read from it.
async fn stalled(address: SocketAddr, path: &str) -> SlowReader {
    let bearer = format!("Bearer {}", token());
    let headers = [("authorization", bearer.as_str())];
    SlowReader::connect(address, path, &headers).await.expect("a socket")
}

/// An endpoint `/s` that never stops sending; watched.
fn flooding(sse: &HeroSse) -> (Router, Alive) {
    let alive = Alive::default();
    let watch = alive.clone();
    let make = move || watch.watch(flood());
    (sse.endpoint("/s").handler(async move || make()).expect("a route"), alive)
}

/// Checks that the client is reset within about a second, its stream dropped and its slot freed. Returns the time.
async fn assert_reset(
    sse: &HeroSse,
    alive: &Alive,
    client: &SlowReader,
    start: Instant,
) -> Duration {
    client.reset_within(Duration::from_secs(4)).await.expect("a reset");
    let took = start.elapsed();
    assert!((0.4..1.5).contains(&took.as_secs_f64()), "{took:?}");
    eventually("its stream is dropped", || alive.count() == 0).await;
    eventually("its slot is free", || sse.connections().is_empty()).await;
    // It is counted a moment later.
    eventually("it is counted", || sse.connections().closed(CloseReason::Revoked) == 1).await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_cannot_outlast_a_revocation() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = flooding(&sse);
    let server = Server::start(&sse, app).await;
    let client = stalled(server.address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(700)).await, None);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    let took = assert_reset(&sse, &alive, &client, start).await;
    println!("HTTP/1.1, stalled: reset after {took:?}");
    server.stop().await;
}

/// hyper buffers `hero.close` while the socket is blocked, so the writer has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_event_behind_unread_data_does_not_keep_the_connection_open() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let alive = Alive::default();
    let watch = alive.clone();
    let large = || stream::iter([Event::text("x".repeat(50_000))]).chain(stream::pending());
    let make = move || watch.watch(large());
    let app = sse.endpoint("/s").handler(async move || make()).expect("a route");
    let server = Server::start(&sse, app).await;
    let client = stalled(server.address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(700)).await, None);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    // Long before the connection is reset.
    eventually("its stream is dropped", || alive.count() == 0).await;
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    assert_reset(&sse, &alive, &client, start).await;
    server.stop().await;
}

/// As above, with a client that has read before, so that the socket was idle for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_and_then_stops_cannot_outlast_a_revocation() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let alive = Alive::default();
    let watch = alive.clone();
    let large = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Event::text("x".repeat(50_000))
    };
    let make = move || {
        let later = stream::once(large()).chain(stream::pending());
        watch.watch(stream::iter([Event::text("1")]).chain(later))
    };
    let app = sse.endpoint("/s").handler(async move || make()).expect("a route");
    let server = Server::start(&sse, app).await;
    let client = stalled(server.address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(900)).await, None);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    assert_reset(&sse, &alive, &client, start).await;
    server.stop().await;
}

/// Checks that a stalled client is reset by a `disconnect` from outside the server's runtime.
fn assert_reset_by(disconnect: impl FnOnce(&HeroSse) -> usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = flooding(&sse);
    let (client, server) = runtime.block_on(async {
        let server = Server::start(&sse, app).await;
        let client = stalled(server.address, "/s").await;
        assert_eq!(client.reset_within(Duration::from_millis(500)).await, None);
        (client, server)
    });
    let start = Instant::now();
    assert_eq!(disconnect(&sse), 1);
    runtime.block_on(async {
        assert_reset(&sse, &alive, &client, start).await;
        server.stop().await;
    });
}

/// From a thread without a runtime.
#[test]
fn a_disconnect_from_a_thread_without_a_runtime_resets_a_stalled_client() {
    assert_reset_by(|sse| sse.connections().disconnect(&of("ann"), CloseReason::Revoked));
}

/// From a runtime that ends a moment later, such as that of a command-line tool.
#[test]
fn a_disconnect_from_a_runtime_that_ends_resets_a_stalled_client() {
    assert_reset_by(|sse| {
        let other = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        other.block_on(async { sse.connections().disconnect(&of("ann"), CloseReason::Revoked) })
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_axum_serve_a_guarded_client_that_does_not_read_is_reset() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = flooding(&sse);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, app) = sse.guard(listener, app);
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    let client = stalled(address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(700)).await, None);
    let start = Instant::now();
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    assert_reset(&sse, &alive, &client, start).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_http2_stream_is_revoked_alone() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = watched(&sse, flood);
    let calm = sse.endpoint("/n").public().handler(async || http2::numbers()).expect("a route");
    let server = Server::start(&sse, app.merge(calm)).await;
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let mut client = http2::Client::over(socket).await;
    let mut sibling = client.get("/n").await.into_body();
    let mut body = client.get("/s").await.into_body();
    let reading = tokio::spawn(async move {
        // Reads, but never opens the window again.
        loop {
            match http2::within(body.data()).await {
                Some(Ok(_)) => {}
                end => return (Instant::now(), end.and_then(Result::err)),
            }
        }
    });
    assert!(http2::in_order(&mut sibling, Duration::from_secs(1)).await > 10);
    let start = Instant::now();
    let filter = ConnectionFilter::all().endpoint("/s");
    assert_eq!(sse.connections().disconnect(&filter, CloseReason::Revoked), 1);
    let (at, error) = reading.await.expect("no panic");
    let took = at - start;
    println!("HTTP/2, stalled: reset after {took:?}");
    assert_eq!(error.and_then(|error| error.reason()), Some(h2::Reason::CANCEL));
    assert!((0.4..1.5).contains(&took.as_secs_f64()), "{took:?}");
    eventually("its stream is dropped", || alive.count() == 0).await;
    assert_eq!(sse.connections().closed(CloseReason::Revoked), 1);
    assert_eq!(sse.connections().len(), 1);
    drop((client, sibling));
    server.stop().await;
}

/// A client that has read `hero.close` may send another request on the same connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_the_closing_event_keeps_its_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    let request = "GET /s HTTP/1.1\r\nhost: x\r\n\r\n";
    let until = async |socket: &mut TcpStream, end: &str| {
        let mut text = String::new();
        while !text.contains(end) {
            let mut bytes = [0; 4096];
            let read = socket.read(&mut bytes);
            let read = tokio::time::timeout(Duration::from_secs(5), read).await;
            let read = read.expect("in time").expect("no reset");
            assert!(read > 0, "closed after {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    socket.write_all(request.as_bytes()).await.expect("a request");
    until(&mut socket, "data: 1").await;
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::MaxAge);
    until(&mut socket, "\r\n0\r\n\r\n").await;
    socket.write_all(request.as_bytes()).await.expect("a request");
    until(&mut socket, "data: 1").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(sse.connections().len(), 1);
    sse.connections().drain(&ConnectionFilter::all());
    until(&mut socket, "draining").await;
    drop(socket);
    server.stop().await;
}

/// After a stream has ended, its connection may be busy with another request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_download_after_a_revoked_stream_is_not_reset() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const SIZE: usize = 40 << 20;
    let sse = sse_with(SseOptions::default());
    let endpoint: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    let app = endpoint.route("/file", get(async || vec![b'x'; SIZE]));
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    let mut text = String::new();
    socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    let mut bytes = vec![0; 64 << 10];
    while !text.contains("data: 1") {
        let read = socket.read(&mut bytes).await.expect("bytes");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::Revoked);
    while !text.contains("\r\n0\r\n\r\n") {
        let read = socket.read(&mut bytes).await.expect("bytes");
        assert!(read > 0);
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    socket
        .write_all(b"GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("a request");
    // Does not read while the timeout of the closing event passes.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut total = 0;
    loop {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut bytes)).await;
        match read.expect("in time").expect("no reset") {
            0 => break,
            read => total += read,
        }
    }
    assert!(total > SIZE, "{total}");
    server.stop().await;
}

/// An event every 50 ms.
pub(super) fn calm() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Event::text(n.to_string()), n + 1))
    })
}

/// Prints the figures and returns median and maximum.
fn figures(what: &str, times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let (min, median, max) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: {} clients, {min:?} / {median:?} / {max:?} (min/median/max)", times.len());
    (median, max)
}

/// 200 streams of five tenants. Every fifth client does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_all_streams_of_a_tenant_within_a_second_and_no_other() {
    const TENANTS: [&str; 5] = ["t0", "t1", "t2", "t3", "t4"];
    let sse = sse_with(options(
        "WriteTimeout = \"60s\"\nMaxPerPrincipal = 1000\nConnectsPerMinute = \"off\"",
    ));
    let alive = Alive::default();
    let (one, other) = (alive.clone(), alive.clone());
    let healthy = sse.endpoint("/calm").handler(async move || one.watch(calm().boxed()));
    let flooding = sse.endpoint("/flood").handler(async move || other.watch(flood().boxed()));
    let app: Router = healthy.expect("a route").merge(flooding.expect("a route"));
    let server = Server::start(&sse, app).await;
    let mut clients = HashMap::<_, (Vec<_>, Vec<_>)>::new();
    for n in 0..200 {
        let tenant = TENANTS[n % 5];
        let token = sign(&claims(|c| c["tenant"] = json!(tenant)));
        let (calm, stalled) = clients.entry(tenant).or_default();
        if n / 5 % 5 == 0 {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            let client = SlowReader::connect(server.address, "/flood", &headers).await;
            stalled.push(client.expect("a socket"));
        } else {
            let stream = testing::connect(server.address, "/calm").bearer(&token);
            let mut stream = stream.await.expect("a stream");
            calm.push(tokio::spawn(async move {
                loop {
                    let event =
                        stream.next().await.expect("in time").expect("a closing event first");
                    if event.event == "hero.close" {
                        let data: Value = event.json().expect("JSON");
                        return (Instant::now(), data["reason"] == "revoked");
                    }
                }
            }));
        }
    }
    eventually("all are open", || alive.count() == 200).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut closed, mut reset) = (Vec::new(), Vec::new());
    let mut left = 200;
    for tenant in TENANTS {
        let (calm, stalled) = clients.remove(tenant).expect("clients");
        assert!(calm.iter().all(|client| !client.is_finished()), "{tenant} was disturbed");
        let start = Instant::now();
        let filter = ConnectionFilter::all().tenant(tenant);
        assert_eq!(sse.connections().disconnect(&filter, CloseReason::Revoked), 40);
        let stalled: Vec<_> = stalled
            .into_iter()
            .map(|client| {
                tokio::spawn(async move {
                    client.reset_within(Duration::from_secs(4)).await.expect("a reset");
                    Instant::now()
                })
            })
            .collect();
        for client in calm {
            let (at, revoked) = client.await.expect("no panic");
            assert!(revoked);
            closed.push(at - start);
        }
        for client in stalled {
            reset.push(client.await.expect("no panic") - start);
        }
        left -= 40;
        eventually("their streams are dropped", || alive.count() == left).await;
        eventually("their slots are free", || sse.connections().len() == left).await;
    }
    assert_eq!(sse.connections().closed(CloseReason::Revoked), 200);
    let (_, max) = figures("closed", &mut closed);
    assert!(max < Duration::from_secs(1), "{max:?}");
    let (median, max) = figures("reset", &mut reset);
    assert!(median < Duration::from_secs(1) && max < Duration::from_secs(2), "{median:?} {max:?}");
    server.stop().await;
}
