//! Writes one stream: preamble, events, heartbeats, closing event.
//!
//! The writer is the response's body, polled by the server that serves the connection. It owns everything
//! that a stream holds, so that dropping the writer releases everything.

mod opening;
mod reauthorize;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use self::opening::{OpenedStream, Opening, ScheduledEnd, Source};
pub(crate) use self::reauthorize::Reauthorization;
use crate::buffer::Events;
use crate::close::CloseReason;
use crate::connections::Slot;
use crate::delivery::{BrokenOff, LastBytes, LiveDelivery};
use crate::frame::{
    EventName, HEARTBEAT, end_of_write, retry_of, write_control, write_control_with_retry,
    write_retry,
};
use crate::policy::{Ending, Policy};
use crate::topic::BATCH;

/// A larger buffer is given away with its batch, so that an idle stream does not keep the memory of its
/// largest batch.
const KEPT_BUFFER: usize = 1024;

/// The timer of a stream without heartbeat and end. Timers need a time, and none needs a longer one.
const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long before the end of a drain a plain stream breaks off, or a tenth of `DrainTimeout` if that is shorter.
const BREAK_TIME: Duration = Duration::from_millis(500);

/// The body of an open stream.
pub(crate) struct Writer {
    events: Option<Events>,
    /// The function that will return the events, if the head is sent before.
    opening: Option<Opening>,
    policy: Arc<Policy>,
    slot: Slot,
    delivery: LiveDelivery,
    lifetime: Lifetime,
    stage: Stage,
    /// Encoded frames. The next write takes its part of them.
    gathered: BytesMut,
    /// What remains of the current write, which may leave in pieces.
    batch: Bytes,
    last_write: Instant,
    timer: Pin<Box<Sleep>>,
    /// The last reconnection time that the application has sent. It stands.
    own_retry: Option<Duration>,
    /// The bytes before a break.
    last_bytes: Option<Box<LastBytes>>,
}

/// How long a stream may last.
pub(crate) struct Lifetime {
    pub(crate) end: Option<ScheduledEnd>,
    pub(crate) reauthorization: Option<Box<Reauthorization>>,
    /// How long a plain stream may go on once it is drained. `None`: to its end.
    pub(crate) drain_timeout: Option<Duration>,
    /// Whether the same request can open the stream again. A ticket opens one stream.
    pub(crate) can_reopen: bool,
}

impl Lifetime {
    /// Lets a plain stream finish, for almost as long as the drain waits: its break is sent before the drain resets the
    /// sockets.
    fn let_finish(&mut self, since: Instant) {
        let timeout = self.drain_timeout.map(|timeout| timeout - BREAK_TIME.min(timeout / 10));
        let Some(at) = timeout.and_then(|timeout| since.checked_add(timeout)) else {
            return;
        };
        if self.end.is_none_or(|end| end.at > at) {
            self.end = Some(ScheduledEnd { at, reason: CloseReason::Draining });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preamble,
    Live,
    /// What remains is sent, then the body ends.
    Closed,
    /// What remains is sent, then the body breaks off.
    Breaking(CloseReason),
}

impl Writer {
    /// `name` is the event name that the endpoint declares.
    pub(crate) fn new(
        source: impl Into<Source>,
        name: Option<EventName>,
        policy: Arc<Policy>,
        slot: Slot,
        delivery: LiveDelivery,
        lifetime: Lifetime,
    ) -> Self {
        let last_write = Instant::now();
        let (events, opening) = match source.into() {
            Source::Ready(events) => (Some(Events::new(events, name, &policy, &slot)), None),
            Source::Opening(opening) => (None, Some(opening)),
        };
        Self {
            events,
            opening,
            policy,
            slot,
            delivery,
            lifetime,
            stage: Stage::Preamble,
            gathered: BytesMut::new(),
            batch: Bytes::new(),
            last_write,
            timer: Box::pin(sleep_until(last_write + FAR_FUTURE)),
            own_retry: None,
            last_bytes: None,
        }
    }

    /// Gathers what is due now. Bytes that other streams send as well go directly into `batch`. If nothing is
    /// due, both stay empty and the task will be woken.
    fn gather(&mut self, cx: &mut Context<'_>) {
        if self.stage == Stage::Preamble {
            self.stage = Stage::Live;
            if !self.policy.profile.is_plain() {
                write_retry(&mut self.gathered, self.policy.jittered_retry());
            } else if self.opening.is_some() {
                // Some intermediaries pass on a head only with the first byte of the body.
                self.gathered.extend_from_slice(HEARTBEAT);
            }
            // The page must know the interval from the start, since a busy stream may never send a heartbeat.
            self.write_heartbeat_event();
        }
        if let Some(reason) = self.poll_end(cx) {
            return self.end_early(reason);
        }
        if self.opening.is_some() {
            take_direct_events(&self.slot, &mut self.gathered, &mut self.own_retry);
            if let Some(reason) = self.poll_opening(cx) {
                return self.end_early(reason);
            }
        }
        // What the last write left may be a batch by itself.
        if let Some(events) = self.events.as_mut().filter(|_| self.gathered.len() < BATCH) {
            if !events.is_pausing() {
                take_direct_events(&self.slot, &mut self.gathered, &mut self.own_retry);
            }
            let over = events.gather(cx, &mut self.gathered, &mut self.batch);
            self.own_retry = events.take_retry().or(self.own_retry);
            if let Some(reason) = over {
                return self.close(reason);
            }
        }
        if self.gathered.is_empty() && self.batch.is_empty() {
            self.poll_timer(cx);
        }
    }

    /// Polls the endpoint's function, and takes the stream that it returns. Returns why the stream must end now, if it
    /// must.
    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        let Poll::Ready(opened) = self.opening.as_mut()?.poll(cx) else { return None };
        self.opening = None;
        match opened {
            Ok(OpenedStream { events, name, policy, end }) => {
                self.events = Some(Events::new(events, name, &policy, &self.slot));
                self.policy = policy;
                self.lifetime.end = end;
                // What the function of a `POST` has put off.
                self.poll_end(cx)
            }
            Err(reason) => Some(reason),
        }
    }

    /// Whether the stream may end now for this reason.
    fn ends_for(&self, reason: CloseReason) -> bool {
        self.opening.as_ref().is_none_or(|opening| opening.ends_for(reason))
    }

    /// Returns when the stream must end. A function that may finish puts off its maximum age.
    fn scheduled_end(&self) -> Option<ScheduledEnd> {
        self.lifetime.end.filter(|end| self.ends_for(end.reason))
    }

    /// Returns why the stream must end now, if it must.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        let now = Instant::now();
        let mut request = self.slot.poll_end_request(cx);
        if self.policy.profile.is_plain()
            && let Some(since) = self.slot.drained_since()
        {
            self.lifetime.let_finish(since);
            request = None;
        }
        let request = request.filter(|reason| self.ends_for(*reason));
        let end = self.scheduled_end().filter(|end| end.at <= now);
        let reason = request.or(end.map(|end| end.reason));
        reason.or_else(|| self.lifetime.reauthorization.as_mut()?.poll(cx, now))
    }

