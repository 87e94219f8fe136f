//! Adopts event streams that other servers and libraries made.
//!
//! An adopted stream is read block by block and written anew. So it has everything that a stream of hero-sse has: the
//! head, heartbeats between whole events, the write timeout, limits, the registry, the drain and the profile of its
//! endpoint. See [the guide on LLM answers](crate::guide::llm_answers).
//!
//! ```
//! use hero_sse::adopt::{self, Adopted};
//! use hero_sse::axum::response::{IntoResponse, sse};
//! use hero_sse::prelude::*;
//!
//! /// Passes on the answer of a handler that was written for axum.
//! #[sse_endpoint("/ticks", public)]
//! async fn ticks() -> Result<Adopted, Refusal> {
//!     let event = Ok::<_, std::convert::Infallible>(sse::Event::default().data("tick"));
//!     let answer = sse::Sse::new(futures_util::stream::iter([event])).into_response();
//!     Ok(adopt::response(answer)?)
//! }
//! ```
//!
//! # What is passed on
//!
//! | in the upstream's block | in ours |
//! |---|---|
//! | name, data, id | the same. An event without a name stays unnamed, even if the endpoint declares an `event` |
//! | `retry` | the same, but at least 500 ms and at most 24 h |
//! | an empty id, which clears the client's cursor | the same |
//! | an id that is no [`EventId`] | dropped; the event is passed on. Its client may receive it a second time after a reconnect |
//! | an id with hero-sse's end mark | the event is [the last](crate::Event::last) |
//! | a name that is no [`EventName`](crate::event::EventName) | [`AdoptError::Name`] |
//! | `error` or `open` as a name | the same under the `plain` profile. A `native` stream ends with an error |
//! | comments, unknown fields, `hero.heartbeat` and `hero.cursor` | dropped: our own heartbeats run |
//! | `hero.close` | the end, if the upstream's stream ended by itself, or else [`AdoptError::Closed`] |
//! | `hero.gap` | [`AdoptError::Missed`] |
//! | bytes that are no UTF-8 | U+FFFD, as in a browser |
//!
//! # Errors, backpressure and cancellation
//!
//! An error ends the endpoint's stream with [`CloseReason::StreamError`]: a `plain` body breaks, a `native` stream gets its
//! closing event. The error is logged, and the client never receives its text. The upstream is read only as fast as the
//! client reads. Dropping the stream drops the upstream's body, and with it the connection or the request behind it.

use std::error::Error;
use std::fmt::{self, Display};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::close::CloseReason;
use crate::event::{Event, SseEvent};
use crate::frame::{Block, BlockParser, EventId, InvalidEvent, RETRY, TooLong};
use crate::refusal::Refusal;
use crate::telemetry;

/// The default of [`Adopted::max_block`]: what a slow client's buffer holds as well. The longest events of language
/// models, with images in them, are about as long.
const MAX_BLOCK: usize = 1 << 20;

/// So many bytes are read at a stretch without an event in them. Then other tasks have their turn.
const MAX_SKIPPED: usize = 64 * 1024;

/// Adopts the event stream in an upstream's response: that of an HTTP client, or of another axum handler.
///
/// Every body type of `http-body` fits. A `reqwest::Response` fits after `http::Response::from(response)`.
///
/// The response's headers are not passed on, since most belong to the connection to the upstream.
///
/// # Errors
///
/// [`AdoptError`] if the response is no event stream: a status other than `200`, another content type than
/// `text/event-stream`, or a content encoding. Under `?`, the error turns into a [`Refusal`] with the status `502`.
///
/// ```
/// use hero_sse::adopt::{self, AdoptError, Adopted};
/// use hero_sse::Refusal;
/// use hero_sse::axum::{body::Body, http::{Response, StatusCode}};
///
/// /// Lets the caller know that the model is busy. All other failures are a `502`.
/// fn pass_on(answer: Response<Body>) -> Result<Adopted, Refusal> {
///     adopt::response(answer).map_err(|error| match error {
///         AdoptError::Status(StatusCode::TOO_MANY_REQUESTS) => {
///             Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the model is busy")
///         }
///         other => other.into(),
///     })
/// }
/// # let answer = Response::builder().status(429).body(Body::empty()).unwrap();
/// # assert_eq!(pass_on(answer).unwrap_err().status(), 503);
/// ```
#[doc(alias = "proxy")]
#[doc(alias = "upstream")]
#[doc(alias = "forward")]
pub fn response<B>(response: http::Response<B>) -> Result<Adopted, AdoptError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if response.status() != StatusCode::OK {
        return Err(AdoptError::Status(response.status()));
    }
    check_type(response.headers())?;
    check_encoding(response.headers())?;
    Ok(body(response.into_body()))
}

