//! Pages of other origins: who may read streams, and what a browser must be told for it.

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

/// How long a browser may remember the answer to its question before a request.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Which pages of other origins may open the kit's endpoints and read what they answer: none, unless
/// set by [`SseOptions::cors`](crate::SseOptions::cors) or by the keys `CorsOrigins` and
/// `CorsCredentials`.
///
/// Origins are exact: scheme, host and port. There are no patterns and there is no `*`; an endpoint that
/// any page may read gets a CORS layer of the application's own around its routes.
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
    /// Lets pages of these origins in. What is none comes out of
    /// [`build`](crate::server::Builder::build), with the cure.
    pub fn origins<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self { origins: Listed::read(origins, Origin::parse), credentials: false }
    }

    /// Whether their browsers send cookies along, for an `EventSource` with `withCredentials`. These
    /// origins then act with the caller's cookie as the site's own pages do. Default `false`: a token in
    /// a header or the query needs none of it.
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
        let alone = self.credentials && !self.is_on() && self.origins.faults.is_empty();
        alone.then(|| {
            "credentials are allowed to no origin: set CorsOrigins, or leave out CorsCredentials"
                .to_owned()
        })
    }

    /// The origin that a request comes from, if it is let in. A browser never hears its own words: it
    /// is as the operator wrote it.
    fn lets_in(&self, request: &HeaderMap) -> Option<HeaderValue> {
        HeaderValue::try_from(Origin::listed(&self.origins.entries, request)?.to_string()).ok()
    }

    /// What a browser must be told with an answer.
    fn tell(&self, origin: Option<HeaderValue>, is_preflight: bool, answer: &mut HeaderMap) {
        // To others as well, or a cache would give the answer for one origin to another.
        answer.append(VARY, HeaderValue::from_name(ORIGIN));
        let Some(origin) = origin else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if is_preflight {
            let methods = HeaderValue::from_static("GET, HEAD, POST");
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            let headers = HeaderValue::from_static("authorization, content-type, last-event-id");
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
            answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        } else {
            let headers = HeaderValue::from_static("www-authenticate, retry-after");
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, headers);
        }
    }
}

/// Around an endpoint: answers a browser's question before a request by itself, and adds to all other
/// answers, refusals too, what a browser must be told.
pub(crate) async fn answer(
    State(cors): State<Arc<Cors>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = cors.lets_in(request.headers());
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    cors.tell(origin, is_preflight, response.headers_mut());
    response
}
