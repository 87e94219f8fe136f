//! The settings of hyper, and the tasks of its HTTP/2 streams.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use crate::delivery::StreamReset;

/// hyper's buffer for a connection. The head of a request must fit into it.
const HYPER_BUFFER: usize = 64 * 1024;

/// HTTP/2 pings find vanished peers of idle connections. A peer has the peer timeout to answer, and a little more,
/// so that the kernel's own timeout, which tells the reason, comes first.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_GRACE: Duration = Duration::from_secs(5);

/// An HTTP/2 connection without streams is closed after this time, or up to twice of it, since it uses an open file.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum number of bytes of one HTTP/2 stream that hyper buffers beyond the client's window.
const STREAM_BUFFER: usize = 32 * 1024;

/// Maximum number of open streams on an HTTP/2 connection.
const STREAMS: u32 = 256;

/// Maximum size of an HTTP/2 request's headers, as for a head over HTTP/1.1.
const HEADER_LIST: u32 = 64 * 1024;

pub(super) fn builder(
    head_timeout: Duration,
    peer_timeout: Option<Duration>,
    streams: Streams,
) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HYPER_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(peer_timeout.map(|_| PING_INTERVAL))
        .keep_alive_timeout(peer_timeout.unwrap_or_default().saturating_add(PING_GRACE))
        .max_send_buf_size(STREAM_BUFFER)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST);
    builder
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
    pub(super) tasks: TaskTracker,
    /// Ends all streams.
    pub(super) cut: CancellationToken,
    /// Of this connection.
    counts: Arc<StreamCounts>,
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

/// Counts one open stream until dropped.
struct Counted(Arc<StreamCounts>);

impl Counted {
    fn new(counts: &Arc<StreamCounts>) -> Self {
        counts.opened.fetch_add(1, Ordering::AcqRel);
        counts.open.fetch_add(1, Ordering::AcqRel);
        Self(counts.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let token = self.cut.child_token();
        let stream = STREAM.scope(StreamReset(token.clone()), stream);
        let counted = Counted::new(&self.counts);
        self.tasks.spawn(Resettable { stream, reset: token.cancelled_owned(), counted });
    }
}

pin_project_lite::pin_project! {
    /// Runs a stream's future until it ends or is reset. An `async` block would hold the future several times.
    struct Resettable<F> {
        #[pin]
        stream: F,
        #[pin]
        reset: WaitForCancellationFutureOwned,
        counted: Counted,
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
