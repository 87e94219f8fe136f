//! One reader of a topic: where it begins, what it missed, and what it is sent.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_core::future::BoxFuture;
use serde_json::json;

use super::broker::Window;
use super::position::Position;
use super::ring::{Batch, Begin, Cursor, End, Entry, Missed, Read, Value};
use crate::close::CloseReason;
use crate::event::SseEvent;
use crate::frame::{
    FrameWriter, InvalidEvent, LastEventId, write_body, write_control_at, write_id,
};
use crate::policy::Overflow;

/// So many batches without an event that the subscriber wants are looked at before others have a turn.
const FRUITLESS: usize = 8;

/// Where a subscription began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// As a new one.
    Live,
    /// Behind the event that the client had last: it misses nothing.
    Resumed,
    /// Behind events that are not kept any more.
    Gap(Gap),
}

/// Events that a subscriber cannot have any more.
///
/// A client is told as `hero.gap`: `{"missed": 3, "from": "..", "to": ".."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    missed: Option<u64>,
    from: Option<Position>,
    to: Option<Position>,
}

impl Gap {
    /// How many; `None` if nobody knows: the client's id is of an earlier life of the topic, or of another topic.
    pub fn missed(&self) -> Option<u64> {
        self.missed
    }

    /// The first of them, if it is known.
    pub fn from(&self) -> Option<Position> {
        self.from
    }

    /// The last of them; `None` if nothing was published in this life of the topic.
    pub fn to(&self) -> Option<Position> {
        self.to
    }

    /// As it goes over the wire.
    fn write(&self, out: &mut BytesMut, now: Position) {
        let id = |position: Option<Position>| position.map(|position| position.to_string());
        let data = json!({ "missed": self.missed, "from": id(self.from), "to": id(self.to) });
        write_control_at(out, "hero.gap", &data, now.as_str());
    }
}

/// One who follows a [`Topic`](crate::Topic): what an endpoint's function returns, or a `Stream` of [`Frame`]s.
///
/// Returned as it is, the encoded bytes go out as they stand in the topic, shared by all subscribers, and the endpoint's
/// [`Overflow`](crate::Overflow) says what becomes of a client that is too slow for the topic. After an adaptor such as
/// `map` it is a stream like any other: frames that it can no longer have are told by the next one's
/// [`gap`](Frame::gap), and sent as `hero.gap` with it.
///
/// An endpoint's own subscription goes on where the request's `Last-Event-ID` says; where that is read by hand, it is
/// [`resume`](Self::resume).
pub struct Subscription<E> {
    feed: Feed,
    waiting: VecDeque<Arc<Entry>>,
    gap: Option<Gap>,
    marker: PhantomData<fn() -> E>,
}

