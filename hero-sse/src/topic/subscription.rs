//! One reader of a topic: where it begins, what it missed, and what it is sent.

use std::any::Any;
use std::borrow::Cow;
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
use super::merge::{Feeds, Subscriptions};
use super::position::Position;
use super::ring::{Batch, Begin, Cursor, End, Entry, Missed, Read, Value};
use crate::close::CloseReason;
use crate::event::SseEvent;
use crate::frame::{FrameWriter, InvalidEvent, LastEventId, write_body, write_control, write_id};
use crate::policy::Overflow;

/// So many batches without an event that the subscriber wants are looked at before others have a turn.
pub(super) const FRUITLESS: usize = 8;

/// Where a subscription began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// As a new one. So does who comes to a topic of [the latest](crate::Topic::latest) with an id of another life:
    /// it gets all there is.
    Live,
    /// Behind the event that the client had last: it misses nothing.
    Resumed,
    /// Behind events that are not kept any more.
    Gap(Gap),
}

/// Events that a subscriber cannot have any more.
///
/// A client is told as `hero.gap`: `{"missed": 3, "from": "..", "to": ".."}`. Where several topics are on one stream
/// ([`Subscriptions`](crate::Subscriptions)) it also says whose they are: `"part": 0` is the first.
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

    /// As it goes over the wire, with where the client stands then.
    fn write(&self, out: &mut BytesMut, part: Option<usize>, now: Option<&str>) {
        let id = |position: Option<Position>| position.map(|position| position.to_string());
        let mut data = json!({ "missed": self.missed, "from": id(self.from), "to": id(self.to) });
        if let (Some(part), Some(data)) = (part, data.as_object_mut()) {
            data.insert("part".to_owned(), part.into());
        }
        if let Some(now) = now {
            write_id(out, now, false);
        }
        write_control(out, "hero.gap", &data);
    }

    /// This one, and another behind it.
    fn and(self, later: Self) -> Self {
        let missed = self.missed.zip(later.missed).map(|(one, other)| one + other);
        Self { missed, from: self.from, to: later.to }
    }
}

