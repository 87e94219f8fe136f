//! What the errors of topics are as answers to a request.

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

/// For a route that publishes what it was sent. Where that is not so, answer by yourself.
///
/// * [`Closed`](PublishError::Closed) is a `409`: what the route stands for is there, and may still be read, but its state
///   lets nothing more in (RFC 9110, section 15.5.10; a `410` would say that the resource is gone).
/// * [`TooLarge`](PublishError::TooLarge) is a `413`: an event is as large as what it was made of.
/// * [`Event`](PublishError::Event) is a `500`: the application made an event that cannot be written.
/// * [`Broker`](PublishError::Broker) is a `503` with `Retry-After`: it may be there again soon. The event may have been
///   published all the same.
///
/// The details of the last three are for the log alone.
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
        }
    }
}

impl IntoResponse for PublishError {
    fn into_response(self) -> Response {
        Refusal::from(self).into_response()
    }
}

/// A `500`: the application made an event that cannot be written. Why is for the log alone.
impl From<InvalidEvent> for Refusal {
    fn from(error: InvalidEvent) -> Self {
        telemetry::not_written(&error);
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to write an event")
    }
}
