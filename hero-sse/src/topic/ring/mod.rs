//! The log of one topic on this node: a bounded ring of encoded events.
//!
//! A reader is an offset and a waker. A reader that is up to date takes no lock: the newest batch is behind one
//! pointer, and storing that pointer is what publishes an event. So there is one place where the order of events is
//! decided. A reader that lags reads under the lock that publishers take, and shares the batch that it makes with
//! others at the same offset.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use self::cursor::{Cursor, Read, StartAt};
use self::log::Log;
pub use self::log::Retention;
pub(crate) use self::log::{
    BATCH, Batch, End, Entry, LogEpoch, Missed, Snapshot, SpecialEvents, Value,
};
use self::waiters::Waiters;
use super::position::EpochIds;
use crate::sync::{ArcSwap, Mutex, MutexGuard};

mod cursor;
mod log;
mod waiters;

/// What readers see without a lock.
struct Head {
    batch: Arc<Batch>,
    /// A reader before this offset is slow: more than three quarters of what is retained came since.
    slow: Option<u64>,
    end: Option<End>,
}

/// The ring.
pub(super) struct Ring {
    /// Whether it retains only the newest event of each name and key.
    latest: bool,
    head: ArcSwap<Head>,
    /// The last batch that a lagging reader made.
    catch_up_batch: ArcSwap<Batch>,
    log: Mutex<Log>,
    waiters: Waiters,
}

/// Wakes the readers on drop. Release the locks that were held while publishing first.
#[must_use]
pub(super) struct WakeReaders {
    ring: Arc<Ring>,
    /// Dropping these may run user code, so they are dropped without a lock.
    _before: Option<Arc<Head>>,
    _evicted: Vec<Arc<Entry>>,
}

impl Ring {
    pub(super) fn new(
        retention: Retention,
        latest: bool,
        snapshot: Option<Box<dyn Snapshot>>,
        ids: EpochIds,
    ) -> Arc<Self> {
        let epoch = Arc::new(ids);
        let empty = Arc::new(Batch::empty(epoch.clone(), 1));
        let head = Head { batch: empty.clone(), slow: None, end: None };
        Arc::new(Self {
            latest,
            head: ArcSwap::new(Arc::new(head)),
            catch_up_batch: ArcSwap::new(empty),
            log: Mutex::new(Log::new(retention, latest, snapshot, epoch)),
            waiters: Waiters::new(),
        })
    }

    /// Appends all these events next to each other, and returns the offset of the last. `None`: the log has ended.
    pub(super) fn append<T>(
        self: &Arc<Self>,
        events: impl IntoIterator<Item = T>,
        make: impl Fn(&EpochIds, u64, T) -> Entry,
    ) -> Option<(u64, WakeReaders)> {
        // The iterator outlives the guard: events after a last one are dropped without the lock.
        let mut events = events.into_iter();
        let mut log = self.lock();
        if log.end.is_some() {
            return None;
        }
        let wake = self.extend(&mut log, &mut events, make);
        Some((log.next - 1, wake))
    }

