//! The sockets: accepts connections, sets them up so that a stalled reader is noticed, hands them to
//! hyper, and lets them go at shutdown.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt as _};

use crate::connections::Connections;
use crate::deadline::{DeadlineIo, SocketWatch};
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

/// For a request's head to arrive, from the connection's start or the end of the last answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

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
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                (io, peer) = listener.accept() => {
                    let watch = Arc::new(SocketWatch::default());
                    set_up(&io, self.peer_timeout);
                    let (app, prepare) = (app.clone(), prepare.clone());
                    let service = {
                        let watch = watch.clone();
                        tower::service_fn(move |request: Request<Incoming>| {
                            let mut request = request.map(Body::new);
                            redact(&mut request);
                            request.extensions_mut().insert(ConnectInfo(peer.clone()));
                            request.extensions_mut().insert(watch.clone());
                            prepare(&mut request);
                            app.clone().oneshot(request)
                        })
                    };
                    let io = TokioIo::new(DeadlineIo::new(io, watch));
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT)
                        .max_buf_size(HYPER_BUFFER)
                        .serve_connection(io, TowerToHyperService::new(service))
                        .with_upgrades();
                    sockets.spawn(drive(connection, stopped.clone()));
                }
                // Finished connections are collected as they go.
                Some(_) = sockets.join_next() => {}
                () = &mut shutdown => break,
            }
        }
        // A refused connection is a network error, after which a browser tries again; so the
        // listener goes first.
        drop(listener);
        telemetry::draining(self.connections.drain());
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
        Ok(())
    }
}

/// Drives one connection to its end; when `stopped` says so, to the end of its last answer.
async fn drive<I, S>(
    connection: http1::UpgradeableConnection<I, S>,
    mut stopped: watch::Receiver<()>,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = std::pin::pin!(connection);
    // A connection's error is its client's departure; the streams on it have told the reason.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Asks the kernel to tell us early about readers that stop and peers that vanish.
fn set_up<T: Any>(io: &T, peer_timeout: Option<Duration>) {
    let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() else {
        return;
    };
    if let Err(error) = try_set_up(&SockRef::from(socket), peer_timeout) {
        telemetry::no_kernel_options(&error);
    }
}

fn try_set_up(socket: &SockRef<'_>, peer_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        socket.set_tcp_notsent_lowat(UNSENT)?;
        socket.set_tcp_user_timeout(peer_timeout)?;
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    socket.set_send_buffer_size(SEND_BUFFER)?;
    if let Some(timeout) = peer_timeout {
        // Unacknowledged bytes are the kernel's user timeout; probes are for connections at rest.
        let keepalive = TcpKeepalive::new().with_time(timeout).with_interval(timeout / 3);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}
