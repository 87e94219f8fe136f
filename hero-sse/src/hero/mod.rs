//! [`HeroSse`]: the kit as an application holds it, its builder and its server. The only wiring.

mod guard;
mod mount;
mod tickets;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::serve::Listener;
use http::Extensions;
use http::request::Parts;
use tower::Service;

pub use self::guard::{GuardedApp, GuardedListener, GuardedService};
use self::mount::Mapped;
pub use self::mount::{EndpointBuilder, Mount};
use crate::auth::{
    AccessControl, AccessRequest, Attempts, Authenticator, Authorizer, Gate, OverTls, Principal,
    SitePolicy, Tickets,
};
use crate::client_addr::TrustedProxies;
use crate::connections::Connections;
use crate::delivery::Sweeper;
use crate::endpoint::{AppState, Endpoints};
use crate::options::SseOptions;
use crate::permission::{IntoPermission, PermissionRule};
use crate::pipeline::Core;
use crate::redact::redact;
use crate::refusal::Refusal;
use crate::setup::{SetupError, SetupErrorKind, SetupErrors};
use crate::signal::Readiness;
use crate::telemetry::{self, VerificationFailures};
use crate::transport::{Tls, Transport};

/// The kit: registry, heartbeats, writers, authentication. Building one exposes nothing: an endpoint
/// that is not named in [`routes`](Mount::routes) is not reachable.
///
/// Cheap to clone; all clones are one kit.
///
/// ```
/// use hero_sse::prelude::*;
/// use serde::Serialize;
/// use hero_sse::futures_core::Stream;
///
/// #[derive(Serialize, SseEvent)]
/// struct Tick { n: u64 }
///
/// /// A public stream of ticks.
/// #[sse_endpoint("/ticks", public)]
/// async fn ticks() -> impl Stream<Item = Tick> {
///     futures_util::stream::iter((0..3).map(|n| Tick { n }))
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let sse = HeroSse::builder().build()?;
/// let app = hero_sse::axum::Router::new().merge(sse.at("/api").routes(endpoints![ticks])?);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// sse.serve(listener, app).with_graceful_shutdown(hero_sse::shutdown_signal()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HeroSse(Arc<Shared>);

struct Shared {
    core: Arc<Core>,
    mapped: Mutex<Mapped>,
    readiness: Readiness,
}

impl HeroSse {
    /// Begins a kit.
    pub fn builder() -> Builder {
        Builder {
            options: SseOptions::default(),
            file: None,
            environment: None,
            authenticator: None,
            authorizer: None,
            tickets: None,
        }
    }

