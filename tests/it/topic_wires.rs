//! Topics on every wire: HTTP/2 streams with shut windows, other servers, TLS, proxies, several runtimes. Whatever the
//! wire does, who comes back gets what it misses, once.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use hero_sse::prelude::*;
use hero_sse::{CloseReason, HeroSse, SseOptions};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::http2::{Client, piece, within};
use crate::support::testing::{self, EventReader};
use crate::support::{Server, eventually, options, serving, sse_with};
use crate::tls::{Certificate, start};

#[derive(Serialize, SseEvent)]
struct Line {
    n: u64,
    pad: String,
    /// How many of these there are is how many events are held somewhere.
    #[serde(skip)]
    _held: Arc<()>,
}

/// A line of so many bytes, and a bit.
fn line(n: u64, size: usize) -> Line {
    Line { n, pad: "x".repeat(size), _held: Arc::default() }
}

async fn publish(topic: &Topic<Line>, lines: impl IntoIterator<Item = u64>, size: usize) {
    topic.publish_all(lines.into_iter().map(|n| line(n, size))).await.expect("published");
}

/// A topic that keeps so many lines, and all their bytes.
fn topic(keep: usize) -> Topic<Line> {
    Topic::builder("lines").retain_events(keep).retain_bytes(256 << 20).build()
}

/// An application with the topic at `/s`, for a client's whole life.
fn app_of(sse: &HeroSse, topic: &Topic<Line>) -> Router {
    let topic = topic.clone();
    serving(sse, move || topic.subscribe())
}

/// An open stream, whatever carries it.
struct Wire {
    bytes: Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>,
    /// The client's end of an HTTP/1.1 connection.
    _driver: Option<Driver>,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(path: &str, id: Option<&str>) -> Request<()> {
    let request = Request::get(format!("http://localhost{path}")).header("host", "localhost");
    let request = match id {
        Some(id) => request.header("last-event-id", id),
        None => request,
    };
    request.body(()).expect("a request")
}

impl Wire {
    /// HTTP/1.1 on a connection of its own.
    async fn h1<I>(socket: I, path: &str, id: Option<&str>) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(socket));
        let (mut sender, connection) = shaken.await.expect("a handshake");
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        let request = request(path, id).map(|()| Body::empty());
        let answer = within(sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let bytes = answer.into_body().into_data_stream().map(|piece| piece.map_err(told));
        Self { bytes: Box::pin(bytes), _driver: Some(driver) }
    }

    /// A stream of an HTTP/2 connection, whose window opens as it is read.
    async fn h2(client: &mut Client, id: Option<&str>) -> Self {
        Self::taking(Self::shut(client, id).await)
    }

    /// The same, with a window that stays shut once it is full.
    async fn shut(client: &mut Client, id: Option<&str>) -> h2::RecvStream {
        let answer = client.send(request("/s", id)).await;
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    fn taking(body: h2::RecvStream) -> Self {
        let bytes = stream::unfold(body, async |mut body| {
            let bytes = piece(&mut body).await?;
            Some((bytes.map_err(told), body))
        });
        Self { bytes: Box::pin(bytes), _driver: None }
    }
}

/// Says that it took all that was sent to a window that was shut.
fn open(body: &mut h2::RecvStream) {
    let taken = body.flow_control().used_capacity();
    body.flow_control().release_capacity(taken).expect("taken");
}

fn told(error: impl ToString) -> String {
    error.to_string()
}

/// What one client has got, over however many connections.
#[derive(Debug, Default)]
struct Got {
    id: Option<String>,
    numbers: Vec<u64>,
    missed: u64,
    gaps: u64,
    /// What the last stream said at its end.
    close: Option<String>,
    /// The beginning of a frame.
    part: Vec<u8>,
}

impl Got {
    /// A piece of a stream, which ends anywhere.
    fn take(&mut self, bytes: &[u8]) {
        self.part.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(end) = self.part[begin..].windows(2).position(|two| two == b"\n\n") {
            let frame = String::from_utf8(self.part[begin..begin + end].to_vec()).expect("UTF-8");
            begin += end + 2;
            self.frame(&frame);
        }
        self.part.drain(..begin);
    }

    fn frame(&mut self, frame: &str) {
        let field = |name| frame.lines().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else { return };
        let data: Value = serde_json::from_str(data).expect("JSON");
        match field("event: ").expect("a name") {
            "line" => self.numbers.push(data["n"].as_u64().expect("a number")),
            "hero.gap" => {
                self.missed += data["missed"].as_u64().expect("counted");
                self.gaps += 1;
            }
            "hero.close" => self.close = data["reason"].as_str().map(str::to_owned),
            "hero.cursor" => {}
            other => panic!("{other}: {data}"),
        }
        self.id = field("id: ").map(str::to_owned).or(self.id.take());
    }

