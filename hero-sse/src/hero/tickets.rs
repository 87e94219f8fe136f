//! The route where tickets are made.

use std::panic::Location as Caller;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use http::request::Parts;
use http::uri::PathAndQuery;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::HeroSse;
use super::mount::{Mount, NotFound, open_to_pages};
use crate::auth::{AuthError, CheckedAt, Principal, opened_path};
use crate::descriptor::{Declaration, Location};
use crate::endpoint::{AppState, BODY_TIMEOUT};
use crate::policy::{Method, TokenSource, TokenSources};
use crate::refusal::Refusal;
use crate::setup::SetupErrors;
use crate::telemetry;

/// A path is what fits in a request's head, and no real one is as long as this.
const MAX_BODY: usize = 4 * 1024;

impl Mount<'_> {
    /// Maps the route where [tickets](crate::auth::Tickets) are made: a router to merge into the application's
    /// own.
    ///
    /// `POST` with a token in the `Authorization` header, from nowhere else, and the path to open in the
    /// body, `{"path": "/api/v1/usage/stream"}`: as the URL has it (`new URL(..).pathname`), prefix
    /// included. The answer is `{"ticket": "..", "expires_in": 30}`, in seconds; then
    /// `GET /api/v1/usage/stream?ticket=..` opens it. Refused are, as problem+json: a body that is
    /// something else (`400`), a path at which no endpoint of the kit answers `GET` (`404`; a handler
    /// with [`SseContext`](crate::SseContext) is none), a caller that lacks the endpoint's permission (`403`, as
    /// when it is opened, where it is checked again; an [`Authorizer`](crate::auth::Authorizer) is asked only then), and tokens
    /// as everywhere.
    ///
    /// A router that is nested takes the tickets of endpoints that are nested with it.
    ///
    /// # Errors
    ///
    /// A kit without [authenticator](crate::server::Builder::authenticator) or without
    /// [tickets](crate::server::Builder::tickets), one whose `TokenSources` leave the header out, a path that is taken or can be
    /// none, and `Enabled = false`.
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
                "the kit has no tickets; add .tickets(Tickets::new().audience(\"..\")) to the builder",
            );
        }
        if !core.gate.sources.has(TokenSource::Header) {
            wrong(
                "makes tickets for tokens in the header, and TokenSources lets none stand there; add \
                 \"header\" to it",
            );
        }
        let mut mapped = self.sse.mapped();
        let mut draft = mapped.clone();
        draft.enter(&declaration).err().iter().for_each(|why| wrong(why));
        SetupErrors::none_or(mistakes)?;
        *mapped = draft;
        let (sse, path) = (self.sse.clone(), declaration.path.clone());
        let make = async move |request: Request| answer(&sse, &declaration.path, request).await;
        Ok(Router::new().route(&path, open_to_pages(self.sse, post(make))))
    }
}

async fn answer(sse: &HeroSse, path: &str, request: Request) -> Response {
    let mut known = None;
    let made = make(sse, request, &mut known).await;
    let mut response = made.unwrap_or_else(|refusal| {
        telemetry::refused(path, refusal.status().as_u16(), refusal.detail());
        refusal.into_response()
    });
    // For layers further out, such as an access log: who asked.
    if let Some(principal) = known {
        response.extensions_mut().insert(principal);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
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
    // A URL must not turn into another, nor a cookie, which comes by itself, into what opens from anywhere.
    let header = TokenSources::of(&[TokenSource::Header]);
    let principal = gate.principal(&parts, header).await?.ok_or_else(Refusal::no_token)?;
    let principal = &*known.insert(principal);
    let body = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY));
    let body = body.await.map_err(|_| Refusal::body_timeout())?;
    let wish: Wish =
        body.ok().and_then(|body| serde_json::from_slice(&body).ok()).ok_or_else(|| {
            Refusal::bad_request("write {\"path\": \"/..\"}: the path of the stream's URL")
        })?;
    let parsed = wish.path.parse::<PathAndQuery>();
    let whole = parsed.is_ok_and(|parsed| parsed.path() == wish.path && parsed.query().is_none());
    if !whole || !wish.path.starts_with('/') {
        return Err(Refusal::bad_request("path: write it as the URL has it, without its query"));
    }
    let rule = sse.mapped().opened_by(inner_path(&parts, &wish.path)?)?;
    // An authorizer may go by the stream's place and moment: it is asked when the ticket is used.
    if let Some(rule) = rule.filter(|_| !sse.core().access.has_authorizer()) {
        principal.meets(&rule)?;
    }
    let Some(tickets) = &gate.tickets else { return Err(Refusal::internal()) };
    let (ticket, ttl) =
        tickets.issue(principal, checked_at, &wish.path).await.map_err(|error| {
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

/// The path that endpoints were mapped at: where this route is nested they are, too.
fn inner_path<'a>(parts: &Parts, path: &'a str) -> Result<&'a str, NotFound> {
    let nest = opened_path(parts).strip_suffix(parts.uri.path()).unwrap_or_default();
    path.strip_prefix(nest).filter(|inner| inner.starts_with('/')).ok_or(NotFound)
}
