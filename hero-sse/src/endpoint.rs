//! What an endpoint is to the kit: its declaration, and a function that opens a stream of events.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{ErrorResponse, IntoResponse, Response};
use bytes::BytesMut;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use http::request::Parts;

use crate::descriptor::Descriptor;
use crate::event::SseEvent;
use crate::frame::{EventName, LastEventId, PreEncoded, write_event};
use crate::policy::StreamKind;
use crate::refusal::Refusal;
use crate::topic::TopicFeed;

/// How long a client may take to send the body of its request: while it does, it holds a place, and
/// no write timeout is running yet.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The const half of an endpoint, which `#[sse_endpoint]` implements.
pub trait EndpointMeta {
    /// What the declaration says.
    const DESCRIPTOR: Descriptor;
}

/// An endpoint of an application with the state `S`, which `#[sse_endpoint]` implements. `K` says
/// where its last argument comes from, and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an endpoint for the state `{S}`",
    label = "not an endpoint for this application's state",
    note = "name functions under `#[sse_endpoint]`, whose arguments are extractors for this state"
)]
pub trait Endpoint<S, K = FromParts>: EndpointMeta {
    /// Extracts the arguments and calls the function.
    fn open(request: Request, state: S) -> OpeningStream;

    /// Those endpoints, and this one.
    #[doc(hidden)]
    fn join(mut others: Endpoints<S>) -> Endpoints<S>
    where
        Self: Sized,
    {
        others.endpoints.push((Self::DESCRIPTOR, Self::open));
        others
    }
}

/// What an application's state must be: cheap to clone and free to travel.
pub trait AppState: Clone + Send + Sync + 'static {}

impl<S: Clone + Send + Sync + 'static> AppState for S {}

/// A stream of events on its way: the function is still at work.
pub type OpeningStream = BoxFuture<'static, Result<EventStream, Response>>;

/// The endpoints that [`endpoints!`](crate::endpoints) names.
pub struct Endpoints<S> {
    pub(crate) endpoints: Vec<(Descriptor, Open<S>)>,
}

pub(crate) type Open<S> = fn(Request, S) -> OpeningStream;

impl<S> Endpoints<S> {
    /// None yet.
    pub fn new() -> Self {
        Self { endpoints: Vec::new() }
    }
}

impl<S> Default for Endpoints<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Endpoints<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.endpoints.iter().map(|(descriptor, _)| descriptor)).finish()
    }
}

/// Names endpoints: `endpoints![usage_stream, builds::build_feed]`. Nothing else is mapped.
#[macro_export]
macro_rules! endpoints {
    ($($endpoint:path),* $(,)?) => {{
        let endpoints = $crate::extend::Endpoints::new();
        $(let endpoints = <$endpoint as $crate::extend::Endpoint<_, _>>::join(endpoints);)*
        endpoints
    }};
}

/// Marks arguments that need no body, the last one too.
#[derive(Debug)]
pub struct FromParts;

/// Marks arguments of which the last reads the request's body.
#[derive(Debug)]
pub struct FromBody;

/// An argument of an endpoint's function that needs no body: any `FromRequestParts`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of an endpoint",
    label = "not an extractor for the state `{S}`",
    note = "arguments are extractors: `State<T>` of the application's state or a part of it, `Path`, \
            `Query`, `Principal`, `LastEventId`, or a type that implements `FromRequestParts`; a body, such \
            as `Json<T>`, is read by the last argument under `method = \"post\"`"
)]
pub trait Extractor<S>: Sized + Send {
    /// Takes it from the request's head. Boxed, since of a type that is no extractor the compiler
    /// would also report the future.
    fn extract<'a>(parts: &'a mut Parts, state: &'a S) -> BoxFuture<'a, Result<Self, Response>>;
}

#[diagnostic::do_not_recommend]
impl<T: FromRequestParts<S> + Send, S: Sync> Extractor<S> for T {
    fn extract<'a>(parts: &'a mut Parts, state: &'a S) -> BoxFuture<'a, Result<Self, Response>> {
        Box::pin(async {
            T::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)
        })
    }
}

/// The last argument of an endpoint's function: it may read the body, where the method has one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the last argument of an endpoint",
    label = "not an extractor for the state `{S}`",
    note = "the last argument reads the body (`Json<T>`, `Form<T>`, `Bytes`, `String`), or is an extractor \
            as the others are: `State<T>`, `Path`, `Query`, `Principal`, or a type that implements \
            `FromRequest` or `FromRequestParts`"
)]
pub trait BodyExtractor<S, K>: Sized + Send {
    /// Takes it from what is left of the request.
    fn take<'a>(parts: Parts, body: Body, state: &'a S) -> BoxFuture<'a, Result<Self, Response>>;
}

#[diagnostic::do_not_recommend]
impl<T: FromRequestParts<S> + Send, S: Sync> BodyExtractor<S, FromParts> for T {
    fn take<'a>(mut parts: Parts, _: Body, state: &'a S) -> BoxFuture<'a, Result<Self, Response>> {
        Box::pin(async move { T::extract(&mut parts, state).await })
    }
}

