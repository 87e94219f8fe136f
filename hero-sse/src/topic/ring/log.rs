//! The newest events of a topic, bounded by count, bytes and age. Nothing here is shared between threads.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::position::EpochIds;

/// A batch holds events of at max this many bytes together, or one larger event.
pub(crate) const BATCH: usize = 16 * 1024;

/// A reader that lags at max this many events is never slow, however large they are.
pub(super) const NEVER_SLOW: u64 = 16;

/// The published event itself, for filters, snapshots and `Published`.
pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// One epoch of a log. Two are the same if they share one allocation: in another epoch an offset means another event.
pub(crate) type LogEpoch = Arc<EpochIds>;

/// How much of a topic is retained. The oldest events are evicted when one of these limits is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Maximum number of events.
    pub events: usize,
    /// Maximum size of the encoded events, in bytes.
    pub bytes: usize,
    /// Maximum age of an event. `None`: unlimited.
    pub age: Option<Duration>,
}

/// One event, encoded.
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// Its id, and the body.
    pub(crate) frame: Bytes,
    /// Where the body begins in the frame.
    pub(crate) body: usize,
    /// Whether clients dispatch it. A comment, for example, has no data.
    pub(crate) has_data: bool,
    pub(crate) name: Option<Box<[u8]>>,
    pub(crate) key: Option<Box<str>>,
    pub(crate) last: bool,
    pub(crate) value: Option<Value>,
    /// When it was appended, counted from when the ring was made.
    pub(crate) at: Duration,
}

impl Entry {
    fn compaction_key(&self) -> CompactionKey {
        (self.has_data, self.name.clone(), self.key.clone())
    }
}

/// Name and key of an event. A log of latest values retains one event of each. An event without data replaces none that
/// has data.
type CompactionKey = (bool, Option<Box<[u8]>>, Option<Box<str>>);

/// What a reader at the offset `from` reads at once; then it stands at `to`.
pub(crate) struct Batch {
    pub(super) epoch: LogEpoch,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// All frames, joined.
    pub(crate) bytes: Bytes,
    pub(crate) entries: Box<[Arc<Entry>]>,
    /// The log's next offset when the batch was made.
    pub(super) log_next: u64,
    /// Whether only the newest events of each name and key are left that the reader's filter accepts.
    pub(crate) is_compacted: bool,
    /// Found out by the first reader that asks.
    pub(crate) special: OnceLock<SpecialEvents>,
}

/// Whether a batch has events of kinds that are rare.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SpecialEvents {
    /// Events with a reconnection time.
    pub(crate) retries: bool,
    /// Events that an `EventSource` would pass to a handler of its own.
    pub(crate) traps: bool,
}

impl Batch {
    pub(super) fn empty(epoch: LogEpoch, at: u64) -> Self {
        let (bytes, entries) = (Bytes::new(), Box::default());
        let special = OnceLock::new();
        Self { epoch, from: at, to: at, bytes, entries, log_next: at, is_compacted: false, special }
    }

    /// Joins as many of these entries as fit. They are all that the log has between the two offsets.
    pub(super) fn of(
        epoch: LogEpoch,
        (from, log_next): (u64, u64),
        entries: impl Iterator<Item = Arc<Entry>>,
    ) -> Self {
        let (mut taken, mut size, mut to) = (Vec::new(), 0, log_next);
        for entry in entries {
            if !taken.is_empty() && size + entry.frame.len() > BATCH {
                to = entry.offset;
                break;
            }
            size += entry.frame.len();
            taken.push(entry);
        }
        let bytes = match taken.as_slice() {
            [only] => only.frame.clone(),
            many => {
                let mut bytes = BytesMut::with_capacity(size);
                many.iter().for_each(|entry| bytes.extend_from_slice(&entry.frame));
                bytes.freeze()
            }
        };
        let (entries, special) = (taken.into(), OnceLock::new());
        Self { epoch, from, to, bytes, entries, log_next, is_compacted: false, special }
    }
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a last event, on every node: no event will follow.
    Last,
    /// Without one, on this node alone. A new epoch does not reopen it.
    Closed,
}

