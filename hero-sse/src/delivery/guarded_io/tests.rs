use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);

fn pair() -> (GuardedIo<DuplexStream>, DuplexStream, Arc<SocketWatch>) {
    let (near, far) = duplex(64);
    let watch = Arc::new(SocketWatch::default());
    (GuardedIo::new(near, watch.clone(), None), far, watch)
}

async fn seconds_until_failure(io: &mut GuardedIo<DuplexStream>) -> f64 {
    let start = Instant::now();
    let error = io.write_all(&[0; 1 << 20]).await.expect_err("a stalled reader");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    start.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_fails_the_write_at_the_timeout() {
    let (mut io, _far, watch) = pair();
    let armed = watch.arm(Some(TIMEOUT));
    let seconds = seconds_until_failure(&mut io).await;
    assert!((5.0..5.1).contains(&seconds), "{seconds}");
    assert_eq!(armed.failure(), Some(CloseReason::WriteTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_trickle_of_bytes_fails_the_write_after_four_timeouts() {
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
async fn a_slow_client_that_makes_progress_is_not_cut_off() {
    let (mut io, mut far, watch) = pair();
    let _armed = watch.arm(Some(TIMEOUT));
    tokio::spawn(async move {
        let mut bytes = [0; 64];
        while far.read_exact(&mut bytes).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let start = Instant::now();
    io.write_all(&[0; 256 * 1024]).await.expect("no timeout");
    assert!(start.elapsed() > Duration::from_secs(200));
}

#[tokio::test(start_paused = true)]
async fn without_a_stream_a_write_never_times_out() {
    let (mut io, _far, watch) = pair();
    let write = io.write_all(&[0; 1 << 20]);
    assert!(tokio::time::timeout(Duration::from_secs(3600), write).await.is_err());
    assert_eq!(watch.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn the_last_bytes_of_a_stream_are_under_the_timeout() {
    let (mut io, _far, watch) = pair();
    drop(watch.arm(Some(TIMEOUT)));
    let seconds = seconds_until_failure(&mut io).await;
    assert!((5.0..5.1).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn the_next_request_ends_the_timeout_once_a_streams_bytes_are_flushed() {
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
async fn without_another_request_what_follows_a_stream_is_under_the_timeout() {
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
async fn a_request_during_a_stream_ends_the_timeout_when_both_are_done() {
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
async fn a_client_that_has_caught_up_gets_the_full_timeout_again() {
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
async fn an_ended_stream_is_cut_only_for_bytes_that_it_left_unsent_itself() {
    let (mut io, mut far, watch) = pair();
    let first = watch.arm(Some(TIMEOUT)).cut_handle();
    io.write_all(&[0; 10]).await.expect("a write");
    io.flush().await.expect("a flush");
    first.cut(StreamPhase::Ended);
    // The next stream's bytes do not count.
    let second = watch.arm(Some(TIMEOUT)).cut_handle();
    io.write_all(&[0; 10]).await.expect("not cut");
    first.cut(StreamPhase::Ended);
    io.flush().await.expect("a flush");
    // Nor do those of the response to a later request.
    watch.request();
    io.write_all(&[0; 10]).await.expect("not cut");
    second.cut(StreamPhase::Ended);
    io.flush().await.expect("a flush");
    far.read_exact(&mut [0; 30]).await.expect("a read");
    // Its own do, although there was a flush before.
    let third = watch.arm(Some(TIMEOUT)).cut_handle();
    io.flush().await.expect("a flush");
    io.write_all(&[0; 10]).await.expect("not cut");
    third.cut(StreamPhase::Ended);
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
async fn every_error_of_an_unreachable_peer_is_a_peer_timeout() {
    use io::ErrorKind::{ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    for (kind, reason) in [
        (TimedOut, Some(CloseReason::PeerTimeout)),
        (HostUnreachable, Some(CloseReason::PeerTimeout)),
        (NetworkUnreachable, Some(CloseReason::PeerTimeout)),
        (ConnectionReset, None),
    ] {
        let watch = Arc::new(SocketWatch::default());
        let mut io = GuardedIo::new(Broken(kind), watch.clone(), None);
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
    let mut io = GuardedIo::new(socket, watch.clone(), Some(Duration::from_secs(7)));
    let kernel = |io: &GuardedIo<TcpStream>| {
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
    assert_eq!(
        kernel(&io),
        Some(Duration::from_secs(7)),
        "the end of the connection is still to be sent"
    );
    watch.request();
    io.write_all(b"x").await.expect("a write");
    assert_eq!(kernel(&io), off);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_is_off_overrides_any_other_on_the_socket() {
    let (mut io, _far, watch) = pair();
    let _off = watch.arm(None);
    let _five = watch.arm(Some(TIMEOUT));
    let write = io.write_all(&[0; 1 << 20]);
    assert!(tokio::time::timeout(Duration::from_secs(3600), write).await.is_err());
}

#[test]
fn a_stream_that_begins_during_a_flush_keeps_its_timeout() {
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
