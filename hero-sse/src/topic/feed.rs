//! One subscription as a stream's writer drives it, whatever its event type: what to send next, and where the client
//! stands.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::json;

use super::broker::LogReplica;
use super::gap::{Gap, Resume};
use super::position::{ClientCursor, Position};
use super::reply::{Hooks, Reply};
use super::ring::{Batch, Cursor, End, Entry, Missed, Read, SpecialEvents, StartAt};
use super::view::View;
use crate::close::CloseReason;
use crate::frame::{
    InvalidField, LastEventId, has_data, is_trap, name_of, retry_of, write_control, write_id,
};
use crate::overflow::Overflow;
use crate::profile::Profile;

/// A poll reads at most this many batches that hold nothing for the client, then lets other tasks run.
pub(super) const MAX_EMPTY_READS: usize = 8;

/// What a stream's writer drives: one topic, or several merged ones.
pub(crate) trait TopicFeed: Send {
    /// Checks that the feed can be sent as one stream.
    ///
    /// # Errors
    ///
    /// What the endpoint's author must change.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Sets what is sent besides the events. The default is `Native`.
    fn set_profile(&mut self, profile: Profile);

    /// Continues after the client's last event, unless the endpoint's function has called `resume` itself.
    fn resume(&mut self, cursor: &LastEventId);

    /// Appends to `out` what only this client gets; returns what all clients share.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        limits: SlowClientLimits,
        out: &mut BytesMut,
    ) -> Poll<FeedPoll>;

    /// Appends `hero.cursor` if the client could not resume from here with the ids it has.
    fn write_cursor(&mut self, out: &mut BytesMut);

    /// Returns the number of gaps since the last call.
    fn take_gaps(&mut self) -> u64;

    /// Returns the last reconnection time in what was sent since the last call.
    fn take_retry(&mut self) -> Option<Duration>;

    /// Whether the client has missed events, and nothing makes up for them.
    fn has_unanswered_gap(&self) -> bool;
}

/// When a client counts as too slow, and what happens then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowClientLimits {
    pub(crate) overflow: Overflow,
    /// The number of events that a client may lag behind. `None`: three quarters of what the topic retains.
    pub(crate) max_lag: Option<u64>,
    /// The client had received everything and was waiting. It is not slow, however many events came since.
    pub(crate) was_idle: bool,
}

/// The outcome of one poll of a feed.
#[derive(Debug)]
pub(crate) enum FeedPoll {
    /// Send these bytes after what was written. All clients share them.
    Shared(Bytes),
    /// Something was written.
    Wrote,
    Over(CloseReason),
    Failed(String),
}

/// What a feed sends next.
pub(super) enum Next {
    Preamble(Preamble),
    Batch(Arc<Batch>),
    Over(End),
    Overflow,
    Failed(String),
}

/// What one client gets alone, before shared events: a gap, and the state that makes up for it.
pub(super) struct Preamble {
    gap: Option<Gap>,
    bodies: Vec<Bytes>,
}

impl Preamble {
    /// Whether the client has missed events, and neither this nor a reply that follows makes up for them.
    pub(super) fn is_unanswered(&self, settled: bool) -> bool {
        self.gap.is_some() && self.bodies.is_empty() && settled
    }

    /// The last reconnection time in it.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.bodies.iter().rev().find_map(|body| retry_of(body))
    }

    /// Whether an `EventSource` would pass one of its events to a handler of its own.
    pub(super) fn has_trap(&self) -> bool {
        self.bodies.iter().any(|body| name_of(body).is_some_and(is_trap))
    }

    /// The client's position after it, if it carries an id. Not every browser takes an id from a block without data.
    pub(super) fn sent_id(&self) -> SentId {
        match self.bodies.last().is_none_or(|body| has_data(body)) {
            true => SentId::Current,
            false => SentId::Outdated,
        }
    }

    /// Writes the preamble. Only its last event carries `id`: a client that gets a part of it resumes before the whole.
    pub(super) fn write(
        &self,
        out: &mut BytesMut,
        part: Option<usize>,
        id: Option<&str>,
        profile: Profile,
    ) {
        if let Some(gap) = self.gap.as_ref().filter(|_| !profile.is_plain()) {
            gap.write(out, part, id.filter(|_| self.bodies.is_empty()));
        }
        let last = self.bodies.len().saturating_sub(1);
        for (at, body) in self.bodies.iter().enumerate() {
            if let Some(id) = id.filter(|_| at == last) {
                write_id(out, id, false);
            }
            out.extend_from_slice(body);
        }
        if let (None, [], Some(id), Profile::Native) =
            (&self.gap, self.bodies.as_slice(), id, profile)
        {
            write_cursor(out, id, false);
        }
    }
}

