//! A reader of a ring: an offset, and a waker that new events wake.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::super::position::EpochIds;
use super::Ring;
use super::log::{BATCH, Batch, End, Entry, LogEpoch, Missed};
use super::waiters::Waiter;

/// To find the newest event of each key, a reader compares at most this many events at once, and at most eight
/// batches of bytes. Without a limit a reader far behind would compare all of them again for each batch.
const MAX_COMPARED: usize = 1024;

/// A reader of a ring.
pub(crate) struct Cursor {
    ring: Arc<Ring>,
    next: u64,
    epoch: LogEpoch,
    waiter: Arc<Waiter>,
}

/// The filter of a reader that wants only the newest event of each name and key. `None`: it wants all events.
pub(crate) type Newest<'a> = Option<&'a mut dyn FnMut(&Entry) -> bool>;

/// Where a new reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartAt {
    /// With the oldest retained event.
    Oldest,
    /// With this many of the newest events. A log that ended with a last event starts with that at least.
    Recent(usize),
}

/// What a reader reads.
pub(crate) enum Read {
    Batch(Arc<Batch>),
    Missed(Missed),
    Over(End),
}

impl Cursor {
    /// A reader that starts with the next event; in a log of latest values with all of them.
    pub(crate) fn new(ring: &Arc<Ring>) -> Self {
        let epoch = ring.head.load().batch.epoch.clone();
        let waiter = ring.waiters.register();
        let mut cursor = Self { ring: ring.clone(), next: 0, epoch, waiter };
        cursor.start_at(if ring.latest { StartAt::Oldest } else { StartAt::Recent(0) });
        cursor
    }

    pub(crate) fn start_at(&mut self, start: StartAt) {
        let log = self.ring.lock();
        let newest = match start {
            StartAt::Oldest => usize::MAX,
            StartAt::Recent(count) => count.max(usize::from(log.end == Some(End::Last))),
        };
        self.next = log.events.newest_from(newest).unwrap_or(log.next);
        self.epoch = log.epoch.clone();
    }

    /// Moves after the event whose offset `read` returns; `None` means an id of another epoch or topic.
    ///
    /// The event may not have arrived yet: another node made the id, and this one is behind it.
    pub(crate) fn resume(&mut self, read: impl FnOnce(&EpochIds) -> Option<u64>) -> Option<Missed> {
        let epoch = self.ring.head.load().batch.epoch.clone();
        let offset = read(&epoch);
        let log = self.ring.lock();
        self.epoch = log.epoch.clone();
        match offset.filter(|_| Arc::ptr_eq(&epoch, &log.epoch)) {
            Some(offset) => {
                self.next = offset.saturating_add(1);
                log.missed(self.next, &log.epoch)
            }
            None => {
                self.next = log.first;
                Some(log.missing(None, true))
            }
        }
    }

    /// Returns the topic's snapshot, and moves after the events in it. A last event stays ahead: it ends the stream.
    pub(crate) fn snapshot(&mut self) -> Option<Result<Bytes, String>> {
        let mut log = self.ring.lock();
        let snapshot = log.snapshot.as_mut()?.encode();
        let last = u64::from(log.end == Some(End::Last));
        (self.next, self.epoch) = (log.next - last, log.epoch.clone());
        Some(snapshot)
    }

    /// Returns the offset of the next event to read.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the epoch of the next event to read.
    pub(crate) fn epoch(&self) -> &LogEpoch {
        &self.epoch
    }

    /// Returns what the reader misses if it skips to the last `max` events; `None` if it is not that far behind.
    pub(crate) fn skip_to_last(&self, max: u64) -> Option<Missed> {
        let (lag, _) = self.lag();
        if lag <= max || self.ring.latest {
            return None;
        }
        let log = self.ring.lock();
        let to = log.next.saturating_sub(max).max(log.first);
        let skips = Arc::ptr_eq(&self.epoch, &log.epoch) && self.next < to;
        skips.then(|| Missed { to, ..log.missing(Some(self.next), false) })
    }

    pub(crate) fn move_past(&mut self, missed: &Missed) {
        (self.next, self.epoch) = (missed.to, missed.epoch.clone());
    }

    /// Moves back to an event that was read, and not used.
    pub(crate) fn back_to(&mut self, offset: u64) {
        self.next = offset;
    }

    /// Moves after all events. A last event stays ahead: it ends the stream.
    pub(crate) fn skip_to_end(&mut self) {
        let head = self.ring.head.load();
        let last = u64::from(head.end == Some(End::Last));
        (self.next, self.epoch) = (head.batch.to - last, head.batch.epoch.clone());
    }

