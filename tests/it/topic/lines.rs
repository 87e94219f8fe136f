//! Events with a number and padding, and clients that count them, for tests over real connections.

pub(super) use crate::http2::{Client, piece, within};
pub(super) use crate::support::testing::{self, EventReader};
pub(super) use crate::support::{Server, eventually, options, serving, sse_with};
pub(super) use crate::tls::{Certificate, start};
pub(super) use axum::Router;
pub(super) use axum::body::{Body, Bytes};
pub(super) use axum::extract::State;
pub(super) use futures_util::{FutureExt, Stream, StreamExt, stream};
pub(super) use hero_sse::prelude::*;
pub(super) use hero_sse::{CloseReason, HeroSse, SseOptions};
pub(super) use http::Request;
pub(super) use http_body_util::BodyExt;
pub(super) use hyper_util::rt::TokioIo;
pub(super) use serde::Serialize;
pub(super) use serde_json::Value;
pub(super) use std::collections::BTreeSet;
pub(super) use std::io;
pub(super) use std::net::SocketAddr;
pub(super) use std::pin::Pin;
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Arc, Mutex, PoisonError};
pub(super) use std::task::{Context, Poll};
pub(super) use std::time::Duration;
pub(super) use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
pub(super) use tokio::net::{TcpListener, TcpSocket, TcpStream};
pub(super) use tokio::runtime::{Builder, Runtime};
pub(super) use tokio::sync::oneshot;
pub(super) use tokio::task::JoinHandle;
pub(super) use tower::ServiceExt;

#[derive(Serialize, SseEvent)]
pub(super) struct Line {
    pub(super) n: u64,
    pub(super) pad: String,
    /// How many of these there are is how many events are held somewhere.
    #[serde(skip)]
    pub(super) _held: Arc<()>,
}

/// A line of so many bytes, and a bit.
pub(super) fn line(n: u64, size: usize) -> Line {
    Line { n, pad: "x".repeat(size), _held: Arc::default() }
}

pub(super) async fn publish(
    topic: &Topic<Line>,
    lines: impl IntoIterator<Item = u64>,
    size: usize,
) {
    topic.publish_all(lines.into_iter().map(|n| line(n, size))).await.expect("published");
}

/// A topic that keeps so many lines, and all their bytes.
pub(super) fn topic(keep: usize) -> Topic<Line> {
    Topic::builder("lines").retain_events(keep).retain_bytes(256 << 20).build()
}

/// An application with the topic at `/s`, for a client's whole life.
pub(super) fn app_of(sse: &HeroSse, topic: &Topic<Line>) -> Router {
    let topic = topic.clone();
    serving(sse, move || topic.subscribe())
}

/// An open stream, whatever carries it.
pub(super) struct Wire {
    pub(super) bytes: Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>,
    /// The client's end of an HTTP/1.1 connection.
    pub(super) _driver: Option<Driver>,
}

