//! One mapped endpoint, and its answers in place of a stream.

use std::convert::Infallible;
use std::sync::{Arc, Once};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    REFERRER_POLICY, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::close::CloseReason;
use crate::connections::AdmissionError;
use crate::delivery::BrokenBody;
use crate::descriptor::Declaration;
use crate::frame::{EventName, HEARTBEAT, write_retry};
use crate::permission::PermissionRule;
use crate::policy::{Ending, Method, OverLimit, Policies, Policy, Profile};
use crate::refusal::{Refusal, RefusalFormat, TOO_MANY_FAILURES, formatted};
use crate::telemetry;
use crate::writer::write_close_event;

/// One mapped endpoint: its declaration, resolved against the options.
pub(crate) struct Route {
    pub(crate) path: Arc<str>,
    pub(crate) event: Option<EventName>,
    /// `None` for a public endpoint.
    pub(crate) rule: Option<PermissionRule>,
    /// Whether the rule depends on the path's captures.
    pub(super) rule_has_captures: bool,
    pub(crate) method: Method,
    /// Logs the first use of a deprecated endpoint.
    deprecated: Option<Once>,
    /// Logs the first header that a stream's response cannot have.
    header_dropped: Once,
    refusals: Option<RefusalFormat>,
    pub(super) policies: Policies,
}

impl Route {
    pub(crate) fn new(declaration: Declaration, policies: Policies) -> Self {
        let Declaration { path, event, rule, method, deprecated, refusals, .. } = declaration;
        let deprecated = deprecated.then(Once::new);
        let rule_has_captures = rule.as_ref().is_some_and(PermissionRule::has_captures);
        let header_dropped = Once::new();
        Self {
            path: path.into(),
            event,
            rule,
            rule_has_captures,
            method,
            deprecated,
            header_dropped,
            refusals,
            policies,
        }
    }

    /// The policy before the stream exists, when its kind is not known yet.
    pub(super) fn policy(&self) -> &Policy {
        &self.policies.private
    }

    /// Adds what the endpoint's function wants in the head of its stream's response.
    pub(super) fn add_head(&self, response: &mut Response, head: Parts) {
        let Parts { mut headers, extensions, .. } = head;
        let of_library = HEADERS.map(|(name, _)| name).into_iter().chain(FOREIGN_HEADERS);
        for name in of_library {
            if headers.remove(&name).is_some() {
                self.header_dropped.call_once(|| telemetry::header_dropped(&self.path, &name));
            }
        }
        response.headers_mut().extend(headers);
        response.extensions_mut().extend(extensions);
    }

    pub(super) fn log_if_deprecated(&self) {
        if let Some(once) = &self.deprecated {
            once.call_once(|| telemetry::deprecated(&self.path));
        }
    }

    /// Gives a refusal its format, and passes on any other response.
    pub(super) fn formatted(&self, response: Response) -> Response {
        formatted(response, &self.path, self.refusals.as_ref())
    }

    /// Logs a refusal, and answers with it.
    pub(super) fn refuse(&self, refusal: Refusal) -> Response {
        telemetry::refused(&self.path, refusal.status().as_u16(), refusal.detail());
        refusal.into_response()
    }

