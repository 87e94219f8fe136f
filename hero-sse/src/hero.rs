//! [`HeroSse`]: the kit as an application holds it, its builder and its routes. The only wiring.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::panic::Location as Caller;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::serve::Listener;
use http::request::Parts;
use tower::Service;

use crate::auth::{Authenticator, Gate, Principal};
use crate::connections::Connections;
use crate::descriptor::{Declaration, Location, Method};
use crate::endpoint::{AppState, Endpoints, EventHandler, FromParts, Opening};
use crate::options::{SetupErrors, SseOptions};
use crate::permission::{IntoPermission, PermissionRule};
use crate::pipeline::{self, Kit, Route};
use crate::policy::{OverLimit, Overflow, PolicyOverrides};
use crate::refusal::Refusal;
use crate::telemetry;
use crate::transport::Transport;

/// The kit: registry, heartbeats, writers, authentication. Building one exposes nothing: an endpoint
/// that is not named in [`routes`](Mount::routes) is not reachable.
///
/// Cheap to clone; all clones are one kit.
///
/// ```
/// use hero_sse::prelude::*;
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
    kit: Arc<Kit>,
    mapped: Mutex<Mapped>,
}

/// The endpoints that all calls together have mapped.
#[derive(Clone, Default)]
struct Mapped {
    routes: matchit::Router<Location>,
    paths: Vec<String>,
}

impl HeroSse {
    /// Begins a kit.
    pub fn builder() -> Builder {
        Builder {
            options: SseOptions::default(),
            file: None,
            environment: None,
            authenticator: None,
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
        &self.0.kit.connections
    }

    /// Who sent this request, for routes of your own: the same tokens, from the same places, under
    /// the same rules as an endpoint's. Then [`Principal::require`] checks a permission. Under
    /// [`serve`](Self::serve) the extractor [`Principal`] does the same.
    ///
    /// # Errors
    ///
    /// `401` without a token or with one that is not accepted, `400` for doubled or malformed
    /// credentials.
    pub async fn authenticate(&self, parts: &Parts) -> Result<Principal, Refusal> {
        let gate = &self.kit().gate;
        gate.principal(parts, gate.query_token).await?.ok_or_else(Refusal::no_token)
    }

    /// Serves `app` with everything the kit promises of its transport: the write timeout, the peer
    /// timeout, tokens taken out of the URI before any layer of `app` runs, and a shutdown that ends
    /// streams instead of waiting for them.
    ///
    /// Takes any axum [`Listener`] and any service from request to response, such as a `Router`; not
    /// `into_make_service()`, which it has no need of: requests carry
    /// [`ConnectInfo`](axum::extract::ConnectInfo) of the peer's address already. HTTP/1.1, with
    /// upgrades. Sockets other than [`TcpStream`](tokio::net::TcpStream) are under the write timeout too, but
    /// the kernel's buffers and timeouts are then the listener's affair; the log says so once.
    ///
    /// One kit, one server: a shutdown drains the kit, all of its streams end and no new ones open.
    pub fn serve<L, A>(&self, listener: L, app: A) -> Serve<L, A> {
        Serve { sse: self.clone(), listener, app, shutdown: None }
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.0.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kit(&self) -> &Arc<Kit> {
        &self.0.kit
    }
}

impl fmt::Debug for HeroSse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeroSse").field("connections", self.connections()).finish_non_exhaustive()
    }
}

/// Collects a kit's settings; [`build`](Self::build) checks them all.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    options: SseOptions,
    file: Option<PathBuf>,
    environment: Option<Vec<(String, String)>>,
    authenticator: Option<Arc<dyn Authenticator>>,
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

    /// The kit.
    ///
    /// # Errors
    ///
    /// Every mistake of options, environment and authenticator together.
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
        SetupErrors::none_or(mistakes)?;
        let query_token = options.policy("", &PolicyOverrides::NONE).query_token;
        let kit = Arc::new(Kit {
            options,
            gate: Gate { authenticator: self.authenticator, query_token },
            connections: Connections::default(),
            no_transport: Once::new(),
        });
        Ok(HeroSse(Arc::new(Shared { kit, mapped: Mutex::default() })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A prefix under which endpoints are mapped.
#[derive(Debug)]
pub struct Mount<'a> {
    sse: &'a HeroSse,
    prefix: String,
}

impl<'a> Mount<'a> {
    /// Maps the endpoints: a router to merge into the application's own.
    ///
    /// # Errors
    ///
    /// Every mistake of every endpoint named, each with the file and line of its declaration: two on
    /// one path (across all calls), one that asks for a token when the kit has no authenticator, a
    /// heartbeat not below the maximum age, or any at all when the options say `Enabled = false`.
    pub fn routes<S: AppState>(&self, endpoints: Endpoints<S>) -> Result<Router<S>, SetupErrors> {
        let mut mapped = self.sse.mapped();
        // All or none: what was entered for a call that failed must not be in its successor's way.
        let mut draft = mapped.clone();
        let mut mistakes = Vec::new();
        let mut router = Router::new();
        for (descriptor, open) in endpoints.endpoints {
            let mut own = Vec::new();
            let declaration = Declaration::from_descriptor(&self.prefix, &descriptor, &mut own);
            let path = declaration.path.clone();
            if let Some(route) = self.sse.map(&mut draft, declaration, &mut own) {
                router = router.route(&path, handler(self.sse, route, open));
            }
            mistakes.append(&mut own);
        }
        SetupErrors::none_or(mistakes)?;
        *mapped = draft;
        Ok(router)
    }

    /// Declares an endpoint without the macro: for generic functions, closures and paths known only
    /// at run time. It asks for a valid token unless told otherwise.
    #[track_caller]
    pub fn endpoint(&self, path: impl Into<String>) -> EndpointBuilder<'a> {
        let caller = Caller::caller();
        let location = Location { file: caller.file(), line: caller.line() };
        EndpointBuilder {
            sse: self.sse,
            declaration: Declaration::new(&self.prefix, &path.into(), location),
            mistakes: Vec::new(),
        }
    }
}

