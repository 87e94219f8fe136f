//! Several topics on one stream: each with its own cursor, and one id that carries them all.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::feed::{
    ClientCursor, FRUITLESS, Feed, FeedPoll, Mark, Next, Patience, write_cursor, wrote,
};
use super::position::{MOST_TOPICS, Twin, join, parts};
use super::ring::{BATCH, End, Entry, Life};
use super::subscription::Subscription;
use crate::close::CloseReason;
use crate::event::SseEvent;
use crate::frame::{FrameWriter, InvalidEvent, LastEventId, PreEncoded, write_id};
use crate::overflow::Overflow;

/// So much of it a topic may have before the others have had their turn: there is room for all of them.
const TURN: usize = BATCH / MOST_TOPICS;

/// Several topics on one stream, up to eight: what [`Subscription::and`] makes, for an endpoint to return.
///
/// Each is read at its own place, with its own filter, its own beginning and its own [`on_gap`](Subscription::on_gap);
/// the endpoint's [`Overflow`] holds for each. They take turns, so that none waits for one that has much to say, and
/// each comes in its own order. The ids say where the client stands in all of them. Who comes back goes on in each,
/// whatever their order; a topic that is new on the stream begins as for a new client, but with a gap
/// (`"missed": null`) where another one is gone: from outside nobody could tell it from one that began anew.
///
/// A topic that ends leaves the others; with the last of them the stream ends. If all ended by a
/// [last](SseEvent::is_last) event, who comes back is answered `204`.
///
/// One topic twice sends twice what both let through, and each goes on where it was as long as they stand in the same
/// order. A ninth topic has no room in the id: such a stream ends as it begins, with a line in the log. As a `Stream`
/// it yields what goes over the wire, under [`Overflow::DropOldest`], for adaptors such as `take_until`, which need a
/// [`resume`](Self::resume) by hand before them; whoever needs the events maps each subscription and merges the
/// streams, without a common id.
pub struct MergedSubscription {
    many: Many,
}

impl MergedSubscription {
    pub(super) fn of(feed: Feed) -> Self {
        let parts = vec![Part::of(feed)];
        Self { many: Many { parts, turn: 0, mark: Mark::None } }
    }

    /// One more.
    #[must_use]
    pub fn and<E: SseEvent + Send + Sync + 'static>(mut self, other: Subscription<E>) -> Self {
        self.many.parts.push(Part::of(other.into_feed()));
        self
    }

    /// Each begins behind what a client had of it. The kit does this by itself for what an endpoint returns.
    #[must_use]
    pub fn resume(mut self, cursor: &LastEventId) -> Self {
        self.many.resume(Some(cursor));
        self
    }
}

impl fmt::Debug for MergedSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedSubscription").field("topics", &self.many.parts.len()).finish()
    }
}

impl Stream for MergedSubscription {
    type Item = Result<EncodedEvents, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut out = BytesMut::new();
        let patience = Patience { overflow: Overflow::DropOldest, most: None, waited: false };
        let many = &mut self.get_mut().many;
        let fed = ready!(many.poll(cx, patience, &mut out));
        Poll::Ready(match fed {
            FeedPoll::Failed(error) => Some(Err(error.into())),
            FeedPoll::Over(_) if out.is_empty() => None,
            fed => {
                let last = matches!(fed, FeedPoll::Over(CloseReason::LastEvent));
                Some(Ok(EncodedEvents { bytes: out.freeze(), last }))
            }
        })
    }
}

/// Events of [`MergedSubscription`] as they go over the wire, one or more.
#[derive(Clone, Debug)]
pub struct EncodedEvents {
    bytes: Bytes,
    last: bool,
}

impl SseEvent for EncodedEvents {
    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.pre_encoded(PreEncoded::Batch, &[], &self.bytes);
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.last
    }

    fn of_topic(stream: &mut dyn Any) -> Option<Box<dyn Any + Send>> {
        let MergedSubscription { many } = stream.downcast_mut::<Option<_>>()?.take()?;
        Some(Box::new(Feeds::Many(many)))
    }
}

/// What a stream's writer follows.
pub(crate) enum Feeds {
    One(Box<Feed>),
    Many(Many),
}

impl Feeds {
    /// Begins behind what the client had, unless somebody has said where.
    pub(crate) fn resume(&mut self, cursor: Option<&LastEventId>) {
        match self {
            Self::One(feed) => feed.resume(cursor),
            Self::Many(many) => many.resume(cursor),
        }
    }

