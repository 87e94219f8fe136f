//! Opens and reads streams in tests, through a router or over a real socket. Every wait has a timeout, so
//! a test of an endless stream ends.
//!
//! ```
//! # use hero_sse::prelude::*;
//! # use serde::Serialize;
//! use hero_sse::axum::Router;
//! use hero_sse::testing;
//!
//! #[derive(serde::Serialize, SseEvent)]
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
//!
//! # Timers
//!
//! Without a socket, a test may pause Tokio's clock: `#[tokio::test(start_paused = true)]`, with Tokio's
//! feature `test-util`. The clock then jumps to the next timer when every task waits, so hours pass at
//! once. Timeouts are timers as well: give the reader one that is longer than the pauses of the stream.
//!
//! ```
//! # use hero_sse::prelude::*;
//! # use hero_sse::axum::Router;
//! # use hero_sse::{CloseReason, testing};
//! # use std::time::Duration;
//! #[sse_endpoint("/hours", public, max_age = "150m", heartbeat = "15s")]
//! async fn hours() -> impl Stream<Item = Event> {
//!     futures_util::stream::unfold(1, |hour| async move {
//!         tokio::time::sleep(Duration::from_secs(3600)).await;
//!         Some((Event::text(format!("hour {hour}")), hour + 1))
//!     })
//! }
//!
//! // #[tokio::test(start_paused = true)]
//! async fn an_event_every_hour() -> Result<(), Box<dyn std::error::Error>> {
//!     let sse = HeroSse::builder().build()?;
//!     let app = Router::new().merge(sse.routes(endpoints![hours])?);
//!     let mut stream = testing::open(&app, "/hours").await?.timeout(Duration::from_secs(7200));
//!     assert_eq!(stream.next().await?.ok_or("no event")?.data, "hour 1");
//!     assert_eq!(stream.next().await?.ok_or("no event")?.data, "hour 2");
//!     assert_eq!(stream.next().await?, None);
//!     assert_eq!(stream.close_reason(), Some(CloseReason::MaxAge));
//!     Ok(())
//! }
//! # let mut paused = tokio::runtime::Builder::new_current_thread();
//! # paused.enable_all().start_paused(true).build().unwrap().block_on(an_event_every_hour()).unwrap();
//! ```
//!
//! # Control events
//!
//! The server adds events of its own, whose names begin with `hero.`: `hero.close`, `hero.gap`, `hero.cursor`
//! and `hero.heartbeat`. Readers skip them unless the request is made [`with_control_events`](Open::with_control_events).

mod broker_contract;
mod ticket_store_contract;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

pub use self::broker_contract::broker_contract;
pub use self::ticket_store_contract::ticket_store_contract;
use crate::auth::{Principal, TestPrincipal};
use crate::close::CloseReason;
use crate::delivery::SocketWatch;
use crate::event::SseEvent;
use crate::frame::{FrameRules, InvalidEvent, comments_in, retry_of, write_event};

/// How long a reader waits for an event by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Requests `path` of `app` without a socket. Await the [`Open`] to get an [`EventReader`].
pub fn open<A>(app: &A, path: &str) -> Open<A>
where
    A: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
{
    Open::new(Target::App(app.clone()), path)
}

/// Requests `path` of the server at `address` over a new TCP connection. Await the [`Open`] to get an
/// [`EventReader`].
pub fn connect(address: SocketAddr, path: &str) -> Open<axum::Router> {
    Open::new(Target::Address(address), path)
}