impl<E: SseEvent + Send + Sync + 'static> Subscription<E> {
    pub(super) fn new(window: &Window) -> Self {
        let feed = Feed::new(window);
        Self { feed, waiting: VecDeque::new(), gap: None, marker: PhantomData }
    }

    /// Begins behind the event that a client had last, if it had any. The kit does this by itself for a subscription
    /// that an endpoint returns; by hand it is for those who want to know the [`start`](Self::start).
    pub fn resume(mut self, cursor: &LastEventId) -> Self {
        self.feed.resume(Some(cursor));
        self
    }

    /// A new client begins with the oldest event that is kept, instead of with the next one.
    pub fn from_start(self) -> Self {
        self.begin(Begin::Oldest)
    }

    /// A new client begins with the last `count` events that are kept.
    pub fn recent(self, count: usize) -> Self {
        self.begin(Begin::Recent(count))
    }

    fn begin(mut self, begin: Begin) -> Self {
        if self.feed.start == Start::Live {
            self.feed.cursor.begin(begin);
            self.feed.behind_until = self.feed.window.next();
        }
        self
    }

    /// Leaves out events that this says `false` to, besides those left out before. A [last](SseEvent::is_last) event
    /// is sent in any case. It is called once for each event and subscriber, and must be quick.
    pub fn filter(mut self, mut wanted: impl FnMut(&E) -> bool + Send + 'static) -> Self {
        let mut before = self.feed.wanted.take();
        self.feed.wanted = Some(Box::new(move |value: &Value| {
            before.as_mut().is_none_or(|before| before(value))
                && value.downcast_ref().is_some_and(&mut wanted)
        }));
        self
    }

    /// What to send to a client that cannot have what it missed, behind `hero.gap`: mostly the present state, so that
    /// a page is right again without a reload. What was published before this is called is not sent any more; what is
    /// published from then on is, so read the state in it, and let events that are in it already do no harm.
    ///
    /// An error ends the stream, and is logged. For a state that the topic itself keeps there is
    /// [`snapshot`](crate::TopicBuilder::snapshot), which is exact.
    pub fn on_gap<F, O, S>(mut self, mut answer: F) -> Self
    where
        F: FnMut(Gap) -> O + Send + 'static,
        O: Future<Output = Result<Vec<S>, Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
        S: SseEvent,
    {
        self.feed.on_gap = Some(Box::new(move |gap| {
            let answer = answer(gap);
            Box::pin(async move {
                let mut out = BytesMut::new();
                for event in answer.await.map_err(|error| error.to_string())? {
                    let written = write_body(&mut out, None, |frame| event.encode(frame));
                    written.map_err(|error| error.to_string())?;
                }
                Ok(out.freeze())
            })
        }));
        self
    }

    /// Where it began.
    pub fn start(&self) -> &Start {
        &self.feed.start
    }

    fn next_frame(&mut self) -> Option<Frame<E>> {
        while let Some(entry) = self.waiting.pop_front() {
            if !self.feed.wants(&entry) {
                continue;
            }
            // Only an event of another node that cannot be read has no value.
            let Some(value) = entry.value.clone().and_then(|value| value.downcast().ok()) else {
                continue;
            };
            let position = self.feed.cursor.life().of(entry.offset);
            return Some(Frame { value, entry, position, gap: self.gap.take() });
        }
        None
    }
}

impl<E: SseEvent + Send + Sync + 'static> Stream for Subscription<E> {
    type Item = Frame<E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame<E>>> {
        let this = self.get_mut();
        if let Some(missed) = this.feed.missed.take() {
            this.gap = Some(this.feed.pass(&missed));
        }
        loop {
            if let Some(frame) = this.next_frame() {
                return Poll::Ready(Some(frame));
            }
            match ready!(this.feed.cursor.poll(cx, false)) {
                Read::Batch(batch) => this.waiting.extend(batch.entries.iter().cloned()),
                Read::Missed(missed) => this.gap = Some(this.feed.pass(&missed)),
                Read::Over(_) => return Poll::Ready(None),
            }
        }
    }
}

impl<E> Unpin for Subscription<E> {}

impl<E> fmt::Debug for Subscription<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.feed.window.topic())
            .field("start", &self.feed.start)
            .finish_non_exhaustive()
    }
}

/// An event of a topic, encoded once for all; dereferences to the event.
pub struct Frame<E> {
    value: Arc<E>,
    entry: Arc<Entry>,
    position: Position,
    gap: Option<Gap>,
}

impl<E> Frame<E> {
    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the subscriber missed before it.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }
}

impl<E> Deref for Frame<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.value
    }
}

impl<E> Clone for Frame<E> {
    fn clone(&self) -> Self {
        let Self { value, entry, position, gap } = self;
        Self { value: value.clone(), entry: entry.clone(), position: *position, gap: gap.clone() }
    }
}

impl<E: fmt::Debug> fmt::Debug for Frame<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, position, gap, .. } = self;
        f.debug_struct("Frame")
            .field("event", value)
            .field("position", position)
            .field("gap", gap)
            .finish()
    }
}

impl<E: SseEvent + Send + Sync + 'static> SseEvent for Frame<E> {
    const NAME: Option<&'static str> = E::NAME;

    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        let mut gap = BytesMut::new();
        if let Some(told) = &self.gap {
            told.write(&mut gap, told.to.unwrap_or(self.position));
        }
        frame.whole(&gap, &self.entry.frame);
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.entry.last
    }

    fn key(&self) -> Option<String> {
        self.entry.key.as_deref().map(str::to_owned)
    }

    fn of_topic(stream: &mut dyn Any) -> Option<Box<dyn Any + Send>> {
        let subscription: Subscription<E> = stream.downcast_mut::<Option<_>>()?.take()?;
        Some(Box::new(subscription.feed))
    }
}

