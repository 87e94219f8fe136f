//! Maps endpoints: those made by the macro, and those of [`EndpointBuilder`].

use std::borrow::Cow;
use std::fmt;
use std::panic::Location as Caller;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use http::HeaderMap;

use super::mapped::Mapped;
use super::{HeroSse, NOTHING_TO_REAUTHORIZE};
use crate::cors;
use crate::descriptor::{Declaration, Location};
use crate::endpoint::markers::FromParts;
use crate::endpoint::{AppState, Endpoints, EventHandler, OpeningStream};
use crate::options::NO_COOKIE;
use crate::permission::{IntoPermission, PermissionRule};
use crate::pipeline::{self, Core, Route};
use crate::policy::Method;
use crate::policy::settings::types::*;
use crate::policy::settings::{ENDPOINT_SETTINGS, Setting, endpoint_builder_methods};
use crate::refusal::{RefusalFormat, RefusalInfo};
use crate::setup::{SetupError, SetupErrors};
use crate::telemetry;

/// A prefix under which endpoints are mapped.
#[derive(Debug)]
pub struct Mount<'a> {
    pub(super) sse: &'a HeroSse,
    pub(super) prefix: String,
}

impl<'a> Mount<'a> {
    /// Maps the endpoints. Returns a router to merge into your own: `.merge(mount.routes(endpoints![..])?)`. For the
    /// compiler's error without the `?` see [routes without question
    /// mark](crate::guide::errors#routes-without-question-mark).
    ///
    /// A `GET` and a `POST` endpoint may share a path. They then also share its counts, its limits and its table
    /// in the options.
    ///
    /// # Errors
    ///
    /// Every mistake in every endpoint, with the file and line of its declaration. Then none is mapped. Among
    /// the mistakes are:
    ///
    /// * two endpoints with the same path and method, over all calls;
    /// * an endpoint that needs a token, on a server without an authenticator;
    /// * a heartbeat that is not shorter than the maximum age;
    /// * a permission with `{name}`, on a path without that capture;
    /// * any endpoint at all, if the options say `Enabled = false`.
    pub fn routes<S: AppState>(&self, endpoints: Endpoints<S>) -> Result<Router<S>, SetupErrors> {
        let mut mapped = self.sse.mapped();
        // All or none: the paths of a call that fails must stay free for the next call.
        let mut draft = mapped.clone();
        let mut mistakes = Vec::new();
        let mut router = Router::new();
        for (descriptor, open) in endpoints.endpoints {
            let mut own = Vec::new();
            let declaration = Declaration::from_descriptor(&self.prefix, &descriptor, &mut own);
            let path = declaration.path.clone();
            let is_first = !draft.has(&path);
            if let Some(route) = self.sse.map(&mut draft, declaration, &mut own) {
                router = router.route(&path, handler(self.sse, route, is_first, open));
            }
            mistakes.append(&mut own);
        }
        SetupErrors::none_or(mistakes)?;
        *mapped = draft;
        Ok(router)
    }

    /// Declares an endpoint without the macro: for generic functions, closures and paths known only at run time.
    /// It requires a valid token unless it is [`public`](EndpointBuilder::public).
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
    /// Returns a mount, which maps endpoints to paths with this prefix. An empty prefix is the root.
    pub fn at(&self, prefix: impl Into<String>) -> Mount<'_> {
        Mount { sse: self, prefix: prefix.into() }
    }

    /// Maps endpoints to routes without a prefix. See [`Mount::routes`]. For the compiler's error without the `?` see
    /// [routes without question mark](crate::guide::errors#routes-without-question-mark).
    ///
    /// # Errors
    ///
    /// As [`Mount::routes`].
    pub fn routes<S: AppState>(&self, endpoints: Endpoints<S>) -> Result<Router<S>, SetupErrors> {
        self.at("").routes(endpoints)
    }

    /// Declares an endpoint without the macro and without a prefix. See [`Mount::endpoint`].
    #[track_caller]
    pub fn endpoint(&self, path: impl Into<String>) -> EndpointBuilder<'_> {
        self.at("").endpoint(path)
    }

    /// Maps a declaration, or adds what is wrong with it to `mistakes`.
    fn map(
        &self,
        mapped: &mut Mapped,
        declaration: Declaration,
        mistakes: &mut Vec<SetupError>,
    ) -> Option<Arc<Route>> {
        let Core { options, gate, access, refusals, .. } = &**self.core();
        let mut wrong = |what: &dyn fmt::Display| mistakes.push(declaration.mistake(what));
        if !options.server.enabled {
            wrong(&"the server is disabled (SseOptions.Enabled = false): do not map endpoints");
        }
        if declaration.rule.is_some() && gate.authenticator.is_none() {
            wrong(
                &"requires a token, but the server has no authenticator: add .authenticator(..) to \
                  the builder, or write `public`",
            );
        }
        declaration.permission_faults().iter().for_each(|fault| wrong(fault));
        for (row, fault) in Setting::all_faults(ENDPOINT_SETTINGS, &declaration.overrides) {
            wrong(&format_args!("`{}`: {fault}", row.attribute));
        }
        let Declaration { path, overrides, method, .. } = &declaration;
        let policies = options.policies(path, overrides, *method);
        if let Some(name) = declaration.trap().filter(|_| !policies.private.profile.is_plain()) {
            wrong(&format_args!(
                "its events are called `{name}`, and an `EventSource` passes those to the handlers of the connection \
                 itself: choose another name, or write `profile = \"plain\"` if no `EventSource` reads the stream"
            ));
        }
        policies.private.fault().iter().for_each(|fault| wrong(fault));
        if declaration.headed && policies.private.early {
            wrong(
                &"is `early` and returns headers with its stream, but its head is sent before the function runs: \
                  return the stream alone, or switch `Early` off for it",
            );
        }
        if policies.private.reauthorize.is_some() && !access.has_authorizer() {
            wrong(&NOTHING_TO_REAUTHORIZE);
        }
        if options.names_no_cookie(overrides) {
            wrong(&NO_COOKIE);
        }
        if declaration.rule.is_some() && policies.private.token_sources.is_empty() {
            wrong(
                &"requires a token, but no part of a request may hold one: its own token sources, those of the \
                  options and those of its method (a `POST` has none in its query) have none in common",
            );
        }
        let entered = mapped.enter(&declaration);
        entered.err().iter().for_each(|why| wrong(why));
        if !mistakes.is_empty() {
            return None;
        }
        let mut declaration = declaration;
        if declaration.refusals.is_none() {
            declaration.refusals.clone_from(refusals);
        }
        Some(Arc::new(Route::new(declaration, policies)))
    }
}

