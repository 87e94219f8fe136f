//! The log of one topic on this node, as its readers see it: a bounded ring of encoded events.
//!
//! A reader is an offset and a waker. Whoever is up to date takes no lock: the newest batch stands
//! behind one pointer, which is all that publishing changes for readers, and so the one place where
//! their order is decided. Who is behind reads under the lock that publishers take, and leaves what it
//! joined to those who stand at the same place.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use slab::Slab;

use crate::sync::{ArcSwap, AtomicWaker, Mutex, MutexGuard};

/// Frames leave together up to this many bytes; a larger one alone.
const BATCH: usize = 16 * 1024;

/// So few events behind nobody is slow, whatever they weigh.
const NEAR: u64 = 16;

/// So many readers are woken at a time without the lock on the list of them.
const WOKEN: usize = 64;

/// What an event is beside its bytes.
pub(super) type Value = Arc<dyn Any + Send + Sync>;

/// How much of a topic is kept: the oldest goes when one of these is exceeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) events: usize,
    pub(super) bytes: usize,
    pub(super) age: Option<Duration>,
}

/// One event, encoded.
pub(super) struct Entry {
    pub(super) offset: u64,
    /// Its id, and the body.
    pub(super) frame: Bytes,
    /// Where the body begins.
    pub(super) body: usize,
    pub(super) name: Option<Box<[u8]>>,
    pub(super) key: Option<Box<str>>,
    pub(super) last: bool,
    pub(super) value: Option<Value>,
    /// When it came, since the ring was made.
    pub(super) at: Duration,
}

impl Entry {
    fn place(&self) -> Place {
        (self.name.clone(), self.key.clone())
    }
}

/// What an event is the state of.
type Place = (Option<Box<[u8]>>, Option<Box<str>>);

/// What a reader that stands at `from` gets; then it stands at `to`.
pub(super) struct Batch {
    life: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    /// All frames, as they leave.
    pub(super) bytes: Bytes,
    pub(super) entries: Box<[Arc<Entry>]>,
}

impl Batch {
    fn empty(life: u64, at: u64) -> Self {
        Self { life, from: at, to: at, bytes: Bytes::new(), entries: Box::default() }
    }

    /// Of as many of these as fit, which are all that there is from there on.
    fn of(log: &Log, from: u64, entries: impl Iterator<Item = Arc<Entry>>) -> Self {
        let (mut taken, mut size) = (Vec::new(), 0);
        let mut to = log.next;
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
        Self { life: log.life, from, to, bytes, entries: taken.into() }
    }
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a last event: there is nothing more to come, ever.
    Last,
    /// Without one.
    Closed,
}

/// What readers see without a lock.
struct Front {
    batch: Arc<Batch>,
    /// Whoever stands before this is slow: three quarters of what is kept came since.
    slow: u64,
    end: Option<End>,
}

/// What a topic is the sum of.
pub(super) trait Fold: Send {
    fn apply(&mut self, value: &Value);

    /// The whole of it as the body of a frame.
    fn render(&self) -> Option<Bytes>;
}

/// The ring.
pub(super) struct Ring {
    front: ArcSwap<Front>,
    /// What the last reader joined that was behind.
    joined: ArcSwap<Batch>,
    log: Mutex<Log>,
    readers: Mutex<Slab<Arc<AtomicWaker>>>,
}

struct Log {
    keep: Keep,
    events: Events,
    /// The offset of the next event; that of the first is one.
    next: u64,
    /// What came before this is gone.
    first: u64,
    bytes: usize,
    slow: u64,
    slow_bytes: usize,
    /// Another one is another log, whatever the offsets say.
    life: u64,
    end: Option<End>,
    fold: Option<Box<dyn Fold>>,
}

enum Events {
    All(VecDeque<Arc<Entry>>),
    /// The newest of each place alone.
    Latest {
        events: BTreeMap<u64, Arc<Entry>>,
        places: HashMap<Place, u64>,
    },
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With what comes from now on; of a log that has ended, with its last event.
    Now,
    /// With the oldest that is kept.
    Oldest,
    /// With as many of the newest.
    Recent(usize),
}

/// Events that a reader cannot have any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// Where the reader stands; `None` in another life of the log.
    pub(super) from: Option<u64>,
    /// The oldest that it can have.
    pub(super) to: u64,
    /// Whether each offset between them was an event.
    pub(super) counts: bool,
}

/// What a reader finds.
pub(super) enum Read {
    Batch(Arc<Batch>),
    Missed(Missed),
    Over(End),
}

/// Wakes the readers when it is dropped: after whatever locks were held while publishing.
#[must_use]
pub(super) struct Wake(Arc<Ring>);

