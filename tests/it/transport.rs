//! `sse.serve`, over real sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use futures_util::stream;
use hero_sse::{CloseReason, Event, SseOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::testing::{self, SlowReader};
use crate::support::{
    Log, Server, burst, eventually, flood, options, public, sse_with, token, watched,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_is_dropped_in_time_and_others_are_unaffected() {
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;

    let mut healthy = testing::connect(server.address, "/s").await.expect("a stream");
    let stalled = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    let reading = tokio::spawn(async move {
        let (start, mut count, mut longest) = (Instant::now(), 0u64, Duration::ZERO);
        while start.elapsed() < Duration::from_secs(4) {
            let before = Instant::now();
            let event = healthy.next().await.expect("in time").expect("an event");
            longest = longest.max(before.elapsed());
            let number: u64 =
                event.data.split(' ').next().expect("a number").parse().expect("digits");
            assert_eq!(number, count, "lost or doubled");
            count += 1;
        }
        (count, longest)
    });
    // At a kilobyte a millisecond the kernel's few kilobytes are full at once: the first write blocks within a tenth
    // of a second.
    let reset = stalled.reset_within(Duration::from_secs(4)).await.expect("a reset");
    assert!((0.9..=2.1).contains(&reset.as_secs_f64()), "{reset:?}");
    eventually("the stalled stream is dropped", || alive.count() == 1).await;
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 1);
    assert_eq!(sse.connections().len(), 1);
    let (count, longest) = reading.await.expect("an undisturbed reader");
    assert!(count > 1000, "{count}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let connections = sse.connections().clone();
    eventually("the healthy client has disconnected", || connections.is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_acknowledges_nothing_is_dropped_by_the_kernel() {
    let sse = sse_with(options("WriteTimeout = \"60s\"\nPeerTimeout = \"1s\""));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;
    let stalled = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    let connections = sse.connections().clone();
    eventually("connected", || connections.len() == 1).await;
    let start = Instant::now();
    while !connections.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "never dropped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(connections.closed(CloseReason::PeerTimeout), 1);
    assert_eq!(alive.count(), 0);
    drop(stalled);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_for_less_than_the_timeout_is_kept() {
    let sse = sse_with(options("WriteTimeout = \"2s\""));
    let server = Server::start(&sse, public(&sse, flood)).await;
    let mut slow = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    for _ in 0..3 {
        assert_eq!(slow.reset_within(Duration::from_millis(1200)).await, None);
        let mut read = 0;
        while read < 256 * 1024 {
            read += slow.read(64 * 1024).await.expect("a healthy socket").len();
        }
    }
    assert_eq!(sse.connections().len(), 1);
    drop(slow);
    server.stop().await;
}

#[tokio::test]
async fn other_routes_have_no_write_timeout() {
    let sse = sse_with(options("WriteTimeout = \"500ms\"\nPeerTimeout = \"500ms\""));
    let app = Router::new()
        .merge(public(&sse, || burst(1)))
        .route("/download", get(async || vec![b'x'; 64 << 20]));
    let server = Server::start(&sse, app).await;
    let mut slow = SlowReader::connect(server.address, "/download", &[]).await.expect("a socket");
    assert_eq!(slow.reset_within(Duration::from_millis(1500)).await, None);
    assert!(!slow.read(1024).await.expect("a healthy socket").is_empty());
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_sends_hero_close_to_all_streams_and_returns_at_once() {
    let sse = sse_with(options("Retry = \"2s\""));
    let (app, alive) = watched(&sse, || burst(1));
    let server = Server::start(&sse, app).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
        stream.next().await.expect("in time").expect("an event");
        streams.push(stream);
    }
    let idle = TcpStream::connect(server.address).await.expect("a silent connection");
    let (address, took) = (server.address, server.stop().await);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for mut stream in streams {
        let events = stream.read_to_end().await.expect("a clean end");
        let [close] = events.as_slice() else { panic!("{events:?}") };
        let data: Value = close.json().expect("JSON");
        assert_eq!(data["reason"], "draining");
        assert_eq!(data["reconnect"], true);
    }
    drop(idle);
    assert_eq!((sse.connections().len(), alive.count()), (0, 0));
    assert_eq!(sse.connections().closed(CloseReason::Draining), 10);
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_a_stalled_client_no_longer_than_the_drain_timeout() {
    let sse = sse_with(options("WriteTimeout = \"60s\"\nDrainTimeout = \"500ms\""));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;
    let stalled = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    assert_eq!(stalled.reset_within(Duration::from_millis(500)).await, None);
    let took = server.stop().await;
    assert!((0.5..1.5).contains(&took.as_secs_f64()), "{took:?}");
    assert!(stalled.reset_within(Duration::from_secs(1)).await.is_some(), "closed, not reset");
    assert_eq!((sse.connections().len(), alive.count()), (0, 0));
}

#[tokio::test]
async fn a_request_during_a_drain_is_answered_with_hero_close() {
    let sse = sse_with(options("Retry = \"2s\""));
    let hold = Arc::new(tokio::sync::Notify::new());
    let wait = hold.clone();
    let app = Router::new().merge(public(&sse, || burst(1))).route(
        "/wait",
        get(async move || {
            wait.notified().await;
            "done"
        }),
    );
    let server = Server::start(&sse, app.clone()).await;
    let mut waiting = TcpStream::connect(server.address).await.expect("a socket");
    waiting.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.address;
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut late = testing::open(&app, "/s").await.expect("a closing event in a 200");
    let events = late.read_to_end().await.expect("a clean end");
    assert!(events[0].data.contains("draining"), "{events:?}");
    assert!(!stopping.is_finished(), "it did not wait for an ordinary request");
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
    hold.notify_one();
    stopping.await.expect("no panic");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn head_and_first_events_arrive_in_one_piece() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(2))).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut first = vec![0; 4096];
    let read = socket.read(&mut first).await.expect("a read");
    let text = String::from_utf8_lossy(&first[..read]);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("retry: ") && text.contains("data: 1\n\ndata: 2\n\n"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn no_layer_and_no_log_contains_a_token() {
    use tower_http::trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer};
    use tracing::Level;

    let (log, _guard) = Log::everything();

    let sse = sse_with(SseOptions::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = seen.clone();
    let app = sse
        .endpoint("/s")
        .permission("usage.read")
        .handler(async move |request: http::Uri, headers: http::HeaderMap| {
            see.lock().expect("no panic").push(format!("{request} {headers:?}"));
            tracing::info!(uri = %request, ?headers, "the application logs too");
            burst(1)
        })
        .expect("a route")
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(DefaultMakeSpan::new().level(Level::TRACE).include_headers(true))
                .on_request(DefaultOnRequest::new().level(Level::TRACE))
                .on_response(DefaultOnResponse::new().level(Level::TRACE).include_headers(true)),
        );
    let server = Server::start(&sse, app).await;
    let token = token();
    let forged = format!("{}x", token);
    let address = server.address;
    let query = |token: &str| format!("/s?a=1&access%5Ftoken={token}&b=2");
    // Raw sockets, since a client's own log would contain the token.
    for (path, header) in [
        (query(&token), String::new()),
        (query(&forged), String::new()),
        ("/s".to_owned(), format!("authorization: Bearer {token}\r\n")),
        ("/s".to_owned(), format!("authorization: Bearer {forged}\r\ncookie: t={token}\r\n")),
        (format!("/nowhere?access_token={token}"), String::new()),
        (format!("/s?access_token={token}&access_token={forged}"), String::new()),
    ] {
        let mut socket = TcpStream::connect(address).await.expect("a socket");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 4096];
        let read = socket.read(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        assert!(!answer.contains(&token), "{answer}");
    }
    server.stop().await;
    let log = log.text();
    assert!(log.contains("/s?a=1&b=2"), "the layer saw the rest of the URI: {log}");
    assert!(log.contains("the application logs too") && log.contains("stream opened"), "{log}");
    let signature = token.rsplit('.').next().expect("a signature");
    for secret in [token.as_str(), signature] {
        assert!(!log.contains(secret), "a token in the log: {log}");
        let seen = seen.lock().expect("no panic");
        assert!(!seen.concat().contains(secret), "a token in the handler: {seen:?}");
    }
}

#[tokio::test]
async fn handlers_receive_the_peers_address() {
    let sse = sse_with(SseOptions::default());
    let app = sse
        .endpoint("/s")
        .public()
        .handler(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
            stream::iter([Event::text(peer.ip().to_string())])
        })
        .expect("a route");
    let server = Server::start(&sse, app).await;
    let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "127.0.0.1");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_carries_several_requests() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, || stream::iter([Event::text("x")]));
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    for _ in 0..3 {
        socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") {
            let mut piece = [0; 1024];
            let read = socket.read(&mut piece).await.expect("a read");
            assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
    }
    assert_eq!(sse.connections().closed(CloseReason::Ended), 3);
    server.stop().await;
}

#[tokio::test]
async fn dropping_the_server_ends_its_connections() {
    let sse = sse_with(SseOptions::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(sse.serve(listener, public(&sse, || burst(1))).into_future());
    let mut stream = testing::connect(address, "/s").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    serving.abort();
    let connections = sse.connections().clone();
    eventually("the stream is dropped", || connections.is_empty()).await;
}

#[tokio::test]
async fn a_listener_in_the_middle_of_a_handshake_is_not_cancelled() {
    /// Takes a while for each connection, as TLS does.
    struct Slow(tokio::net::TcpListener);
    impl axum::serve::Listener for Slow {
        type Io = TcpStream;
        type Addr = SocketAddr;

        async fn accept(&mut self) -> (TcpStream, SocketAddr) {
            let accepted = axum::serve::Listener::accept(&mut self.0).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            accepted
        }

        fn local_addr(&self) -> std::io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }
    let sse = sse_with(SseOptions::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = public(&sse, || burst(1));
    let serving = tokio::spawn(sse.serve(Slow(listener), app).into_future());
    let first = testing::connect(address, "/s").await.expect("a stream");
    let second = tokio::spawn(testing::connect(address, "/s").into_future());
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    second.await.expect("no panic").expect("the second client was lost in its handshake");
    serving.abort();
}

#[tokio::test]
async fn a_connection_that_sends_no_request_is_closed() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let mut silent = TcpStream::connect(server.address).await.expect("a socket");
    let start = Instant::now();
    let read = tokio::time::timeout(Duration::from_secs(15), silent.read(&mut [0; 64])).await;
    assert!(read.is_ok(), "still open after {:?}", start.elapsed());
    assert!((9.0..13.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn random_bytes_on_a_socket_affect_no_other_connection() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    for noise in [&b"\0\xff\r\n\r\n"[..], b"GET", b"GET /s HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n"] {
        let mut socket = TcpStream::connect(server.address).await.expect("a socket");
        socket.write_all(noise).await.expect("sent");
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let end =
            tokio::time::timeout(Duration::from_secs(2), socket.read_to_end(&mut answer)).await;
        let kind = end.expect("an end").err().map(|error| error.kind());
        assert!(matches!(kind, None | Some(ErrorKind::ConnectionReset)), "{kind:?}");
    }
    let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    server.stop().await;
}
