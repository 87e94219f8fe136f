//! The end of a body that breaks off: its client must see that the answer is not whole.
//!
//! A server that gets an error from a body drops what it has not sent yet, and so would the last events be lost.
//! Therefore the error waits until the bytes before it are on their way.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::task::AtomicWaker;
use tokio::time::{Sleep, sleep};

use super::guarded_io::SocketWatch;
use crate::close::CloseReason;

/// The error of a body that breaks off. hyper closes an HTTP/1.1 connection without the last chunk, and resets an
/// HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct BrokenOff(pub(crate) CloseReason);

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream broke off: {}", self.0)
    }
}

impl std::error::Error for BrokenOff {}

/// How long the last bytes may take at most. A shorter write timeout is the limit.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Waits until the bytes before a break are on their way.
#[derive(Default)]
pub(crate) struct LastBytes {
    held: Arc<Held>,
    /// The server has had a turn to send them.
    yielded: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The pieces that the server holds.
#[derive(Default)]
struct Held {
    pieces: AtomicUsize,
    waiter: AtomicWaker,
}

/// Bytes on their way to the client.
struct HeldPiece {
    bytes: Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for HeldPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldPiece {
    fn drop(&mut self) {
        self.held.pieces.fetch_sub(1, Ordering::AcqRel);
        self.held.waiter.wake();
    }
}

impl LastBytes {
    /// Returns the bytes, whose release it waits for.
    pub(crate) fn hold(&self, bytes: Bytes) -> Bytes {
        self.held.pieces.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(HeldPiece { bytes, held: self.held.clone() })
    }

    /// Ready once the server has sent what it was given, or after `timeout`. A socket of HTTP/1.1 knows it best,
    /// because hyper may have copied the bytes.
    pub(super) fn poll_sent(
        &mut self,
        cx: &mut Context<'_>,
        socket: Option<&SocketWatch>,
        timeout: Option<Duration>,
    ) -> Poll<()> {
        let wait = timeout.map_or(LONGEST_WAIT, |timeout| timeout.min(LONGEST_WAIT));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.held.waiter.register(cx.waker());
        if !std::mem::replace(&mut self.yielded, true) {
            // A server polls a body until it is pending, and only then sends what it has.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let held = self.held.pieces.load(Ordering::Acquire) > 0;
        if held || socket.is_some_and(|socket| socket.poll_flushed(cx).is_pending()) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// A body of a few bytes that breaks off.
pub(crate) struct BrokenBody {
    bytes: Bytes,
    reason: CloseReason,
    last: LastBytes,
    is_over: bool,
}

impl BrokenBody {
    pub(crate) fn new(bytes: Bytes, reason: CloseReason) -> Self {
        Self { bytes, reason, last: LastBytes::default(), is_over: false }
    }
}

impl Stream for BrokenBody {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = self.get_mut();
        if !body.bytes.is_empty() {
            let bytes = body.last.hold(std::mem::take(&mut body.bytes));
            return Poll::Ready(Some(Ok(bytes)));
        }
        if body.is_over {
            return Poll::Ready(None);
        }
        ready!(body.last.poll_sent(cx, None, None));
        body.is_over = true;
        Poll::Ready(Some(Err(BrokenOff(body.reason))))
    }
}