    /// Answers a request that is not admitted. Browsers get a stream that asks them to reconnect, since they
    /// give up after a refusal; under `OverLimit = "refuse"` clients get a status.
    ///
    /// `can_reopen` is `false` where the same request cannot open the stream later.
    pub(super) fn reject(&self, error: AdmissionError, can_reopen: bool) -> Response {
        let retry = self.policy().closing_retry(error.reason(), error.retry_after());
        let ending = self.policy().ending(error.reason(), can_reopen);
        match self.policy().over_limit {
            OverLimit::Retry if ending == Ending::Broken => {
                let bytes = match self.policy().profile {
                    Profile::Native => retry_line(retry),
                    Profile::Plain => Bytes::from_static(HEARTBEAT),
                };
                stream_response(Body::from_stream(BrokenBody::new(bytes, error.reason())))
            }
            OverLimit::Retry => {
                let mut close_event = BytesMut::new();
                write_close_event(&mut close_event, error.reason(), retry, can_reopen);
                stream_response(unsized_body(close_event.freeze()))
            }
            OverLimit::Refuse => {
                use StatusCode as S;
                let (status, detail) = match error {
                    AdmissionError::Unverified | AdmissionError::Changed => {
                        return self.refuse(Refusal::unavailable());
                    }
                    AdmissionError::Draining => (S::SERVICE_UNAVAILABLE, "the server is stopping"),
                    AdmissionError::Closed => {
                        (S::SERVICE_UNAVAILABLE, "this endpoint is closed for now")
                    }
                    AdmissionError::Total => {
                        (S::SERVICE_UNAVAILABLE, "too many open streams on this server")
                    }
                    AdmissionError::Path => {
                        (S::SERVICE_UNAVAILABLE, "too many open streams of this endpoint")
                    }
                    AdmissionError::Principal => {
                        (S::TOO_MANY_REQUESTS, "too many open streams of yours")
                    }
                    AdmissionError::Address => {
                        (S::TOO_MANY_REQUESTS, "too many open streams from your address")
                    }
                    AdmissionError::RateLimited(_) => {
                        (S::TOO_MANY_REQUESTS, "you opened too many streams within a minute")
                    }
                    AdmissionError::FailedAttempts(_) => (S::TOO_MANY_REQUESTS, TOO_MANY_FAILURES),
                };
                let seconds = retry.as_secs_f64().ceil() as u64;
                self.refuse(Refusal::busy(status, detail, seconds))
            }
        }
    }

    /// Answers a request whose stream was asked to end before the endpoint's function had made it.
    pub(super) fn ended_before_start(&self, reason: CloseReason, can_reopen: bool) -> Response {
        match reason {
            CloseReason::Revoked => self.refuse(Refusal::revoked()),
            CloseReason::TokenExpired => {
                self.refuse(Refusal::invalid_token("the token has expired"))
            }
            CloseReason::Unverified => self.reject(AdmissionError::Unverified, can_reopen),
            _ => self.reject(AdmissionError::Draining, can_reopen),
        }
    }

    /// Passes on what the endpoint's function answered in place of a stream. Under `GET`, a success is a mistake in
    /// the function, except `204`: without a stream's head an `EventSource` silently gives up.
    pub(super) fn checked_answer(&self, answer: Response) -> Response {
        let status = answer.status();
        let without_stream = self.method == Method::Post || status == StatusCode::NO_CONTENT;
        if without_stream || !status.is_success() {
            return answer;
        }
        telemetry::refused_with_success(&self.path, status.as_u16());
        Refusal::internal().into_response()
    }
}

fn retry_line(retry: Duration) -> Bytes {
    let mut line = BytesMut::new();
    write_retry(&mut line, retry);
    line.freeze()
}

/// The answer to a `HEAD` request.
pub(super) fn head_response() -> Response {
    stream_response(unsized_body(Bytes::new()))
}

/// A body without a length in the head, like that of a stream.
fn unsized_body(bytes: Bytes) -> Body {
    Body::from_stream(futures_util::stream::iter([Ok::<_, Infallible>(bytes)]))
}

/// The headers of every stream. `no-transform` and `x-accel-buffering` stop intermediaries from buffering or
/// recoding it. The URL may hold a token, so it must not become a referrer.
const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_TYPE, "text/event-stream"),
    (CACHE_CONTROL, "no-cache, no-store, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
    (REFERRER_POLICY, "no-referrer"),
];

/// Describe a body that the stream's is not, or the connection, which is the server's.
const FOREIGN_HEADERS: [HeaderName; 8] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    TRANSFER_ENCODING,
    CONNECTION,
    TRAILER,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// A response with the head of a stream.
pub(super) fn stream_response(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