pub(super) struct Driver(pub(super) JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn request(path: &str, id: Option<&str>) -> Request<()> {
    let request = Request::get(format!("http://localhost{path}")).header("host", "localhost");
    let request = match id {
        Some(id) => request.header("last-event-id", id),
        None => request,
    };
    request.body(()).expect("a request")
}

impl Wire {
    /// HTTP/1.1 on a connection of its own.
    pub(super) async fn h1<I>(socket: I, path: &str, id: Option<&str>) -> Self
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
    pub(super) async fn h2(client: &mut Client, id: Option<&str>) -> Self {
        Self::taking(Self::shut(client, id).await)
    }

    /// The same, with a window that stays shut once it is full.
    pub(super) async fn shut(client: &mut Client, id: Option<&str>) -> h2::RecvStream {
        let answer = client.send(request("/s", id)).await;
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    pub(super) fn taking(body: h2::RecvStream) -> Self {
        let bytes = stream::unfold(body, async |mut body| {
            let bytes = piece(&mut body).await?;
            Some((bytes.map_err(told), body))
        });
        Self { bytes: Box::pin(bytes), _driver: None }
    }
}

/// Says that it took all that was sent to a window that was shut.
pub(super) fn open(body: &mut h2::RecvStream) {
    let taken = body.flow_control().used_capacity();
    body.flow_control().release_capacity(taken).expect("taken");
}

pub(super) fn told(error: impl ToString) -> String {
    error.to_string()
}

/// What one client has got, over however many connections.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) id: Option<String>,
    pub(super) numbers: Vec<u64>,
    pub(super) missed: u64,
    pub(super) gaps: u64,
    /// What the last stream said at its end.
    pub(super) close: Option<String>,
    /// The beginning of a frame.
    pub(super) part: Vec<u8>,
}

impl Got {
    /// A piece of a stream, which ends anywhere.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.part.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(end) = self.part[begin..].windows(2).position(|two| two == b"\n\n") {
            let frame = String::from_utf8(self.part[begin..begin + end].to_vec()).expect("UTF-8");
            begin += end + 2;
            self.frame(&frame);
        }
        self.part.drain(..begin);
    }

    pub(super) fn frame(&mut self, frame: &str) {
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
    pub(super) fn back(&mut self) -> Option<String> {
        self.part.clear();
        self.close = None;
        self.id.clone()
    }

    /// Reads until it has the line with this number.
    pub(super) async fn until(&mut self, wire: &mut Wire, last: u64) {
        while self.numbers.last().is_none_or(|n| *n < last) {
            let bytes = within(wire.bytes.next()).await.expect("no end").expect("no reset");
            self.take(&bytes);
        }
    }

    /// Reads until it knows where it stands.
    pub(super) async fn placed(&mut self, wire: &mut Wire) {
        while self.id.is_none() {
            let bytes = within(wire.bytes.next()).await.expect("no end").expect("no reset");
            self.take(&bytes);
        }
    }

    /// Reads to the stream's end, clean or not.
    pub(super) async fn rest_of(&mut self, mut wire: Wire) {
        while let Some(Ok(bytes)) = within(wire.bytes.next()).await {
            self.take(&bytes);
        }
    }

    /// Has every line up to this one, once and in order.
    pub(super) fn has_all(&self, last: u64) {
        let wrong = self.numbers.iter().zip(1..).position(|(got, wanted)| *got != wanted);
        assert_eq!((wrong, self.numbers.len() as u64, self.gaps), (None, last, 0));
    }
}

/// A client whose receive buffer is as small as may be.
pub(super) async fn small_socket(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    socket.connect(address).await.expect("a connection")
}

pub(super) async fn socket(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a socket")
}

pub(super) const LINES: u64 = 3_000;

/// What is there without waiting.
pub(super) fn there(reader: &mut EventReader) -> Got {
    while let Some(Ok(Some(_))) = reader.next().now_or_never() {}
    let mut got = Got::default();
    got.take(reader.raw().as_bytes());
    got
}

pub(super) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[derive(Serialize, SseEvent)]
pub(super) struct Wake {
    #[serde(skip)]
    pub(super) says: Option<(Topic<Line>, u64)>,
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

/// Its own topic, which is just making room for another event.
#[derive(Serialize, SseEvent)]
pub(super) struct Echo {
    pub(super) n: u64,
    #[serde(skip)]
    pub(super) echo: Option<Arc<Mutex<Option<Topic<Echo>>>>>,
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

pub(super) type Both = (Topic<Line>, Topic<Line>);

#[sse_endpoint("/get", public)]
pub(super) async fn got(State((topic, _)): State<Both>) -> Subscription<Line> {
    topic.subscribe()
}

#[sse_endpoint("/post", method = "post", public)]
pub(super) async fn posted(State((topic, _)): State<Both>) -> Subscription<Line> {
    topic.subscribe()
}

#[sse_endpoint("/two", public)]
pub(super) async fn both(State((topic, other)): State<Both>) -> hero_sse::MergedSubscription {
    other.subscribe().and(topic.subscribe())
}
