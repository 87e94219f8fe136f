//! What a ring keeps: the newest events of a topic, bounded by count, bytes and age. It knows nothing of threads.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Ids;

/// Frames leave together up to this many bytes; a larger one alone.
pub(crate) const BATCH: usize = 16 * 1024;

/// So few events behind nobody is slow, whatever they weigh.
pub(super) const NEAR: u64 = 16;

/// What an event is beside its bytes.
pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// One life of a log, and what its ids are made with. Another one is another log, whatever the offsets say:
/// they are compared by where they stand in memory.
pub(crate) type Life = Arc<Ids>;

/// How much of a topic is kept: the oldest goes when one of these is exceeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) age: Option<Duration>,
}

/// One event, encoded.
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// Its id, and the body.
    pub(crate) frame: Bytes,
    /// Where the body begins.
    pub(crate) body: usize,
    pub(crate) name: Option<Box<[u8]>>,
    pub(crate) key: Option<Box<str>>,
    pub(crate) last: bool,
    pub(crate) value: Option<Value>,
    /// When it came, since the ring was made.
    pub(crate) at: Duration,
}

impl Entry {
    fn place(&self) -> CompactionKey {
        (self.name.clone(), self.key.clone())
    }
}

/// What an event is the state of.
type CompactionKey = (Option<Box<[u8]>>, Option<Box<str>>);

/// What a reader that stands at `from` gets; then it stands at `to`.
pub(crate) struct Batch {
    pub(super) life: Life,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// All frames, as they leave.
    pub(crate) bytes: Bytes,
    pub(crate) entries: Box<[Arc<Entry>]>,
    /// The offset of the next event when it was made.
    pub(super) until: u64,
    /// Whether a reader has left out what it does not want.
    pub(crate) is_chosen: bool,
}

impl Batch {
    pub(super) fn empty(life: Life, at: u64) -> Self {
        let (bytes, entries) = (Bytes::new(), Box::default());
        Self { life, from: at, to: at, bytes, entries, until: at, is_chosen: false }
    }

    /// Of as many of these as fit, which are all that there is from one offset to the other.
    pub(super) fn of(
        life: Life,
        (from, until): (u64, u64),
        entries: impl Iterator<Item = Arc<Entry>>,
    ) -> Self {
        let (mut taken, mut size, mut to) = (Vec::new(), 0, until);
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
        Self { life, from, to, bytes, entries: taken.into(), until, is_chosen: false }
    }
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By a last event: there is nothing more to come, ever.
    Last,
    /// Without one, on this node alone: it stays so.
    Closed,
}

/// Events that a reader cannot have any more.
#[derive(Clone)]
pub(crate) struct Missed {
    /// That of `from` and `to`.
    pub(crate) life: Life,
    /// Where the reader stands; `None` in another life of the log.
    pub(crate) from: Option<u64>,
    /// The oldest that it can have.
    pub(crate) to: u64,
    /// Whether each offset between them was an event.
    pub(crate) counts: bool,
    /// Whether they never were here: no reader could have been quick enough.
    pub(crate) lost: bool,
}

/// What a topic is the sum of.
pub(crate) trait Fold: Send {
    /// What its topic is called, for the log.
    fn name(&mut self, topic: &str);

    /// Begins anew.
    fn reset(&mut self);

    fn apply(&mut self, value: &Value);

    /// The whole of it as the body of a frame.
    fn render(&mut self) -> Result<Bytes, String>;
}

/// What is kept, and how the topic stands.
pub(super) struct Log {
    pub(super) keep: Keep,
    pub(super) events: Events,
    /// The offset of the next event; that of the first is one.
    pub(super) next: u64,
    /// What came before this is gone.
    pub(super) first: u64,
    pub(super) bytes: usize,
    pub(super) slow: u64,
    pub(super) slow_bytes: usize,
    /// What came before this was lost before it was here.
    pub(super) hole: u64,
    pub(super) life: Life,
    pub(super) end: Option<End>,
    pub(super) fold: Option<Box<dyn Fold>>,
    /// What is not kept any more. It is dropped without the lock: its drop is the application's code.
    pub(super) gone: Vec<Arc<Entry>>,
}

/// The events that are kept, in order.
pub(super) enum Events {
    All(VecDeque<Arc<Entry>>),
    /// The newest of each place alone.
    Latest {
        events: BTreeMap<u64, Arc<Entry>>,
        places: HashMap<CompactionKey, u64>,
    },
}

impl Log {
    pub(super) fn new(keep: Keep, latest: bool, fold: Option<Box<dyn Fold>>, life: Life) -> Self {
        let events = match latest {
            false => Events::All(VecDeque::new()),
            true => Events::Latest { events: BTreeMap::new(), places: HashMap::new() },
        };
        Self {
            keep,
            events,
            next: 1,
            first: 1,
            bytes: 0,
            slow: 1,
            slow_bytes: 0,
            hole: 1,
            life,
            end: None,
            fold,
            gone: Vec::new(),
        }
    }

