//! The hard end of a drain: `serve` returns in bounded time, whatever clients do, and leaves nothing behind in the
//! kernel.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hero_sse::testing::SlowReader;
use hero_sse::{Event, HeroSse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2::within;
use crate::support::{Server, burst, echo, eventually, flood, options, public, sse_with};
use crate::tls::{self, Certificate};

/// Returns state and unsent bytes of the server's sockets, as the kernel lists them.
fn sockets(server: SocketAddr) -> Vec<(String, u64)> {
    let port = format!(":{:04X}", server.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
    let socket = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, state, queues, ..] = fields.as_slice() else { return None };
        let unsent = u64::from_str_radix(queues.split(':').next()?, 16).ok()?;
        local.ends_with(&port).then(|| ((*state).to_owned(), unsent))
    };
    // 0A is a listening socket.
    table.lines().filter_map(socket).filter(|(state, _)| state != "0A").collect()
}

/// `/s` floods. `/odd` is an ordinary response that exceeds a small window and then stays open: hyper has written all
/// of it, and the kernel keeps the rest.
fn app(sse: &HeroSse) -> Router {
    let odd = async || {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 12_000]))]);
        Body::from_stream(first.chain(stream::pending()))
    };
    public(sse, flood).route("/odd", get(odd))
}

async fn full(server: SocketAddr, count: usize) {
    let stuck = || sockets(server).into_iter().filter(|(_, unsent)| *unsent > 0).count() == count;
    eventually("the kernel holds unsent bytes", stuck).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stuck(), "{:?}", sockets(server));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_reset_after_the_drain_timeout_and_nothing_lingers() {
    let sse = sse_with(options("WriteTimeout = \"60s\"\nDrainTimeout = \"500ms\""));
    let server = Server::start(&sse, app(&sse)).await;
    let address = server.address;
    let stalled = SlowReader::connect(address, "/s", &[]).await.expect("a socket");
    let odd = SlowReader::connect(address, "/odd", &[]).await.expect("a socket");
    full(address, 2).await;
    let took = server.stop().await;
    assert_eq!(sockets(address), [], "left behind");
    assert!((0.5..1.5).contains(&took.as_secs_f64()), "{took:?}");
    for reader in [stalled, odd] {
        assert!(reader.reset_within(Duration::from_secs(1)).await.is_some(), "closed, not reset");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_tls_are_reset_as_well() {
    let (sse, certificate) =
        (sse_with(options("WriteTimeout = \"60s\"\nDrainTimeout = \"500ms\"")), Certificate::new());
    let server = tls::start(&sse, app(&sse), certificate.tls()).await;
    let address = server.address;
    let stalled = certificate.stall(address, "/s").await;
    let odd = certificate.stall(address, "/odd").await;
    full(address, 2).await;
    let took = server.stop().await;
    assert_eq!(sockets(address), [], "left behind");
    assert!((0.5..1.5).contains(&took.as_secs_f64()), "{took:?}");
    for reader in [stalled, odd] {
        tls::reset(&reader).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_server_leaves_no_socket_behind() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(sse.serve(listener, app(&sse)).into_future());
    let _stalled = SlowReader::connect(address, "/s", &[]).await.expect("a socket");
    let _odd = SlowReader::connect(address, "/odd", &[]).await.expect("a socket");
    full(address, 2).await;
    serving.abort();
    eventually("nothing is left", || sockets(address).is_empty()).await;
}

/// Everything is in the kernel, closing event included, so the connection has ended in order. The kernel may retry, as
/// for a client in a tunnel, but not forever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_orderly_end_the_kernel_retries_for_the_peer_timeout() {
    let sse = sse_with(options("PeerTimeout = \"2s\""));
    let long = || stream::iter([Event::text("x".repeat(20_000))]).chain(stream::pending());
    let server = Server::start(&sse, public(&sse, long)).await;
    let address = server.address;
    let reader = SlowReader::connect(address, "/s", &[]).await.expect("a socket");
    eventually("the kernel holds it", || sockets(address).iter().any(|(_, unsent)| *unsent > 0))
        .await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let start = Instant::now();
    while !sockets(address).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", sockets(address));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("gone after {:?}", start.elapsed());
    drop(reader);
}

async fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("a socket");
    socket.write_all(bytes).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_head_does_not_delay_a_shutdown_and_a_complete_one_is_answered() {
    let sse = sse_with(options("DrainTimeout = \"30s\"\nRetry = \"1s\""));
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let request = b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n";
    let _first = connect(server.address, &request[..20]).await;
    let mut under_way = connect(server.address, &request[..20]).await;
    // The second head of a connection whose first request was answered.
    let mut second = connect(server.address, b"GET /no HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let read = second.read(&mut [0; 4096]).await.expect("an answer");
    assert!(read > 0);
    second.write_all(&request[..20]).await.expect("sent");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let _no_request = connect(server.address, preface).await;
    let rest = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        under_way.write_all(&request[20..]).await.expect("sent");
        let mut answer = String::new();
        within(under_way.read_to_string(&mut answer)).await.expect("an answer");
        answer
    });
    let took = server.stop().await;
    assert!((0.5..2.0).contains(&took.as_secs_f64()), "{took:?}");
    let answer = rest.await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("draining"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_in_progress_does_not_delay_a_shutdown() {
    let (sse, certificate) = (sse_with(options("DrainTimeout = \"30s\"")), Certificate::new());
    let server = tls::start(&sse, public(&sse, || burst(1)), certificate.tls()).await;
    let _silent = connect(server.address, b"").await;
    let _hello = connect(server.address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// A client that answers neither `GOAWAY` nor pings after its response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_http2_client_delays_a_shutdown_by_the_drain_timeout_at_most() {
    let sse = sse_with(options("DrainTimeout = \"700ms\""));
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    request.extend(b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x04\x02/n\x01\x01x");
    let mut socket = connect(server.address, &request).await;
    let mut answer = vec![0; 4096];
    let read = within(socket.read(&mut answer)).await.expect("an answer");
    assert!(read > 20, "{read}");
    let took = server.stop().await;
    println!("stopped after {took:?}");
    assert!((0.6..1.7).contains(&took.as_secs_f64()), "{took:?}");
}

/// After the upgrade the connection belongs to the application: `serve` neither waits for it nor ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_does_not_delay_a_shutdown_and_continues() {
    let sse = sse_with(options("DrainTimeout = \"30s\""));
    let app = public(&sse, || burst(1)).route("/echo", get(echo));
    let server = Server::start(&sse, app).await;
    let request = b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let mut socket = connect(server.address, request).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(socket.read_u8()).await.expect("a head"));
    }
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    socket.write_all(b"hello").await.expect("sent");
    let mut echo = [0; 5];
    within(socket.read_exact(&mut echo)).await.expect("an echo");
    assert_eq!(&echo, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_code_that_blocks_its_thread_does_not_stop_a_shutdown() {
    let sse = sse_with(options("DrainTimeout = \"500ms\""));
    let app = public(&sse, || {
        futures_util::stream::iter(0..2).map(|n| {
            if n == 1 {
                std::thread::sleep(Duration::from_secs(5));
            }
            Event::text("x")
        })
    });
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}
