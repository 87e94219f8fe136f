//! CORS: lets pages of other origins open streams.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::origin::{Listed, Origin};

/// How long a browser may cache the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Lets pages of other origins open the endpoints (cross-origin resource sharing). Default: none.
///
/// Set it with [`SseOptions::cors`](crate::SseOptions::cors), or with the keys `CorsOrigins` and
/// `CorsCredentials`.
///
/// Origins are exact: scheme, host and port. There are no patterns and no `*`. For an endpoint that every page
/// may read, put a CORS layer of your own around its routes.
///
/// ```
/// use hero_sse::SseOptions;
/// use hero_sse::options::Cors;
///
/// let cors = Cors::origins(["https://app.example.com", "http://localhost:5173"]).credentials(true);
/// let options = SseOptions::default().cors(cors);
/// ```
#[derive(Clone, Debug)]
pub struct Cors {
    pub(crate) origins: Listed<Origin>,
    pub(crate) credentials: bool,
}

impl Cors {
    /// Allows pages of these origins, such as `"https://app.example.com"`. An invalid origin is a mistake that
    /// [`build`](crate::server::Builder::build) reports.
    pub fn origins<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self { origins: Listed::read(origins, Origin::parse), credentials: false }
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

    pub(crate) fn is_on(&self) -> bool {
        !self.origins.entries.is_empty()
    }

    /// Returns what is wrong with the credentials; each origin has been checked by itself.
    pub(crate) fn fault(&self) -> Option<String> {
        let useless = self.credentials && !self.is_on() && self.origins.faults.is_empty();
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

    /// Adds the CORS headers to a response.
    fn add_headers(
        &self,
        origin: Option<HeaderValue>,
        is_preflight: bool,
        headers: &mut HeaderMap,
    ) {
        // For other origins as well: otherwise a cache could use one origin's response for another.
        headers.append(VARY, HeaderValue::from_name(ORIGIN));
        let Some(origin) = origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if is_preflight {
            let methods = HeaderValue::from_static("GET, HEAD, POST");
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            let allowed = HeaderValue::from_static("authorization, content-type, last-event-id");
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        } else {
            let exposed = HeaderValue::from_static("www-authenticate, retry-after");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// Middleware around an endpoint: answers preflights, and adds the CORS headers to all other responses, refusals
/// included.
pub(crate) async fn middleware(
    State(cors): State<Arc<Cors>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = cors.allowed_origin(request.headers());
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    cors.add_headers(origin, is_preflight, response.headers_mut());
    response
}