/// One who follows a [`Topic`](crate::Topic): what an endpoint's function returns, or a `Stream` of [`Frame`]s.
///
/// Returned as it is, the encoded bytes go out as they stand in the topic, shared by all subscribers, and the endpoint's
/// [`Overflow`](crate::Overflow) says what becomes of a client that is too slow for the topic. It goes on where the
/// request's `Last-Event-ID` says.
///
/// After an adaptor such as `map` it is a stream like any other: a slow client holds it back, frames that it can no longer
/// have are told by the next one's [`gap`](Frame::gap), and sent as `hero.gap` with it. The kit does not see it any more:
/// take the cursor as an argument, and [`resume`](Self::resume) by hand, or whoever comes back begins as a new client.
///
/// ```
/// use futures_util::StreamExt;
/// use hero_sse::prelude::*;
/// use hero_sse::Frame;
///
/// #[derive(Serialize, SseEvent)]
/// struct Order { id: u64 }
///
/// #[sse_endpoint("/orders/ten", public)]
/// async fn ten(State(orders): State<Topic<Order>>, cursor: LastEventId) -> impl Stream<Item = Frame<Order>> {
///     orders.subscribe().resume(&cursor).take(10)
/// }
/// # fn main() { let _: hero_sse::Endpoints<Topic<Order>> = endpoints![ten]; }
/// ```
pub struct Subscription<E> {
    feed: Feed,
    /// What was read and not asked for yet.
    waiting: VecDeque<Arc<Entry>>,
    /// What the next frame tells.
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
            self.feed.begin(begin);
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
    /// a page is right again without a reload. What was published before this is called is not sent any more, but for
    /// a [last](SseEvent::is_last) event; what is published from then on is, so read the state in it, and let events
    /// that are in it already do no harm.
    ///
    /// The stream waits for the answer, and the client's cursor moves with it: whoever leaves before is told of the
    /// gap again, and this is called again. It is dropped with the stream. An error ends the stream, and is logged. For
    /// a state that the topic itself keeps there is [`snapshot`](crate::TopicBuilder::snapshot), which is exact. It is
    /// not called after an adaptor such as `map`, where [`Frame::gap`] tells.
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
                let events = answer.await.map_err(|error| error.to_string())?;
                let body = |event: S| {
                    let mut out = BytesMut::new();
                    write_body(&mut out, None, |frame| event.encode(frame))?;
                    Ok(out.freeze())
                };
                let bodies: Result<_, InvalidEvent> = events.into_iter().map(body).collect();
                bodies.map_err(|error| error.to_string())
            })
        }));
        self
    }

    /// Where it began.
    pub fn start(&self) -> &Start {
        &self.feed.start
    }

    /// Another topic on the same stream, whatever its events are.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::Subscriptions;
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Usage { used: u64 }
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Audit { what: String }
    /// type App = (Topic<Usage>, Topic<Audit>);
    ///
    /// #[sse_endpoint("/dashboard", public)]
    /// async fn dashboard(State((usage, audit)): State<App>) -> Subscriptions {
    ///     usage.subscribe().and(audit.subscribe().recent(20))
    /// }
    /// # fn main() { let _: hero_sse::Endpoints<App> = endpoints![dashboard]; }
    /// ```
    pub fn and<F: SseEvent + Send + Sync + 'static>(self, other: Subscription<F>) -> Subscriptions {
        Subscriptions::of(self.into_feed()).and(other)
    }

    /// Without its type; what was read and not asked for yet is read again.
    pub(super) fn into_feed(self) -> Feed {
        let Self { mut feed, waiting, gap, .. } = self;
        if let Some(entry) = waiting.front() {
            feed.cursor.back_to(entry.offset);
        }
        feed.untold = gap;
        feed
    }

    fn pass(&mut self, missed: Missed) {
        let gap = self.feed.pass(&missed);
        self.gap = Some(match self.gap.take() {
            Some(earlier) => earlier.and(gap),
            None => gap,
        });
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
            let position = self.feed.position(entry.offset);
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
            this.pass(missed);
        }
        for _ in 0..=FRUITLESS {
            if let Some(frame) = this.next_frame() {
                return Poll::Ready(Some(frame));
            }
            match ready!(this.feed.read(cx, false)) {
                Read::Batch(batch) => this.waiting.extend(batch.entries.iter().cloned()),
                Read::Missed(missed) => this.pass(missed),
                Read::Over(_) => return Poll::Ready(None),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
            told.write(&mut gap, None, told.to.as_ref().map(Position::as_str));
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
        Some(Box::new(Feeds::One(Box::new(subscription.into_feed()))))
    }
}

type Wanted = Box<dyn FnMut(&Value) -> bool + Send>;
type Answer = BoxFuture<'static, Result<Vec<Bytes>, String>>;

/// A subscription as a stream's writer drives it, whatever its events are.
pub(crate) struct Feed {
    window: Window,
    cursor: Cursor,
    start: Start,
    /// Whether somebody has said where it begins.
    placed: bool,
    /// What it could not have, and has not told yet.
    missed: Option<Missed>,
    /// The same, for which the cursor has moved already.
    untold: Option<Gap>,
    /// A new reader of a topic with a state has not got that yet.
    stateless: bool,
    /// It begins with what is kept, whatever that is by then: it has not been asked for anything yet.
    fresh: bool,
    wanted: Option<Wanted>,
    on_gap: Option<Box<dyn FnMut(Gap) -> Answer + Send>>,
    /// What the application has to say to a gap, and where the client stands until it has said so.
    answer: Option<(Answer, Place)>,
    /// What the client needs to come back; it has or has not got it.
    mark: Mark,
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

/// What a feed has next.
pub(super) enum Next {
    Told(Told),
    Batch(Arc<Batch>),
    Over(End),
    Overflow,
    Failed(String),
}

/// What one client is told alone: what is missing, and what the application or the topic has to say to it.
pub(super) struct Told {
    gap: Option<Gap>,
    bodies: Vec<Bytes>,
}

impl Told {
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
pub(super) enum Place {
    /// It has all up to here, or need not have it any more.
    At(Position),
    /// It has nothing, and begins as a new one.
    New,
    /// It misses something, and cannot say what.
    Lost,
}

impl Place {
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
    fn new(window: &Window) -> Self {
        window.expire();
        let cursor = Cursor::new(window.ring());
        Self {
            fresh: cursor.next() < window.next(),
            cursor,
            window: window.clone(),
            start: Start::Live,
            placed: false,
            missed: None,
            untold: None,
            stateless: window.ring().has_state(),
            wanted: None,
            on_gap: None,
            answer: None,
            mark: Mark::None,
            behind_until: 0,
            gaps: 0,
            position: None,
        }
    }

