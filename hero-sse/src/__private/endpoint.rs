//! What `#[sse_endpoint]` calls.

use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use futures_core::future::BoxFuture;
use http::request::Parts;

use crate::auth::Principal;
use crate::endpoint::EventStream;
use crate::event::{SseEvent, TrapNames};
use crate::permission::PermissionRule;

pub use core::{concat, file, line};

pub use axum::extract::Request;

pub use crate::descriptor::{Descriptor, Rule};
pub use crate::endpoint::{
    AppState, BodyExtractor, Declared, Endpoint, EndpointMeta, Events, Extractor, IntoEarlyStream,
    IntoEventStream, Opened, OpeningStream,
};
pub use crate::permission::IntoPermission;
pub use crate::policy::{Method, OverLimit, Overflow, Profile, TokenSource};

/// Opens a stream with generated code: it extracts the arguments one by one, then calls the function.
pub fn open<S, F, O>(request: Request, state: S, open: F) -> OpeningStream
where
    F: FnOnce(Parts, Body, S) -> O,
    O: Future<Output = Result<EventStream, Response>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    Box::pin(open(parts, body, state))
}

/// Erases the stream of a function that did not refuse. A function and no method, so that no lint of the
/// user's crate finds a path that could be shorter.
pub fn then<T>(
    answer: Result<Opened<T>, Response>,
    into_events: impl FnOnce(T) -> EventStream,
) -> Result<EventStream, Response> {
    answer.map(|opened| opened.into_events(into_events))
}

/// Makes the response that a format of refusals returns.
pub fn response(made: impl IntoResponse) -> Response {
    made.into_response()
}

/// A rule that asks for one permission.
pub fn permission(name: &'static str) -> Rule {
    name.into_rule()
}

/// A rule that asks for all of these.
pub fn all<const N: usize>(rules: [Rule; N]) -> Rule {
    rules.into_iter().collect::<Result<_, _>>().map(PermissionRule::All)
}

/// A rule that asks for one of these.
pub fn any<const N: usize>(rules: [Rule; N]) -> Rule {
    rules.into_iter().collect::<Result<_, _>>().map(PermissionRule::Any)
}

