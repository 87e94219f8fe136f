//! `sse.serve` over HTTP/2, with a client that controls its receive windows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, Event, SseOptions};
use http::{Request, Response};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::testing;
use crate::support::{
    Log, Server, burst, echo, eventually, flood, options, public, sse_with, token, watched,
};

/// The receive window of each stream.
const WINDOW: u32 = 16 * 1024;

/// An HTTP/2 connection with prior knowledge.
pub(crate) struct Client {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a socket")).await
    }

    pub(crate) async fn over<I>(socket: I) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(1 << 24)
            .handshake(socket)
            .await
            .expect("a handshake");
        Self { requests, driver: tokio::spawn(connection) }
    }

    pub(crate) async fn send(&mut self, request: Request<()>) -> Response<RecvStream> {
        let mut requests = self.requests.clone().ready().await.expect("a free place");
        let (answer, _) = requests.send_request(request, true).expect("sent");
        within(answer).await.expect("an answer")
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response<RecvStream> {
        let uri = format!("http://localhost{path}");
        self.send(Request::get(uri).body(()).expect("a request")).await
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within ten seconds")
}

/// Returns the next bytes, and opens the window for as many.
pub(crate) async fn piece(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = within(body.data()).await?;
    Some(piece.inspect(|bytes| {
        let _ = body.flow_control().release_capacity(bytes.len());
    }))
}

/// Reads until `end` arrives.
pub(crate) async fn until(body: &mut RecvStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let bytes = piece(body).await.expect("no end").expect("no reset");
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

/// Reads without opening the window, until the server ends the stream. Returns how long that took, and the error.
pub(crate) async fn stalled(mut body: RecvStream) -> (Duration, Option<Reason>) {
    let start = Instant::now();
    loop {
        match within(body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return (start.elapsed(), error.reason()),
            None => return (start.elapsed(), None),
        }
    }
}

#[tokio::test]
async fn an_endpoint_works() {
    let sse = sse_with(options("HeartbeatInterval = \"300ms\""));
    let server = Server::start(&sse, public(&sse, || burst(2))).await;
    let mut client = Client::connect(server.address).await;
    let answer = client.get("/s").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    for name in ["connection", "transfer-encoding", "content-length", "keep-alive"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let mut body = answer.into_body();
    let text = until(&mut body, "data: 2\n\n").await;
    assert!(text.starts_with("retry: ") && text.contains("data: 1\n\n"), "{text}");
    let start = Instant::now();
    assert_eq!(until(&mut body, "\n").await, ":\n");
    assert!(start.elapsed() < Duration::from_secs(2));
    // HTTP/1.1 works beside it.
    let mut other = testing::connect(server.address, "/s").await.expect("a stream");
    assert_eq!(other.next().await.expect("in time").expect("an event").data, "1");
    assert_eq!(sse.connections().len(), 2);
    drop((client, body, other));
    server.stop().await;
}

/// Numbered lines of a hundred bytes, one every few milliseconds.
pub(crate) fn numbers() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        tokio::time::sleep(Duration::from_millis(3)).await;
        Some((Event::text(format!("{n} {}", "x".repeat(100))), n + 1))
    })
}