type Wanted = Box<dyn FnMut(&Value) -> bool + Send>;
type Answer = BoxFuture<'static, Result<Bytes, String>>;

/// A subscription as a stream's writer drives it, whatever its events are.
pub(crate) struct Feed {
    window: Window,
    cursor: Cursor,
    start: Start,
    /// Whether somebody has said where it begins.
    placed: bool,
    /// What it could not have, and has not told yet.
    missed: Option<Missed>,
    /// A new reader of a topic with a state has not got that yet.
    stateless: bool,
    wanted: Option<Wanted>,
    on_gap: Option<Box<dyn FnMut(Gap) -> Answer + Send>>,
    answer: Option<Answer>,
    /// The client has no id to come back with.
    unmarked: bool,
    /// Events have passed that the client knows nothing of.
    moved: bool,
    /// It began so far behind, and may stay there until it has caught up.
    behind_until: u64,
    gaps: u64,
}

/// How long a slow client is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) overflow: Overflow,
    /// So many events behind is too slow; else three quarters of what the topic keeps.
    pub(crate) most: Option<u64>,
}

/// What a poll of a feed came to.
#[derive(Debug)]
pub(crate) enum Fed {
    /// These leave as they are, in order behind what was written.
    Shared(Bytes),
    /// Something was written.
    Wrote,
    Over(CloseReason),
    Failed(String),
}

impl Feed {
    fn new(window: &Window) -> Self {
        window.expire();
        Self {
            cursor: Cursor::new(window.ring()),
            window: window.clone(),
            start: Start::Live,
            placed: false,
            missed: None,
            stateless: true,
            wanted: None,
            on_gap: None,
            answer: None,
            unmarked: true,
            moved: false,
            behind_until: 0,
            gaps: 0,
        }
    }

    /// Begins behind the event with this id, unless somebody has said where.
    pub(crate) fn resume(&mut self, cursor: Option<&LastEventId>) {
        let Some(cursor) = cursor.filter(|cursor| cursor.as_str().is_some()) else { return };
        if std::mem::replace(&mut self.placed, true) {
            return;
        }
        self.unmarked = false;
        self.stateless = false;
        self.missed = self.cursor.resume(|ids| ids.find(cursor));
        self.behind_until = self.window.next();
        self.start = match &self.missed {
            None => Start::Resumed,
            Some(missed) => Start::Gap(self.gap(missed)),
        };
    }

    /// How many gaps were told since this was asked last.
    pub(crate) fn take_gaps(&mut self) -> u64 {
        std::mem::take(&mut self.gaps)
    }