/// Returns one event as it is written to the stream of an endpoint without `event = ".."`.
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
/// [`InvalidEvent`] if the event cannot be written. A stream would end there.
pub fn frame(event: &impl SseEvent) -> Result<String, InvalidEvent> {
    let mut out = BytesMut::new();
    let rules = FrameRules { end_mark: event.is_last(), ..FrameRules::default() };
    write_event(&mut out, rules, |frame| event.encode(frame))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A rule of a contract that an implementation breaks, as [`broker_contract`] and [`ticket_store_contract`] report it.
///
/// Its `Display` says which rule, and what happened instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractViolation(String);

impl ContractViolation {
    /// Adds the rule to a description of what happened.
    fn of(rule: &str) -> impl Fn(String) -> Self {
        move |found| Self(format!("{rule}: {found}"))
    }
}

impl fmt::Display for ContractViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ContractViolation {}

enum Target<A> {
    App(A),
    Address(SocketAddr),
}

/// A request that opens a stream when it is awaited: see [`open`] and [`connect`].
///
/// Awaiting it gives an [`EventReader`], or an [`OpenError`] if the answer is not `200` or takes longer
/// than 5 s.
#[must_use = "await it to open the stream"]
pub struct Open<A> {
    target: Target<A>,
    path: String,
    method: http::Method,
    headers: HeaderMap,
    body: Result<Body, OpenError>,
    principal: Option<Principal>,
    control_events: bool,
}

impl<A> Open<A> {
    fn new(target: Target<A>, path: &str) -> Self {
        Self {
            target,
            path: path.to_owned(),
            method: http::Method::GET,
            headers: HeaderMap::new(),
            body: Ok(Body::empty()),
            principal: None,
            control_events: false,
        }
    }

    /// Opens the stream as this caller and skips the authenticator. Works with [`open`] only: a request
    /// over a socket needs a token.
    pub fn principal(mut self, caller: impl Caller) -> Self {
        self.principal = Some(caller.principal());
        self
    }

    /// Sends this token in the header `Authorization`.
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    /// Sends the header `Last-Event-ID`, as a reconnecting client does.
    #[doc(alias = "resume")]
    #[doc(alias = "replay")]
    pub fn last_event_id(self, id: impl Into<String>) -> Self {
        self.header("last-event-id", id.into())
    }

    /// Adds a header. An invalid name or value is ignored.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::try_from(value.into()))
        {
            self.headers.append(name, value);
        }
        self
    }

    /// Sets the method. Default: `GET`.
    pub fn method(mut self, method: http::Method) -> Self {
        self.method = method;
        self
    }

    /// Sends `body` as JSON in a `POST`, for an endpoint with `method = "post"`.
    ///
    /// ```
    /// use hero_sse::prelude::*;
    /// use hero_sse::axum::{Json, Router};
    /// use hero_sse::testing;
    ///
    /// #[derive(serde::Deserialize, serde::Serialize)]
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

    /// Sends `body` in a `POST`. Set its type with [`header`](Self::header).
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = Ok(body.into());
        self.method(http::Method::POST)
    }

    /// Lets the reader yield the server's control events (`hero.*`) as well, in the order received.
    /// By default it skips them.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::axum::Router;
    /// # use hero_sse::testing;
    /// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sse = HeroSse::builder().build()?;
    /// let greeting = || async { futures_util::stream::iter([Event::text("hello")]) };
    /// let app: Router = sse.endpoint("/greeting").public().handler(greeting)?;
    /// let mut stream = testing::open(&app, "/greeting").with_control_events().await?;
    /// let names: Vec<_> = stream.read_to_end().await?.into_iter().map(|event| event.event).collect();
    /// assert_eq!(names, ["message", "hero.close"]);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test()).unwrap();
    /// ```
    pub fn with_control_events(mut self) -> Self {
        self.control_events = true;
        self
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
            let Self { target, path, method, headers, body, principal, control_events } = self;
            let mut request = Request::new(body?);
            *request.method_mut() = method;
            *request.uri_mut() = path.parse().map_err(|_| OpenError::failed("not a path"))?;
            *request.headers_mut() = headers;
            if let Some(principal) = principal {
                request.extensions_mut().insert(TestPrincipal(principal));
            }
            match target {
                Target::App(app) => {
                    // The test itself reads the body, so no client can stall.
                    request.extensions_mut().insert(Arc::new(SocketWatch::default()));
                    let response = match app.oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    EventReader::new(response, None, control_events).await
                }
                Target::Address(address) => {
                    let (response, task) =
                        send(address, request).await.map_err(OpenError::failed)?;
                    EventReader::new(response, Some(task), control_events).await
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

/// Closes the client's socket when the reader is dropped.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why [`open`] or [`connect`] got no stream.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenError {
    /// Status of the response. `None`: there was no response.
    pub status: Option<StatusCode>,
    /// Headers of the response.
    pub headers: HeaderMap,
    /// Body of the response. Without a response: what went wrong.
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

/// An event as a client parses it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Name of the event. `message` if the field is missing, as in a browser.
    pub event: String,
    /// Data of the event, its lines joined by LF.
    pub data: String,
    /// Id of the event. `None`: the field is missing.
    pub id: Option<String>,
    /// Reconnection time in the event's block. `None`: the field is missing.
    pub retry: Option<Duration>,
}

impl Received {
    /// Returns the data, parsed as JSON.
    ///
    /// # Errors
    ///
    /// If the data is not JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }

    /// Returns whether the server added this event, such as `hero.close` or `hero.gap`. A reader yields
    /// these only [`with_control_events`](Open::with_control_events).
    pub fn is_control(&self) -> bool {
        self.event.starts_with("hero.")
    }
}

/// Reads the events of one stream. Skips the server's control events (`hero.*`) by default.
///
/// Each read has a timeout of 5 s by default. With a paused clock the timeout takes no time.
pub struct EventReader {
    status: StatusCode,
    headers: HeaderMap,
    events: Pin<Box<dyn Stream<Item = Result<sse_stream::Sse, sse_stream::Error>> + Send>>,
    raw: Arc<Mutex<Vec<u8>>>,
    last_event_id: Option<String>,
    timeout: Duration,
    control_events: bool,
    close_reason: Option<CloseReason>,
    _connection: Option<Connection>,
}

impl EventReader {
    async fn new(
        response: Response,
        connection: Option<Connection>,
        control_events: bool,
    ) -> Result<Self, OpenError> {
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
            last_event_id: None,
            timeout: TIMEOUT,
            control_events,
            close_reason: None,
            _connection: connection,
        })
    }

    /// Sets the timeout of each read. Default: 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the headers of the response.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the last reconnection time (`retry:`) received, with or without an event. `None`: no such field yet.
    ///
    /// A client applies it as soon as it has the line.
    pub fn retry(&self) -> Option<Duration> {
        retry_of(&self.lock_raw())
    }

    /// Returns the id that a reconnecting client would send as `Last-Event-ID`, as of the last read. `None`: no id yet.
    ///
    /// A block without data counts, as the specification and Chromium have it. Firefox ignores the id of such a block.
    #[doc(alias = "cursor")]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the text of each comment line received so far. A heartbeat is an empty comment.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::axum::Router;
    /// # use hero_sse::testing;
    /// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
    /// # let sse = HeroSse::builder().build()?;
    /// let working = || async {
    ///     futures_util::stream::iter([Event::comment("working"), Event::text("done")])
    /// };
    /// let app: Router = sse.endpoint("/work").public().handler(working)?;
    /// let mut stream = testing::open(&app, "/work").await?;
    /// assert_eq!(stream.next().await?.ok_or("no event")?.data, "done");
    /// assert_eq!(stream.comments(), ["working"]);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test()).unwrap();
    /// ```
    pub fn comments(&self) -> Vec<String> {
        let raw = self.raw();
        comments_in(&raw).map(str::to_owned).collect()
    }

    /// Returns why the server ended the stream, once a read has met `hero.close`. `None` until then, and
    /// after a connection that broke.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason
    }

    /// Returns all bytes received so far, control events and comments included.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.lock_raw()).into_owned()
    }

    fn lock_raw(&self) -> MutexGuard<'_, Vec<u8>> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next event, or `None` when the stream has ended cleanly.
    ///
    /// Cancelling it loses no event.
    ///
    /// # Errors
    ///
    /// [`ReadError::TimedOut`] if no such event arrives in time, [`ReadError::Broken`] if the connection
    /// breaks.
    pub async fn next(&mut self) -> Result<Option<Received>, ReadError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let block = match tokio::time::timeout_at(deadline, self.events.next()).await {
                Err(_) => return Err(ReadError::TimedOut(self.timeout)),
                Ok(None) => {
                    // Drops the body at its end, as a server does.
                    self.events = Box::pin(futures_util::stream::empty());
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(ReadError::Broken(error.to_string())),
                Ok(Some(Ok(block))) => block,
            };
            if let Some(id) = &block.id {
                // An empty id means none.
                self.last_event_id = Some(id.clone()).filter(|id| !id.is_empty());
            }
            // For a browser, a block without data is not an event.
            let Some(data) = block.data else { continue };
            let event = block.event.filter(|name| !name.is_empty());
            let event = event.unwrap_or_else(|| "message".to_owned());
            let retry = block.retry.map(Duration::from_millis);
            let received = Received { event, data, id: block.id, retry };
            if received.event == "hero.close" {
                self.close_reason = close_reason(&received);
            }
            if self.control_events || !received.is_control() {
                return Ok(Some(received));
            }
            // A stream of control events that is always ready must not block the timeout.
            tokio::task::yield_now().await;
        }
    }

    /// Returns all events until the stream ends. The timeout holds for the whole call.
    ///
    /// # Errors
    ///
    /// [`ReadError::TimedOut`] if the stream has not ended in time, [`ReadError::Broken`] if the connection
    /// breaks. Events received before the error are dropped; [`raw`](Self::raw) still has them.
    pub async fn read_to_end(&mut self) -> Result<Vec<Received>, ReadError> {
        let limit = self.timeout;
        let all = async {
            let mut events = Vec::new();
            while let Some(event) = self.next().await? {
                events.push(event);
                // A stream that is always ready must not block the timeout.
                tokio::task::yield_now().await;
            }
            Ok(events)
        };
        timeout(limit, all).await.unwrap_or(Err(ReadError::TimedOut(limit)))
    }
}