    /// Where it goes on. What it has of a frame that broke off is of no use.
    fn back(&mut self) -> Option<String> {
        self.part.clear();
        self.close = None;
        self.id.clone()
    }

    /// Reads until it has the line with this number.
    async fn until(&mut self, wire: &mut Wire, last: u64) {
        while self.numbers.last().is_none_or(|n| *n < last) {
            let bytes = within(wire.bytes.next()).await.expect("no end").expect("no reset");
            self.take(&bytes);
        }
    }

    /// Reads until it knows where it stands.
    async fn placed(&mut self, wire: &mut Wire) {
        while self.id.is_none() {
            let bytes = within(wire.bytes.next()).await.expect("no end").expect("no reset");
            self.take(&bytes);
        }
    }

    /// Reads to the stream's end, clean or not.
    async fn rest_of(&mut self, mut wire: Wire) {
        while let Some(Ok(bytes)) = within(wire.bytes.next()).await {
            self.take(&bytes);
        }
    }

    /// Has every line up to this one, once and in order.
    fn has_all(&self, last: u64) {
        let wrong = self.numbers.iter().zip(1..).position(|(got, wanted)| *got != wanted);
        assert_eq!((wrong, self.numbers.len() as u64, self.gaps), (None, last, 0));
    }
}

/// A client whose receive buffer is as small as may be.
async fn small_socket(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    socket.connect(address).await.expect("a connection")
}

async fn socket(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a socket")
}

const LINES: u64 = 3_000;

/// A stream that has said where it stands, and whose window is not opened again.
async fn shut(client: &mut Client) -> (Got, h2::RecvStream) {
    let (mut got, mut body) = (Got::default(), Wire::shut(client, None).await);
    while got.id.is_none() {
        got.take(&within(body.data()).await.expect("no end").expect("no reset"));
    }
    (got, body)
}

/// All lines, to three healthy streams of a connection, which have them all, and to one whose window is full.
async fn beside_a_shut_window(
    client: &mut Client,
    topic: &Topic<Line>,
) -> (Got, h2::RecvStream, Vec<Wire>) {
    let (stalled, body) = shut(client).await;
    let mut healthy = Vec::new();
    for _ in 0..3 {
        let (mut got, mut wire) = (Got::default(), Wire::h2(client, None).await);
        got.placed(&mut wire).await;
        healthy.push(tokio::spawn(async move {
            got.until(&mut wire, LINES).await;
            got.has_all(LINES);
            wire
        }));
    }
    for n in (1..=LINES).step_by(10) {
        publish(topic, n..n + 10, 1_000).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut wires = Vec::new();
    for wire in healthy {
        wires.push(wire.await.expect("all lines"));
    }
    (stalled, body, wires)
}

/// The others get all of it while the one takes nothing; that one is told when it takes again, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_shut_window_holds_up_nobody_and_its_stream_overflows() {
    let topic = topic(LINES as usize);
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let mut client = Client::connect(server.address).await;
    let (mut stalled, mut body, healthy) = beside_a_shut_window(&mut client, &topic).await;
    // Nobody waited for it to go.
    assert_eq!(sse.connections().len(), 4);
    open(&mut body);
    stalled.rest_of(Wire::taking(body)).await;
    assert_eq!(stalled.close.as_deref(), Some("overflow"));
    assert_eq!(sse.connections().closed(CloseReason::Overflow), 1);
    assert!((1..100).contains(&stalled.numbers.len()), "{}", stalled.numbers.len());
    let mut wire = Wire::h2(&mut client, stalled.back().as_deref()).await;
    stalled.until(&mut wire, LINES).await;
    stalled.has_all(LINES);
    assert_eq!(sse.connections().gaps(), 0);
    drop((client, wire, healthy));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_window_that_stays_shut_costs_its_stream_alone_and_nothing_is_lost() {
    let topic = topic(10 * LINES as usize);
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let mut client = Client::connect(server.address).await;
    let (mut stalled, mut body, healthy) = beside_a_shut_window(&mut client, &topic).await;
    // What came before the reset counts.
    let reason = loop {
        match within(body.data()).await.expect("no clean end") {
            Ok(bytes) => stalled.take(&bytes),
            Err(error) => break error.reason(),
        }
    };
    assert_eq!(reason, Some(h2::Reason::CANCEL));
    eventually("counted", || sse.connections().closed(CloseReason::WriteTimeout) == 1).await;
    assert!(stalled.numbers.len() < 100, "{}", stalled.numbers.len());
    let mut wire = Wire::h2(&mut client, stalled.back().as_deref()).await;
    stalled.until(&mut wire, LINES).await;
    stalled.has_all(LINES);
    assert_eq!(sse.connections().len(), 4);
    drop((client, wire, healthy));
    server.stop().await;
}

/// Who may miss some misses them counted; what waits for it is no more than the topic keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_shut_window_costs_no_memory_and_what_it_drops_is_counted() {
    const KEEP: usize = 50;
    let (topic, held) = (topic(KEEP), Arc::new(()));
    let sse = sse_with(options("WriteTimeout = \"60s\"\nOverflow = \"drop_oldest\""));
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let mut client = Client::connect(server.address).await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(shut(&mut client).await);
    }
    for n in 1..=LINES {
        let line = Line { _held: held.clone(), ..line(n, 1_000) };
        topic.publish(line).await.expect("published");
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Besides what is kept: a batch that was joined for who was behind, and the newest.
    let events = Arc::strong_count(&held) - 1;
    assert!((KEEP..KEEP + 34).contains(&events), "{events} events are held");
    let mut gaps = 0;
    for (mut got, mut body) in stalled {
        open(&mut body);
        let mut wire = Wire::taking(body);
        got.until(&mut wire, LINES).await;
        assert!(got.numbers.is_sorted_by(|one, other| one < other), "{:?}", got.numbers);
        assert!(got.gaps > 0);
        assert_eq!(got.numbers.len() as u64 + got.missed, LINES);
        gaps += got.gaps;
    }
    assert_eq!(sse.connections().gaps(), gaps);
    drop(client);
    server.stop().await;
    drop(topic);
    drop(sse);
    assert_eq!(Arc::strong_count(&held), 1);
}

/// A window that is shut from the beginning: nothing has been said when the topic moves on.
#[tokio::test(start_paused = true)]
async fn who_has_heard_nothing_yet_misses_nothing() {
    for (settings, several) in
        [("", false), ("", true), ("Buffer = 10", false), ("Overflow = \"drop_oldest\"", false)]
    {
        let (topic, other) = (topic(100), Topic::<Line>::new("others"));
        let serve = |sse: &HeroSse| {
            let (topic, other) = (topic.clone(), other.clone());
            match several {
                true => serving(sse, move || other.subscribe().and(topic.subscribe())),
                false => serving(sse, move || topic.subscribe()),
            }
        };
        let sse = sse_with(options(settings));
        let app = serve(&sse);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        // More than is left for who is slow.
        publish(&topic, 1..=90, 10).await;
        let mut got = there(&mut reader);
        got.has_all(90);
        let mut unheard = testing::open(&app, "/s").await.expect("a stream");
        publish(&topic, 91..=95, 10).await;
        let id = got.back().expect("an id");
        let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        assert_eq!(there(&mut back).numbers, [91, 92, 93, 94, 95]);
        // The server goes.
        sse.drain();
        let mut got = there(&mut unheard);
        assert_eq!((got.numbers.as_slice(), got.close.as_deref()), (&[][..], Some("draining")));
        let id = got.back().expect("where it would have begun");
        publish(&topic, [96], 10).await;
        let app = serve(&sse_with(SseOptions::default()));
        let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let back = there(&mut back);
        assert_eq!((back.numbers.as_slice(), back.gaps), (&[91, 92, 93, 94, 95, 96][..], 0));
    }
}

/// Whoever was to get all that is kept, and has had nothing, comes back for all that is kept.
#[tokio::test(start_paused = true)]
async fn who_was_to_begin_at_the_start_and_was_sent_away_still_begins_there() {
    let topic = topic(3);
    let serve = |sse: &HeroSse| {
        let topic = topic.clone();
        serving(sse, move || topic.subscribe().from_start())
    };
    publish(&topic, 1..=3, 10).await;
    let sse = sse_with(SseOptions::default());
    let mut reader = testing::open(&serve(&sse), "/s").await.expect("a stream");
    sse.drain();
    let got = there(&mut reader);
    assert_eq!((got.close.as_deref(), got.id), (Some("draining"), None));
}

/// What is there without waiting.
fn there(reader: &mut EventReader) -> Got {
    while let Some(Ok(Some(_))) = reader.next().now_or_never() {}
    let mut got = Got::default();
    got.take(reader.raw().as_bytes());
    got
}

/// Events that a filter left out, and then the end: who comes back has no gap of what it did not want.
#[tokio::test(start_paused = true)]
async fn what_a_filter_left_out_is_no_gap_for_who_was_sent_away() {
    for reason in ["draining", "overflow"] {
        let topic = topic(100);
        let filtered = |sse: &HeroSse| {
            let topic = topic.clone();
            serving(sse, move || {
                topic.subscribe().filter(|line: &Line| line.n.is_multiple_of(1_000))
            })
        };
        let sse = sse_with(SseOptions::default());
        let app = filtered(&sse);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        there(&mut reader);
        for n in 1..=150 {
            publish(&topic, [n], 10).await;
            there(&mut reader);
        }
        match reason {
            "draining" => _ = sse.drain(),
            // It has the first of what was published together, and is slow from then on.
            _ => {
                publish(&topic, std::iter::once(1_000).chain(151..=180), 10).await;
                assert_eq!(reader.next().await.expect("in time").expect("one").event, "line");
                publish(&topic, 181..=265, 10).await;
            }
        }
        let mut got = there(&mut reader);
        assert_eq!(got.close.as_deref(), Some(reason));
        let id = got.back().expect("an id");
        publish(&topic, [3_000], 10).await;
        let app = filtered(&sse_with(SseOptions::default()));
        let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let got = there(&mut back);
        assert_eq!((got.numbers.as_slice(), got.missed), (&[3_000][..], 0), "{reason}");
    }
}

/// The same of one topic, where another on the same stream is what the client is too slow for.
#[tokio::test(start_paused = true)]
async fn who_is_too_slow_for_one_topic_has_no_gap_in_another() {
    let (quiet, busy) = (topic(5), topic(100));
    let (one, other) = (quiet.clone(), busy.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        one.subscribe().filter(|line: &Line| line.n > 1_000).and(other.subscribe())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    there(&mut reader);
    publish(&busy, [1], 10).await;
    assert_eq!(reader.next().await.expect("in time").expect("one").event, "line");
    publish(&quiet, 1..=4, 10).await;
    publish(&busy, 2..=81, 10).await;
    let mut got = there(&mut reader);
    assert_eq!((got.numbers.as_slice(), got.close.as_deref()), (&[1][..], Some("overflow")));
    publish(&quiet, 5..=7, 10).await;
    let id = got.back().expect("an id");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    let back = there(&mut back);
    assert!(back.numbers.iter().copied().eq(2..=81) && back.gaps == 0, "{back:?}");
}

/// A server of another's making, with a shutdown that begins as the kit's documentation says.
async fn foreign(
    sse: &HeroSse,
    app: Router,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let sse = sse.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopped.await;
        sse.drain();
    });
    (address, stop, tokio::spawn(server.into_future()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_another_server_a_stalled_subscriber_is_taken_back_and_comes_back() {
    let topic = topic(100_000);
    let sse = sse_with(options("WriteTimeout = \"1s\"\nMaxConnections = 2"));
    let (address, _stop, server) = foreign(&sse, app_of(&sse, &topic)).await;
    let (mut stalled, mut healthy) = (Got::default(), Got::default());
    let mut kept = Wire::h1(small_socket(address).await, "/s", None).await;
    stalled.placed(&mut kept).await;
    let mut wire = Wire::h1(socket(address).await, "/s", None).await;
    healthy.placed(&mut wire).await;
    let mut last = 0;
    while sse.connections().closed(CloseReason::WriteTimeout) == 0 {
        publish(&topic, last + 1..=last + 5, 20_000).await;
        last += 5;
        healthy.until(&mut wire, last).await;
        assert!(last < 10_000, "never taken back");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    healthy.has_all(last);
    assert_eq!((topic.subscribers(), sse.connections().len()), (1, 1));
    // Its place is free, also for itself.
    stalled.rest_of(kept).await;
    assert!((stalled.numbers.len() as u64) < last, "it had everything");
    let mut back = Wire::h1(socket(address).await, "/s", stalled.back().as_deref()).await;
    stalled.until(&mut back, last).await;
    stalled.has_all(last);
    assert_eq!(sse.connections().gaps(), 0);
    server.abort();
}

/// While the topic lives on: who was up to date, who was behind, and who had just come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_another_server_loses_nothing() {
    let topic = topic(10_000);
    let mut clients: Vec<Got> = (0..3).map(|_| Got::default()).collect();
    let mut last = 0;
    for round in 0..3 {
        let sse = sse_with(options("Retry = \"1s\""));
        let (address, stop, server) = foreign(&sse, app_of(&sse, &topic)).await;
        let mut wires = Vec::new();
        for (number, got) in clients.iter_mut().enumerate() {
            let id = got.back();
            let mut wire = Wire::h1(small_socket(address).await, "/s", id.as_deref()).await;
            if number < 2 {
                got.placed(&mut wire).await;
            }
            wires.push(wire);
        }
        publish(&topic, last + 1..=last + 200, 2_000).await;
        last += 200;
        clients[0].until(&mut wires[0], last).await;
        drop(stop);
        let ends = clients.iter_mut().zip(wires).map(|(got, wire)| got.rest_of(wire));
        futures_util::future::join_all(ends).await;
        for got in &clients {
            assert_eq!(got.close.as_deref(), Some("draining"), "{round}");
            assert!(got.id.is_some());
        }
        within(server).await.expect("no panic").expect("no error");
        assert!(topic.subscribers() == 0 && sse.connections().is_empty());
        publish(&topic, last + 1..=last + 100, 2_000).await;
        last += 100;
    }
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    for got in &mut clients {
        let mut wire = Wire::h1(socket(server.address).await, "/s", got.back().as_deref()).await;
        got.until(&mut wire, last).await;
        got.has_all(last);
    }
    server.stop().await;
}

/// What leaves is what the topic keeps, not a copy of it.
#[tokio::test(start_paused = true)]
async fn all_subscribers_send_the_same_bytes() {
    let topic = topic(100);
    let app = app_of(&sse_with(SseOptions::default()), &topic);
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let request = Request::get("/s").body(Body::empty()).expect("a request");
        let mut body = app.clone().oneshot(request).await.expect("an answer").into_body();
        body.frame().await.expect("a prelude").expect("no error");
        assert!(body.frame().now_or_never().is_none(), "it waits");
        bodies.push(body);
    }
    // One; many at once; many one after another, which the first who reads them joins.
    for (lines, each) in [(1..=1, 1), (2..=20, 19), (21..=40, 1)] {
        for n in lines.step_by(each) {
            publish(&topic, n..n + each as u64, 500).await;
        }
        // All at once, or else one may lie where another lay.
        let (mut places, mut held) = (BTreeSet::new(), Vec::new());
        for body in &mut bodies {
            let frame = body.frame().await.expect("a frame").expect("no error");
            let bytes = frame.into_data().expect("data");
            places.insert(bytes.as_ptr() as usize);
            held.push(bytes);
            while body.frame().now_or_never().is_some() {}
        }
        assert_eq!(places.len(), 1);
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[derive(Serialize, SseEvent)]
struct Wake {
    #[serde(skip)]
    says: Option<(Topic<Line>, u64)>,
}

/// Says a line when it goes, from wherever that is.
impl Drop for Wake {
    fn drop(&mut self) {
        if let Some((topic, n)) = self.says.take() {
            let published = topic.publish(line(n, 10)).now_or_never();
            published.expect("at once").expect("published");
        }
    }
}

/// From another runtime, a plain thread, a filter, an answer to a gap, and the drop of an event, all at once.
#[test]
fn it_does_not_matter_where_an_event_is_published() {
    const EACH: u64 = 100;
    let (topic, wakes) = (topic(10_000), Topic::<Wake>::builder("wakes").retain_events(1).build());
    let (here, elsewhere) = (runtime(), runtime());
    let sse = sse_with(options("Overflow = \"drop_oldest\""));
    let says = |from: u64| {
        let (topic, next) = (topic.clone(), Arc::new(AtomicU64::new(from)));
        let said = next.clone();
        let say = move || {
            let n = next.fetch_add(1, Ordering::SeqCst);
            topic.publish(line(n, 10)).now_or_never().expect("at once").expect("published");
        };
        (Arc::new(say), move || said.load(Ordering::SeqCst) > from)
    };
    // A stream of the wakes, whose filter and whose hook say lines as well.
    let (of, (filter, filtered), (hook, answered)) = (wakes.clone(), says(10_000), says(20_000));
    let route = sse.endpoint("/wakes").public().handler(async move || {
        let (filter, hook) = (filter.clone(), hook.clone());
        let wakes = of.subscribe().filter(move |_| {
            filter();
            false
        });
        wakes.on_gap(move |_| {
            let hook = hook.clone();
            async move {
                tokio::task::yield_now().await;
                hook();
                Ok(Vec::<Line>::new())
            }
        })
    });
    let app = app_of(&sse, &topic).merge(route.expect("a route"));
    here.block_on(async {
        let server = Server::start(&sse, app).await;
        let mut readers = Vec::new();
        for _ in 0..2 {
            let mut wire = Wire::h1(socket(server.address).await, "/s", None).await;
            let mut got = Got::default();
            got.placed(&mut wire).await;
            readers.push((got, wire));
        }
        let first = wakes.publish(Wake { says: None }).await.expect("published").to_string();
        for _ in 0..3 {
            wakes.publish(Wake { says: None }).await.expect("published");
        }
        let mut woken = Wire::h1(socket(server.address).await, "/wakes", Some(&first)).await;
        // It answers its gap, and then looks at what is published.
        let told = within(woken.bytes.next()).await.expect("no end").expect("no reset");
        assert!(String::from_utf8_lossy(&told).contains("hero.gap"), "{told:?}");
        eventually("the answer is there", answered).await;
        wakes.publish(Wake { says: None }).await.expect("published");
        eventually("the filter is asked", filtered).await;
        let lines = topic.clone();
        let other = elsewhere.spawn(async move {
            for n in 1..=EACH {
                publish(&lines, [n], 10).await;
                tokio::task::yield_now().await;
            }
        });
        let ((plain, _), lines) = (says(1_001), topic.clone());
        let thread = std::thread::spawn(move || {
            for n in 0..EACH {
                plain();
                let says = Some((lines.clone(), 2_001 + n));
                // It goes with the next one.
                wakes.publish(Wake { says }).now_or_never().expect("at once").expect("published");
                std::thread::sleep(Duration::from_millis(1));
            }
            wakes.close();
            drop(wakes);
        });
        within(other).await.expect("no panic");
        tokio::task::spawn_blocking(|| thread.join().expect("no panic")).await.expect("joined");
        let mut ended = Got::default();
        while let Some(Ok(bytes)) = within(woken.bytes.next()).await {
            let text = String::from_utf8_lossy(&bytes);
            ended.close = text.contains("\"ended\"").then(|| "ended".to_owned());
        }
        assert!(ended.close.is_some());
        publish(&topic, [u64::MAX], 10).await;
        let mut sequences = Vec::new();
        for (mut got, mut wire) in readers {
            got.until(&mut wire, u64::MAX).await;
            assert_eq!(got.missed, 0);
            sequences.push(got.numbers);
        }
        assert_eq!(sequences[0], sequences[1], "one order for all");
        let numbers: BTreeSet<_> = sequences[0].iter().copied().collect();
        assert_eq!(numbers.len(), sequences[0].len(), "a line came twice");
        let from = |begin: u64, end: u64| numbers.range(begin..end).count() as u64;
        assert_eq!((from(1, 1_000), from(1_001, 2_001)), (EACH, EACH));
        // The last is still kept, and perhaps what was read together.
        assert!((EACH - 3..=EACH).contains(&from(2_001, 10_000)));
        assert!(from(10_000, 20_000) > 0 && from(20_000, 30_000) > 0);
        server.stop().await;
    });
}

/// Its own topic, which is just making room for another event.
#[derive(Serialize, SseEvent)]
struct Echo {
    n: u64,
    #[serde(skip)]
    echo: Option<Arc<Mutex<Option<Topic<Echo>>>>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        let Some(echo) = self.echo.take() else { return };
        let topic = echo.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(topic) = topic else { return };
        let again = Echo { n: self.n + 1_000, echo: None };
        topic.publish(again).now_or_never().expect("at once").expect("published");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_may_publish_to_its_own_topic_as_it_goes() {
    let topic = Topic::<Echo>::builder("echoes").retain_events(8).build();
    let own = Arc::new(Mutex::new(Some(topic.clone())));
    let sse = sse_with(options("Overflow = \"drop_oldest\""));
    let of = topic.clone();
    let server = Server::start(&sse, serving(&sse, move || of.subscribe())).await;
    let mut reader = testing::connect(server.address, "/s").await.expect("a stream");
    reader.next().await.expect("in time").expect("where it stands");
    for n in 1..=200 {
        let echo = Echo { n, echo: Some(own.clone()) };
        topic.publish(echo).await.expect("published");
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Nothing comes behind the last: it would make that go, too, before a slow reader has had it.
    own.lock().expect("no panic").take();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Each that has gone has said so; who reads has had each, or knows how many not.
    let all = topic.publish(Echo { n: 0, echo: None }).await.expect("published").offset();
    assert!((380..=401).contains(&all), "{all}");
    let (mut seen, mut missed, mut over) = (BTreeSet::new(), 0, false);
    while !over {
        let event = reader.next().await.expect("in time").expect("more");
        let data: Value = event.json().expect("JSON");
        match event.event.as_str() {
            "hero.gap" => missed += data["missed"].as_u64().expect("counted"),
            _ => {
                let n = data["n"].as_u64().expect("a number");
                assert!(seen.insert(n), "{n} twice");
                over = n == 0;
            }
        }
    }
    assert_eq!(seen.len() as u64 + missed, all);
    drop(reader);
    server.stop().await;
}

#[test]
fn a_topic_outlives_the_runtime_of_its_readers() {
    let topic = topic(10_000);
    let sse = sse_with(options("WriteTimeout = \"1s\""));
    let app = app_of(&sse, &topic);
    let (mut reading, mut stalled) = (Got::default(), Got::default());
    let first = runtime();
    let left = first.block_on(async {
        let server = Server::start(&sse, app.clone()).await;
        let mut client = Client::connect(server.address).await;
        let mut wire = Wire::h2(&mut client, None).await;
        reading.placed(&mut wire).await;
        let mut other = Wire::h1(small_socket(server.address).await, "/s", None).await;
        stalled.placed(&mut other).await;
        publish(&topic, 1..=500, 1_000).await;
        reading.until(&mut wire, 200).await;
        (server, client, wire, other)
    });
    assert_eq!(topic.subscribers(), 2);
    drop(first);
    drop(left);
    // Nobody is there to be woken, and nobody is in the way.
    assert_eq!((topic.subscribers(), sse.connections().len()), (0, 0));
    publish(&topic, 501..=600, 1_000).now_or_never().expect("at once");
    let second = runtime();
    second.block_on(async {
        let server = Server::start(&sse, app).await;
        let mut client = Client::connect(server.address).await;
        let mut wire = Wire::h2(&mut client, reading.back().as_deref()).await;
        reading.until(&mut wire, 600).await;
        let mut other =
            Wire::h1(socket(server.address).await, "/s", stalled.back().as_deref()).await;
        stalled.until(&mut other, 600).await;
        publish(&topic, 601..=700, 10).await;
        reading.until(&mut wire, 700).await;
        stalled.until(&mut other, 700).await;
        reading.has_all(700);
        stalled.has_all(700);
        // The write timeout of a shut window is kept here as well.
        let shut = Wire::shut(&mut client, reading.id.as_deref()).await;
        publish(&topic, 701..=800, 1_000).await;
        let (_, reason) = crate::http2::stalled(shut).await;
        assert_eq!(reason, Some(h2::Reason::CANCEL));
        drop((client, wire, other));
        server.stop().await;
    });
}

type Both = (Topic<Line>, Topic<Line>);

#[sse_endpoint("/get", public)]
async fn got(State((topic, _)): State<Both>) -> Subscription<Line> {
    topic.subscribe()
}

#[sse_endpoint("/post", method = "post", public)]
async fn posted(State((topic, _)): State<Both>) -> Subscription<Line> {
    topic.subscribe()
}

#[sse_endpoint("/two", public)]
async fn both(State((topic, other)): State<Both>) -> hero_sse::MergedSubscription {
    other.subscribe().and(topic.subscribe())
}

/// One topic behind `GET`, behind `POST`, and beside another on one stream: an id is good everywhere.
#[tokio::test(start_paused = true)]
async fn whoever_comes_back_elsewhere_goes_on_where_it_was() {
    let (topic, other) = (topic(1_000), Topic::new("others"));
    let sse = sse_with(SseOptions::default());
    let routes = sse.routes(endpoints![got, posted, both]).expect("routes");
    let app: Router = Router::new().merge(routes).with_state((topic.clone(), other.clone()));
    let mut got = Got::default();
    let mut n = 0;
    for (path, query) in [
        ("/get", false),
        ("/post", false),
        ("/get", true),
        ("/two", true),
        ("/post", true),
        ("/two", false),
        ("/two", true),
        ("/get", false),
    ] {
        publish(&topic, [n + 1, n + 2], 10).await;
        n += 2;
        let id = got.back().filter(|_| n > 2);
        let target = match &id {
            Some(id) if query => format!("{path}?last_event_id={id}"),
            _ => path.to_owned(),
        };
        let mut open = testing::open(&app, &target);
        if let Some(id) = id.as_ref().filter(|_| !query) {
            open = open.last_event_id(id);
        }
        if path == "/post" {
            open = open.body("");
        }
        let mut reader = open.await.expect("a stream");
        publish(&topic, [n + 1, n + 2], 10).await;
        n += 2;
        there(&mut reader);
        // The client leaves amid what it was sent, and has but the first of it.
        publish(&topic, [n + 1], 10).await;
        publish(&topic, [n + 2], 10).await;
        n += 2;
        let known = reader.raw().len();
        reader.next().await.expect("in time").expect("an event");
        let raw = reader.raw();
        let end = raw[known..].find("\n\n").expect("a frame");
        got.take(&raw.as_bytes()[..known + end + 2]);
    }
    drop(other);
    // The first began with what was published after it.
    got.numbers.splice(0..0, [1, 2]);
    let last = *got.numbers.last().expect("a line");
    assert!(last >= n - 1, "{last} of {n}");
    got.has_all(last);
    assert_eq!(sse.connections().gaps(), 0);
}

/// Its connection breaks amid a record; it comes back over HTTP/1.1, and then as a stream of HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_broken_connection_loses_nothing() {
    let (topic, certificate) = (topic(10_000), Certificate::new());
    let sse = sse_with(SseOptions::default());
    let server = start(&sse, app_of(&sse, &topic), certificate.tls()).await;
    let mut got = Got::default();
    let protocols = ["http/1.1"];
    let mut wire =
        Wire::h1(certificate.connect(server.address, &protocols).await, "/s", None).await;
    got.placed(&mut wire).await;
    publish(&topic, 1..=300, 1_000).await;
    got.until(&mut wire, 100).await;
    drop(wire);
    publish(&topic, 301..=400, 1_000).await;
    let socket = certificate.connect(server.address, &protocols).await;
    let mut wire = Wire::h1(socket, "/s", got.back().as_deref()).await;
    got.until(&mut wire, 350).await;
    drop(wire);
    publish(&topic, 401..=500, 1_000).await;
    let mut client = certificate.client(server.address).await;
    let mut wire = Wire::h2(&mut client, got.back().as_deref()).await;
    got.until(&mut wire, 500).await;
    got.has_all(500);
    eventually("the broken ones have gone", || topic.subscribers() == 1).await;
    drop((client, wire));
    server.stop().await;
}

/// A socket that gives one byte at a time, whatever there is.
struct Bytewise(TcpStream);

impl AsyncRead for Bytewise {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut byte = ReadBuf::new(&mut one);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut byte);
        out.put_slice(byte.filled());
        read
    }
}

impl AsyncWrite for Bytewise {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// As a proxy may read, of either version; a part of a frame is no frame when the connection goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_byte_after_byte_gets_each_line_once() {
    let topic = topic(10_000);
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let (mut old, mut new) = (Got::default(), Got::default());
    for round in 0..4 {
        let stream = Bytewise(socket(server.address).await);
        let mut one = Wire::h1(stream, "/s", old.back().as_deref()).await;
        let mut client = Client::over(Bytewise(socket(server.address).await)).await;
        let mut two = Wire::h2(&mut client, new.back().as_deref()).await;
        old.placed(&mut one).await;
        new.placed(&mut two).await;
        publish(&topic, round * 50 + 1..=round * 50 + 50, 200).await;
        // In the middle of what was sent, but the last time.
        let until = if round == 3 { 200 } else { round * 50 + 30 };
        old.until(&mut one, until).await;
        new.until(&mut two, until).await;
    }
    old.has_all(200);
    new.has_all(200);
    server.stop().await;
}

/// To hyper that is a client that has gone; it may still read, and comes back with what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_half_loses_nothing() {
    let topic = topic(10_000);
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, app_of(&sse, &topic)).await;
    let (mut got, mut last) = (Got::default(), 0);
    for _ in 0..5 {
        let mut socket = socket(server.address).await;
        let id = got.back().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        // Of this version a body has no chunks.
        let request = format!("GET /s HTTP/1.0\r\nhost: x\r\n{id}\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(socket.read_u8()).await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&head));
        let mut piece = vec![0; 2_000];
        while got.id.is_none() {
            let read = within(socket.read(&mut piece)).await.expect("a read");
            got.take(&piece[..read]);
        }
        publish(&topic, last + 1..=last + 100, 1_000).await;
        last += 100;
        // It has some of it when it says that it has no more to say.
        let read = within(socket.read(&mut piece)).await.expect("a read");
        got.take(&piece[..read]);
        socket.shutdown().await.expect("a half");
        publish(&topic, last + 1..=last + 100, 1_000).await;
        last += 100;
        while let Ok(read) = within(socket.read(&mut piece)).await {
            if read == 0 {
                break;
            }
            got.take(&piece[..read]);
        }
        eventually("it has gone", || topic.subscribers() == 0).await;
    }
    let mut wire = Wire::h1(socket(server.address).await, "/s", got.back().as_deref()).await;
    got.until(&mut wire, last).await;
    got.has_all(last);
    assert_eq!(sse.connections().closed(CloseReason::ClientGone), 5);
    drop(wire);
    server.stop().await;
}

/// Closed, or without a handle: who stalls finds the end behind what it had not read, and then all is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stall_while_their_topic_ends_find_the_end_behind_what_is_left() {
    const ALL: u64 = 2_000;
    for closes in [true, false] {
        let held = Arc::new(());
        // The only handle there is.
        let only = Arc::new(Mutex::new(Some(topic(100_000))));
        let (of, sse) = (only.clone(), sse_with(options("WriteTimeout = \"60s\"")));
        let app = serving(&sse, move || {
            let topic = of.lock().unwrap_or_else(PoisonError::into_inner);
            topic.as_ref().map(Topic::subscribe).expect("a topic")
        });
        let server = Server::start(&sse, app).await;
        let mut client = Client::connect(server.address).await;
        let mut one = Got::default();
        let mut old = Wire::h1(small_socket(server.address).await, "/s", None).await;
        one.placed(&mut old).await;
        let (mut two, mut body) = shut(&mut client).await;
        let (_, never) = shut(&mut client).await;
        {
            let topic = only.lock().expect("no panic").clone().expect("a topic");
            for n in (1..=ALL).step_by(20) {
                let lines = (n..n + 20).map(|n| Line { _held: held.clone(), ..line(n, 1_000) });
                topic.publish_all(lines).await.expect("published");
                tokio::task::yield_now().await;
            }
            assert_eq!(topic.subscribers(), 3);
        }
        let kept = only.lock().expect("no panic").take().filter(|_| closes);
        if let Some(topic) = &kept {
            topic.close();
        }
        // One never opens its window, and goes.
        drop(never);
        eventually("it is dropped", || sse.connections().len() == 2).await;
        assert_eq!(Arc::strong_count(&held) as u64, ALL + 1, "what is not read yet is kept");
        one.rest_of(old).await;
        open(&mut body);
        two.rest_of(Wire::taking(body)).await;
        for got in [&one, &two] {
            got.has_all(ALL);
            assert_eq!(got.close.as_deref(), Some("ended"));
        }
        eventually("all are gone", || sse.connections().is_empty()).await;
        assert_eq!(sse.connections().closed(CloseReason::Ended), 2);
        drop(kept);
        drop(client);
        server.stop().await;
        assert_eq!(Arc::strong_count(&held), 1, "an event is held by nobody knows whom");
    }
}
