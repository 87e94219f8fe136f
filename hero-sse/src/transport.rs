//! The sockets: accepts connections, sets them up so that a stalled reader is noticed, hands them to
//! hyper, and lets them go at shutdown.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::connections::Connections;
use crate::deadline::{DeadlineIo, SocketWatch, StreamReset};
use crate::redact::redact;
use crate::telemetry;

/// Bytes that the kernel takes beyond what it has sent. Its own default is megabytes: at 200 bytes
/// a second a stall would show after hours.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 16 * 1024;

/// Where the kernel has no such bound, the whole send buffer is kept small.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_BUFFER: usize = 64 * 1024;

/// hyper's buffer for a connection; a request's head must fit as well.
const HYPER_BUFFER: usize = 64 * 1024;

/// For a request's head to arrive, from the connection's start or, over HTTP/1.1, the end of the last
/// answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Over HTTP/2 a ping finds the peers that are gone while nothing is said.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What one HTTP/2 stream may hold in hyper beyond what its client takes.
const STREAM_BUFFER: usize = 32 * 1024;

/// Streams open at once on an HTTP/2 connection.
const STREAMS: u32 = 256;

/// An HTTP/2 request's header list: as much as the head of one over HTTP/1.1.
const HEADER_LIST: u32 = 64 * 1024;

/// The longest time that the kernel takes for a probe.
const PROBE_LIMIT: Duration = Duration::from_secs(32_767);

/// What the loop needs to know of a kit.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) connections: Connections,
    pub(crate) peer_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
}

impl Transport {
    /// Serves until `shutdown` resolves, then drains. `prepare` sees each request first.
    pub(crate) async fn serve<L, A>(
        self,
        mut listener: L,
        app: A,
        prepare: impl Fn(&mut Request) + Clone + Send + Sync + 'static,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        L: Listener,
        L::Addr: Clone + Send + Sync + 'static,
        A: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        A::Future: Send,
    {
        let (stop, stopped) = watch::channel(());
        let mut sockets = JoinSet::new();
        let streams = Streams::default();
        // Whoever drops the server ends them; so does its own end.
        let cut = streams.cut.clone().drop_guard();
        let builder = builder(streams.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = {
                // One future until it resolves: a listener may be in the middle of a handshake.
                let mut accept = std::pin::pin!(listener.accept());
                loop {
                    tokio::select! {
                        accepted = &mut accept => break Some(accepted),
                        // Finished connections are collected as they go.
                        Some(_) = sockets.join_next() => {}
                        () = &mut shutdown => break None,
                    }
                }
            };
            let Some((io, peer)) = accepted else { break };
            set_up(&io, self.peer_timeout);
            let watch = Arc::new(SocketWatch::default());
            let (app, prepare) = (app.clone(), prepare.clone());
            let begun = Arc::new(AtomicBool::new(false));
            let service = {
                let (watch, begun) = (watch.clone(), begun.clone());
                tower::service_fn(move |request: Request<Incoming>| {
                    begun.store(true, Ordering::Release);
                    let mut request = request.map(Body::new);
                    redact(&mut request);
                    request.extensions_mut().insert(ConnectInfo(peer.clone()));
                    request.extensions_mut().insert(watch.clone());
                    prepare(&mut request);
                    let app = app.clone();
                    async move {
                        // Here, since only the answer's future runs inside its stream's scope.
                        if let Ok(reset) = STREAM.try_with(StreamReset::clone) {
                            request.extensions_mut().insert(reset);
                        }
                        app.oneshot(request).await
                    }
                })
            };
            let io = TokioIo::new(DeadlineIo::new(io, watch, self.peer_timeout));
            let service = TowerToHyperService::new(service);
            let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
            sockets.spawn(drive(connection, begun, stopped.clone()));
        }
        // A refused connection is a network error, after which a browser tries again; so the
        // listener goes first.
        drop(listener);
        telemetry::draining(self.connections.shut_down());
        drop(stop);
        let drained = async { while sockets.join_next().await.is_some() {} };
        let in_time = match self.drain_timeout {
            Some(timeout) => tokio::time::timeout(timeout, drained).await.is_ok(),
            None => {
                drained.await;
                true
            }
        };
        if !in_time {
            telemetry::drain_cut(sockets.len());
            sockets.shutdown().await;
        }
        // Their connections are gone; what they held is given back before the server is.
        drop(cut);
        streams.tasks.close();
        streams.tasks.wait().await;
        Ok(())
    }
}

fn builder(streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HYPER_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_send_buf_size(STREAM_BUFFER)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST);
    builder
}