/// The value of a setting that could be off.
pub const fn every(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

/// The value of a setting that is off.
pub const OFF: Option<Duration> = None;

/// What the library knows of a type, for assertions at compile time. The inherent constants are for the
/// types it knows; of any other type the constants of [`AnyType`] hold.
///
/// So it is the compiler that recognizes a type, under every name, and a type of the user's with a name
/// from axum is never mistaken for axum's.
#[derive(Debug)]
pub struct TypeOf<T>(PhantomData<T>);

/// What holds of a type that the library does not know.
pub trait AnyType {
    /// Whether it is read from a whole request, body included.
    const FROM_REQUEST: bool = false;
    /// Whether it is read from the head of a request.
    const FROM_PARTS: bool = false;
    /// Whether it is a plain value such as a number.
    const IS_PLAIN: bool = false;
    /// Whether it is a [`Principal`].
    const IS_PRINCIPAL: bool = false;
    /// How many captures of the path it takes by their position, if it takes them so.
    const CAPTURES: Option<usize> = None;
    /// For a stream of events: the name that the events' declaration writes out.
    const EVENT: Option<&'static str> = None;
    /// The same for a `Result` of a stream.
    const EVENT_OF_RESULT: Option<&'static str> = None;
    /// For a stream of events: the names that an `EventSource` passes to handlers of its own.
    const TRAPS: TrapNames = TrapNames::NONE;
    /// The same for a `Result` of a stream.
    const TRAPS_OF_RESULT: TrapNames = TrapNames::NONE;
}

impl<T> AnyType for TypeOf<T> {}

impl<T: FromRequest<()>> TypeOf<T> {
    /// It is.
    pub const FROM_REQUEST: bool = true;
}

impl<T: FromRequestParts<()>> TypeOf<T> {
    /// It is.
    pub const FROM_PARTS: bool = true;
}

impl TypeOf<Principal> {
    /// It is.
    pub const IS_PRINCIPAL: bool = true;
}

impl<T: TakesCaptures> TypeOf<Path<T>> {
    /// As many as `T` has values.
    pub const CAPTURES: Option<usize> = Some(T::COUNT);
}

impl<T: TakesCaptures> TypeOf<Option<Path<T>>> {
    /// As many as `T` has values.
    pub const CAPTURES: Option<usize> = Some(T::COUNT);
}

impl<T: TakesCaptures, E> TypeOf<Result<Path<T>, E>> {
    /// As many as `T` has values.
    pub const CAPTURES: Option<usize> = Some(T::COUNT);
}

impl<T: Stream<Item: Named>> TypeOf<T> {
    /// The events' own.
    pub const EVENT: Option<&'static str> = T::Item::NAME;
    /// The events' own.
    pub const TRAPS: TrapNames = T::Item::TRAPS;
}

impl<T: Stream<Item: Named>, R> TypeOf<Result<T, R>> {
    /// The events' own.
    pub const EVENT_OF_RESULT: Option<&'static str> = T::Item::NAME;
    /// The events' own.
    pub const TRAPS_OF_RESULT: TrapNames = T::Item::TRAPS;
}

/// A type that `Path` reads from captures by their position.
pub trait TakesCaptures {
    /// How many captures.
    const COUNT: usize;
}

macro_rules! plain {
    ($($plain:ty)*) => {
        $(
            impl TypeOf<$plain> {
                /// It is.
                pub const IS_PLAIN: bool = true;
            }

            impl TakesCaptures for $plain {
                const COUNT: usize = 1;
            }
        )*
    };
}

plain!(bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

impl TakesCaptures for String {
    const COUNT: usize = 1;
}

/// Tuples as long as serde reads them.
macro_rules! tuples {
    ($count:expr;) => {};
    ($count:expr; $first:ident $($more:ident)*) => {
        impl<$first, $($more),*> TakesCaptures for ($first, $($more,)*) {
            const COUNT: usize = $count;
        }

        tuples!($count - 1; $($more)*);
    };
}

tuples!(16; A B C D E F G H I J K L M N O P);

/// An item of a stream of events.
pub trait Named {
    /// The name that the event's declaration writes out.
    const NAME: Option<&'static str>;
    /// The names that an `EventSource` passes to handlers of its own.
    const TRAPS: TrapNames;
}

impl<E: SseEvent> Named for E {
    const NAME: Option<&'static str> = E::NAME;
    const TRAPS: TrapNames = E::TRAPS;
}

impl<E: SseEvent, X> Named for Result<E, X> {
    const NAME: Option<&'static str> = E::NAME;
    const TRAPS: TrapNames = E::TRAPS;
}

/// Stands for an `impl Stream<Item = T>` where that cannot be written. Never polled.
#[derive(Debug)]
pub struct StreamOf<T>(PhantomData<fn() -> T>);

impl<T> Stream for StreamOf<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(None)
    }
}

/// Does not compile unless the condition holds.
#[track_caller]
pub const fn check(holds: bool, message: &str) {
    assert!(holds, "{}", message);
}

/// Whether a type takes as many captures as the path has, or takes none by their position.
pub const fn takes_all(captures: Option<usize>, of_path: usize) -> bool {
    match captures {
        Some(captures) => captures == of_path,
        None => true,
    }
}

/// Does not compile if the endpoint and the type of its events are given different names.
#[track_caller]
pub const fn same_name(endpoint: &str, event: Option<&str>, event_of_result: Option<&str>) {
    if let (Some(event), _) | (None, Some(event)) = (event, event_of_result) {
        assert!(
            same(endpoint.as_bytes(), event.as_bytes()),
            "the endpoint's `event` and the `#[sse(event = \"..\")]` of its events' type are two names: \
             write one of them"
        );
    }
}

const fn same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, one_rest @ ..], [b, other_rest @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    one.is_empty() && other.is_empty()
}

/// Extracts an argument of type `T` if it can be one. `Checked<false>` is for an argument that [`check`]
/// reports: it has this trait whatever its type, so that there is no second error.
pub trait Extract<S, T> {
    /// The same as [`Extractor::extract`].
    fn extract<'a>(parts: &'a mut Parts, state: &'a S) -> BoxFuture<'a, Result<T, Response>>;
}

/// An argument about which a condition holds or not.
#[derive(Debug)]
pub struct Checked<const HOLDS: bool>;

impl<S, T: Extractor<S>> Extract<S, T> for Checked<true> {
    fn extract<'a>(parts: &'a mut Parts, state: &'a S) -> BoxFuture<'a, Result<T, Response>> {
        T::extract(parts, state)
    }
}

impl<S, T: 'static> Extract<S, T> for Checked<false> {
    fn extract<'a>(_: &'a mut Parts, _: &'a S) -> BoxFuture<'a, Result<T, Response>> {
        Box::pin(core::future::pending())
    }
}

/// The body of `open` for an endpoint whose declaration does not compile.
pub fn unreachable_endpoint() -> OpeningStream {
    Box::pin(core::future::pending())
}
