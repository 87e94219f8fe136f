//! [`Connection`]: the stream that an endpoint's function is opening, as an argument of it.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Once};

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;

use super::connection::Identity;
use super::registry::Registry;
use crate::auth::Principal;
use crate::refusal::Refusal;
use crate::telemetry;

/// The stream that an endpoint's function is opening: an argument of functions under
/// [`#[sse_endpoint]`](crate::sse_endpoint) and of the builder's handlers.
///
/// Send its id to the page, and the page can return it with its requests. The server then knows which tab asked:
///
/// ```
/// use hero_sse::connections::{Connection, ConnectionFilter};
/// use hero_sse::prelude::*;
///
/// #[sse_endpoint("/chat")]
/// async fn chat(connection: Connection) -> impl Stream<Item = Event> {
///     let hello = Event::text(connection.id().to_string());
///     futures_util::stream::iter([hello])
/// }
///
/// /// Sends to everyone in the chat except the tab that wrote the text.
/// fn tell_others(sse: &HeroSse, writer: u64, text: &str) {
///     let others = ConnectionFilter::all()
///         .endpoint("/chat")
///         .not(ConnectionFilter::all().id(writer));
///     let sent = sse.connections().send(&others, Event::text(text));
///     # assert!(sent.is_ok());
/// }
/// # let sse = HeroSse::builder().build().unwrap();
/// # tell_others(&sse, 7, "hi");
/// ```
///
/// It works where an endpoint runs, and after an [`SseContext`](crate::SseContext) in the arguments of an ordinary
/// handler. On other routes the answer is `500`, and the log names the cause. `Option<Connection>` is `None` there.
///
/// The value outlives its stream, and keeps no stream open.
#[derive(Clone)]
pub struct Connection {
    identity: Identity,
    pub(super) registry: Arc<Registry>,
}

impl Connection {
    pub(super) fn new(identity: Identity, registry: Arc<Registry>) -> Self {
        Self { identity, registry }
    }

    /// Creates a connection for tests that call an endpoint's function directly. No registry has it.
    #[cfg(feature = "testing")]
    pub fn test(endpoint: impl Into<String>, principal: impl Into<Option<Principal>>) -> Self {
        let registry = Arc::new(Registry::new(None));
        let (id, endpoint) = (registry.next_id(), endpoint.into().into());
        Self::new(Identity { id, endpoint, principal: principal.into(), address: None }, registry)
    }

    /// Returns the stream's number, the same as in [`ConnectionInfo::id`](super::ConnectionInfo::id), in the log
    /// and in hooks.
    ///
    /// Each number is used once per [`HeroSse`](crate::HeroSse). The first one is random, so that a number from before a
    /// restart, or from another node, means no other stream. It is below 2<sup>53</sup>, and therefore exact as a
    /// number in JavaScript. It is no secret: clients can guess the numbers of others. If a client names a stream
    /// by its number, add a condition that the caller must meet, such as
    /// [`subject`](super::ConnectionFilter::subject).
    pub fn id(&self) -> u64 {
        self.identity.id
    }

    /// Returns the endpoint's path, with its prefix, and with captures as declared.
    pub fn endpoint(&self) -> &str {
        &self.identity.endpoint
    }

    /// Returns the caller. `None` on a public endpoint without a token.
    pub fn principal(&self) -> Option<&Principal> {
        self.identity.principal.as_ref()
    }

    /// Returns the client's address: the socket's peer, or the client that a
    /// [trusted proxy](crate::SseOptions::trusted_proxies) names. `None` for sockets without addresses.
    pub fn address(&self) -> Option<IpAddr> {
        self.identity.address
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { id, endpoint, principal, address } = &self.identity;
        f.debug_struct("Connection")
            .field("id", id)
            .field("endpoint", endpoint)
            .field("principal", principal)
            .field("address", address)
            .finish()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Connection {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        static LOGGED: Once = Once::new();
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            LOGGED.call_once(|| telemetry::no_connection(parts.uri.path()));
            Refusal::internal()
        })
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Connection {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}
