//! A subscription as a stream's writer drives it, whatever its events are: what comes next, what is told on the way,
//! and where the client stands.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use serde_json::json;

use super::broker::LogReplica;
use super::position::{LOST, NEW, Position, Twin};
use super::ring::{Batch, Begin, Cursor, End, Entry, Missed, Read, Value};
use super::subscription::{Gap, Resume};
use crate::close::CloseReason;
use crate::frame::{LastEventId, write_control, write_id};
use crate::overflow::Overflow;

/// So many batches without an event that the subscriber wants are looked at before others have a turn.
pub(super) const FRUITLESS: usize = 8;

type Wanted = Box<dyn FnMut(&Value) -> bool + Send>;
type Answer = BoxFuture<'static, Result<Vec<Bytes>, String>>;

/// A subscription as a stream's writer drives it, whatever its events are.
pub(crate) struct Feed {
    pub(super) window: LogReplica,
    pub(super) cursor: Cursor,
    pub(super) start: Resume,
    /// Whether somebody has said where it begins.
    placed: bool,
    /// What it could not have, and has not told yet.
    pub(super) missed: Option<Missed>,
    /// The same, for which the cursor has moved already.
    pub(super) untold: Option<Gap>,
    /// A new reader of a topic with a state has not got that yet.
    stateless: bool,
    /// It begins with what is kept, whatever that is by then: it has not been asked for anything yet.
    fresh: bool,
    pub(super) wanted: Option<Wanted>,
    pub(super) on_gap: Option<Box<dyn FnMut(Gap) -> Answer + Send>>,
    /// What the application has to say to a gap, and where the client stands until it has said so.
    answer: Option<(Answer, ClientCursor)>,
    /// What the client needs to come back; it has or has not got it.
    mark: Mark,
    /// The offset in the id that it has, if it has one.
    pub(super) told: u64,
    /// It began so far behind, and may stay there until it has caught up.
    behind_until: u64,
    gaps: u64,
    /// The position that was asked for last.
    position: Option<Position>,
}

/// How long a slow client is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) overflow: Overflow,
    /// So many events behind is too slow; else three quarters of what the topic keeps.
    pub(crate) most: Option<u64>,
    /// The client had all that there was, and waited: whatever came since, it was not slow.
    pub(crate) waited: bool,
}

/// What a poll of a feed came to.
#[derive(Debug)]
pub(crate) enum FeedPoll {
    /// These leave as they are, in order behind what was written.
    Shared(Bytes),
    /// Something was written.
    Wrote,
    Over(CloseReason),
    Failed(String),
}

/// What a feed has next.
pub(super) enum Next {
    Preamble(Preamble),
    Batch(Arc<Batch>),
    Over(End),
    Overflow,
    Failed(String),
}

/// What one client is told alone: what is missing, and what the application or the topic has to say to it.
pub(super) struct Preamble {
    gap: Option<Gap>,
    bodies: Vec<Bytes>,
}

impl Preamble {
    /// Writes it. The client stands at `id` when it has all of it; who has a part of it comes back for all.
    pub(super) fn write(&self, out: &mut BytesMut, part: Option<usize>, id: Option<&str>) {
        if let Some(gap) = &self.gap {
            gap.write(out, part, id.filter(|_| self.bodies.is_empty()));
        }
        let last = self.bodies.len().saturating_sub(1);
        for (at, body) in self.bodies.iter().enumerate() {
            if let Some(id) = id.filter(|_| at == last) {
                write_id(out, id, false);
            }
            out.extend_from_slice(body);
        }
        if let (None, [], Some(id)) = (&self.gap, self.bodies.as_slice(), id) {
            write_cursor(out, id, false);
        }
    }
}

/// Where a client stands in one topic.
#[derive(Clone, Copy)]
pub(super) enum ClientCursor {
    /// It has all up to here, or need not have it any more.
    At(Position),
    /// It has nothing, and begins as a new one.
    New,
    /// It misses something, and cannot say what.
    Lost,
}

impl ClientCursor {
    /// The offset that says so in an id, where it is not that of an event.
    pub(super) fn sign(&self) -> Option<u64> {
        match self {
            Self::At(_) => None,
            Self::New => Some(NEW),
            Self::Lost => Some(LOST),
        }
    }

    /// As it stands in an id of several topics.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::At(position) => Some(position.as_str()),
            Self::New => None,
            // No topic makes it.
            Self::Lost => Some("-"),
        }
    }
}

