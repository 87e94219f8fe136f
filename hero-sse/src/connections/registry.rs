//! The table of open streams, its counts, and admission under its lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::connection::{Caller, Entry};
use super::filter::ConnectionFilter;
use super::limits::{AdmissionError, CallerKey, Counts, Keys, Limits};
use crate::close::CloseReason;
use crate::telemetry;
use crate::throttle::{LogThrottle, RateLimiter};

/// User code that keeps a thread busy for this long delays everything else that is to run there.
pub(super) const BLOCKING: Duration = Duration::from_millis(100);

/// Number of disconnects that are remembered for requests on their way in. A request that is overtaken by
/// more of them is checked again.
pub(super) const REMEMBERED_DISCONNECTS: usize = 256;

/// The first id of a registry is below this. So all ids stay below 2^53, which JavaScript can represent.
const FIRST_IDS: u64 = 1 << 52;

pub(super) struct Registry {
    table: Mutex<Table>,
    next_id: AtomicU64,
    /// Number of disconnects so far. Changed under the lock.
    disconnects: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    pub(super) blocking: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) observer: Option<Arc<dyn Observer>>,
}

#[derive(Default)]
pub(super) struct Table {
    /// By id.
    pub(super) streams: HashMap<u64, Arc<Entry>>,
    pub(super) counts: Counts,
    rate_limiter: RateLimiter<Arc<CallerKey>>,
    log_throttle: LogThrottle<(Arc<str>, &'static str)>,
    pub(super) closed_endpoints: HashSet<Arc<str>>,
    pub(super) draining: bool,
    /// The filters of the last disconnects.
    recent_disconnects: VecDeque<ConnectionFilter>,
}

/// What is called for every stream that opens and closes: the application's hooks.
pub(super) trait Observer: Send + Sync {
    /// Returns whether the close of this stream will be observed as well.
    fn opened(self: Arc<Self>, registry: &Arc<Registry>, entry: &Entry) -> bool;

    /// Call for each stream that has opened. `open_accepted` is what [`opened`](Self::opened) returned.
    fn closed(
        self: Arc<Self>,
        registry: &Arc<Registry>,
        entry: &Entry,
        reason: CloseReason,
        open_accepted: bool,
    );

    /// Resolves when no call waits or runs. Drops what is unfinished at `until`.
    fn finish(
        self: Arc<Self>,
        registry: Arc<Registry>,
        until: Option<Instant>,
    ) -> BoxFuture<'static, ()>;

    /// Number of calls that were dropped.
    fn dropped(&self) -> u64;
}

impl Registry {
    pub(super) fn new(observer: Option<Arc<dyn Observer>>) -> Self {
        Self {
            observer,
            table: Mutex::default(),
            // Random, so that an id from before a restart, or from another node, is nobody's.
            next_id: AtomicU64::new(fastrand::u64(..FIRST_IDS)),
            disconnects: AtomicU64::default(),
            closed: [const { AtomicU64::new(0) }; CloseReason::ALL.len()],
            blocking: AtomicU64::default(),
            gaps: AtomicU64::default(),
        }
    }

    /// No code that can panic runs under the lock, so a poisoned lock is still sound.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the matching streams. Wake and drop them without the lock.
    pub(super) fn matching(&self, filter: &ConnectionFilter) -> Vec<Arc<Entry>> {
        self.lock().matching(filter)
    }

    /// Adds a stream to the table, or returns why it is not admitted.
    pub(super) fn admit(
        &self,
        path: &Arc<str>,
        caller: Caller<'_>,
        limits: &Limits,
    ) -> Result<Arc<Entry>, AdmissionError> {
        let now = Instant::now();
        let id = caller.id.unwrap_or_else(|| self.next_id());
        let entry = Entry::new(id, path, caller);
        let mut table = self.lock();
        // Under the lock: a disconnect either came before, or finds the stream in the table.
        let overtaken_by = self.disconnects().saturating_sub(caller.disconnects_before);
        if table.was_disconnected(&entry, overtaken_by, now) {
            return Err(AdmissionError::Changed);
        }
        if let Err(error) = table.check(&entry.keys(), limits, now) {
            let log_line = table.log_throttle.allow((path.clone(), error.as_str()), now);
            drop(table);
            self.count_rejected(path, error);
            match (error, log_line) {
                (AdmissionError::Draining | AdmissionError::Closed, _) => {
                    telemetry::rejected_late(path, error.as_str());
                }
                (_, Some(suppressed)) => telemetry::over_limit(path, error.as_str(), suppressed),
                (_, None) => {}
            }
            return Err(error);
        }
        table.counts.add(&entry.keys());
        table.streams.insert(id, entry.clone());
        drop(table);
        telemetry::slots(path, 1.0);
        Ok(entry)
    }

