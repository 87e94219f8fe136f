//! The log of one topic on this node, as its readers see it: a bounded ring of encoded events.
//!
//! A reader is an offset and a waker. Whoever is up to date takes no lock: the newest batch stands
//! behind one pointer, which is all that publishing changes for readers, and so the one place where
//! their order is decided. Who is behind reads under the lock that publishers take, and leaves what it
//! joined to those who stand at the same place.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use self::cursor::{Begin, Cursor, Read};
use self::log::Log;
pub(crate) use self::log::{BATCH, Batch, End, Entry, Fold, Keep, Life, Missed, Value};
use self::seats::Seats;
use super::position::Ids;
use crate::sync::{ArcSwap, Mutex, MutexGuard};

mod cursor;
mod log;
mod seats;

/// What readers see without a lock.
struct Front {
    batch: Arc<Batch>,
    /// Whoever stands before this is slow, if anybody is: three quarters of what is kept came since.
    slow: Option<u64>,
    end: Option<End>,
}

/// The ring.
pub(super) struct Ring {
    /// Whether it keeps the newest of each place alone.
    latest: bool,
    front: ArcSwap<Front>,
    /// What the last reader joined that was behind.
    joined: ArcSwap<Batch>,
    log: Mutex<Log>,
    seats: Seats,
}

/// Wakes the readers when it is dropped: after whatever locks were held while publishing.
#[must_use]
pub(super) struct Wake {
    ring: Arc<Ring>,
    /// What these hold may be the application's, and is dropped when no lock is held.
    _before: Option<Arc<Front>>,
    _gone: Vec<Arc<Entry>>,
}

impl Ring {
    pub(super) fn new(
        keep: Keep,
        latest: bool,
        fold: Option<Box<dyn Fold>>,
        ids: Ids,
    ) -> Arc<Self> {
        let life = Arc::new(ids);
        let empty = Arc::new(Batch::empty(life.clone(), 1));
        let front = Front { batch: empty.clone(), slow: None, end: None };
        Arc::new(Self {
            latest,
            front: ArcSwap::new(Arc::new(front)),
            joined: ArcSwap::new(empty),
            log: Mutex::new(Log::new(keep, latest, fold, life)),
            seats: Seats::new(),
        })
    }

    /// Appends events, which `make` makes of their offsets: all of them, and next to each other. The offset
    /// of the last, or none of a log that has ended.
    pub(super) fn append<T>(
        self: &Arc<Self>,
        events: impl IntoIterator<Item = T>,
        make: impl Fn(&Ids, u64, T) -> Entry,
    ) -> Option<(u64, Wake)> {
        // What is not taken is dropped without the lock.
        let mut events = events.into_iter();
        let mut log = self.lock();
        if log.end.is_some() {
            return None;
        }
        let wake = self.extend(&mut log, &mut events, make);
        Some((log.next - 1, wake))
    }