impl HeroSse {
    /// Enters a declaration into the map, where it makes sense.
    fn map(
        &self,
        mapped: &mut Mapped,
        declaration: Declaration,
        mistakes: &mut Vec<String>,
    ) -> Option<Arc<Route>> {
        let Kit { options, gate, .. } = &**self.kit();
        let mut wrong = |what: &dyn fmt::Display| mistakes.push(declaration.mistake(what));
        if !options.enabled {
            wrong(&"the kit is disabled (SseOptions.Enabled = false); do not map its endpoints");
        }
        if declaration.rule.is_some() && gate.authenticator.is_none() {
            wrong(
                &"asks for a token, but the kit has no authenticator; add .authenticator(..) to \
                  the builder, or write `public`",
            );
        }
        declaration.overrides.faults().iter().for_each(|fault| wrong(fault));
        let policy = options.policy(&declaration.path, &declaration.overrides);
        policy.fault().iter().for_each(|fault| wrong(fault));
        let entered = match declaration.check_path() {
            Ok(()) => mapped.enter(&declaration),
            Err(why) => Err(why.to_owned()),
        };
        entered.err().iter().for_each(|why| wrong(why));
        mistakes.is_empty().then(|| Arc::new(Route::new(declaration, options)))
    }
}

impl Mapped {
    /// Asks the router that axum uses, since axum itself would panic.
    fn enter(&mut self, declaration: &Declaration) -> Result<(), String> {
        let path = &declaration.path;
        self.routes.insert(path, declaration.location).map_err(|error| match error {
            matchit::InsertError::Conflict { with } => {
                let first = self.routes.at(&with).ok().map(|found| found.value);
                let place = first.map(|l| format!(" ({}:{})", l.file, l.line)).unwrap_or_default();
                format!("the path is taken by {with}{place}")
            }
            _ => "the path's captures are malformed: write `{name}`, and `{*rest}` at the end"
                .to_owned(),
        })?;
        self.paths.push(path.clone());
        Ok(())
    }
}

/// An endpoint in the making; [`handler`](Self::handler) maps it.
#[must_use = "an endpoint does nothing until `handler`"]
pub struct EndpointBuilder<'a> {
    sse: &'a HeroSse,
    declaration: Declaration,
    mistakes: Vec<String>,
}

