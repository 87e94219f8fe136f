//! Server-Sent Events for [axum]: one annotated async function becomes a live, protected event stream.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::Router;
//! use hero_sse::prelude::*;
//!
//! /// Counts the seconds, for everyone.
//! #[sse_endpoint("/clock", public)]
//! async fn clock() -> impl Stream<Item = Event> {
//!     hero_sse::stream(|mut tx| async move {
//!         for second in 0.. {
//!             tx.send(Event::text(format!("{second} s"))).await;
//!             tokio::time::sleep(Duration::from_secs(1)).await;
//!         }
//!     })
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     tracing_subscriber::fmt().init(); // errors of a stream are logged, not sent
//!     let sse = HeroSse::builder().build()?;
//!     let app = Router::new().merge(sse.routes(endpoints![clock])?);
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     sse.serve(listener, app).with_graceful_shutdown(hero_sse::shutdown_signal()).await?;
//!     Ok(())
//! }
//! ```
//!
//! # Tasks
//!
//! | I want to .. | types | guide |
//! |---|---|---|
//! | declare an endpoint | [`sse_endpoint`], [`endpoints!`] | [endpoints](guide::endpoints) |
//! | stream from an async block | [`stream`](stream()) | [endpoints](guide::endpoints) |
//! | define events | [`SseEvent`](derive@SseEvent), [`Event`] | [events](guide::events) |
//! | send events to many clients, which resume | [`Topic`], [`Subscription`] | [topics](guide::topics) |
//! | stream to one user, tenant or build | [`KeyedTopics`] | [keyed topics](guide::keyed_topics) |
//! | publish from anywhere | [`Topic`] | [publishing](guide::publishing) |
//! | stream an LLM's answer | [`stream`](stream()) | [LLM answers](guide::llm_answers) |
//! | pass on a stream that another server made | [`adopt`] | [LLM answers](guide::llm_answers) |
//! | read a stream in a page | | [browser](guide::browser) |
//! | decide who may open a stream | [`Principal`], [`auth`] | [access](guide::access) |
//! | use cookies, tokens in URLs, tickets, CORS | [`auth::Tickets`], [`options`] | [tokens](guide::tokens) |
//! | keep tenants apart | [`Principal`] | [tenancy](guide::tenancy) |
//! | see, message or end open streams | [`connections`], [`CloseReason`] | [monitoring](guide::monitoring) |
//! | test a stream | `testing` | [testing](guide::testing) |
//! | stop slow clients, or let them skip events | [`options::Overflow`] | [slow clients](guide::slow_clients) |
//! | change a setting or a limit | [`SseOptions`] | [limits](guide::limits) |
//! | deploy | [`server::Readiness`], [`shutdown_signal`] | [deploys](guide::deploys) |
//! | run behind nginx | [`SseOptions`] | [proxies](guide::proxies) |
//! | keep `axum::serve`, or serve HTTPS | [`server`] | [other servers](guide::other_servers) |
//! | write a broker | [`extend`] | [topics](guide::topics) |
//!
//! # Features
//!
//! * `macros` (default): `#[derive(SseEvent)]`, and with `server` also `#[sse_endpoint]`.
//! * `server` (default): everything that answers requests. Without it, `hero-sse` has events, topics and the broker
//!   contract, and no axum: for workers that only publish.
//! * `http2`: HTTP/2 without TLS under [`HeroSse::serve`], for proxies that are configured for it.
//! * `jwt`: `JwtAuthenticator`, which checks JSON Web Tokens with the crypto backend aws-lc-rs.
//! * `jwks-url`: fetches the keys that an issuer publishes, through reqwest and rustls. Includes `jwt`.
//! * `metrics`: counters of streams and of their ends, through the crate `metrics`; see [monitoring](guide::monitoring).
//! * `tls`: HTTPS under [`HeroSse::serve`], through rustls with aws-lc-rs. Includes `http2`.
//! * `toml`: reads options from TOML. Without it, options come from JSON, from the environment and from code.
//! * `testing`: opens and reads streams in tests; see [testing](guide::testing).
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]
// What only the server or the macros use is not worth a condition each. With both features the lints are on.
#![cfg_attr(
    not(all(feature = "macros", feature = "server")),
    allow(dead_code, unreachable_pub, unused_imports, unused_macros)
)]

// Events and topics, for publishers without a server.
mod close;
pub mod event;
mod frame;
mod overflow;
mod profile;
mod sealed;
mod sync;
mod telemetry;
mod throttle;
pub mod topic;

