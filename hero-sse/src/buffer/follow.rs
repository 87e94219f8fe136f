//! A topic's subscription on its way to the writer: its filters and hooks are the application's code, and run
//! under guard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::user_stream::drop_user_value;
use crate::close::CloseReason;
use crate::connections::Attribution;
use crate::frame::{EventName, name_of};
use crate::policy::Policy;
use crate::telemetry;
use crate::topic::{FeedPoll, Feeds, Patience};

/// A subscription that a writer follows.
pub(crate) struct Following {
    /// Gone once it is over.
    feed: Option<Feeds>,
    patience: Patience,
    origin: Attribution,
    /// The name that the endpoint declares, until an event has shown whether the topic's have it.
    declared: Option<EventName>,
}

impl Following {
    pub(crate) fn new(
        feed: Feeds,
        declared: Option<EventName>,
        policy: &Policy,
        origin: Attribution,
    ) -> Self {
        let patience = Patience {
            overflow: policy.overflow,
            most: policy.buffer.map(|frames| frames as u64),
            // Nobody is slow who has not been sent anything yet.
            waited: true,
        };
        Self { feed: Some(feed), patience, origin, declared }
    }

    /// Appends what is for this client alone to `out`; what many share goes into `shared`, or behind it.
    pub(crate) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        shared: &mut Bytes,
    ) -> Option<CloseReason> {
        let feed = self.feed.as_mut()?;
        let (before, start) = (out.len(), Instant::now());
        let patience = self.patience;
        let fed = catch_unwind(AssertUnwindSafe(|| feed.poll(cx, patience, out)));
        self.origin.ran(start);
        (0..feed.take_gaps()).for_each(|_| self.origin.gap());
        let nothing = out.is_empty() && shared.is_empty();
        self.patience.waited = nothing && matches!(fed, Ok(Poll::Pending));
        match fed {
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
                telemetry::stream_error(self.origin.path(), self.origin.id(), &error);
                Some(CloseReason::StreamError)
            }
            Err(_) => {
                out.truncate(before);
                telemetry::panicked(self.origin.path(), "subscription");
                Some(CloseReason::StreamPanic)
            }
        }
    }

    /// A page listens to the name that is declared, and a topic's events have their own: that would fail in silence.
    fn check_name(&mut self, frames: &[u8]) {
        let Some(declared) = &self.declared else { return };
        let name = name_of(frames).map_or("message".into(), String::from_utf8_lossy);
        if name.starts_with("hero.") {
            return;
        }
        if name != declared.as_str() {
            telemetry::other_name(self.origin.path(), declared, &name);
        }
        self.declared = None;
    }

    pub(crate) fn mark(&mut self, out: &mut BytesMut) {
        if let Some(feed) = &mut self.feed {
            feed.mark(out);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop_user_value(self.feed.take(), &self.origin, "subscription's drop");
    }
}
