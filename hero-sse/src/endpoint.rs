//! What an endpoint is to the kit: its declaration, and a function that opens a stream of events.

use std::fmt::Display;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use http::request::Parts;

use crate::descriptor::Descriptor;
use crate::event::SseEvent;
use crate::frame::{EventName, LastEventId, write_event};
use crate::refusal::Refusal;

/// The const half of an endpoint, which `#[sse_endpoint]` implements.
pub trait EndpointMeta {
    /// What the declaration says.
    const DESCRIPTOR: Descriptor;
}

/// An endpoint of an application with the state `S`, which `#[sse_endpoint]` implements.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an endpoint for the state `{S}`",
    label = "not an endpoint for this application's state",
    note = "name functions under `#[sse_endpoint]`, whose arguments are extractors for this state"
)]
pub trait Endpoint<S>: EndpointMeta {
    /// Extracts the arguments and calls the function.
    fn open(parts: Parts, state: S) -> Opening;
}

/// What an application's state must be: cheap to clone and free to travel.
pub trait AppState: Clone + Send + Sync + 'static {}

impl<S: Clone + Send + Sync + 'static> AppState for S {}

/// A stream of events on its way: the function is still at work.
pub type Opening = BoxFuture<'static, Result<EventStream, Response>>;

/// An async function that opens a stream of events: up to 16 extractors in, a stream out, or a
/// `Result` of one.
#[diagnostic::on_unimplemented(
    message = "this function cannot serve an event stream",
    label = "not an async function from extractors to a stream of events",
    note = "write `async fn(A, B, ..) -> impl Stream<Item = E>` or `-> Result<impl Stream<Item = E>, \
            R>`, where `A`, `B` implement `FromRequestParts`, `E` is an `SseEvent` (or a `Result` of \
            one), and `R: IntoResponse`"
)]
pub trait EventHandler<Args, S>: Clone + Send + Sync + 'static {
    /// Extracts the arguments and calls the function.
    fn open(self, parts: Parts, state: S) -> Opening;
}

macro_rules! handlers {
    ($($arg:ident)*) => {
        impl<F, Fut, Out, M, S, $($arg,)*> EventHandler<(M, $($arg,)*), S> for F
        where
            F: FnOnce($($arg,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Out> + Send,
            Out: IntoEventStream<M>,
            S: AppState,
            $($arg: FromRequestParts<S> + Send,)*
        {
            #[allow(non_snake_case, unused_mut, unused_variables)]
            fn open(self, mut parts: Parts, state: S) -> Opening {
                Box::pin(async move {
                    $(let $arg = $arg::from_request_parts(&mut parts, &state)
                        .await
                        .map_err(IntoResponse::into_response)?;)*
                    self($($arg,)*).await.into_event_stream()
                })
            }
        }
    };
}

handlers!();
handlers!(A1);
handlers!(A1 A2);
handlers!(A1 A2 A3);
handlers!(A1 A2 A3 A4);
handlers!(A1 A2 A3 A4 A5);
handlers!(A1 A2 A3 A4 A5 A6);
handlers!(A1 A2 A3 A4 A5 A6 A7);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15);
handlers!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15 A16);

/// What an endpoint function may return: a stream of events, or a `Result` of one.
///
/// The marker `M` only keeps the two apart; it is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stream of events",
    label = "an endpoint cannot return this",
    note = "return `impl Stream<Item = E>` or `Result<impl Stream<Item = E>, R>`, where `E` is an \
            `SseEvent` (or a `Result` of one) and `R: IntoResponse`"
)]
pub trait IntoEventStream<M> {
    /// The stream, or the answer in its place.
    ///
    /// # Errors
    ///
    /// The response of a function that refused.
    fn into_event_stream(self) -> Result<EventStream, Response>;
}

/// Marks a function that returns a stream.
#[derive(Debug)]
pub struct Direct<M>(PhantomData<M>);

/// Marks a function that returns a `Result` of a stream.
#[derive(Debug)]
pub struct Fallible<M>(PhantomData<M>);

impl<T, M> IntoEventStream<Direct<M>> for T
where
    T: Stream + Send + 'static,
    T::Item: EventItem<M>,
    M: 'static,
{
    fn into_event_stream(self) -> Result<EventStream, Response> {
        Ok(EventStream::new(self))
    }
}

impl<T, R, M> IntoEventStream<Fallible<M>> for Result<T, R>
where
    T: Stream + Send + 'static,
    T::Item: EventItem<M>,
    R: IntoResponse,
    M: 'static,
{
    fn into_event_stream(self) -> Result<EventStream, Response> {
        self.map(EventStream::new).map_err(IntoResponse::into_response)
    }
}

/// What a stream may yield: an event, or a `Result` of one. An `Err` ends the stream; it is logged
/// and never sent.
#[diagnostic::on_unimplemented(
    message = "a stream of `{Self}` is not a stream of events",
    label = "`{Self}` is neither an `SseEvent` nor a `Result` of one",
    note = "put `#[derive(serde::Serialize, hero_sse::SseEvent)]` on the item's type"
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

impl<E: SseEvent> EventItem<Plain> for E {
    type Event = E;

    fn into_event(self) -> Result<E, String> {
        Ok(self)
    }
}

impl<E: SseEvent, X: Display> EventItem<Checked> for Result<E, X> {
    type Event = E;

    fn into_event(self) -> Result<E, String> {
        self.map_err(|error| error.to_string())
    }
}

/// An application's stream, whatever its type, as the writer drives it.
pub struct EventStream(Pin<Box<dyn Source>>);

impl EventStream {
    pub(crate) fn new<T, M>(stream: T) -> Self
    where
        T: Stream + Send + 'static,
        T::Item: EventItem<M>,
        M: 'static,
    {
        Self(Box::pin(Items { stream, marker: PhantomData }))
    }

    /// Appends the next event to `out`, if there is one, and tells its key where that is asked for.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        name: Option<&EventName>,
        key: Option<&mut Option<String>>,
    ) -> Poll<Step> {
        self.0.as_mut().poll_frame(cx, out, name, key)
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
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

trait Source: Send {
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        name: Option<&EventName>,
        key: Option<&mut Option<String>>,
    ) -> Poll<Step>;
}

pin_project_lite::pin_project! {
    struct Items<T, M> {
        #[pin]
        stream: T,
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
        key: Option<&mut Option<String>>,
    ) -> Poll<Step> {
        let Some(item) = ready!(self.project().stream.poll_next(cx)) else {
            return Poll::Ready(Step::Ended);
        };
        Poll::Ready(match item.into_event() {
            Ok(event) => {
                let last = event.is_last();
                if let Some(key) = key {
                    *key = event.key();
                }
                match write_event(out, name, last, |frame| event.encode(frame)) {
                    Ok(()) if last => Step::WroteLast,
                    Ok(()) => Step::Wrote,
                    Err(error) => Step::Failed(error.to_string()),
                }
            }
            Err(error) => Step::Failed(error),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Self::from_parts(parts).map_err(|error| Refusal::bad_request(error.to_string()))
    }
}