/// Adopts a body that is known to be an event stream.
pub fn body<B>(body: B) -> Adopted
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Adopted {
        body: Some(Body::new(body)),
        chunk: Bytes::new(),
        parser: BlockParser::new(MAX_BLOCK),
        max_block: MAX_BLOCK,
        idle: None,
        is_last: None,
    }
}

/// Adopts a stream of bytes that is known to be an event stream, such as `reqwest::Response::bytes_stream`. The pieces
/// may end anywhere.
///
/// ```
/// use hero_sse::adopt;
/// use futures_util::{StreamExt, stream};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let pieces = ["data: a\n\nda", "ta: b\n", "\n"].map(Ok::<_, std::io::Error>);
/// let events = adopt::stream(stream::iter(pieces));
/// assert_eq!(events.count().await, 2);
/// # });
/// ```
pub fn stream<S, T, E>(stream: S) -> Adopted
where
    S: Stream<Item = Result<T, E>> + Send + 'static,
    T: Into<Bytes>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    body(Body::from_stream(stream))
}

/// An event stream that another server or library made: a stream of [`Event`]s, which an endpoint returns as it is, or
/// with an adaptor around it.
///
/// [`response`], [`body`] and [`stream`] make it. After an error it ends, except after [`AdoptError::Missed`].
#[must_use = "the upstream is not read until the stream is polled"]
pub struct Adopted {
    /// `None` after the end. The upstream is released at once.
    body: Option<Body>,
    /// What remains of the last piece.
    chunk: Bytes,
    parser: BlockParser,
    max_block: usize,
    idle: Option<Idle>,
    is_last: Option<IsLast>,
}

impl Adopted {
    /// Limits the length of one block of the upstream, in bytes. The default is 1 MiB. A longer one, or a longer line,
    /// is [`AdoptError::TooLong`].
    ///
    /// A stream needs up to three times this much memory while it passes on such a block.
    pub fn max_block(mut self, bytes: usize) -> Self {
        self.max_block = bytes;
        self.parser.set_max_block(bytes);
        self
    }

    /// Limits the time in which the upstream sends nothing, not even a comment. A longer silence is
    /// [`AdoptError::Idle`]. By default there is no limit: the client receives heartbeats as long as the connection to
    /// the upstream stands.
    ///
    /// Choose at least twice the interval of the upstream's own heartbeats. Time in which the client does not read does
    /// not count. The limit does not hold for the head of the upstream's response, which your function awaits.
    #[doc(alias = "read_timeout")]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle = Some(Idle { timeout, since: None, timer: None });
        self
    }

    /// Sets how the upstream marks its last event, such as `[DONE]` of OpenAI's protocol.
    ///
    /// The first event for which `is_last` returns `true` is the last of the stream. An upstream that ends before it was
    /// cut: [`AdoptError::Torn`]. Without this setting, an end between two events is a whole answer wherever HTTP says
    /// so. With HTTP/1.0, where a body ends with the connection, it always is.
    ///
    /// ```
    /// use hero_sse::adopt::{self, AdoptError};
    /// use futures_util::{StreamExt, stream};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let pieces = ["data: Hel\n\n", "data: lo\n\n"].map(Ok::<_, std::io::Error>);
    /// let mut answer = adopt::stream(stream::iter(pieces)).last_event(|event| event.data() == Some("[DONE]"));
    /// assert!(answer.next().await.is_some_and(|event| event.is_ok()));
    /// assert!(answer.next().await.is_some_and(|event| event.is_ok()));
    /// assert!(matches!(answer.next().await, Some(Err(AdoptError::Torn))));
    /// # });
    /// ```
    pub fn last_event(mut self, is_last: impl Fn(&Event) -> bool + Send + 'static) -> Self {
        self.is_last = Some(Box::new(is_last));
        self
    }

    /// Ends the stream and releases the upstream.
    fn end(&mut self) {
        self.body = None;
        self.chunk = Bytes::new();
        self.parser = BlockParser::new(0);
    }

    /// Reads blocks until one is an item of this stream. `None`: the next piece must arrive first.
    fn next_item(&mut self) -> Option<Item> {
        loop {
            let block = match self.parser.next_block(&mut self.chunk) {
                Ok(block) => block?,
                Err(TooLong) => {
                    return Some(Item::End(Some(AdoptError::TooLong { max: self.max_block })));
                }
            };
            if let Some(item) = item_of(block) {
                return Some(item);
            }
        }
    }
}

