//! Runs the application's stream: panics are caught, and the time of each poll is limited and measured.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::close::CloseReason;
use crate::connections::Attribution;
use crate::endpoint::{Appended, Framing, Source, Step};
use crate::frame::{EventName, PreEncoded, contents_of, make_plain, retry_of};
use crate::policy::Profile;
use crate::telemetry;
use crate::topic::{BATCH, find_unseen};

/// How long a stream may make events at a stretch. Then they leave, and other tasks have their turn. A stream
/// that takes its time over each event therefore sends each as it is made, instead of a batch later.
///
/// It is measured on Tokio's clock, so that tests can hold and advance it.
pub(super) const TIME_SLICE: Duration = Duration::from_millis(1);

/// The application's stream. A failure or a panic, in its drop as well, is logged and ends this stream alone.
pub(crate) struct UserStream {
    stream: Option<Pin<Box<dyn Source>>>,
    name: Option<EventName>,
    profile: Profile,
    pub(super) attribution: Attribution,
    /// The last time slice was used up: its events must leave before the next.
    pausing: bool,
    /// The last reconnection time since it was taken.
    retry: Option<Duration>,
    /// It was reported that it reads a subscription which the library cannot see.
    unseen: bool,
}

impl UserStream {
    pub(super) fn new(
        stream: Pin<Box<dyn Source>>,
        name: Option<EventName>,
        profile: Profile,
        attribution: Attribution,
    ) -> Self {
        Self {
            stream: Some(stream),
            name,
            profile,
            attribution,
            pausing: false,
            retry: None,
            unseen: false,
        }
    }

    pub(super) fn is_pausing(&self) -> bool {
        self.pausing
    }

    pub(super) fn is_plain(&self) -> bool {
        self.profile.is_plain()
    }

    pub(super) fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    pub(super) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Option<CloseReason> {
        if self.pausing && !out.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.pausing) {
            // A server polls a body until it is pending, and only then sends what it has. A yield, unlike a
            // wake, also lets the runtime serve sockets and timers before the next time slice.
            let _ = pin!(yield_now()).poll(cx);
            return None;
        }
        let start = Instant::now();
        let end = loop {
            let before = out.len();
            let Poll::Ready((flow, appended)) = self.poll(cx, out, false) else { break None };
            if appended.written.pre_encoded != PreEncoded::No {
                let contents = contents_of(out.get(before..).unwrap_or_default());
                (0..contents.gaps).for_each(|_| self.attribution.gap());
            }
            if let ControlFlow::Break(reason) = flow {
                break Some(reason);
            }
            self.pausing = start.elapsed() >= TIME_SLICE;
            if self.pausing || out.len() >= BATCH {
                break None;
            }
        };
        self.attribution.ran(start);
        end
    }

    /// Appends the next event. A break may have appended one as well, the stream's last.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        ask_key: bool,
    ) -> Poll<(ControlFlow<CloseReason>, Appended)> {
        let Some(stream) = self.stream.as_mut() else {
            return Poll::Ready((ControlFlow::Break(CloseReason::Ended), Appended::default()));
        };
        let start = out.len();
        let framing = Framing { name: self.name.as_ref(), profile: self.profile };
        let poll = || stream.as_mut().poll_frame(cx, out, framing, ask_key);
        let (polled, is_unseen) =
            find_unseen(self.profile, || catch_unwind(AssertUnwindSafe(poll)));
        if is_unseen && !std::mem::replace(&mut self.unseen, true) {
            telemetry::unseen_subscription(self.attribution.path());
        }
        let (step, appended) = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(made)) => made,
            Err(_) => {
                // An event may be half-written.
                out.truncate(start);
                telemetry::panicked(self.attribution.path(), "stream");
                let reason = CloseReason::StreamPanic;
                return Poll::Ready((ControlFlow::Break(reason), Appended::default()));
            }
        };
        self.retry = match appended.written.pre_encoded {
            PreEncoded::No => appended.written.retry,
            _ => retry_of(out.get(start..).unwrap_or_default()),
        }
        .or(self.retry);
        if self.profile.is_plain()
            && appended.written.pre_encoded != PreEncoded::No
            && make_plain(out, start)
        {
            // A plain stream cannot report missed events.
            out.truncate(start);
            return Poll::Ready((ControlFlow::Break(CloseReason::Gap), Appended::default()));
        }
        let flow = match step {
            Step::Wrote => ControlFlow::Continue(()),
            Step::WroteLast => ControlFlow::Break(CloseReason::LastEvent),
            Step::Ended => ControlFlow::Break(CloseReason::Ended),
            Step::Failed(error) => {
                telemetry::stream_error(self.attribution.path(), self.attribution.id(), &error);
                ControlFlow::Break(CloseReason::StreamError)
            }
        };
        Poll::Ready((flow, appended))
    }
}

impl Drop for UserStream {
    fn drop(&mut self) {
        drop_user_value(self.stream.take(), &self.attribution, "stream's drop");
    }
}

/// Drops a value of the application. The drop is user code as well: its panics are caught, its time measured.
pub(super) fn drop_user_value<T>(value: Option<T>, attribution: &Attribution, what: &'static str) {
    let Some(value) = value else { return };
    let start = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        telemetry::panicked(attribution.path(), what);
    }
    attribution.ran(start);
}