/// What a client knows of where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// It has no id to come back with.
    #[default]
    None,
    /// Events have passed that it knows nothing of.
    Old,
    Now,
    /// It has the end mark.
    End,
}

/// Tells a client where it stands, and nothing else. A block with an id alone does not move every browser's cursor.
pub(super) fn write_cursor(out: &mut BytesMut, id: &str, end: bool) {
    write_id(out, id, end);
    write_control(out, "hero.cursor", &json!({}));
}

impl Feed {
    pub(super) fn new(window: &LogReplica) -> Self {
        window.expire();
        let cursor = Cursor::new(window.ring());
        Self {
            fresh: cursor.next() < window.next(),
            cursor,
            window: window.clone(),
            start: Resume::Live,
            placed: false,
            missed: None,
            untold: None,
            stateless: window.ring().has_state(),
            wanted: None,
            on_gap: None,
            answer: None,
            mark: Mark::None,
            told: 0,
            behind_until: 0,
            gaps: 0,
            position: None,
        }
    }

    /// Begins behind the event with this id, unless somebody has said where.
    pub(crate) fn resume(&mut self, cursor: Option<&LastEventId>) {
        if let Some(cursor) = cursor.filter(|cursor| cursor.as_str().is_some()) {
            self.resume_at(cursor, Twin::NONE);
        }
    }

    /// Whether the client's id says where it stands in this topic.
    pub(super) fn has_made(&self, cursor: &LastEventId) -> bool {
        self.cursor.life().find(cursor, Twin::NONE).is_some()
    }

