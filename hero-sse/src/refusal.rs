//! The response when a stream does not open: problem details (RFC 9457), with the challenge of RFC 6750 if a
//! credential is missing or wrong.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::permission::{PermissionRule, Unresolved};

/// An error response in place of a stream, as problem details (RFC 9457). Handlers can return it:
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
/// A browser's `EventSource` does not reconnect after a refusal, and does not tell the page the status.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    detail: String,
    challenge: Option<String>,
    retry_after: Option<u64>,
    unverified: bool,
    /// After too many failed attempts: the time until the next one is verified.
    failures: Option<Duration>,
    /// The format where no endpoint's pipeline gives it one, and the path.
    format: Option<(RefusalFormat, Arc<str>)>,
}

impl Refusal {
    /// Creates a refusal with a status and a sentence for the client, which must not reveal internals.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            challenge: None,
            retry_after: None,
            unverified: false,
            failures: None,
            format: None,
        }
    }

    /// Creates a `404`.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// Creates a `400`, for a malformed request.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Creates a `403` for reasons other than permissions, such as a missing tenant.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the sentence for the client.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The request has no credential. It gets no error code (RFC 6750, section 3.1).
    pub(crate) fn no_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a bearer token is required")
            .challenged(CHALLENGE.to_owned())
    }

    /// The credential is not accepted.
    pub(crate) fn invalid_token(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).challenged(error("invalid_token", detail))
    }

    /// Credentials are repeated or malformed.
    pub(crate) fn invalid_request(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).challenged(error("invalid_request", detail))
    }

    /// The caller lacks permissions.
    pub(crate) fn insufficient_scope(rule: &PermissionRule, unmet: &PermissionRule) -> Self {
        let scope = match rule.scope() {
            // No permission would be enough.
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

    /// A disconnect has hit the caller while its stream was opened.
    pub(crate) fn revoked() -> Self {
        Self::forbidden("access was withdrawn")
    }

    /// The client asks a plain stream for events that are no longer retained.
    pub(crate) fn missed_events() -> Self {
        let detail = "the events after this Last-Event-ID are no longer available: load the current state, and open \
                      the stream without an id";
        Self::new(StatusCode::GONE, detail)
    }

    /// The server has failed. The reason is logged.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to open this stream")
    }

    /// The body of the request did not arrive in time.
    pub(crate) fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive in time")
    }

    /// The caller cannot be verified at the moment. The reason is logged.
    pub(crate) fn unavailable() -> Self {
        let detail = "the server cannot verify callers at the moment";
        let busy = Self::busy(StatusCode::SERVICE_UNAVAILABLE, detail, 3);
        Self { unverified: true, ..busy }
    }

    /// Returns whether the caller could not be verified and may try again with the same credential.
    pub(crate) fn is_unverified(&self) -> bool {
        self.unverified
    }

    /// Too many attempts from the caller's network have failed.
    pub(crate) fn too_many_failures(wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil() as u64;
        let busy = Self::busy(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_FAILURES, seconds);
        Self { failures: Some(wait), ..busy }
    }

    /// Returns the time until the next attempt is verified, after too many failures.
    pub(crate) fn failures(&self) -> Option<Duration> {
        self.failures
    }

    pub(crate) fn busy(status: StatusCode, detail: &'static str, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(status, detail) }
    }

    /// Sets the format for a refusal that becomes a response by itself.
    pub(crate) fn with_format(mut self, format: Option<&RefusalFormat>, endpoint: &str) -> Self {
        self.format = format.map(|format| (format.clone(), endpoint.into()));
        self
    }

    fn challenged(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge);
        self
    }
}

/// Without the challenge, since there is no permission to name in it.
impl From<Unresolved> for Refusal {
    fn from(unresolved: Unresolved) -> Self {
        Self::forbidden(unresolved.to_string())
    }
}

pub(crate) const TOO_MANY_FAILURES: &str = "too many tokens from your address were not accepted";

const CHALLENGE: &str = "Bearer realm=\"hero-sse\"";

/// Returns a challenge with an error. Omits a description with characters that RFC 6750, section 3, does not
/// allow.
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
        let mut response = problem(self.status, &self.detail);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // Permissions are valid in a header, and the other texts are constants.
        if let Some(challenge) = self.challenge.and_then(|text| text.try_into().ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        let format = self.format;
        response.extensions_mut().insert(Detail::Known(self.detail.into()));
        match format {
            Some((format, endpoint)) => formatted(response, &endpoint, Some(&format)),
            None => response,
        }
    }
}

