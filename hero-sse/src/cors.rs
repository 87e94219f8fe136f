//! CORS: lets pages of other origins open streams.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::origin::{Listed, Origin, header_name};

/// How long a browser may reuse the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// What a page needs for a stream: a token, the body of a `POST`, a cursor.
const ALLOWED_HEADERS: &str = "authorization, content-type, last-event-id";

/// Why a refusal was one, and when to try again.
const EXPOSED_HEADERS: &str = "www-authenticate, retry-after";

/// Local network access: a page of a public address asks whether it may open a server of a private one.
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Lets pages of other origins open the endpoints (cross-origin resource sharing). Default: none.
///
/// Set it with [`SseOptions::cors`](crate::SseOptions::cors), or with the keys that start with `Cors`.
///
/// The endpoints then answer `OPTIONS` as well, so an application cannot map `OPTIONS` at an endpoint's path itself.
///
/// Origins are exact: scheme, host and port. There are no patterns and no `*`. For an endpoint that every page
/// may read, put a CORS layer of your own around its routes.
///
/// ```
/// use hero_sse::SseOptions;
/// use hero_sse::options::Cors;
///
/// let cors = Cors::origins(["https://app.example.com", "http://localhost:5173"])
///     .credentials(true)
///     .allow_headers(["traceparent"])
///     .expose_headers(["x-request-id"]);
/// let options = SseOptions::default().cors(cors);
/// ```
#[derive(Clone, Debug)]
pub struct Cors {
    pub(crate) origins: Listed<Origin>,
    pub(crate) credentials: bool,
    pub(crate) allowed_headers: Listed<HeaderName>,
    pub(crate) exposed_headers: Listed<HeaderName>,
    /// `None`: not at all.
    pub(crate) max_age: Option<Duration>,
    pub(crate) private_network: bool,
}

impl Cors {
    /// Allows pages of these origins, such as `"https://app.example.com"`. An invalid origin is a mistake that
    /// [`build`](crate::server::Builder::build) reports.
    pub fn origins<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            origins: Listed::read(origins, Origin::parse),
            credentials: false,
            allowed_headers: Listed::NONE,
            exposed_headers: Listed::NONE,
            max_age: Some(MAX_AGE),
            private_network: false,
        }
    }

    /// Sets whether these pages may send cookies, for an `EventSource` with `withCredentials`. Default: `false`.
    ///
    /// These pages can then do with the caller's cookie what the site's own pages can do. A token in a header or in
    /// the query needs no credentials.
    #[must_use]
    pub fn credentials(mut self, sent: bool) -> Self {
        self.credentials = sent;
        self
    }

    /// Allows pages to send these headers as well, such as `"traceparent"`. `"*"` is all but `Authorization`; it cannot
    /// be combined with credentials. `Authorization`, `Content-Type` and `Last-Event-ID` are always allowed.
    #[must_use]
    pub fn allow_headers<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.allowed_headers = Listed::read(names, header_name);
        self
    }

    /// Lets pages read these headers of responses as well, such as `"x-request-id"`. `"*"` is all; it cannot be combined
    /// with credentials. `WWW-Authenticate` and `Retry-After` can always be read.
    #[must_use]
    pub fn expose_headers<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.exposed_headers = Listed::read(names, header_name);
        self
    }

    /// Sets for how long a browser may reuse the answer to a preflight. Default: 10 min. Browsers have limits of their
    /// own, such as 2 h.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets whether pages from public addresses may open this server at a private one, such as `192.168.0.7`. Default:
    /// `false`. The browser asks with `Access-Control-Request-Private-Network`.
    #[must_use]
    pub fn private_network(mut self, allowed: bool) -> Self {
        self.private_network = allowed;
        self
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.origins.entries.is_empty()
    }

    /// Returns what is wrong with the credentials; each origin and header has been checked by itself.
    pub(crate) fn fault(&self) -> Option<String> {
        if !self.credentials {
            return None;
        }
        let lists = [
            ("CorsAllowedHeaders", &self.allowed_headers),
            ("CorsExposedHeaders", &self.exposed_headers),
        ];
        let wildcard = lists.iter().find(|(_, list)| list.entries.iter().any(|name| name == "*"));
        if let Some((key, _)) = wildcard {
            return Some(format!(
                "with credentials, browsers take the \"*\" in {key} for a header of that name: name each header"
            ));
        }
        let useless = !self.is_on() && self.origins.faults.is_empty();
        useless.then(|| {
            "credentials are allowed to no origin: set CorsOrigins, or leave out CorsCredentials"
                .to_owned()
        })
    }

    /// Returns the request's origin if it is allowed. The text comes from the configuration and not from the
    /// request.
    fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        HeaderValue::try_from(Origin::find_in(&self.origins.entries, request)?.to_string()).ok()
    }

    /// Prepares the headers of all answers.
    pub(crate) fn prepare(self) -> CorsHeaders {
        let list = |own: &str, more: &Listed<HeaderName>| {
            let more = more.entries.iter().map(HeaderName::as_str);
            let more = more.filter(|name| own.split(", ").all(|own| own != *name));
            let all: Vec<_> = std::iter::once(own).chain(more).collect();
            HeaderValue::try_from(all.join(", ")).ok()
        };
        let (allowed, exposed) = (
            list(ALLOWED_HEADERS, &self.allowed_headers),
            list(EXPOSED_HEADERS, &self.exposed_headers),
        );
        let max_age = self.max_age.unwrap_or_default().as_secs().into();
        CorsHeaders { cors: self, allowed, exposed, max_age }
    }
}

/// The settings, and what they make of each answer.
#[derive(Debug)]
pub(crate) struct CorsHeaders {
    cors: Cors,
    allowed: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl CorsHeaders {
    /// Adds what all answers have. Returns `None` if the page's origin is not allowed.
    fn add_origin(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) -> Option<()> {
        // For other origins as well: otherwise a cache could use one origin's response for another.
        headers.append(VARY, HeaderValue::from_name(ORIGIN));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin?);
        if self.cors.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        Some(())
    }

    /// Answers a preflight (Fetch, section 3.3), and any other `OPTIONS`.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        if self.add_origin(self.cors.allowed_origin(request), headers).is_none() {
            return response;
        }
        let methods = HeaderValue::from_static("GET, HEAD, POST");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.extend(self.allowed.clone().map(|value| (ACCESS_CONTROL_ALLOW_HEADERS, value)));
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let asked = request.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true");
        if asked && self.cors.private_network {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Middleware around an endpoint: adds the CORS headers to all its responses, refusals included. Answers preflights where
/// the endpoint's path has no handler for them.
pub(crate) async fn middleware(
    State(cors): State<Arc<CorsHeaders>>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::OPTIONS {
        return cors.preflight(request.headers());
    }
    let origin = cors.cors.allowed_origin(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if cors.add_origin(origin, headers).is_some() {
        headers.extend(cors.exposed.clone().map(|value| (ACCESS_CONTROL_EXPOSE_HEADERS, value)));
    }
    response
}
