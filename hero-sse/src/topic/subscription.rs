//! One reader of a topic: what an endpoint returns, or a `Stream` of its events.

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

use super::broker::LogReplica;
use super::feed::{Feed, MAX_EMPTY_READS, TopicFeed, write_cursor};
use super::gap::{Gap, Resume};
use super::position::Position;
use super::reply::encoded;
use super::ring::{Entry, Missed, Read, StartAt};
use super::unseen;
use crate::event::{SseEvent, TrapNames};
use crate::frame::{FrameWriter, InvalidEvent, LastEventId, PreEncoded, write_id};
use crate::telemetry;

/// A subscription to a [`Topic`](crate::Topic): return it from an endpoint, or use it as a `Stream` of [`Published`]
/// events.
///
/// # From an endpoint
///
/// The client gets the topic's encoded bytes, which all subscribers share. A reconnecting client resumes after the
/// request's `Last-Event-ID`. The endpoint's [`Overflow`](crate::options::Overflow) says what happens to a client that
/// is too slow.
///
/// # As a `Stream`
///
/// Inside another stream, such as one of `futures`' adaptors, the library cannot see the subscription. Take the cursor as an
/// argument and call [`resume`](Self::resume) yourself, and keep the items [`Published`], which have the ids. Otherwise
/// reconnecting clients miss events; without `resume`, a warning is logged once per path. The methods of this type
/// ([`filter`](Self::filter), [`map`](Self::map), [`take`](Self::take), [`begin_with`](Self::begin_with),
/// [`on_gap`](Self::on_gap) and [`and`](Self::and)) are no adaptors: they need no care.
///
/// ```
/// use std::future::ready;
///
/// use futures_util::StreamExt;
/// use hero_sse::axum::extract::State;
/// use hero_sse::prelude::*;
/// use hero_sse::topic::Published;
/// use serde::Serialize;
///
/// #[derive(Serialize, SseEvent)]
/// struct Order { id: u64 }
///
/// #[sse_endpoint("/orders/first", public)]
/// async fn first(State(orders): State<Topic<Order>>, cursor: LastEventId) -> impl Stream<Item = Published<Order>> {
///     orders.subscribe().resume(&cursor).take_while(|order| ready(order.id <= 1_000))
/// }
/// # fn main() { let _: hero_sse::extend::Endpoints<Topic<Order>> = endpoints![first]; }
/// ```
///
/// Behind an adaptor:
///
/// * A slow client delays the stream. Events that are evicted meanwhile are reported by the next event's
///   [`gap`](Published::gap), and sent as `hero.gap` before it.
/// * If the endpoint's [`Overflow`](crate::options::Overflow) drops an event with a gap, the client gets a `hero.gap` with
///   `"missed": null`.
/// * There is no `hero.cursor`: a client that disconnects before its first event reconnects as a new client.
///
/// Dropping a subscription unsubscribes.
#[doc(alias = "receiver")]
#[doc(alias = "subscriber")]
pub struct Subscription<E> {
    feed: Feed,
    /// Events that were read, and not yielded yet.
    waiting: VecDeque<Arc<Entry>>,
    /// The gap before the next event.
    gap: Option<Gap>,
    /// Whether `resume` was called.
    is_resumed: bool,
    marker: PhantomData<fn() -> E>,
}