    /// Nothing is ready: does what the time has come for, or sets the timer.
    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        // Only after a permission check may there still be nothing to send.
        while self.poll_timer_once(cx) {}
    }

    /// Returns whether it must be called again.
    fn poll_timer_once(&mut self, cx: &mut Context<'_>) -> bool {
        let heartbeat = self.policy.heartbeat.map(|interval| self.last_write + interval);
        let end = self.scheduled_end().map(|end| end.at);
        let check = self.lifetime.reauthorization.as_ref().and_then(|check| check.next_poll());
        let far_future = self.last_write + FAR_FUTURE;
        let due = [heartbeat, end, check].into_iter().flatten().min();
        let due = due.map_or(far_future, |due| due.min(far_future));
        // Events postpone the heartbeat without touching the timer. It fires early once an interval and is
        // then reset, which costs less than a reset at every event.
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.timer.deadline() >= due {
                if let Some(end) = self.scheduled_end().filter(|end| end.at <= due) {
                    self.end_early(end.reason);
                } else if check == Some(due) {
                    let check = self.lifetime.reauthorization.as_mut();
                    match check.and_then(|check| check.poll(cx, due)) {
                        Some(reason) => self.end_early(reason),
                        None => return true,
                    }
                } else {
                    self.write_heartbeat();
                }
                return false;
            }
            self.timer.as_mut().reset(due);
        }
        false
    }

    fn write_heartbeat(&mut self) {
        self.gathered.extend_from_slice(HEARTBEAT);
        if let Some(events) = &mut self.events {
            events.write_cursor(&mut self.gathered);
        }
        self.write_heartbeat_event();
    }

    /// The heartbeat for a watchdog in the page, since a browser neither times out nor shows comments.
    fn write_heartbeat_event(&mut self) {
        let wanted = self.policy.heartbeat_event && !self.policy.profile.is_plain();
        if let Some(interval) = self.policy.heartbeat.filter(|_| wanted) {
            let data = json!({ "interval_ms": interval.as_millis() });
            write_control(&mut self.gathered, "hero.heartbeat", &data);
        }
    }

    /// Ends the stream before its own end. A client that is to reconnect receives its position.
    fn end_early(&mut self, reason: CloseReason) {
        if let Some(events) = self.events.as_mut().filter(|_| reason.reconnect()) {
            events.write_cursor(&mut self.gathered);
        }
        // Whatever the reason is called, the application's stream has not ended.
        let ending = match self.policy.profile.is_plain() {
            true => Ending::Broken,
            false => self.ending(reason),
        };
        self.close_with(reason, ending);
    }

    fn close(&mut self, reason: CloseReason) {
        self.close_with(reason, self.ending(reason));
    }

    /// Returns how the stream ends. A client that cannot open it again must learn so from `hero.close`.
    fn ending(&self, reason: CloseReason) -> Ending {
        self.policy.ending(reason, self.lifetime.can_reopen)
    }

    fn close_with(&mut self, reason: CloseReason, ending: Ending) {
        // The application's stream is dropped at once, even if bytes still wait to be sent.
        self.events = None;
        self.opening = None;
        self.lifetime.reauthorization = None;
        self.slot.close(reason);
        let retry = self.policy.closing_retry(reason, Duration::ZERO);
        let retry = self.own_retry.unwrap_or(retry);
        match ending {
            Ending::CloseEvent => {
                self.stage = Stage::Closed;
                write_close_event(&mut self.gathered, reason, retry, self.lifetime.can_reopen);
            }
            Ending::Clean => self.stage = Stage::Closed,
            Ending::Broken => {
                self.stage = Stage::Breaking(reason);
                if !self.policy.profile.is_plain() {
                    write_retry(&mut self.gathered, retry);
                }
                if self.gathered.is_empty() && self.batch.is_empty() {
                    // Once it is sent, everything before it is.
                    self.gathered.extend_from_slice(HEARTBEAT);
                }
            }
        }
    }

    /// Returns the next piece of the batch.
    fn next_piece(&mut self) -> Bytes {
        self.last_write = Instant::now();
        let piece = self.delivery.next_piece(&mut self.batch, self.last_write);
        match self.stage {
            Stage::Breaking(_) => self.last_bytes.get_or_insert_default().hold(piece),
            _ => piece,
        }
    }

    /// Fails the body once everything before is sent.
    fn poll_break(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Poll<BrokenOff> {
        let last_bytes = self.last_bytes.get_or_insert_default();
        ready!(self.delivery.poll_break(cx, last_bytes, self.policy.write_timeout));
        self.stage = Stage::Closed;
        Poll::Ready(BrokenOff(reason))
    }

    /// Returns why the client was cut off, if it was.
    fn failure(&self) -> Option<CloseReason> {
        self.slot.was_cut().or_else(|| self.delivery.failure())
    }
}

