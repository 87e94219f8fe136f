//! The arguments of an endpoint's function.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use futures_core::future::BoxFuture;
use http::request::Parts;

use crate::frame::LastEventId;
use crate::refusal::{Detail, Refusal};
use crate::sealed;

/// The time in which a client must send the request's body. Until then it holds a slot, and no write timeout
/// runs.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Marks a last argument that is read from the request's head, as all others are.
#[derive(Debug)]
pub enum FromParts {}

/// Marks a last argument that is read from the request's body.
#[derive(Debug)]
pub enum FromBody {}

/// An argument of an endpoint's function that is read from the request's head: any `FromRequestParts`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of an endpoint",
    label = "not an extractor for the state `{S}`",
    note = "arguments are extractors: `State<T>` of the application's state or a part of it, `Path`, \
            `Query`, `Principal`, `LastEventId`, or a type that implements `FromRequestParts`; a body, such \
            as `Json<T>`, is read by the last argument under `method = \"post\"`"
)]
pub trait Extractor<S>: Sized + Send {
    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// Reads the argument from the request's head. The future is boxed: for a type that is no extractor the
    /// compiler would otherwise report the future as well.
    fn extract<'a>(parts: &'a mut Parts, state: &'a S) -> BoxFuture<'a, Result<Self, Response>>;
}

#[diagnostic::do_not_recommend]
impl<T: FromRequestParts<S> + Send, S: Sync> Extractor<S> for T {
    fn sealed(_: sealed::Token) {}

    fn extract<'a>(parts: &'a mut Parts, state: &'a S) -> BoxFuture<'a, Result<Self, Response>> {
        Box::pin(async { T::from_request_parts(parts, state).await.map_err(rejection) })
    }
}

/// The last argument of an endpoint's function. It may read the body of a `POST`: any `FromRequest` or
/// `FromRequestParts`. The client has 30 s to send the body.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the last argument of an endpoint",
    label = "not an extractor for the state `{S}`",
    note = "the last argument reads the body (`Json<T>`, `Form<T>`, `Bytes`, `String`), or is an extractor \
            as the others are: `State<T>`, `Path`, `Query`, `Principal`, or a type that implements \
            `FromRequest` or `FromRequestParts`"
)]
pub trait BodyExtractor<S, K>: Sized + Send {
    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// Reads the argument from the rest of the request.
    fn take<'a>(parts: Parts, body: Body, state: &'a S) -> BoxFuture<'a, Result<Self, Response>>;
}

#[diagnostic::do_not_recommend]
impl<T: FromRequestParts<S> + Send, S: Sync> BodyExtractor<S, FromParts> for T {
    fn sealed(_: sealed::Token) {}

    fn take<'a>(mut parts: Parts, _: Body, state: &'a S) -> BoxFuture<'a, Result<Self, Response>> {
        Box::pin(async move { T::extract(&mut parts, state).await })
    }
}

#[diagnostic::do_not_recommend]
impl<T: FromRequest<S> + Send, S: Sync> BodyExtractor<S, FromBody> for T {
    fn sealed(_: sealed::Token) {}

    fn take<'a>(parts: Parts, body: Body, state: &'a S) -> BoxFuture<'a, Result<Self, Response>> {
        Box::pin(async move {
            let taken = T::from_request(Request::from_parts(parts, body), state);
            match tokio::time::timeout(BODY_TIMEOUT, taken).await {
                Ok(taken) => taken.map_err(rejection),
                Err(_) => Err(Refusal::body_timeout().into_response()),
            }
        })
    }
}

/// Makes the response of a rejection, which gets the format of refusals if it has none.
fn rejection(rejection: impl IntoResponse) -> Response {
    let mut response = rejection.into_response();
    if response.extensions().get::<Detail>().is_none() {
        response.extensions_mut().insert(Detail::InBody);
    }
    response
}

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_parts(parts))
    }
}