/// Reads numbers for that long, and checks that none is missing or duplicate. Returns how many.
pub(crate) async fn in_order(body: &mut RecvStream, time: Duration) -> u64 {
    let (start, mut text, mut next) = (Instant::now(), String::new(), 0u64);
    while start.elapsed() < time {
        text.push_str(&until(body, "\n\n").await);
        while let Some((frame, rest)) = text.split_once("\n\n") {
            if let Some((_, data)) = frame.split_once("data: ") {
                let number = data.split(' ').next().and_then(|n| n.parse::<u64>().ok());
                assert_eq!(number, Some(next), "lost or doubled");
                next += 1;
            }
            text = rest.to_owned();
        }
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_stream_is_reset_alone_and_in_time() {
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let (stalling, alive) = watched(&sse, flood);
    let healthy = sse.endpoint("/n").public().handler(async || numbers()).expect("a route");
    let server = Server::start(&sse, stalling.merge(healthy)).await;
    let mut client = Client::connect(server.address).await;
    let mut sibling = client.get("/n").await.into_body();
    let body = client.get("/s").await.into_body();
    let stall = tokio::spawn(stalled(body));

    let next = in_order(&mut sibling, Duration::from_secs(3)).await;
    assert!(next > 200, "{next}");
    let (reset, reason) = stall.await.expect("no panic");
    println!("reset after {reset:?}");
    assert_eq!(reason, Some(Reason::CANCEL));
    assert!((1.0..=2.0).contains(&reset.as_secs_f64()), "{reset:?}");
    assert_eq!(alive.count(), 0);
    assert_eq!(sse.connections().len(), 1);
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 1);
    // The connection takes new streams as well.
    assert_eq!(client.get("/n").await.status(), 200);
    drop((client, sibling));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stream_is_held_to_its_own_write_timeout() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let route = |path: &str, millis| {
        let endpoint = sse.endpoint(path).public().write_timeout(Duration::from_millis(millis));
        endpoint.handler(async || flood()).expect("a route")
    };
    let app = Router::new().merge(route("/a", 500)).merge(route("/b", 1500));
    let server = Server::start(&sse, app.merge(public(&sse, flood))).await;
    let mut client = Client::connect(server.address).await;
    let patient = client.get("/s").await.into_body();
    let a = tokio::spawn(stalled(client.get("/a").await.into_body()));
    let b = tokio::spawn(stalled(client.get("/b").await.into_body()));
    let (a, b) = (a.await.expect("no panic").0, b.await.expect("no panic").0);
    assert!((0.5..1.2).contains(&a.as_secs_f64()), "{a:?}");
    assert!((1.5..2.2).contains(&b.as_secs_f64()), "{b:?}");
    assert_eq!(sse.connections().len(), 1, "the patient one was reset as well");
    drop((client, patient));
    server.stop().await;
}

#[tokio::test]
async fn idle_streams_and_other_responses_are_not_reset() {
    let sse = sse_with(options("WriteTimeout = \"300ms\"\nHeartbeatInterval = \"off\""));
    let app = public(&sse, || burst(1)).route("/download", get(async || vec![b'x'; 1 << 20]));
    let server = Server::start(&sse, app).await;
    let mut client = Client::connect(server.address).await;
    let mut idle = client.get("/s").await.into_body();
    until(&mut idle, "data: 1\n\n").await;
    let mut download = client.get("/download").await.into_body();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(sse.connections().len(), 1);
    let mut read = 0;
    while let Some(bytes) = piece(&mut download).await {
        read += bytes.expect("no reset").len();
    }
    assert_eq!(read, 1 << 20);
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 0);
    drop((client, idle));
    server.stop().await;
}

/// At two hundred bytes a millisecond the event takes four timeouts, with progress in each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_event_may_take_longer_than_the_timeout() {
    let sse = sse_with(options("WriteTimeout = \"500ms\""));
    let long = || stream::iter([Event::text("x".repeat(400_000)), Event::text("done")]);
    let app = public(&sse, move || long().chain(stream::pending()));
    let server = Server::start(&sse, app).await;
    let mut client = Client::connect(server.address).await;
    let mut body = client.get("/s").await.into_body();
    let (start, mut end) = (Instant::now(), Vec::new());
    while !end.ends_with(b"data: done\n\n") {
        let bytes = piece(&mut body).await.expect("no end").expect("no reset");
        end.extend_from_slice(&bytes);
        tokio::time::sleep(Duration::from_micros(5 * bytes.len() as u64)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}: too quick to tell", start.elapsed());
    assert_eq!(sse.connections().len(), 1);
    drop((client, body));
    server.stop().await;
}