    /// Adds events of which the first is the one at `offset`. Those that are there are left out; if others
    /// are missing before it, all that is kept is forgotten, and readers learn of the gap.
    pub(super) fn feed<T>(
        self: &Arc<Self>,
        offset: u64,
        events: impl IntoIterator<Item = T>,
        make: impl Fn(&Ids, u64, T) -> Entry,
    ) -> Option<Wake> {
        let (mut events, mut known) = (events.into_iter(), Vec::new());
        let mut log = self.lock();
        if log.end.is_some() {
            return None;
        }
        if offset > log.next {
            log.restart(offset);
        }
        let there = usize::try_from(log.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        known.extend(events.by_ref().take(there));
        Some(self.extend(&mut log, &mut events, make))
    }

    fn extend<T>(
        self: &Arc<Self>,
        log: &mut Log,
        events: &mut impl Iterator<Item = T>,
        make: impl Fn(&Ids, u64, T) -> Entry,
    ) -> Wake {
        let from = log.next;
        for event in events {
            // A log whose offsets are used up is of a broker that is out of its mind.
            let Some(next) = log.next.checked_add(1) else { break };
            let entry = make(&log.life, log.next, event);
            let last = entry.last;
            log.push(entry, next);
            if last {
                log.end = Some(End::Last);
                break;
            }
        }
        self.publish(log, from)
    }

    /// Goes on at the offset `next`, if it is not there yet: of a log of the latest what stood before it has been
    /// superseded, of another one it is lost.
    pub(super) fn skip(self: &Arc<Self>, next: u64) -> Option<Wake> {
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

    /// Begins another life of the log, in which the next event is the one at `next`. All that is kept is
    /// forgotten.
    pub(super) fn begin(self: &Arc<Self>, ids: Ids, next: u64) -> Wake {
        let mut log = self.lock();
        log.restart(next.max(1));
        log.life = Arc::new(ids);
        log.end = log.end.filter(|end| *end == End::Closed);
        if let Some(fold) = &mut log.fold {
            fold.reset();
        }
        let next = log.next;
        self.publish(&mut log, next)
    }

    /// Ends the log without a last event. Readers take what there is first.
    pub(super) fn close(self: &Arc<Self>) -> Wake {
        let mut log = self.lock();
        log.end = log.end.or(Some(End::Closed));
        let next = log.next;
        self.publish(&mut log, next)
    }

    /// Keeps as much as this from now on, if that is more.
    pub(super) fn widen(&self, keep: Keep) {
        let mut log = self.lock();
        let age = log.keep.age.zip(keep.age).map(|(one, other)| one.max(other));
        let (events, bytes) = (log.keep.events.max(keep.events), log.keep.bytes.max(keep.bytes));
        log.keep = Keep { events, bytes, age };
    }

    /// All that is kept, and from which offset to that of the next event: what is not there of these was superseded.
    pub(super) fn all(&self) -> (Vec<Arc<Entry>>, Range<u64>) {
        let log = self.lock();
        (log.events.since(log.first).collect(), log.first..log.next)
    }

    /// Forgets what is too old.
    pub(super) fn expire(&self, now: Duration) {
        let mut log = self.lock();
        log.evict(now);
        let gone = std::mem::take(&mut log.gone);
        drop(log);
        drop(gone);
    }

    /// The offset of the next event.
    pub(super) fn next(&self) -> u64 {
        self.front.load().batch.to
    }

    /// The life that it has now.
    pub(super) fn life(&self) -> Life {
        self.front.load().batch.life.clone()
    }

    pub(super) fn is_latest(&self) -> bool {
        self.latest
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
        self.seats.len()
    }

    /// Whether the log's events add up to something.
    pub(super) fn has_state(&self) -> bool {
        self.lock().fold.is_some()
    }

    /// Whether nothing is kept that somebody may yet come for: the end of a log too grows old. It drops nothing,
    /// since whoever asks may hold a lock.
    pub(super) fn is_spent(&self, now: Duration) -> bool {
        let log = self.lock();
        let old = |at| log.keep.age.is_some_and(|age| now.saturating_sub(at) > age);
        log.events.newest().is_none_or(|newest| old(newest.at))
    }

    /// What readers see from now on: what was appended since `from`, as far as it is kept.
    fn publish(self: &Arc<Self>, log: &mut Log, from: u64) -> Wake {
        let from = from.max(log.first);
        let fits = |from: u64| log.next - from <= 1 || log.bytes_since(from) <= BATCH;
        // Of a large batch readers find the end here, and go to the log for the rest.
        let from = if fits(from) { from } else { log.next - 1 };
        let batch = match log.next == from {
            true => Batch::empty(log.life.clone(), log.next),
            false => Batch::of(log.life.clone(), (from, log.next), log.events.since(from)),
        };
        // Nobody was quick enough for what never was here.
        let (slow, end) = ((log.slow > log.hole).then_some(log.slow), log.end);
        let before = self.front.swap(Arc::new(Front { batch: Arc::new(batch), slow, end }));
        let gone = std::mem::take(&mut log.gone);
        Wake { ring: self.clone(), _before: Some(before), _gone: gone }
    }

    /// No code of the application's runs under the lock but a topic's fold, which is guarded where it is made.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.ring.seats.wake();
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
    use super::log::{Events, NEAR};
    use super::*;

    fn ids() -> Ids {
        Ids::new("audit", Epoch::random())
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
    struct Noted {
        life: usize,
        offset: u64,
        event: Event,
        at: Duration,
    }

    fn entry(offset: u64, event: &Event, at: Duration) -> Entry {
        let mut frame = BytesMut::zeroed(event.size.max(8));
        frame[..8].copy_from_slice(&offset.to_be_bytes());
        let key = Some(event.key.to_string().into());
        let (frame, last) = (frame.freeze(), event.last);
        Entry { offset, frame, body: 0, name: None, key, last, value: None, at }
    }

    /// What a ring is to be, in as many steps as it takes: nothing is ever thrown away, only not kept any more.
    struct Naive {
        keep: Keep,
        latest: bool,
        history: Vec<Noted>,
        kept: Vec<Noted>,
        life: usize,
        next: u64,
        first: u64,
        hole: u64,
        slow: u64,
        end: Option<End>,
        now: Duration,
    }

    impl Naive {
        fn add(&mut self, events: &[Event]) {
            for event in events {
                if self.end.is_some() || self.next == u64::MAX {
                    break;
                }
                let (life, at) = (self.life, self.now);
                let event = Event { size: event.size.max(8), ..event.clone() };
                let noted = Noted { life, offset: self.next, event, at };
                if self.latest {
                    self.kept.retain(|older| older.event.key != noted.event.key);
                }
                self.end = noted.event.last.then_some(End::Last);
                self.history.push(noted.clone());
                self.kept.push(noted);
                self.next += 1;
                self.evict();
            }
            self.mark();
        }

        fn bytes(&self, from: u64) -> usize {
            self.kept.iter().filter(|e| e.offset >= from).map(|e| e.event.size).sum()
        }

        fn evict(&mut self) {
            let Keep { events, bytes, age } = self.keep;
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
                    let events = u128::from(self.next - from) * 4 > self.keep.events as u128 * 3;
                    let bytes = self.bytes(from) as u128 * 4 > self.keep.bytes as u128 * 3;
                    self.next - from > NEAR && (events || bytes)
                };
                let slow = self.kept.iter().map(|e| e.offset).filter(|offset| all(*offset)).max();
                self.slow = self.slow.max(slow.map_or(0, |slow| slow + 1));
            }
        }

        fn restart(&mut self, next: u64) {
            self.kept.clear();
            (self.next, self.first, self.hole, self.slow) = (next, next, next, next);
        }

        fn between(&self, life: usize, from: u64, to: u64) -> Vec<&Noted> {
            let there = |e: &&Noted| e.life == life && (from..to).contains(&e.offset);
            self.history.iter().filter(there).collect()
        }
    }

    struct Reader {
        cursor: Cursor,
        life: usize,
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
            2 => (0..9_usize, 0..30_u64).prop_map(|(n, most)| Step::SkipTo(n, most)),
            1 => (0..9_usize).prop_map(Step::Skip),
            1 => (0..9_usize).prop_map(Step::Leave),
        ];
        let close = prop::bool::weighted(0.1)
            .prop_map(|close| if close { vec![Step::Close] } else { vec![] });
        (vec(step.clone(), 1..100), close, vec(step, 0..15))
            .prop_map(|(before, close, behind)| [before, close, behind].concat())
    }