/// Declares an endpoint. [`handler`](Self::handler) or [`post_handler`](Self::post_handler) maps it.
#[must_use = "an endpoint does nothing until `handler`"]
pub struct EndpointBuilder<'a> {
    sse: &'a HeroSse,
    declaration: Declaration,
    mistakes: Vec<SetupError>,
}

impl EndpointBuilder<'_> {
    /// Names the events without a name of their own.
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.declaration.name_events(name, &mut self.mistakes);
        self
    }

    /// Requires a permission, in addition to earlier ones. `{name}` in it is replaced by that capture of the path,
    /// prefix included.
    pub fn permission(mut self, permission: impl IntoPermission) -> Self {
        self.declaration.require(permission.into_rule(), &mut self.mistakes);
        self
    }

    /// Requires the permissions of a rule, in addition to earlier ones.
    pub fn permissions(mut self, rule: PermissionRule) -> Self {
        self.declaration.require(Ok(rule), &mut self.mistakes);
        self
    }

    /// Opens the endpoint to all callers. A token that comes anyway is checked.
    pub fn public(mut self) -> Self {
        self.declaration.open_to_all(&mut self.mistakes);
        self
    }

    /// Marks the endpoint as deprecated. Its first use is logged.
    pub fn deprecated(mut self) -> Self {
        self.declaration.deprecated = true;
        self
    }

    /// Sets the format of this endpoint's refusals, in place of the [server's](crate::server::Builder::refusals).
    pub fn refusals<R: IntoResponse>(
        mut self,
        format: impl Fn(&RefusalInfo<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.declaration.refusals = Some(RefusalFormat::new(format, telemetry::panicked));
        self
    }

    /// Maps the endpoint for `GET`. Returns a router to merge into your own.
    ///
    /// # Errors
    ///
    /// As [`Mount::routes`], and if it is `public` and requires a permission.
    pub fn handler<H, A, S>(self, handler: H) -> Result<Router<S>, SetupErrors>
    where
        H: EventHandler<A, S, FromParts>,
        A: 'static,
        S: AppState,
    {
        self.map(handler)
    }

    /// Maps the endpoint for `POST`, as `method = "post"` does. The handler's last argument may read the body. A
    /// token in the query is ignored.
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
        let Self { sse, mut declaration, mut mistakes } = self;
        declaration.traps = H::TRAPS;
        declaration.headed = H::HEADED;
        let mut mapped = sse.mapped();
        let mut draft = mapped.clone();
        let path = declaration.path.clone();
        let is_first = !draft.has(&path);
        let route = sse.map(&mut draft, declaration, &mut mistakes);
        SetupErrors::none_or(mistakes)?;
        *mapped = draft;
        let open = move |request, state| handler.clone().open(request, state);
        Ok(route.map_or_else(Router::new, |route| {
            Router::new().route(&path, self::handler(sse, route, is_first, open))
        }))
    }
}

/// Settings of this endpoint, in place of those in the options.
impl EndpointBuilder<'_> {
    endpoint_builder_methods!();
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
    is_first: bool,
    open: impl Fn(Request, S) -> OpeningStream + Clone + Send + Sync + 'static,
) -> MethodRouter<S> {
    let (core, method) = (sse.core().clone(), route.method);
    let handler = move |State(state): State<S>, request: Request| {
        let open = open.clone();
        let open = Box::new(move |request| open(request, state));
        pipeline::handle(core.clone(), route.clone(), request, open)
    };
    let handler = match method {
        Method::Get => get(handler),
        Method::Post => post(handler),
    };
    open_to_pages(sse, handler, is_first)
}

/// Adds CORS, if the options allow other origins. The first endpoint of a path also maps `OPTIONS`: axum merges the
/// methods of a path, and a middleware around one of them would lose preflights to the others' fallback. A second
/// handler for `OPTIONS` would be a panic.
pub(super) fn open_to_pages<S: AppState>(
    sse: &HeroSse,
    handler: MethodRouter<S>,
    is_first: bool,
) -> MethodRouter<S> {
    let cors = sse.core().options.cors_settings();
    if !cors.is_on() {
        return handler;
    }
    let cors = Arc::new(cors.prepare());
    // A path whose endpoints are nested apart still has the middleware.
    let handler = handler.layer(from_fn_with_state(cors.clone(), cors::middleware));
    match is_first {
        true => handler.options(async move |headers: HeaderMap| cors.preflight(&headers)),
        false => handler,
    }
}