    /// Appends to `out` what only this client gets, and returns what all share.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        patience: Patience,
        out: &mut BytesMut,
    ) -> Poll<FeedPoll> {
        match self {
            Self::One(feed) => feed.poll(cx, patience, out),
            Self::Many(many) => many.poll(cx, patience, out),
        }
    }

    /// Appends what a client needs to come back, if it has seen nothing of what has passed.
    pub(crate) fn mark(&mut self, out: &mut BytesMut) {
        match self {
            Self::One(feed) => feed.mark(out),
            Self::Many(many) => many.mark(out),
        }
    }

    /// How many gaps were told since this was asked last.
    pub(crate) fn take_gaps(&mut self) -> u64 {
        match self {
            Self::One(feed) => feed.take_gaps(),
            Self::Many(many) => many.parts.iter_mut().map(|part| part.feed.take_gaps()).sum(),
        }
    }
}

/// MergedSubscription that take turns.
pub(crate) struct Many {
    parts: Vec<Part>,
    /// Whose turn it is.
    turn: usize,
    mark: Mark,
}

struct Part {
    feed: Feed,
    /// What was read and had no room yet: a batch at most.
    waiting: VecDeque<Arc<Entry>>,
    /// Nothing waits by then.
    end: Option<End>,
}

/// What became of a turn.
enum Turn {
    /// There was nothing.
    Idle,
    /// There was something, and there may be more.
    Took,
    /// There is no room left.
    Full,
    Over(FeedPoll),
}

impl Part {
    fn of(feed: Feed) -> Self {
        Self { feed, waiting: VecDeque::new(), end: None }
    }

    /// The same, which it is told now.
    fn tell(&mut self) -> ClientCursor {
        let place = self.place();
        if let ClientCursor::At(position) = place {
            self.feed.told = position.offset();
        }
        place
    }

    /// Where the client stands in this topic.
    fn place(&mut self) -> ClientCursor {
        match self.waiting.front() {
            Some(entry) => ClientCursor::At(self.feed.position(entry.offset.saturating_sub(1))),
            None => self.feed.place(),
        }
    }
}

impl Many {
    fn resume(&mut self, cursor: Option<&LastEventId>) {
        let Some(cursor) = cursor.filter(|cursor| cursor.as_str().is_some()) else { return };
        let known = |id| self.parts.iter().any(|part| part.feed.knows(id));
        let all_known = parts(cursor).all(known);
        let lives: Vec<_> = self.parts.iter().map(|part| part.feed.cursor.life().clone()).collect();
        for (number, Part { feed, .. }) in self.parts.iter_mut().enumerate() {
            let life = feed.cursor.life().clone();
            let twins = |lives: &[Life]| lives.iter().filter(|other| other.are(&life)).count();
            let before = lives.get(..number).unwrap_or_default();
            // Else a topic that was not there yet.
            if feed.has_made(cursor) || !all_known {
                feed.resume_at(cursor, Twin { nth: twins(before), of: twins(&lives) });
            }
        }
        // Of a topic that is new on the stream the client's id says nothing.
        let is_new = self.parts.iter().any(|part| part.feed.is_new());
        self.mark = if is_new { Mark::None } else { Mark::Now };
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        patience: Patience,
        out: &mut BytesMut,
    ) -> Poll<FeedPoll> {
        let topics = self.parts.len();
        if topics > MOST_TOPICS {
            return Poll::Ready(FeedPoll::Failed(format!(
                "{topics} topics on one stream: {MOST_TOPICS} have room in an event's id; open another stream for the rest"
            )));
        }
        let (before, mut fruitless) = (out.len(), 0);
        while fruitless < FRUITLESS {
            let (written, mut idle) = (out.len(), true);
            for _ in 0..topics {
                match self.serve(cx, patience, out, before) {
                    Turn::Idle => {}
                    Turn::Took => idle = false,
                    Turn::Full => return Poll::Ready(FeedPoll::Wrote),
                    Turn::Over(fed) => return Poll::Ready(fed),
                }
                self.turn = (self.turn + 1) % topics;
            }
            if let Some(reason) = self.end(out) {
                return Poll::Ready(FeedPoll::Over(reason));
            }
            if idle {
                if self.mark == Mark::None {
                    self.mark(out);
                }
                return wrote(out, before);
            }
            fruitless = if out.len() > written { 0 } else { fruitless + 1 };
        }
        cx.waker().wake_by_ref();
        wrote(out, before)
    }

