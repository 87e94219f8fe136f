//! What a request is answered when its stream does not open: problem details (RFC 9457) with the
//! challenge of RFC 6750 where a credential is the matter.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::permission::{PermissionRule, Unresolved};

/// An answer in place of a stream. Endpoint functions return it too:
///
/// ```
/// use hero_sse::Refusal;
///
/// fn job(id: u64) -> Result<u64, Refusal> {
///     if id < 10 { Ok(id) } else { Err(Refusal::not_found("there is no such job")) }
/// }
/// # assert!(job(3).is_ok());
/// ```
///
/// To a browser's `EventSource` every refusal is final: it neither shows the status nor tries again.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    detail: String,
    challenge: Option<String>,
    retry_after: Option<u64>,
    unverified: bool,
    /// After too many tokens that were not accepted: when one more is looked at.
    failures: Option<Duration>,
}

impl Refusal {
    /// `status` with a sentence for the client; keep internals out of it.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            challenge: None,
            retry_after: None,
            unverified: false,
            failures: None,
        }
    }

    /// `404`.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// `400` for a request that is malformed beyond its credentials.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// `403` for a caller whose permissions are not the matter, such as one without a tenant.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// The status it is sent with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence it is sent with.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// No credential came: RFC 6750, section 3.1, gives no error code then.
    pub(crate) fn no_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a bearer token is required")
            .challenged(CHALLENGE.to_owned())
    }

    /// A credential came and is not accepted. `detail` is one of the kit's own sentences.
    pub(crate) fn invalid_token(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).challenged(error("invalid_token", detail))
    }

    /// Credentials came doubled or malformed.
    pub(crate) fn invalid_request(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).challenged(error("invalid_request", detail))
    }

    /// The caller lacks permissions.
    pub(crate) fn insufficient_scope(rule: &PermissionRule, unmet: &PermissionRule) -> Self {
        let scope = match rule.scope() {
            // No permission would help.
            scope if scope.is_empty() => scope,
            scope => format!(", scope=\"{scope}\""),
        };
        let detail = match unmet.is_empty() {
            true => "access was denied".to_owned(),
            false => format!("the caller lacks the permission {unmet}"),
        };
        Self::new(StatusCode::FORBIDDEN, detail)
            .challenged(format!("{CHALLENGE}, error=\"insufficient_scope\"{scope}"))
    }

    /// Access was withdrawn while the caller's stream was opened.
    pub(crate) fn revoked() -> Self {
        Self::forbidden("access was withdrawn")
    }

    /// Something on this side failed; the log knows what.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to open this stream")
    }

    /// The request's body did not come in time.
    pub(crate) fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive in time")
    }

    /// Whether the caller may have a stream cannot be found out now; the log knows why.
    pub(crate) fn unavailable() -> Self {
        let detail = "the server cannot verify callers at the moment";
        let busy = Self::busy(StatusCode::SERVICE_UNAVAILABLE, detail, 3);
        Self { unverified: true, ..busy }
    }

    /// Whether it says nothing of the caller, who may come back as it is.
    pub(crate) fn is_unverified(&self) -> bool {
        self.unverified
    }

    /// Too many tokens from the caller's address were not accepted.
    pub(crate) fn too_many_failures(wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil() as u64;
        let busy = Self::busy(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_FAILURES, seconds);
        Self { failures: Some(wait), ..busy }
    }

    /// When the next token from the caller's address is looked at, where that is the matter.
    pub(crate) fn failures(&self) -> Option<Duration> {
        self.failures
    }

    pub(crate) fn busy(status: StatusCode, detail: &'static str, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(status, detail) }
    }

    fn challenged(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge);
        self
    }
}

/// The challenge would need a permission to name.
impl From<Unresolved> for Refusal {
    fn from(unresolved: Unresolved) -> Self {
        Self::forbidden(unresolved.to_string())
    }
}

pub(crate) const TOO_MANY_FAILURES: &str = "too many tokens from your address were not accepted";

const CHALLENGE: &str = "Bearer realm=\"hero-sse\"";

/// A challenge with an error. A description must fit the characters of RFC 6750, section 3.
fn error(code: &str, description: &str) -> String {
    let legal = |byte: u8| matches!(byte, 0x20 | 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    let description = match description.bytes().all(legal) {
        true => format!(", error_description=\"{description}\""),
        false => String::new(),
    };
    format!("{CHALLENGE}, error=\"{code}\"{description}")
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Refusal {}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Refused");
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (self.status, problem.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // Scopes are checked to fit a header, the other texts are constants.
        if let Some(challenge) = self.challenge.and_then(|text| text.try_into().ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