    /// A place to mount endpoints at: `prefix` goes before their paths. Empty is the root.
    pub fn at(&self, prefix: impl Into<String>) -> Mount<'_> {
        Mount { sse: self, prefix: prefix.into() }
    }

    /// Maps endpoints at the root; see [`Mount::routes`].
    ///
    /// # Errors
    ///
    /// As [`Mount::routes`].
    pub fn routes<S: AppState>(&self, endpoints: Endpoints<S>) -> Result<Router<S>, SetupErrors> {
        self.at("").routes(endpoints)
    }

    /// Declares an endpoint at the root without the macro; see [`Mount::endpoint`].
    #[track_caller]
    pub fn endpoint(&self, path: impl Into<String>) -> EndpointBuilder<'_> {
        self.at("").endpoint(path)
    }

    /// The registry: who is connected, and how streams ended.
    pub fn connections(&self) -> &Connections {
        &self.0.core.connections
    }

    /// What to answer a balancer that asks whether to send requests here:
    /// `.route("/readyz", get(sse.readiness()))`.
    pub fn readiness(&self) -> Readiness {
        self.0.readiness.clone()
    }

    /// Who sent this request, for routes of your own: the same tokens, from the same places, under
    /// the same rules as an endpoint's. Then [`Principal::require`] checks a permission. Under
    /// [`serve`](Self::serve) the extractor [`Principal`] does the same.
    ///
    /// # Errors
    ///
    /// `401` without a token or with one that is not accepted, `400` for doubled or malformed
    /// credentials, `403` for a cookie that another site's page sends and for a host that is not
    /// served, `429` after too many that were not accepted (`FailedAttemptsPerMinute`), `503` when it
    /// cannot be told.
    pub async fn authenticate(&self, parts: &Parts) -> Result<Principal, Refusal> {
        let gate = &self.core().gate;
        gate.principal(parts, gate.sources).await?.ok_or_else(Refusal::no_token)
    }

    /// Whether `principal` holds `permission`, for routes of your own: asks the kit's [`Authorizer`], which
    /// [`Principal::require`] does not, and without one the token's claims.
    ///
    /// # Errors
    ///
    /// `403` without it, `503` where that cannot be told now, `500` when `permission` cannot be one.
    pub async fn authorize(
        &self,
        principal: &Principal,
        permission: impl IntoPermission,
    ) -> Result<(), Refusal> {
        let permission = permission.into_permission().map_err(|_| Refusal::internal())?;
        let rule = PermissionRule::One(permission);
        let asked = Arc::new(AccessRequest { principal: principal.clone(), rule, target: None });
        let Core { access, connections, .. } = &**self.core();
        connections.timed("", access.check(asked)).await
    }

    /// Begins the shutdown of a server other than [`serve`](Self::serve), which does this by itself: the
    /// kit is no longer [ready](Self::readiness), admits no more streams, and asks those that are open to
    /// say farewell ([`CloseReason::Draining`](crate::CloseReason::Draining)). Returns how many there are.
    /// For ever: a kit that drains does not come back. For some streams, or for a while:
    /// [`Connections::drain`], [`Connections::close_endpoint`].
    pub fn drain(&self) -> usize {
        self.0.readiness.drain();
        self.connections().shut_down()
    }

    /// Serves `app` with everything the kit promises of its transport: the write timeout, the peer
    /// timeout, tokens taken out of the URI before any layer of `app` runs, and a shutdown that ends
    /// streams instead of waiting for them.
    ///
    /// Takes any axum [`Listener`] and any service from request to response, such as a `Router`; not
    /// `into_make_service()`, which it has no need of: requests carry
    /// [`ConnectInfo`](axum::extract::ConnectInfo) of the peer's address already. HTTP/1.1 with
    /// upgrades, and HTTP/2 to clients that begin with it (in clear text: no `Upgrade: h2c`);
    /// HTTPS with `.tls(..)`, feature `tls`. Sockets other than [`TcpStream`](tokio::net::TcpStream)
    /// are under the write timeout too, but the kernel's buffers and timeouts are then the listener's
    /// affair; the log says so once.
    ///
    /// At its start it compares `MaxConnections`, and a tenth more for other sockets and files, with the
    /// limit of open files: it raises the soft limit that far where the hard one allows, and else says
    /// so in the log. A server that runs out all the same accepts nobody until a file is free, and goes
    /// on with those it has.
    ///
    /// One kit, one server: a shutdown drains the kit, all of its streams end and no new ones open.
    pub fn serve<L, A>(&self, listener: L, app: A) -> Serve<L, A> {
        Serve { sse: self.clone(), listener, app, tls: None, shutdown: None }
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.0.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `SseContext`, and for `Principal` on other routes.
    fn prepare(&self, request: &mut Extensions) {
        request.insert(self.clone());
        request.insert(self.core().gate.clone());
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl fmt::Debug for HeroSse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeroSse").field("connections", self.connections()).finish_non_exhaustive()
    }
}

/// A server without an authorizer would silently ignore the interval.
const NOTHING_TO_REAUTHORIZE: &str = "reauthorization needs an authorizer, and the server has none: the claims of a token never \
                                  change. Add .authorizer(..) to the builder, or write \"off\"";

/// Collects a kit's settings; [`build`](Self::build) checks them all.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    options: SseOptions,
    file: Option<PathBuf>,
    environment: Option<Vec<(String, String)>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    tickets: Option<Tickets>,
}

impl Builder {
    /// Takes these options. Those of a file, where one is named, win over them.
    pub fn options(mut self, options: SseOptions) -> Self {
        self.options = options;
        self
    }

