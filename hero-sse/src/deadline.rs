//! A socket whose writes must make progress while a stream is live on it.
//!
//! hyper does not poll a body while the socket is blocked, so nothing inside a stream can notice
//! that its reader stopped. This wrapper sits under hyper and can.

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
use tokio_util::sync::CancellationToken;

use crate::close::CloseReason;

/// Where a kernel tells of every byte that is taken, a reader of one now and then makes progress all
/// the time. So while writes are blocked it must also take this much in [`TRICKLE_TIMEOUTS`] write
/// timeouts. (Linux tells of no less than about half of what may be unsent.)
const TRICKLE_BYTES: usize = 16 * 1024;
const TRICKLE_TIMEOUTS: u32 = 4;

/// A write timeout that never comes.
const OFF: u64 = u64::MAX;

/// What a socket and the streams on it know of each other.
#[derive(Debug, Default)]
pub(crate) struct SocketWatch {
    /// How many streams are live on the socket.
    streams: AtomicUsize,
    /// The largest write timeout among them in milliseconds; zero before there was one, [`OFF`] is
    /// larger than any. It stays in force after the last stream has ended, until its bytes are flushed
    /// and there is another request: without one the socket is on its way to its end, which must be in
    /// time as well.
    timeout: AtomicU64,
    /// Whether the timeouts are in force.
    engaged: AtomicBool,
    /// Held where they come into force or go out of it: a stream may begin during a flush.
    turning: Mutex<()>,
    /// Whether all that was written from the last stream's start to the request after it is out.
    flushed: AtomicBool,
    /// Whether there was a request after the last stream's.
    moved_on: AtomicBool,
    write_timed_out: AtomicBool,
    peer_timed_out: AtomicBool,
    abandoned: AtomicBool,
    /// How many streams there were, so that a kill meets none but its own.
    begun: AtomicUsize,
    killed: AtomicBool,
    /// Of the task whose write is blocked.
    blocked: AtomicWaker,
}

impl SocketWatch {
    /// Whether bytes of this stream still wait to be written, if it began last.
    fn owes(&self, stream: usize) -> bool {
        self.begun.load(Ordering::Acquire) == stream && !self.flushed.load(Ordering::Acquire)
    }

    /// Fails the socket's writes, one that is blocked as well, and resets it.
    fn kill(&self) {
        self.abandon();
        self.killed.store(true, Ordering::Release);
        self.blocked.wake();
    }

    /// Something is about to be written.
    fn writing(&self) -> io::Result<()> {
        if !self.moved_on.load(Ordering::Acquire) {
            self.flushed.store(false, Ordering::Release);
        }
        self.alive()
    }

    fn alive(&self) -> io::Result<()> {
        if self.killed.load(Ordering::Acquire) {
            let kind = io::ErrorKind::ConnectionAborted;
            return Err(io::Error::new(kind, "the stream's access was withdrawn"));
        }
        Ok(())
    }

    /// Nobody will see to what is still to be sent: dropping the socket resets it.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// A request has come. It may be a stream's, which then says so.
    pub(crate) fn request(&self) {
        self.moved_on.store(true, Ordering::Release);
        if self.flushed.load(Ordering::Acquire) {
            self.release();
        }
    }

    /// Holds the socket to `timeout` until the guard is gone, what was written by then is out and
    /// another request has come.
    pub(crate) fn arm(self: &Arc<Self>, timeout: Option<Duration>) -> Armed {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        self.streams.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.moved_on.store(false, Ordering::Release);
        self.flushed.store(false, Ordering::Release);
        self.engaged.store(true, Ordering::Release);
        let millis = timeout.map(|timeout| timeout.as_millis());
        let millis = millis.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(OFF);
        self.timeout.fetch_max(millis, Ordering::AcqRel);
        Armed(self.clone())
    }

    /// Why the socket failed, if it is one of the timeouts.
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

    /// Everything written is out.
    fn flushed(&self) {
        self.flushed.store(true, Ordering::Release);
        if self.moved_on.load(Ordering::Acquire) {
            self.release();
        }
    }

    /// Without a live stream the deadline has done its work.
    fn release(&self) {
        if !self.engaged.load(Ordering::Acquire) || self.streams.load(Ordering::Acquire) > 0 {
            return;
        }
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.streams.load(Ordering::Acquire) == 0 {
            self.timeout.store(0, Ordering::Release);
            self.engaged.store(false, Ordering::Release);
        }
    }
}