/// How far the last id that a client received lies behind what it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SentId {
    /// The client has no id to resume from.
    #[default]
    None,
    /// Events were filtered out since.
    Outdated,
    Current,
    /// The id carries the end mark.
    Final,
}

/// Writes `hero.cursor` with this id. Not every browser takes an id from a block without data.
pub(super) fn write_cursor(out: &mut BytesMut, id: &str, end: bool) {
    write_id(out, id, end);
    write_control(out, "hero.cursor", &json!({}));
}

/// One subscription as a stream's writer drives it, whatever its event type.
pub(crate) struct Feed {
    pub(super) replica: LogReplica,
    pub(super) cursor: Cursor,
    pub(super) resume: Resume,
    /// Whether `resume` was called.
    is_placed: bool,
    /// Missed events that the client has not been sent a gap for. The cursor stands before them.
    pub(super) missed: Option<Missed>,
    /// A gap that the client has not been sent. The cursor stands after it.
    pub(super) passed_gap: Option<Gap>,
    /// A new client of a topic with a snapshot has not been sent it.
    needs_snapshot: bool,
    /// A new client that starts with retained events has not read any: if the first ones are evicted before, it starts
    /// with the oldest that is left, without a gap.
    is_unread: bool,
    /// Only events before this offset may be evicted unread without a gap. `None`: all that are evicted before the
    /// first read.
    unread_before: Option<u64>,
    /// The function chose where a new client starts.
    has_start: bool,
    pub(super) view: View,
    /// Why the next event cannot be sent.
    fault: Option<String>,
    pub(super) hooks: Hooks,
    sent_id: SentId,
    /// The offset in the last id that the client received.
    pub(super) sent_offset: u64,
    /// The client replays retained events. Before this offset it does not count as slow.
    replays_until: u64,
    gaps: u64,
    /// The position that was asked for last: making one takes four hashes.
    position: Option<Position>,
    profile: Profile,
    retry: Option<Duration>,
}

impl Feed {
    pub(super) fn new(replica: &LogReplica) -> Self {
        replica.expire();
        let cursor = Cursor::new(replica.ring());
        Self {
            is_unread: cursor.next() < replica.next_offset(),
            cursor,
            replica: replica.clone(),
            resume: Resume::Live,
            is_placed: false,
            missed: None,
            passed_gap: None,
            needs_snapshot: replica.ring().has_snapshot(),
            unread_before: None,
            has_start: false,
            view: View::default(),
            fault: None,
            hooks: Hooks::default(),
            sent_id: SentId::None,
            sent_offset: 0,
            replays_until: 0,
            gaps: 0,
            position: None,
            profile: Profile::Native,
            retry: None,
        }
    }

    /// Starts a new client here.
    pub(super) fn start_at(&mut self, start: StartAt) {
        self.has_start = true;
        self.cursor.start_at(start);
        self.replays_until = self.replica.next_offset();
        self.is_unread = self.cursor.next() < self.replays_until;
    }

    /// Whether both read one log, of which they would make the same ids.
    pub(super) fn is_of_same_log(&self, other: &Self) -> bool {
        let same_ring = Arc::ptr_eq(self.replica.ring(), other.replica.ring());
        same_ring || self.cursor.epoch() == other.cursor.epoch()
    }

    /// Whether the client's cursor has an id of this topic.
    pub(super) fn has_made(&self, cursor: &LastEventId) -> bool {
        self.cursor.epoch().resume_offset(cursor).is_some()
    }

