//! [`SseContext`]: a stream from an ordinary axum handler, for code that used `axum::response::Sse`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use http::request::Parts;

use crate::auth::Principal;
use crate::connections::Connection;
use crate::descriptor::{Declaration, Location};
use crate::endpoint::{EventItem, EventStream};
use crate::frame::LastEventId;
use crate::hero::HeroSse;
use crate::permission::IntoPermission;
use crate::pipeline::{AuthenticatedRequest, RequestTarget, Route};
use crate::policy::{Method, Policies};
use crate::refusal::Refusal;
use crate::setup::SetupError;
use crate::telemetry;

/// The path of a handler without a route, such as a fallback.
const FALLBACK: &str = "/{*path}";

/// An extractor that turns a handler's own stream into an event stream of hero-sse, with the same head,
/// heartbeats, timeouts, limits and closing events as an endpoint's.
///
/// Use it for handlers that return `axum::response::Sse` today. New code is shorter as an
/// [endpoint](crate::sse_endpoint).
///
/// The handler runs first: only the token has been checked when it starts. [`stream`](Self::stream) checks the
/// permission, the limits and the cursor, so start expensive work inside the stream. As for an endpoint, a valid
/// token is required unless the handler calls [`public`](Self::public).
///
/// Limits, options and counts belong to the pattern of the handler's route. Those of a fallback belong to
/// `/{*path}`.
///
/// The extractor works under [`HeroSse::serve`] and [`HeroSse::guard`]. Elsewhere add `.layer(Extension(sse))`.
///
/// ```
/// use hero_sse::{Event, SseContext};
/// use hero_sse::axum::{Router, response::Response, routing::get};
///
/// async fn old(sse: SseContext) -> Response {
///     sse.public().stream(futures_util::stream::iter([Event::text("hello")])).await
/// }
///
/// let app: Router = Router::new().route("/old", get(old));
/// ```
#[must_use = "nothing is sent until `stream`"]
pub struct SseContext {
    request: AuthenticatedRequest,
    connection: Connection,
    target: RequestTarget,
    declaration: Declaration,
    sse: HeroSse,
    mistakes: Vec<SetupError>,
}

impl SseContext {
    /// Requires a permission, in addition to those required before. `{name}` in it is replaced by the value of that
    /// capture of the route's path.
    pub fn permission(mut self, permission: impl IntoPermission) -> Self {
        self.declaration.require(permission.into_rule(), &mut self.mistakes);
        self
    }

    /// Makes the stream public: no token is required.
    pub fn public(mut self) -> Self {
        self.declaration.open_to_all(&mut self.mistakes);
        self
    }

    /// Sets the name of events that have no name of their own.
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.declaration.name_events(name, &mut self.mistakes);
        self
    }

    /// Returns the caller. `None` without a token.
    pub fn principal(&self) -> Option<&Principal> {
        self.request.principal()
    }

    /// Returns the stream that [`stream`](Self::stream) will open, with its id. Later arguments of the handler may
    /// be a [`Connection`] as well.
    ///
    /// The handler runs before admission, so the stream may never open.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the id of the last event that a reconnecting client received. `None` for a new client, and for one
    /// whose [cursor](Self::cursor) cannot be an id.
    pub fn last_event_id(&self) -> Option<&str> {
        self.cursor().as_str()
    }

    /// Returns the request's cursor. It distinguishes a new client from one whose cursor cannot be an id.
    pub fn cursor(&self) -> &LastEventId {
        self.request.cursor()
    }

    /// Answers with the stream, or with a refusal, as an endpoint does. It awaits the
    /// [`Authorizer`](crate::auth::Authorizer), if there is one.
    ///
    /// A mistake in the declaration, for instance a permission that cannot be one, is logged and answered with
    /// `500`.
    pub async fn stream<T, M>(self, stream: T) -> Response
    where
        T: Stream + Send + 'static,
        T::Item: EventItem<M>,
        M: 'static,
    {
        let Self { request, target, declaration, sse, mut mistakes, .. } = self;
        let options = &sse.core().options;
        if !options.server.enabled {
            mistakes
                .push(declaration.mistake(&"the server is disabled (SseOptions.Enabled = false)"));
        }
        let faults = declaration.permission_faults();
        mistakes.extend(faults.iter().map(|fault| declaration.mistake(fault)));
        for mistake in &mistakes {
            telemetry::misdeclared(mistake);
        }
        if !mistakes.is_empty() {
            let format = sse.core().refusals.as_ref();
            return Refusal::internal().with_format(format, &declaration.path).into_response();
        }
        let policies = policies(&sse, &declaration);
        let route = Route::new(declaration, policies);
        request.answer_with(&route, target, EventStream::new(stream)).await
    }
}

fn policies(sse: &HeroSse, declaration: &Declaration) -> Policies {
    let Declaration { path, overrides, method, .. } = declaration;
    sse.core().options.policies(path, overrides, *method)
}

impl std::fmt::Debug for SseContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SseContext").field("path", &self.declaration.path).finish_non_exhaustive()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SseContext {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(sse) = parts.extensions.get::<HeroSse>().cloned() else {
            telemetry::no_server();
            return Err(Refusal::internal());
        };
        // The pattern, not the path: limits and options belong to the route, and clients must not make up labels
        // of metrics.
        let matched = parts.extensions.get::<axum::extract::MatchedPath>();
        let path = matched.map_or(FALLBACK, |matched| matched.as_str());
        let mut declaration = Declaration::new("", path, Location { file: "SseContext", line: 0 });
        if parts.method == http::Method::POST {
            declaration.method = Method::Post;
        }
        let policies = policies(&sse, &declaration);
        let core = sse.core();
        declaration.refusals.clone_from(&core.refusals);
        let request = AuthenticatedRequest::authenticate(core, parts, &policies.private).await;
        let mut request =
            request.map_err(|refusal| refusal.with_format(core.refusals.as_ref(), path))?;
        // With captures, since the handler has not named its permissions yet.
        let target = RequestTarget::of(sse.core(), true, parts).await;
        request.attach_principal(parts);
        let connection = request.connection(&Arc::from(declaration.path.as_str()));
        parts.extensions.insert(connection.clone());
        Ok(Self { request, connection, target, declaration, sse, mistakes: Vec::new() })
    }
}