/// Not a stream's window is closed but the socket, so the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_its_socket_is_dropped_with_all_its_streams() {
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    // Preface; settings with the largest stream window; as much for the connection; two requests of
    // `GET http /s`, all of HPACK's static table but the path and the authority.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff");
    bytes.extend(b"\0\0\x04\x08\0\0\0\0\0\x7f\xfe\0\0");
    for stream in [1, 3] {
        bytes.extend([0, 0, 9, 1, 5, 0, 0, 0, stream]);
        bytes.extend(b"\x82\x86\x04\x02/s\x01\x01x");
    }
    socket.write_all(&bytes).await.expect("sent");
    eventually("two streams", || alive.count() == 2).await;
    let start = Instant::now();
    while alive.count() > 0 {
        assert!(start.elapsed() < Duration::from_secs(8), "never dropped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 2);
    let mut answer = Vec::new();
    let end = within(socket.read_to_end(&mut answer)).await.expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    server.stop().await;
}

#[tokio::test]
async fn upgrades_of_other_routes_still_work() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, || burst(1)).route("/echo", get(echo));
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    let request = b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    socket.write_all(request).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(socket.read_u8()).await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket.write_all(b"hello").await.expect("sent");
    let mut echo = [0; 5];
    within(socket.read_exact(&mut echo)).await.expect("an echo");
    assert_eq!(&echo, b"hello");
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_resets_its_stream_or_disconnects_is_noticed_at_once() {
    let sse = sse_with(SseOptions::default());
    let (app, alive) = watched(&sse, || burst(1));
    let server = Server::start(&sse, app).await;
    let mut client = Client::connect(server.address).await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let mut body = client.get("/s").await.into_body();
        until(&mut body, "data: 1\n\n").await;
        bodies.push(body);
    }
    let closed = || sse.connections().closed(CloseReason::ClientGone);
    let gone = async |left: usize, count: u64| {
        let start = Instant::now();
        eventually("the stream is dropped", || alive.count() == left).await;
        eventually("it is counted", || closed() == count).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(sse.connections().len(), left);
    };
    // Dropping a body resets its stream.
    bodies.pop();
    gone(2, 1).await;
    client.driver.abort();
    gone(0, 3).await;
    drop((client, bodies));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_sends_hero_close_on_every_stream() {
    let sse = sse_with(options("Retry = \"2s\""));
    let (app, alive) = watched(&sse, || burst(1));
    let server = Server::start(&sse, app).await;
    let mut client = Client::connect(server.address).await;
    let mut bodies = Vec::new();
    for _ in 0..5 {
        let mut body = client.get("/s").await.into_body();
        until(&mut body, "data: 1\n\n").await;
        bodies.push(body);
    }
    let readers = bodies.into_iter().map(|mut body| {
        tokio::spawn(async move {
            let mut text = String::new();
            while let Some(bytes) = piece(&mut body).await {
                text.push_str(&String::from_utf8_lossy(&bytes.expect("a clean end")));
            }
            text
        })
    });
    let readers: Vec<_> = readers.collect();
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    for reader in readers {
        let text = reader.await.expect("no panic");
        let (_, close) = text.split_once("event: hero.close\n").expect("a closing event");
        let (_, close) = close.split_once("data: ").expect("its data");
        let data: Value = serde_json::from_str(close.trim()).expect("JSON");
        assert_eq!((&data["reason"], &data["reconnect"]), (&"draining".into(), &true.into()));
    }
    assert_eq!((sse.connections().len(), alive.count()), (0, 0));
    assert_eq!(sse.connections().closed(CloseReason::Draining), 5);
    // A `GOAWAY` without error, not a broken connection.
    within(client.driver).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn draining_one_endpoint_leaves_the_other_streams_of_the_connection() {
    let sse = sse_with(options("Retry = \"2s\""));
    let stays = sse.endpoint("/n").public().handler(async || numbers()).expect("a route");
    let server = Server::start(&sse, public(&sse, || burst(1)).merge(stays)).await;
    let mut client = Client::connect(server.address).await;
    let mut leaving = client.get("/s").await.into_body();
    let mut staying = client.get("/n").await.into_body();
    until(&mut leaving, "data: 1\n\n").await;
    assert_eq!(sse.connections().drain(&ConnectionFilter::all().endpoint("/s")), 1);
    assert!(until(&mut leaving, "\n\n").await.contains("\"reason\":\"draining\""));
    while let Some(rest) = piece(&mut leaving).await {
        assert!(rest.expect("a clean end").is_empty());
    }
    let numbers = until(&mut staying, "data: 50 ").await;
    assert!(!numbers.contains("hero.close"), "{numbers}");
    assert_eq!(sse.connections().len(), 1);
    drop((client, staying));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_a_stalled_stream_no_longer_than_the_drain_timeout() {
    let sse = sse_with(options("WriteTimeout = \"60s\"\nDrainTimeout = \"500ms\""));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;
    let mut client = Client::connect(server.address).await;
    let body = client.get("/s").await.into_body();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = server.stop().await;
    assert!((0.5..1.5).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!((sse.connections().len(), alive.count()), (0, 0));
    drop(body);
}

#[tokio::test]
async fn dropping_the_server_ends_its_streams() {
    let sse = sse_with(SseOptions::default());
    let (app, alive) = watched(&sse, || burst(1));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(sse.serve(listener, app).into_future());
    let mut client = Client::connect(address).await;
    let mut body = client.get("/s").await.into_body();
    until(&mut body, "data: 1\n\n").await;
    serving.abort();
    eventually("the stream is gone", || alive.count() == 0).await;
}

/// Nothing; a preface that never ends; a head that never ends; a preface, then nothing.
#[tokio::test]
async fn a_connection_without_a_request_is_closed_within_the_head_timeout() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let whole = format!("{preface}\0\0\0\x04\0\0\0\0\0");
    let cases = [
        ("silent", "", ""),
        ("preface", "", preface),
        ("head", "", "POST /s HTTP/1.1\r\nhost: x\r\nx-a: b\r\n"),
        ("no request", whole.as_str(), ""),
    ];
    let closed = cases.map(|(name, first, slowly)| {
        let (first, slowly) = (first.to_owned(), slowly.to_owned());
        let address = server.address;
        async move {
            let socket = TcpStream::connect(address).await.expect("a socket");
            let (mut reading, mut writing) = socket.into_split();
            let start = Instant::now();
            writing.write_all(first.as_bytes()).await.expect("sent");
            let send = tokio::spawn(async move {
                for byte in slowly.bytes() {
                    let _ = writing.write_all(&[byte]).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                std::future::pending::<()>().await;
            });
            let mut bytes = Vec::new();
            let read = reading.read_to_end(&mut bytes);
            let end = tokio::time::timeout(Duration::from_secs(15), read).await;
            assert!(end.is_ok(), "{name}: still open");
            let took = start.elapsed().as_secs_f64();
            assert!((9.0..13.0).contains(&took), "{name}: {took}");
            send.abort();
        }
    });
    futures_util::future::join_all(closed).await;
    server.stop().await;
}

#[tokio::test]
async fn no_log_contains_a_token() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let endpoint = sse.endpoint("/s").permission("usage.read");
    let app = endpoint
        .handler(async |uri: http::Uri, headers: http::HeaderMap| {
            tracing::info!(%uri, ?headers, "the application logs too");
            burst(1)
        })
        .expect("a route");
    let server = Server::start(&sse, app).await;
    let token = token();
    // Not the client's own log: its frames are made on a thread without a subscriber.
    let (address, sent) = (server.address, token.clone());
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let mut client = Client::connect(address).await;
            let answer = client.get(&format!("/s?a=1&access_token={sent}")).await;
            assert_eq!(answer.status(), 200);
            let bearer = Request::get("http://localhost/s?a=2")
                .header("authorization", format!("Bearer {sent}"))
                .body(());
            assert_eq!(client.send(bearer.expect("a request")).await.status(), 200);
        });
    });
    while !client.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.join().expect("no panic");
    server.stop().await;
    let log = log.text();
    assert!(log.contains("the application logs too") && log.contains("a=1"), "{log}");
    assert!(log.contains("a=2"), "{log}");
    let signature = token.rsplit('.').next().expect("a signature");
    assert!(!log.contains(signature), "a token in the log: {log}");
}

