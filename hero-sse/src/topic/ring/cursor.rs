//! A reader of a ring: an offset, and a seat among those who wait.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::log::{BATCH, Batch, End, Entry, Life, Missed};
use super::seats::Seat;
use super::{Ids, Ring};

/// So many events, and some batches of bytes, are looked at to find the newest of each place: a reader far behind does
/// not look at all of them again for each batch.
const AHEAD: usize = 1024;

/// A reader of a ring: where it stands, and its seat among those who wait.
pub(crate) struct Cursor {
    ring: Arc<Ring>,
    next: u64,
    life: Life,
    seat: Arc<Seat>,
}

/// What a reader wants, who gets only the newest of each place; else it gets all.
pub(crate) type Newest<'a> = Option<&'a mut dyn FnMut(&Entry) -> bool>;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the oldest that is kept.
    Oldest,
    /// With as many of the newest; of a log that has ended with its last event at least.
    Recent(usize),
}

/// What a reader finds.
pub(crate) enum Read {
    Batch(Arc<Batch>),
    Missed(Missed),
    Over(End),
}

impl Cursor {
    /// A new reader: of a log of the latest it reads all there is.
    pub(crate) fn new(ring: &Arc<Ring>) -> Self {
        let life = ring.front.load().batch.life.clone();
        let mut cursor = Self { ring: ring.clone(), next: 0, life, seat: ring.seats.take() };
        cursor.begin(if ring.latest { Begin::Oldest } else { Begin::Recent(0) });
        cursor
    }

    /// Stands where a new reader does.
    pub(crate) fn begin(&mut self, begin: Begin) {
        let log = self.ring.lock();
        let newest = match begin {
            Begin::Oldest => usize::MAX,
            Begin::Recent(count) => count.max(usize::from(log.end == Some(End::Last))),
        };
        self.next = log.events.newest_from(newest).unwrap_or(log.next);
        self.life = log.life.clone();
    }

    /// Stands behind the event whose offset `read` says. It may not be here yet: another node made its id, and
    /// was quicker. What it cannot say is of another life, or of another topic.
    pub(crate) fn resume(&mut self, read: impl FnOnce(&Ids) -> Option<u64>) -> Option<Missed> {
        let life = self.ring.front.load().batch.life.clone();
        let offset = read(&life);
        let log = self.ring.lock();
        self.life = log.life.clone();
        match offset.filter(|_| Arc::ptr_eq(&life, &log.life)) {
            Some(offset) => {
                self.next = offset.saturating_add(1);
                log.missed(self.next, &log.life)
            }
            None => {
                self.next = log.first;
                Some(log.missing(None, true))
            }
        }
    }

    /// What the topic adds up to; the reader stands behind all that is in it, but for an event that ended the log.
    pub(crate) fn state(&mut self) -> Option<Result<Bytes, String>> {
        let mut log = self.ring.lock();
        let state = log.fold.as_mut()?.render();
        let last = u64::from(log.end == Some(End::Last));
        (self.next, self.life) = (log.next - last, log.life.clone());
        Some(state)
    }

    /// The offset of the next event that it wants.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// What the ids are made with where it stands.
    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    /// What is left out, if anything is, when only the last so many events are wanted.
    pub(crate) fn skip_to_last(&self, most: u64) -> Option<Missed> {
        let (behind, _) = self.behind();
        if behind <= most || self.ring.latest {
            return None;
        }
        let log = self.ring.lock();
        let to = log.next.saturating_sub(most).max(log.first);
        let skips = Arc::ptr_eq(&self.life, &log.life) && self.next < to;
        skips.then(|| Missed { to, ..log.missing(Some(self.next), false) })
    }

    pub(crate) fn go_to(&mut self, missed: &Missed) {
        (self.next, self.life) = (missed.to, missed.life.clone());
    }

    /// Goes back to what it has read and not used.
    pub(crate) fn back_to(&mut self, offset: u64) {
        self.next = offset;
    }

    /// Stands behind all that there is, but for an event that ended the log: that is told on every replay.
    pub(crate) fn skip(&mut self) {
        let front = self.ring.front.load();
        let last = u64::from(front.end == Some(End::Last));
        (self.next, self.life) = (front.batch.to - last, front.batch.life.clone());
    }

