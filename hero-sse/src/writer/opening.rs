//! The endpoint's function of a stream whose head is sent before the function returns (`early`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::close::CloseReason;
use crate::connections::Attribution;
use crate::endpoint::EventStream;
use crate::frame::EventName;
use crate::policy::{Method, Policy};
use crate::telemetry;

/// What a writer sends: a stream, or what a function will return.
pub(crate) enum Source {
    Ready(EventStream),
    Opening(Opening),
}

impl From<EventStream> for Source {
    fn from(events: EventStream) -> Self {
        Self::Ready(events)
    }
}

/// When a stream must end, even if more events are ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScheduledEnd {
    pub(crate) at: Instant,
    pub(crate) reason: CloseReason,
}

/// A stream whose function has returned, and what follows from its kind.
pub(crate) struct OpenedStream {
    pub(crate) events: EventStream,
    pub(crate) name: Option<EventName>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) end: Option<ScheduledEnd>,
}

/// Runs the function. An error is why the stream ends, and is logged already.
pub(crate) struct Opening {
    /// `None` once it has returned.
    function: Option<BoxFuture<'static, Result<OpenedStream, CloseReason>>>,
    method: Method,
    attribution: Attribution,
}

impl Opening {
    /// `function` must not panic when polled. Its drop may.
    pub(crate) fn new(
        function: BoxFuture<'static, Result<OpenedStream, CloseReason>>,
        method: Method,
        attribution: Attribution,
    ) -> Self {
        Self { function: Some(function), method, attribution }
    }

    /// Whether the stream may end now for this reason. The function of a `POST` may finish what it has begun, unless
    /// access is withdrawn.
    pub(super) fn ends_for(&self, reason: CloseReason) -> bool {
        self.method == Method::Get || reason.is_withdrawal()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<OpenedStream, CloseReason>> {
        let function = self.function.as_mut();
        function.map_or(Poll::Pending, |function| function.as_mut().poll(cx))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let function = self.function.take();
        if catch_unwind(AssertUnwindSafe(|| drop(function))).is_err() {
            telemetry::panicked(self.attribution.path(), "endpoint function's drop");
        }
    }
}
