//! Several topics on one stream: each with its own cursor, and one id that holds them all.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::feed::{
    Feed, FeedPoll, MAX_EMPTY_READS, Next, SentId, SlowClientLimits, TopicFeed, is_trapped,
    trap_error, write_cursor, wrote,
};
use super::position::{ClientCursor, MAX_MERGED_TOPICS, ids_in, join_ids};
use super::ring::{BATCH, End, Entry, SpecialEvents};
use super::subscription::Subscription;
use super::unseen;
use crate::close::CloseReason;
use crate::event::SseEvent;
use crate::frame::{FrameWriter, InvalidEvent, LastEventId, PreEncoded, retry_of, write_id};
use crate::overflow::Overflow;
use crate::profile::Profile;

/// What a topic may write before it is the others' turn. A batch has room for all of them.
const TURN_BYTES: usize = BATCH / MAX_MERGED_TOPICS;

/// Up to eight topics on one stream, as [`Subscription::and`] joins them. Return it from an endpoint.
///
/// Each topic keeps its own order, filter, start and [`on_gap`](Subscription::on_gap), and the endpoint's [`Overflow`]
/// applies to each. The topics take turns, so that a busy one does not delay the others.
///
/// # Resuming
///
/// The ids hold the client's position in every topic, so a reconnecting client resumes in each. The order of the topics
/// may change. A topic that was added since starts as for a new client. A topic that replaces another one starts with a
/// gap of unknown size (`"missed": null`), because it cannot be told from a topic that lost its events.
///
/// # The end
///
/// A topic that ends does not end the others; the stream ends with the last of them. If all ended with a
/// [last](SseEvent::is_last) event, a reconnecting client is answered `204`.
///
/// # Errors
///
/// A topic may be on the stream only once, and there may be at most eight. Otherwise the request is answered `500`, and
/// the log says why. To follow a topic with two filters, subscribe once with a filter that accepts the events of both.
///
/// # As a `Stream`
///
/// It yields encoded events, for adaptors such as `take_until`. A slow client then misses events as under
/// [`Overflow::DropOldest`]. Call [`resume`](Self::resume) before the adaptor. If you need the events themselves, map
/// each subscription and merge the streams; then there is no common id.
#[doc(alias = "combine")]
#[doc(alias = "select")]
pub struct MergedSubscription {
    feed: MergedFeed,
    /// An error was yielded.
    is_over: bool,
    /// Whether `resume` was called.
    is_resumed: bool,
}

impl<E: SseEvent + Send + Sync + 'static> Subscription<E> {
    /// Joins another topic, with its own event type, on the same stream.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::axum::extract::State;
    /// # use serde::Serialize;
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
    #[doc(alias = "merge")]
    pub fn and<F: SseEvent + Send + Sync + 'static>(
        self,
        other: Subscription<F>,
    ) -> MergedSubscription {
        let parts = vec![Part::of(self.into_feed())];
        let (sent_id, profile) = (SentId::None, Profile::Native);
        let feed = MergedFeed { parts, turn: 0, sent_id, fault: None, profile, retry: None };
        MergedSubscription { feed, is_over: false, is_resumed: false }.and(other)
    }
}

impl MergedSubscription {
    /// Joins another topic.
    #[must_use]
    pub fn and<E: SseEvent + Send + Sync + 'static>(mut self, other: Subscription<E>) -> Self {
        self.feed.push(other.into_feed());
        self
    }

    /// Resumes each topic after the client's last event of it.
    ///
    /// The library calls this for a stream that an endpoint returns. Call it yourself before an adaptor such as `map`.
    #[must_use]
    pub fn resume(mut self, cursor: &LastEventId) -> Self {
        self.is_resumed = true;
        self.feed.resume(cursor);
        self
    }
}

impl fmt::Debug for MergedSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedSubscription").field("topics", &self.feed.parts.len()).finish()
    }
}

impl Stream for MergedSubscription {
    type Item = Result<EncodedEvents, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        if !this.is_resumed {
            unseen::report();
        }
        if let Some(profile) = unseen::profile() {
            this.feed.set_profile(profile);
        }
        let mut out = BytesMut::new();
        let (overflow, max_lag) = (Overflow::DropOldest, None);
        let limits = SlowClientLimits { overflow, max_lag, was_idle: false };
        let polled = ready!(this.feed.poll(cx, limits, &mut out));
        Poll::Ready(match polled {
            FeedPoll::Failed(error) => {
                this.is_over = true;
                Some(Err(error.into()))
            }
            FeedPoll::Over(CloseReason::Gap) => {
                this.is_over = true;
                Some(Err(InvalidEvent::after_gap().into()))
            }
            FeedPoll::Over(_) if out.is_empty() => None,
            polled => {
                let last = matches!(polled, FeedPoll::Over(CloseReason::LastEvent));
                Some(Ok(EncodedEvents { bytes: out.freeze(), last }))
            }
        })
    }
}