    /// Whether this topic made the id.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.cursor.epoch().offset_of(id).is_some()
    }

    /// Whether it begins as for a new client.
    pub(super) fn is_new(&self) -> bool {
        self.resume == Resume::Live
    }

    /// Continues after the client's last event, or with a gap if this topic has not made its id.
    pub(super) fn resume_after(&mut self, cursor: &LastEventId) {
        // With all latest values a client misses nothing, whatever its id is.
        let starts_new = self.replica.is_latest() && !self.has_made(cursor);
        if std::mem::replace(&mut self.is_placed, true) || starts_new {
            return;
        }
        self.hooks.begin = None;
        self.sent_id = SentId::Current;
        self.is_unread = false;
        self.needs_snapshot = false;
        self.missed = self.cursor.resume(|epoch| epoch.resume_offset(cursor));
        self.sent_offset = self.cursor.next().saturating_sub(1);
        self.replays_until = self.replica.next_offset();
        self.resume = match &self.missed {
            None => Resume::Resumed,
            Some(missed) => Resume::Gap(self.gap(missed)),
        };
    }

    /// Returns what comes next.
    pub(super) fn next(&mut self, cx: &mut Context<'_>, limits: SlowClientLimits) -> Poll<Next> {
        loop {
            if let Some((reply, _)) = &mut self.hooks.running {
                let replied = ready!(reply.as_mut().poll(cx));
                self.hooks.running = None;
                // Meanwhile much may have been published.
                self.replays_until = self.replica.next_offset();
                return Poll::Ready(match replied {
                    Ok(bodies) => Next::Preamble(Preamble { gap: None, bodies }),
                    Err(error) => Next::Failed(error),
                });
            }
            if let Some(begin) = self.hooks.begin.take() {
                self.begin(begin);
                continue;
            }
            if let Some(gap) = self.passed_gap.take() {
                return Poll::Ready(self.preamble(gap, ClientCursor::Unknown));
            }
            if let Some(missed) = self.missed.take() {
                let before = self.cursor_before(&missed);
                let gap = self.move_past(&missed);
                // After the gap there may be much to read at once.
                self.replays_until = self.replica.next_offset();
                return Poll::Ready(self.preamble(gap, before));
            }
            if std::mem::take(&mut self.needs_snapshot)
                && let Some(snapshot) = self.cursor.snapshot()
            {
                return Poll::Ready(match snapshot {
                    Ok(body) => Next::Preamble(Preamble { gap: None, bodies: vec![body] }),
                    Err(error) => Next::Failed(error),
                });
            }
            if let Some(error) = self.fault.take() {
                return Poll::Ready(Next::Failed(error));
            }
            if self.view.is_done() {
                return Poll::Ready(Next::Over(End::Closed));
            }
            if self.is_too_slow(limits) {
                return Poll::Ready(Next::Overflow);
            }
            if self.missed.is_some() {
                continue;
            }
            match ready!(self.read(cx, limits.overflow == Overflow::Latest)) {
                Read::Batch(batch) => return Poll::Ready(Next::Batch(batch)),
                Read::Over(end) => return Poll::Ready(Next::Over(end)),
                // A client is not too slow for events that the broker lost, nor for those evicted while it may lag.
                Read::Missed(missed)
                    if limits.overflow == Overflow::Disconnect
                        && !missed.was_lost
                        && !self.may_lag() =>
                {
                    return Poll::Ready(Next::Overflow);
                }
                Read::Missed(missed) => self.missed = Some(missed),
            }
        }
    }

    /// Reads the next events; with `latest` only the newest of each name and key.
    pub(super) fn read(&mut self, cx: &Context<'_>, latest: bool) -> Poll<Read> {
        loop {
            let view = &mut self.view;
            let mut accept = |entry: &Entry| view.accepts(entry);
            match self.cursor.poll(cx, latest.then_some(&mut accept)) {
                Poll::Ready(Read::Missed(missed)) if self.is_unread => {
                    if let Some(missed) = self.since_the_start(&missed) {
                        self.is_unread = false;
                        return Poll::Ready(Read::Missed(missed));
                    }
                    self.cursor.move_past(&missed);
                    self.position = None;
                }
                read => {
                    self.is_unread = false;
                    return read;
                }
            }
        }
    }

    /// Returns what a new client misses that has read nothing. It does not miss what was there before it started.
    fn since_the_start(&self, missed: &Missed) -> Option<Missed> {
        let before = self.unread_before?;
        let from = missed.from.map(|from| from.max(before));
        from.is_none_or(|from| from < missed.to).then(|| Missed { from, ..missed.clone() })
    }

    /// Calls the hook of a new client. It replaces what the topic itself would send first.
    fn begin(&mut self, begin: Box<dyn FnOnce() -> Reply + Send>) {
        self.needs_snapshot = false;
        if self.has_start {
            self.unread_before = Some(self.replica.next_offset());
        } else {
            self.cursor.skip_to_end();
            self.is_unread = false;
        }
        self.position = None;
        // What is published from here on is sent after the hook's events.
        self.hooks.running = Some((begin(), ClientCursor::New));
    }

    /// Whether the client does not count as slow, however far it is behind.
    fn may_lag(&self) -> bool {
        self.replica.is_latest() || self.cursor.next() < self.replays_until
    }

    /// Whether the client is too slow. Under `DropOldest` it skips what is too much instead.
    fn is_too_slow(
        &mut self,
        SlowClientLimits { overflow, max_lag, was_idle }: SlowClientLimits,
    ) -> bool {
        if was_idle && overflow == Overflow::Disconnect {
            self.replays_until = self.replica.next_offset();
        }
        if self.may_lag() {
            return false;
        }
        let (lag, is_slow) = self.cursor.lag();
        // A larger limit would let the client miss events that no reconnect brings back.
        let max_lag = max_lag.filter(|max| *max < self.replica.retention().events as u64);
        let too_slow = max_lag.map_or(is_slow, |max| lag > max);
        if too_slow && overflow == Overflow::DropOldest {
            self.missed = max_lag.and_then(|max| self.cursor.skip_to_last(max));
        }
        too_slow && overflow == Overflow::Disconnect
    }

    /// Returns the batch if the client gets all of it; else writes the events that its filter accepts.
    fn deliver(&mut self, batch: &Batch, out: &mut BytesMut) -> Option<FeedPoll> {
        let accepted = self.selected(batch);
        let Some(last) = accepted.last() else {
            if self.sent_id == SentId::Current {
                self.sent_id = SentId::Outdated;
            }
            if self.sent_id_expires() {
                self.write_cursor(out);
            }
            return None;
        };
        let special = self.special(batch);
        if special.retries {
            let own = accepted.iter().rev().find_map(|entry| retry_of(&entry.frame));
            self.retry = own.or(self.retry);
        }
        if special.traps
            && !self.profile.is_plain()
            && let Some(trapped) = accepted.iter().position(|entry| is_trapped(entry))
        {
            let harmless = accepted.iter().take(trapped);
            harmless.for_each(|entry| out.extend_from_slice(&entry.frame));
            return Some(FeedPoll::Failed(trap_error()));
        }
        self.sent_id = SentId::after(last, batch, self.cursor.next());
        if last.has_data {
            self.sent_offset = last.offset;
        }
        if self.profile.is_plain() && last.last {
            // Its frame has the end mark in the id.
            let id = self.position(last.offset);
            let (frames, last) = accepted.split_at(accepted.len() - 1);
            frames.iter().for_each(|entry| out.extend_from_slice(&entry.frame));
            write_id(out, id.as_str(), false);
            let bodies = last.iter().filter_map(|entry| entry.frame.get(entry.body..));
            bodies.for_each(|body| out.extend_from_slice(body));
            return None;
        }
        if accepted.len() == batch.entries.len() && !self.view.is_mapped() {
            return Some(FeedPoll::Shared(batch.bytes.clone()));
        }
        accepted.iter().for_each(|entry| out.extend_from_slice(&entry.frame));
        None
    }

    /// Returns the events of a batch that the client gets, as it gets them.
    pub(super) fn selected<'a>(&mut self, batch: &'a Batch) -> Cow<'a, [Arc<Entry>]> {
        if self.view.is_whole() {
            return Cow::Borrowed(&batch.entries);
        }
        let mut selected = Vec::new();
        for entry in &batch.entries {
            if self.view.is_done() {
                // Another request may read what follows.
                self.cursor.back_to(entry.offset);
                break;
            }
            match self.select(entry, batch.is_compacted) {
                Ok(entry) => selected.extend(entry),
                Err(error) => {
                    self.cursor.back_to(entry.offset);
                    self.fault = Some(error);
                    break;
                }
            }
        }
        Cow::Owned(selected)
    }

    /// Returns an event as the client gets it. `accepted`: it has passed the filters.
    pub(super) fn select(
        &mut self,
        entry: &Arc<Entry>,
        accepted: bool,
    ) -> Result<Option<Arc<Entry>>, String> {
        let epoch = self.cursor.epoch();
        self.view.apply(entry, accepted, || epoch.position(entry.offset))
    }

    /// Returns which rare events a batch has, or may have.
    pub(super) fn special(&self, batch: &Batch) -> SpecialEvents {
        match self.view.is_mapped() {
            true => SpecialEvents { retries: true, traps: true },
            false => special_events(batch),
        }
    }

    /// The gap, and the state that makes up for it: the topic's snapshot, or later the reply of `on_gap`.
    fn preamble(&mut self, gap: Gap, before: ClientCursor) -> Next {
        self.needs_snapshot = false;
        let bodies = match &mut self.hooks.on_gap {
            Some(on_gap) => {
                self.cursor.skip_to_end();
                self.hooks.running = Some((on_gap(gap.clone()), before));
                Ok(Vec::new())
            }
            None => self.cursor.snapshot().into_iter().collect(),
        };
        match bodies {
            Ok(bodies) => Next::Preamble(Preamble { gap: Some(gap), bodies }),
            Err(error) => Next::Failed(error),
        }
    }

    /// Moves the cursor past missed events, and returns them as a gap.
    pub(super) fn move_past(&mut self, missed: &Missed) -> Gap {
        self.cursor.move_past(missed);
        // The epoch may have changed.
        self.position = None;
        self.gaps += 1;
        self.gap(missed)
    }

    fn gap(&self, Missed { epoch, from, to, is_countable, .. }: &Missed) -> Gap {
        let last = to.checked_sub(1).filter(|last| *last > 0);
        Gap::new(
            from.filter(|_| *is_countable).map(|from| to.saturating_sub(from)),
            from.map(|from| epoch.position(from)),
            last.map(|last| epoch.position(last)),
        )
    }

    fn cursor_before(&self, missed: &Missed) -> ClientCursor {
        let last = missed.from.map(|from| from.saturating_sub(1));
        last.map_or(ClientCursor::Unknown, |last| ClientCursor::At(missed.epoch.position(last)))
    }

    /// Whether the client's last id will soon be too old to resume from.
    pub(super) fn sent_id_expires(&self) -> bool {
        self.cursor.is_slow_at(self.sent_offset)
    }

    /// Whether no hook is running.
    pub(super) fn is_settled(&self) -> bool {
        self.hooks.running.is_none()
    }

    /// Returns from where the client would resume.
    pub(super) fn client_cursor(&mut self) -> ClientCursor {
        match (&self.missed, &self.hooks.running) {
            (Some(missed), _) => self.cursor_before(missed),
            (None, Some((_, before))) => *before,
            (None, None) if self.passed_gap.is_some() => ClientCursor::Unknown,
            (None, None) if self.starts_later() => ClientCursor::New,
            (None, None) => ClientCursor::At(self.current()),
        }
    }

    /// Whether a new client has not been sent what it starts with.
    fn starts_later(&self) -> bool {
        self.hooks.begin.is_some() || self.needs_snapshot || self.is_unread
    }

    /// The position of the last event that was read.
    fn current(&mut self) -> Position {
        self.position(self.cursor.next().saturating_sub(1))
    }

    pub(super) fn position(&mut self, offset: u64) -> Position {
        match self.position.filter(|position| position.offset() == offset) {
            Some(position) => position,
            None => *self.position.insert(self.cursor.epoch().position(offset)),
        }
    }
}