    /// Appends what a client needs to come back, if it has seen nothing of what has passed.
    pub(crate) fn mark(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.moved) | std::mem::take(&mut self.unmarked) {
            write_control_at(out, "hero.cursor", &json!({}), self.here().as_str());
        }
    }

    /// Appends to `out` what only this client gets, and returns what all share.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        patience: Patience,
        out: &mut BytesMut,
    ) -> Poll<Fed> {
        let before = out.len();
        for _ in 0..FRUITLESS {
            if let Some(answer) = &mut self.answer {
                let Poll::Ready(answered) = answer.as_mut().poll(cx) else {
                    return wrote(out, before);
                };
                self.answer = None;
                match answered {
                    Ok(events) => out.extend_from_slice(&events),
                    Err(error) => return Poll::Ready(Fed::Failed(error)),
                }
            }
            if let Some(missed) = self.missed.take() {
                self.tell(missed, out);
                continue;
            }
            if std::mem::take(&mut self.stateless) {
                self.write_state(out);
            }
            if let Some(over) = self.overflow(patience) {
                return Poll::Ready(over);
            }
            if self.missed.is_some() {
                continue;
            }
            match self.cursor.poll(cx, patience.overflow == Overflow::Latest) {
                Poll::Pending => {
                    if self.unmarked {
                        self.mark(out);
                    }
                    return wrote(out, before);
                }
                Poll::Ready(Read::Batch(batch)) => match self.deliver(&batch, out) {
                    Some(fed) => return Poll::Ready(fed),
                    None if out.len() > before => return Poll::Ready(Fed::Wrote),
                    None => {}
                },
                // What the broker lost is no fault of the client's: it is told in place.
                Poll::Ready(Read::Missed(missed))
                    if patience.overflow == Overflow::Disconnect && !missed.lost =>
                {
                    return Poll::Ready(Fed::Over(CloseReason::Overflow));
                }
                Poll::Ready(Read::Missed(missed)) => self.missed = Some(missed),
                Poll::Ready(Read::Over(End::Last)) => {
                    return Poll::Ready(Fed::Over(CloseReason::LastEvent));
                }
                Poll::Ready(Read::Over(End::Closed)) => {
                    return Poll::Ready(Fed::Over(CloseReason::Ended));
                }
            }
        }
        cx.waker().wake_by_ref();
        wrote(out, before)
    }

    /// Whether the client is too slow; one that may skip, skips.
    fn overflow(&mut self, Patience { overflow, most }: Patience) -> Option<Fed> {
        let (behind, slow) = self.cursor.behind();
        let too_slow = most.map_or(slow, |most| behind > most);
        match overflow {
            Overflow::Disconnect if too_slow && self.cursor.next() >= self.behind_until => {
                Some(Fed::Over(CloseReason::Overflow))
            }
            Overflow::DropOldest => {
                self.missed = most.and_then(|most| self.cursor.skip_to_last(most));
                None
            }
            _ => None,
        }
    }

    /// The frames of a batch that this client wants, shared if those are all.
    fn deliver(&mut self, batch: &Batch, out: &mut BytesMut) -> Option<Fed> {
        if self.wanted.is_none() {
            (self.unmarked, self.moved) = (false, false);
            return Some(Fed::Shared(batch.bytes.clone()));
        }
        let wanted: Vec<_> =
            batch.entries.iter().filter(|entry| self.wants(entry)).cloned().collect();
        let last = wanted.last().map(|entry| entry.offset);
        self.moved |= last != batch.entries.last().map(|entry| entry.offset);
        if last.is_some() {
            self.unmarked = false;
        }
        if wanted.len() == batch.entries.len() {
            self.moved = false;
            return Some(Fed::Shared(batch.bytes.clone()));
        }
        wanted.iter().for_each(|entry| out.extend_from_slice(&entry.frame));
        None
    }

    fn wants(&mut self, entry: &Entry) -> bool {
        let Some(wanted) = &mut self.wanted else { return true };
        entry.last || entry.value.as_ref().is_some_and(wanted)
    }

    /// Says what is missing, and what the application or the topic has to say to it.
    fn tell(&mut self, missed: Missed, out: &mut BytesMut) {
        let gap = self.pass(&missed);
        // Where it goes on there may be much to read at once.
        self.behind_until = self.window.next();
        if let Some(on_gap) = &mut self.on_gap {
            self.cursor.skip();
            self.answer = Some(on_gap(gap.clone()));
            gap.write(out, self.here());
        } else {
            let state = self.cursor.state();
            gap.write(out, self.here());
            self.append_state(state, out);
        }
        (self.unmarked, self.moved) = (false, false);
    }

    /// Goes on behind what is missing.
    fn pass(&mut self, missed: &Missed) -> Gap {
        self.cursor.go_to(missed);
        self.gaps += 1;
        self.gap(missed)
    }

    fn gap(&self, missed: &Missed) -> Gap {
        let at = |offset| missed.life.of(offset);
        let last = missed.to.checked_sub(1).filter(|last| *last > 0);
        Gap {
            missed: missed
                .from
                .filter(|_| missed.counts)
                .map(|from| missed.to.saturating_sub(from)),
            from: missed.from.map(at),
            to: last.map(at),
        }
    }

    fn write_state(&mut self, out: &mut BytesMut) {
        let state = self.cursor.state();
        self.append_state(state, out);
    }

    fn append_state(&mut self, state: Option<Bytes>, out: &mut BytesMut) {
        if let Some(state) = state {
            write_id(out, self.here().as_str(), false);
            out.extend_from_slice(&state);
            self.unmarked = false;
        }
    }

    /// What the client has, or need not have any more.
    fn here(&self) -> Position {
        self.cursor.life().of(self.cursor.next().saturating_sub(1))
    }
}

fn wrote(out: &BytesMut, before: usize) -> Poll<Fed> {
    if out.len() > before { Poll::Ready(Fed::Wrote) } else { Poll::Pending }
}
