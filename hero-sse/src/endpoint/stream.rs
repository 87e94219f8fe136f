//! The return value of an endpoint's function: a stream of events.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::{ErrorResponse, IntoResponse, IntoResponseParts, Response};
use bytes::BytesMut;
use futures_core::Stream;
use http::response::Parts;

use crate::event::{SseEvent, TrapNames};
use crate::frame::{EventName, FrameRules, LastEventId, Written, write_event};
use crate::policy::{Profile, StreamKind};
use crate::sealed;
use crate::topic::TopicFeed;

/// Marks a stream, or an event: the value itself.
#[derive(Debug)]
pub enum Direct {}

/// Marks a `Result` of a stream or of an event.
#[derive(Debug)]
pub enum Fallible {}

/// Marks an `axum::response::Result` of a stream, whose error does not implement `IntoResponse`.
#[derive(Debug)]
pub enum AxumFallible {}

/// Marks a tuple of parts of the response's head and a stream.
#[derive(Debug)]
pub enum Headed {}

/// A return type of an endpoint's function:
///
/// | type | answer |
/// |---|---|
/// | `T`, a stream of events | the stream |
/// | `(R1, .., T)`, where each `R` implements [`IntoResponseParts`] | the stream, with more headers |
/// | `Result<_, R>` of these, where `R` implements [`IntoResponse`] | the stream, or a response in its place |
/// | `axum::response::Result<_>` of these | the same |
///
/// # Headers
///
/// Parts are a `HeaderMap`, arrays of names and values, `AppendHeaders`, a cookie jar, an `Extension`, and up to eight
/// of them. These headers are the library's, since without them a stream does not arrive, or is kept by a cache:
/// `content-type`, `cache-control`, `x-accel-buffering` and `referrer-policy`. So are those that describe the body or
/// the connection (`content-length`, `content-encoding`, `content-range`, `transfer-encoding`, `connection`, `trailer`
/// and `upgrade`). A value of yours for one of them is dropped, and logged once. All other headers arrive.
///
/// # Other responses
///
/// An `Err` is the response in place of the stream. Under `GET`, a success other than `204`, which a `String` or `()`
/// has as well, is a mistake: without a stream an `EventSource` silently gives up. It is logged and answered with `500`.
/// Under `method = "post"` it is sent as it is: clients use `fetch`, and a protocol may ask for `202` or for JSON.
///
/// `M` is a [marker](super::markers), and inferred.
///
/// [`IntoResponse`]: axum::response::IntoResponse
/// [`IntoResponseParts`]: axum::response::IntoResponseParts
#[diagnostic::on_unimplemented(
    message = "an endpoint cannot return `{Self}`",
    label = "not a stream",
    note = "write `-> impl Stream<Item = E>` or `-> Result<impl Stream<Item = E>, R>`, where `E` is an \
            `SseEvent` and `R: IntoResponse`, such as `Refusal`",
    note = "headers come before the stream: `-> (HeaderMap, impl Stream<Item = E>)`, or another `IntoResponseParts`",
    note = "for a topic write `-> Subscription<E>`, and return `topic.subscribe()`"
)]
pub trait IntoEventStream<M> {
    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// The stream.
    type Stream: Stream;

    /// Whether it adds to the head of the stream's response, which an `early` endpoint cannot.
    #[doc(hidden)]
    const HEADED: bool;

    /// Returns the stream.
    ///
    /// # Errors
    ///
    /// The response in its place.
    fn into_event_stream(self) -> Result<Opened<Self::Stream>, Response>;
}

/// A return type of the function of an `early` endpoint, whose head is sent before the function runs: a stream, or a
/// `Result` of one.
///
/// `M` is a [marker](super::markers), and inferred.
#[diagnostic::on_unimplemented(
    message = "an early endpoint cannot return `{Self}`",
    label = "not a stream alone",
    note = "its head is sent before the function runs, so it adds no headers: write `-> impl Stream<Item = E>` or \
            `-> Result<impl Stream<Item = E>, R>`, or leave out `early`"
)]
pub trait IntoEarlyStream<M>: IntoEventStream<M> + Sized {
    /// Returns the stream.
    ///
    /// # Errors
    ///
    /// The response in its place, which is logged.
    fn into_early_stream(self) -> Result<Opened<Self::Stream>, Response> {
        self.into_event_stream()
    }
}

#[diagnostic::do_not_recommend]
impl<T: Stream> IntoEarlyStream<Direct> for T {}

#[diagnostic::do_not_recommend]
impl<T: IntoEarlyStream<M>, R: IntoResponse, M> IntoEarlyStream<(Fallible, M)> for Result<T, R> {}