impl Ring {
    pub(super) fn new(keep: Keep, latest: bool, fold: Option<Box<dyn Fold>>) -> Arc<Self> {
        let events = match latest {
            false => Events::All(VecDeque::new()),
            true => Events::Latest { events: BTreeMap::new(), places: HashMap::new() },
        };
        let empty = Arc::new(Batch::empty(0, 1));
        let front = Front { batch: empty.clone(), slow: 1, end: None };
        Arc::new(Self {
            front: ArcSwap::new(Arc::new(front)),
            joined: ArcSwap::new(empty),
            log: Mutex::new(Log {
                keep,
                events,
                next: 1,
                first: 1,
                bytes: 0,
                slow: 1,
                slow_bytes: 0,
                life: 0,
                end: None,
                fold,
            }),
            readers: Mutex::new(Slab::new()),
        })
    }

    /// Appends events, which `make` makes of their offsets: all of them, and next to each other. The offset
    /// of the last, or none of a log that has ended.
    pub(super) fn append<T>(
        self: &Arc<Self>,
        events: impl IntoIterator<Item = T>,
        make: impl Fn(u64, T) -> Entry,
    ) -> Option<(u64, Wake)> {
        let mut log = self.lock();
        if log.end.is_some() {
            return None;
        }
        let from = log.next;
        for event in events {
            let entry = make(log.next, event);
            let last = entry.last;
            log.push(entry);
            if last {
                log.end = Some(End::Last);
                break;
            }
        }
        self.publish(&log, from);
        Some((log.next - 1, Wake(self.clone())))
    }

    /// Forgets all that is kept: the next event is the one at `next`, in `another` life of the log or in
    /// this one.
    pub(super) fn begin(self: &Arc<Self>, next: u64, another: bool) -> Wake {
        let mut log = self.lock();
        let next = next.max(1);
        log.events.clear();
        (log.next, log.first, log.slow) = (next, next, next);
        (log.bytes, log.slow_bytes) = (0, 0);
        log.life += u64::from(another);
        log.end = None;
        self.publish(&log, next);
        Wake(self.clone())
    }

    /// Ends the log without a last event. Readers take what there is first.
    pub(super) fn close(self: &Arc<Self>) -> Wake {
        let mut log = self.lock();
        if log.end.is_none() {
            log.end = Some(End::Closed);
            let next = log.next;
            self.publish(&log, next);
        }
        Wake(self.clone())
    }

    /// Forgets what is too old.
    pub(super) fn expire(&self, now: Duration) {
        self.lock().evict(now);
    }

    /// The offset of the next event.
    pub(super) fn next(&self) -> u64 {
        self.front.load().batch.to
    }

    pub(super) fn is_closed(&self) -> bool {
        self.front.load().end.is_some()
    }

    /// How many events are kept, and how many bytes.
    pub(super) fn kept(&self) -> (usize, usize) {
        let log = self.lock();
        (log.events.len(), log.bytes)
    }

    pub(super) fn readers(&self) -> usize {
        self.seats().len()
    }

    /// What the log's events add up to, if anything does, and where the reader of it stands.
    fn state(&self) -> Option<(Bytes, u64, u64)> {
        let log = self.lock();
        let state = log.fold.as_ref()?.render()?;
        Some((state, log.next, log.life))
    }

    /// What readers see from now on: what was appended since `from`.
    fn publish(&self, log: &Log, from: u64) {
        // Who is behind what is gone already must hear of it.
        let from = from.max(log.first);
        let fits = |from: u64| log.next - from <= 1 || log.bytes_since(from) <= BATCH;
        // Of a large batch readers find the end here, and go to the log for the rest.
        let from = if fits(from) { from } else { log.next - 1 };
        let batch = match log.next == from {
            true => Batch::empty(log.life, log.next),
            false => Batch::of(log, from, log.events.since(from)),
        };
        let (slow, end) = (log.slow, log.end);
        self.front.store(Arc::new(Front { batch: Arc::new(batch), slow, end }));
    }

    fn wake(&self) {
        let (mut chunk, mut from) = (Vec::new(), 0);
        loop {
            {
                let seats = self.seats();
                // Seats that are taken meanwhile belong to readers who see what was published.
                let seated = (from..seats.capacity()).filter_map(|seat| {
                    let waker = seats.get(seat)?;
                    Some((seat, waker.clone()))
                });
                chunk.extend(seated.take(WOKEN));
            }
            let Some((seat, _)) = chunk.last() else { return };
            from = seat + 1;
            chunk.drain(..).for_each(|(_, waker)| waker.wake());
        }
    }