    /// Begins behind the event with this id, unless somebody has said where.
    pub(crate) fn resume(&mut self, cursor: Option<&LastEventId>) {
        if let Some(cursor) = cursor.filter(|cursor| cursor.as_str().is_some()) {
            self.resume_at(cursor);
        }
    }

    /// Whether the client's id says where it stands in this topic.
    pub(super) fn has_made(&self, cursor: &LastEventId) -> bool {
        self.cursor.life().find(cursor).is_some()
    }

    /// Whether this topic has made the id.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.cursor.life().read(id).is_some()
    }

    /// Whether it begins as for a new client.
    pub(super) fn is_new(&self) -> bool {
        self.start == Start::Live
    }

    /// Begins where this says, or after who knows what, unless somebody has said where. Of the latest there is
    /// nothing to miss for who gets all of it.
    pub(super) fn resume_at(&mut self, cursor: &LastEventId) {
        let is_new = self.window.is_latest() && !self.has_made(cursor);
        if std::mem::replace(&mut self.placed, true) || is_new {
            return;
        }
        self.mark = Mark::Now;
        self.fresh = false;
        self.stateless = false;
        self.missed = self.cursor.resume(|ids| ids.find(cursor));
        self.behind_until = self.window.next();
        self.start = match &self.missed {
            None => Start::Resumed,
            Some(missed) => Start::Gap(self.gap(missed)),
        };
    }