/// One or more events of a [`MergedSubscription`], encoded for the wire.
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
        let merged: MergedSubscription = stream.downcast_mut::<Option<_>>()?.take()?;
        let feed: Box<dyn TopicFeed> = Box::new(merged.feed);
        Some(Box::new(feed))
    }
}

/// Several feeds that take turns.
struct MergedFeed {
    parts: Vec<Part>,
    /// The index of the part whose turn it is.
    turn: usize,
    sent_id: SentId,
    /// Why these topics cannot be on one stream.
    fault: Option<String>,
    profile: Profile,
    retry: Option<Duration>,
}

struct Part {
    feed: Feed,
    /// Events that were read, and had no room in the last write: at most a batch.
    waiting: VecDeque<Arc<Entry>>,
    /// Set when the topic has ended, and nothing waits.
    end: Option<End>,
    /// Which rare events the batch had that waits.
    special: SpecialEvents,
}

/// The outcome of one turn.
enum Turn {
    /// The topic had nothing to send.
    Idle,
    /// It had something, and may have more.
    Progress,
    /// The write is full.
    Full,
    Over(FeedPoll),
}

impl Part {
    fn of(feed: Feed) -> Self {
        Self { feed, waiting: VecDeque::new(), end: None, special: SpecialEvents::default() }
    }

    /// Returns from where the client would resume, to be sent now.
    fn cursor_to_send(&mut self) -> ClientCursor {
        let cursor = match self.waiting.front() {
            Some(entry) => ClientCursor::At(self.feed.position(entry.offset.saturating_sub(1))),
            None => self.feed.client_cursor(),
        };
        if let ClientCursor::At(position) = cursor {
            self.feed.sent_offset = position.offset();
        }
        cursor
    }
}

impl MergedFeed {
    fn push(&mut self, feed: Feed) {
        let topics = self.parts.len() + 1;
        if self.parts.iter().any(|part| part.feed.is_of_same_log(&feed)) {
            let topic = feed.replica.topic();
            self.fault.get_or_insert(format!(
                "topic {topic:?} is on one stream twice: subscribe to it once, with a filter that accepts all the \
                 events you need, or open a second stream"
            ));
        } else if topics > MAX_MERGED_TOPICS {
            self.fault.get_or_insert(format!(
                "{topics} topics on one stream: {MAX_MERGED_TOPICS} have room in an event's id; open another stream \
                 for the rest"
            ));
        }
        self.parts.push(Part::of(feed));
    }

    /// The turn of one topic.
    fn take_turn(
        &mut self,
        cx: &mut Context<'_>,
        limits: SlowClientLimits,
        out: &mut BytesMut,
        before: usize,
    ) -> Turn {
        let start = out.len();
        let mut turn = Turn::Idle;
        loop {
            let number = self.turn;
            let Some(part) = self.parts.get_mut(number) else { return turn };
            let special = part.special;
            if let Some(entry) = part.waiting.front().cloned() {
                let room = before + BATCH - BATCH.min(self.max_size(&entry));
                if out.len() > before && out.len() > room {
                    return Turn::Full;
                }
                if special.traps && !self.profile.is_plain() && is_trapped(&entry) {
                    return Turn::Over(FeedPoll::Failed(trap_error()));
                }
                if special.retries {
                    self.retry = retry_of(&entry.frame).or(self.retry);
                }
                self.write(number, &entry, out);
                turn = Turn::Progress;
                if out.len() - start >= TURN_BYTES {
                    return turn;
                }
                continue;
            }
            if part.end.is_some() {
                return turn;
            }
            let Poll::Ready(next) = part.feed.next(cx, limits) else { return turn };
            turn = Turn::Progress;
            match next {
                Next::Preamble(preamble) => {
                    let settled = part.feed.is_settled();
                    if self.profile.is_plain() && preamble.is_unanswered(settled) {
                        return Turn::Over(FeedPoll::Over(CloseReason::Gap));
                    }
                    if !self.profile.is_plain() && preamble.has_trap() {
                        return Turn::Over(FeedPoll::Failed(trap_error()));
                    }
                    self.retry = preamble.retry().or(self.retry);
                    let id = settled.then(|| self.id());
                    preamble.write(out, Some(number), id.as_deref(), self.profile);
                    if settled {
                        self.sent_id = preamble.sent_id();
                    }
                    if out.len() - before >= BATCH {
                        return Turn::Full;
                    }
                }
                Next::Batch(batch) => {
                    let accepted = part.feed.selected(&batch);
                    part.waiting.extend(accepted.iter().cloned());
                    part.special = part.feed.special(&batch);
                    if part.waiting.is_empty() {
                        let expires = part.feed.sent_id_expires();
                        if self.sent_id == SentId::Current {
                            self.sent_id = SentId::Outdated;
                        }
                        if expires {
                            self.write_cursor(out);
                        }
                        return turn;
                    }
                }
                Next::Over(end) => {
                    part.end = Some(end);
                    return turn;
                }
                Next::Overflow => {
                    self.write_cursor(out);
                    return Turn::Over(FeedPoll::Over(CloseReason::Overflow));
                }
                Next::Failed(error) => return Turn::Over(FeedPoll::Failed(error)),
            }
        }
    }