    /// The turn of one topic.
    fn serve(
        &mut self,
        cx: &mut Context<'_>,
        patience: Patience,
        out: &mut BytesMut,
        before: usize,
    ) -> Turn {
        let start = out.len();
        let mut turn = Turn::Idle;
        loop {
            let number = self.turn;
            let Some(part) = self.parts.get_mut(number) else { return turn };
            if let Some(entry) = part.waiting.front().cloned() {
                let room = before + BATCH - BATCH.min(self.size(&entry));
                if out.len() > before && out.len() > room {
                    return Turn::Full;
                }
                self.write(number, &entry, out);
                turn = Turn::Took;
                if out.len() - start >= TURN {
                    return turn;
                }
                continue;
            }
            if part.end.is_some() {
                return turn;
            }
            let Poll::Ready(next) = part.feed.next(cx, patience) else { return turn };
            turn = Turn::Took;
            match next {
                Next::Preamble(told) => {
                    let settled = part.feed.is_settled();
                    let id = settled.then(|| self.id());
                    told.write(out, Some(number), id.as_deref());
                    if settled {
                        self.mark = Mark::Now;
                    }
                    if out.len() - before >= BATCH {
                        return Turn::Full;
                    }
                }
                Next::Batch(batch) => {
                    let wanted = part.feed.wanted_of(&batch);
                    part.waiting.extend(wanted.iter().cloned());
                    if part.waiting.is_empty() {
                        let is_old = part.feed.is_old();
                        if self.mark == Mark::Now {
                            self.mark = Mark::Old;
                        }
                        if is_old {
                            self.mark(out);
                        }
                        return turn;
                    }
                }
                Next::Over(end) => {
                    part.end = Some(end);
                    return turn;
                }
                Next::Overflow => {
                    self.mark(out);
                    return Turn::Over(FeedPoll::Over(CloseReason::Overflow));
                }
                Next::Failed(error) => return Turn::Over(FeedPoll::Failed(error)),
            }
        }
    }

    /// How much an event takes at most.
    fn size(&self, entry: &Entry) -> usize {
        entry.frame.len() + 32 * self.parts.len()
    }

    /// Writes the first event that waits of a topic, with where the client stands in all of them.
    fn write(&mut self, number: usize, entry: &Entry, out: &mut BytesMut) {
        if let Some(part) = self.parts.get_mut(number) {
            part.waiting.pop_front();
            if entry.last {
                part.end = Some(End::Last);
            }
        }
        let last = self.ended_by_last();
        write_id(out, &self.id(), last);
        out.extend_from_slice(entry.frame.get(entry.body..).unwrap_or_default());
        self.mark = if last { Mark::End } else { Mark::Now };
    }

    /// Why the stream is over, if it is.
    fn end(&mut self, out: &mut BytesMut) -> Option<CloseReason> {
        if !self.parts.iter().all(|part| part.end.is_some()) {
            return None;
        }
        if !self.ended_by_last() {
            return Some(CloseReason::Ended);
        }
        if self.mark != Mark::End {
            write_cursor(out, &self.id(), true);
        }
        Some(CloseReason::LastEvent)
    }

    /// Whether there is nothing more to come, ever.
    fn ended_by_last(&self) -> bool {
        self.parts.iter().all(|part| part.end == Some(End::Last))
    }

    fn mark(&mut self, out: &mut BytesMut) {
        if matches!(self.mark, Mark::None | Mark::Old) {
            let id = self.id();
            // Who is new in all of them comes back as one.
            if !id.is_empty() {
                write_cursor(out, &id, false);
                self.mark = Mark::Now;
            }
        }
    }

    /// Where the client stands, to tell it.
    fn id(&mut self) -> String {
        let mut places: Vec<_> = self.parts.iter_mut().map(Part::tell).collect();
        let is_new = |place: &ClientCursor| matches!(place, ClientCursor::New);
        if places.iter().any(|place| place.sign().is_some()) && !places.iter().all(is_new) {
            let lives = || self.parts.iter().map(|part| part.feed.cursor.life());
            for (place, life) in places.iter_mut().zip(lives()) {
                // Else it would go on where another one of its topic is.
                if let Some(sign) = place.sign()
                    && lives().filter(|other| other.are(life)).count() > 1
                {
                    *place = ClientCursor::At(life.of(sign));
                }
            }
        }
        join(places.iter().filter_map(ClientCursor::as_str))
    }
}