/// Returns the reason that `hero.close` names.
fn close_reason(close: &Received) -> Option<CloseReason> {
    let data: serde_json::Value = close.json().ok()?;
    let name = data.get("reason")?.as_str()?;
    CloseReason::ALL.iter().copied().find(|reason| reason.as_str() == name)
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why a read of [`EventReader`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The read did not finish within this timeout.
    TimedOut(Duration),
    /// The connection broke before the end of the stream.
    Broken(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(timeout) => write!(f, "timed out after {timeout:?}"),
            Self::Broken(error) => write!(f, "the stream broke: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// A client over a real socket that reads only when asked to: for tests of back-pressure.
///
/// Its receive buffer is as small as the kernel allows.
#[derive(Debug)]
pub struct SlowReader(TcpStream);

impl SlowReader {
    /// Connects and sends a request for `path` with these headers. Reads nothing.
    ///
    /// # Errors
    ///
    /// Those of the socket.
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

    /// Reads up to `max` bytes and waits for the first. Empty at the end of the connection.
    ///
    /// # Errors
    ///
    /// `TimedOut` if nothing arrives for 5 s, otherwise those of the socket. A connection that the server
    /// has given up fails with `ConnectionReset`.
    pub async fn read(&mut self, max: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; max];
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing to read for 5 s");
        let read = timeout(TIMEOUT, self.0.read(&mut bytes)).await.map_err(late)??;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    /// Waits until the server resets the connection, without reading from it. Returns how long that took,
    /// or `None` if it took longer than `limit`.
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

/// The caller in a test: a [`Principal`], or the subject of one without permissions.
pub trait Caller: sealed::Sealed {
    /// Returns the principal.
    fn principal(self) -> Principal;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for crate::auth::Principal {}
    impl Sealed for &str {}
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