/// The way to reset one HTTP/2 stream: its request carries it. Whoever serves the stream drops it when
/// the token says so.
#[derive(Clone, Debug)]
pub(crate) struct StreamReset(pub(crate) CancellationToken);

/// A live stream's hold on its socket.
#[derive(Debug)]
pub(crate) struct Armed(Arc<SocketWatch>);

/// A way to cut one stream's socket, whether the stream still lives or not.
#[derive(Debug)]
pub(crate) struct Hold {
    watch: Arc<SocketWatch>,
    stream: usize,
}

impl Hold {
    /// An ended stream's socket is cut only for what the stream left unsent.
    pub(crate) fn cut(&self, ended: bool) {
        if !ended || self.watch.owes(self.stream) {
            self.watch.kill();
        }
    }
}

impl Armed {
    /// For the stream that began last, which this one is when it begins.
    pub(crate) fn hold(&self) -> Hold {
        Hold { watch: self.0.clone(), stream: self.0.begun.load(Ordering::Acquire) }
    }

    pub(crate) fn failure(&self) -> Option<CloseReason> {
        self.0.failure()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A guarded socket, which [`HeroSse::guard`](crate::HeroSse::guard) makes of one.
///
/// While a stream is live on it, a write that makes no progress for the stream's write timeout fails
/// with [`io::ErrorKind::TimedOut`]. A socket dropped while it is blocked is reset, since a plain close
/// would leave the kernel holding its buffers for minutes; after an orderly end the kernel has the peer
/// timeout to deliver the rest.
#[derive(Debug)]
pub struct DeadlineIo<T: Any> {
    io: T,
    watch: Arc<SocketWatch>,
    /// How long the kernel may wait for the peer's acknowledgement while a stream is live: then a
    /// vanished peer, or one that keeps its window shut, ends the connection whatever the rate.
    peer_timeout: Option<Duration>,
    peer_timeout_set: bool,
    blocked: Option<Blocked>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Since when, and how badly, writes are blocked.
#[derive(Debug)]
struct Blocked {
    progress: Instant,
    window: Instant,
    window_bytes: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> DeadlineIo<T> {
    pub(crate) fn new(io: T, watch: Arc<SocketWatch>, peer_timeout: Option<Duration>) -> Self {
        Self { io, watch, peer_timeout, peer_timeout_set: false, blocked: None, timer: None }
    }

    pub(crate) fn watch(&self) -> &Arc<SocketWatch> {
        &self.watch
    }

    /// Keeps the kernel's timeout in step with the streams; a call to it only where that changes.
    fn engage(&mut self) {
        let engaged = self.watch.engaged.load(Ordering::Acquire) && self.peer_timeout.is_some();
        if engaged != self.peer_timeout_set {
            self.peer_timeout_set = engaged;
            set_user_timeout(&self.io, self.peer_timeout.filter(|_| engaged));
        }
    }

    /// Judges the outcome of a write.
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
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.noted(error))),
            Poll::Pending => {
                self.watch.blocked.register(cx.waker());
                // It may have come before there was somebody to wake.
                self.watch.alive()?;
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
        // Progress only ever moves the deadline back, so the timer is set anew when it fires, not
        // at every write; a shorter timeout of a later stream moves it forward.
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

    /// The kernel reports a peer that acknowledges nothing as a time-out of its own, or as why it
    /// could not be reached where it was told: that a neighbour does not answer, a router's word.
    fn noted(&self, error: io::Error) -> io::Error {
        use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        if matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable) {
            self.watch.peer_timed_out.store(true, Ordering::Release);
        }
        error
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncRead for DeadlineIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        Poll::Ready(read.map_err(|error| self.noted(error)))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncWrite for DeadlineIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch.writing()?;
        self.engage();
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.writing()?;
        self.engage();
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes once its own buffer is empty: the reader has caught up.
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

/// What is no TCP socket, and what the kernel refuses, goes without.
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

impl<T: Any> Drop for DeadlineIo<T> {
    fn drop(&mut self) {
        if (self.blocked.is_some() || self.watch.abandoned.load(Ordering::Acquire))
            && let Some(socket) = (&mut self.io as &mut dyn Any).downcast_mut::<TcpStream>()
        {
            // A socket that refuses is closed the ordinary way.
            let _ = socket.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn pair() -> (DeadlineIo<DuplexStream>, DuplexStream, Arc<SocketWatch>) {
        let (near, far) = duplex(64);
        let watch = Arc::new(SocketWatch::default());
        (DeadlineIo::new(near, watch.clone(), None), far, watch)
    }

    async fn seconds_until_failure(io: &mut DeadlineIo<DuplexStream>) -> f64 {
        let start = Instant::now();
        let error = io.write_all(&[0; 1 << 20]).await.expect_err("a stalled reader");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_fails_the_write_at_the_timeout() {
        let (mut io, _far, watch) = pair();
        let armed = watch.arm(Some(TIMEOUT));
        let seconds = seconds_until_failure(&mut io).await;
        assert!((5.0..5.1).contains(&seconds), "{seconds}");
        assert_eq!(armed.failure(), Some(CloseReason::WriteTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_byte_now_and_then_fails_too() {
        let (mut io, mut far, watch) = pair();
        let _armed = watch.arm(Some(TIMEOUT));
        tokio::spawn(async move {
            let mut byte = [0];
            while far.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        let seconds = seconds_until_failure(&mut io).await;
        assert!((20.0..21.0).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_keeps_going_is_left_alone() {
        let (mut io, mut far, watch) = pair();
        let _armed = watch.arm(Some(TIMEOUT));
        tokio::spawn(async move {
            let mut bytes = [0; 64];
            while far.read_exact(&mut bytes).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let start = Instant::now();
        io.write_all(&[0; 256 * 1024]).await.expect("a patient write");
        assert!(start.elapsed() > Duration::from_secs(200));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_stream_the_socket_waits_for_ever() {
        let (mut io, _far, watch) = pair();
        let write = io.write_all(&[0; 1 << 20]);
        assert!(tokio::time::timeout(Duration::from_secs(3600), write).await.is_err());
        assert_eq!(watch.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_bytes_of_a_stream_are_under_the_deadline_too() {
        let (mut io, _far, watch) = pair();
        drop(watch.arm(Some(TIMEOUT)));
        let seconds = seconds_until_failure(&mut io).await;
        assert!((5.0..5.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn once_a_streams_bytes_are_out_the_next_request_frees_the_socket() {
        let (mut io, mut far, watch) = pair();
        drop(watch.arm(Some(TIMEOUT)));
        io.write_all(&[0; 10]).await.expect("a write");
        io.flush().await.expect("a flush");
        far.read_exact(&mut [0; 10]).await.expect("a read");
        watch.request();
        let write = io.write_all(&[0; 1 << 20]);
        assert!(tokio::time::timeout(Duration::from_secs(3600), write).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_after_a_streams_bytes_is_under_the_deadline() {
        let (mut io, mut far, watch) = pair();
        watch.request();
        drop(watch.arm(Some(TIMEOUT)));
        io.write_all(&[0; 10]).await.expect("a write");
        io.flush().await.expect("a flush");
        far.read_exact(&mut [0; 10]).await.expect("a read");
        let seconds = seconds_until_failure(&mut io).await;
        assert!((5.0..5.1).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_while_a_stream_is_live_frees_the_socket_when_both_are_done() {
        let (mut io, mut far, watch) = pair();
        let armed = watch.arm(Some(TIMEOUT));
        watch.request();
        io.write_all(&[0; 10]).await.expect("a write");
        io.flush().await.expect("a flush");
        drop(armed);
        far.read_exact(&mut [0; 10]).await.expect("a read");
        io.write_all(&[0; 10]).await.expect("a write");
        io.flush().await.expect("a flush");
        far.read_exact(&mut [0; 10]).await.expect("a read");
        let write = io.write_all(&[0; 1 << 20]);
        assert!(tokio::time::timeout(Duration::from_secs(3600), write).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_has_caught_up_starts_with_a_fresh_timeout() {
        let (mut io, mut far, watch) = pair();
        let _armed = watch.arm(Some(TIMEOUT));
        for _ in 0..3 {
            let stall = Duration::from_secs(4);
            let write = async {
                io.write_all(&[0; 128]).await.expect("a write");
                io.flush().await.expect("a flush");
            };
            let read = async {
                tokio::time::sleep(stall).await;
                far.read_exact(&mut [0; 128]).await.expect("a read");
            };
            tokio::join!(write, read);
            // Idle for longer than the timeout: nothing was blocked.
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(watch.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_end_a_stream_is_cut_for_what_it_left_unsent_itself_alone() {
        let (mut io, mut far, watch) = pair();
        let first = watch.arm(Some(TIMEOUT)).hold();
        io.write_all(&[0; 10]).await.expect("a write");
        io.flush().await.expect("a flush");
        first.cut(true);
        // Not for the next stream's bytes.
        let second = watch.arm(Some(TIMEOUT)).hold();
        io.write_all(&[0; 10]).await.expect("not cut");
        first.cut(true);
        io.flush().await.expect("a flush");
        // Nor for those of an answer to the request after it.
        watch.request();
        io.write_all(&[0; 10]).await.expect("not cut");
        second.cut(true);
        io.flush().await.expect("a flush");
        far.read_exact(&mut [0; 30]).await.expect("a read");
        // But for its own, though there was a flush before.
        let third = watch.arm(Some(TIMEOUT)).hold();
        io.flush().await.expect("a flush");
        io.write_all(&[0; 10]).await.expect("not cut");
        third.cut(true);
        let error = io.write_all(&[0; 10]).await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    /// Fails every read.
    struct Broken(io::ErrorKind);

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.0.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_peer_that_could_not_be_reached_timed_out_whatever_the_kernel_calls_it() {
        use io::ErrorKind::{ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
        for (kind, reason) in [
            (TimedOut, Some(CloseReason::PeerTimeout)),
            (HostUnreachable, Some(CloseReason::PeerTimeout)),
            (NetworkUnreachable, Some(CloseReason::PeerTimeout)),
            (ConnectionReset, None),
        ] {
            let watch = Arc::new(SocketWatch::default());
            let mut io = DeadlineIo::new(Broken(kind), watch.clone(), None);
            let error = io.read_u8().await.expect_err("a broken socket");
            assert_eq!((error.kind(), watch.failure()), (kind, reason));
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernels_peer_timeout_holds_while_a_stream_is_live() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let socket = TcpStream::connect(address).await.expect("a socket");
        let watch = Arc::new(SocketWatch::default());
        let mut io = DeadlineIo::new(socket, watch.clone(), Some(Duration::from_secs(7)));
        let kernel = |io: &DeadlineIo<TcpStream>| {
            socket2::SockRef::from(&io.io).tcp_user_timeout().expect("an option")
        };
        let off = kernel(&io);
        io.write_all(b"x").await.expect("a write");
        assert_eq!(kernel(&io), off, "without a stream the socket is not ours to limit");
        let armed = watch.arm(None);
        io.write_all(b"x").await.expect("a write");
        assert_eq!(kernel(&io), Some(Duration::from_secs(7)));
        drop(armed);
        io.flush().await.expect("a flush");
        assert_eq!(kernel(&io), Some(Duration::from_secs(7)), "the goodbye is still to come");
        watch.request();
        io.write_all(b"x").await.expect("a write");
        assert_eq!(kernel(&io), off);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_that_is_off_is_the_largest() {
        let (mut io, _far, watch) = pair();
        let _off = watch.arm(None);
        let _five = watch.arm(Some(TIMEOUT));
        let write = io.write_all(&[0; 1 << 20]);
        assert!(tokio::time::timeout(Duration::from_secs(3600), write).await.is_err());
    }

    #[test]
    fn a_stream_that_begins_during_a_flush_keeps_its_deadline() {
        let watch = Arc::new(SocketWatch::default());
        let stop = Arc::new(AtomicBool::new(false));
        let flusher = {
            let (watch, stop) = (watch.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    watch.request();
                    watch.flushed();
                }
            })
        };
        for _ in 0..100_000 {
            let armed = watch.arm(Some(TIMEOUT));
            std::hint::spin_loop();
            assert_eq!(watch.timeout(), Some(TIMEOUT));
            assert!(watch.engaged.load(Ordering::Acquire));
            drop(armed);
        }
        stop.store(true, Ordering::Relaxed);
        flusher.join().expect("no panic");
    }
}
