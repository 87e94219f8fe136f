//! Server-Sent Events for axum: one annotated async function becomes a live, protected event stream.
//!
//! ```
//! use hero_sse::prelude::*;
//!
//! /// One reading of the usage gauge.
//! #[derive(Clone, Serialize, SseEvent)]
//! pub struct Usage {
//!     #[sse(id)]
//!     seq: u64,
//!     used: u64,
//! }
//!
//! /// Live usage gauge of the caller's tenant.
//! #[sse_endpoint("/usage/stream", event = "usage", permission = "usage.read")]
//! pub async fn usage_stream(who: Principal) -> Result<impl Stream<Item = Usage>, Refusal> {
//!     let _tenant = who.require_tenant()?;
//!     Ok(futures_util::stream::iter([Usage { seq: 1, used: 7 }]))
//! }
//! ```
//!
//! [`HeroSse`] maps endpoints and serves them; [`sse_endpoint`] and [`SseEvent`] declare them;
//! [`SseOptions`] is what an operator writes, [`operating`] what one knows; [`access`] says who gets in, [`tenancy`] keeps tenants
//! apart; `testing` reads streams in tests.
//!
//! # Features
//!
//! * `macros` (default): `#[sse_endpoint]` and `#[derive(SseEvent)]`.
//! * `jwt-aws-lc-rs` (default) or `jwt-rust-crypto`: `JwtAuthenticator` with that crypto backend.
//! * `jwks-url`: `jwks_url`, the keys that an issuer publishes, through reqwest and rustls with aws-lc-rs.
//! * `metrics`: counters of streams and their ends through the facade `metrics`; see [`operating`].
//! * `tls`: `Tls`, for HTTPS under `serve`, through rustls with aws-lc-rs.
//! * `testing`: the module of that name and `Principal::test`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod auth;
mod buffer;
mod close;
mod connections;
mod context;
mod cors;
mod deadline;
mod descriptor;
mod emit;
mod endpoint;
mod event;
mod frame;
mod hero;
mod options;
mod origin;
mod peer;
mod permission;
mod pipeline;
mod policy;
mod redact;
mod refusal;
mod secret;
mod signal;
mod sweeper;
mod sync;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod topic;
mod transport;
mod writer;

#[doc(hidden)]
#[deprecated = "an implementation detail of the macros, which changes without notice"]
pub mod __private;

pub use axum;
pub use futures_core;

#[cfg(doc)]
#[doc = include_str!("../docs/errors.md")]
pub mod errors {}

#[cfg(doc)]
#[doc = include_str!("../docs/access.md")]
pub mod access {}

#[cfg(doc)]
#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

#[cfg(doc)]
#[doc = include_str!("../docs/tenancy.md")]
pub mod tenancy {}

#[cfg(doc)]
#[doc = include_str!("../docs/topics.md")]
pub mod topics {}

#[cfg(feature = "macros")]
#[doc = include_str!("../docs/event.md")]
pub use hero_sse_macros::SseEvent;
#[cfg(feature = "macros")]
#[doc = include_str!("../docs/endpoint.md")]
pub use hero_sse_macros::sse_endpoint;

#[cfg(feature = "jwt")]
pub use crate::auth::issuer::{ClaimPath, Issuer};
#[cfg(feature = "jwt")]
pub use crate::auth::jwt::JwtAuthenticator;
#[cfg(feature = "jwt")]
pub use crate::auth::keys::Algorithm;
pub use crate::auth::{
    Access, AuthError, Authenticator, Authorizer, Decision, InvalidToken, Principal, TicketGrant,
    TicketStore, Tickets, authenticator_fn, authorizer_fn,
};
pub use crate::close::CloseReason;
pub use crate::connections::{ConnectionFilter, ConnectionInfo, Connections, Sent};
pub use crate::context::SseContext;
pub use crate::cors::Cors;
pub use crate::deadline::DeadlineIo as GuardedIo;
pub use crate::descriptor::Descriptor;
pub use crate::emit::{Emitted, Emitter, stream};
pub use crate::endpoint::{
    AppState, Endpoint, EndpointMeta, Endpoints, EventHandler, EventItem, EventStream, Events,
    Extractor, IntoEventStream, LastArgument, Opening,
};
pub use crate::event::{Event, SseEvent};
pub use crate::frame::{EventId, EventName, FrameWriter, InvalidEvent, InvalidField, LastEventId};
pub use crate::hero::{
    Builder, EndpointBuilder, GuardedApp, GuardedListener, GuardedService, HeroSse, Mount, Serve,
};
pub use crate::options::{SetupErrors, SseOptions};
pub use crate::peer::ForwardedHeader;
pub use crate::permission::{IntoPermission, InvalidPermission, Permission, PermissionRule};
pub use crate::policy::{OverLimit, Overflow, TokenSource, parse_duration};
pub use crate::redact::{QueryToken, Redact, RedactLayer};
pub use crate::refusal::Refusal;
pub use crate::secret::Secret;
pub use crate::signal::{Readiness, shutdown_signal};
pub use crate::telemetry::request_span;
pub use crate::topic::{
    Broker, BrokerError, Epoch, Frame, Frames, Gap, Log, Position, PublishError, Pushed, Record,
    Retention, Start, Subscription, Subscriptions, Topic, TopicBuilder, Topics, TopicsBuilder,
    TopicsFull, Window,
};
#[cfg(feature = "tls")]
pub use crate::transport::Tls;

/// What a module with endpoints uses: `use hero_sse::prelude::*;`.
pub mod prelude {
    pub use axum::Json;
    pub use axum::extract::{FromRef, Path, Query, State};
    pub use futures_core::Stream;
    pub use serde::Serialize;

    #[cfg(feature = "macros")]
    pub use crate::sse_endpoint;
    pub use crate::{
        Event, HeroSse, LastEventId, Principal, Refusal, SseContext, SseEvent, Subscription,
        Subscriptions, Topic, Topics, endpoints,
    };
}
