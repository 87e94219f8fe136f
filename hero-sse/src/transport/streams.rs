//! hyper's connections with their settings, and the tasks of HTTP/2 streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
#[cfg(not(feature = "http2"))]
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use slab::Slab;
use tokio::time::sleep;

use crate::delivery::StreamReset;

/// hyper's buffer for a connection. The head of a request must fit into it.
const HYPER_BUFFER: usize = 64 * 1024;

/// An HTTP/2 connection without streams is closed after this time, or up to twice of it, since it uses an open file.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection, driven by hyper.
#[cfg(feature = "http2")]
pub(super) type Connection<I, S> = auto::UpgradeableConnection<'static, I, S, Streams>;
/// A connection, driven by hyper. It speaks HTTP/1.1 only. hyper-util's own choice of the protocol would include HTTP/2
/// as soon as any crate of the application enables it there, and without the limits that are set below.
#[cfg(not(feature = "http2"))]
pub(super) type Connection<I, S> = http1::UpgradeableConnection<I, S>;

/// The settings of a connection.
pub(super) struct Settings {
    pub(super) head_timeout: Duration,
    /// For HTTP/2. Over HTTP/1.1 the socket has it.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(super) peer_timeout: Option<Duration>,
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(super) streams: Streams,
}

impl Settings {
    /// Makes a connection of a socket.
    pub(super) fn connect<I, S>(self, io: I, service: S) -> Pin<Box<Connection<I, S>>>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
        S: hyper::service::Service<hyper::Request<Incoming>, Response = Response>,
        S::Future: 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        Streams: auto::HttpServerConnExec<S::Future, Body>,
    {
        #[cfg(feature = "http2")]
        {
            let mut builder = auto::Builder::new(self.streams);
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(self.head_timeout)
                .max_buf_size(HYPER_BUFFER);
            set_http2(&mut builder, self.peer_timeout);
            Box::pin(builder.serve_connection_with_upgrades(io, service).into_owned())
        }
        #[cfg(not(feature = "http2"))]
        {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(self.head_timeout)
                .max_buf_size(HYPER_BUFFER);
            Box::pin(builder.serve_connection(io, service).with_upgrades())
        }
    }
}

#[cfg(feature = "http2")]
fn set_http2(builder: &mut auto::Builder<Streams>, peer_timeout: Option<Duration>) {
    /// HTTP/2 pings find vanished peers of idle connections. A peer has the peer timeout to answer, and a little more,
    /// so that the kernel's own timeout, which tells the reason, comes first.
    const PING_INTERVAL: Duration = Duration::from_secs(15);
    const PING_GRACE: Duration = Duration::from_secs(5);

    /// Maximum number of bytes of one HTTP/2 stream that hyper buffers beyond the client's window.
    const STREAM_BUFFER: usize = 32 * 1024;

    /// Maximum number of open streams on an HTTP/2 connection.
    const STREAMS: u32 = 256;

    /// Maximum size of an HTTP/2 request's headers, as for a head over HTTP/1.1.
    const HEADER_LIST: u32 = 64 * 1024;

    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(peer_timeout.map(|_| PING_INTERVAL))
        .keep_alive_timeout(peer_timeout.unwrap_or_default().saturating_add(PING_GRACE))
        .max_send_buf_size(STREAM_BUFFER)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST);
}

tokio::task_local! {
    /// Resets the HTTP/2 stream whose future is running.
    static STREAM: StreamReset;
}

/// Returns the reset of the HTTP/2 stream that the calling future belongs to.
pub(super) fn current() -> Option<StreamReset> {
    STREAM.try_with(StreamReset::clone).ok()
}

/// Runs each HTTP/2 stream in a task, which a reset ends. Dropping a stream's future sends `RST_STREAM`; hyper has
/// no other way to end a stream whose client has stalled.
#[derive(Clone, Default)]
pub(super) struct Streams {
    /// Of all connections.
    open: Arc<OpenStreams>,
    /// Of this connection.
    counts: Arc<StreamCounts>,
}

/// The HTTP/2 streams whose tasks have not ended.
#[derive(Default)]
struct OpenStreams {
    resets: Mutex<Resets>,
    /// Woken with each end of a stream.
    waiter: AtomicWaker,
}

#[derive(Default)]
struct Resets {
    open: Slab<StreamReset>,
    /// The server has ended: new streams are reset at once.
    cut: bool,
}

impl OpenStreams {
    fn resets(&self) -> MutexGuard<'_, Resets> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers of HTTP/2 streams of a connection: those open now, and all so far.
#[derive(Default)]
struct StreamCounts {
    open: AtomicUsize,
    opened: AtomicUsize,
}

impl Streams {
    /// Returns a clone for a new connection.
    pub(super) fn of_connection(&self) -> Self {
        Self { counts: Arc::default(), ..self.clone() }
    }

    /// Resets all streams when the guard is dropped, and later ones as they open.
    pub(super) fn cut_on_drop(&self) -> CutOnDrop {
        CutOnDrop(self.open.clone())
    }

    /// Resolves when the tasks of all streams have ended. Only one task may wait.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| {
            self.open.waiter.register(cx.waker());
            if self.len() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Number of streams whose tasks have not ended.
    pub(super) fn len(&self) -> usize {
        self.open.resets().open.len()
    }

    /// Resolves once an HTTP/2 connection has had no stream for a while. Over HTTP/1.1 it never resolves: there hyper
    /// waits for the next request only for the head timeout.
    pub(super) async fn idle(&self) {
        loop {
            let opened = self.counts.opened.load(Ordering::Acquire);
            sleep(IDLE_TIMEOUT).await;
            let idle = self.counts.open.load(Ordering::Acquire) == 0;
            if idle && opened > 0 && opened == self.counts.opened.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

/// Resets all streams when it is dropped.
pub(super) struct CutOnDrop(Arc<OpenStreams>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        let mut resets = self.0.resets();
        resets.cut = true;
        let open: Vec<_> = resets.open.iter().map(|(_, reset)| reset.clone()).collect();
        // Tasks are woken without the lock, which they take when they end.
        drop(resets);
        open.iter().for_each(StreamReset::request);
    }
}

/// Counts one open stream until dropped.
struct Counted {
    open: Arc<OpenStreams>,
    key: usize,
    counts: Arc<StreamCounts>,
}

impl Counted {
    fn new(Streams { open, counts }: &Streams, reset: StreamReset) -> Self {
        counts.opened.fetch_add(1, Ordering::AcqRel);
        counts.open.fetch_add(1, Ordering::AcqRel);
        let mut resets = open.resets();
        if resets.cut {
            reset.request();
        }
        let key = resets.open.insert(reset);
        drop(resets);
        Self { open: open.clone(), key, counts: counts.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::AcqRel);
        // The lock is released first: dropping a reset may drop the waker of a task.
        let reset = self.open.resets().open.try_remove(self.key);
        drop(reset);
        self.open.waiter.wake();
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let reset = StreamReset::default();
        let stream = STREAM.scope(reset.clone(), stream);
        let counted = Counted::new(self, reset.clone());
        tokio::spawn(Resettable { stream, reset, counted });
    }
}

pin_project_lite::pin_project! {
    /// Runs a stream's future until it ends or is reset. An `async` block would hold the future several times.
    struct Resettable<F> {
        #[pin]
        stream: F,
        reset: StreamReset,
        // The last field: a stream counts until its future is dropped.
        counted: Counted,
    }
}

impl<F: Future<Output = ()>> Future for Resettable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.reset.poll_requested(cx) {
            // The task drops the stream with this future.
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => this.stream.poll(cx),
        }
    }
}
