//! A stream's slot in the registry. Dropping it releases the slot.

use std::sync::Arc;
use std::task::Context;

use bytes::BytesMut;
use tokio::time::Instant;

use super::connection::{Entry, Identity, StreamPhase};
use super::extract::Connection;
use super::registry::Registry;
use crate::auth::Principal;
use crate::close::CloseReason;
use crate::telemetry;

/// One stream's slot. Dropping it releases the slot and counts the stream's end.
pub(crate) struct Slot {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    /// `None` if no stream came of it.
    reason: Option<CloseReason>,
    /// Whether the hooks know of the open. `None` as long as the stream has not opened, and without hooks.
    observed: Option<bool>,
}

impl Slot {
    /// A stream whose slot is dropped without [`close`](Self::close) was left by its client.
    pub(super) fn new(registry: Arc<Registry>, entry: Arc<Entry>) -> Self {
        Self { registry, entry, reason: Some(CloseReason::ClientGone), observed: None }
    }

    /// What user code sees of the stream.
    pub(crate) fn connection(&self) -> Connection {
        Connection::new(self.entry.identity.clone(), self.registry.clone())
    }

    pub(crate) fn attribution(&self) -> Attribution {
        Attribution { registry: self.registry.clone(), entry: self.entry.clone() }
    }

    /// Returns the end that was requested, and registers the task: it will be woken for a requested end and
    /// for direct events.
    pub(crate) fn poll_end_request(&self, cx: &Context<'_>) -> Option<CloseReason> {
        self.entry.poll_end_request(cx)
    }

    /// Returns since when the stream is drained, if it is, unless it must end at once.
    pub(crate) fn drained_since(&self) -> Option<Instant> {
        self.entry.drained_since()
    }

    /// Appends directly sent events, up to their share of a write. Call
    /// [`poll_end_request`](Self::poll_end_request) first, so that later events wake the task.
    pub(crate) fn take_direct_events(&self, out: &mut BytesMut) {
        self.entry.take_direct(out);
    }

    /// Accepts no directly sent events.
    pub(crate) fn refuse_direct_events(&self) {
        self.entry.close_direct();
    }

    /// Sets how the stream is cut off if its client does not take the closing event in time.
    pub(crate) fn on_cut(&self, cut: impl Fn(StreamPhase) + Send + Sync + 'static) {
        self.entry.on_cut(cut);
    }

    /// Returns why the stream was cut off, if it was.
    pub(crate) fn was_cut(&self) -> Option<CloseReason> {
        self.entry.was_cut()
    }

    /// Counts and logs that the stream begins, and calls the hooks.
    pub(crate) fn opened(&mut self) {
        let Identity { id, endpoint, principal, .. } = &self.entry.identity;
        telemetry::opened(endpoint, *id, principal.as_ref().map(Principal::subject));
        let observer = self.registry.observer.clone();
        self.observed = observer.map(|observer| observer.opened(&self.registry, &self.entry));
    }

    /// Sets why the stream ends. It accepts no more direct events.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.entry.close_direct();
        self.reason = Some(reason);
    }

    /// Releases the slot of a stream that never began: the response is a refusal, not a stream's end.
    pub(crate) fn release_unused(mut self) {
        self.reason = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.entry.set_ended();
        self.entry.close_direct();
        self.registry.release(&self.entry);
        let Identity { id, endpoint, .. } = &self.entry.identity;
        telemetry::slots(endpoint, -1.0);
        if let Some(reason) = self.reason {
            self.registry.count_closed(reason);
            telemetry::closed(endpoint, *id, reason, self.entry.since.elapsed());
            if let Some((observer, accepted)) = self.registry.observer.clone().zip(self.observed) {
                observer.closed(&self.registry, &self.entry, reason, accepted);
            }
        }
    }
}

/// The stream that running user code belongs to, for logs and counts.
#[derive(Clone)]
pub(crate) struct Attribution {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
}

impl Attribution {
    pub(crate) fn path(&self) -> &str {
        &self.entry.identity.endpoint
    }

    pub(crate) fn id(&self) -> u64 {
        self.entry.identity.id
    }

    /// Runs a future of user code, and measures each of its polls.
    pub(crate) async fn timed<F: Future>(self, code: F) -> F::Output {
        self.registry.timed(self.path(), Some(self.id()), code).await
    }

    /// Counts and logs a gap that was reported to the client.
    pub(crate) fn gap(&self) {
        self.registry.gap(&self.entry);
    }

    /// Call when user code that began at `since` returns or awaits.
    pub(crate) fn ran(&self, since: Instant) {
        self.registry.ran(self.path(), Some(self.id()), since);
    }
}
