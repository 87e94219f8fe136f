//! Repeats the permission check of an open stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::{AccessControl, AccessRequest, PendingDecision};
use crate::close::CloseReason;
use crate::connections::Attribution;
use crate::duration::shortened;

/// Checks now and then whether a stream's caller still has its permission. The writer polls it, so it needs
/// neither a task nor a timer.
pub(crate) struct Reauthorization {
    access: AccessControl,
    request: Arc<AccessRequest>,
    attribution: Attribution,
    interval: Duration,
    /// When the next check starts.
    due: Instant,
    check: Option<PendingDecision>,
    /// When the running check times out, if it does.
    times_out: Option<Instant>,
}

impl Reauthorization {
    /// `since` is the time of the last check.
    pub(crate) fn new(
        access: AccessControl,
        request: Arc<AccessRequest>,
        attribution: Attribution,
        interval: Duration,
        since: Instant,
    ) -> Self {
        let due = since + shortened(interval);
        Self { access, request, attribution, interval, due, check: None, times_out: None }
    }

    /// Returns when it must be polled at the latest, even if nothing wakes the writer until then.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        if self.check.is_some() { self.times_out } else { Some(self.due) }
    }

    /// Returns why the stream must end, if it must.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<CloseReason> {
        if self.check.is_none() && now >= self.due {
            self.times_out = self.access.timeout.map(|timeout| now + timeout);
            self.check = Some(self.access.decide(self.request.clone(), true));
        }
        let check = self.check.as_mut()?;
        let start = Instant::now();
        let answer = Pin::new(check).poll(cx);
        self.attribution.ran(start);
        let answer = match answer {
            Poll::Ready(answer) => answer,
            Poll::Pending if self.times_out.is_some_and(|at| now >= at) => {
                Err(self.access.timed_out(&self.request))
            }
            Poll::Pending => return None,
        };
        self.check = None;
        self.due = now + shortened(self.interval);
        let refusal = answer.err()?;
        Some(match refusal.is_unverified() {
            true => CloseReason::Unverified,
            false => CloseReason::Revoked,
        })
    }

    #[cfg(test)]
    pub(super) fn start_now(&mut self) {
        self.due = Instant::now();
    }

    #[cfg(test)]
    pub(super) fn set_running(&mut self, check: PendingDecision) {
        self.check = Some(check);
    }
}