#[diagnostic::do_not_recommend]
impl<T: FromRequest<S> + Send, S: Sync> BodyExtractor<S, FromBody> for T {
    fn take<'a>(parts: Parts, body: Body, state: &'a S) -> BoxFuture<'a, Result<Self, Response>> {
        Box::pin(async move {
            let taken = T::from_request(Request::from_parts(parts, body), state);
            match tokio::time::timeout(BODY_TIMEOUT, taken).await {
                Ok(taken) => taken.map_err(IntoResponse::into_response),
                Err(_) => Err(Refusal::body_timeout().into_response()),
            }
        })
    }
}

/// An async function that opens a stream of events: up to 16 extractors in, a stream out, or a
/// `Result` of one. `K` says whether its last argument reads the body, and is always inferred.
#[diagnostic::on_unimplemented(
    message = "this function cannot serve an event stream",
    label = "not an async function from extractors to a stream of events",
    note = "write `async fn(A, B, ..) -> impl Stream<Item = E>` or `-> Result<impl Stream<Item = E>, \
            R>`, where `A`, `B` implement `FromRequestParts`, `E` is an `SseEvent` (or a `Result` of \
            one), and `R: IntoResponse`"
)]
pub trait EventHandler<Args, S, K = FromParts>: Clone + Send + Sync + 'static {
    /// Extracts the arguments and calls the function.
    fn open(self, request: Request, state: S) -> OpeningStream;
}

macro_rules! handler {
    ($($first:ident)*; $last:ident) => {
        impl<F, Fut, M, N, S, K, $($first,)* $last> EventHandler<(M, N, $($first,)* $last), S, K> for F
        where
            F: FnOnce($($first,)* $last) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send,
            Fut::Output: IntoEventStream<M>,
            <Fut::Output as IntoEventStream<M>>::Stream: Events<N>,
            S: AppState,
            $($first: Extractor<S>,)*
            $last: BodyExtractor<S, K>,
        {
            #[allow(non_snake_case, unused_mut)]
            fn open(self, request: Request, state: S) -> OpeningStream {
                Box::pin(async move {
                    let (mut parts, body) = request.into_parts();
                    $(let $first = $first::extract(&mut parts, &state).await?;)*
                    let $last = $last::take(parts, body, &state).await?;
                    self($($first,)* $last).await.into_event_stream().map(Events::into_events)
                })
            }
        }
    };
}

impl<F, Fut, M, N, S> EventHandler<(M, N), S, FromParts> for F
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future + Send,
    Fut::Output: IntoEventStream<M>,
    <Fut::Output as IntoEventStream<M>>::Stream: Events<N>,
    S: AppState,
{
    fn open(self, _: Request, _: S) -> OpeningStream {
        Box::pin(async move { self().await.into_event_stream().map(Events::into_events) })
    }
}

handler!(; A1);
handler!(A1; A2);
handler!(A1 A2; A3);
handler!(A1 A2 A3; A4);
handler!(A1 A2 A3 A4; A5);
handler!(A1 A2 A3 A4 A5; A6);
handler!(A1 A2 A3 A4 A5 A6; A7);
handler!(A1 A2 A3 A4 A5 A6 A7; A8);
handler!(A1 A2 A3 A4 A5 A6 A7 A8; A9);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9; A10);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10; A11);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11; A12);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12; A13);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13; A14);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14; A15);
handler!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15; A16);

/// What an endpoint function may return: a stream, or a `Result` of one, `axum::response::Result`
/// included. The marker `M` only keeps them apart; it is always inferred.
///
/// An `Err` answers in the stream's place. One with the status of a success other than `204`, as a
/// `String` or `()` makes it, is a mistake: it is logged and answered `500`.
#[diagnostic::on_unimplemented(
    message = "an endpoint cannot return `{Self}`",
    label = "not a stream",
    note = "write `-> impl Stream<Item = E>` or `-> Result<impl Stream<Item = E>, R>`, where `E` is an \
            `SseEvent` and `R: IntoResponse`, such as `Refusal`",
    note = "of a topic return `topic.subscribe()`: `-> Subscription<E>`"
)]
pub trait IntoEventStream<M> {
    /// The stream.
    type Stream: Stream;

    /// The stream, or the answer in its place.
    ///
    /// # Errors
    ///
    /// The response of a function that refused.
    fn into_event_stream(self) -> Result<Self::Stream, Response>;
}

/// Marks a function that returns a stream.
#[derive(Debug)]
pub struct Direct;

/// Marks a function that returns a `Result` of a stream.
#[derive(Debug)]
pub struct Fallible;

/// Marks a function that returns an `axum::response::Result` of a stream, whose error is no
/// `IntoResponse` itself.
#[derive(Debug)]
pub struct FallibleInAxum;

#[diagnostic::do_not_recommend]
impl<T: Stream> IntoEventStream<Direct> for T {
    type Stream = T;

