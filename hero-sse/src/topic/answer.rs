//! The errors of topics as HTTP answers.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{PublishError, TopicLimitReached};
use crate::frame::InvalidEvent;
use crate::refusal::Refusal;
use crate::telemetry;

impl From<TopicLimitReached> for Refusal {
    fn from(_: TopicLimitReached) -> Self {
        Self::busy(StatusCode::SERVICE_UNAVAILABLE, "there is no room for another topic", 3)
    }
}

impl IntoResponse for TopicLimitReached {
    fn into_response(self) -> Response {
        Refusal::from(self).into_response()
    }
}

/// The answer of a route that publishes what it was sent.
///
/// | error | status | because |
/// |---|---|---|
/// | [`Closed`](PublishError::Closed) | `409` | the resource exists, but accepts no more events (RFC 9110, section 15.5.10) |
/// | [`TooLarge`](PublishError::TooLarge) | `413` | the event is as large as what the client sent |
/// | [`Event`](PublishError::Event) | `500` | the server made an event that cannot be encoded |
/// | [`Broker`](PublishError::Broker) | `503` with `Retry-After` | the broker may be back soon. The event may have been published |
/// | [`NotInMemory`](PublishError::NotInMemory) | `500` | the server called the wrong method |
///
/// All but the first are logged, and the client gets no details. If a status does not fit your route, map the error
/// yourself.
impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Closed => Self::new(StatusCode::CONFLICT, "the topic has ended"),
            PublishError::TooLarge { .. } => {
                telemetry::not_published("size", &error);
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the event is too large")
            }
            PublishError::Event(error) => error.into(),
            PublishError::Broker(_) => {
                telemetry::not_published("broker", &error);
                let detail = "events cannot be published at the moment";
                Self::busy(StatusCode::SERVICE_UNAVAILABLE, detail, 3)
            }
            PublishError::NotInMemory => {
                telemetry::not_published("method", &error);
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the server failed to publish the event",
                )
            }
        }
    }
}

impl IntoResponse for PublishError {
    fn into_response(self) -> Response {
        Refusal::from(self).into_response()
    }
}

/// A `500`: the server made an event that cannot be encoded. Why is logged, and not sent.
impl From<InvalidEvent> for Refusal {
    fn from(error: InvalidEvent) -> Self {
        telemetry::not_encoded(&error);
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to write an event")
    }
}