/// Events that a reader can no longer get.
#[derive(Clone)]
pub(crate) struct Missed {
    /// The epoch of `from` and `to`.
    pub(crate) epoch: LogEpoch,
    /// The reader's offset. `None`: it read another epoch of the log.
    pub(crate) from: Option<u64>,
    /// The oldest offset that it can get.
    pub(crate) to: u64,
    /// Whether each offset in between was an event: not so in a log of latest values.
    pub(crate) is_countable: bool,
    /// Whether the events never reached this node, so that no reader could have been fast enough.
    pub(crate) was_lost: bool,
}

/// The state that a topic computes from its events.
pub(crate) trait Snapshot: Send {
    /// Sets the topic's name, for log messages.
    fn set_topic(&mut self, topic: &str);

    /// Returns to the initial state.
    fn reset(&mut self);

    fn apply(&mut self, value: &Value);

    /// Returns the state as the body of a frame.
    fn encode(&mut self) -> Result<Bytes, String>;
}

/// The retained events, and the state of the log.
pub(super) struct Log {
    pub(super) retention: Retention,
    pub(super) events: Events,
    /// The offset of the next event. The first event of an epoch has offset 1.
    pub(super) next: u64,
    /// Events before this offset are no longer retained.
    pub(super) first: u64,
    pub(super) bytes: usize,
    /// A reader before this offset is slow: more than three quarters of what is retained was appended since.
    pub(super) slow: u64,
    /// The size of the events from `slow` on.
    pub(super) slow_bytes: usize,
    /// Events before this offset never reached this node.
    pub(super) lost_before: u64,
    pub(super) epoch: LogEpoch,
    pub(super) end: Option<End>,
    pub(super) snapshot: Option<Box<dyn Snapshot>>,
    /// Evicted events. Dropping one runs user code, so they are dropped without the lock.
    pub(super) evicted: Vec<Arc<Entry>>,
}

/// The retained events, in order.
pub(super) enum Events {
    All(VecDeque<Arc<Entry>>),
    /// The newest event of each name and key.
    Latest {
        events: BTreeMap<u64, Arc<Entry>>,
        offsets: HashMap<CompactionKey, u64>,
    },
}

impl Log {
    pub(super) fn new(
        retention: Retention,
        latest: bool,
        snapshot: Option<Box<dyn Snapshot>>,
        epoch: LogEpoch,
    ) -> Self {
        let events = match latest {
            false => Events::All(VecDeque::new()),
            true => Events::Latest { events: BTreeMap::new(), offsets: HashMap::new() },
        };
        Self {
            retention,
            events,
            next: 1,
            first: 1,
            bytes: 0,
            slow: 1,
            slow_bytes: 0,
            lost_before: 1,
            epoch,
            end: None,
            snapshot,
            evicted: Vec::new(),
        }
    }

    /// Evicts all events, and continues at this offset.
    pub(super) fn restart(&mut self, next: u64) {
        self.events.clear(&mut self.evicted);
        (self.next, self.first, self.slow, self.lost_before) = (next, next, next, next);
        (self.bytes, self.slow_bytes) = (0, 0);
    }

    pub(super) fn push(&mut self, entry: Entry, next: u64) {
        if let (Some(snapshot), Some(value)) = (&mut self.snapshot, &entry.value) {
            snapshot.apply(value);
        }
        let (size, now) = (entry.frame.len(), entry.at);
        self.bytes += size;
        self.next = next;
        match &mut self.events {
            Events::All(events) => {
                self.slow_bytes += size;
                events.push_back(Arc::new(entry));
            }
            Events::Latest { events, offsets } => {
                if let Some(older) = offsets.insert(entry.compaction_key(), entry.offset)
                    && let Some(older) = events.remove(&older)
                {
                    self.bytes -= older.frame.len();
                    self.evicted.push(older);
                }
                events.insert(entry.offset, Arc::new(entry));
            }
        }
        self.evict(now);
        self.mark_slow();
    }