    /// Returns how many offsets the reader is behind, and whether it is slow. In a new epoch it is neither.
    pub(crate) fn lag(&self) -> (u64, bool) {
        let head = self.ring.head.load();
        if !Arc::ptr_eq(&head.batch.epoch, &self.epoch) {
            return (0, false);
        }
        (head.batch.to.saturating_sub(self.next), head.slow.is_some_and(|slow| self.next < slow))
    }

    /// Whether a reader at this offset would be slow.
    pub(crate) fn is_slow_at(&self, offset: u64) -> bool {
        self.ring.head.load().slow.is_some_and(|slow| offset < slow)
    }

    /// Reads the next events. With `newest`, of the events that wait, only the newest of each name and key.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, mut newest: Newest<'_>) -> Poll<Read> {
        // A log of latest values holds no others.
        newest = newest.filter(|_| !self.ring.latest);
        if let Some(read) = self.try_read(&mut newest) {
            return Poll::Ready(read);
        }
        self.waiter.register(cx.waker());
        // An event that came before the waker was registered has woken nobody.
        self.try_read(&mut newest).map_or(Poll::Pending, Poll::Ready)
    }

    fn try_read(&mut self, newest: &mut Newest<'_>) -> Option<Read> {
        let head = self.ring.head.load();
        if Arc::ptr_eq(&head.batch.epoch, &self.epoch) && head.batch.to <= self.next {
            return head.end.map(Read::Over);
        }
        // Of several events, one may replace another.
        let needs_no_comparison = newest.is_none() || head.batch.entries.len() < 2;
        let batch = self.if_next(&head.batch).filter(|_| needs_no_comparison);
        let log_next = head.batch.to;
        drop(head);
        if let Some(batch) = batch {
            return Some(self.take(batch));
        }
        Some(match newest {
            Some(filter) => self.read_newest(filter),
            None => self.catch_up(log_next),
        })
    }

    /// Reads the batch that another reader made at this offset; else makes one from the log, and shares it.
    fn catch_up(&mut self, log_next: u64) -> Read {
        // In a log of latest values an older batch may hold events that were replaced since.
        let is_current = |batch: &Arc<Batch>| !self.ring.latest || batch.log_next == log_next;
        if let Some(batch) = self.if_next(&self.ring.catch_up_batch.load()).filter(is_current) {
            return self.take(batch);
        }
        let log = self.ring.lock();
        if let Some(missed) = log.missed(self.next, &self.epoch) {
            return Read::Missed(missed);
        }
        let (epoch, range) = (log.epoch.clone(), (self.next, log.next));
        let batch = Arc::new(Batch::of(epoch, range, log.events.since(self.next)));
        drop(log);
        self.ring.catch_up_batch.store(batch.clone());
        self.take(batch)
    }

    fn read_newest(&mut self, filter: &mut dyn FnMut(&Entry) -> bool) -> Read {
        let log = self.ring.lock();
        if let Some(missed) = log.missed(self.next, &self.epoch) {
            return Read::Missed(missed);
        }
        let mut size = 0;
        let waiting = log.events.since(self.next).take(MAX_COMPARED).take_while(|entry| {
            let has_room = size < 8 * BATCH;
            size += entry.frame.len();
            has_room
        });
        let mut entries: Vec<_> = waiting.collect();
        let end = entries.last().map_or(log.next, |last| last.offset + 1);
        let (epoch, from) = (log.epoch.clone(), self.next);
        // Comparing takes time, and publishers need the lock.
        drop(log);
        entries.retain(|entry| filter(entry));
        let newest = newest_of(entries).into_iter();
        self.take(Arc::new(Batch { is_compacted: true, ..Batch::of(epoch, (from, end), newest) }))
    }

    /// Returns the batch if it is the one that this reader reads next.
    fn if_next(&self, batch: &Arc<Batch>) -> Option<Arc<Batch>> {
        let same_epoch = Arc::ptr_eq(&batch.epoch, &self.epoch);
        let is_next = same_epoch && batch.from == self.next && batch.to > self.next;
        is_next.then(|| batch.clone())
    }

    fn take(&mut self, batch: Arc<Batch>) -> Read {
        self.next = batch.to;
        Read::Batch(batch)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.ring.waiters.unregister(&self.waiter);
    }
}

/// Returns the newest event of each name and key, in order.
fn newest_of(entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let mut seen = HashSet::new();
    let newest =
        entries.iter().rev().filter(|entry| seen.insert((entry.has_data, &entry.name, &entry.key)));
    let mut newest: Vec<_> = newest.cloned().collect();
    newest.reverse();
    newest
}
