//! Every way in which a client can stall or vanish, over real sockets. Each ends its own stream only, in time, and
//! is counted once. A healthy client beside it misses nothing.
//!
//! Each test prints a line `figure {"case":..,"seconds":..}`: `tests/figures` collects them over many runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::{CloseReason, Event, HeroSse};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::testing::{self, SlowReader};
use crate::support::{Alive, Server, burst, eventually, flood, options, sse_with, watched};

/// Short enough for tests, and long enough that a loaded machine alone does not exceed it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A loaded machine runs timers late.
const MARGIN: f64 = 2.0;

/// A server with streams on its endpoint `/s`, and a healthy client on another endpoint.
struct Scene {
    sse: HeroSse,
    server: Server,
    alive: Alive,
    healthy: JoinHandle<u64>,
    over: Arc<AtomicBool>,
}

/// Numbered events, one every five milliseconds.
fn numbers() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Event::text(format!("{n}")), n + 1))
    })
}

impl Scene {
    async fn open<F, T>(settings: &str, make: F) -> Self
    where
        F: Fn() -> T + Clone + Send + Sync + 'static,
        T: Stream<Item = Event> + Send + 'static,
    {
        let sse = sse_with(options(&format!("WriteTimeout = \"1s\"\n{settings}")));
        let (app, alive) = watched(&sse, make);
        let healthy = sse.endpoint("/healthy").public().handler(async || numbers());
        let app = Router::new().merge(app).merge(healthy.expect("a route"));
        let server = Server::start(&sse, app).await;
        let mut reader = testing::connect(server.address, "/healthy").await.expect("a stream");
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let healthy = tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let event = reader.next().await.expect("in time").expect("an event");
                assert_eq!(event.data, count.to_string(), "lost or doubled");
                count += 1;
            }
            count
        });
        eventually("the healthy client is connected", || sse.connections().len() == 1).await;
        Self { sse, server, alive, healthy, over }
    }

    fn closed(&self) -> Vec<(CloseReason, u64)> {
        let counts = CloseReason::ALL.iter().map(|why| (*why, self.sse.connections().closed(*why)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Opens a raw connection that has requested `/s`.
    async fn ask(&self) -> TcpStream {
        let mut socket = TcpStream::connect(self.server.address).await.expect("a socket");
        socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        socket
    }

    async fn streams(&self, count: usize) {
        eventually("the streams are open", || self.alive.count() == count).await;
    }

    /// Waits until only the healthy client is left, and returns how long that took.
    async fn gone(&self, limit: Duration) -> f64 {
        let start = Instant::now();
        while self.alive.count() > 0 || self.sse.connections().len() > 1 {
            assert!(start.elapsed() < limit, "{}: never dropped", self.alive.count());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        start.elapsed().as_secs_f64()
    }

    /// Checks the counts, and that the healthy client missed nothing.
    async fn end(self, counted: &[(CloseReason, u64)]) {
        // The slot is released a moment before the end is counted.
        let start = Instant::now();
        while self.closed() != counted && start.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.closed(), counted);
        assert_eq!((self.alive.count(), self.sse.connections().len()), (0, 1));
        self.over.store(true, Ordering::Relaxed);
        assert!(self.healthy.await.expect("an undisturbed reader") > 0);
        self.server.stop().await;
    }
}

fn figure(case: &str, seconds: f64) {
    println!("figure {{\"case\":\"{case}\",\"seconds\":{seconds:.3}}}");
}

/// Checks that a stall was noticed between one and `most` write timeouts.
#[track_caller]
fn after_the_timeout(case: &str, seconds: f64, most: f64) {
    figure(case, seconds);
    let timeout = WRITE_TIMEOUT.as_secs_f64();
    // The measurement starts shortly after the write that blocked.
    assert!((timeout - 0.1..=timeout * most + MARGIN).contains(&seconds), "{case}: {seconds}");
}

#[track_caller]
fn at_once(case: &str, seconds: f64) {
    figure(case, seconds);
    assert!(seconds < 1.0, "{case}: {seconds}");
}

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_reads() {
    let scene = Scene::open("", flood).await;
    let stalled = SlowReader::connect(scene.server.address, "/s", &[]).await.expect("a socket");
    scene.streams(1).await;
    let seconds = scene.gone(LIMIT).await;
    after_the_timeout("never reads", seconds, 1.0);
    assert!(stalled.reset_within(Duration::from_secs(1)).await.is_some(), "closed, not reset");
    scene.end(&[(CloseReason::WriteTimeout, 1)]).await;
}

/// The kernel reports progress only once it has room for many bytes, so this counts as a stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_one_byte_now_and_then() {
    let scene = Scene::open("", flood).await;
    let mut slow = SlowReader::connect(scene.server.address, "/s", &[]).await.expect("a socket");
    scene.streams(1).await;
    let reading = tokio::spawn(async move {
        while slow.read(1).await.is_ok() {
            tokio::time::sleep(WRITE_TIMEOUT * 6 / 10).await;
        }
    });
    let seconds = scene.gone(LIMIT).await;
    after_the_timeout("one byte now and then", seconds, 4.0);
    reading.abort();
    scene.end(&[(CloseReason::WriteTimeout, 1)]).await;
}

/// Half a kilobyte five times per timeout is progress, but too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_a_trickle() {
    let scene = Scene::open("", flood).await;
    let mut slow = SlowReader::connect(scene.server.address, "/s", &[]).await.expect("a socket");
    scene.streams(1).await;
    let reading = tokio::spawn(async move {
        while slow.read(512).await.is_ok() {
            tokio::time::sleep(WRITE_TIMEOUT / 5).await;
        }
    });
    let seconds = scene.gone(LIMIT).await;
    after_the_timeout("a trickle", seconds, 4.0);
    reading.abort();
    scene.end(&[(CloseReason::WriteTimeout, 1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_for_a_while_then_stops() {
    let scene = Scene::open("", flood).await;
    let mut reader = SlowReader::connect(scene.server.address, "/s", &[]).await.expect("a socket");
    let mut read = 0;
    while read < 1 << 20 {
        read += reader.read(64 * 1024).await.expect("a healthy socket").len();
    }
    let seconds = scene.gone(LIMIT).await;
    after_the_timeout("reads for a while, then stops", seconds, 1.0);
    drop(reader);
    scene.end(&[(CloseReason::WriteTimeout, 1)]).await;
}

/// hyper treats a half-closed connection as closed. No browser half-closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed() {
    for (case, busy) in [("half-closed, idle", false), ("half-closed, busy", true)] {
        let make = move || if busy { flood().left_stream() } else { burst(1).right_stream() };
        let scene = Scene::open("HeartbeatInterval = \"60s\"", make).await;
        let mut socket = scene.ask().await;
        scene.streams(1).await;
        SockRef::from(&socket).shutdown(std::net::Shutdown::Write).expect("a FIN");
        // It still reads, so it does not stall.
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while socket.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        });
        let seconds = scene.gone(LIMIT).await;
        at_once(case, seconds);
        tokio::time::timeout(LIMIT, reading).await.expect("an end").expect("no panic");
        scene.end(&[(CloseReason::ClientGone, 1)]).await;
    }
}

/// Bytes behind the request keep hyper from looking for the end of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_extra_bytes_then_stops_reading() {
    let scene = Scene::open("", flood).await;
    let mut socket = scene.ask().await;
    socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    scene.streams(1).await;
    let seconds = scene.gone(Duration::from_secs(20)).await;
    after_the_timeout("pipelined extra bytes, then stalls", seconds, 4.0);
    scene.end(&[(CloseReason::WriteTimeout, 1)]).await;
}

