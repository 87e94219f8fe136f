//! [`HeroSse`], its builder and its server: the place where all parts are put together.

mod guard;
mod mapped;
mod mount;
mod tickets;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use http::Extensions;
use http::request::Parts;
use tower::Service;

pub use self::guard::{GuardedApp, GuardedListener, GuardedService};
use self::mapped::Mapped;
pub use self::mount::{EndpointBuilder, Mount};
use crate::auth::{
    AccessControl, AccessRequest, Attempts, Authenticator, Authorizer, Gate, OverTls, Principal,
    SitePolicy, Tickets,
};
use crate::client_addr::TrustedProxies;
use crate::connections::{ClosedConnection, Connection, Connections, HookList};
use crate::delivery::Sweeper;
use crate::options::SseOptions;
use crate::permission::{IntoPermission, PermissionRule};
use crate::pipeline::Core;
use crate::redact::{Removed, redact};
use crate::refusal::{Refusal, RefusalFormat, RefusalInfo};
use crate::setup::{SetupError, SetupErrors};
use crate::signal::Readiness;
use crate::telemetry::{self, VerificationFailures};
use crate::transport::{Tls, Transport};

/// Event streams for axum: maps endpoints to routes, serves them, and knows who is connected.
///
/// Building one exposes nothing. Only the endpoints that are named in [`routes`](Mount::routes) are reachable.
/// Clones are cheap, and share everything.
///
/// | task | method |
/// |---|---|
/// | make one | [`builder`](Self::builder) |
/// | map endpoints to routes | [`routes`](Self::routes), [`at`](Self::at), [`endpoint`](Self::endpoint) |
/// | serve an application | [`serve`](Self::serve) |
/// | use other servers | [`guard`](Self::guard), [`guard_connection`](Self::guard_connection), [`drain`](Self::drain) |
/// | list, count, end streams, and send to them | [`connections`](Self::connections) |
/// | be called when a stream opens or ends | [`Builder::on_open`], [`Builder::on_close`] |
/// | authenticate other routes | [`authenticate`](Self::authenticate), [`authorize`](Self::authorize) |
/// | answer health checks | [`readiness`](Self::readiness) |
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
    /// Returns a builder with the default options.
    pub fn builder() -> Builder {
        Builder {
            options: SseOptions::default(),
            file: None,
            environment: None,
            authenticator: None,
            authorizer: None,
            tickets: None,
            hooks: HookList::default(),
            refusals: None,
        }
    }

    /// Returns the registry of open streams: lists, counts and ends them, and sends events to them.
    pub fn connections(&self) -> &Connections {
        &self.0.core.connections
    }

    /// Returns the answer to a load balancer's health check: `.route("/readyz", get(sse.readiness()))`.
    #[doc(alias = "health check")]
    pub fn readiness(&self) -> Readiness {
        self.0.readiness.clone()
    }

    /// Returns the caller of a request to a route of your own. The rules for tokens are those of an endpoint.
    ///
    /// Check a permission with [`Principal::require`] or [`authorize`](Self::authorize). Under
    /// [`serve`](Self::serve) the extractor [`Principal`] does the same as this method.
    ///
    /// # Errors
    ///
    /// | status | reason |
    /// |---|---|
    /// | `400` | duplicate or malformed credentials |
    /// | `401` | no token, or one that is not accepted |
    /// | `403` | a cookie sent by another site's page, or a host that is not served |
    /// | `429` | too many invalid tokens from the client's address (`FailedAttemptsPerMinute`) |
    /// | `503` | the token cannot be verified at the moment |
    pub async fn authenticate(&self, parts: &Parts) -> Result<Principal, Refusal> {
        let gate = &self.core().gate;
        gate.principal(parts, gate.sources).await?.ok_or_else(Refusal::no_token)
    }

    /// Checks whether `principal` has `permission`, for routes of your own.
    ///
    /// It asks the [`Authorizer`], if there is one, and otherwise checks the claims of the token.
    /// [`Principal::require`] checks the claims only.
    ///
    /// # Errors
    ///
    /// `403` without the permission, `503` if the authorizer cannot answer at the moment, `500` if `permission`
    /// cannot be a permission.
    pub async fn authorize(
        &self,
        principal: &Principal,
        permission: impl IntoPermission,
    ) -> Result<(), Refusal> {
        let permission = permission.into_permission().map_err(|_| Refusal::internal())?;
        let rule = PermissionRule::One(permission);
        let request = Arc::new(AccessRequest { principal: principal.clone(), rule, target: None });
        let Core { access, connections, .. } = &**self.core();
        connections.timed("", access.check(request)).await
    }

    /// Begins a shutdown under a server other than [`serve`](Self::serve), and returns the number of open streams.
    ///
    /// From then on it is not [ready](Self::readiness), admits no more streams, and ends the open ones with
    /// [`CloseReason::Draining`](crate::CloseReason::Draining). This cannot be undone. To drain some streams, or
    /// for a while, use [`Connections::drain`] and [`Connections::close_endpoint`].
    ///
    /// `serve` calls it by itself.
    #[doc(alias = "shutdown")]
    pub fn drain(&self) -> usize {
        self.0.readiness.drain();
        self.connections().shut_down()
    }

    /// Serves `app` on `listener`. The returned server runs when awaited.
    ///
    /// It does what streams need from a server:
    ///
    /// * The write timeout and the peer timeout apply to each stream, also over HTTP/2.
    /// * Tokens leave the URI before any layer of `app` runs.
    /// * A shutdown ends the streams with a closing event, instead of waiting for them.
    ///
    /// `listener` is any axum [`Listener`]. On sockets other than [`TcpStream`](tokio::net::TcpStream) the write
    /// timeout applies as well, but their kernel buffers and timeouts are those that the listener sets; this is
    /// logged once.
    ///
    /// `app` is a `Router`, or any other service. Do not call `into_make_service()`: requests carry
    /// [`ConnectInfo`](axum::extract::ConnectInfo) of the peer's address already.
    ///
    /// The protocols are HTTP/1.1 with upgrades, and HTTP/2 for clients that start with it (without TLS: no
    /// `Upgrade: h2c`). For HTTPS add `.tls(..)` (feature `tls`).
    ///
    /// At the start it compares `MaxConnections`, plus a tenth for other sockets and files, with the limit of open
    /// files. It raises the soft limit as far as the hard limit allows, and logs a warning if that is not enough.
    /// A server that still runs out of files accepts no connections until one is closed, and keeps the open ones.
    ///
    /// Call it once per `HeroSse`: a shutdown of one server drains all streams.
    ///
    /// ```no_run
    /// # async fn run(sse: hero_sse::HeroSse, app: hero_sse::axum::Router) -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// sse.serve(listener, app).with_graceful_shutdown(hero_sse::shutdown_signal()).await
    /// # }
    /// ```
    pub fn serve<L, A>(&self, listener: L, app: A) -> Serve<L, A> {
        Serve { sse: self.clone(), listener, app, tls: None, shutdown: None }
    }

    /// No code that can panic runs under the lock, so a poisoned lock is still sound.
    fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.0.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns which parameters leave the URIs of requests.
    fn removed_parameters(&self) -> Removed {
        let Core { options, gate, .. } = &**self.core();
        Removed { tokens: options.server.redact_query, tickets: gate.tickets.is_some() }
    }

    /// Adds what the extractors `SseContext` and `Principal` need on any route.
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
const NOTHING_TO_REAUTHORIZE: &str = "reauthorization needs an authorizer, and the server has none: \
    the claims of a token never change. Add .authorizer(..) to the builder, or write \"off\"";

