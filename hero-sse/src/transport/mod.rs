//! The server: accepts connections, sets their sockets up so that stalled clients are noticed, hands them to hyper,
//! and ends them at shutdown.

mod files;
mod socket;
mod streams;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
mod tls {
    /// Without the feature `tls` no value exists.
    #[derive(Clone)]
    pub(crate) enum Tls {}

    impl Tls {
        pub(super) async fn accept<I>(&self, _io: I) -> std::io::Result<I> {
            match *self {}
        }

        pub(super) async fn watch_files(self) {
            match self {}
        }
    }
}

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower::{Service, ServiceExt as _};

pub(crate) use self::socket::set_up;
use self::streams::{Connection, Settings, Streams};
#[cfg(feature = "tls")]
pub use self::tls::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use self::tls::Tls;
use crate::connections::{Connections, HOOK_TIMEOUT};
use crate::delivery::{GuardedIo, SocketWatch};
use crate::telemetry;

/// Maximum time for a request's head to arrive, from the start of the connection or, over HTTP/1.1, from the end of
/// the last response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time at shutdown for the first head of a connection, which may be on its way.
const SHUTDOWN_HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum time at the end of a shutdown for cancelled tasks to end.
const SHUTDOWN_TASKS_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of the server.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) connections: Connections,
    pub(crate) max_connections: usize,
    pub(crate) peer_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) tls: Option<Tls>,
}

impl Transport {
    /// Serves until `shutdown` resolves, then drains. `prepare` is called first for each request.
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
        files::make_room(self.max_connections);
        let (stop, stopped) = watch::channel(());
        let mut sockets = JoinSet::new();
        let streams = Streams::default();
        // Ends the streams when the server ends or is dropped.
        let cut = streams.cut_on_drop();
        let mut watching = JoinSet::new();
        if let Some(tls) = &self.tls {
            watching.spawn(tls.clone().watch_files());
        }
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = {
                // The same future until it resolves, since a listener may be in the middle of a handshake.
                let mut accept = std::pin::pin!(listener.accept());
                loop {
                    tokio::select! {
                        accepted = &mut accept => break Some(accepted),
                        // Removes finished connections.
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
                    watch.request();
                    let mut request = request.map(Body::new);
                    request.extensions_mut().insert(ConnectInfo(peer.clone()));
                    request.extensions_mut().insert(watch.clone());
                    prepare(&mut request);
                    let app = app.clone();
                    async move {
                        // Within the future, since only that runs in the scope of its HTTP/2 stream.
                        if let Some(reset) = streams::current() {
                            request.extensions_mut().insert(reset);
                        }
                        app.oneshot(request).await
                    }
                })
            };
            let io = GuardedIo::new(io, watch.clone(), self.peer_timeout);
            let service = TowerToHyperService::new(service);
            let streams = streams.of_connection();
            let settings = Settings {
                head_timeout: HEAD_TIMEOUT,
                peer_timeout: self.peer_timeout,
                streams: streams.clone(),
            };
            let start = Start { head_due: Instant::now() + HEAD_TIMEOUT, begun, watch, streams };
            // Two kinds of tasks, so that connections without TLS do not carry the state of a handshake.
            match &self.tls {
                None => {
                    let io = TokioIo::new(io);
                    let connection = settings.connect(io, service);
                    sockets.spawn(drive(connection, start, stopped.clone()));
                }
                Some(tls) => {
                    let (tls, mut stopped) = (tls.clone(), stopped.clone());
                    sockets.spawn(async move {
                        let io = tokio::select! {
                            io = Box::pin(tls.accept(io)) => io,
                            () = sleep_until(start.head_due) => return,
                            _ = stopped.changed() => return,
                        };
                        let io = match io {
                            Ok(io) => TokioIo::new(io),
                            Err(error) => return telemetry::handshake_failed(&error),
                        };
                        drive(settings.connect(io, service), start, stopped).await;
                    });
                }
            }
        }
        // The listener is closed first: a refused connection is a network error, after which a browser reconnects.
        drop(listener);
        let begun = Instant::now();
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
            self.connections.cut_drained();
            // Resets the sockets: `Unfinished`.
            sockets.abort_all();
        }
        // Everything is released before the server returns. Only user code that blocks its thread can delay a task's
        // end; it is not waited for.
        drop(cut);
        let cut_at = Instant::now();
        let ended = async {
            while sockets.join_next().await.is_some() {}
            streams.ended().await;
        };
        if tokio::time::timeout(SHUTDOWN_TASKS_TIMEOUT, ended).await.is_err() {
            telemetry::left_behind(sockets.len() + streams.len());
        }
        // Without a limit for streams, a hook that hangs must not hold the shutdown either.
        let until = match self.drain_timeout {
            Some(timeout) if in_time => begun + timeout,
            // Streams that were cut off have ended just now.
            Some(_) => cut_at + SHUTDOWN_TASKS_TIMEOUT,
            None => cut_at + HOOK_TIMEOUT,
        };
        self.connections.finish_hooks(until).await;
        Ok(())
    }
}

/// The start of a connection: when the head of its first request is due, and whether it has arrived.
struct Start {
    head_due: Instant,
    begun: Arc<AtomicBool>,
    watch: Arc<SocketWatch>,
    streams: Streams,
}

impl Start {
    /// Resolves at `due` if the connection has sent no request until then. hyper's own timeout starts only once it
    /// knows the HTTP version, for which it waits without a limit.
    async fn silent_until(&self, due: Instant) {
        sleep_until(due).await;
        if self.begun.load(Ordering::Acquire) {
            std::future::pending().await
        }
    }
}

/// Resets the socket of a connection that is dropped before its end. After a plain close, the kernel would still send
/// the remaining bytes.
struct Unfinished(Option<Arc<SocketWatch>>);

impl Unfinished {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(watch) = &self.0 {
            watch.reset_on_drop();
        }
    }
}

/// Runs one connection to its end. At a shutdown, or when it has been idle for long, it ends after its last response.
/// The connection is boxed, since the task would hold an argument twice.
async fn drive<I, S>(
    mut connection: Pin<Box<Connection<I, S>>>,
    start: Start,
    mut stopped: watch::Receiver<()>,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::Service<hyper::Request<Incoming>, Response = Response>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Streams: auto::HttpServerConnExec<S::Future, Body>,
{
    // Declared after the connection, so that it is dropped before it.
    let unfinished = Unfinished(Some(start.watch.clone()));
    // An error means that the client has disconnected; its streams have reported the reason. `biased`, so that what
    // has arrived by now is seen first.
    let closing = tokio::select! {
        biased;
        _ = connection.as_mut() => false,
        () = start.silent_until(start.head_due) => false,
        () = start.streams.idle() => true,
        _ = stopped.changed() => true,
    };
    if closing {
        connection.as_mut().graceful_shutdown();
        let due = start.head_due.min(Instant::now() + SHUTDOWN_HEAD_TIMEOUT);
        tokio::select! {
            biased;
            _ = connection.as_mut() => {}
            () = start.silent_until(due) => {}
        }
    }
    unfinished.finish();
}
