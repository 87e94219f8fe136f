//! Maps endpoints: those of the macro by name, others through [`EndpointBuilder`].

use std::borrow::Cow;
use std::fmt;
use std::panic::Location as Caller;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use super::{HeroSse, NOTHING_TO_REAUTHORIZE};
use crate::cors;
use crate::descriptor::{Declaration, Location, MALFORMED_CAPTURES};
use crate::endpoint::{AppState, Endpoints, EventHandler, FromParts, OpeningStream};
use crate::options::NO_COOKIE;
use crate::permission::{IntoPermission, PermissionRule};
use crate::pipeline::{self, Core, Route};
use crate::policy::Method;
use crate::policy::settings::types::*;
use crate::policy::settings::{ENDPOINT_SETTINGS, Setting, endpoint_builder_methods};
use crate::refusal::Refusal;
use crate::setup::{SetupError, SetupErrors};

/// A prefix under which endpoints are mapped.
#[derive(Debug)]
pub struct Mount<'a> {
    pub(super) sse: &'a HeroSse,
    pub(super) prefix: String,
}

impl<'a> Mount<'a> {
    /// Maps the endpoints: a router to merge into the application's own.
    ///
    /// A `GET` and a `POST` endpoint may share a path; then they share its place in the registry, its
    /// count under the limits and the operator's table, too.
    ///
    /// # Errors
    ///
    /// Every mistake of every endpoint named, each with the file and line of its declaration: two on
    /// one path with one method (across all calls), one that asks for a token when the kit has no authenticator, a
    /// heartbeat not below the maximum age, a permission with `{name}` where the path has no such capture, or any at all when the options say `Enabled = false`.
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
        mistakes: &mut Vec<SetupError>,
    ) -> Option<Arc<Route>> {
        let Core { options, gate, permits, .. } = &**self.core();
        let mut wrong = |what: &dyn fmt::Display| mistakes.push(declaration.mistake(what));
        if !options.server.enabled {
            wrong(&"the kit is disabled (SseOptions.Enabled = false); do not map its endpoints");
        }
        if declaration.rule.is_some() && gate.authenticator.is_none() {
            wrong(
                &"asks for a token, but the server has no authenticator; add .authenticator(..) to \
                  the builder, or write `public`",
            );
        }
        declaration.permission_faults().iter().for_each(|fault| wrong(fault));
        for (row, fault) in Setting::all_faults(ENDPOINT_SETTINGS, &declaration.overrides) {
            wrong(&format_args!("`{}`: {fault}", row.attribute));
        }
        let Declaration { path, overrides, method, .. } = &declaration;
        let policies = options.policies(path, overrides, *method);
        policies.private.fault().iter().for_each(|fault| wrong(fault));
        if policies.private.reauthorize.is_some() && !permits.has_authorizer() {
            wrong(&NOTHING_TO_REAUTHORIZE);
        }
        if options.names_no_cookie(overrides) {
            wrong(&NO_COOKIE);
        }
        if declaration.rule.is_some() && policies.private.token_sources.is_empty() {
            wrong(
                &"needs a token, but no part of a request may hold one: its own token sources, those of the \
                  options and those of its method (a `POST` has none in its query) have none in common",
            );
        }
        let entered = mapped.enter(&declaration);
        entered.err().iter().for_each(|why| wrong(why));
        mistakes.is_empty().then(|| Arc::new(Route::new(declaration, policies)))
    }
}

/// The endpoints that all calls together have mapped.
#[derive(Clone, Default)]
pub(super) struct Mapped {
    /// To the first entry at the path.
    routes: matchit::Router<usize>,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    path: String,
    method: Method,
    location: Location,
    rule: Option<PermissionRule>,
}

impl Mapped {
    pub(super) fn has(&self, path: &str) -> bool {
        self.entries.iter().any(|entry| entry.path == path)
    }

    /// What the endpoint asks for that answers `GET` at the path of a URL; `None` is public.
    pub(super) fn opened_by(&self, path: &str) -> Result<Option<PermissionRule>, Refusal> {
        let found = self.routes.at(path).map_err(|_| NotFound)?;
        let first = self.entries.get(*found.value).ok_or(NotFound)?;
        let get = |entry: &&Entry| entry.method == Method::Get && entry.path == first.path;
        let entry = self.entries.iter().find(get).ok_or(NotFound)?;
        // Not decoded: what can be part of a permission is never encoded.
        let capture = |name: &str| found.params.get(name);
        Ok(entry.rule.as_ref().map(|rule| rule.resolved(&capture)).transpose()?)
    }

    /// Asks the router that axum uses, since axum itself would panic.
    pub(super) fn enter(&mut self, declaration: &Declaration) -> Result<(), String> {
        declaration.check_path()?;
        let Declaration { path, method, location, rule, .. } = declaration;
        let (method, location) = (*method, *location);
        let same = |entry: &&Entry| entry.path == *path && entry.method == method;
        if let Some(first) = self.entries.iter().find(same) {
            return Err(taken(path, Some(&first.location)));
        }
        // Another method on the very same path is none of the router's business.
        if !self.has(path) {
            let place = self.entries.len();
            self.routes.insert(path, place).map_err(|error| match error {
                matchit::InsertError::Conflict { with } => {
                    let found = self.routes.at(&with).ok();
                    let first = found.and_then(|found| self.entries.get(*found.value));
                    taken(&with, first.map(|first| &first.location))
                }
                _ => MALFORMED_CAPTURES.to_owned(),
            })?;
        }
        self.entries.push(Entry { path: path.clone(), method, location, rule: rule.clone() });
        Ok(())
    }
}

/// No endpoint answers `GET` there.
pub(super) struct NotFound;

impl From<NotFound> for Refusal {
    fn from(NotFound: NotFound) -> Self {
        Self::not_found("no stream is opened by GET at this path")
    }
}

fn taken(path: &str, first: Option<&Location>) -> String {
    let place = first.map(|l| format!(" ({}:{})", l.file, l.line)).unwrap_or_default();
    format!("the path is taken by {path}{place}")
}

/// An endpoint in the making; [`handler`](Self::handler) maps it.
#[must_use = "an endpoint does nothing until `handler`"]
pub struct EndpointBuilder<'a> {
    sse: &'a HeroSse,
    declaration: Declaration,
    mistakes: Vec<SetupError>,
}

impl EndpointBuilder<'_> {
    /// The name of items that bring none of their own.
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.declaration.name_events(name, &mut self.mistakes);
        self
    }

    /// Asks for a permission, besides those named before. `{name}` in it stands for the value of that capture
    /// of the path, prefix included.
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

    /// Says that the endpoint will go: the log tells when it is still used.
    pub fn deprecated(mut self) -> Self {
        self.declaration.deprecated = true;
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
    open: impl Fn(Request, S) -> OpeningStream + Clone + Send + Sync + 'static,
) -> MethodRouter<S> {
    let (core, method) = (sse.core().clone(), route.method);
    let handler = async move |State(state): State<S>, request: Request| {
        pipeline::answer(&core, &route, request, |request| open(request, state)).await
    };
    let handler = match method {
        Method::Get => get(handler),
        Method::Post => post(handler),
    };
    open_to_pages(sse, handler)
}

/// Adds what pages of other origins need, where there are any.
pub(super) fn open_to_pages<S: AppState>(
    sse: &HeroSse,
    handler: MethodRouter<S>,
) -> MethodRouter<S> {
    let cors = sse.core().options.cors_settings();
    match cors.is_on() {
        true => handler.layer(from_fn_with_state(Arc::new(cors), cors::answer)),
        false => handler,
    }
}