/// Builds a [`HeroSse`]. [`build`](Self::build) checks everything and reports all mistakes together.
///
/// Options come from three places. Later ones take precedence: [`options`](Self::options), then
/// [`options_file`](Self::options_file), then the environment variables `HERO_SSE_*`.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    options: SseOptions,
    file: Option<PathBuf>,
    environment: Option<Vec<(String, String)>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    tickets: Option<Tickets>,
    hooks: HookList,
    refusals: Option<RefusalFormat>,
}

impl Builder {
    /// Sets the options.
    pub fn options(mut self, options: SseOptions) -> Self {
        self.options = options;
        self
    }

    /// Reads options from the section `SseOptions` of a file: JSON if its name ends in `.json`, otherwise TOML, which
    /// needs the feature `toml`.
    ///
    /// [`build`](Self::build) reads the file, and reports its mistakes.
    pub fn options_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Replaces the environment variables, which [`build`](Self::build) otherwise reads from the process. For tests.
    pub fn environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let text = |(key, value): (K, V)| (key.into(), value.into());
        self.environment = Some(variables.into_iter().map(text).collect());
        self
    }

    /// Sets how tokens are verified. Every endpoint that is not `public` needs an authenticator.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Sets who has which permission, in place of the claims of the caller's token. It does not replace the
    /// authenticator, which determines the caller.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Accepts tickets, besides tokens. [`Mount::tickets`] maps the route that makes them.
    pub fn tickets(mut self, tickets: Tickets) -> Self {
        self.tickets = Some(tickets);
        self
    }

    /// Calls `hook` for every stream that opens.
    ///
    /// A stream opens when the endpoint's function has returned it, before its head is sent. With `early` it opens before the
    /// function runs. A request that is rejected,
    /// refused, or answered by the function itself opens none. The stream does not wait for the hook.
    ///
    /// The rules for calls are those of [`on_close`](Self::on_close).
    #[doc(alias = "connect")]
    pub fn on_open<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Connection) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        self.hooks.on_open(hook);
        self
    }

    /// Calls `hook` once for every stream that [opened](Self::on_open), when it has ended for whatever reason.
    ///
    /// ```
    /// use hero_sse::connections::ClosedConnection;
    /// use hero_sse::prelude::*;
    /// use serde::Serialize;
    ///
    /// #[derive(Serialize, SseEvent)]
    /// #[serde(rename_all = "kebab-case")]
    /// enum Presence {
    ///     Here { name: String },
    ///     Gone { name: String },
    /// }
    ///
    /// # fn build() -> Result<HeroSse, hero_sse::SetupErrors> {
    /// let presence = Topic::<Presence>::new("presence");
    /// let sse = HeroSse::builder()
    ///     .on_open({
    ///         let presence = presence.clone();
    ///         async move |opened| {
    ///             let name = opened.principal().map(|who| who.subject().to_owned());
    ///             if let Some(name) = name {
    ///                 let _closed = presence.publish(Presence::Here { name }).await;
    ///             }
    ///         }
    ///     })
    ///     .on_close(async move |closed: ClosedConnection| {
    ///         println!("{} after {:?}", closed.reason, closed.duration);
    ///         let name = closed.connection.principal().map(|who| who.subject().to_owned());
    ///         if let Some(name) = name {
    ///             let _closed = presence.publish(Presence::Gone { name }).await;
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok(sse)
    /// # }
    /// # build().unwrap();
    /// ```
    ///
    /// * Calls wait in a queue, and one task makes up to 64 at a time. For one stream, the close call begins after the
    ///   open call has ended. Calls for different streams have no order.
    /// * The queue has room for `MaxConnections` calls (at least 1024). What does not fit is dropped. If the open call of
    ///   a stream is dropped, so is its close call; otherwise the close call always fits.
    /// * A call may take 30 s. Then its future is dropped.
    /// * Dropped calls are counted in
    ///   [`dropped_hook_calls`](crate::connections::Connections::dropped_hook_calls), and logged at WARN at most once a
    ///   second. A panic is logged at ERROR, and affects nothing else.
    /// * [`serve`](HeroSse::serve) waits for the calls at its shutdown, within `DrainTimeout`. Then it drops the rest.
    ///   After streams were cut at the end of `DrainTimeout`, their calls have one more second. Under another
    ///   server, await [`hooks_finished`](crate::connections::Connections::hooks_finished).
    /// * A hook that blocks its thread delays all other calls. Use `tokio::task::spawn_blocking`.
    ///
    /// Called repeatedly, every hook is called, one after another.
    #[doc(alias = "disconnect")]
    pub fn on_close<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(ClosedConnection) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        self.hooks.on_close(hook);
        self
    }

    /// Sets the format of refusals, in place of problem details (RFC 9457).
    ///
    /// The hook formats every refusal of an endpoint, a [`SseContext`](crate::SseContext) and the tickets' route: the
    /// library's own, a [`Refusal`] that a function returns, and rejections of extractors that are plain text or empty,
    /// as those of axum's `Json` are. A text of more than 4 KiB is replaced by the status's reason. Other responses of
    /// functions and extractors stay as they are. An endpoint may have a format of its own
    /// ([`EndpointBuilder::refusals`], or the key `refusals` of the attribute).
    ///
    /// The response keeps the refusal's status unless the hook sets one that is no success. It keeps the refusal's
    /// headers, such as `WWW-Authenticate`, `Retry-After`, `Allow` and `Cache-Control`, unless the hook sets them. If the
    /// hook panics, the panic is logged, and the answer is problem details.
    ///
    /// ```
    /// use hero_sse::HeroSse;
    /// use hero_sse::axum::Json;
    ///
    /// # fn build() -> Result<HeroSse, hero_sse::SetupErrors> {
    /// let sse = HeroSse::builder()
    ///     .refusals(|refusal| {
    ///         Json(serde_json::json!({ "error": { "message": refusal.detail(), "code": refusal.status().as_u16() } }))
    ///     })
    ///     .build()?;
    /// # Ok(sse)
    /// # }
    /// ```
    #[doc(alias = "error format")]
    pub fn refusals<R: IntoResponse>(
        mut self,
        format: impl Fn(&RefusalInfo<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.refusals = Some(RefusalFormat::new(format, telemetry::panicked));
        self
    }

    /// Checks all settings, and builds the [`HeroSse`].
    ///
    /// # Errors
    ///
    /// All mistakes in options, environment, authenticator and tickets together.
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
        if let Some(authenticator) = &self.authenticator {
            mistakes.extend(authenticator.mistakes());
        }
        let general = options.general_policies().private;
        if general.reauthorize.is_some() && self.authorizer.is_none() {
            let key = "SseOptions.ReauthorizeInterval";
            mistakes.push(SetupError::option(key, NOTHING_TO_REAUTHORIZE));
        }
        mistakes.extend(self.tickets.iter().flat_map(Tickets::mistakes));
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
        let (timeout, max_connections) = (server.authorizer_timeout, server.max_connections);
        let access = AccessControl { authorizer: self.authorizer, timeout, failures };
        let core = Arc::new(Core {
            options,
            proxies,
            gate,
            access,
            connections: Connections::new(self.hooks, max_connections),
            sweeper: Sweeper::default(),
            refusals: self.refusals,
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

/// The server that [`HeroSse::serve`] returns. It runs when awaited, without an end unless
/// [`with_graceful_shutdown`](Self::with_graceful_shutdown) sets one.
///
/// Dropping it resets its connections at once.
#[must_use = "a server does nothing until awaited"]
pub struct Serve<L, A> {
    sse: HeroSse,
    listener: L,
    app: A,
    tls: Option<Tls>,
    shutdown: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<L, A> Serve<L, A> {
    /// Shuts down when `signal` resolves, in these steps:
    ///
    /// 1. It is no longer [ready](HeroSse::readiness), and goes on as before for `DrainDelay`. Default: no delay.
    /// 2. It stops accepting connections, and ends every stream with a closing event.
    /// 3. It waits for the closing events to be sent and for other requests to finish, at most for `DrainTimeout`.
    ///    Default: 5 s.
    /// 4. It resets the remaining connections.
    /// 5. It waits for [hooks](Builder::on_close), within the same `DrainTimeout`.
    ///
    /// It does not wait for TLS handshakes, idle connections and upgraded connections, and at most half a second for
    /// the head of a request. User code that blocks its thread can delay the end by another second.
    #[doc(alias = "drain")]
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.shutdown = Some(Box::pin(signal));
        self
    }

    /// Serves HTTPS with this certificate.
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
        let (over_tls, removed) = (transport.tls.is_some(), sse.removed_parameters());
        let prepare = move |request: &mut Request| {
            redact(request, removed);
            sse.prepare(request.extensions_mut());
            if over_tls {
                request.extensions_mut().insert(OverTls);
            }
        };
        Box::pin(async move {
            let serving = readiness.begin();
            // Until load balancers notice that it is not ready, it goes on as before.
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