impl TopicFeed for Feed {
    fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    fn resume(&mut self, cursor: &LastEventId) {
        if cursor.is_sent() {
            self.resume_after(cursor);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        limits: SlowClientLimits,
        out: &mut BytesMut,
    ) -> Poll<FeedPoll> {
        let before = out.len();
        for _ in 0..MAX_EMPTY_READS {
            let Poll::Ready(next) = self.next(cx, limits) else {
                if self.sent_id == SentId::None {
                    self.write_cursor(out);
                }
                return wrote(out, before);
            };
            match next {
                Next::Preamble(preamble)
                    if self.profile.is_plain() && preamble.is_unanswered(self.is_settled()) =>
                {
                    return Poll::Ready(FeedPoll::Over(CloseReason::Gap));
                }
                Next::Preamble(preamble) if !self.profile.is_plain() && preamble.has_trap() => {
                    return Poll::Ready(FeedPoll::Failed(trap_error()));
                }
                Next::Preamble(preamble) => {
                    self.retry = preamble.retry().or(self.retry);
                    let current = self.is_settled().then(|| self.current());
                    let id = current.as_ref().map(Position::as_str);
                    preamble.write(out, None, id, self.profile);
                    if let Some(current) = current {
                        (self.sent_id, self.sent_offset) = (preamble.sent_id(), current.offset());
                    }
                }
                Next::Batch(batch) => match self.deliver(&batch, out) {
                    Some(polled) => return Poll::Ready(polled),
                    None if out.len() > before => return Poll::Ready(FeedPoll::Wrote),
                    None => {}
                },
                Next::Over(End::Last) => {
                    // Without the end mark the client would reconnect again and again.
                    if self.sent_id != SentId::Final && !self.profile.is_plain() {
                        write_cursor(out, self.current().as_str(), true);
                    }
                    return Poll::Ready(FeedPoll::Over(CloseReason::LastEvent));
                }
                Next::Over(End::Closed) => {
                    if self.view.is_done() {
                        self.write_cursor(out);
                    }
                    return Poll::Ready(FeedPoll::Over(CloseReason::Ended));
                }
                Next::Overflow => {
                    self.write_cursor(out);
                    return Poll::Ready(FeedPoll::Over(CloseReason::Overflow));
                }
                Next::Failed(error) => return Poll::Ready(FeedPoll::Failed(error)),
            }
        }
        cx.waker().wake_by_ref();
        wrote(out, before)
    }

    fn write_cursor(&mut self, out: &mut BytesMut) {
        if self.profile.is_plain() {
            return;
        }
        if let (SentId::None | SentId::Outdated, ClientCursor::At(position)) =
            (self.sent_id, self.client_cursor())
        {
            write_cursor(out, position.as_str(), false);
            (self.sent_id, self.sent_offset) = (SentId::Current, position.offset());
        }
    }

    fn take_gaps(&mut self) -> u64 {
        std::mem::take(&mut self.gaps)
    }

    fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    fn has_unanswered_gap(&self) -> bool {
        let missed = self.missed.is_some() || self.passed_gap.is_some();
        missed && self.hooks.on_gap.is_none() && !self.replica.ring().has_snapshot()
    }
}

/// Which rare events a batch has.
fn special_events(batch: &Batch) -> SpecialEvents {
    *batch.special.get_or_init(|| SpecialEvents {
        retries: retry_of(&batch.bytes).is_some(),
        traps: batch.entries.iter().any(|entry| is_trapped(entry)),
    })
}

/// Whether an `EventSource` would pass the event to a handler of its own.
pub(super) fn is_trapped(entry: &Entry) -> bool {
    entry.name.as_deref().is_some_and(is_trap)
}

/// The error of a native stream that meets such an event.
pub(super) fn trap_error() -> String {
    InvalidField::trap().to_string()
}

impl SentId {
    /// After this event of a batch, the last one that the client gets of it.
    fn after(entry: &Entry, batch: &Batch, next: u64) -> Self {
        match batch.entries.last() {
            // Not every browser takes an id from a block without data.
            _ if !entry.has_data => Self::Outdated,
            _ if entry.last => Self::Final,
            _ if entry.offset + 1 == next => Self::Current,
            Some(last) if last.offset != entry.offset => Self::Outdated,
            // The filter has left out what was read after it.
            _ if batch.is_compacted && entry.offset + 1 < batch.to => Self::Outdated,
            _ => Self::Current,
        }
    }
}

pub(super) fn wrote(out: &BytesMut, before: usize) -> Poll<FeedPoll> {
    if out.len() > before { Poll::Ready(FeedPoll::Wrote) } else { Poll::Pending }
}