// The server.
#[cfg(feature = "server")]
pub mod adopt;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
mod buffer;
#[cfg(feature = "server")]
mod client_addr;
#[cfg(feature = "server")]
pub mod connections;
#[cfg(feature = "server")]
mod context;
#[cfg(feature = "server")]
mod cors;
#[cfg(feature = "server")]
mod delivery;
#[cfg(feature = "server")]
mod descriptor;
#[cfg(feature = "server")]
mod duration;
#[cfg(feature = "server")]
mod endpoint;
#[cfg(feature = "server")]
mod hero;
#[cfg(feature = "server")]
pub mod options;
#[cfg(feature = "server")]
mod origin;
#[cfg(feature = "server")]
mod permission;
#[cfg(feature = "server")]
mod pipeline;
#[cfg(feature = "server")]
mod policy;
#[cfg(feature = "server")]
mod redact;
#[cfg(feature = "server")]
mod refusal;
#[cfg(feature = "server")]
mod secret;
#[cfg(feature = "server")]
mod setup;
#[cfg(feature = "server")]
mod signal;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "server")]
mod transport;
#[cfg(feature = "server")]
mod writer;

#[doc(hidden)]
#[deprecated = "an implementation detail of the macros, which changes without notice"]
pub mod __private;

#[cfg(feature = "server")]
pub use axum;
pub use futures_core;

/// Serving endpoints: the server's builder, mounts, readiness, TLS, and guards for other servers.
#[cfg(feature = "server")]
pub mod server {
    pub use crate::delivery::GuardedIo;
    pub use crate::hero::{
        Builder, EndpointBuilder, GuardedApp, GuardedListener, GuardedService, HeroSse, Mount,
        Serve,
    };
    pub use crate::redact::{QueryToken, Redact, RedactLayer};
    pub use crate::refusal::{Refusal, RefusalInfo};
    pub use crate::signal::{Readiness, shutdown_signal};
    pub use crate::telemetry::request_span;
    #[cfg(feature = "tls")]
    pub use crate::transport::Tls;
}

/// Traits, markers and contracts for code that extends the library.
pub mod extend {
    #[cfg(feature = "server")]
    pub use crate::descriptor::Descriptor;
    #[cfg(feature = "server")]
    pub use crate::endpoint::{
        AppState, BodyExtractor, Endpoint, EndpointMeta, Endpoints, EventHandler, EventItem,
        EventStream, Events, Extractor, IntoEarlyStream, IntoEventStream, Opened, OpeningStream,
        markers,
    };
    pub use crate::event::emit::Outcome;
    pub use crate::topic::broker::{
        Broker, BrokerError, Log, LogReplica, Record, Retention, WakeOnDrop,
    };
    pub use crate::topic::position::Epoch;
}

#[cfg(doc)]
pub mod guide;

/// Makes a type an event: each value is one, each variant of an enum is one of its own.
///
/// Every key by example: [the guide on events](crate::guide::events). Every compile error:
/// [the list of them](crate::guide::errors).
///
/// ```
/// use hero_sse::prelude::*;
/// use serde::Serialize;
///
/// /// One reading of the usage gauge.
/// #[derive(Serialize, SseEvent)]
/// struct Usage {
///     #[sse(id)]
///     seq: u64,
///     used: u64,
/// }
/// ```
///
#[cfg(feature = "macros")]
pub use hero_sse_macros::SseEvent;
/// Makes an `async fn` that returns a stream of events an endpoint.
///
/// Every key by example: [the guide on endpoints](crate::guide::endpoints). Every compile error:
/// [the list of them](crate::guide::errors).
///
/// ```
/// use futures_util::stream;
/// use hero_sse::prelude::*;
///
/// /// Live usage of the caller.
/// #[sse_endpoint("/usage", event = "usage", permission = "usage.read")]
/// async fn usage(who: Principal) -> impl Stream<Item = Event> {
///     stream::iter([Event::text(who.subject())])
/// }
/// ```
///
/// # Keys that are settings
///
/// Without a key, the endpoint has the value of the [options](crate::SseOptions), whose default is in this table. A key
/// wins over the options for all endpoints. The options' table for this endpoint wins over the key. Durations are written `"15s"`, `"500ms"`, `"2m"`, `"1h"`, `"00:00:05"` (hh:mm:ss) or `"off"`.
///
#[doc = policy::settings::attribute_table!()]
///
#[cfg(all(feature = "macros", feature = "server"))]
pub use hero_sse_macros::sse_endpoint;

#[cfg(feature = "jwt")]
pub use crate::auth::JwtAuthenticator;
pub use crate::close::CloseReason;
pub use crate::event::{Event, LastEventId, SseEvent, stream};
pub use crate::topic::{KeyedTopics, MergedSubscription, Subscription, Topic};
#[cfg(feature = "server")]
pub use crate::{
    auth::Principal,
    context::SseContext,
    options::{SetupErrors, SseOptions},
    server::{HeroSse, Refusal, shutdown_signal},
};

/// The names that most applications use: `use hero_sse::prelude::*;`.
pub mod prelude {
    pub use futures_core::Stream;

    #[cfg(all(feature = "macros", feature = "server"))]
    pub use crate::sse_endpoint;
    pub use crate::{
        Event, KeyedTopics, LastEventId, MergedSubscription, SseEvent, Subscription, Topic,
    };
    #[cfg(feature = "server")]
    pub use crate::{HeroSse, Principal, Refusal, SseContext, endpoints};
}
