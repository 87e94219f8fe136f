//! One reader of a topic: where it begins, what it missed, and what it is sent.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_core::Stream;
use serde_json::json;

use super::broker::LogReplica;
use super::feed::{FRUITLESS, Feed};
use super::merge::{Feeds, MergedSubscription};
use super::position::Position;
use super::ring::{Begin, Entry, Missed, Read, Value};
use crate::event::SseEvent;
use crate::frame::{
    FrameWriter, GAP, InvalidEvent, LastEventId, PreEncoded, write_body, write_control, write_id,
};

/// Where a subscription began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
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
/// ([`MergedSubscription`](crate::MergedSubscription)) it also says whose they are: `"part": 0` is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub(super) missed: Option<u64>,
    pub(super) first: Option<Position>,
    pub(super) last: Option<Position>,
}

impl Gap {
    /// How many; `None` if nobody knows: the client's id is of an earlier life of the topic, or of another topic.
    pub fn missed(&self) -> Option<u64> {
        self.missed
    }

    /// The first of them, if it is known.
    pub fn first(&self) -> Option<Position> {
        self.first
    }

    /// The last of them; `None` if all that was published in this life of the topic is still kept.
    pub fn last(&self) -> Option<Position> {
        self.last
    }

    /// As it goes over the wire, with where the client stands then.
    pub(super) fn write(&self, out: &mut BytesMut, part: Option<usize>, now: Option<&str>) {
        let id = |position: Option<Position>| position.map(|position| position.to_string());
        let mut data =
            json!({ "missed": self.missed, "from": id(self.first), "to": id(self.last) });
        if let (Some(part), Some(data)) = (part, data.as_object_mut()) {
            data.insert("part".to_owned(), part.into());
        }
        if let Some(now) = now {
            write_id(out, now, false);
        }
        write_control(out, GAP, &data);
    }

    /// This one, and another behind it.
    fn and(self, later: Self) -> Self {
        let missed = self.missed.zip(later.missed).map(|(one, other)| one + other);
        Self { missed, first: self.first, last: later.last }
    }
}

/// One who follows a [`Topic`](crate::Topic): what an endpoint's function returns, or a `Stream` of [`Published`]s.
///
/// Returned as it is, the encoded bytes go out as they stand in the topic, shared by all subscribers, and the endpoint's
/// [`Overflow`](crate::options::Overflow) says what becomes of a client that is too slow for the topic. It goes on where the
/// request's `Last-Event-ID` says.
///
/// After an adaptor such as `map` it is a stream like any other: a slow client holds it back, frames that it can no longer
/// have are told by the next one's [`gap`](Published::gap), and sent as `hero.gap` with it. The kit does not see it any more:
/// take the cursor as an argument, and [`resume`](Self::resume) by hand, or whoever comes back begins as a new client. So
/// does, in any case, who has not had a frame yet: there is no `hero.cursor`. A frame that tells of a gap may be left out
/// by the endpoint's [`Overflow`](crate::options::Overflow) in its turn: then there is a `hero.gap` with `"missed": null`.
///
/// ```
/// use futures_util::StreamExt;
/// use hero_sse::prelude::*;
/// use hero_sse::axum::extract::State;
/// use serde::Serialize;
/// use hero_sse::topic::Published;
///
/// #[derive(Serialize, SseEvent)]
/// struct Order { id: u64 }
///
/// #[sse_endpoint("/orders/ten", public)]
/// async fn ten(State(orders): State<Topic<Order>>, cursor: LastEventId) -> impl Stream<Item = Published<Order>> {
///     orders.subscribe().resume(&cursor).take(10)
/// }
/// # fn main() { let _: hero_sse::extend::Endpoints<Topic<Order>> = endpoints![ten]; }
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
    pub(super) fn new(window: &LogReplica) -> Self {
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
        if self.feed.start == Resume::Live {
            self.feed.begin(begin);
        }
        self
    }

    /// Leaves out events that this says `false` to, besides those left out before. A [last](SseEvent::is_last) event
    /// is sent in any case. It must be quick, and say the same of an event each time: it is called once for each event and
    /// subscriber, and under [`Overflow::Latest`](crate::options::Overflow::Latest) again for what still waits.
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
    /// a state that the topic itself keeps there is [`snapshot`](crate::topic::TopicBuilder::snapshot), which is exact. It is
    /// not called after an adaptor such as `map`, where [`Published::gap`] tells.
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
    pub fn start(&self) -> &Resume {
        &self.feed.start
    }

    /// Another topic on the same stream, whatever its events are.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::axum::extract::State;
    /// # use serde::Serialize;
    /// # use hero_sse::MergedSubscription;
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Usage { used: u64 }
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Audit { what: String }
    /// type App = (Topic<Usage>, Topic<Audit>);
    ///
    /// #[sse_endpoint("/dashboard", public)]
    /// async fn dashboard(State((usage, audit)): State<App>) -> MergedSubscription {
    ///     usage.subscribe().and(audit.subscribe().recent(20))
    /// }
    /// # fn main() { let _: hero_sse::extend::Endpoints<App> = endpoints![dashboard]; }
    /// ```
    pub fn and<F: SseEvent + Send + Sync + 'static>(
        self,
        other: Subscription<F>,
    ) -> MergedSubscription {
        MergedSubscription::of(self.into_feed()).and(other)
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

    fn next_frame(&mut self) -> Option<Published<E>> {
        while let Some(entry) = self.waiting.pop_front() {
            if !self.feed.wants(&entry) {
                continue;
            }
            // Only an event of another node that cannot be read has no value.
            let Some(value) = entry.value.clone().and_then(|value| value.downcast().ok()) else {
                continue;
            };
            let position = self.feed.position(entry.offset);
            return Some(Published { value, entry, position, gap: self.gap.take() });
        }
        None
    }
}

impl<E: SseEvent + Send + Sync + 'static> Stream for Subscription<E> {
    type Item = Published<E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Published<E>>> {
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
pub struct Published<E> {
    value: Arc<E>,
    entry: Arc<Entry>,
    position: Position,
    gap: Option<Gap>,
}

impl<E> Published<E> {
    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the subscriber missed before it.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }
}

impl<E> Deref for Published<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.value
    }
}

impl<E> Clone for Published<E> {
    fn clone(&self) -> Self {
        let Self { value, entry, position, gap } = self;
        Self { value: value.clone(), entry: entry.clone(), position: *position, gap: gap.clone() }
    }
}

impl<E: fmt::Debug> fmt::Debug for Published<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, position, gap, .. } = self;
        f.debug_struct("Published")
            .field("event", value)
            .field("position", position)
            .field("gap", gap)
            .finish()
    }
}

impl<E: SseEvent + Send + Sync + 'static> SseEvent for Published<E> {
    const NAME: Option<&'static str> = E::NAME;

    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        let mut gap = BytesMut::new();
        if let Some(told) = &self.gap {
            told.write(&mut gap, None, told.last.as_ref().map(Position::as_str));
        }
        frame.pre_encoded(PreEncoded::Event, &gap, &self.entry.frame);
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