    /// Whether this topic has made the id.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.cursor.life().read(id).is_some()
    }

    /// Whether it begins as for a new client.
    pub(super) fn is_new(&self) -> bool {
        self.start == Resume::Live
    }

    /// Begins where this says, or after who knows what, unless somebody has said where. Of the latest there is
    /// nothing to miss for who gets all of it.
    pub(super) fn resume_at(&mut self, cursor: &LastEventId, twin: Twin) {
        let offset = self.cursor.life().find(cursor, twin);
        let is_new = offset == Some(NEW) || (offset.is_none() && self.window.is_latest());
        if std::mem::replace(&mut self.placed, true) || is_new {
            return;
        }
        self.mark = Mark::Now;
        self.fresh = false;
        self.stateless = false;
        self.missed =
            self.cursor.resume(|ids| ids.find(cursor, twin).filter(|offset| *offset != LOST));
        self.told = self.cursor.next().saturating_sub(1);
        self.behind_until = self.window.next();
        self.start = match &self.missed {
            None => Resume::Resumed,
            Some(missed) => Resume::Gap(self.gap(missed)),
        };
    }

    pub(super) fn begin(&mut self, begin: Begin) {
        self.cursor.begin(begin);
        self.behind_until = self.window.next();
        self.fresh = self.cursor.next() < self.behind_until;
    }

    /// How many gaps were told since this was asked last.
    pub(crate) fn take_gaps(&mut self) -> u64 {
        std::mem::take(&mut self.gaps)
    }

    /// Appends what a client needs to come back, if it has seen nothing of what has passed.
    pub(crate) fn mark(&mut self, out: &mut BytesMut) {
        if let (Mark::None | Mark::Old, ClientCursor::At(here)) = (self.mark, self.place()) {
            write_cursor(out, here.as_str(), false);
            (self.mark, self.told) = (Mark::Now, here.offset());
        }
    }

    /// Appends to `out` what only this client gets, and returns what all share.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        patience: Patience,
        out: &mut BytesMut,
    ) -> Poll<FeedPoll> {
        let before = out.len();
        for _ in 0..FRUITLESS {
            let Poll::Ready(next) = self.next(cx, patience) else {
                if self.mark == Mark::None {
                    self.mark(out);
                }
                return wrote(out, before);
            };
            match next {
                Next::Preamble(told) => {
                    let here = self.is_settled().then(|| self.here());
                    told.write(out, None, here.as_ref().map(Position::as_str));
                    if let Some(here) = here {
                        (self.mark, self.told) = (Mark::Now, here.offset());
                    }
                }
                Next::Batch(batch) => match self.deliver(&batch, out) {
                    Some(fed) => return Poll::Ready(fed),
                    None if out.len() > before => return Poll::Ready(FeedPoll::Wrote),
                    None => {}
                },
                Next::Over(End::Last) => {
                    // It came back with an id that has no end mark, and would do so for ever.
                    if self.mark != Mark::End {
                        write_cursor(out, self.here().as_str(), true);
                    }
                    return Poll::Ready(FeedPoll::Over(CloseReason::LastEvent));
                }
                Next::Over(End::Closed) => return Poll::Ready(FeedPoll::Over(CloseReason::Ended)),
                Next::Overflow => {
                    self.mark(out);
                    return Poll::Ready(FeedPoll::Over(CloseReason::Overflow));
                }
                Next::Failed(error) => return Poll::Ready(FeedPoll::Failed(error)),
            }
        }
        cx.waker().wake_by_ref();
        wrote(out, before)
    }

    /// What comes next.
    pub(super) fn next(&mut self, cx: &mut Context<'_>, patience: Patience) -> Poll<Next> {
        loop {
            if let Some((answer, _)) = &mut self.answer {
                let answered = ready!(answer.as_mut().poll(cx));
                self.answer = None;
                return Poll::Ready(match answered {
                    Ok(bodies) => Next::Preamble(Preamble { gap: None, bodies }),
                    Err(error) => Next::Failed(error),
                });
            }
            if let Some(gap) = self.untold.take() {
                return Poll::Ready(self.tell(gap, ClientCursor::Lost));
            }
            if let Some(missed) = self.missed.take() {
                let place = self.before(&missed);
                let gap = self.pass(&missed);
                // Where it goes on there may be much to read at once.
                self.behind_until = self.window.next();
                return Poll::Ready(self.tell(gap, place));
            }
            if std::mem::take(&mut self.stateless)
                && let Some(state) = self.cursor.state()
            {
                return Poll::Ready(match state {
                    Ok(state) => Next::Preamble(Preamble { gap: None, bodies: vec![state] }),
                    Err(error) => Next::Failed(error),
                });
            }
            if self.is_too_slow(patience) {
                return Poll::Ready(Next::Overflow);
            }
            if self.missed.is_some() {
                continue;
            }
            match ready!(self.read(cx, patience.overflow == Overflow::Latest)) {
                Read::Batch(batch) => return Poll::Ready(Next::Batch(batch)),
                Read::Over(end) => return Poll::Ready(Next::Over(end)),
                // What the broker lost is no fault of the client's, nor is what went while it may lag: that is told
                // in place.
                Read::Missed(missed)
                    if patience.overflow == Overflow::Disconnect
                        && !missed.lost
                        && !self.may_lag() =>
                {
                    return Poll::Ready(Next::Overflow);
                }
                Read::Missed(missed) => self.missed = Some(missed),
            }
        }
    }

    /// What there is to read; where a new client begins is not decided before.
    pub(super) fn read(&mut self, cx: &Context<'_>, latest: bool) -> Poll<Read> {
        loop {
            let wanted = &mut self.wanted;
            let mut wants = |entry: &Entry| wants(wanted, entry);
            match self.cursor.poll(cx, latest.then_some(&mut wants)) {
                Poll::Ready(Read::Missed(missed)) if self.fresh => {
                    self.cursor.go_to(&missed);
                    self.position = None;
                }
                read => {
                    self.fresh = false;
                    return read;
                }
            }
        }
    }

    /// Whether it is not slow, however far behind: it came so, all of it came at once, or there is never too much to
    /// read.
    fn may_lag(&self) -> bool {
        self.window.is_latest() || self.cursor.next() < self.behind_until
    }

    /// Whether the client is too slow; one that may skip, skips.
    fn is_too_slow(&mut self, Patience { overflow, most, waited }: Patience) -> bool {
        if waited && overflow == Overflow::Disconnect {
            self.behind_until = self.window.next();
        }
        if self.may_lag() {
            return false;
        }
        let (behind, slow) = self.cursor.behind();
        // What is beyond that is gone, and no reconnect brings it back.
        let most = most.filter(|most| *most < self.window.keep().events as u64);
        let too_slow = most.map_or(slow, |most| behind > most);
        if too_slow && overflow == Overflow::DropOldest {
            self.missed = most.and_then(|most| self.cursor.skip_to_last(most));
        }
        too_slow && overflow == Overflow::Disconnect
    }

    /// The frames of a batch that this client wants, shared if those are all.
    fn deliver(&mut self, batch: &Batch, out: &mut BytesMut) -> Option<FeedPoll> {
        let wanted = self.wanted_of(batch);
        let Some(entry) = wanted.last() else {
            if self.mark == Mark::Now {
                self.mark = Mark::Old;
            }
            if self.is_old() {
                self.mark(out);
            }
            return None;
        };
        (self.mark, self.told) = (Mark::behind(entry, batch), entry.offset);
        if wanted.len() == batch.entries.len() {
            return Some(FeedPoll::Shared(batch.bytes.clone()));
        }
        wanted.iter().for_each(|entry| out.extend_from_slice(&entry.frame));
        None
    }

    /// What the client wants of a batch.
    pub(super) fn wanted_of<'a>(&mut self, batch: &'a Batch) -> Cow<'a, [Arc<Entry>]> {
        if self.wanted.is_none() || batch.is_chosen {
            return Cow::Borrowed(&batch.entries);
        }
        Cow::Owned(batch.entries.iter().filter(|entry| self.wants(entry)).cloned().collect())
    }

    pub(super) fn wants(&mut self, entry: &Entry) -> bool {
        wants(&mut self.wanted, entry)
    }

    /// Says what is missing, and what the topic has to say to it; or asks the application for that.
    fn tell(&mut self, gap: Gap, before: ClientCursor) -> Next {
        self.stateless = false;
        let bodies = match &mut self.on_gap {
            Some(on_gap) => {
                self.cursor.skip();
                self.answer = Some((on_gap(gap.clone()), before));
                Ok(Vec::new())
            }
            None => self.cursor.state().into_iter().collect(),
        };
        match bodies {
            Ok(bodies) => Next::Preamble(Preamble { gap: Some(gap), bodies }),
            Err(error) => Next::Failed(error),
        }
    }

    /// Goes on behind what is missing.
    pub(super) fn pass(&mut self, missed: &Missed) -> Gap {
        self.cursor.go_to(missed);
        // It may have been of another life.
        self.position = None;
        self.gaps += 1;
        self.gap(missed)
    }

    fn gap(&self, Missed { life, from, to, counts, .. }: &Missed) -> Gap {
        let last = to.checked_sub(1).filter(|last| *last > 0);
        Gap {
            missed: from.filter(|_| *counts).map(|from| to.saturating_sub(from)),
            first: from.map(|from| life.of(from)),
            last: last.map(|last| life.of(last)),
        }
    }

    /// Where a client stands that must yet be told of a gap.
    fn before(&self, missed: &Missed) -> ClientCursor {
        let last = missed.from.map(|from| from.saturating_sub(1));
        last.map_or(ClientCursor::Lost, |last| ClientCursor::At(missed.life.of(last)))
    }

    /// Whether what the client has to come back with would soon be too old.
    pub(super) fn is_old(&self) -> bool {
        self.cursor.is_old(self.told)
    }

    /// Whether the client has all that there is to what it was just told.
    pub(super) fn is_settled(&self) -> bool {
        self.answer.is_none()
    }

    /// Where the client stands.
    pub(super) fn place(&mut self) -> ClientCursor {
        match (&self.missed, &self.answer) {
            (Some(missed), _) => self.before(missed),
            (None, Some((_, place))) => *place,
            (None, None) if self.untold.is_some() => ClientCursor::Lost,
            (None, None) if self.stateless || self.fresh => ClientCursor::New,
            (None, None) => ClientCursor::At(self.here()),
        }
    }

    fn here(&mut self) -> Position {
        self.position(self.cursor.next().saturating_sub(1))
    }

    pub(super) fn position(&mut self, offset: u64) -> Position {
        match self.position.filter(|position| position.offset() == offset) {
            Some(position) => position,
            None => *self.position.insert(self.cursor.life().of(offset)),
        }
    }
}

impl Mark {
    /// Of a client that had this entry last, of a batch.
    fn behind(entry: &Entry, batch: &Batch) -> Self {
        match batch.entries.last() {
            _ if entry.last => Self::End,
            Some(last) if last.offset != entry.offset => Self::Old,
            // What came behind it was not wanted.
            _ if batch.is_chosen && entry.offset + 1 < batch.to => Self::Old,
            _ => Self::Now,
        }
    }
}

fn wants(wanted: &mut Option<Wanted>, entry: &Entry) -> bool {
    let Some(wanted) = wanted else { return true };
    entry.last || entry.value.as_ref().is_some_and(wanted)
}

pub(super) fn wrote(out: &BytesMut, before: usize) -> Poll<FeedPoll> {
    if out.len() > before { Poll::Ready(FeedPoll::Wrote) } else { Poll::Pending }
}
