//! A socket whose writes must make progress while a stream is live on it.
//!
//! hyper does not poll a body while the socket is blocked, so nothing inside a stream can notice a client
//! that stopped reading. This wrapper sits under hyper and notices.

use std::any::Any;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::close::CloseReason;
use crate::connections::StreamPhase;

/// A trickle of bytes does not count as progress: while writes are blocked, a client must also take this
/// much within [`TRICKLE_TIMEOUTS`] write timeouts. Some kernels report every single byte as progress.
/// (Linux reports progress only after about half of the unsent bytes have drained.)
const TRICKLE_BYTES: usize = 16 * 1024;
const TRICKLE_TIMEOUTS: u32 = 4;

/// The write timeout is off.
const OFF: u64 = u64::MAX;

/// The state that a socket shares with the streams on it.
#[derive(Debug, Default)]
pub(crate) struct SocketWatch {
    /// Number of live streams on the socket.
    streams: AtomicUsize,
    /// The largest write timeout of the streams, in milliseconds. Zero before the first stream; [`OFF`] is
    /// larger than any other value. It applies until the last stream's bytes are flushed and another request
    /// has arrived. Without another request the socket is closing, which has to happen in time as well.
    timeout: AtomicU64,
    /// Whether the write timeout and the peer timeout apply.
    engaged: AtomicBool,
    /// Held while `engaged` changes, since a stream may begin during a flush.
    transition: Mutex<()>,
    /// Whether everything written between the last stream's start and the next request is flushed.
    flushed: AtomicBool,
    /// Whether another request has arrived since the last stream began.
    next_request: AtomicBool,
    write_timed_out: AtomicBool,
    peer_timed_out: AtomicBool,
    abandoned: AtomicBool,
    /// Number of streams begun so far, so that a cut affects its own stream alone.
    begun: AtomicUsize,
    cut: AtomicBool,
    /// Wakes the task whose write is blocked.
    blocked_writer: AtomicWaker,
    /// Wakes the task that waits for a flush.
    flush_waiter: AtomicWaker,
}

impl SocketWatch {
    /// Whether this stream began last and left unsent bytes.
    fn has_unsent_bytes(&self, stream: usize) -> bool {
        self.begun.load(Ordering::Acquire) == stream && !self.flushed.load(Ordering::Acquire)
    }

    /// Fails the socket's writes, including a blocked one, and makes its drop reset it.
    fn cut(&self) {
        self.reset_on_drop();
        self.cut.store(true, Ordering::Release);
        self.blocked_writer.wake();
    }

    /// Call before each write.
    fn before_write(&self) -> io::Result<()> {
        if !self.next_request.load(Ordering::Acquire) {
            self.flushed.store(false, Ordering::Release);
        }
        self.check_cut()
    }