tokio::task_local! {
    /// The reset of the HTTP/2 stream whose future is running.
    static STREAM: StreamReset;
}

/// Runs the HTTP/2 streams, each in a task of its own that a reset ends. hyper has no other way to
/// give up a stream whose client takes nothing: dropping its future sends `RST_STREAM`.
#[derive(Clone, Default)]
struct Streams {
    tasks: TaskTracker,
    /// Ends them all.
    cut: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let token = self.cut.child_token();
        let stream = STREAM.scope(StreamReset(token.clone()), stream);
        self.tasks.spawn(Resettable { stream, reset: token.cancelled_owned() });
    }
}

pin_project_lite::pin_project! {
    /// A stream's future until it ends or is reset. An `async` block would hold it several times over.
    struct Resettable<F> {
        #[pin]
        stream: F,
        #[pin]
        reset: WaitForCancellationFutureOwned,
    }
}

impl<F: Future<Output = ()>> Future for Resettable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.reset.poll(cx) {
            // The task drops the stream with this future.
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => this.stream.poll(cx),
        }
    }
}

/// Drives one connection to its end; when `stopped` says so, to the end of its last answer.
async fn drive<I, S>(
    connection: auto::UpgradeableConnection<'static, I, S, Streams>,
    begun: Arc<AtomicBool>,
    mut stopped: watch::Receiver<()>,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::Service<hyper::Request<Incoming>, Response = Response>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Streams: auto::HttpServerConnExec<S::Future, Body>,
{
    let mut connection = std::pin::pin!(connection);
    // hyper's own timeout begins once it knows the version, which it waits for without end.
    let silent = async {
        tokio::time::sleep(HEAD_TIMEOUT).await;
        if begun.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    };
    // A connection's error is its client's departure; the streams on it have told the reason.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = silent => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

static NOT_TCP: Once = Once::new();

/// Asks the kernel to tell us early about readers that stop and peers that vanish. `DeadlineIo` adds
/// the peer timeout while a stream is live.
fn set_up<T: Any>(io: &T, peer_timeout: Option<Duration>) {
    let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() else {
        return NOT_TCP.call_once(telemetry::not_tcp);
    };
    if let Err(error) = try_set_up(&SockRef::from(socket), peer_timeout) {
        telemetry::no_kernel_options(&error);
    }
}

fn try_set_up(socket: &SockRef<'_>, peer_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    socket.set_send_buffer_size(SEND_BUFFER)?;
    if let Some(timeout) = peer_timeout {
        // Probes are for connections at rest. The kernel counts them in whole seconds.
        let seconds = |time: Duration| time.clamp(Duration::from_secs(1), PROBE_LIMIT);
        let keepalive =
            TcpKeepalive::new().with_time(seconds(timeout)).with_interval(seconds(timeout / 3));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_takes_the_options_for_any_peer_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        for (millis, probe) in [(500, 1), (2_000, 2), (60_000, 60), (366 * 86_400_000, 32_767)] {
            let stream = TcpStream::connect(address).await.expect("a socket");
            let socket = SockRef::from(&stream);
            try_set_up(&socket, Some(Duration::from_millis(millis))).expect("legal options");
            assert!(socket.tcp_nodelay().expect("an option"));
            assert_eq!(socket.tcp_notsent_lowat().expect("an option"), UNSENT);
            assert_eq!(socket.tcp_keepalive_time().expect("an option").as_secs(), probe);
            assert!(socket.keepalive().expect("an option"));
        }
    }
}