impl Stream for Writer {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let writer = self.get_mut();
        writer.delivery.polled();
        if !writer.batch.is_empty() {
            // A slow client may take long for one batch. The application's stream need not wait for it to end.
            if writer.stage == Stage::Live
                && let Some(reason) = writer.poll_end(cx)
            {
                writer.end_early(reason);
            }
            return Poll::Ready(Some(Ok(writer.next_piece())));
        }
        if matches!(writer.stage, Stage::Preamble | Stage::Live) {
            writer.gather(cx);
            if !writer.batch.is_empty() {
                return Poll::Ready(Some(Ok(writer.next_piece())));
            }
        }
        if writer.gathered.is_empty() {
            return match writer.stage {
                Stage::Preamble | Stage::Live => Poll::Pending,
                Stage::Closed => Poll::Ready(None),
                Stage::Breaking(reason) => writer.poll_break(cx, reason).map(|end| Some(Err(end))),
            };
        }
        writer.batch = next_batch(&mut writer.gathered);
        Poll::Ready(Some(Ok(writer.next_piece())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Before the slot is released.
        self.events = None;
        self.opening = None;
        if matches!(self.stage, Stage::Preamble | Stage::Live)
            && let Some(reason) = self.failure()
        {
            self.slot.close(reason);
        }
    }
}

/// Writes a stream's closing event: why it ended, when to reconnect, and whether to reconnect at all.
/// `can_reopen` is `false` where the same request cannot open the stream again.
pub(crate) fn write_close_event(
    out: &mut BytesMut,
    reason: CloseReason,
    retry: Duration,
    can_reopen: bool,
) {
    let data = json!({
        "reason": reason.as_str(),
        "reconnect": reason.reconnect() && can_reopen,
        "retry_ms": retry.as_millis(),
    });
    write_control_with_retry(out, "hero.close", retry, &data);
}

fn take_direct_events(slot: &Slot, out: &mut BytesMut, own_retry: &mut Option<Duration>) {
    let before = out.len();
    slot.take_direct_events(out);
    if out.len() > before {
        *own_retry = retry_of(out.get(before..).unwrap_or_default()).or(*own_retry);
    }
}

/// Takes the next write: as many whole frames as fit into a batch, or one longer frame. It copies the
/// smaller part of what was gathered.
fn next_batch(gathered: &mut BytesMut) -> Bytes {
    let end = end_of_write(gathered, BATCH);
    let (batch, remaining) = gathered.split_at(end);
    if remaining.is_empty() {
        take_all(gathered)
    } else if remaining.len() <= batch.len() {
        let remaining = BytesMut::from(remaining);
        gathered.truncate(end);
        let batch = take_all(gathered);
        *gathered = remaining;
        batch
    } else {
        let batch = Bytes::copy_from_slice(batch);
        gathered.advance(end);
        batch
    }
}

/// Takes everything. A buffer grows by doubling, but a batch that may wait for a slow client should use no
/// more memory than its size.
fn take_all(gathered: &mut BytesMut) -> Bytes {
    let spare = gathered.capacity() - gathered.len();
    if gathered.len() <= KEPT_BUFFER {
        gathered.split().freeze()
    } else if spare > gathered.len() / 4 {
        Bytes::copy_from_slice(&std::mem::take(gathered))
    } else {
        std::mem::take(gathered).freeze()
    }
}

#[cfg(test)]
mod tests;