    /// No code of the application's runs under the lock but a topic's fold, before anything is changed.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(&self) -> MutexGuard<'_, Slab<Arc<AtomicWaker>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Log {
    fn push(&mut self, entry: Entry) {
        if let (Some(fold), Some(value)) = (&mut self.fold, &entry.value) {
            fold.apply(value);
        }
        let (size, now) = (entry.frame.len(), entry.at);
        self.bytes += size;
        self.slow_bytes += size;
        self.next = entry.offset + 1;
        match &mut self.events {
            Events::All(events) => events.push_back(Arc::new(entry)),
            Events::Latest { events, places } => {
                if let Some(older) = places.insert(entry.place(), entry.offset)
                    && let Some(older) = events.remove(&older)
                {
                    self.bytes -= older.frame.len();
                }
                events.insert(entry.offset, Arc::new(entry));
            }
        }
        self.evict(now);
        self.mark_slow();
    }

    fn evict(&mut self, now: Duration) {
        let Keep { events: most, bytes, age } = self.keep;
        while let Some(oldest) = self.events.oldest() {
            let old = age.is_some_and(|age| now.saturating_sub(oldest.at) > age);
            // The end is told on every replay.
            if oldest.last || !(old || self.events.len() > most || self.bytes > bytes) {
                break;
            }
            let offset = oldest.offset;
            if let Some(gone) = self.events.remove(offset) {
                self.bytes -= gone.frame.len();
                if self.slow <= offset {
                    self.slow_bytes = self.slow_bytes.saturating_sub(gone.frame.len());
                }
            }
            self.first = offset + 1;
        }
        self.slow = self.slow.max(self.first);
    }

    /// A log of the latest is never too long for anybody.
    fn mark_slow(&mut self) {
        let Events::All(events) = &self.events else { return };
        let (most, bytes) = (self.keep.events as u64 / 4 * 3, self.keep.bytes / 4 * 3);
        while self.next - self.slow > NEAR
            && (self.next - self.slow > most || self.slow_bytes > bytes)
        {
            let index = usize::try_from(self.slow - self.first).unwrap_or(usize::MAX);
            let size = events.get(index).map_or(0, |entry| entry.frame.len());
            self.slow_bytes = self.slow_bytes.saturating_sub(size);
            self.slow += 1;
        }
    }

    fn bytes_since(&self, offset: u64) -> usize {
        self.events.since(offset).map(|entry| entry.frame.len()).sum()
    }

    fn missed(&self, next: u64, life: u64) -> Option<Missed> {
        let counts = matches!(self.events, Events::All(_));
        if life != self.life {
            return Some(Missed { from: None, to: self.first, counts });
        }
        (next < self.first).then_some(Missed { from: Some(next), to: self.first, counts })
    }
}

impl Events {
    fn len(&self) -> usize {
        match self {
            Self::All(events) => events.len(),
            Self::Latest { events, .. } => events.len(),
        }
    }

    fn oldest(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::All(events) => events.front(),
            Self::Latest { events, .. } => events.first_key_value().map(|(_, entry)| entry),
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

    fn clear(&mut self) {
        match self {
            Self::All(events) => events.clear(),
            Self::Latest { events, places } => {
                events.clear();
                places.clear();
            }
        }
    }

    /// From that offset on, in order.
    fn since(&self, offset: u64) -> Box<dyn DoubleEndedIterator<Item = Arc<Entry>> + '_> {
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

    /// The newest of each place among those, in order.
    fn newest_since(&self, offset: u64) -> Vec<Arc<Entry>> {
        let mut seen = HashSet::new();
        let newest = self.since(offset).rev().filter(|entry| seen.insert(entry.place()));
        let mut newest: Vec<_> = newest.collect();
        newest.reverse();
        newest
    }
}

/// A reader of a ring: where it stands, and its seat among those who wait.
pub(super) struct Cursor {
    ring: Arc<Ring>,
    next: u64,
    life: u64,
    seat: usize,
    waker: Arc<AtomicWaker>,
}

impl Cursor {
    /// A new reader: of a log of the latest it reads all there is.
    pub(super) fn new(ring: &Arc<Ring>) -> Self {
        let waker = Arc::new(AtomicWaker::new());
        let seat = ring.seats().insert(waker.clone());
        let mut cursor = Self { ring: ring.clone(), next: 0, life: 0, seat, waker };
        let latest = matches!(ring.lock().events, Events::Latest { .. });
        cursor.begin(if latest { Begin::Oldest } else { Begin::Now });
        cursor
    }