    /// Takes the options of a file: its section `SseOptions`. JSON where the name ends in `.json`,
    /// else TOML. What is wrong with it comes out of [`build`](Self::build).
    pub fn options_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads these variables in place of the process's, which are read at [`build`](Self::build).
    pub fn environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let text = |(key, value): (K, V)| (key.into(), value.into());
        self.environment = Some(variables.into_iter().map(text).collect());
        self
    }

    /// Says who may hold which token. Every endpoint that is not `public` needs one.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Says what a caller may have, in place of the claims of its token. It does not stand in for an
    /// authenticator, which says who the caller is.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Lets tickets open streams, besides tokens; where they are made is said by
    /// [`Mount::tickets`].
    pub fn tickets(mut self, tickets: Tickets) -> Self {
        self.tickets = Some(tickets);
        self
    }

    /// The kit.
    ///
    /// # Errors
    ///
    /// Every mistake of options, environment, authenticator and tickets together.
    pub fn build(self) -> Result<HeroSse, SetupErrors> {
        let mut mistakes = Vec::new();
        let mut options = self.options;
        if let Some(file) = &self.file {
            options.read_file(file, &mut mistakes);
        }
        let environment = self.environment.unwrap_or_else(|| {
            let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            std::env::vars_os().map(|(key, value)| (text(key), text(value))).collect()
        });
        options.read_environment(environment, &mut mistakes);
        mistakes.extend(options.faults());
        let of_auth = |message| SetupError::new(SetupErrorKind::Auth, "", message);
        if let Some(authenticator) = &self.authenticator {
            mistakes.extend(authenticator.mistakes().into_iter().map(of_auth));
        }
        let general = options.general_policies().private;
        if general.reauthorize.is_some() && self.authorizer.is_none() {
            let key = "SseOptions.ReauthorizeInterval";
            mistakes.push(SetupError::option(key, NOTHING_TO_REAUTHORIZE));
        }
        mistakes.extend(self.tickets.iter().flat_map(Tickets::mistakes).map(of_auth));
        SetupErrors::none_or(mistakes)?;
        telemetry::describe_metrics();
        let server = &options.server;
        let failed = server.failed_attempts_per_minute;
        let networks = server.trusted_proxies.entries.clone();
        let proxies = TrustedProxies::new(networks, server.forwarded_header);
        let site_policy = SitePolicy {
            public_origins: server.public_origins.entries.clone(),
            trusted_origins: match server.cors_credentials {
                true => server.cors_origins.entries.clone(),
                false => Vec::new(),
            },
            hosts: server.allowed_hosts.entries.clone(),
        };
        let failures = Arc::new(VerificationFailures::default());
        let gate = Gate {
            authenticator: self.authenticator,
            sources: general.token_sources,
            cookie: server.token_cookie.as_deref().map(Arc::from),
            site_policy: Arc::new(site_policy),
            tickets: self.tickets.map(Arc::new),
            attempts: Arc::new(Attempts::new(proxies.clone(), failed)),
            failures: failures.clone(),
            instance: fastrand::u64(..),
        };
        let timeout = server.authorizer_timeout;
        let access = AccessControl { authorizer: self.authorizer, timeout, failures };
        let core = Arc::new(Core {
            options,
            proxies,
            gate,
            access,
            connections: Connections::default(),
            sweeper: Sweeper::default(),
            unguarded: Once::new(),
        });
        let (mapped, readiness) = (Mutex::default(), Readiness::default());
        Ok(HeroSse(Arc::new(Shared { core, mapped, readiness })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The server, which runs when awaited; [`with_graceful_shutdown`](Self::with_graceful_shutdown)
/// gives it an end.
#[must_use = "a server does nothing until awaited"]
pub struct Serve<L, A> {
    sse: HeroSse,
    listener: L,
    app: A,
    tls: Option<Tls>,
    shutdown: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<L, A> Serve<L, A> {
    /// Shuts down when `signal` resolves: is no longer [ready](HeroSse::readiness), goes on as before
    /// for `DrainDelay` (not at all unless set), stops accepting, says farewell on every stream, waits for
    /// the farewells to be sent and other requests to finish, `DrainTimeout` at most (5 s unless set),
    /// then resets what is left. Unless that timeout is off, the server's future returns by the end of
    /// both, whatever clients do; a second later at most where the application's code blocks its
    /// threads. It does not wait for TLS handshakes, connections at rest and, beyond
    /// half a second, heads of requests; nor for upgraded connections, which are the application's own.
    /// Dropping the server instead resets its connections at once.
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.shutdown = Some(Box::pin(signal));
        self
    }

    /// Speaks HTTPS, with this certificate.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

impl<L, A> IntoFuture for Serve<L, A>
where
    L: Listener,
    L::Addr: Clone + Send + Sync + 'static,
    A: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    A::Future: Send,
{
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { sse, listener, app, tls, shutdown } = self;
        let Core { options, connections, .. } = &**sse.core();
        {
            let mapped = sse.mapped();
            let unmapped = |path: &&str| !mapped.has(path);
            options.endpoint_paths().filter(unmapped).for_each(telemetry::unmapped_options);
        }
        let transport = Transport {
            connections: connections.clone(),
            max_connections: options.server.max_connections,
            peer_timeout: options.server.peer_timeout,
            drain_timeout: options.server.drain_timeout,
            tls,
        };
        let signal = shutdown.unwrap_or_else(|| Box::pin(std::future::pending()));
        let (delay, readiness) = (options.server.drain_delay, sse.readiness());
        let (over_tls, query) = (transport.tls.is_some(), options.server.redact_query);
        let prepare = move |request: &mut Request| {
            redact(request, query);
            sse.prepare(request.extensions_mut());
            if over_tls {
                request.extensions_mut().insert(OverTls);
            }
        };
        Box::pin(async move {
            let serving = readiness.begin();
            // Balancers are told first; until they have noticed everything goes on.
            let shutdown = async {
                signal.await;
                serving.ends();
                if let Some(delay) = delay {
                    telemetry::not_ready(delay);
                    tokio::time::sleep(delay).await;
                }
            };
            transport.serve(listener, app, prepare, shutdown).await
        })
    }
}

impl<L, A> fmt::Debug for Serve<L, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}