    /// Returns the id of a stream that may be admitted later.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn release(&self, entry: &Entry) {
        let mut table = self.lock();
        table.streams.remove(&entry.identity.id);
        table.counts.remove(&entry.keys());
    }

    /// Number of disconnects so far. A caller that is checked after reading it has them behind it.
    pub(super) fn disconnects(&self) -> u64 {
        self.disconnects.load(Ordering::Acquire)
    }

    /// Records a disconnect for requests on their way in, and returns the matching streams.
    pub(super) fn disconnect(&self, filter: &ConnectionFilter) -> Vec<Arc<Entry>> {
        let mut table = self.lock();
        self.disconnects.fetch_add(1, Ordering::AcqRel);
        if table.recent_disconnects.len() == REMEMBERED_DISCONNECTS {
            table.recent_disconnects.pop_front();
        }
        table.recent_disconnects.push_back(filter.clone());
        table.matching(filter)
    }

    /// Counts a rejected request as the end of a stream that never began.
    pub(super) fn count_rejected(&self, path: &str, error: AdmissionError) {
        self.count_closed(error.reason());
        telemetry::rejected(path, error.reason(), error.as_str());
    }

    pub(super) fn count_closed(&self, reason: CloseReason) {
        if let Some(count) = self.closed.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn closed(&self, reason: CloseReason) -> u64 {
        self.closed.get(reason.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Runs a future of user code, and measures each of its polls.
    pub(super) async fn timed<F: Future>(
        &self,
        path: &str,
        connection: Option<u64>,
        code: F,
    ) -> F::Output {
        let mut code = pin!(code);
        poll_fn(|cx| {
            let start = Instant::now();
            let output = code.as_mut().poll(cx);
            self.ran(path, connection, start);
            output
        })
        .await
    }

    /// Call when user code that began at `since` returns or awaits. The clock is Tokio's, so that tests can
    /// hold and advance it.
    pub(super) fn ran(&self, path: &str, connection: Option<u64>, since: Instant) {
        let took = since.elapsed();
        if took >= BLOCKING {
            self.blocking.fetch_add(1, Ordering::Relaxed);
            telemetry::blocking(path, connection, took);
        }
    }

    /// Counts and logs a gap that was reported to a client.
    pub(super) fn gap(&self, entry: &Entry) {
        entry.count_gap();
        self.gaps.fetch_add(1, Ordering::Relaxed);
        telemetry::gap(&entry.identity.endpoint, entry.identity.id);
    }
}

impl Table {
    fn matching(&self, filter: &ConnectionFilter) -> Vec<Arc<Entry>> {
        self.select(filter).cloned().collect()
    }

    pub(super) fn select(&self, filter: &ConnectionFilter) -> impl Iterator<Item = &Arc<Entry>> {
        let now = Instant::now();
        let (one, all) = match filter.id {
            // Sending to one stream must not cost a walk over all of them.
            Some(id) => (self.streams.get(&id), None),
            None => (None, Some(self.streams.values())),
        };
        let streams = one.into_iter().chain(all.into_iter().flatten());
        streams.filter(move |entry| filter.matches(entry, now))
    }

    /// Whether one of the last `count` disconnects matches this stream, or may have matched it.
    fn was_disconnected(&self, entry: &Entry, count: u64, now: Instant) -> bool {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut filters = self.recent_disconnects.iter().rev().take(count);
        count > self.recent_disconnects.len() || filters.any(|filter| filter.matches(entry, now))
    }

    fn check(
        &mut self,
        keys: &Keys<'_>,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), AdmissionError> {
        if self.draining {
            return Err(AdmissionError::Draining);
        }
        if self.closed_endpoints.contains(keys.path) {
            return Err(AdmissionError::Closed);
        }
        // Before the other limits: an attempt counts even if one of them rejects it.
        if let Some((caller, per_minute)) = keys.caller.zip(limits.connects_per_minute) {
            let attempt = self.rate_limiter.attempt(caller, per_minute, now);
            attempt.map_err(AdmissionError::RateLimited)?;
        }
        self.counts.check(self.streams.len(), keys, limits)
    }
}