impl Stream for Adopted {
    type Item = Result<Event, AdoptError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut skipped = 0;
        loop {
            match this.next_item() {
                Some(Item::Go(Ok(event))) => {
                    let is_last = this.is_last.as_ref().is_some_and(|is_last| is_last(&event));
                    let event = if is_last { event.last() } else { event };
                    if event.is_last() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Some(Item::Go(Err(error))) => return Poll::Ready(Some(Err(error))),
                Some(Item::End(end)) => {
                    let end = end.or_else(|| this.is_last.is_some().then_some(AdoptError::Torn));
                    this.end();
                    return Poll::Ready(end.map(Err));
                }
                None => {}
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            if skipped > MAX_SKIPPED {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                let timeout =
                    ready!(this.idle.as_mut().map_or(Poll::Pending, |idle| idle.poll(cx)));
                this.end();
                return Poll::Ready(Some(Err(AdoptError::Idle { timeout })));
            };
            if let Some(idle) = &mut this.idle {
                idle.since = None;
            }
            match frame {
                Some(Ok(frame)) => {
                    // Trailers are no part of an event stream.
                    this.chunk = frame.into_data().unwrap_or_default();
                    skipped += this.chunk.len().max(1);
                }
                end => {
                    let torn = this.parser.is_torn() || this.is_last.is_some();
                    this.end();
                    let error = match end {
                        Some(Err(error)) => Some(AdoptError::Body(error.into_inner())),
                        _ => torn.then_some(AdoptError::Torn),
                    };
                    return Poll::Ready(error.map(Err));
                }
            }
        }
    }
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopted").field("ended", &self.body.is_none()).finish_non_exhaustive()
    }
}

/// What [`Adopted::last_event`] sets.
type IsLast = Box<dyn Fn(&Event) -> bool + Send>;

/// A limit on the upstream's silence.
struct Idle {
    timeout: Duration,
    /// Since when this stream has waited for the upstream.
    since: Option<Instant>,
    /// Made for the first wait. It is set anew only when it fires, not for each wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// Called while nothing arrives. Is ready with the timeout when it has passed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        // So long a time is no limit.
        let Some(due) = since.checked_add(self.timeout) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(self.timeout);
            }
            timer.as_mut().reset(due);
        }
    }
}

/// What a block is in the adopted stream.
enum Item {
    Go(Result<Event, AdoptError>),
    End(Option<AdoptError>),
}

/// Returns `None` for a block that is not passed on.
fn item_of(mut block: Block) -> Option<Item> {
    match block.name.as_deref() {
        Some("hero.close") => {
            return Some(Item::End(fault_of_close(block.data.as_deref().unwrap_or_default())));
        }
        Some("hero.gap") => return Some(Item::Go(Err(AdoptError::Missed))),
        // What they say about the connection to the upstream is of no use here, but an id counts.
        Some("hero.heartbeat" | "hero.cursor") => (block.name, block.data) = (None, None),
        _ => {}
    }
    match event_of(block) {
        Ok(event) => event.map(|event| Item::Go(Ok(event))),
        Err(error) => Some(Item::End(Some(AdoptError::Name(error)))),
    }
}

/// Returns `None` if nothing of the block can be passed on.
fn event_of(block: Block) -> Result<Option<Event>, InvalidEvent> {
    let Block { name, id, retry, data, last } = block;
    let id = id.filter(|id| id.is_empty() || EventId::new(id.as_str()).is_ok());
    if name.is_none() && id.is_none() && retry.is_none() && data.is_none() && !last {
        return Ok(None);
    }
    let mut event = data.map_or_else(Event::without_data, Event::text);
    event = match name {
        Some(name) => event.named(name)?,
        None => event.unnamed(),
    };
    if let Some(id) = id {
        event = if id.is_empty() { event.clear_id() } else { event.with_id(id)? };
    }
    if let Some(retry) = retry {
        event = event.with_retry(retry.clamp(*RETRY.start(), *RETRY.end()))?;
    }
    Ok(Some(if last { event.last() } else { event }))
}