    fn begin(&mut self, begin: Begin) {
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
        if let (Mark::None | Mark::Old, Place::At(here)) = (self.mark, self.place()) {
            write_cursor(out, here.as_str(), false);
            self.mark = Mark::Now;
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
            let Poll::Ready(next) = self.next(cx, patience) else {
                if self.mark == Mark::None {
                    self.mark(out);
                }
                return wrote(out, before);
            };
            match next {
                Next::Told(told) => {
                    let here = self.is_settled().then(|| self.here());
                    told.write(out, None, here.as_ref().map(Position::as_str));
                    if here.is_some() {
                        self.mark = Mark::Now;
                    }
                }
                Next::Batch(batch) => match self.deliver(&batch, out) {
                    Some(fed) => return Poll::Ready(fed),
                    None if out.len() > before => return Poll::Ready(Fed::Wrote),
                    None => {}
                },
                Next::Over(End::Last) => {
                    // It came back with an id that has no end mark, and would do so for ever.
                    if self.mark != Mark::End {
                        write_cursor(out, self.here().as_str(), true);
                    }
                    return Poll::Ready(Fed::Over(CloseReason::LastEvent));
                }
                Next::Over(End::Closed) => return Poll::Ready(Fed::Over(CloseReason::Ended)),
                Next::Overflow => return Poll::Ready(Fed::Over(CloseReason::Overflow)),
                Next::Failed(error) => return Poll::Ready(Fed::Failed(error)),
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
                    Ok(bodies) => Next::Told(Told { gap: None, bodies }),
                    Err(error) => Next::Failed(error),
                });
            }
            if let Some(gap) = self.untold.take() {
                return Poll::Ready(Next::Told(self.tell(gap, Place::Lost)));
            }
            if let Some(missed) = self.missed.take() {
                let place = self.before(&missed);
                let gap = self.pass(&missed);
                // Where it goes on there may be much to read at once.
                self.behind_until = self.window.next();
                return Poll::Ready(Next::Told(self.tell(gap, place)));
            }
            if std::mem::take(&mut self.stateless)
                && let Some(state) = self.cursor.state()
            {
                return Poll::Ready(Next::Told(Told { gap: None, bodies: vec![state] }));
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
    fn read(&mut self, cx: &Context<'_>, latest: bool) -> Poll<Read> {
        loop {
            match self.cursor.poll(cx, latest) {
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

    /// Whether it is not slow, however far behind: it came so, or there is never too much to read.
    fn may_lag(&self) -> bool {
        self.window.is_latest() || self.cursor.next() < self.behind_until
    }

    /// Whether the client is too slow; one that may skip, skips.
    fn is_too_slow(&mut self, Patience { overflow, most }: Patience) -> bool {
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
    fn deliver(&mut self, batch: &Batch, out: &mut BytesMut) -> Option<Fed> {
        if batch.entries.is_empty() {
            return None;
        }
        let wanted = self.wanted_of(batch);
        if let Some(entry) = wanted.last() {
            self.mark = Mark::behind(entry, batch);
        } else if self.mark == Mark::Now {
            self.mark = Mark::Old;
        }
        if wanted.len() == batch.entries.len() {
            return Some(Fed::Shared(batch.bytes.clone()));
        }
        wanted.iter().for_each(|entry| out.extend_from_slice(&entry.frame));
        None
    }

    /// What the client wants of a batch.
    pub(super) fn wanted_of<'a>(&mut self, batch: &'a Batch) -> Cow<'a, [Arc<Entry>]> {
        if self.wanted.is_none() {
            return Cow::Borrowed(&batch.entries);
        }
        Cow::Owned(batch.entries.iter().filter(|entry| self.wants(entry)).cloned().collect())
    }

    fn wants(&mut self, entry: &Entry) -> bool {
        let Some(wanted) = &mut self.wanted else { return true };
        entry.last || entry.value.as_ref().is_some_and(wanted)
    }

    /// Says what is missing, and what the topic has to say to it; or asks the application for that.
    fn tell(&mut self, gap: Gap, before: Place) -> Told {
        self.stateless = false;
        let bodies = match &mut self.on_gap {
            Some(on_gap) => {
                self.cursor.skip();
                self.answer = Some((on_gap(gap.clone()), before));
                Vec::new()
            }
            None => self.cursor.state().into_iter().collect(),
        };
        Told { gap: Some(gap), bodies }
    }

    /// Goes on behind what is missing.
    fn pass(&mut self, missed: &Missed) -> Gap {
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
            from: from.map(|from| life.of(from)),
            to: last.map(|last| life.of(last)),
        }
    }

    /// Where a client stands that must yet be told of a gap.
    fn before(&self, missed: &Missed) -> Place {
        let last = missed.from.map(|from| from.saturating_sub(1));
        last.map_or(Place::Lost, |last| Place::At(missed.life.of(last)))
    }

    /// Whether the client has been told all that there is to a gap.
    pub(super) fn is_settled(&self) -> bool {
        self.answer.is_none() && self.missed.is_none() && self.untold.is_none()
    }

    /// Where the client stands.
    pub(super) fn place(&mut self) -> Place {
        match (&self.missed, &self.answer) {
            (Some(missed), _) => self.before(missed),
            (None, Some((_, place))) => *place,
            (None, None) if self.untold.is_some() => Place::Lost,
            (None, None) if self.stateless => Place::New,
            (None, None) => Place::At(self.here()),
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
            _ => Self::Now,
        }
    }
}

pub(super) fn wrote(out: &BytesMut, before: usize) -> Poll<Fed> {
    if out.len() > before { Poll::Ready(Fed::Wrote) } else { Poll::Pending }
}