/// The client disconnects as well. The next writes notice, so two heartbeats are the bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_extra_bytes_then_leaves() {
    let scene = Scene::open("HeartbeatInterval = \"500ms\"", || burst(1)).await;
    let mut socket = scene.ask().await;
    socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    scene.streams(1).await;
    let mut bytes = [0; 4096];
    assert!(socket.read(&mut bytes).await.expect("a head") > 0);
    drop(socket);
    let seconds = scene.gone(LIMIT).await;
    figure("pipelined extra bytes, then leaves (heartbeat 0.5 s)", seconds);
    assert!(seconds < 1.0 + MARGIN, "{seconds}");
    scene.end(&[(CloseReason::ClientGone, 1)]).await;
}

/// Frames written by hand: one stream whose window is closed from the start, and one whose client keeps opening
/// its window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_zero_on_one_http2_stream() {
    let scene = Scene::open("", || burst(1)).await;
    let mut socket = TcpStream::connect(scene.server.address).await.expect("a socket");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Settings: no window for new streams. Then a large one for the connection.
    bytes.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
    bytes.extend(b"\0\0\x04\x08\0\0\0\0\0\x7f\x00\0\0");
    // `GET http /s`, and `GET http /healthy`: HPACK's static table but for the path and authority.
    bytes.extend([0, 0, 9, 1, 5, 0, 0, 0, 1]);
    bytes.extend(b"\x82\x86\x04\x02/s\x01\x01x");
    bytes.extend([0, 0, 15, 1, 5, 0, 0, 0, 3]);
    bytes.extend(b"\x82\x86\x04\x08/healthy\x01\x01x");
    // The window of stream 3.
    bytes.extend(b"\0\0\x04\x08\0\0\0\0\x03\x7f\x00\0\0");
    socket.write_all(&bytes).await.expect("sent");
    scene.streams(1).await;
    let start = Instant::now();
    let (mut text, mut reset) = (String::new(), None);
    // Also for a while after the reset.
    while reset.is_none_or(|at: Duration| start.elapsed() < at + Duration::from_millis(500)) {
        assert!(start.elapsed() < LIMIT, "never reset");
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.expect("a frame");
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await.expect("a frame");
        match (head[3], head[8]) {
            (0, 3) => text.push_str(&String::from_utf8_lossy(&payload)),
            (0, stream) => panic!("{length} bytes into the shut window of stream {stream}"),
            (3, 1) => reset = Some(start.elapsed()),
            (3 | 7, _) => panic!("not that stream alone: {head:?} {payload:?}"),
            _ => {}
        }
    }
    after_the_timeout(
        "window zero on one HTTP/2 stream",
        reset.unwrap_or_default().as_secs_f64(),
        1.0,
    );
    let data: Vec<u64> =
        text.split("\n\n").filter_map(|frame| frame.split_once("data: ")?.1.parse().ok()).collect();
    assert!(data.len() > 50 && data.iter().copied().eq(0..data.len() as u64), "{data:?}");
    drop(socket);
    scene.gone(LIMIT).await;
    scene.end(&[(CloseReason::ClientGone, 1), (CloseReason::WriteTimeout, 1)]).await;
}