/// Makes problem details.
fn problem(status: StatusCode, detail: &str) -> Response {
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = (status, problem.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// A refusal, as the hook for its format sees it: see [`Builder::refusals`](crate::server::Builder::refusals).
#[derive(Debug)]
pub struct RefusalInfo<'a> {
    status: StatusCode,
    detail: &'a str,
    endpoint: &'a str,
    headers: &'a HeaderMap,
}

impl RefusalInfo<'_> {
    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns a sentence for the client. It reveals no internals, unless an extractor of yours does.
    pub fn detail(&self) -> &str {
        self.detail
    }

    /// Returns the path of the endpoint as it is mapped, with its captures.
    pub fn endpoint(&self) -> &str {
        self.endpoint
    }

    /// Returns the headers that the response will have, unless the hook sets them itself: `WWW-Authenticate` (RFC 6750),
    /// `Retry-After` in seconds, and what an extractor's rejection has.
    pub fn headers(&self) -> &HeaderMap {
        self.headers
    }
}

/// Makes the response of a refusal.
#[derive(Clone)]
pub(crate) struct RefusalFormat {
    format: Arc<dyn Fn(&RefusalInfo<'_>) -> Response + Send + Sync>,
    /// Logs a panic at an endpoint.
    panicked: fn(&str, &'static str),
}

impl RefusalFormat {
    pub(crate) fn new<R: IntoResponse>(
        format: impl Fn(&RefusalInfo<'_>) -> R + Send + Sync + 'static,
        panicked: fn(&str, &'static str),
    ) -> Self {
        Self { format: Arc::new(move |refusal| format(refusal).into_response()), panicked }
    }
}

impl fmt::Debug for RefusalFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusalFormat").finish_non_exhaustive()
    }
}

/// Marks a response that has no format of its own yet, in the response's extensions.
#[derive(Clone)]
pub(crate) enum Detail {
    /// A refusal.
    Known(Arc<str>),
    /// What an extractor answers. Its text may be a detail.
    InBody,
}

/// The longest text of a rejection that becomes a detail. axum's texts are sentences.
const MAX_DETAIL: usize = 4096;

/// Gives a refusal its format: the hook's, or problem details. So it does for an extractor's rejection that is plain
/// text or nothing, as axum's are. Any other response stays as it is.
pub(crate) fn formatted(
    mut response: Response,
    endpoint: &str,
    format: Option<&RefusalFormat>,
) -> Response {
    let detail = match response.extensions_mut().remove::<Detail>() {
        None => return response,
        Some(Detail::Known(_)) if format.is_none() => return response,
        Some(Detail::InBody) if !is_plain_error(&response) => return response,
        Some(detail) => detail,
    };
    let (mut head, body) = response.into_parts();
    let Parts { status, .. } = head;
    let detail = match detail {
        Detail::Known(detail) => detail,
        Detail::InBody => text_of(body, status),
    };
    [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING].iter().for_each(|name| {
        head.headers.remove(name);
    });
    let info = RefusalInfo { status, detail: &detail, endpoint, headers: &head.headers };
    let by_hook = format.and_then(|format| {
        let made = catch_unwind(AssertUnwindSafe(|| (format.format)(&info)));
        made.inspect_err(|_| (format.panicked)(endpoint, "refusals hook")).ok()
    });
    let mut response = by_hook.unwrap_or_else(|| problem(status, &detail));
    if response.status().is_success() {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    for name in head.headers.keys() {
        if !headers.contains_key(name) {
            head.headers.get_all(name).iter().for_each(|value| {
                headers.append(name, value.clone());
            });
        }
    }
    head.extensions.extend(std::mem::take(response.extensions_mut()));
    *response.extensions_mut() = head.extensions;
    response
}

/// Reads a text that is in memory. A body that is not there yet, or is longer, is no detail.
fn text_of(body: Body, status: StatusCode) -> Arc<str> {
    let read = to_bytes(body, MAX_DETAIL).now_or_never().and_then(Result::ok);
    let text = String::from_utf8_lossy(read.as_deref().unwrap_or_default()).into_owned();
    match text.is_empty() {
        true => status.canonical_reason().unwrap_or("refused").into(),
        false => text.into(),
    }
}

/// Describes a response that cannot be sent any more, for the log.
pub(crate) fn described(mut response: Response) -> String {
    let (status, detail) = (response.status(), response.extensions_mut().remove());
    let detail = match detail {
        Some(Detail::Known(detail)) => detail,
        _ => catch_unwind(AssertUnwindSafe(|| text_of(response.into_body(), status)))
            .unwrap_or_else(|_| "its body panics".into()),
    };
    let status = status.as_u16();
    format!("the function answered {status} after the head was sent: {detail}")
}

fn is_plain_error(response: &Response) -> bool {
    let status = response.status();
    let plain = match response.headers().get(CONTENT_TYPE) {
        Some(content_type) => content_type.as_bytes().starts_with(b"text/plain"),
        None => true,
    };
    plain && (status.is_client_error() || status.is_server_error())
}
