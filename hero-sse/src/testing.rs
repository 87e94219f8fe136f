//! Opening and reading streams in tests, through a router or over a real socket, without ever
//! hanging on one that does not end.
//!
//! ```
//! # use hero_sse::prelude::*;
//! # use serde::Serialize;
//! use hero_sse::axum::Router;
//! use hero_sse::testing;
//!
//! #[derive(Serialize, SseEvent)]
//! struct Tick { n: u64 }
//!
//! #[sse_endpoint("/ticks", public)]
//! async fn ticks() -> impl Stream<Item = Tick> {
//!     futures_util::stream::iter((0..3).map(|n| Tick { n }))
//! }
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let sse = HeroSse::builder().build()?;
//! let app = Router::new().merge(sse.routes(endpoints![ticks])?);
//! let mut stream = testing::open(&app, "/ticks").await?;
//! let first = stream.next().await?.ok_or("no event")?;
//! assert_eq!((first.event.as_str(), first.data.as_str()), ("tick", r#"{"n":0}"#));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test()).unwrap();
//! ```

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sse_stream::SseByteStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tower::{Service, ServiceExt as _};

use crate::auth::{Principal, TestPrincipal, TicketGrant, TicketStore};
use crate::deadline::SocketWatch;
use crate::event::SseEvent;
use crate::frame::{InvalidEvent, write_event};
pub use crate::topic::contract::broker_contract;

/// How long a reader waits for the next event unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Requests `path` of `app`, without a socket; await what it returns.
pub fn open<A>(app: &A, path: &str) -> Open<A>
where
    A: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
{
    Open::new(Target::App(app.clone()), path)
}

/// Requests `path` of the server at `address`, over a socket of its own; await what it returns.
pub fn connect(address: SocketAddr, path: &str) -> Open<axum::Router> {
    Open::new(Target::Address(address), path)
}

/// The frame of one event, as it goes over the wire when the endpoint gives it no name.
///
/// ```
/// use hero_sse::prelude::*;
/// use hero_sse::testing::frame;
///
/// #[derive(SseEvent)]
/// #[sse(event = "log", data = "text")]
/// struct Line(String);
///
/// let frame = frame(&Line("one\ntwo".to_owned()))?;
/// assert_eq!(frame, "event: log\ndata: one\ndata: two\n\n");
/// # Ok::<(), hero_sse::event::InvalidEvent>(())
/// ```
///
/// # Errors
///
/// [`InvalidEvent`] when it cannot be written; on a stream this would be its end.
pub fn frame(event: &impl SseEvent) -> Result<String, InvalidEvent> {
    let mut out = BytesMut::new();
    write_event(&mut out, None, event.is_last(), |frame| event.encode(frame))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Checks what a test can see of the contract of a [`TicketStore`]. It takes about two seconds, and leaves
/// nothing behind in a store that keeps it.
///
/// On a multi-threaded runtime, which puts the takes to the test: `#[tokio::test(flavor = "multi_thread")]`.
///
/// # Errors
///
/// What the store did instead.
pub async fn ticket_store_contract(store: impl TicketStore) -> Result<(), String> {
    let store = Arc::new(store);
    let (long, short) = (Duration::from_secs(60), Duration::from_secs(1));
    let name = |n: u32| format!("{n:08x}").repeat(8);
    let text = |n: u32| format!("{{\"n\": {n}, \"text\": \"\u{fc}\\n\\u0000 \u{1f3ab}\"}}");
    let put = async |n: u32, ttl| {
        let grant = TicketGrant::of(&format!("holder {}", n % 7), &text(n));
        let put = store.put(&name(n), &grant, ttl).await;
        put.map_err(|error| format!("put: {error}"))
    };
    let take = async |key: String| store.take(&key).await.map_err(|error| format!("take: {error}"));
    let expect = |what: &str, found: Option<String>, wanted: Option<String>| {
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{what}: {found:?} instead of {wanted:?}"))
        }
    };

    let n = fastrand::u32(..0xFFFF_0000);
    expect("a key that was never put", take(name(n)).await?, None)?;
    put(n, long).await?;
    put(n + 1, long).await?;
    expect("another key", take(name(n + 2)).await?, None)?;
    expect("a part of a key", take(name(n).split_off(1)).await?, None)?;
    expect("the first take", take(name(n)).await?, Some(text(n)))?;
    expect("the second take", take(name(n)).await?, None)?;
    expect("the ticket beside it", take(name(n + 1)).await?, Some(text(n + 1)))?;

    for n in n..n + 20 {
        put(n, long).await?;
        let takes: Vec<_> = (0..50)
            .map(|_| {
                let (store, key) = (store.clone(), name(n));
                tokio::spawn(async move { store.take(&key).await })
            })
            .collect();
        let mut taken = 0;
        for take in takes {
            let answer = take.await.map_err(|error| error.to_string())?;
            taken += usize::from(answer.map_err(|error| format!("take: {error}"))?.is_some());
        }
        if taken != 1 {
            return Err(format!("{taken} of 50 takes at the same time got the ticket"));
        }
    }

    put(n, short).await?;
    put(n + 1, long).await?;
    tokio::time::sleep(short + Duration::from_millis(500)).await;
    expect("a ticket whose time is over", take(name(n)).await?, None)?;
    expect("one whose time is not", take(name(n + 1)).await?, Some(text(n + 1)))
}

