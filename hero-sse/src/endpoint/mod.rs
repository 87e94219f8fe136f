//! An endpoint: a declaration, and a function that opens a stream of events.

mod argument;
mod stream;

use std::fmt;

use axum::extract::Request;
use axum::response::Response;
use futures_core::future::BoxFuture;

use crate::descriptor::Descriptor;
use crate::event::TrapNames;
use crate::sealed;

pub(crate) use self::argument::BODY_TIMEOUT;
pub use self::argument::{BodyExtractor, Extractor};
pub(crate) use self::stream::{Appended, Framing, Kind, Source, Step};
pub use self::stream::{EventItem, EventStream, Events, IntoEarlyStream, IntoEventStream, Opened};

/// Types that keep the implementations of one trait apart. They have no values, and the compiler always
/// infers them.
pub mod markers {
    pub use super::argument::{FromBody, FromParts};
    pub use super::stream::{AxumFallible, Direct, Fallible, Headed};
}

/// Implemented by `#[sse_endpoint]` alone.
#[doc(hidden)]
pub trait Declared {}

/// What is known of an endpoint at compile time. `#[sse_endpoint]` implements it for the type of the
/// function's name.
pub trait EndpointMeta: Declared {
    /// The declaration.
    const DESCRIPTOR: Descriptor;
}

/// An endpoint of an application with the state `S`. `#[sse_endpoint]` implements it for the type of the
/// function's name. `K` is a [marker](markers): where the last argument is read from.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an endpoint for the state `{S}`",
    label = "not an endpoint for this application's state",
    note = "name functions under `#[sse_endpoint]`, whose arguments are extractors for this state"
)]
pub trait Endpoint<S, K = markers::FromParts>: EndpointMeta {
    /// Extracts the arguments and calls the function.
    fn open(request: Request, state: S) -> OpeningStream;

    /// Adds this endpoint to others.
    #[doc(hidden)]
    fn join(mut others: Endpoints<S>) -> Endpoints<S>
    where
        Self: Sized,
    {
        others.endpoints.push((Self::DESCRIPTOR, Self::open));
        others
    }
}

/// What an application's state must be: cheap to clone, and free to move between threads.
pub trait AppState: Clone + Send + Sync + 'static {}

impl<S: Clone + Send + Sync + 'static> AppState for S {}

/// The future of an endpoint's function: it resolves to the stream, or to a response in its place.
pub type OpeningStream = BoxFuture<'static, Result<EventStream, Response>>;

/// The endpoints that [`endpoints!`](crate::endpoints) names.
pub struct Endpoints<S> {
    pub(crate) endpoints: Vec<(Descriptor, Open<S>)>,
}

pub(crate) type Open<S> = fn(Request, S) -> OpeningStream;

impl<S> Endpoints<S> {
    /// Returns an empty list.
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

/// Lists endpoints by the names of their functions: `endpoints![usage_stream, builds::build_feed]`.
///
/// [`HeroSse::routes`](crate::HeroSse::routes) maps them. An endpoint that no list names is not mapped.
#[macro_export]
macro_rules! endpoints {
    ($($endpoint:path),* $(,)?) => {{
        let endpoints = $crate::extend::Endpoints::new();
        $(let endpoints = <$endpoint as $crate::extend::Endpoint<_, _>>::join(endpoints);)*
        endpoints
    }};
}

/// An async function that opens a stream of events. It takes up to 16 extractors, and returns a stream or a
/// `Result` of one.
///
/// `Args` and `K` are inferred. `K` is a [marker](markers): where the last argument is read from.
#[diagnostic::on_unimplemented(
    message = "this function cannot serve an event stream",
    label = "not an async function from extractors to a stream of events",
    note = "write `async fn(A, B, ..) -> impl Stream<Item = E>` or `-> Result<impl Stream<Item = E>, \
            R>`, where `A`, `B` implement `FromRequestParts`, `E` is an `SseEvent` (or a `Result` of \
            one), and `R: IntoResponse`"
)]
pub trait EventHandler<Args, S, K = markers::FromParts>: Clone + Send + Sync + 'static {
    #[doc(hidden)]
    const TRAPS: TrapNames;

    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// Whether the function adds to the head of its stream's response.
    #[doc(hidden)]
    const HEADED: bool;

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
            const TRAPS: TrapNames =
                <<Fut::Output as IntoEventStream<M>>::Stream as Events<N>>::TRAPS;
            const HEADED: bool = <Fut::Output as IntoEventStream<M>>::HEADED;

            fn sealed(_: sealed::Token) {}

            #[allow(non_snake_case, unused_mut)]
            fn open(self, request: Request, state: S) -> OpeningStream {
                Box::pin(async move {
                    let (mut parts, body) = request.into_parts();
                    $(let $first = $first::extract(&mut parts, &state).await?;)*
                    let $last = $last::take(parts, body, &state).await?;
                    let answer = self($($first,)* $last).await.into_event_stream();
                    answer.map(|opened| opened.into_events(Events::into_events))
                })
            }
        }
    };
}

impl<F, Fut, M, N, S> EventHandler<(M, N), S, markers::FromParts> for F
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future + Send,
    Fut::Output: IntoEventStream<M>,
    <Fut::Output as IntoEventStream<M>>::Stream: Events<N>,
    S: AppState,
{
    const TRAPS: TrapNames = <<Fut::Output as IntoEventStream<M>>::Stream as Events<N>>::TRAPS;
    const HEADED: bool = <Fut::Output as IntoEventStream<M>>::HEADED;

    fn sealed(_: sealed::Token) {}

    fn open(self, _: Request, _: S) -> OpeningStream {
        Box::pin(async move {
            let answer = self().await.into_event_stream();
            answer.map(|opened| opened.into_events(Events::into_events))
        })
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