    /// Stands where a new reader does.
    pub(super) fn begin(&mut self, begin: Begin) {
        let log = self.ring.lock();
        let newest = match begin {
            Begin::Now => usize::from(log.end == Some(End::Last)),
            Begin::Oldest => usize::MAX,
            Begin::Recent(count) => count,
        };
        let events = log.events.since(log.first).rev().take(newest).last();
        self.next = events.map_or(log.next, |entry| entry.offset);
        self.life = log.life;
    }

    /// Stands behind the event at this offset. One that is not there yet says nothing: whoever claims to
    /// have it stands nowhere.
    pub(super) fn resume(&mut self, offset: Option<u64>) -> Option<Missed> {
        let log = self.ring.lock();
        self.life = log.life;
        match offset.filter(|offset| *offset < log.next) {
            Some(offset) => {
                self.next = offset + 1;
                log.missed(self.next, log.life)
            }
            None => {
                self.next = log.first;
                let counts = matches!(log.events, Events::All(_));
                Some(Missed { from: None, to: log.first, counts })
            }
        }
    }

    /// What the topic adds up to; the reader stands behind all that is in it.
    pub(super) fn state(&mut self) -> Option<Bytes> {
        let (state, next, life) = self.ring.state()?;
        (self.next, self.life) = (next, life);
        Some(state)
    }

    /// The offset of the next event that it wants.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Leaves out all but the last so many events; what is left out, if anything is.
    pub(super) fn skip_to_last(&mut self, most: u64) -> Option<Missed> {
        let log = self.ring.lock();
        let counts = matches!(log.events, Events::All(_));
        let to = log.next.saturating_sub(most);
        let skips = counts && self.life == log.life && self.next < to;
        skips.then_some(Missed { from: Some(self.next), to, counts })
    }

    pub(super) fn go_to(&mut self, missed: Missed) {
        self.next = missed.to;
        self.life = self.ring.front.load().batch.life;
    }

    /// Stands behind all that there is.
    pub(super) fn skip(&mut self) {
        let front = self.ring.front.load();
        (self.next, self.life) = (front.batch.to, front.batch.life);
    }

    /// How many events it is behind at most, and whether it is slow.
    pub(super) fn behind(&self) -> (u64, bool) {
        let front = self.ring.front.load();
        let behind = front.batch.to.saturating_sub(self.next);
        (behind, self.next < front.slow)
    }

    /// What there is to read. With `latest`, of what it is behind only the newest of each place.
    pub(super) fn poll(&mut self, cx: &Context<'_>, latest: bool) -> Poll<Read> {
        if let Some(read) = self.look(latest) {
            return Poll::Ready(read);
        }
        self.waker.register(cx.waker());
        // What was published before the waker was there woke nobody.
        self.look(latest).map_or(Poll::Pending, Poll::Ready)
    }

    fn look(&mut self, latest: bool) -> Option<Read> {
        let front = self.ring.front.load();
        if front.batch.life == self.life && front.batch.to == self.next {
            return front.end.map(Read::Over);
        }
        if let Some(batch) = self.fitting(&front.batch) {
            drop(front);
            return Some(self.take(batch));
        }
        drop(front);
        Some(if latest { self.read_latest() } else { self.catch_up() })
    }

    /// Reads what another joined who stood here, or else from the log, for others to find.
    fn catch_up(&mut self) -> Read {
        if let Some(batch) = self.fitting(&self.ring.joined.load()) {
            return self.take(batch);
        }
        let log = self.ring.lock();
        if let Some(missed) = log.missed(self.next, self.life) {
            return Read::Missed(missed);
        }
        let batch = Arc::new(Batch::of(&log, self.next, log.events.since(self.next)));
        self.ring.joined.store(batch.clone());
        drop(log);
        self.take(batch)
    }

    fn read_latest(&mut self) -> Read {
        let log = self.ring.lock();
        if let Some(missed) = log.missed(self.next, self.life) {
            return Read::Missed(missed);
        }
        let newest = log.events.newest_since(self.next);
        let batch = Arc::new(Batch::of(&log, self.next, newest.into_iter()));
        drop(log);
        self.take(batch)
    }

    /// The batch, if it is what this reader reads next.
    fn fitting(&self, batch: &Arc<Batch>) -> Option<Arc<Batch>> {
        let fits = batch.life == self.life && batch.from == self.next && batch.to > self.next;
        fits.then(|| batch.clone())
    }

    fn take(&mut self, batch: Arc<Batch>) -> Read {
        self.next = batch.to;
        Read::Batch(batch)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.ring.seats().try_remove(self.seat);
    }
}