enum Target<A> {
    App(A),
    Address(SocketAddr),
}

/// A request in the making.
#[must_use = "await it to open the stream"]
pub struct Open<A> {
    target: Target<A>,
    path: String,
    method: http::Method,
    headers: HeaderMap,
    body: Result<Body, OpenError>,
    principal: Option<Principal>,
}

impl<A> Open<A> {
    fn new(target: Target<A>, path: &str) -> Self {
        let (path, headers, body) = (path.to_owned(), HeaderMap::new(), Ok(Body::empty()));
        Self { target, path, method: http::Method::GET, headers, body, principal: None }
    }

    /// As this caller, past the authenticator. Only without a socket: nothing that travels can
    /// vouch for itself.
    pub fn principal(mut self, caller: impl Caller) -> Self {
        self.principal = Some(caller.principal());
        self
    }

    /// With this token in the `Authorization` header.
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    /// As a client that comes back with this id.
    pub fn last_event_id(self, id: impl Into<String>) -> Self {
        self.header("last-event-id", id.into())
    }

    /// With one more header; what cannot be one is left out.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::try_from(value.into()))
        {
            self.headers.append(name, value);
        }
        self
    }

    /// With another method than `GET`.
    pub fn method(mut self, method: http::Method) -> Self {
        self.method = method;
        self
    }

    /// As a `POST` of `body` as JSON, to an endpoint with `method = "post"`.
    ///
    /// ```
    /// use hero_sse::prelude::*;
    /// use hero_sse::axum::Json;
    /// use serde::Serialize;
    /// use hero_sse::axum::Router;
    /// use hero_sse::testing;
    ///
    /// #[derive(serde::Deserialize, Serialize)]
    /// struct Question { words: Vec<String> }
    ///
    /// #[sse_endpoint("/answers", method = "post", public)]
    /// async fn answers(Json(question): Json<Question>) -> impl Stream<Item = Event> {
    ///     futures_util::stream::iter(question.words.into_iter().map(Event::text))
    /// }
    ///
    /// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
    /// let sse = HeroSse::builder().build()?;
    /// let app = Router::new().merge(sse.routes(endpoints![answers])?);
    /// let question = Question { words: vec!["well".to_owned()] };
    /// let mut stream = testing::open(&app, "/answers").json(&question).await?;
    /// assert_eq!(stream.next().await?.ok_or("no event")?.data, "well");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test()).unwrap();
    /// ```
    pub fn json(self, body: &impl Serialize) -> Self {
        let mut request = self.header(CONTENT_TYPE.as_str(), "application/json").body("");
        request.body = serde_json::to_vec(body).map(Body::from).map_err(OpenError::failed);
        request
    }

    /// As a `POST` of `body`, whatever it is; its type is told by [`header`](Self::header).
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = Ok(body.into());
        self.method(http::Method::POST)
    }
}

impl<A> IntoFuture for Open<A>
where
    A: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    A::Future: Send,
{
    type Output = Result<EventReader, OpenError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let opened = async move {
            let Self { target, path, method, headers, body, principal } = self;
            let mut request = Request::new(body?);
            *request.method_mut() = method;
            *request.uri_mut() = path.parse().map_err(|_| OpenError::failed("not a path"))?;
            *request.headers_mut() = headers;
            if let Some(principal) = principal {
                request.extensions_mut().insert(TestPrincipal(principal));
            }
            match target {
                Target::App(app) => {
                    // The test itself reads the body, when it likes: nobody else could stall.
                    request.extensions_mut().insert(Arc::new(SocketWatch::default()));
                    let response = match app.oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    EventReader::of(response, None).await
                }
                Target::Address(address) => {
                    let (response, task) =
                        send(address, request).await.map_err(OpenError::failed)?;
                    EventReader::of(response, Some(task)).await
                }
            }
        };
        Box::pin(async move {
            let timed_out = |_| OpenError::failed(format!("nothing within {TIMEOUT:?}"));
            timeout(TIMEOUT, opened).await.map_err(timed_out)?
        })
    }
}

async fn send(
    address: SocketAddr,
    mut request: Request,
) -> Result<(Response, Connection), Box<dyn std::error::Error + Send + Sync>> {
    let host = HeaderValue::try_from(address.to_string())?;
    request.headers_mut().insert(http::header::HOST, host);
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let connection = Connection(tokio::spawn(connection).abort_handle());
    let response = sender.send_request(request).await?;
    Ok((response.map(Body::new), connection))
}

/// The client's end of a socket: dropping the reader closes it.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why [`open`] has no stream to read.
#[derive(Debug)]
pub struct OpenError {
    /// The answer's status; `None` when there was no answer.
    pub status: Option<StatusCode>,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The answer's body, or what went wrong.
    pub body: String,
}