/// These connections open no stream, so none is counted. They may hold a socket for the head timeout. Half of them
/// send nothing, the others one byte a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_nothing_or_its_head_a_byte_a_second() {
    let scene = Scene::open("", flood).await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let address = scene.server.address;
    let dawdlers = (0..40).map(|n| async move {
        let socket = TcpStream::connect(address).await.expect("a socket");
        let start = Instant::now();
        let (mut reading, mut writing) = socket.into_split();
        let slowly = async {
            for byte in b"GET /s HTTP/1.1\r\nhost: x\r\nx-never: ends" {
                if n % 2 == 1 && writing.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut bytes = Vec::new();
        tokio::select! {
            () = slowly => {}
            end = tokio::time::timeout(Duration::from_secs(15), reading.read_to_end(&mut bytes)) => {
                let _ = end.expect("still open");
            }
        }
        (n % 2 == 1, start.elapsed().as_secs_f64())
    });
    let ends = futures_util::future::join_all(dawdlers).await;
    for (slowly, case) in [(false, "sends nothing"), (true, "its head a byte a second")] {
        let ends = ends.iter().filter(|end| end.0 == slowly).map(|end| end.1);
        for seconds in ends.clone() {
            assert!((9.5..10.5 + MARGIN).contains(&seconds), "{case}: {seconds}");
        }
        figure(case, ends.fold(0.0, f64::max));
    }
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    eventually("their tasks are gone", || tasks() <= before).await;
    scene.end(&[]).await;
}

/// Resets the connection when half of a large event is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_in_the_middle_of_a_frame() {
    let large = || stream::repeat_with(|| Event::text("x".repeat(1 << 20)));
    let scene = Scene::open("", large).await;
    let mut socket = scene.ask().await;
    let mut bytes = [0; 10_000];
    socket.read_exact(&mut bytes).await.expect("the beginning of an event");
    scene.streams(1).await;
    socket.set_zero_linger().expect("an option");
    drop(socket);
    let seconds = scene.gone(LIMIT).await;
    at_once("reset in the middle of a frame", seconds);
    scene.end(&[(CloseReason::ClientGone, 1)]).await;
}

/// A third disconnects before its request, a third within or right after it, a third after the response; by FIN and
/// by reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connect_and_drop() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let scene = Scene::open("HeartbeatInterval = \"60s\"", move || {
        count.fetch_add(1, Ordering::SeqCst);
        burst(1)
    })
    .await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let address = scene.server.address;
    let begun = Instant::now();
    stream::iter(0..2000)
        .for_each_concurrent(50, |n| async move {
            let mut socket = TcpStream::connect(address).await.expect("a socket");
            let request = b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n";
            let most = match n % 6 {
                0 | 1 => 0,
                2 => 11,
                _ => request.len(),
            };
            socket.write_all(&request[..most]).await.expect("sent");
            if n % 6 > 3 {
                let mut head = [0; 12];
                socket.read_exact(&mut head).await.expect("an answer");
            }
            if n % 6 > 4 {
                socket.set_zero_linger().expect("an option");
            }
        })
        .await;
    let dropped = begun.elapsed();
    let seconds = scene.gone(LIMIT).await;
    figure("2,000 connect and drop", seconds);
    assert!(seconds < 1.0 + MARGIN, "{seconds} after {dropped:?}");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    eventually("their tasks are gone", || tasks() <= before).await;
    // A client that disconnects right after its request may be gone before the request is read.
    let opened = made.load(Ordering::SeqCst) as u64;
    assert!((666..=1000).contains(&opened), "{opened}");
    scene.end(&[(CloseReason::ClientGone, opened)]).await;
}