    /// Forgets all that is kept, and goes on at that offset.
    pub(super) fn restart(&mut self, next: u64) {
        self.events.clear(&mut self.gone);
        (self.next, self.first, self.slow, self.hole) = (next, next, next, next);
        (self.bytes, self.slow_bytes) = (0, 0);
    }

    pub(super) fn push(&mut self, entry: Entry, next: u64) {
        if let (Some(fold), Some(value)) = (&mut self.fold, &entry.value) {
            fold.apply(value);
        }
        let (size, now) = (entry.frame.len(), entry.at);
        self.bytes += size;
        self.next = next;
        match &mut self.events {
            Events::All(events) => {
                self.slow_bytes += size;
                events.push_back(Arc::new(entry));
            }
            Events::Latest { events, places } => {
                if let Some(older) = places.insert(entry.place(), entry.offset)
                    && let Some(older) = events.remove(&older)
                {
                    self.bytes -= older.frame.len();
                    self.gone.push(older);
                }
                events.insert(entry.offset, Arc::new(entry));
            }
        }
        self.evict(now);
        self.mark_slow();
    }

    pub(super) fn evict(&mut self, now: Duration) {
        let Keep { events: most, bytes, age } = self.keep;
        while let Some(oldest) = self.events.oldest() {
            let old = age.is_some_and(|age| now.saturating_sub(oldest.at) > age);
            // The end is told on every replay.
            if oldest.last || !(old || self.events.len() > most || self.bytes > bytes) {
                break;
            }
            let offset = oldest.offset;
            self.first = offset + 1;
            if let Some(gone) = self.events.remove(offset) {
                self.bytes -= gone.frame.len();
                if self.slow <= offset {
                    self.slow_bytes = self.slow_bytes.saturating_sub(gone.frame.len());
                }
                self.gone.push(gone);
            }
        }
        self.slow = self.slow.max(self.first);
    }

    /// A log of the latest is never too long for anybody.
    fn mark_slow(&mut self) {
        let Events::All(events) = &self.events else { return };
        let Keep { events: most, bytes, .. } = self.keep;
        let (most, bytes) = ((most - most.div_ceil(4)) as u64, bytes - bytes.div_ceil(4));
        while self.next - self.slow > NEAR
            && (self.next - self.slow > most || self.slow_bytes > bytes)
        {
            let index = usize::try_from(self.slow - self.first).unwrap_or(usize::MAX);
            let size = events.get(index).map_or(0, |entry| entry.frame.len());
            self.slow_bytes = self.slow_bytes.saturating_sub(size);
            self.slow += 1;
        }
    }

    pub(super) fn bytes_since(&self, offset: u64) -> usize {
        self.events.since(offset).map(|entry| entry.frame.len()).sum()
    }

    /// What a reader that stands there cannot have any more.
    pub(super) fn missed(&self, next: u64, life: &Life) -> Option<Missed> {
        if !Arc::ptr_eq(life, &self.life) {
            return Some(self.missing(None, true));
        }
        (next < self.first).then(|| self.missing(Some(next), self.first <= self.hole))
    }

    pub(super) fn missing(&self, from: Option<u64>, lost: bool) -> Missed {
        let counts = matches!(self.events, Events::All(_));
        Missed { life: self.life.clone(), from, to: self.first, counts, lost }
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

    /// Where the newest so many begin; without any nowhere.
    pub(super) fn newest_from(&self, count: usize) -> Option<u64> {
        let older =
            self.len().checked_sub(count.min(self.len())).filter(|older| *older < self.len())?;
        match self {
            Self::All(events) => events.get(older).map(|entry| entry.offset),
            Self::Latest { events, .. } if older == 0 => events.keys().next().copied(),
            Self::Latest { events, .. } => events.keys().rev().nth(count - 1).copied(),
        }
    }

    /// Removes the oldest, whose offset this is.
    fn remove(&mut self, offset: u64) -> Option<Arc<Entry>> {
        match self {
            Self::All(events) => events.pop_front(),
            Self::Latest { events, places } => {
                let gone = events.remove(&offset)?;
                places.remove(&gone.place());
                Some(gone)
            }
        }
    }

    fn clear(&mut self, gone: &mut Vec<Arc<Entry>>) {
        match self {
            Self::All(events) => gone.extend(events.drain(..)),
            Self::Latest { events, places } => {
                gone.extend(std::mem::take(events).into_values());
                places.clear();
            }
        }
    }

    /// From that offset on, in order.
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