impl<E: SseEvent + Send + Sync + 'static> Subscription<E> {
    pub(super) fn new(replica: &LogReplica) -> Self {
        let feed = Feed::new(replica);
        let waiting = VecDeque::new();
        Self { feed, waiting, gap: None, is_resumed: false, marker: PhantomData }
    }

    /// Resumes after the client's last event, if the request has a cursor.
    ///
    /// The library calls this for a subscription that an endpoint returns. Call it yourself before an adaptor
    /// such as `take_while`, or to learn the [`resume_state`](Self::resume_state). Only the first call with a cursor counts.
    #[must_use]
    pub fn resume(mut self, cursor: &LastEventId) -> Self {
        self.is_resumed = true;
        self.feed.resume(cursor);
        self
    }

    /// Starts a new client with the oldest retained event. Default: with the next event.
    #[doc(alias = "replay")]
    #[doc(alias = "history")]
    #[must_use]
    pub fn from_start(self) -> Self {
        self.start_at(StartAt::Oldest)
    }

    /// Starts a new client with the last `count` retained events. Default: with the next event.
    #[doc(alias = "replay")]
    #[doc(alias = "history")]
    #[must_use]
    pub fn recent(self, count: usize) -> Self {
        self.start_at(StartAt::Recent(count))
    }

    fn start_at(mut self, start: StartAt) -> Self {
        if self.feed.is_new() {
            self.feed.start_at(start);
        }
        self
    }

    /// Sends only the events that `accept` returns `true` for. Several filters must all accept an event.
    ///
    /// A [last](SseEvent::is_last) event passes every filter. `accept` is called once per event and subscriber, and under
    /// [`Overflow::Latest`](crate::options::Overflow::Latest) again for events that wait. It must be fast, and must always
    /// return the same for an event.
    #[must_use]
    pub fn filter(mut self, accept: impl FnMut(&E) -> bool + Send + 'static) -> Self {
        self.feed.view.filter(accept);
        self
    }

    /// Sends another event in place of each: a type of its own, or an [`Event`](crate::Event).
    ///
    /// Reconnecting clients resume as without it. Ids, keys, gaps, the endpoint's
    /// [`Overflow`](crate::options::Overflow) and the topic's last event stay. [`is_last`](SseEvent::is_last),
    /// [`key`](SseEvent::key) and an id of the new event do not apply. Filters before it get the event of the topic, filters
    /// after it the new one.
    ///
    /// `map` is called once per event and client, and under [`Overflow::Latest`](crate::options::Overflow::Latest) with a
    /// filter after it again. Each client's event is encoded for it alone: for one encoding for all, publish that type. It
    /// must be fast.
    ///
    /// ```
    /// use hero_sse::axum::extract::State;
    /// use hero_sse::prelude::*;
    /// use serde::Serialize;
    ///
    /// #[derive(Serialize, SseEvent)]
    /// struct Order { id: u64, buyer: String }
    ///
    /// #[sse_endpoint("/orders", public)]
    /// async fn orders(State(orders): State<Topic<Order>>) -> Subscription<Event> {
    ///     orders.subscribe().map(|order| Event::text(order.id.to_string()))
    /// }
    /// # fn main() { let _: hero_sse::extend::Endpoints<Topic<Order>> = endpoints![orders]; }
    /// ```
    ///
    /// # Errors
    ///
    /// An event that cannot be encoded, or a panic of `map`, ends the stream of an endpoint, and is logged. Where the
    /// subscription is read as a `Stream`, such an event is logged and left out. An event of another node that
    /// cannot be [decoded](crate::topic::TopicBuilder::decode) is left out.
    #[must_use]
    pub fn map<O>(self, map: impl FnMut(&E) -> O + Send + 'static) -> Subscription<O>
    where
        O: SseEvent + Send + Sync + 'static,
    {
        let Self { mut feed, waiting, gap, is_resumed, .. } = self;
        feed.view.map(map);
        Subscription { feed, waiting, gap, is_resumed, marker: PhantomData }
    }

    /// Ends the stream after `count` events, as an empty stream ends: with [`CloseReason::Ended`](crate::CloseReason).
    ///
    /// An `EventSource` then reconnects, and gets the next `count` events. To stop it, let the topic end with a
    /// [last](SseEvent::is_last) event. Only the topic's events count that this client gets, after all filters: not the state
    /// of [`begin_with`](Self::begin_with), not the reply of [`on_gap`](Self::on_gap), no `hero.*`, and no event without
    /// data. Of several calls, the lowest count holds.
    #[doc(alias = "limit")]
    #[must_use]
    pub fn take(mut self, count: usize) -> Self {
        self.feed.view.take(count);
        self
    }

    /// Sends a new client the events that `state` returns, then what is published.
    ///
    /// Events published before `state` is called are not sent. Events published later are sent after the state, each
    /// once. So read the state inside `state`, and make sure that a page can apply an event that the state already
    /// includes.
    ///
    /// ```
    /// use hero_sse::axum::extract::State;
    /// use hero_sse::prelude::*;
    /// use serde::Serialize;
    ///
    /// #[derive(Clone, Serialize, SseEvent)]
    /// struct Order { id: u64 }
    ///
    /// /// A page shows this list, then adds each new order to it.
    /// #[derive(Serialize, SseEvent)]
    /// struct OpenOrders { orders: Vec<Order> }
    ///
    /// async fn open_orders() -> Result<OpenOrders, std::io::Error> {
    ///     // A query of your database.
    ///     Ok(OpenOrders { orders: Vec::new() })
    /// }
    ///
    /// #[sse_endpoint("/orders", public)]
    /// async fn orders(State(orders): State<Topic<Order>>) -> Subscription<Order> {
    ///     orders
    ///         .subscribe()
    ///         .begin_with(async || Ok(vec![open_orders().await?]))
    ///         .on_gap(async |_| Ok(vec![open_orders().await?]))
    /// }
    /// # fn main() { let _: hero_sse::extend::Endpoints<Topic<Order>> = endpoints![orders]; }
    /// ```
    ///
    /// # Which clients
    ///
    /// Only a new client gets the state: one that sends no id. For clients that missed events, use
    /// [`on_gap`](Self::on_gap). It is also called when more is published during `state` than the topic retains.
    ///
    /// The last event of the state carries the topic's id. A client that disconnects earlier is a new client again.
    ///
    /// # With other starts
    ///
    /// The state replaces what the topic itself sends first: its [snapshot](crate::topic::TopicBuilder::snapshot), or the
    /// values of a topic of [latest values](crate::Topic::latest). With [`from_start`](Self::from_start) or
    /// [`recent`](Self::recent), the retained events follow the state. A second call replaces the first.
    ///
    /// # Cancellation
    ///
    /// The stream waits for the future, and sends heartbeats meanwhile. There is no time limit of its own: the future is
    /// dropped when the stream ends, by its [`MaxAge`](crate::options), a drain, a disconnect, or when the client leaves.
    /// For a shorter limit, use `tokio::time::timeout` inside.
    ///
    /// `state` is not called behind an adaptor of another crate.
    ///
    /// # Errors
    ///
    /// An error of the future, or an event that cannot be encoded, ends the stream, and is logged. So does a panic.
    #[doc(alias = "initial")]
    #[doc(alias = "snapshot")]
    #[must_use]
    pub fn begin_with<F, O, S>(mut self, state: F) -> Self
    where
        F: FnOnce() -> O + Send + 'static,
        O: Future<Output = Result<Vec<S>, Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
        S: SseEvent + 'static,
    {
        if self.feed.is_new() {
            self.feed.hooks.begin = Some(Box::new(move || encoded(state())));
        }
        self
    }

    /// Sends the events that `reply` returns after each `hero.gap`: mostly the current state, so that a page is correct
    /// again without a reload.
    ///
    /// Events published before `reply` is called are skipped, except a [last](SseEvent::is_last) one. Events published
    /// later are sent after the reply. So read the state inside `reply`, and make sure that a page can apply an event
    /// that its state already includes.
    ///
    /// The stream waits for the reply, and the client's cursor moves with it. A client that disconnects earlier gets the
    /// gap again, and `reply` is called again. The future is dropped with the stream.
    ///
    /// `reply` is not called behind an adaptor such as `take_while`; use [`Published::gap`] there. If the state is computed from
    /// the topic's own events, [`TopicBuilder::snapshot`](crate::topic::TopicBuilder::snapshot) is exact.
    ///
    /// # Errors
    ///
    /// An error of the future ends the stream, and is logged.
    #[must_use]
    pub fn on_gap<F, O, S>(mut self, mut reply: F) -> Self
    where
        F: FnMut(Gap) -> O + Send + 'static,
        O: Future<Output = Result<Vec<S>, Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
        S: SseEvent,
    {
        self.feed.hooks.on_gap = Some(Box::new(move |gap| encoded(reply(gap))));
        self
    }

    /// Returns how the subscription begins: live, resumed or with a gap.
    pub fn resume_state(&self) -> &Resume {
        &self.feed.resume
    }

    /// Forgets the event type. Events that were read, and not yielded yet, are read again.
    pub(super) fn into_feed(self) -> Feed {
        let Self { mut feed, waiting, gap, .. } = self;
        if let Some(entry) = waiting.front() {
            feed.cursor.back_to(entry.offset);
        }
        feed.passed_gap = gap;
        feed
    }

    fn move_past(&mut self, missed: Missed) {
        let gap = self.feed.move_past(&missed);
        self.gap = Some(match self.gap.take() {
            Some(earlier) => earlier.and(gap),
            None => gap,
        });
    }

    fn next_waiting(&mut self) -> Option<Published<E>> {
        while let Some(entry) = self.waiting.pop_front() {
            let entry = match self.feed.select(&entry, false) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(error) => {
                    telemetry::not_encoded(&error);
                    continue;
                }
            };
            // Only an event of another node that cannot be decoded has no value.
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
        if !this.is_resumed || this.feed.hooks.begin.is_some() || this.feed.hooks.on_gap.is_some() {
            unseen::report();
        }
        if this.feed.view.is_done() {
            return Poll::Ready(None);
        }
        if let Some(missed) = this.feed.missed.take() {
            this.move_past(missed);
        }
        for _ in 0..=MAX_EMPTY_READS {
            if let Some(published) = this.next_waiting() {
                return Poll::Ready(Some(published));
            }
            match ready!(this.feed.read(cx, false)) {
                Read::Batch(batch) => this.waiting.extend(batch.entries.iter().cloned()),
                Read::Missed(missed) => this.move_past(missed),
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
            .field("topic", &self.feed.replica.topic())
            .field("resume_state", &self.feed.resume)
            .finish_non_exhaustive()
    }
}

/// An event of a topic, as a [`Subscription`] yields it. Dereferences to the event.
///
/// All subscribers share the event and its encoded bytes.
pub struct Published<E> {
    value: Arc<E>,
    entry: Arc<Entry>,
    position: Position,
    gap: Option<Gap>,
}

impl<E> Published<E> {
    /// Returns the event's position in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the events that the subscriber missed directly before this one.
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
    const TRAPS: TrapNames = E::TRAPS;

    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        let Self { entry, position, gap, .. } = self;
        frame.check_name(entry.name.as_deref());
        let (rules, mut before) = (frame.rules(), BytesMut::new());
        if let Some(gap) = gap {
            if rules.refuse_gaps {
                return Err(InvalidEvent::after_gap());
            }
            let last = gap.last();
            gap.write(&mut before, None, last.as_ref().map(Position::as_str));
        }
        if entry.last && !rules.end_mark {
            // Its frame has the end mark in the id.
            write_id(&mut before, position.as_str(), false);
            let body = entry.frame.get(entry.body..).unwrap_or_default();
            frame.pre_encoded(PreEncoded::Event, &before, body);
        } else if entry.last && !entry.has_data {
            // Not every browser takes an id, here the end mark, from a block without data.
            before.extend_from_slice(&entry.frame);
            let mut mark = BytesMut::new();
            write_cursor(&mut mark, position.as_str(), true);
            frame.pre_encoded(PreEncoded::Event, &before, &mark);
        } else {
            frame.pre_encoded(PreEncoded::Event, &before, &entry.frame);
        }
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
        let feed: Box<dyn TopicFeed> = Box::new(subscription.into_feed());
        Some(Box::new(feed))
    }
}