/// Accepts pipes: a server without sockets, so that the clock can be paused.
struct Pipes(tokio::sync::mpsc::Receiver<tokio::io::DuplexStream>);

impl axum::serve::Listener for Pipes {
    type Io = tokio::io::DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        match self.0.recv().await {
            Some(pipe) => (pipe, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_kept() {
    let sse = sse_with(SseOptions::default());
    let (connect, pipes) = tokio::sync::mpsc::channel(1);
    let app = public(&sse, || burst(1)).route("/plain", get(async || "done"));
    let server = tokio::spawn(sse.serve(Pipes(pipes), app).into_future());
    let client = async || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        connect.send(far).await.expect("a server");
        Client::over(near).await
    };
    let (mut resting, mut streaming, mut asking) = (client().await, client().await, client().await);
    resting.get("/plain").await;
    asking.get("/plain").await;
    let mut stream = streaming.get("/s").await.into_body();
    until(&mut stream, "data: 1\n\n").await;
    // A stream over HTTP/1.1 must not count as idle.
    let (mut old, far) = tokio::io::duplex(64 * 1024);
    connect.send(far).await.expect("a server");
    old.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let start = tokio::time::Instant::now();
    let mut closed = None;
    while start.elapsed() < Duration::from_secs(600) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        asking.get("/plain").await;
        if closed.is_none() && resting.driver.is_finished() {
            closed = Some(start.elapsed().as_secs());
        }
        // Opens the window for heartbeats.
        while let Ok(Some(beat)) =
            tokio::time::timeout(Duration::from_millis(1), stream.data()).await
        {
            let taken = beat.expect("no reset").len();
            stream.flow_control().release_capacity(taken).expect("room");
        }
    }
    let closed = closed.expect("still open");
    assert!((110..=250).contains(&closed), "after {closed} s");
    assert!(!streaming.driver.is_finished() && !asking.driver.is_finished());
    assert_eq!(sse.connections().len(), 2);
    server.abort();
}

/// The task of an ordinary response may be over long before the client has received all of it.
#[tokio::test(start_paused = true)]
async fn a_connection_with_a_slow_download_is_not_idle() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, || burst(1)).route("/download", get(async || vec![b'x'; 1 << 20]));
    let (connect, pipes) = tokio::sync::mpsc::channel(1);
    let (near, far) = tokio::io::duplex(4096);
    tokio::spawn(sse.serve(Pipes(pipes), app).into_future());
    connect.send(near).await.expect("a server");
    let mut client = Client::over(far).await;
    let mut body = client.get("/download").await.into_body();
    let mut read = 0;
    while let Some(bytes) = body.data().await {
        let taken = bytes.unwrap_or_else(|error| panic!("cut after {read} bytes: {error}")).len();
        read += taken;
        body.flow_control().release_capacity(taken).expect("room");
        // 1.6 KB a second.
        tokio::time::sleep(Duration::from_millis(taken as u64 * 10 / 16)).await;
    }
    assert_eq!(read, 1 << 20);
}