    /// How many events it is behind at most, and whether it is slow. Of another life it has everything to learn,
    /// and is not slow.
    pub(crate) fn behind(&self) -> (u64, bool) {
        let front = self.ring.front.load();
        if !Arc::ptr_eq(&front.batch.life, &self.life) {
            return (0, false);
        }
        (front.batch.to.saturating_sub(self.next), front.slow.is_some_and(|slow| self.next < slow))
    }

    /// Whether who comes back with this offset is slow before it begins.
    pub(crate) fn is_old(&self, offset: u64) -> bool {
        self.ring.front.load().slow.is_some_and(|slow| offset < slow)
    }

    /// What there is to read. With `newest`, of what it is behind and wants only the newest of each place.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, mut newest: Newest<'_>) -> Poll<Read> {
        // A log of the latest has no others.
        newest = newest.filter(|_| !self.ring.latest);
        if let Some(read) = self.look(&mut newest) {
            return Poll::Ready(read);
        }
        self.seat.wait(cx.waker());
        // What was published before the waker was there woke nobody.
        self.look(&mut newest).map_or(Poll::Pending, Poll::Ready)
    }

    fn look(&mut self, newest: &mut Newest<'_>) -> Option<Read> {
        let front = self.ring.front.load();
        if Arc::ptr_eq(&front.batch.life, &self.life) && front.batch.to <= self.next {
            return front.end.map(Read::Over);
        }
        // Of several events some may not be the newest of their place.
        let plain = newest.is_none() || front.batch.entries.len() < 2;
        let fitting = self.fitting(&front.batch).filter(|_| plain);
        let next = front.batch.to;
        drop(front);
        if let Some(batch) = fitting {
            return Some(self.take(batch));
        }
        Some(match newest {
            Some(wants) => self.read_newest(wants),
            None => self.catch_up(next),
        })
    }

    /// Reads what another joined who stood here, or else from the log, for others to find.
    fn catch_up(&mut self, next: u64) -> Read {
        // Of the latest some may be outdated by now.
        let current = |batch: &Arc<Batch>| !self.ring.latest || batch.until == next;
        if let Some(batch) = self.fitting(&self.ring.joined.load()).filter(current) {
            return self.take(batch);
        }
        let log = self.ring.lock();
        if let Some(missed) = log.missed(self.next, &self.life) {
            return Read::Missed(missed);
        }
        let (life, until) = (log.life.clone(), (self.next, log.next));
        let batch = Arc::new(Batch::of(life, until, log.events.since(self.next)));
        drop(log);
        self.ring.joined.store(batch.clone());
        self.take(batch)
    }

    fn read_newest(&mut self, wants: &mut dyn FnMut(&Entry) -> bool) -> Read {
        let log = self.ring.lock();
        if let Some(missed) = log.missed(self.next, &self.life) {
            return Read::Missed(missed);
        }
        let mut size = 0;
        let ahead = log.events.since(self.next).take(AHEAD).take_while(|entry| {
            let has_room = size < 8 * BATCH;
            size += entry.frame.len();
            has_room
        });
        let mut entries: Vec<_> = ahead.collect();
        let until = entries.last().map_or(log.next, |last| last.offset + 1);
        let (life, from) = (log.life.clone(), self.next);
        // Publishers do not wait until it has found out which are the newest.
        drop(log);
        entries.retain(|entry| wants(entry));
        let newest = newest_of(entries).into_iter();
        self.take(Arc::new(Batch { is_chosen: true, ..Batch::of(life, (from, until), newest) }))
    }

    /// The batch, if it is what this reader reads next.
    fn fitting(&self, batch: &Arc<Batch>) -> Option<Arc<Batch>> {
        let lives = Arc::ptr_eq(&batch.life, &self.life);
        let fits = lives && batch.from == self.next && batch.to > self.next;
        fits.then(|| batch.clone())
    }

    fn take(&mut self, batch: Arc<Batch>) -> Read {
        self.next = batch.to;
        Read::Batch(batch)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.ring.seats.leave(&self.seat);
    }
}

/// The newest of each place among these, in order.
fn newest_of(entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let mut seen = HashSet::new();
    let newest = entries.iter().rev().filter(|entry| seen.insert((&entry.name, &entry.key)));
    let mut newest: Vec<_> = newest.cloned().collect();
    newest.reverse();
    newest
}