    fn read(reader: &mut Reader, naive: &Naive, latest: bool) -> Result<(), TestCaseError> {
        let (life, next) = (reader.life, reader.next);
        let mut all = |_: &Entry| true;
        let newest: Newest<'_> = if latest { Some(&mut all) } else { None };
        let read = reader.cursor.poll(&Context::from_waker(&noop_waker()), newest);
        let up_to_date = life == naive.life && next >= naive.next;
        match read {
            Poll::Pending => prop_assert!(up_to_date && naive.end.is_none()),
            Poll::Ready(Read::Over(end)) => {
                prop_assert!(up_to_date);
                prop_assert_eq!(Some(end), naive.end);
            }
            Poll::Ready(Read::Missed(missed)) => {
                prop_assert!(life != naive.life || next < naive.first);
                prop_assert_eq!(missed.from, (life == naive.life).then_some(next));
                prop_assert_eq!((missed.to, missed.counts), (naive.first, !naive.latest));
                prop_assert_eq!(missed.lost, life != naive.life || naive.first <= naive.hole);
                reader.cursor.go_to(&missed);
                (reader.life, reader.next) = (naive.life, naive.first);
            }
            Poll::Ready(Read::Batch(batch)) => {
                prop_assert_eq!(batch.from, next);
                // Of the latest what was skipped may be all that there was.
                prop_assert!(batch.to > next && (naive.latest || !batch.entries.is_empty()));
                let one = batch.entries.len() < 2;
                prop_assert!(batch.bytes.len() <= BATCH || one, "{} bytes", batch.bytes.len());
                let frames: Vec<u8> = batch.entries.iter().flat_map(|e| e.frame.to_vec()).collect();
                prop_assert_eq!(&frames[..], &batch.bytes[..]);
                let there = naive.between(life, next, batch.to);
                if !naive.latest {
                    prop_assert_eq!(there.len() as u64, batch.to - next, "each was published");
                }
                let got: Vec<u64> = batch.entries.iter().map(|entry| entry.offset).collect();
                prop_assert!(got.is_sorted_by(|a, b| a < b));
                prop_assert!(got.iter().all(|offset| (next..batch.to).contains(offset)));
                for noted in there {
                    let newer = naive.between(life, noted.offset + 1, u64::MAX);
                    let superseded = newer.iter().any(|newer| newer.event.key == noted.event.key);
                    let there = got.contains(&noted.offset);
                    prop_assert!(there || ((naive.latest || latest) && superseded), "{noted:?}");
                    let known = newer.iter().any(|newer| {
                        newer.event.key == noted.event.key && got.contains(&newer.offset)
                    });
                    prop_assert!(!(latest && there && known), "{noted:?} is not the newest");
                }
                reader.next = batch.to;
            }
        }
        prop_assert_eq!(reader.cursor.next(), reader.next);
        Ok(())
    }

