//! A topic's subscription on its way to the writer: its filters and hooks are the application's code, and run
//! under guard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::close::CloseReason;
use crate::connections::Origin;
use crate::policy::{Overflow, Policy};
use crate::telemetry;
use crate::topic::{Fed, Feed, Patience};

/// A subscription that a writer follows.
pub(crate) struct Following {
    /// Gone once it is over.
    feed: Option<Box<Feed>>,
    patience: Patience,
    origin: Origin,
}

impl Following {
    pub(crate) fn new(feed: Box<Feed>, policy: &Policy, origin: Origin) -> Self {
        let patience = Patience {
            overflow: policy.overflow.unwrap_or(Overflow::Disconnect),
            most: policy.buffer.map(|frames| frames as u64),
        };
        Self { feed: Some(feed), patience, origin }
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
        match fed {
            Ok(Poll::Pending | Poll::Ready(Fed::Wrote)) => None,
            Ok(Poll::Ready(Fed::Shared(frames))) => {
                if out.is_empty() {
                    *shared = frames;
                } else {
                    out.extend_from_slice(&frames);
                }
                None
            }
            Ok(Poll::Ready(Fed::Over(reason))) => Some(reason),
            Ok(Poll::Ready(Fed::Failed(error))) => {
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

    pub(crate) fn mark(&mut self, out: &mut BytesMut) {
        if let Some(feed) = &mut self.feed {
            feed.mark(out);
        }
    }
}

/// What the application gave the subscription is dropped with it.
impl Drop for Following {
    fn drop(&mut self) {
        let Some(feed) = self.feed.take() else { return };
        let start = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| drop(feed))).is_err() {
            telemetry::panicked(self.origin.path(), "subscription's drop");
        }
        self.origin.ran(start);
    }
}
