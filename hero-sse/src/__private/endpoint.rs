//! What `#[sse_endpoint]` generates calls to.

use core::marker::PhantomData;
use core::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;

use crate::endpoint::EventStream;
use crate::permission::PermissionRule;

pub use core::{concat, file, line};

pub use axum::extract::Request;

pub use crate::descriptor::{Descriptor, Rule};
pub use crate::endpoint::{
    AppState, BodyExtractor, Endpoint, EndpointMeta, Events, Extractor, IntoEventStream,
    OpeningStream,
};
use crate::event::SseEvent;
pub use crate::permission::IntoPermission;
pub use crate::policy::{Method, OverLimit, Overflow, TokenSource};

/// Opens a stream as generated code says: the arguments one by one, then the function.
pub fn open<S, F, O>(request: Request, state: S, open: F) -> OpeningStream
where
    F: FnOnce(Parts, Body, S) -> O,
    O: Future<Output = Result<EventStream, Response>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    Box::pin(open(parts, body, state))
}

/// What becomes of the stream, if the function did not refuse. No method, so that no lint of the
/// application's sees a path that could be shorter.
pub fn then<T, U>(answer: Result<T, Response>, next: impl FnOnce(T) -> U) -> Result<U, Response> {
    answer.map(next)
}

/// The rule that asks for one permission.
pub fn permission(name: &'static str) -> Rule {
    name.into_rule()
}

/// The rule that asks for all of these.
pub fn all<const N: usize>(rules: [Rule; N]) -> Rule {
    rules.into_iter().collect::<Result<_, _>>().map(PermissionRule::All)
}

/// The rule that asks for one of these.
pub fn any<const N: usize>(rules: [Rule; N]) -> Rule {
    rules.into_iter().collect::<Result<_, _>>().map(PermissionRule::Any)
}

/// A time that could be off.
pub const fn every(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

/// What could be on, and is not.
pub const OFF: Option<Duration> = None;

/// Asks a type for the name that its declaration writes out.
#[derive(Debug)]
pub struct Named<T>(PhantomData<T>);

impl<E: SseEvent> Named<E> {
    /// That name.
    pub const NAME: Option<&'static str> = E::NAME;
}

impl<E: SseEvent, X> Named<Result<E, X>> {
    /// That of the event in a `Result`.
    pub const NAME: Option<&'static str> = E::NAME;
}

/// What [`Named`] finds of a type that is no event, which is reported elsewhere.
pub trait Unnamed {
    /// None.
    const NAME: Option<&'static str> = None;
}

impl<T> Unnamed for T {}

/// Does not compile when an endpoint and the type of its events are given different names.
#[track_caller]
pub const fn same_name(endpoint: &str, event: Option<&str>) {
    if let Some(event) = event {
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

/// Stands in for the body of an endpoint whose declaration does not compile.
pub fn unreachable_endpoint() -> OpeningStream {
    Box::pin(core::future::pending())
}