    /// Adds events, the first of which has this offset. Known ones are ignored. If events before it are missing, all
    /// retained ones are evicted, and readers get a gap.
    pub(super) fn feed<T>(
        self: &Arc<Self>,
        offset: u64,
        events: impl IntoIterator<Item = T>,
        make: impl Fn(&EpochIds, u64, T) -> Entry,
    ) -> Option<WakeReaders> {
        let (mut events, mut known) = (events.into_iter(), Vec::new());
        let mut log = self.lock();
        if log.end.is_some() {
            return None;
        }
        if offset > log.next {
            log.restart(offset);
        }
        let count = usize::try_from(log.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        known.extend(events.by_ref().take(count));
        Some(self.extend(&mut log, &mut events, make))
    }

    fn extend<T>(
        self: &Arc<Self>,
        log: &mut Log,
        events: &mut impl Iterator<Item = T>,
        make: impl Fn(&EpochIds, u64, T) -> Entry,
    ) -> WakeReaders {
        let from = log.next;
        for event in events {
            // A faulty broker may start a log at the highest offset: there is none left to give.
            let Some(next) = log.next.checked_add(1) else { break };
            let entry = make(&log.epoch, log.next, event);
            let last = entry.last;
            log.push(entry, next);
            if last {
                log.end = Some(End::Last);
                break;
            }
        }
        self.publish(log, from)
    }

    /// Continues at the offset `next`, unless the log is there. What was before it was replaced by newer values in a
    /// log of latest values, and is missing in another one.
    pub(super) fn skip(self: &Arc<Self>, next: u64) -> Option<WakeReaders> {
        let mut log = self.lock();
        if log.end.is_some() || next <= log.next {
            return None;
        }
        if self.latest {
            log.next = next;
        } else {
            log.restart(next);
        }
        Some(self.publish(&mut log, next))
    }

    /// Starts a new epoch, in which the next event has the offset `next`. All retained events are evicted.
    pub(super) fn start_epoch(self: &Arc<Self>, ids: EpochIds, next: u64) -> WakeReaders {
        let mut log = self.lock();
        log.restart(next.max(1));
        log.epoch = Arc::new(ids);
        log.end = log.end.filter(|end| *end == End::Closed);
        if let Some(snapshot) = &mut log.snapshot {
            snapshot.reset();
        }
        let next = log.next;
        self.publish(&mut log, next)
    }

    /// Ends the log without a last event. Readers first read what there is.
    pub(super) fn close(self: &Arc<Self>) -> WakeReaders {
        let mut log = self.lock();
        log.end = log.end.or(Some(End::Closed));
        let next = log.next;
        self.publish(&mut log, next)
    }

    /// Raises the retention to this where it is lower.
    pub(super) fn widen(&self, other: Retention) {
        let mut log = self.lock();
        let age = log.retention.age.zip(other.age).map(|(one, other)| one.max(other));
        let events = log.retention.events.max(other.events);
        let bytes = log.retention.bytes.max(other.bytes);
        log.retention = Retention { events, bytes, age };
    }

    /// Returns all retained events, and the offsets they lie between. A missing offset in between was replaced by a
    /// newer value.
    pub(super) fn retained(&self) -> (Vec<Arc<Entry>>, Range<u64>) {
        let log = self.lock();
        (log.events.since(log.first).collect(), log.first..log.next)
    }

    /// Evicts events that are too old.
    pub(super) fn expire(&self, now: Duration) {
        let mut log = self.lock();
        log.evict(now);
        let evicted = std::mem::take(&mut log.evicted);
        drop(log);
        drop(evicted);
    }

    /// Returns the offset of the next event.
    pub(super) fn next(&self) -> u64 {
        self.head.load().batch.to
    }

    /// Returns the offset of the newest event, with the epoch that it is valid in.
    pub(super) fn newest(&self) -> (LogEpoch, u64) {
        let head = self.head.load();
        (head.batch.epoch.clone(), head.batch.to.saturating_sub(1))
    }

    pub(super) fn epoch(&self) -> LogEpoch {
        self.head.load().batch.epoch.clone()
    }

    pub(super) fn is_latest(&self) -> bool {
        self.latest
    }

    pub(super) fn is_closed(&self) -> bool {
        self.head.load().end.is_some()
    }

    /// Returns the number of retained events, and their size in bytes.
    pub(super) fn len(&self) -> (usize, usize) {
        let log = self.lock();
        (log.events.len(), log.bytes)
    }

    pub(super) fn readers(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.lock().snapshot.is_some()
    }

    /// Whether every retained event is too old, a last event included. Evicts nothing: callers may hold a lock.
    pub(super) fn is_expired(&self, now: Duration) -> bool {
        let log = self.lock();
        let is_too_old = |at| log.retention.age.is_some_and(|age| now.saturating_sub(at) > age);
        log.events.newest().is_none_or(|newest| is_too_old(newest.at))
    }

    /// Shows readers what was appended since `from`, as far as it is retained.
    fn publish(self: &Arc<Self>, log: &mut Log, from: u64) -> WakeReaders {
        let from = from.max(log.first);
        let fits = |from: u64| log.next - from <= 1 || log.bytes_since(from) <= BATCH;
        // Of more than a batch the head holds the last event alone. Readers get the others from the log.
        let from = if fits(from) { from } else { log.next - 1 };
        let batch = match log.next == from {
            true => Batch::empty(log.epoch.clone(), log.next),
            false => Batch::of(log.epoch.clone(), (from, log.next), log.events.since(from)),
        };
        // No reader could have been fast enough for events that never reached this node.
        let (slow, end) = ((log.slow > log.lost_before).then_some(log.slow), log.end);
        let before = self.head.swap(Arc::new(Head { batch: Arc::new(batch), slow, end }));
        let evicted = std::mem::take(&mut log.evicted);
        WakeReaders { ring: self.clone(), _before: Some(before), _evicted: evicted }
    }

    /// The only user code that runs under the lock is a snapshot's, which is guarded against panics where it is made.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WakeReaders {
    fn drop(&mut self) {
        self.ring.waiters.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use bytes::BytesMut;
    use futures_util::task::{ArcWake, noop_waker, waker};
    use proptest::prelude::*;
    use proptest::{collection::vec, option};

    use super::super::position::Epoch;
    use super::cursor::Newest;
    use super::log::{Events, NEVER_SLOW};
    use super::*;

    fn ids() -> EpochIds {
        EpochIds::new("audit", Epoch::random())
    }

    /// An event as the tests publish it.
    #[derive(Clone, Debug, PartialEq)]
    struct Event {
        size: usize,
        key: u8,
        last: bool,
    }

    /// The same in the list that the ring is compared with.
    #[derive(Clone, Debug, PartialEq)]
    struct Recorded {
        epoch: usize,
        offset: u64,
        event: Event,
        at: Duration,
    }

    fn entry(offset: u64, event: &Event, at: Duration) -> Entry {
        let mut frame = BytesMut::zeroed(event.size.max(8));
        frame[..8].copy_from_slice(&offset.to_be_bytes());
        let key = Some(event.key.to_string().into());
        let (frame, last) = (frame.freeze(), event.last);
        Entry { offset, frame, body: 0, has_data: true, name: None, key, last, value: None, at }
    }

    /// What a ring is to be, in as many steps as it takes: nothing is ever thrown away, only not kept any more.
    struct Model {
        retention: Retention,
        latest: bool,
        history: Vec<Recorded>,
        kept: Vec<Recorded>,
        epoch: usize,
        next: u64,
        first: u64,
        lost_before: u64,
        slow: u64,
        end: Option<End>,
        now: Duration,
    }

    impl Model {
        fn add(&mut self, events: &[Event]) {
            for event in events {
                if self.end.is_some() || self.next == u64::MAX {
                    break;
                }
                let (epoch, at) = (self.epoch, self.now);
                let event = Event { size: event.size.max(8), ..event.clone() };
                let recorded = Recorded { epoch, offset: self.next, event, at };
                if self.latest {
                    self.kept.retain(|older| older.event.key != recorded.event.key);
                }
                self.end = recorded.event.last.then_some(End::Last);
                self.history.push(recorded.clone());
                self.kept.push(recorded);
                self.next += 1;
                self.evict();
            }
            self.mark();
        }

        fn bytes(&self, from: u64) -> usize {
            self.kept.iter().filter(|e| e.offset >= from).map(|e| e.event.size).sum()
        }

        fn evict(&mut self) {
            let Retention { events, bytes, age } = self.retention;
            while let Some(oldest) = self.kept.first() {
                let old = age.is_some_and(|age| self.now - oldest.at > age);
                let much = self.kept.len() > events || self.bytes(0) > bytes;
                if oldest.event.last || !(old || much) {
                    break;
                }
                self.first = self.kept.remove(0).offset + 1;
            }
        }

        fn mark(&mut self) {
            self.slow = self.slow.max(self.first);
            if !self.latest {
                let all = |from: u64| {
                    let events =
                        u128::from(self.next - from) * 4 > self.retention.events as u128 * 3;
                    let bytes = self.bytes(from) as u128 * 4 > self.retention.bytes as u128 * 3;
                    self.next - from > NEVER_SLOW && (events || bytes)
                };
                let slow = self.kept.iter().map(|e| e.offset).filter(|offset| all(*offset)).max();
                self.slow = self.slow.max(slow.map_or(0, |slow| slow + 1));
            }
        }

        fn restart(&mut self, next: u64) {
            self.kept.clear();
            (self.next, self.first, self.lost_before, self.slow) = (next, next, next, next);
        }

        fn between(&self, epoch: usize, from: u64, to: u64) -> Vec<&Recorded> {
            let there = |e: &&Recorded| e.epoch == epoch && (from..to).contains(&e.offset);
            self.history.iter().filter(there).collect()
        }
    }

    struct Reader {
        cursor: Cursor,
        epoch: usize,
        next: u64,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(Vec<Event>),
        /// So far from the next event.
        Feed(i64, Vec<Event>),
        SkipAhead(u64),
        Begin(u64),
        Close,
        Pass(u64),
        Join(Option<usize>),
        Oldest,
        /// So far from the next event; none is an id that does not open.
        Resume(Option<i64>),
        Read(usize, bool),
        SkipTo(usize, u64),
        Skip(usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = prop_oneof![6 => 8..100_usize, 1 => 5_000..40_000_usize];
        let last = prop::bool::weighted(0.004);
        let event = (size, 0..6_u8, last).prop_map(|(size, key, last)| Event { size, key, last });
        let begins = prop_oneof![0..60_u64, Just(u64::MAX), Just(u64::MAX - 1)];
        let step = prop_oneof![
            8 => vec(event.clone(), 1..3).prop_map(Step::Append),
            2 => vec(event.clone(), 0..40).prop_map(Step::Append),
            2 => (-3..4_i64, vec(event, 0..5)).prop_map(|(at, events)| Step::Feed(at, events)),
            1 => (0..3_u64).prop_map(Step::SkipAhead),
            1 => begins.prop_map(Step::Begin),
            1 => (0..8_u64).prop_map(Step::Pass),
            2 => option::of(0..50_usize).prop_map(Step::Join),
            1 => Just(Step::Oldest),
            2 => option::of(-40..3_i64).prop_map(Step::Resume),
            16 => (0..9_usize, prop::bool::weighted(0.2)).prop_map(|(n, latest)| Step::Read(n, latest)),
            2 => (0..9_usize, 0..30_u64).prop_map(|(n, max)| Step::SkipTo(n, max)),
            1 => (0..9_usize).prop_map(Step::Skip),
            1 => (0..9_usize).prop_map(Step::Leave),
        ];
        let close = prop::bool::weighted(0.1)
            .prop_map(|close| if close { vec![Step::Close] } else { vec![] });
        (vec(step.clone(), 1..100), close, vec(step, 0..15))
            .prop_map(|(before, close, behind)| [before, close, behind].concat())
    }

    fn read(reader: &mut Reader, model: &Model, latest: bool) -> Result<(), TestCaseError> {
        let (epoch, next) = (reader.epoch, reader.next);
        let mut all = |_: &Entry| true;
        let newest: Newest<'_> = if latest { Some(&mut all) } else { None };
        let read = reader.cursor.poll(&Context::from_waker(&noop_waker()), newest);
        let up_to_date = epoch == model.epoch && next >= model.next;
        match read {
            Poll::Pending => prop_assert!(up_to_date && model.end.is_none()),
            Poll::Ready(Read::Over(end)) => {
                prop_assert!(up_to_date);
                prop_assert_eq!(Some(end), model.end);
            }
            Poll::Ready(Read::Missed(missed)) => {
                prop_assert!(epoch != model.epoch || next < model.first);
                prop_assert_eq!(missed.from, (epoch == model.epoch).then_some(next));
                prop_assert_eq!((missed.to, missed.is_countable), (model.first, !model.latest));
                prop_assert_eq!(
                    missed.was_lost,
                    epoch != model.epoch || model.first <= model.lost_before
                );
                reader.cursor.move_past(&missed);
                (reader.epoch, reader.next) = (model.epoch, model.first);
            }
            Poll::Ready(Read::Batch(batch)) => {
                prop_assert_eq!(batch.from, next);
                // Of the latest what was skipped may be all that there was.
                prop_assert!(batch.to > next && (model.latest || !batch.entries.is_empty()));
                let one = batch.entries.len() < 2;
                prop_assert!(batch.bytes.len() <= BATCH || one, "{} bytes", batch.bytes.len());
                let frames: Vec<u8> = batch.entries.iter().flat_map(|e| e.frame.to_vec()).collect();
                prop_assert_eq!(&frames[..], &batch.bytes[..]);
                let there = model.between(epoch, next, batch.to);
                if !model.latest {
                    prop_assert_eq!(there.len() as u64, batch.to - next, "each was published");
                }
                let got: Vec<u64> = batch.entries.iter().map(|entry| entry.offset).collect();
                prop_assert!(got.is_sorted_by(|a, b| a < b));
                prop_assert!(got.iter().all(|offset| (next..batch.to).contains(offset)));
                for recorded in there {
                    let newer = model.between(epoch, recorded.offset + 1, u64::MAX);
                    let superseded =
                        newer.iter().any(|newer| newer.event.key == recorded.event.key);
                    let there = got.contains(&recorded.offset);
                    prop_assert!(there || ((model.latest || latest) && superseded), "{recorded:?}");
                    let known = newer.iter().any(|newer| {
                        newer.event.key == recorded.event.key && got.contains(&newer.offset)
                    });
                    prop_assert!(!(latest && there && known), "{recorded:?} is not the newest");
                }
                reader.next = batch.to;
            }
        }
        prop_assert_eq!(reader.cursor.next(), reader.next);
        Ok(())
    }

    fn behaves(retention: Retention, latest: bool, steps: &[Step]) -> Result<(), TestCaseError> {
        let ring = Ring::new(retention, latest, None, ids());
        let mut model = Model {
            retention,
            latest,
            history: vec![],
            kept: vec![],
            epoch: 0,
            next: 1,
            first: 1,
            lost_before: 1,
            slow: 1,
            end: None,
            now: Duration::ZERO,
        };
        let mut readers: Vec<Reader> = vec![];
        for step in steps {
            let count = readers.len();
            match step.clone() {
                Step::Append(events) => {
                    let closed = model.end.is_some();
                    let at = model.now;
                    let appended =
                        ring.append(&events, |_, offset, event| entry(offset, event, at));
                    if !closed {
                        model.add(&events);
                    }
                    let offset = appended.map(|(offset, _wake)| offset);
                    prop_assert_eq!(offset, (!closed).then(|| model.next - 1));
                }
                Step::Feed(at, events) => {
                    let offset = model.next.saturating_add_signed(at);
                    let now = model.now;
                    let closed = model.end.is_some();
                    let fed =
                        ring.feed(offset, &events, |_, offset, event| entry(offset, event, now));
                    prop_assert_eq!(fed.is_none(), closed);
                    if !closed {
                        if offset > model.next {
                            model.restart(offset);
                        }
                        let known = (model.next - offset) as usize;
                        model.add(events.get(known..).unwrap_or_default());
                    }
                }
                Step::SkipAhead(by) => {
                    let next = model.next.saturating_add(by);
                    let skips = model.end.is_none() && next > model.next;
                    prop_assert_eq!(ring.skip(next).is_some(), skips);
                    if skips && latest {
                        model.next = next;
                        model.mark();
                    } else if skips {
                        model.restart(next);
                    }
                }
                Step::Begin(next) => {
                    drop(ring.start_epoch(ids(), next));
                    model.restart(next.max(1));
                    model.epoch += 1;
                    model.end = model.end.filter(|end| *end == End::Closed);
                }
                Step::Close => {
                    drop(ring.close());
                    model.end = model.end.or(Some(End::Closed));
                    model.mark();
                }
                Step::Pass(seconds) => {
                    model.now += Duration::from_secs(seconds);
                    ring.expire(model.now);
                    model.evict();
                }
                Step::Join(recent) => {
                    let mut cursor = Cursor::new(&ring);
                    let newest = model.kept.len().saturating_sub(match recent {
                        Some(recent) => recent.max(usize::from(model.end == Some(End::Last))),
                        None if latest => usize::MAX,
                        None => usize::from(model.end == Some(End::Last)),
                    });
                    if let Some(recent) = recent {
                        cursor.start_at(StartAt::Recent(recent));
                    }
                    let next = model.kept.get(newest).map_or(model.next, |e| e.offset);
                    readers.push(Reader { cursor, epoch: model.epoch, next });
                }
                Step::Oldest => {
                    let mut cursor = Cursor::new(&ring);
                    cursor.start_at(StartAt::Oldest);
                    let next = model.kept.first().map_or(model.next, |e| e.offset);
                    readers.push(Reader { cursor, epoch: model.epoch, next });
                }
                Step::Resume(at) => {
                    let offset = at.map(|at| model.next.saturating_add_signed(at));
                    let mut cursor = Cursor::new(&ring);
                    let missed = cursor.resume(|_| offset);
                    let next = offset.map_or(model.first, |offset| offset.saturating_add(1));
                    let gone = offset.is_none() || next < model.first;
                    prop_assert_eq!(missed.is_some(), gone);
                    if let Some(missed) = missed {
                        prop_assert_eq!(
                            (missed.from, missed.to),
                            (offset.map(|_| next), model.first)
                        );
                    }
                    readers.push(Reader { cursor, epoch: model.epoch, next });
                }
                Step::Read(n, latest) if count > 0 => {
                    read(&mut readers[n % count], &model, latest)?
                }
                Step::SkipTo(n, max) if count > 0 => {
                    let reader = &mut readers[n % count];
                    let (from, to) = (reader.next, model.next.saturating_sub(max).max(model.first));
                    let behind = model.next.saturating_sub(from);
                    let skips = !latest && reader.epoch == model.epoch && behind > max && from < to;
                    let missed = reader.cursor.skip_to_last(max);
                    prop_assert_eq!(missed.is_some(), skips);
                    if let Some(missed) = missed {
                        prop_assert_eq!((missed.from, missed.to), (Some(from), to));
                        reader.cursor.move_past(&missed);
                        reader.next = to;
                    }
                }
                Step::Skip(n) if count > 0 => {
                    let reader = &mut readers[n % count];
                    reader.cursor.skip_to_end();
                    // A last event is not skipped.
                    let last = u64::from(model.end == Some(End::Last));
                    (reader.epoch, reader.next) = (model.epoch, model.next - last);
                }
                Step::Leave(n) if count > 0 => drop(readers.swap_remove(n % count)),
                Step::Read(..) | Step::SkipTo(..) | Step::Skip(_) | Step::Leave(_) => {}
            }
            prop_assert_eq!(ring.len(), (model.kept.len(), model.bytes(0)));
            if let Events::Latest { events, offsets } = &ring.lock().events {
                prop_assert_eq!(events.len(), offsets.len(), "no key without its event");
            }
            let bound = model.kept.first().is_none_or(|oldest| {
                oldest.event.last
                    || (model.kept.len() <= retention.events && model.bytes(0) <= retention.bytes)
            });
            prop_assert!(bound, "more is kept than may be");
            prop_assert_eq!((ring.next(), ring.is_closed()), (model.next, model.end.is_some()));
            prop_assert_eq!(ring.readers(), readers.len());
            for reader in &readers {
                let same = reader.epoch == model.epoch;
                let behind = model.next.saturating_sub(reader.next);
                let wanted = if same {
                    (behind, model.slow > model.lost_before && reader.next < model.slow)
                } else {
                    (0, false)
                };
                prop_assert_eq!(reader.cursor.lag(), wanted);
            }
        }
        // All that there is can be read to its end.
        for reader in &mut readers {
            for _ in 0..500 {
                if reader.epoch == model.epoch && reader.next >= model.next {
                    break;
                }
                read(reader, &model, false)?;
            }
            prop_assert!(reader.epoch == model.epoch && reader.next >= model.next);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_reader_gets_all_there_is_or_is_told(
            events in prop_oneof![1..4_usize, 4..60_usize, Just(usize::MAX)],
            bytes in prop_oneof![1..500_usize, 20_000..100_000_usize, Just(usize::MAX)],
            age in option::of((0..20_u64).prop_map(Duration::from_secs)),
            latest: bool,
            steps in steps(),
        ) {
            behaves(Retention { events, bytes, age }, latest, &steps)?;
        }
    }

    struct Count(AtomicUsize);

    impl ArcWake for Count {
        fn wake_by_ref(counted: &Arc<Self>) {
            counted.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// More than one handful of them, after others have left.
    #[test]
    fn each_that_waits_is_woken_once() {
        let ring = Ring::new(Retention { events: 9, bytes: 999, age: None }, false, None, ids());
        let mut waiting: Vec<_> = (0..1_000)
            .map(|_| (Cursor::new(&ring), Arc::new(Count(AtomicUsize::new(0)))))
            .collect();
        let mut n = 0;
        waiting.retain(|_| {
            n += 1;
            n % 3 == 0 || n % 200 < 100
        });
        for (cursor, count) in &mut waiting {
            assert!(cursor.poll(&Context::from_waker(&waker(count.clone())), None).is_pending());
        }
        let event = Event { size: 9, key: 0, last: false };
        for _ in 0..2 {
            // The second wakes nobody: none has looked since.
            drop(ring.append([&event], |_, offset, event| entry(offset, event, Duration::ZERO)));
        }
        assert!(waiting.iter().all(|(_, count)| count.0.load(Ordering::Relaxed) == 1));
    }

    /// What an event holds is the application's, and may use the topic when it is dropped.
    #[test]
    fn nothing_is_dropped_under_a_lock() {
        struct Uses(Arc<Ring>, Arc<AtomicUsize>);
        impl Drop for Uses {
            fn drop(&mut self) {
                assert!(self.0.log.try_lock().is_ok() && !self.0.waiters.is_locked());
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
        for latest in [false, true] {
            let retention = Retention { events: 2, bytes: 999, age: Some(Duration::from_secs(9)) };
            let ring = Ring::new(retention, latest, None, ids());
            let dropped = Arc::new(AtomicUsize::new(0));
            let mut reader = Cursor::new(&ring);
            let append = |ring: &Arc<Ring>, count: u8| {
                drop(ring.append(0..count, |_, offset, key| Entry {
                    value: Some(Arc::new(Uses(ring.clone(), dropped.clone()))),
                    ..entry(offset, &Event { size: 9, key, last: false }, Duration::ZERO)
                }));
            };
            for count in [1, 5, 2, 1, 1] {
                append(&ring, count);
            }
            // Known, and behind an end.
            let unused = || Uses(ring.clone(), dropped.clone());
            let known = [unused(), unused()];
            drop(ring.feed(1, known, |_, _, _| unreachable!("it is there")));
            let _ = reader.poll(&Context::from_waker(&noop_waker()), None);
            ring.expire(Duration::from_secs(99));
            append(&ring, 2);
            drop(ring.start_epoch(ids(), 1));
            assert!(dropped.load(Ordering::Relaxed) >= 10);
            append(&ring, 2);
            drop(ring.close());
            drop(ring.start_epoch(ids(), 1));
            assert_eq!(ring.len(), (0, 0));
        }
        let ring = Ring::new(Retention { events: 9, bytes: 999, age: None }, false, None, ids());
        let dropped = Arc::new(AtomicUsize::new(0));
        let events = [0, 1].map(|_| Uses(ring.clone(), dropped.clone()));
        drop(ring.append(events, |_, offset, uses| Entry {
            value: Some(Arc::new(uses)),
            ..entry(offset, &Event { size: 9, key: 0, last: true }, Duration::ZERO)
        }));
        assert_eq!((dropped.load(Ordering::Relaxed), ring.len().0), (1, 1));
    }

    /// A reader that is up to date takes no lock and copies nothing, also while others publish.
    #[test]
    fn who_is_up_to_date_takes_no_lock() {
        let ring = Ring::new(Retention { events: 9, bytes: 999, age: None }, false, None, ids());
        let mut cursor = Cursor::new(&ring);
        let event = Event { size: 9, key: 0, last: false };
        let one = |ring: &Arc<Ring>| {
            drop(ring.append([&event], |_, offset, event| entry(offset, event, Duration::ZERO)));
        };
        one(&ring);
        let held = (ring.log.lock().expect("no panic"), ring.waiters.hold());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let cx = Context::from_waker(futures_util::task::noop_waker_ref());
            let Poll::Ready(Read::Batch(batch)) = cursor.poll(&cx, None) else { return };
            assert!(cursor.poll(&cx, None).is_pending() && cursor.lag() == (0, false));
            let _ = tell.send((batch.bytes.as_ptr() as usize, std::mem::ManuallyDrop::new(cursor)));
        });
        let (read, cursor) = told.recv_timeout(Duration::from_secs(20)).expect("without a lock");
        drop(held);
        drop(std::mem::ManuallyDrop::into_inner(cursor));
        let (kept, _) = ring.retained();
        assert_eq!(read, kept[0].frame.as_ptr() as usize);
    }
}
