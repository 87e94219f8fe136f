//! Guarded connections of servers other than `sse.serve`, over real sockets.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum_server::accept::Accept;
use hero_sse::server::{GuardedIo, GuardedService};
use hero_sse::{CloseReason, HeroSse};
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::testing::{self, SlowReader};
use crate::support::{Log, burst, eventually, flood, options, public, sse_with, token, watched};

/// The acceptor from the documentation of `HeroSse::guard_connection`.
#[derive(Clone)]
struct Guard(HeroSse);

impl<S> Accept<TcpStream, S> for Guard {
    type Stream = GuardedIo<TcpStream>;
    type Service = GuardedService<S>;
    type Future = Ready<std::io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        ready(Ok(self.0.guard_connection(socket, service)))
    }
}

async fn axum_serve(sse: &HeroSse, app: Router) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, app) = sse.guard(listener, app);
    (address, tokio::spawn(axum::serve(listener, app).into_future()))
}

async fn axum_server(sse: &HeroSse, app: Router) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("an option");
    let address = listener.local_addr().expect("an address");
    let server = axum_server::from_tcp(listener).expect("a server").acceptor(Guard(sse.clone()));
    (address, tokio::spawn(server.serve(app.into_make_service())))
}

/// Checks that a stalled client is dropped within the write timeout, and a healthy one unaffected.
async fn a_stalled_client_is_dropped(
    name: &str,
    server: impl AsyncFn(&HeroSse, Router) -> (SocketAddr, JoinHandle<std::io::Result<()>>),
) {
    let (log, _guard) = Log::everything();
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let (app, alive) = watched(&sse, flood);
    let (address, serving) = server(&sse, app).await;
    let mut healthy = testing::connect(address, "/s").await.expect("a stream");
    let stalled = SlowReader::connect(address, "/s", &[]).await.expect("a socket");
    let reading = tokio::spawn(async move {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            healthy.next().await.expect("in time").expect("an event");
        }
    });
    let reset = stalled.reset_within(Duration::from_secs(6)).await.expect("a reset");
    println!("{name}: reset after {reset:?}");
    assert!((0.9..=2.5).contains(&reset.as_secs_f64()), "{reset:?}");
    eventually("the stalled stream is dropped", || alive.count() == 1).await;
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 1);
    reading.await.expect("an undisturbed reader");
    eventually("the healthy client has disconnected", || sse.connections().is_empty()).await;
    serving.abort();
    assert!(!log.text().contains("runs without `sse.serve`"), "{}", log.text());
}

#[tokio::test]
async fn under_axum_serve_a_stalled_client_is_dropped_in_time() {
    a_stalled_client_is_dropped("axum::serve", axum_serve).await;
}

#[tokio::test]
async fn under_axum_server_a_stalled_client_is_dropped_in_time() {
    a_stalled_client_is_dropped("axum-server", axum_server).await;
}

/// The peer's address and the caller of an ordinary route, but no token.
#[tokio::test]
async fn guarded_requests_carry_the_same_extensions_as_under_serve() {
    let show = async |ConnectInfo(peer): ConnectInfo<SocketAddr>,
                      who: hero_sse::Principal,
                      uri: Uri| { format!("{} {} {uri}", peer.ip(), who.subject()) };
    let (log, _guard) = Log::everything();
    let sse = sse_with(options(""));
    let app = Router::new().route("/who", get(show));
    let servers = [axum_serve(&sse, app.clone()).await, axum_server(&sse, app).await];
    for (address, serving) in servers {
        let mut socket = TcpStream::connect(address).await.expect("a socket");
        let request = format!(
            "GET /who?a=1&access_token={} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            token()
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("127.0.0.1 ann /who?a=1"), "{answer}");
        serving.abort();
    }
    assert!(log.text().contains("call `sse.drain()` at its shutdown"), "{}", log.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_axum_serve_a_peer_that_acknowledges_nothing_is_dropped_by_the_kernel() {
    let sse = sse_with(options("WriteTimeout = \"60s\"\nPeerTimeout = \"1s\""));
    let (app, alive) = watched(&sse, flood);
    let (address, serving) = axum_serve(&sse, app).await;
    let stalled = SlowReader::connect(address, "/s", &[]).await.expect("a socket");
    eventually("connected", || alive.count() == 1).await;
    let start = Instant::now();
    while alive.count() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "never dropped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sse.connections().closed(CloseReason::PeerTimeout), 1);
    drop(stalled);
    serving.abort();
}

/// The shutdown from the documentation of `HeroSse::guard`. A client that connects after its begin is rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_axum_serve_streams_end_at_shutdown() {
    let sse = sse_with(options("Retry = \"2s\""));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let slowly = axum::middleware::from_fn(
        async |request: axum::extract::Request, next: axum::middleware::Next| {
            if request.uri().query().is_some() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            next.run(request).await
        },
    );
    assert!(!sse.readiness().is_ready());
    let (listener, app) = sse.guard(listener, public(&sse, || burst(1)).layer(slowly));
    assert!(sse.readiness().is_ready());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let draining = sse.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopped.await;
        assert_eq!(draining.drain(), 3);
    });
    let serving = tokio::spawn(server.into_future());
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = testing::connect(address, "/s").await.expect("a stream");
        stream.next().await.expect("in time").expect("an event");
        streams.push(stream);
    }
    let late = tokio::spawn(testing::connect(address, "/s?slowly").into_future());
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stop);
    let end = tokio::time::timeout(Duration::from_secs(5), serving).await;
    end.expect("in bounded time").expect("no panic").expect("no error");
    assert!(!sse.readiness().is_ready());
    streams.push(late.await.expect("no panic").expect("a closing event"));
    for mut stream in streams {
        let events = stream.read_to_end().await.expect("a clean end");
        assert!(events[0].data.contains("draining"), "{events:?}");
    }
}
