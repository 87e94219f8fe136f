//! hyper, and the tasks of its HTTP/2 streams.

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

/// hyper's buffer for a connection; a request's head must fit as well.
const HYPER_BUFFER: usize = 64 * 1024;

/// Over HTTP/2 a ping finds the peers that are gone while nothing is said. They have the peer timeout
/// to answer, and a little more: the kernel's own, which tells the reason, comes first.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_GRACE: Duration = Duration::from_secs(5);

/// An HTTP/2 connection without a stream is closed after once or twice this time: whoever holds one for
/// nothing holds a file of ours.
const REST: Duration = Duration::from_secs(120);

/// What one HTTP/2 stream may hold in hyper beyond what its client takes.
const STREAM_BUFFER: usize = 32 * 1024;

/// Streams open at once on an HTTP/2 connection.
const STREAMS: u32 = 256;

/// An HTTP/2 request's header list: as much as the head of one over HTTP/1.1.
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
    /// The reset of the HTTP/2 stream whose future is running.
    static STREAM: StreamReset;
}

/// The reset of the HTTP/2 stream whose future this is a part of.
pub(super) fn current() -> Option<StreamReset> {
    STREAM.try_with(StreamReset::clone).ok()
}

/// Runs the HTTP/2 streams, each in a task of its own that a reset ends. hyper has no other way to
/// give up a stream whose client takes nothing: dropping its future sends `RST_STREAM`.
#[derive(Clone, Default)]
pub(super) struct Streams {
    pub(super) tasks: TaskTracker,
    /// Ends them all.
    pub(super) cut: CancellationToken,
    /// Of this connection alone.
    tally: Arc<Tally>,
}

/// How many HTTP/2 streams a connection has, and has had.
#[derive(Default)]
struct Tally {
    open: AtomicUsize,
    opened: AtomicUsize,
}

impl Streams {
    /// The same for one connection more.
    pub(super) fn of_connection(&self) -> Self {
        Self { tally: Arc::default(), ..self.clone() }
    }

    /// Until the connection has had no HTTP/2 stream for a while, if it is one of HTTP/2. Over HTTP/1.1
    /// hyper waits for the next request for the head timeout alone.
    pub(super) async fn at_rest(&self) {
        loop {
            let opened = self.tally.opened.load(Ordering::Acquire);
            sleep(REST).await;
            let resting = self.tally.open.load(Ordering::Acquire) == 0;
            if resting && opened > 0 && opened == self.tally.opened.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

/// One stream in the tally.
struct Counted(Arc<Tally>);

impl Counted {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.opened.fetch_add(1, Ordering::AcqRel);
        tally.open.fetch_add(1, Ordering::AcqRel);
        Self(tally.clone())
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
        let counted = Counted::new(&self.tally);
        self.tasks.spawn(Resettable { stream, reset: token.cancelled_owned(), counted });
    }
}

pin_project_lite::pin_project! {
    /// A stream's future until it ends or is reset. An `async` block would hold it several times over.
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