    fn check_cut(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            let kind = io::ErrorKind::ConnectionAborted;
            return Err(io::Error::new(kind, "the stream was disconnected"));
        }
        Ok(())
    }

    /// Makes the socket's drop reset it: unsent bytes are discarded.
    pub(crate) fn reset_on_drop(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Call when a request arrives. If it opens a stream, [`arm`](Self::arm) follows.
    pub(crate) fn request(&self) {
        self.next_request.store(true, Ordering::Release);
        if self.flushed.load(Ordering::Acquire) {
            self.release();
        }
    }

    /// Applies the write timeout of a stream that begins. It ends when the returned guard is dropped, what
    /// was written until then is flushed, and another request has arrived.
    pub(crate) fn arm(self: &Arc<Self>, timeout: Option<Duration>) -> ArmedTimeout {
        let _transition = self.transition.lock().unwrap_or_else(PoisonError::into_inner);
        self.streams.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.next_request.store(false, Ordering::Release);
        self.flushed.store(false, Ordering::Release);
        self.engaged.store(true, Ordering::Release);
        let millis = timeout.map(|timeout| timeout.as_millis());
        let millis = millis.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(OFF);
        self.timeout.fetch_max(millis, Ordering::AcqRel);
        ArmedTimeout(self.clone())
    }

    /// Returns which timeout failed the socket, if one did.
    pub(crate) fn failure(&self) -> Option<CloseReason> {
        if self.write_timed_out.load(Ordering::Acquire) {
            Some(CloseReason::WriteTimeout)
        } else if self.peer_timed_out.load(Ordering::Acquire) {
            Some(CloseReason::PeerTimeout)
        } else {
            None
        }
    }

    fn timeout(&self) -> Option<Duration> {
        match self.timeout.load(Ordering::Acquire) {
            0 | OFF => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// Call when everything written is flushed.
    fn flushed(&self) {
        self.flushed.store(true, Ordering::Release);
        self.flush_waiter.wake();
        if self.next_request.load(Ordering::Acquire) {
            self.release();
        }
    }

    /// Ready when everything that was written is flushed.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        self.flush_waiter.register(cx.waker());
        match self.flushed.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Ends the timeouts, unless a stream is live.
    fn release(&self) {
        if !self.engaged.load(Ordering::Acquire) || self.streams.load(Ordering::Acquire) > 0 {
            return;
        }
        let _transition = self.transition.lock().unwrap_or_else(PoisonError::into_inner);
        if self.streams.load(Ordering::Acquire) == 0 {
            self.timeout.store(0, Ordering::Release);
            self.engaged.store(false, Ordering::Release);
        }
    }
}

/// Keeps a socket's write timeout in force while a stream is live.
#[derive(Debug)]
pub(crate) struct ArmedTimeout(Arc<SocketWatch>);

impl ArmedTimeout {
    /// Call when the stream begins: the handle stands for the stream that began last.
    pub(super) fn cut_handle(&self) -> CutHandle {
        CutHandle { watch: self.0.clone(), stream: self.0.begun.load(Ordering::Acquire) }
    }

    pub(super) fn failure(&self) -> Option<CloseReason> {
        self.0.failure()
    }

    pub(super) fn watch(&self) -> &SocketWatch {
        &self.0
    }
}

impl Drop for ArmedTimeout {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Cuts one stream off by failing its socket, even after the stream has ended.
#[derive(Debug)]
pub(super) struct CutHandle {
    watch: Arc<SocketWatch>,
    stream: usize,
}

impl CutHandle {
    /// After a stream has ended, its socket is cut only if the stream left unsent bytes.
    pub(super) fn cut(&self, phase: StreamPhase) {
        if phase == StreamPhase::Live || self.watch.has_unsent_bytes(self.stream) {
            self.watch.cut();
        }
    }
}

/// A socket with a write timeout, made by [`HeroSse::guard`](crate::HeroSse::guard) and
/// [`HeroSse::guard_connection`](crate::HeroSse::guard_connection).
///
/// While a stream is live on it, a write that makes no progress for the stream's write timeout fails
/// with [`io::ErrorKind::TimedOut`]. If the socket is dropped while a write is blocked, the connection is
/// reset: after a plain close the kernel would hold the unsent bytes for minutes. After an orderly end the
/// kernel has the peer timeout to deliver the remaining bytes.
#[derive(Debug)]
pub struct GuardedIo<T: Any> {
    io: T,
    watch: Arc<SocketWatch>,
    /// How long the kernel may wait for the peer's acknowledgement while a stream is live. It ends the
    /// connection of a peer that vanished or that keeps its receive window closed.
    peer_timeout: Option<Duration>,
    peer_timeout_set: bool,
    blocked: Option<Blocked>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The progress of blocked writes.
#[derive(Debug)]
struct Blocked {
    /// The last progress, or the start.
    progress: Instant,
    /// Start of the current trickle window, and the bytes taken within it.
    window: Instant,
    window_bytes: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> GuardedIo<T> {
    pub(crate) fn new(io: T, watch: Arc<SocketWatch>, peer_timeout: Option<Duration>) -> Self {
        Self { io, watch, peer_timeout, peer_timeout_set: false, blocked: None, timer: None }
    }

    pub(crate) fn watch(&self) -> &Arc<SocketWatch> {
        &self.watch
    }

    /// Sets or clears the kernel's timeout to match the streams. It makes a system call only on a change.
    fn engage(&mut self) {
        let engaged = self.watch.engaged.load(Ordering::Acquire) && self.peer_timeout.is_some();
        if engaged != self.peer_timeout_set {
            self.peer_timeout_set = engaged;
            set_user_timeout(&self.io, self.peer_timeout.filter(|_| engaged));
        }
    }

    /// Checks the deadline after a write attempt.
    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some(blocked) = &mut self.blocked {
                    blocked.progress = Instant::now();
                    blocked.window_bytes += bytes;
                    if blocked.window_bytes >= TRICKLE_BYTES {
                        blocked.window = blocked.progress;
                        blocked.window_bytes = 0;
                    }
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.note_peer_timeout(error))),
            Poll::Pending => {
                self.watch.blocked_writer.register(cx.waker());
                // A cut before the registration woke no task.
                self.watch.check_cut()?;
                self.poll_deadline(cx)
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let blocked = self.blocked.get_or_insert_with(|| {
            let now = Instant::now();
            Blocked { progress: now, window: now, window_bytes: 0 }
        });
        let Some(timeout) = self.watch.timeout() else {
            return Poll::Pending;
        };
        let deadline =
            (blocked.progress + timeout).min(blocked.window + timeout * TRICKLE_TIMEOUTS);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // Progress only ever postpones the deadline, so the timer is reset when it fires, not at every
        // write. A later stream's shorter timeout brings it forward.
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                self.watch.write_timed_out.store(true, Ordering::Release);
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client did not take a write within the write timeout",
                )));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Records a peer timeout. The kernel reports it as `TimedOut`, or as unreachable if a router or a missing
    /// neighbour said so.
    fn note_peer_timeout(&self, error: io::Error) -> io::Error {
        use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        if matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable) {
            self.watch.peer_timed_out.store(true, Ordering::Release);
        }
        error
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncRead for GuardedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        Poll::Ready(read.map_err(|error| self.note_peer_timeout(error)))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncWrite for GuardedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch.before_write()?;
        self.engage();
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.before_write()?;
        self.engage();
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes once its own buffer is empty: the client has caught up.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.blocked = None;
        self.watch.flushed();
        self.engage();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Sets the kernel's timeout on a TCP socket. Other sockets have none, and a refusal is only logged.
fn set_user_timeout(io: &dyn Any, timeout: Option<Duration>) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(socket) = io.downcast_ref::<TcpStream>()
        && let Err(error) = socket2::SockRef::from(socket).set_tcp_user_timeout(timeout)
    {
        crate::telemetry::no_kernel_options(&error);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (io, timeout);
}

impl<T: Any> Drop for GuardedIo<T> {
    fn drop(&mut self) {
        if (self.blocked.is_some() || self.watch.abandoned.load(Ordering::Acquire))
            && let Some(socket) = (&mut self.io as &mut dyn Any).downcast_mut::<TcpStream>()
        {
            // On an error the socket is closed in the ordinary way.
            let _ = socket.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests;
