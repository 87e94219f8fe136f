//! Server-SendSummary Events for axum: one annotated async function becomes a live, protected event stream.
//!
//! ```
//! use hero_sse::prelude::*;
//! use serde::Serialize;
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

pub mod auth;
mod buffer;
mod client_addr;
mod close;
pub mod connections;
mod context;
mod cors;
mod deadline;
mod descriptor;
mod endpoint;
pub mod event;
mod frame;
mod hero;
pub mod options;
mod origin;
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
pub mod topic;
mod transport;
mod writer;

#[doc(hidden)]
#[deprecated = "an implementation detail of the macros, which changes without notice"]
pub mod __private;

pub use axum;
pub use futures_core;

/// Serving endpoints: the server's builder, mounts, readiness, TLS, and guards for other servers.
pub mod server {
    pub use crate::deadline::DeadlineIo as GuardedIo;
    pub use crate::hero::{
        Builder, EndpointBuilder, GuardedApp, GuardedListener, GuardedService, HeroSse, Mount,
        Serve,
    };
    pub use crate::redact::{QueryToken, Redact, RedactLayer};
    pub use crate::refusal::Refusal;
    pub use crate::signal::{Readiness, shutdown_signal};
    pub use crate::telemetry::request_span;
    #[cfg(feature = "tls")]
    pub use crate::transport::Tls;
}

/// Traits, markers and contracts for code that extends the library.
pub mod extend {
    pub use crate::descriptor::Descriptor;
    pub use crate::endpoint::{
        AppState, BodyExtractor, Endpoint, EndpointMeta, Endpoints, EventHandler, EventItem,
        EventStream, Events, Extractor, IntoEventStream, OpeningStream,
    };
    pub use crate::topic::broker::{
        Broker, BrokerError, Log, LogReplica, Record, Retention, WakeOnDrop,
    };
    pub use crate::topic::position::Epoch;
}

/// Guides, by task.
#[cfg(doc)]
pub mod guide {
    #[doc = include_str!("../docs/access.md")]
    pub mod access {}

    #[doc = include_str!("../docs/endpoint.md")]
    pub mod endpoints {}

    #[doc = include_str!("../docs/errors.md")]
    pub mod errors {}

    #[doc = include_str!("../docs/event.md")]
    pub mod events {}

    #[doc = include_str!("../docs/operating.md")]
    pub mod operating {}

    #[doc = include_str!("../docs/tenancy.md")]
    pub mod tenancy {}

    #[doc = include_str!("../docs/topics.md")]
    pub mod topics {}
}

#[cfg(feature = "macros")]
#[doc = include_str!("../docs/event.md")]
pub use hero_sse_macros::SseEvent;
#[cfg(feature = "macros")]
#[doc = include_str!("../docs/endpoint.md")]
pub use hero_sse_macros::sse_endpoint;

#[cfg(feature = "jwt")]
pub use crate::auth::JwtAuthenticator;
pub use crate::auth::Principal;
pub use crate::close::CloseReason;
pub use crate::context::SseContext;
pub use crate::event::{Event, LastEventId, SseEvent, stream};
pub use crate::options::{SetupErrors, SseOptions};
pub use crate::server::{HeroSse, Refusal, shutdown_signal};
pub use crate::topic::{KeyedTopics, MergedSubscription, Subscription, Topic};

/// The names that most applications use: `use hero_sse::prelude::*;`.
pub mod prelude {
    pub use futures_core::Stream;

    #[cfg(feature = "macros")]
    pub use crate::sse_endpoint;
    pub use crate::{
        Event, HeroSse, KeyedTopics, LastEventId, MergedSubscription, Principal, Refusal,
        SseContext, SseEvent, Subscription, Topic, endpoints,
    };
}