#[diagnostic::do_not_recommend]
impl<T: IntoEarlyStream<M>, M> IntoEarlyStream<(AxumFallible, M)> for Result<T, ErrorResponse> {}

/// A stream, and what the endpoint's function adds to the head of its response.
pub struct Opened<T> {
    stream: T,
    head: Option<Box<Parts>>,
}

impl<T> Opened<T> {
    /// Erases the stream's type.
    pub(crate) fn into_events(self, into_events: impl FnOnce(T) -> EventStream) -> EventStream {
        EventStream { head: self.head, ..into_events(self.stream) }
    }
}

impl<T> fmt::Debug for Opened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

#[diagnostic::do_not_recommend]
impl<T: Stream> IntoEventStream<Direct> for T {
    type Stream = T;

    const HEADED: bool = false;

    fn sealed(_: sealed::Token) {}

    fn into_event_stream(self) -> Result<Opened<T>, Response> {
        Ok(Opened { stream: self, head: None })
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoEventStream<M>, R: IntoResponse, M> IntoEventStream<(Fallible, M)> for Result<T, R> {
    type Stream = T::Stream;

    const HEADED: bool = T::HEADED;

    fn sealed(_: sealed::Token) {}

    fn into_event_stream(self) -> Result<Opened<T::Stream>, Response> {
        self.map_err(IntoResponse::into_response)?.into_event_stream()
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoEventStream<M>, M> IntoEventStream<(AxumFallible, M)> for Result<T, ErrorResponse> {
    type Stream = T::Stream;

    const HEADED: bool = T::HEADED;

    fn sealed(_: sealed::Token) {}

    fn into_event_stream(self) -> Result<Opened<T::Stream>, Response> {
        // Of the error's own methods none returns the response.
        self.map_err(|error| Err::<(), _>(error).into_response())?.into_event_stream()
    }
}

macro_rules! headed {
    ($($part:ident)+) => {
        #[diagnostic::do_not_recommend]
        #[allow(non_snake_case)]
        impl<$($part: IntoResponseParts,)+ T: Stream> IntoEventStream<Headed> for ($($part,)+ T) {
            type Stream = T;

            const HEADED: bool = true;

            fn sealed(_: sealed::Token) {}

            fn into_event_stream(self) -> Result<Opened<T>, Response> {
                let ($($part,)+ stream) = self;
                // Nothing else applies parts: they take a type of axum's that cannot be made elsewhere.
                let (mut head, body) = ($($part,)+ Applied).into_response().into_parts();
                // A part that fails is a response of its own.
                match head.extensions.remove::<Applied>() {
                    Some(Applied) => Ok(Opened { stream, head: Some(Box::new(head)) }),
                    None => Err(Response::from_parts(head, body)),
                }
            }
        }
    };
}

headed!(A);
headed!(A B);
headed!(A B C);
headed!(A B C D);
headed!(A B C D E);
headed!(A B C D E F);
headed!(A B C D E F G);
headed!(A B C D E F G H);

/// Marks a head to which all parts were applied.
#[derive(Clone)]
struct Applied;

impl IntoResponse for Applied {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// A stream whose items are events. `N` is a [marker](super::markers), and inferred.
pub trait Events<N> {
    #[doc(hidden)]
    const TRAPS: TrapNames;

    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// Erases the stream's type.
    fn into_events(self) -> EventStream;
}

impl<T, N> Events<N> for T
where
    T: Stream + Send + 'static,
    T::Item: EventItem<N>,
    N: 'static,
{
    const TRAPS: TrapNames = <<T::Item as EventItem<N>>::Event as SseEvent>::TRAPS;

    fn sealed(_: sealed::Token) {}

    fn into_events(self) -> EventStream {
        EventStream::new(self)
    }
}

/// An item of a stream: an event, or a `Result` of one. An `Err` ends the stream. It is logged and never
/// sent.
///
/// `M` is a [marker](super::markers), and inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "a stream of `{Self}` is not a stream of events",
    note = "put `#[derive(Serialize, SseEvent)]` on the item's type, or send a `hero_sse::Event`; a stream \
            may also yield a `Result` of an event and an error that implements `Display`"
)]
pub trait EventItem<M> {
    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// The event's type.
    type Event: SseEvent;

    /// Returns the event.
    ///
    /// # Errors
    ///
    /// The item's own error, as text for the log.
    fn into_event(self) -> Result<Self::Event, String>;
}

#[diagnostic::do_not_recommend]
impl<E: SseEvent> EventItem<Direct> for E {
    type Event = E;

    fn sealed(_: sealed::Token) {}

    fn into_event(self) -> Result<E, String> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<E: SseEvent, X: Display> EventItem<Fallible> for Result<E, X> {
    type Event = E;

    fn sealed(_: sealed::Token) {}

    fn into_event(self) -> Result<E, String> {
        self.map_err(|error| error.to_string())
    }
}

/// The stream of an endpoint's function, with its type erased.
pub struct EventStream {
    pub(crate) kind: Kind,
    /// What the function adds to the response's head.
    head: Option<Box<Parts>>,
}

/// The source of a stream's events.
pub(crate) enum Kind {
    /// User code, which makes events one by one.
    Items(Pin<Box<dyn Source>>),
    /// A topic, whose events are encoded already.
    Topic(Box<dyn TopicFeed>),
}

impl EventStream {
    pub(crate) fn new<T, M>(stream: T) -> Self
    where
        T: Stream + Send + 'static,
        T::Item: EventItem<M>,
        M: 'static,
    {
        let mut stream = Some(stream);
        let topic = <T::Item as EventItem<M>>::Event::of_topic(&mut stream);
        let feed = topic.and_then(|feed| feed.downcast::<Box<dyn TopicFeed>>().ok());
        let kind = match (feed, stream) {
            (Some(feed), _) => Kind::Topic(*feed),
            (None, stream) => Kind::Items(Box::pin(Items { stream, marker: PhantomData })),
        };
        Self { kind, head: None }
    }

    /// Returns what the function adds to the response's head.
    pub(crate) fn take_head(&mut self) -> Option<Box<Parts>> {
        self.head.take()
    }

    /// Checks that the stream can be sent at all.
    ///
    /// # Errors
    ///
    /// What the endpoint's author must change.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.kind {
            Kind::Items(_) => Ok(()),
            Kind::Topic(feed) => feed.check(),
        }
    }

    /// Resumes a topic after the client's last event.
    pub(crate) fn resume(&mut self, cursor: &LastEventId) {
        if let Kind::Topic(feed) = &mut self.kind {
            feed.resume(cursor);
        }
    }

    /// Whether the client of a topic has missed events, and nothing makes up for them.
    pub(crate) fn has_unanswered_gap(&self) -> bool {
        match &self.kind {
            Kind::Items(_) => false,
            Kind::Topic(feed) => feed.has_unanswered_gap(),
        }
    }

    pub(crate) fn kind(&self) -> StreamKind {
        match self.kind {
            Kind::Items(_) => StreamKind::Private,
            Kind::Topic(_) => StreamKind::Subscription,
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// What a slow client's buffer must know of an event that was appended, besides its bytes.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    /// The event's key, if the caller asked for it.
    pub(crate) key: Option<String>,
    pub(crate) written: Written,
}

/// The result of polling a user's stream once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame was appended.
    Wrote,
    /// A frame was appended, and it is the stream's last.
    WroteLast,
    /// The stream ended.
    Ended,
    /// The stream yielded an error, or an event that cannot be written.
    Failed(String),
}

/// How a stream's events are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing<'a> {
    /// The event name that the endpoint declares.
    pub(crate) name: Option<&'a EventName>,
    pub(crate) profile: Profile,
}

/// A stream of events whose type is erased.
pub(crate) trait Source: Send {
    /// Appends the next event to `out`, if there is one. Asks it for its key if `ask_key` is set.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        framing: Framing<'_>,
        ask_key: bool,
    ) -> Poll<(Step, Appended)>;
}

pin_project_lite::pin_project! {
    struct Items<T, M> {
        // Always `Some`.
        #[pin]
        stream: Option<T>,
        marker: PhantomData<fn(M)>,
    }
}

impl<T, M> Source for Items<T, M>
where
    T: Stream + Send,
    T::Item: EventItem<M>,
{
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        framing: Framing<'_>,
        ask_key: bool,
    ) -> Poll<(Step, Appended)> {
        let mut appended = Appended::default();
        let Some(stream) = self.project().stream.as_pin_mut() else {
            return Poll::Ready((Step::Ended, appended));
        };
        let step = match ready!(stream.poll_next(cx)).map(EventItem::into_event) {
            None => Step::Ended,
            Some(Err(error)) => Step::Failed(error),
            Some(Ok(event)) => {
                let last = event.is_last();
                appended.key = if ask_key { event.key() } else { None };
                let native = !framing.profile.is_plain();
                let rules = FrameRules {
                    endpoint: framing.name,
                    end_mark: last && native,
                    refuse_traps: native,
                    refuse_gaps: !native,
                };
                match write_event(out, rules, |frame| event.encode(frame)) {
                    Ok(written) => {
                        appended.written = written;
                        if last { Step::WroteLast } else { Step::Wrote }
                    }
                    Err(error) => Step::Failed(error.to_string()),
                }
            }
        };
        Poll::Ready((step, appended))
    }
}