impl EndpointBuilder<'_> {
    /// The name of items that bring none of their own.
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.declaration.name_events(name, &mut self.mistakes);
        self
    }

    /// Asks for a permission, besides those named before.
    pub fn permission(mut self, permission: impl IntoPermission) -> Self {
        self.declaration.require(permission.into_rule(), &mut self.mistakes);
        self
    }

    /// Asks for what the rule says, besides the permissions named before.
    pub fn permissions(mut self, rule: PermissionRule) -> Self {
        self.declaration.require(Ok(rule), &mut self.mistakes);
        self
    }

    /// Opens the endpoint to anybody.
    pub fn public(mut self) -> Self {
        self.declaration.open_to_all(&mut self.mistakes);
        self
    }

    /// The heartbeat's interval; `None` sends none.
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.declaration.overrides.heartbeat = Some(interval.into());
        self
    }

    /// Whether each heartbeat is also the event `hero.heartbeat`.
    pub fn heartbeat_event(mut self, wanted: bool) -> Self {
        self.declaration.overrides.heartbeat_event = Some(wanted);
        self
    }

    /// The write timeout; `None` waits for ever.
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.declaration.overrides.write_timeout = Some(timeout.into());
        self
    }

    /// The reconnection time, at least 500 ms.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.declaration.overrides.retry = Some(retry);
        self
    }

    /// How long a stream lasts; `None` as long as it goes.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.declaration.overrides.max_age = Some(age.into());
        self
    }

    /// How many streams of this endpoint may be open.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.declaration.overrides.max_connections = Some(limit);
        self
    }

    /// How many streams one caller may have open.
    pub fn max_per_principal(mut self, limit: usize) -> Self {
        self.declaration.overrides.max_per_principal = Some(limit);
        self
    }

    /// What those over a limit get.
    pub fn over_limit(mut self, answer: OverLimit) -> Self {
        self.declaration.overrides.over_limit = Some(answer);
        self
    }

    /// Takes no token from the query, whatever the operator's general options say.
    pub fn no_query_token(mut self) -> Self {
        self.declaration.overrides.query_token = Some(false);
        self
    }

    /// Says that the endpoint will go: the log tells when it is still used.
    pub fn deprecated(mut self) -> Self {
        self.declaration.deprecated = true;
        self
    }

    /// How many frames may wait for a slow client, at least 1. The stream is then not held back to
    /// its client's pace but polled as fast as it yields; [`overflow`](Self::overflow) says what
    /// happens to one frame more. A burst longer than the buffer overflows it. The bound is in
    /// frames: each connection may hold that many, whatever they weigh.
    pub fn buffer(mut self, frames: usize) -> Self {
        self.declaration.overrides.buffer = Some(frames);
        self
    }

    /// What happens when the [`buffer`](Self::buffer) is full (256 frames unless set).
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.declaration.overrides.overflow = Some(overflow);
        self
    }

    /// Maps the endpoint: a router to merge into the application's own.
    ///
    /// # Errors
    ///
    /// As [`Mount::routes`], and `public` together with a permission.
    pub fn handler<H, A, S>(self, handler: H) -> Result<Router<S>, SetupErrors>
    where
        H: EventHandler<A, S, FromParts>,
        A: 'static,
        S: AppState,
    {
        self.map(handler)
    }

    /// Maps the endpoint for `POST`, as `method = "post"` does: the handler's last argument may read
    /// the body, and no token is taken from the query.
    ///
    /// # Errors
    ///
    /// As [`handler`](Self::handler).
    pub fn post_handler<H, A, S, K>(mut self, handler: H) -> Result<Router<S>, SetupErrors>
    where
        H: EventHandler<A, S, K>,
        A: 'static,
        S: AppState,
        K: 'static,
    {
        self.declaration.method = Method::Post;
        self.map(handler)
    }

    fn map<H, A, S, K>(self, handler: H) -> Result<Router<S>, SetupErrors>
    where
        H: EventHandler<A, S, K>,
        A: 'static,
        S: AppState,
        K: 'static,
    {
        let Self { sse, declaration, mut mistakes } = self;
        let mut mapped = sse.mapped();
        let mut draft = mapped.clone();
        let path = declaration.path.clone();
        let route = sse.map(&mut draft, declaration, &mut mistakes);
        SetupErrors::none_or(mistakes)?;
        *mapped = draft;
        let open = move |request, state| handler.clone().open(request, state);
        Ok(route.map_or_else(Router::new, |route| {
            Router::new().route(&path, self::handler(sse, route, open))
        }))
    }
}

impl fmt::Debug for EndpointBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("path", &self.declaration.path)
            .finish_non_exhaustive()
    }
}

fn handler<S: AppState>(
    sse: &HeroSse,
    route: Arc<Route>,
    open: impl Fn(Request, S) -> Opening + Clone + Send + Sync + 'static,
) -> MethodRouter<S> {
    let (kit, method) = (sse.kit().clone(), route.method);
    let handler = async move |State(state): State<S>, request: Request| {
        pipeline::answer(&kit, &route, request, |request| open(request, state)).await
    };
    match method {
        Method::Get => get(handler),
        Method::Post => post(handler),
    }
}

/// The server, which runs when awaited; [`with_graceful_shutdown`](Self::with_graceful_shutdown)
/// gives it an end.
#[must_use = "a server does nothing until awaited"]
pub struct Serve<L, A> {
    sse: HeroSse,
    listener: L,
    app: A,
    shutdown: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<L, A> Serve<L, A> {
    /// Shuts down when `signal` resolves: stops accepting, says farewell on every stream, waits for
    /// the farewells to be sent and other requests to finish, `DrainTimeout` at most (5 s unless set),
    /// then closes what is left. Unless that timeout is off, the server's future returns by then,
    /// whatever clients do.
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.shutdown = Some(Box::pin(signal));
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
        let Self { sse, listener, app, shutdown } = self;
        let Kit { options, connections, .. } = &**sse.kit();
        {
            let mapped = sse.mapped();
            let unmapped = |path: &&str| !mapped.paths.iter().any(|mapped| mapped == path);
            options.endpoint_paths().filter(unmapped).for_each(telemetry::unmapped_options);
        }
        let transport = Transport {
            connections: connections.clone(),
            peer_timeout: options.peer_timeout,
            drain_timeout: options.drain_timeout,
        };
        let shutdown = shutdown.unwrap_or_else(|| Box::pin(std::future::pending()));
        // For `SseContext`, and for `Principal` on other routes.
        let gate = sse.kit().gate.clone();
        let prepare = move |request: &mut Request| {
            request.extensions_mut().insert(sse.clone());
            request.extensions_mut().insert(gate.clone());
        };
        Box::pin(transport.serve(listener, app, prepare, shutdown))
    }
}

impl<L, A> fmt::Debug for Serve<L, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}