    fn behaves(keep: Keep, latest: bool, steps: &[Step]) -> Result<(), TestCaseError> {
        let ring = Ring::new(keep, latest, None, ids());
        let mut naive = Naive {
            keep,
            latest,
            history: vec![],
            kept: vec![],
            life: 0,
            next: 1,
            first: 1,
            hole: 1,
            slow: 1,
            end: None,
            now: Duration::ZERO,
        };
        let mut readers: Vec<Reader> = vec![];
        for step in steps {
            let count = readers.len();
            match step.clone() {
                Step::Append(events) => {
                    let closed = naive.end.is_some();
                    let at = naive.now;
                    let appended =
                        ring.append(&events, |_, offset, event| entry(offset, event, at));
                    if !closed {
                        naive.add(&events);
                    }
                    let offset = appended.map(|(offset, _wake)| offset);
                    prop_assert_eq!(offset, (!closed).then(|| naive.next - 1));
                }
                Step::Feed(at, events) => {
                    let offset = naive.next.saturating_add_signed(at);
                    let now = naive.now;
                    let closed = naive.end.is_some();
                    let fed =
                        ring.feed(offset, &events, |_, offset, event| entry(offset, event, now));
                    prop_assert_eq!(fed.is_none(), closed);
                    if !closed {
                        if offset > naive.next {
                            naive.restart(offset);
                        }
                        let known = (naive.next - offset) as usize;
                        naive.add(events.get(known..).unwrap_or_default());
                    }
                }
                Step::SkipAhead(by) => {
                    let next = naive.next.saturating_add(by);
                    let skips = naive.end.is_none() && next > naive.next;
                    prop_assert_eq!(ring.skip(next).is_some(), skips);
                    if skips && latest {
                        naive.next = next;
                        naive.mark();
                    } else if skips {
                        naive.restart(next);
                    }
                }
                Step::Begin(next) => {
                    drop(ring.begin(ids(), next));
                    naive.restart(next.max(1));
                    naive.life += 1;
                    naive.end = naive.end.filter(|end| *end == End::Closed);
                }
                Step::Close => {
                    drop(ring.close());
                    naive.end = naive.end.or(Some(End::Closed));
                    naive.mark();
                }
                Step::Pass(seconds) => {
                    naive.now += Duration::from_secs(seconds);
                    ring.expire(naive.now);
                    naive.evict();
                }
                Step::Join(recent) => {
                    let mut cursor = Cursor::new(&ring);
                    let newest = naive.kept.len().saturating_sub(match recent {
                        Some(recent) => recent.max(usize::from(naive.end == Some(End::Last))),
                        None if latest => usize::MAX,
                        None => usize::from(naive.end == Some(End::Last)),
                    });
                    if let Some(recent) = recent {
                        cursor.begin(Begin::Recent(recent));
                    }
                    let next = naive.kept.get(newest).map_or(naive.next, |e| e.offset);
                    readers.push(Reader { cursor, life: naive.life, next });
                }
                Step::Oldest => {
                    let mut cursor = Cursor::new(&ring);
                    cursor.begin(Begin::Oldest);
                    let next = naive.kept.first().map_or(naive.next, |e| e.offset);
                    readers.push(Reader { cursor, life: naive.life, next });
                }
                Step::Resume(at) => {
                    let offset = at.map(|at| naive.next.saturating_add_signed(at));
                    let mut cursor = Cursor::new(&ring);
                    let missed = cursor.resume(|_| offset);
                    let next = offset.map_or(naive.first, |offset| offset.saturating_add(1));
                    let gone = offset.is_none() || next < naive.first;
                    prop_assert_eq!(missed.is_some(), gone);
                    if let Some(missed) = missed {
                        prop_assert_eq!(
                            (missed.from, missed.to),
                            (offset.map(|_| next), naive.first)
                        );
                    }
                    readers.push(Reader { cursor, life: naive.life, next });
                }
                Step::Read(n, latest) if count > 0 => {
                    read(&mut readers[n % count], &naive, latest)?
                }
                Step::SkipTo(n, most) if count > 0 => {
                    let reader = &mut readers[n % count];
                    let (from, to) =
                        (reader.next, naive.next.saturating_sub(most).max(naive.first));
                    let behind = naive.next.saturating_sub(from);
                    let skips = !latest && reader.life == naive.life && behind > most && from < to;
                    let missed = reader.cursor.skip_to_last(most);
                    prop_assert_eq!(missed.is_some(), skips);
                    if let Some(missed) = missed {
                        prop_assert_eq!((missed.from, missed.to), (Some(from), to));
                        reader.cursor.go_to(&missed);
                        reader.next = to;
                    }
                }
                Step::Skip(n) if count > 0 => {
                    let reader = &mut readers[n % count];
                    reader.cursor.skip();
                    // A last event is not skipped.
                    let last = u64::from(naive.end == Some(End::Last));
                    (reader.life, reader.next) = (naive.life, naive.next - last);
                }
                Step::Leave(n) if count > 0 => drop(readers.swap_remove(n % count)),
                Step::Read(..) | Step::SkipTo(..) | Step::Skip(_) | Step::Leave(_) => {}
            }
            prop_assert_eq!(ring.kept(), (naive.kept.len(), naive.bytes(0)));
            if let Events::Latest { events, places } = &ring.lock().events {
                prop_assert_eq!(events.len(), places.len(), "no place without its event");
            }
            let bound = naive.kept.first().is_none_or(|oldest| {
                oldest.event.last
                    || (naive.kept.len() <= keep.events && naive.bytes(0) <= keep.bytes)
            });
            prop_assert!(bound, "more is kept than may be");
            prop_assert_eq!((ring.next(), ring.is_closed()), (naive.next, naive.end.is_some()));
            prop_assert_eq!(ring.readers(), readers.len());
            for reader in &readers {
                let same = reader.life == naive.life;
                let behind = naive.next.saturating_sub(reader.next);
                let wanted = if same {
                    (behind, naive.slow > naive.hole && reader.next < naive.slow)
                } else {
                    (0, false)
                };
                prop_assert_eq!(reader.cursor.behind(), wanted);
            }
        }
        // All that there is can be read to its end.
        for reader in &mut readers {
            for _ in 0..500 {
                if reader.life == naive.life && reader.next >= naive.next {
                    break;
                }
                read(reader, &naive, false)?;
            }
            prop_assert!(reader.life == naive.life && reader.next >= naive.next);
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
            behaves(Keep { events, bytes, age }, latest, &steps)?;
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
        let ring = Ring::new(Keep { events: 9, bytes: 999, age: None }, false, None, ids());
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
                assert!(self.0.log.try_lock().is_ok() && !self.0.seats.is_locked());
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
        for latest in [false, true] {
            let keep = Keep { events: 2, bytes: 999, age: Some(Duration::from_secs(9)) };
            let ring = Ring::new(keep, latest, None, ids());
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
            drop(ring.begin(ids(), 1));
            assert!(dropped.load(Ordering::Relaxed) >= 10);
            append(&ring, 2);
            drop(ring.close());
            drop(ring.begin(ids(), 1));
            assert_eq!(ring.kept(), (0, 0));
        }
        let ring = Ring::new(Keep { events: 9, bytes: 999, age: None }, false, None, ids());
        let dropped = Arc::new(AtomicUsize::new(0));
        let events = [0, 1].map(|_| Uses(ring.clone(), dropped.clone()));
        drop(ring.append(events, |_, offset, uses| Entry {
            value: Some(Arc::new(uses)),
            ..entry(offset, &Event { size: 9, key: 0, last: true }, Duration::ZERO)
        }));
        assert_eq!((dropped.load(Ordering::Relaxed), ring.kept().0), (1, 1));
    }

    /// Whoever is up to date, and gets what comes, takes no lock and copies nothing, whoever publishes meanwhile.
    #[test]
    fn who_is_up_to_date_takes_no_lock() {
        let ring = Ring::new(Keep { events: 9, bytes: 999, age: None }, false, None, ids());
        let mut cursor = Cursor::new(&ring);
        let event = Event { size: 9, key: 0, last: false };
        let one = |ring: &Arc<Ring>| {
            drop(ring.append([&event], |_, offset, event| entry(offset, event, Duration::ZERO)));
        };
        one(&ring);
        let held = (ring.log.lock().expect("sound"), ring.seats.hold());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let cx = Context::from_waker(futures_util::task::noop_waker_ref());
            let Poll::Ready(Read::Batch(batch)) = cursor.poll(&cx, None) else { return };
            assert!(cursor.poll(&cx, None).is_pending() && cursor.behind() == (0, false));
            let _ = tell.send((batch.bytes.as_ptr() as usize, std::mem::ManuallyDrop::new(cursor)));
        });
        let (read, cursor) = told.recv_timeout(Duration::from_secs(20)).expect("without a lock");
        drop(held);
        drop(std::mem::ManuallyDrop::into_inner(cursor));
        let (kept, _) = ring.all();
        assert_eq!(read, kept[0].frame.as_ptr() as usize);
    }
}