/// Returns `None` if the upstream's stream came to its own end.
fn fault_of_close(data: &str) -> Option<AdoptError> {
    #[derive(serde::Deserialize)]
    struct Close<'a> {
        reason: &'a str,
    }
    let reason = serde_json::from_str::<Close<'_>>(data).ok().map(|close| close.reason);
    let reason = CloseReason::ALL.iter().copied().find(|known| Some(known.as_str()) == reason);
    match reason {
        Some(CloseReason::Ended | CloseReason::LastEvent) => None,
        reason => Some(AdoptError::Closed(reason)),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), AdoptError> {
    let value = headers.get(CONTENT_TYPE);
    let text = value.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = text.as_deref().and_then(|text| text.split(';').next()).map(str::trim);
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case("text/event-stream") => Ok(()),
        _ => Err(AdoptError::ContentType(value.cloned())),
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), AdoptError> {
    let is_identity = |value: &&HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().find(|value| !is_identity(value)) {
        None => Ok(()),
        Some(value) => Err(AdoptError::ContentEncoding(value.clone())),
    }
}

/// Why a response was not adopted, or why an adopted stream ended before its own end.
///
/// As the error of an endpoint's function it is a response: `502`, with a text that says nothing about the upstream.
/// The log has the error itself. To answer otherwise, match on it and return a [`Refusal`] of your own.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdoptError {
    /// The response's status is not `200`.
    Status(StatusCode),
    /// The response's content type is not `text/event-stream`. `None`: it has none.
    ContentType(Option<HeaderValue>),
    /// The response's body has this content encoding. Send `accept-encoding: identity` to the upstream, or let your
    /// HTTP client decode the body.
    ContentEncoding(HeaderValue),
    /// Reading the body failed: the upstream closed the connection, or a timeout of your HTTP client passed.
    Body(Box<dyn Error + Send + Sync>),
    /// The body ended inside a block, which is not passed on, or before the [last event](Adopted::last_event).
    Torn,
    /// A block or a line is longer than [`max_block`](Adopted::max_block).
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// The upstream sent nothing for [`idle_timeout`](Adopted::idle_timeout).
    Idle {
        /// The limit.
        timeout: Duration,
    },
    /// An event has a name that cannot be passed on.
    Name(InvalidEvent),
    /// The upstream is a stream of hero-sse, and says by `hero.gap` that this client missed events.
    ///
    /// It is no end: handle it, for instance by an event that lets the page reload its state, and the stream goes on.
    /// If it reaches the endpoint, the stream ends.
    Missed,
    /// The upstream is a stream of hero-sse, and was ended before its own end, for this reason. `None`: for a reason
    /// that this version does not know.
    Closed(Option<CloseReason>),
}

impl Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the upstream answered with the status {status}"),
            Self::ContentType(Some(value)) => {
                write!(f, "the upstream's content type is {value:?}, not `text/event-stream`")
            }
            Self::ContentType(None) => f.write_str("the upstream's answer has no content type"),
            Self::ContentEncoding(value) => write!(
                f,
                "the upstream's answer has the content encoding {value:?}: send `accept-encoding: identity`, or let the \
                 HTTP client decode it"
            ),
            Self::Body(error) => {
                write!(f, "reading from the upstream failed: {error}")?;
                let mut source = error.source();
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
            Self::Torn => f.write_str("the upstream's stream ended inside an event, or before its last"),
            Self::TooLong { max } => write!(
                f,
                "an event of the upstream is longer than {max} bytes: raise `max_block`, if it may be so long"
            ),
            Self::Idle { timeout } => write!(f, "the upstream sent nothing for {timeout:?}"),
            Self::Name(fault) => write!(f, "an event of the upstream cannot be passed on: {fault}"),
            Self::Missed => f.write_str(
                "the upstream says that events were missed: handle `AdoptError::Missed` in the adopted stream",
            ),
            Self::Closed(Some(reason)) => write!(f, "the upstream ended the stream: {reason}"),
            Self::Closed(None) => f.write_str("the upstream ended the stream"),
        }
    }
}

impl Error for AdoptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Body(error) => Some(error.as_ref()),
            Self::Name(fault) => Some(fault),
            _ => None,
        }
    }
}

/// A `502`. The error is logged.
impl From<AdoptError> for Refusal {
    fn from(error: AdoptError) -> Self {
        telemetry::not_adopted(&error);
        Self::new(StatusCode::BAD_GATEWAY, "the server behind this one gave no usable answer")
    }
}

impl IntoResponse for AdoptError {
    fn into_response(self) -> Response {
        Refusal::from(self).into_response()
    }
}
