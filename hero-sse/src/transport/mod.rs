//! The sockets: accepts connections, sets them up so that a stalled reader is noticed, hands them to
//! hyper, and lets them go at shutdown.

mod files;
mod socket;
mod streams;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
mod tls {
    /// There is none.
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
use self::streams::Streams;
#[cfg(feature = "tls")]
pub use self::tls::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use self::tls::Tls;
use crate::connections::Connections;
use crate::delivery::{GuardedIo, SocketWatch};
use crate::telemetry;

/// For a request's head to arrive, from the connection's start or, over HTTP/1.1, the end of the last
/// answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// At shutdown, for the first head of a connection that has had none: it may be under way.
const LAST_HEAD: Duration = Duration::from_millis(500);

/// At the end of a shutdown, for tasks that were told to end.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// What the loop needs to know of a kit.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) connections: Connections,
    pub(crate) max_connections: usize,
    pub(crate) peer_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) tls: Option<Tls>,
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
        files::make_room(self.max_connections);
        let (stop, stopped) = watch::channel(());
        let mut sockets = JoinSet::new();
        let streams = Streams::default();
        // Whoever drops the server ends them; so does its own end.
        let cut = streams.cut.clone().drop_guard();
        let mut watching = JoinSet::new();
        if let Some(tls) = &self.tls {
            watching.spawn(tls.clone().watch_files());
        }
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
                    watch.request();
                    let mut request = request.map(Body::new);
                    request.extensions_mut().insert(ConnectInfo(peer.clone()));
                    request.extensions_mut().insert(watch.clone());
                    prepare(&mut request);
                    let app = app.clone();
                    async move {
                        // Here, since only the answer's future runs inside its stream's scope.
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
            let builder = streams::builder(HEAD_TIMEOUT, self.peer_timeout, streams.clone());
            let start = Start { head_due: Instant::now() + HEAD_TIMEOUT, begun, watch, streams };
            // Two tasks, since what a handshake needs would weigh on every connection without one.
            match &self.tls {
                None => {
                    let io = TokioIo::new(io);
                    let connection =
                        Box::pin(builder.serve_connection_with_upgrades(io, service).into_owned());
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
                        let connection = Box::pin(
                            builder.serve_connection_with_upgrades(io, service).into_owned(),
                        );
                        drive(connection, start, stopped).await;
                    });
                }
            }
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
            // Each of them is `Unfinished`.
            sockets.abort_all();
        }
        // What they held is given back before the server is. Only code that blocks its thread keeps a
        // task from ending: it is not waited for.
        drop(cut);
        streams.tasks.close();
        let ended = async {
            while sockets.join_next().await.is_some() {}
            streams.tasks.wait().await;
        };
        if tokio::time::timeout(LAST_TASKS, ended).await.is_err() {
            telemetry::left_behind(sockets.len() + streams.tasks.len());
        }
        Ok(())
    }
}

/// A connection's beginning: when the head of its first request is due, and whether it came.
struct Start {
    head_due: Instant,
    begun: Arc<AtomicBool>,
    watch: Arc<SocketWatch>,
    streams: Streams,
}

impl Start {
    /// Until a connection without a request is late. hyper's own timeout begins once it knows the
    /// version, which it waits for without end.
    async fn silent_until(&self, due: Instant) {
        sleep_until(due).await;
        if self.begun.load(Ordering::Acquire) {
            std::future::pending().await
        }
    }
}

/// Resets the socket of a connection that is dropped before its end: a plain close would leave what it
/// still has to send to the kernel.
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

/// Drives one connection to its end; when `stopped` says so, or when it has long been at rest, to the
/// end of its last answer. It comes in a box, since as an argument the task would hold it twice.
async fn drive<I, S>(
    mut connection: Pin<Box<auto::UpgradeableConnection<'static, I, S, Streams>>>,
    start: Start,
    mut stopped: watch::Receiver<()>,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::Service<hyper::Request<Incoming>, Response = Response>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Streams: auto::HttpServerConnExec<S::Future, Body>,
{
    // After the connection, so that it is dropped before it.
    let unfinished = Unfinished(Some(start.watch.clone()));
    // A connection's error is its client's departure; the streams on it have told the reason. What has
    // come by now counts as come.
    let leaving = tokio::select! {
        biased;
        _ = connection.as_mut() => false,
        () = start.silent_until(start.head_due) => false,
        () = start.streams.at_rest() => true,
        _ = stopped.changed() => true,
    };
    if leaving {
        connection.as_mut().graceful_shutdown();
        let due = start.head_due.min(Instant::now() + LAST_HEAD);
        tokio::select! {
            biased;
            _ = connection.as_mut() => {}
            () = start.silent_until(due) => {}
        }
    }
    unfinished.finish();
}