    /// Returns the maximum size of an event, with the id of the whole stream.
    fn max_size(&self, entry: &Entry) -> usize {
        entry.frame.len() + 32 * self.parts.len()
    }

    /// Writes the first waiting event of a topic, with the id of the whole stream.
    fn write(&mut self, number: usize, entry: &Entry, out: &mut BytesMut) {
        if let Some(part) = self.parts.get_mut(number) {
            part.waiting.pop_front();
            if entry.last {
                part.end = Some(End::Last);
            }
        }
        let last = self.ended_by_last();
        write_id(out, &self.id(), last && !self.profile.is_plain());
        out.extend_from_slice(entry.frame.get(entry.body..).unwrap_or_default());
        self.sent_id = match (entry.has_data, last) {
            // Not every browser takes an id from a block without data.
            (false, _) => SentId::Outdated,
            (true, true) => SentId::Final,
            (true, false) => SentId::Current,
        };
    }

    /// Returns why the stream ends, if all its topics have ended.
    fn end(&mut self, out: &mut BytesMut) -> Option<CloseReason> {
        if !self.parts.iter().all(|part| part.end.is_some()) {
            return None;
        }
        if !self.ended_by_last() {
            if self.parts.iter().any(|part| part.feed.view.is_done()) {
                self.write_cursor(out);
            }
            return Some(CloseReason::Ended);
        }
        if self.sent_id != SentId::Final && !self.profile.is_plain() {
            write_cursor(out, &self.id(), true);
        }
        Some(CloseReason::LastEvent)
    }

    /// Whether every topic has ended with a last event.
    fn ended_by_last(&self) -> bool {
        self.parts.iter().all(|part| part.end == Some(End::Last))
    }

    /// Returns the id from which the client would resume, to be sent now.
    fn id(&mut self) -> String {
        let cursors: Vec<_> = self.parts.iter_mut().map(Part::cursor_to_send).collect();
        join_ids(cursors.iter().filter_map(ClientCursor::as_str))
    }
}

impl TopicFeed for MergedFeed {
    fn check(&self) -> Result<(), String> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
        self.parts.iter_mut().for_each(|part| part.feed.set_profile(profile));
    }

    fn resume(&mut self, cursor: &LastEventId) {
        if !cursor.is_sent() {
            return;
        }
        let known = |id| self.parts.iter().any(|part| part.feed.knows(id));
        let all_known = ids_in(cursor).all(known);
        for Part { feed, .. } in &mut self.parts {
            // If the topics here made all ids, one without an id was added since, and starts as for a new client.
            // Otherwise the unknown id may be of this topic's earlier epoch.
            if feed.has_made(cursor) || !all_known {
                feed.resume_after(cursor);
            }
        }
        // The client's id says nothing of a topic that was added since.
        let has_new = self.parts.iter().any(|part| part.feed.is_new());
        self.sent_id = if has_new { SentId::None } else { SentId::Current };
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        limits: SlowClientLimits,
        out: &mut BytesMut,
    ) -> Poll<FeedPoll> {
        if let Some(fault) = &self.fault {
            return Poll::Ready(FeedPoll::Failed(fault.clone()));
        }
        let (before, mut empty_rounds) = (out.len(), 0);
        while empty_rounds < MAX_EMPTY_READS {
            let (written, mut idle) = (out.len(), true);
            for _ in 0..self.parts.len() {
                match self.take_turn(cx, limits, out, before) {
                    Turn::Idle => {}
                    Turn::Progress => idle = false,
                    Turn::Full => return Poll::Ready(FeedPoll::Wrote),
                    Turn::Over(polled) => return Poll::Ready(polled),
                }
                self.turn = (self.turn + 1) % self.parts.len();
            }
            if let Some(reason) = self.end(out) {
                return Poll::Ready(FeedPoll::Over(reason));
            }
            if idle {
                if self.sent_id == SentId::None {
                    self.write_cursor(out);
                }
                return wrote(out, before);
            }
            empty_rounds = if out.len() > written { 0 } else { empty_rounds + 1 };
        }
        cx.waker().wake_by_ref();
        wrote(out, before)
    }

    fn write_cursor(&mut self, out: &mut BytesMut) {
        if self.profile.is_plain() {
            return;
        }
        if matches!(self.sent_id, SentId::None | SentId::Outdated) {
            let id = self.id();
            // A client that is new in every topic has nothing to resume from.
            if !id.is_empty() {
                write_cursor(out, &id, false);
                self.sent_id = SentId::Current;
            }
        }
    }

    fn take_gaps(&mut self) -> u64 {
        self.parts.iter_mut().map(|part| part.feed.take_gaps()).sum()
    }

    fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    fn has_unanswered_gap(&self) -> bool {
        self.parts.iter().any(|part| part.feed.has_unanswered_gap())
    }
}
