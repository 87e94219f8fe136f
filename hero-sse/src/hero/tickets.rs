//! The route that makes tickets.

use std::panic::Location as Caller;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use http::uri::PathAndQuery;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::HeroSse;
use super::mapped::NotFound;
use super::mount::{Mount, open_to_pages};
use crate::auth::{AuthError, CheckedAt, Principal};
use crate::descriptor::{Declaration, Location};
use crate::endpoint::{AppState, BODY_TIMEOUT};
use crate::permission::PermissionRule;
use crate::policy::{Method, TokenSource, TokenSources};
use crate::refusal::Refusal;
use crate::setup::SetupErrors;
use crate::telemetry;

/// Maximum length of the request's body, which holds one path. No real path is as long.
const MAX_BODY: usize = 4 * 1024;

/// An endpoint's path may be behind prefixes of this many segments, less one.
const MAX_NESTING: usize = 32;

impl Mount<'_> {
    /// Maps the route that makes [tickets](crate::auth::Tickets). Merge the returned router into your own.
    ///
    /// A client sends a `POST` with a token in the `Authorization` header, and the path to open in the body:
    /// `{"path": "/api/v1/usage/stream"}`. The path is that of the URL, prefix included (`new URL(..).pathname`).
    /// The response is `{"ticket": "..", "expires_in": 30}`, in seconds. Then
    /// `GET /api/v1/usage/stream?ticket=..` opens the stream.
    ///
    /// | status | reason |
    /// |---|---|
    /// | `400` | the body has another form |
    /// | `401` | no token in the header, or one that is not accepted |
    /// | `403` | the caller lacks the endpoint's permission |
    /// | `404` | no endpoint answers `GET` at the path; a handler with [`SseContext`](crate::SseContext) is none |
    ///
    /// Refusals are problem+json. An [`Authorizer`](crate::auth::Authorizer) is asked only when the stream is opened.
    /// The path may lead to an endpoint in a nested router: its end must be the path of an endpoint. A ticket opens the
    /// whole path and no other. Where a proxy strips a prefix from the path, set
    /// [`Tickets::public_prefix`](crate::auth::Tickets::public_prefix).
    ///
    /// # Errors
    ///
    /// * no [authenticator](crate::server::Builder::authenticator), or no
    ///   [tickets](crate::server::Builder::tickets);
    /// * `TokenSources` without `header`;
    /// * a path that is taken or is not a path;
    /// * `Enabled = false`.
    #[track_caller]
    pub fn tickets<S: AppState>(&self, path: &str) -> Result<Router<S>, SetupErrors> {
        let caller = Caller::caller();
        let location = Location { file: caller.file(), line: caller.line() };
        let mut declaration = Declaration::new(&self.prefix, path, location);
        declaration.method = Method::Post;
        let (core, mut mistakes) = (self.sse.core(), Vec::new());
        let mut wrong = |what: &str| mistakes.push(declaration.mistake(&what));
        if !core.options.server.enabled {
            wrong("the server is disabled (SseOptions.Enabled = false): do not map its routes");
        }
        if core.gate.authenticator.is_none() {
            wrong(
                "makes tickets for tokens, but the server has no authenticator; add .authenticator(..) \
                 to the builder",
            );
        }
        if core.gate.tickets.is_none() {
            wrong(
                "the server has no tickets; add .tickets(Tickets::new().audience(\"..\")) to the builder",
            );
        }
        if !core.gate.sources.has(TokenSource::Header) {
            wrong(
                "makes tickets for tokens in the header, but TokenSources has no \"header\"; add it",
            );
        }
        let mut mapped = self.sse.mapped();
        let mut draft = mapped.clone();
        let is_first = !draft.has(&declaration.path);
        draft.enter(&declaration).err().iter().for_each(|why| wrong(why));
        SetupErrors::none_or(mistakes)?;
        *mapped = draft;
        let (sse, path) = (self.sse.clone(), declaration.path.clone());
        let make = async move |request: Request| answer(&sse, &declaration.path, request).await;
        Ok(Router::new().route(&path, open_to_pages(self.sse, post(make), is_first)))
    }
}

async fn answer(sse: &HeroSse, path: &str, request: Request) -> Response {
    let mut principal = None;
    let made = make(sse, request, &mut principal).await;
    let mut response = made.unwrap_or_else(|refusal| {
        telemetry::refused(path, refusal.status().as_u16(), refusal.detail());
        refusal.with_format(sse.core().refusals.as_ref(), path).into_response()
    });
    // For outer layers, such as an access log.
    if let Some(principal) = principal {
        response.extensions_mut().insert(principal);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketRequest {
    path: String,
}

async fn make(
    sse: &HeroSse,
    request: Request,
    known: &mut Option<Principal>,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let gate = &sse.core().gate;
    let checked_at =
        CheckedAt { instance: gate.instance, disconnects: sse.connections().disconnects() };
    // A ticket opens from anywhere. So neither a URL nor a cookie, which browsers send by themselves, may become one.
    let header = TokenSources::of(&[TokenSource::Header]);
    let principal = gate.principal(&parts, header).await?.ok_or_else(Refusal::no_token)?;
    let principal = &*known.insert(principal);
    let body = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY));
    let body = body.await.map_err(|_| Refusal::body_timeout())?;
    let wanted: TicketRequest =
        body.ok().and_then(|body| serde_json::from_slice(&body).ok()).ok_or_else(|| {
            Refusal::bad_request("write {\"path\": \"/..\"}: the path of the stream's URL")
        })?;
    let parsed = wanted.path.parse::<PathAndQuery>();
    let is_path =
        parsed.is_ok_and(|parsed| parsed.path() == wanted.path && parsed.query().is_none());
    if !is_path || !wanted.path.starts_with('/') {
        return Err(Refusal::bad_request("path: write it as the URL has it, without its query"));
    }
    let Some(tickets) = &gate.tickets else { return Err(Refusal::internal()) };
    let path = tickets.served_path(&wanted.path);
    let rule = opened_by(sse, path)?;
    // An authorizer may decide by the request's target and time, so it is asked when the ticket is used.
    if let Some(rule) = rule.filter(|_| !sse.core().access.has_authorizer()) {
        principal.meets(&rule)?;
    }
    let (ticket, ttl) = tickets.issue(principal, checked_at, path).await.map_err(|error| {
        if let AuthError::Unavailable(why) = &error {
            gate.failures.log(parts.uri.path(), "ticket store", why);
        }
        Refusal::unavailable()
    })?;
    let ticket = json!({ "ticket": ticket.expose(), "expires_in": ttl.as_secs() });
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, ticket.to_string()).into_response())
}

/// Returns the permissions of the endpoint at the path of a URL; `None`: public. An endpoint does not know in which
/// routers it is nested, so the longest end of the path that is mapped counts. This only helps the client early: the ticket
/// opens the whole path, and the endpoint checks its permissions then.
fn opened_by(sse: &HeroSse, path: &str) -> Result<Option<PermissionRule>, Refusal> {
    let mapped = sse.mapped();
    let ends = path.match_indices('/').filter_map(|(at, _)| path.get(at..)).take(MAX_NESTING);
    let first = ends.map(|end| mapped.opened_by(end)).find(|found| {
        !found.as_ref().is_err_and(|refusal| refusal.status() == StatusCode::NOT_FOUND)
    });
    first.unwrap_or_else(|| Err(NotFound.into()))
}