/// Frames written by hand: a window of this size for each stream, a large one for the connection, and
/// `GET http /s`.
fn by_hand(window: u8) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0");
    bytes.push(window);
    bytes.extend(b"\0\0\x04\x08\0\0\0\0\0\x7f\x00\0\0");
    bytes.extend([0, 0, 9, 1, 5, 0, 0, 0, 1]);
    bytes.extend(b"\x82\x86\x04\x02/s\x01\x01x");
    bytes
}

#[tokio::test]
async fn a_nearly_closed_window_is_a_stall_even_after_the_last_event() {
    const LENGTH: usize = 2000;
    // The stream that has ended could not send its closing event.
    for (window, ends) in [(0, false), (1, false), (200, false), (0, true)] {
        let sse = sse_with(options("WriteTimeout = \"1s\"\nHeartbeatInterval = \"off\""));
        let (app, alive) = watched(&sse, move || {
            let rest = stream::pending().take(usize::from(!ends));
            stream::iter([Event::text("x".repeat(LENGTH))]).chain(rest)
        });
        let server = Server::start(&sse, app).await;
        let mut socket = TcpStream::connect(server.address).await.expect("a socket");
        let start = Instant::now();
        socket.write_all(&by_hand(window)).await.expect("sent");
        let reset = async {
            loop {
                let mut head = [0; 9];
                socket.read_exact(&mut head).await.expect("a frame");
                let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                socket.read_exact(&mut payload).await.expect("a frame");
                if (head[3], head[8]) == (3, 1) {
                    return start.elapsed();
                }
            }
        };
        let reset = tokio::time::timeout(Duration::from_secs(5), reset).await.expect("a reset");
        assert!(reset >= Duration::from_secs(1), "{reset:?}");
        eventually("dropped", || alive.count() == 0 && sse.connections().is_empty()).await;
        let reason = if ends { CloseReason::Ended } else { CloseReason::WriteTimeout };
        eventually("counted", || sse.connections().closed(reason) == 1).await;
        drop(socket);
        server.stop().await;
    }
}

#[tokio::test]
async fn the_applications_stream_does_not_wait_for_a_slow_client_at_its_end() {
    let sse =
        sse_with(options("WriteTimeout = \"1s\"\nMaxAge = \"1s\"\nHeartbeatInterval = \"500ms\""));
    let (app, alive) =
        watched(&sse, || stream::iter([Event::text("x".repeat(200_000))]).chain(stream::pending()));
    let server = Server::start(&sse, app).await;
    let mut client = Client::connect(server.address).await;
    let mut body = client.get("/s").await.into_body();
    let (start, mut read, mut dropped) = (Instant::now(), Vec::new(), None);
    while let Some(bytes) = piece(&mut body).await {
        read.extend_from_slice(&bytes.expect("no reset"));
        // 50 KB a second.
        tokio::time::sleep(Duration::from_millis(bytes_to_millis(read.len(), start))).await;
        if alive.count() == 0 {
            dropped.get_or_insert(start.elapsed());
        }
    }
    assert!(dropped.expect("dropped") < Duration::from_secs(3), "{dropped:?}");
    let text = String::from_utf8(read).expect("UTF-8");
    assert!(text.contains(&"x".repeat(200_000)), "what was begun is sent");
    assert!(text.contains("\"reason\":\"max_age\""), "and then the closing event");
    server.stop().await;
}

/// How long to wait until so many bytes are due at 50 KB a second.
fn bytes_to_millis(bytes: usize, start: Instant) -> u64 {
    (bytes as u64 / 50).saturating_sub(start.elapsed().as_millis() as u64)
}