    /// Evicts what exceeds the retention.
    pub(super) fn evict(&mut self, now: Duration) {
        let Retention { events: max, bytes, age } = self.retention;
        while let Some(oldest) = self.events.oldest() {
            let is_too_old = age.is_some_and(|age| now.saturating_sub(oldest.at) > age);
            // A replay must always reach the end.
            if oldest.last || !(is_too_old || self.events.len() > max || self.bytes > bytes) {
                break;
            }
            let offset = oldest.offset;
            self.first = offset + 1;
            if let Some(evicted) = self.events.remove(offset) {
                self.bytes -= evicted.frame.len();
                if self.slow <= offset {
                    self.slow_bytes = self.slow_bytes.saturating_sub(evicted.frame.len());
                }
                self.evicted.push(evicted);
            }
        }
        self.slow = self.slow.max(self.first);
    }

    /// Moves `slow` on. In a log of latest values no reader is slow: what it must read has a bound.
    fn mark_slow(&mut self) {
        let Events::All(events) = &self.events else { return };
        let Retention { events: max, bytes, .. } = self.retention;
        let (max, bytes) = ((max - max.div_ceil(4)) as u64, bytes - bytes.div_ceil(4));
        while self.next - self.slow > NEVER_SLOW
            && (self.next - self.slow > max || self.slow_bytes > bytes)
        {
            let index = usize::try_from(self.slow - self.first).unwrap_or(usize::MAX);
            let size = events.get(index).map_or(0, |entry| entry.frame.len());
            self.slow_bytes = self.slow_bytes.saturating_sub(size);
            self.slow += 1;
        }
    }

    /// Returns the size of the retained events from this offset on.
    pub(super) fn bytes_since(&self, offset: u64) -> usize {
        self.events.since(offset).map(|entry| entry.frame.len()).sum()
    }

    /// Returns what a reader at this offset can no longer get.
    pub(super) fn missed(&self, next: u64, epoch: &LogEpoch) -> Option<Missed> {
        if !Arc::ptr_eq(epoch, &self.epoch) {
            return Some(self.missing(None, true));
        }
        (next < self.first).then(|| self.missing(Some(next), self.first <= self.lost_before))
    }

    /// Returns everything from there to the oldest retained event as missed.
    pub(super) fn missing(&self, from: Option<u64>, was_lost: bool) -> Missed {
        let is_countable = matches!(self.events, Events::All(_));
        Missed { epoch: self.epoch.clone(), from, to: self.first, is_countable, was_lost }
    }
}

impl Events {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(events) => events.len(),
            Self::Latest { events, .. } => events.len(),
        }
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::All(events) => events.front(),
            Self::Latest { events, .. } => events.first_key_value().map(|(_, entry)| entry),
        }
    }

    pub(super) fn newest(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::All(events) => events.back(),
            Self::Latest { events, .. } => events.last_key_value().map(|(_, entry)| entry),
        }
    }

    /// Returns the offset at which the newest `count` events begin. `None`: there are none.
    pub(super) fn newest_from(&self, count: usize) -> Option<u64> {
        let older =
            self.len().checked_sub(count.min(self.len())).filter(|older| *older < self.len())?;
        match self {
            Self::All(events) => events.get(older).map(|entry| entry.offset),
            Self::Latest { events, .. } if older == 0 => events.keys().next().copied(),
            Self::Latest { events, .. } => events.keys().rev().nth(count - 1).copied(),
        }
    }

    /// Removes the oldest event, which has this offset.
    fn remove(&mut self, offset: u64) -> Option<Arc<Entry>> {
        match self {
            Self::All(events) => events.pop_front(),
            Self::Latest { events, offsets } => {
                let evicted = events.remove(&offset)?;
                offsets.remove(&evicted.compaction_key());
                Some(evicted)
            }
        }
    }

    fn clear(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        match self {
            Self::All(events) => evicted.extend(events.drain(..)),
            Self::Latest { events, offsets } => {
                evicted.extend(std::mem::take(events).into_values());
                offsets.clear();
            }
        }
    }

    /// Returns the events from this offset on, in order.
    pub(super) fn since(
        &self,
        offset: u64,
    ) -> Box<dyn DoubleEndedIterator<Item = Arc<Entry>> + '_> {
        match self {
            Self::All(events) => {
                let first = events.front().map_or(0, |entry| entry.offset);
                let index = usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX);
                Box::new(events.range(index.min(events.len())..).cloned())
            }
            Self::Latest { events, .. } => {
                Box::new(events.range(offset..).map(|(_, entry)| entry.clone()))
            }
        }
    }
}