impl OpenError {
    fn failed(error: impl ToString) -> Self {
        Self { status: None, headers: HeaderMap::new(), body: error.to_string() }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "answered {status}: {}", self.body),
            None => write!(f, "no answer: {}", self.body),
        }
    }
}

impl std::error::Error for OpenError {}

/// One event, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Its name; `message` when it has none.
    pub event: String,
    /// Its data, the lines joined by LF.
    pub data: String,
    /// The id it came with.
    pub id: Option<String>,
}

impl Received {
    /// The data as JSON.
    ///
    /// # Errors
    ///
    /// When it is none, or none of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// Reads one stream. It waits 5 s for each event and then gives up, so that a test of an endless
/// stream ends; under a paused clock that is no time at all.
pub struct EventReader {
    status: StatusCode,
    headers: HeaderMap,
    events: Pin<Box<dyn Stream<Item = Result<sse_stream::Sse, sse_stream::Error>> + Send>>,
    raw: Arc<Mutex<Vec<u8>>>,
    retry: Option<Duration>,
    timeout: Duration,
    _connection: Option<Connection>,
}

impl EventReader {
    async fn of(response: Response, connection: Option<Connection>) -> Result<Self, OpenError> {
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            let body = match body.collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                Err(error) => error.to_string(),
            };
            return Err(OpenError { status: Some(parts.status), headers: parts.headers, body });
        }
        let raw = Arc::new(Mutex::new(Vec::new()));
        let copy = raw.clone();
        let chunks = body.into_data_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                copy.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(chunk);
            }
        });
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            events: Box::pin(SseByteStream::new(chunks)),
            raw,
            retry: None,
            timeout: TIMEOUT,
            _connection: connection,
        })
    }

    /// Waits this long for each event, instead of 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The reconnection time that came last.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Everything received so far, to the byte.
    pub fn raw(&self) -> String {
        let raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&raw).into_owned()
    }

    /// The next event, the kit's own included; `None` at the stream's clean end.
    ///
    /// # Errors
    ///
    /// When none came in time, and when the stream broke.
    pub async fn next(&mut self) -> Result<Option<Received>, ReadError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let block = match tokio::time::timeout_at(deadline, self.events.next()).await {
                Err(_) => return Err(ReadError::TimedOut(self.timeout)),
                Ok(None) => {
                    // The body goes with its end, as it would in a server.
                    self.events = Box::pin(futures_util::stream::empty());
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(ReadError::Broken(error.to_string())),
                Ok(Some(Ok(block))) => block,
            };
            self.retry = block.retry.map(Duration::from_millis).or(self.retry);
            let event = block.event.filter(|name| !name.is_empty());
            // A block without data is no event to a browser.
            if let Some(data) = block.data {
                let event = event.unwrap_or_else(|| "message".to_owned());
                return Ok(Some(Received { event, data, id: block.id }));
            }
        }
    }

    /// All that comes until the stream ends, which it must do within the reader's patience.
    ///
    /// # Errors
    ///
    /// When it has not ended by then, silent or not, and when it broke.
    pub async fn read_to_end(&mut self) -> Result<Vec<Received>, ReadError> {
        let limit = self.timeout;
        let all = async {
            let mut events = Vec::new();
            while let Some(event) = self.next().await? {
                events.push(event);
                // A stream that is always ready must not outrun the clock.
                tokio::task::yield_now().await;
            }
            Ok(events)
        };
        timeout(limit, all).await.unwrap_or(Err(ReadError::TimedOut(limit)))
    }
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why [`EventReader::next`] has no event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing came for this long.
    TimedOut(Duration),
    /// The stream broke off.
    Broken(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(timeout) => write!(f, "no event within {timeout:?}"),
            Self::Broken(error) => write!(f, "the stream broke: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// A client over a real socket that reads only when told, through a receive buffer as small as the
/// kernel allows: for tests of back-pressure.
#[derive(Debug)]
pub struct SlowReader(TcpStream);

impl SlowReader {
    /// Connects and sends the request for `path`, with these headers; reads nothing.
    ///
    /// # Errors
    ///
    /// As the socket's.
    pub async fn connect(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(address).await?;
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(Self(stream))
    }

    /// Reads what is there, up to `most` bytes, waiting for the first; empty at the end.
    ///
    /// # Errors
    ///
    /// As the socket's, among them the reset of a connection that was given up; `TimedOut` when
    /// nothing comes for 5 s.
    pub async fn read(&mut self, max: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; max];
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing to read for 5 s");
        let read = timeout(TIMEOUT, self.0.read(&mut bytes)).await.map_err(late)??;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    /// How long it took the server to reset the connection, without reading from it; `None` when it
    /// did not within `limit`.
    pub async fn reset_within(&self, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if matches!(self.0.take_error(), Ok(Some(_)) | Err(_)) {
                return Some(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

/// Who opens a stream in a test: a [`Principal`], or a subject's name for one without permissions.
pub trait Caller {
    /// The principal.
    fn principal(self) -> Principal;
}

impl Caller for Principal {
    fn principal(self) -> Principal {
        self
    }
}

impl Caller for &str {
    fn principal(self) -> Principal {
        Principal::test(self)
    }
}