    fn into_event_stream(self) -> Result<T, Response> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Stream, R: IntoResponse> IntoEventStream<Fallible> for Result<T, R> {
    type Stream = T;

    fn into_event_stream(self) -> Result<T, Response> {
        self.map_err(IntoResponse::into_response)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Stream> IntoEventStream<FallibleInAxum> for Result<T, ErrorResponse> {
    type Stream = T;

    fn into_event_stream(self) -> Result<T, Response> {
        // Only a `Result` tells the response in it.
        self.map_err(|error| Err::<(), _>(error).into_response())
    }
}

/// A stream whose items are events. The marker `N` is always inferred.
pub trait Events<N> {
    /// The stream, its type forgotten.
    fn into_events(self) -> EventStream;
}

impl<T, N> Events<N> for T
where
    T: Stream + Send + 'static,
    T::Item: EventItem<N>,
    N: 'static,
{
    fn into_events(self) -> EventStream {
        EventStream::new(self)
    }
}

/// What a stream may yield: an event, or a `Result` of one. An `Err` ends the stream; it is logged
/// and never sent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "a stream of `{Self}` is not a stream of events",
    note = "put `#[derive(Serialize, SseEvent)]` on the item's type, or send a `hero_sse::Event`; a stream \
            may also yield a `Result` of an event and an error that implements `Display`"
)]
pub trait EventItem<M> {
    /// The event's type.
    type Event: SseEvent;

    /// The event, or what to log.
    ///
    /// # Errors
    ///
    /// The item's own error, as text.
    fn into_event(self) -> Result<Self::Event, String>;
}

/// Marks a stream of events.
#[derive(Debug)]
pub struct Plain;

/// Marks a stream of results.
#[derive(Debug)]
pub struct Checked;

#[diagnostic::do_not_recommend]
impl<E: SseEvent> EventItem<Plain> for E {
    type Event = E;

    fn into_event(self) -> Result<E, String> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<E: SseEvent, X: Display> EventItem<Checked> for Result<E, X> {
    type Event = E;

    fn into_event(self) -> Result<E, String> {
        self.map_err(|error| error.to_string())
    }
}

/// An application's stream, whatever its type, as the writer drives it.
pub struct EventStream(pub(crate) Kind);

/// What there is behind an application's stream.
pub(crate) enum Kind {
    /// Its own code, which makes events one by one.
    Items(Pin<Box<dyn Source>>),
    /// A topic, whose events are there.
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
        Self(match (feed, stream) {
            (Some(feed), _) => Kind::Topic(*feed),
            (None, stream) => Kind::Items(Box::pin(Items { stream, marker: PhantomData })),
        })
    }

    /// Checks that the stream can be sent at all.
    ///
    /// # Errors
    ///
    /// What the endpoint's author must change.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.0 {
            Kind::Items(_) => Ok(()),
            Kind::Topic(feed) => feed.check(),
        }
    }

    /// Resumes a topic after the client's last event.
    pub(crate) fn resume(&mut self, cursor: Option<&LastEventId>) {
        if let Kind::Topic(feed) = &mut self.0 {
            feed.resume(cursor);
        }
    }

    pub(crate) fn kind(&self) -> StreamKind {
        match self.0 {
            Kind::Items(_) => StreamKind::Private,
            Kind::Topic(_) => StreamKind::Subscription,
        }
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// What there is to know of an event that was appended, beside its bytes.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// Its key, where that was asked for.
    pub(crate) key: Option<String>,
    /// It was encoded elsewhere: other events, and what is missing before it, may stand in its frame.
    pub(crate) whole: PreEncoded,
}

/// What one poll of an application's stream came to.
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

pub(crate) trait Source: Send {
    /// Appends the next event to `out`, if there is one, and tells of it; its key if that is asked for.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        name: Option<&EventName>,
        ask_key: bool,
    ) -> Poll<(Step, About)>;
}

pin_project_lite::pin_project! {
    struct Items<T, M> {
        // Always there.
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
        name: Option<&EventName>,
        ask_key: bool,
    ) -> Poll<(Step, About)> {
        let mut about = About::default();
        let Some(stream) = self.project().stream.as_pin_mut() else {
            return Poll::Ready((Step::Ended, about));
        };
        let step = match ready!(stream.poll_next(cx)).map(EventItem::into_event) {
            None => Step::Ended,
            Some(Err(error)) => Step::Failed(error),
            Some(Ok(event)) => {
                let last = event.is_last();
                about.key = if ask_key { event.key() } else { None };
                match write_event(out, name, last, |frame| event.encode(frame)) {
                    Ok(whole) => {
                        about.whole = whole;
                        if last { Step::WroteLast } else { Step::Wrote }
                    }
                    Err(error) => Step::Failed(error.to_string()),
                }
            }
        };
        Poll::Ready((step, about))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Self::from_parts(parts).map_err(|error| Refusal::bad_request(error.to_string()))
    }
}
