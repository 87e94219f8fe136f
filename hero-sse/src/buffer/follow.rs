//! A topic's feed on its way to the writer. Its filters and replies are user code, and run guarded against panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::user_stream::drop_user_value;
use crate::close::CloseReason;
use crate::connections::Attribution;
use crate::frame::{EventName, name_of};
use crate::policy::Policy;
use crate::telemetry;
use crate::topic::{FeedPoll, SlowClientLimits, TopicFeed};

/// A topic's feed that a writer sends.
pub(crate) struct Following {
    /// Always there, until it is dropped.
    feed: Option<Box<dyn TopicFeed>>,
    limits: SlowClientLimits,
    attribution: Attribution,
    /// The event name that the endpoint declares, until the topic's first event was compared with it.
    declared: Option<EventName>,
}

impl Following {
    pub(crate) fn new(
        mut feed: Box<dyn TopicFeed>,
        declared: Option<EventName>,
        policy: &Policy,
        attribution: Attribution,
    ) -> Self {
        let limits = SlowClientLimits {
            overflow: policy.overflow,
            max_lag: policy.buffer.map(|events| events as u64),
            // A client that was sent nothing yet cannot be slow.
            was_idle: true,
        };
        feed.set_profile(policy.profile);
        Self { feed: Some(feed), limits, attribution, declared }
    }

    /// Appends what only this client gets to `out`. What all clients share goes into `shared` if `out` is empty, else to
    /// `out` as well.
    pub(crate) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        shared: &mut Bytes,
    ) -> Option<CloseReason> {
        let feed = self.feed.as_mut()?;
        let (before, start) = (out.len(), Instant::now());
        let limits = self.limits;
        let polled = catch_unwind(AssertUnwindSafe(|| feed.poll(cx, limits, out)));
        self.attribution.ran(start);
        (0..feed.take_gaps()).for_each(|_| self.attribution.gap());
        let nothing_to_send = out.is_empty() && shared.is_empty();
        self.limits.was_idle = nothing_to_send && matches!(polled, Ok(Poll::Pending));
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(FeedPoll::Wrote)) => {
                self.check_name(out.get(before..).unwrap_or_default());
                None
            }
            Ok(Poll::Ready(FeedPoll::Shared(frames))) => {
                self.check_name(&frames);
                if out.is_empty() {
                    *shared = frames;
                } else {
                    out.extend_from_slice(&frames);
                }
                None
            }
            Ok(Poll::Ready(FeedPoll::Over(reason))) => Some(reason),
            Ok(Poll::Ready(FeedPoll::Failed(error))) => {
                telemetry::stream_error(self.attribution.path(), self.attribution.id(), &error);
                Some(CloseReason::StreamError)
            }
            Err(_) => {
                out.truncate(before);
                telemetry::panicked(self.attribution.path(), "subscription");
                Some(CloseReason::StreamPanic)
            }
        }
    }

    /// Logs when the endpoint declares an event name that the topic's events do not have. A page would listen for it in
    /// vain.
    fn check_name(&mut self, frames: &[u8]) {
        let Some(declared) = &self.declared else { return };
        let name = name_of(frames).map_or("message".into(), String::from_utf8_lossy);
        if name.starts_with("hero.") {
            return;
        }
        if name != declared.as_str() {
            telemetry::event_name_ignored(self.attribution.path(), declared, &name);
        }
        self.declared = None;
    }

    pub(crate) fn take_retry(&mut self) -> Option<Duration> {
        self.feed.as_mut()?.take_retry()
    }

    /// Appends `hero.cursor` if the client could not resume from here with the ids it has.
    pub(crate) fn write_cursor(&mut self, out: &mut BytesMut) {
        if let Some(feed) = &mut self.feed {
            feed.write_cursor(out);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop_user_value(self.feed.take(), &self.attribution, "subscription's drop");
    }
}
