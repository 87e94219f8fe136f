//! Writes one stream: prelude, events, heartbeats, farewell.
//!
//! It is the response's body, polled by whatever serves the connection. It owns everything that a
//! stream holds, so that dropping it gives everything back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::auth::{AccessControl, AccessRequest, PendingDecision};
use crate::buffer::Events;
use crate::close::CloseReason;
use crate::connections::{Attribution, Slot};
use crate::deadline::Armed;
use crate::duration::random_between;
use crate::endpoint::EventStream;
use crate::frame::{EventName, HEARTBEAT, end_of_write, write_control, write_retry};
use crate::policy::Policy;
use crate::sweeper::{Handover, Sweeper};
use crate::topic::BATCH;

/// A buffer that held more than this is given up with its batch: an idle stream must not hold on to
/// the largest one it ever sent.
const KEPT: usize = 1024;

/// Where handovers are noted a batch leaves in pieces of this size, each of which must be taken within
/// the write timeout: a long event may take longer. It is the pace that `DeadlineIo` asks of a slow reader,
/// four of them in four timeouts.
const PIECE: usize = 4 * 1024;

/// A stream without heartbeat and end still needs some time to wait for, and no timer needs more.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The body of an open stream.
pub(crate) struct Writer {
    events: Option<Events>,
    policy: Arc<Policy>,
    slot: Slot,
    socket: Option<Armed>,
    /// Where the socket cannot tell that the client stalls.
    handover: Option<Handover>,
    end: Option<End>,
    reauthorize: Option<Box<Reauthorization>>,
    /// Whether the same request can open the stream again; one by a ticket cannot.
    again: bool,
    stage: Stage,
    /// PreEncoded frames, of which the next write takes its part.
    out: BytesMut,
    /// What is left of a write that leaves in pieces.
    rest: Bytes,
    last_write: Instant,
    timer: Pin<Box<Sleep>>,
}

/// How long a stream's caller may stay.
pub(crate) struct Stay {
    pub(crate) end: Option<End>,
    pub(crate) reauthorize: Option<Reauthorization>,
    /// Whether the same request can open the stream again; one by a ticket cannot.
    pub(crate) again: bool,
}

/// When a stream must end, whatever it still has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) at: Instant,
    pub(crate) reason: CloseReason,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prelude,
    Live,
    Closed,
}

impl Writer {
    pub(crate) fn new(
        events: EventStream,
        name: Option<EventName>,
        policy: Arc<Policy>,
        slot: Slot,
        socket: Option<Armed>,
        handover: Option<Handover>,
        Stay { end, reauthorize, again }: Stay,
    ) -> Self {
        let last_write = Instant::now();
        Self {
            events: Some(Events::new(events, name, &policy, &slot)),
            policy,
            slot,
            socket,
            handover,
            end,
            reauthorize: reauthorize.map(Box::new),
            again,
            stage: Stage::Prelude,
            out: BytesMut::new(),
            rest: Bytes::new(),
            last_write,
            timer: Box::pin(sleep_until(last_write + FAR)),
        }
    }

    /// Fills `out`, or `rest` with what others send as well, with what is due now; empty means that there is
    /// nothing.
    fn gather(&mut self, cx: &mut Context<'_>) {
        if self.stage == Stage::Prelude {
            self.stage = Stage::Live;
            write_retry(&mut self.out, self.policy.jittered_retry());
            // At once too: the page of a stream that is never silent would not learn the interval.
            self.heartbeat_event();
        }
        if let Some(reason) = self.due(cx) {
            return self.break_off(reason);
        }
        // What is left of the last batch may be one by itself.
        if let Some(events) = self.events.as_mut().filter(|_| self.out.len() < BATCH) {
            if !events.is_pausing() {
                self.slot.collect(&mut self.out);
            }
            if let Some(reason) = events.gather(cx, &mut self.out, &mut self.rest) {
                return self.close(reason);
            }
        }
        if self.out.is_empty() && self.rest.is_empty() {
            self.wait(cx);
        }
    }

    /// Why the stream must end now, if it must.
    fn due(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        let now = Instant::now();
        let end = self.end.filter(|end| end.at <= now);
        let reason = self.slot.poll_asked(cx).or(end.map(|end| end.reason));
        reason.or_else(|| self.reauthorize.as_mut()?.poll(cx, now))
    }

    /// Nothing is ready: does what it is time for, or sets the timer.
    fn wait(&mut self, cx: &mut Context<'_>) {
        // A re-check is the only thing after which there may still be nothing to send.
        while self.wait_once(cx) {}
    }

    /// Whether it must be called again.
    fn wait_once(&mut self, cx: &mut Context<'_>) -> bool {
        let heartbeat = self.policy.heartbeat.map(|interval| self.last_write + interval);
        let end = self.end.map(|end| end.at);
        let reauthorize = self.reauthorize.as_ref().map(|reauthorize| reauthorize.next());
        let far = self.last_write + FAR;
        let due = [heartbeat, end, reauthorize].into_iter().flatten().min();
        let due = due.map_or(far, |due| due.min(far));
        // Events move the heartbeat back without touching the timer: it fires early once an
        // interval and is set anew, which costs less than setting it at every event.
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.timer.deadline() >= due {
                if let Some(end) = self.end.filter(|end| end.at <= due) {
                    self.break_off(end.reason);
                } else if reauthorize == Some(due) {
                    let reason =
                        self.reauthorize.as_mut().and_then(|reauthorize| reauthorize.poll(cx, due));
                    match reason {
                        Some(reason) => self.break_off(reason),
                        None => return true,
                    }
                } else {
                    self.heartbeat();
                }
                return false;
            }
            self.timer.as_mut().reset(due);
        }
        false
    }

    fn heartbeat(&mut self) {
        self.out.extend_from_slice(HEARTBEAT);
        if let Some(events) = &mut self.events {
            events.mark(&mut self.out);
        }
        self.heartbeat_event();
    }

    /// For a watchdog in the page: a browser neither times out nor shows comments.
    fn heartbeat_event(&mut self) {
        if let Some(interval) = self.policy.heartbeat.filter(|_| self.policy.heartbeat_event) {
            let data = json!({ "interval_ms": interval.as_millis() });
            write_control(&mut self.out, "hero.heartbeat", &data);
        }
    }

    /// Why the client was given up, if it was.
    fn failure(&self) -> Option<CloseReason> {
        if let Some(reason) = self.slot.was_cut() {
            return Some(reason);
        }
        let stream = self.handover.as_ref().and_then(Handover::failure);
        stream.or_else(|| self.socket.as_ref().and_then(Armed::failure))
    }

    /// The next piece of the batch; without a handover to note, all of it.
    fn hand_over(&mut self) -> Bytes {
        self.last_write = Instant::now();
        let Some(handover) = &self.handover else {
            return std::mem::take(&mut self.rest);
        };
        let piece = self.rest.split_to(PIECE.min(self.rest.len()));
        handover.hand(piece, self.last_write)
    }

    /// Ends the stream from outside: whoever is to come back is told where it stands.
    fn break_off(&mut self, reason: CloseReason) {
        if let Some(events) = self.events.as_mut().filter(|_| reason.reconnect()) {
            events.mark(&mut self.out);
        }
        self.close(reason);
    }

    fn close(&mut self, reason: CloseReason) {
        // The application's stream goes at once, whatever else still waits to be sent.
        self.events = None;
        self.reauthorize = None;
        self.slot.close(reason);
        self.stage = Stage::Closed;
        let retry = self.policy.closing_retry(reason, Duration::ZERO);
        write_farewell(&mut self.out, reason, retry, self.again);
    }
}

/// Takes the next write of what was gathered: whole frames of up to a batch, or a longer one alone. The
/// rest stays, by a copy of the smaller part.
fn next_write(out: &mut BytesMut) -> Bytes {
    let end = end_of_write(out, BATCH);
    let (write, rest) = out.split_at(end);
    if rest.is_empty() {
        batch(out)
    } else if rest.len() <= write.len() {
        let rest = BytesMut::from(rest);
        out.truncate(end);
        let write = batch(out);
        *out = rest;
        write
    } else {
        let write = Bytes::copy_from_slice(write);
        out.advance(end);
        write
    }
}

/// Takes what was gathered. A buffer grows by doubling; a batch that may wait for a slow client takes
/// no more memory than it holds.
fn batch(out: &mut BytesMut) -> Bytes {
    let spare = out.capacity() - out.len();
    if out.len() <= KEPT {
        out.split().freeze()
    } else if spare > out.len() / 4 {
        Bytes::copy_from_slice(&std::mem::take(out))
    } else {
        std::mem::take(out).freeze()
    }
}

/// The last words of a stream: when to come back, why it ended, and whether to come back at all, which
/// is never `again` where the same request cannot open it.
pub(crate) fn write_farewell(
    out: &mut BytesMut,
    reason: CloseReason,
    retry: Duration,
    again: bool,
) {
    write_retry(out, retry);
    let data = json!({
        "reason": reason.as_str(),
        "reconnect": reason.reconnect() && again,
        "retry_ms": retry.as_millis(),
    });
    write_control(out, "hero.close", &data);
}

impl Stream for Writer {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let writer = self.get_mut();
        if let Some(handover) = &writer.handover {
            handover.taken();
        }
        if !writer.rest.is_empty() {
            // A slow client may take long over what it was sent; the application need not wait for it.
            if writer.stage == Stage::Live
                && let Some(reason) = writer.due(cx)
            {
                writer.break_off(reason);
            }
            return Poll::Ready(Some(Ok(writer.hand_over())));
        }
        if writer.stage != Stage::Closed {
            writer.gather(cx);
            if !writer.rest.is_empty() {
                return Poll::Ready(Some(Ok(writer.hand_over())));
            }
            if writer.out.is_empty() {
                return Poll::Pending;
            }
        } else if writer.out.is_empty() {
            return Poll::Ready(None);
        }
        writer.rest = next_write(&mut writer.out);
        Poll::Ready(Some(Ok(writer.hand_over())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Before the place is free.
        self.events = None;
        if self.stage != Stage::Closed
            && let Some(reason) = self.failure()
        {
            self.slot.close(reason);
        }
    }
}

/// Looks again, now and then, whether a stream's caller may stay. It is polled with the writer: it has
/// neither task nor timer.
pub(crate) struct Reauthorization {
    permits: AccessControl,
    asked: Arc<AccessRequest>,
    origin: Attribution,
    every: Duration,
    due: Instant,
    asking: Option<PendingDecision>,
    /// When whoever is being asked must have answered.
    late: Instant,
}

impl Reauthorization {
    /// `since` is when the caller was looked at last.
    pub(crate) fn new(
        permits: AccessControl,
        asked: Arc<AccessRequest>,
        origin: Attribution,
        every: Duration,
        since: Instant,
    ) -> Self {
        let due = since + not_together(every);
        Self { permits, asked, origin, every, due, asking: None, late: due }
    }

    /// When it wants to be polled next, whatever else happens.
    fn next(&self) -> Instant {
        if self.asking.is_some() { self.late } else { self.due }
    }

    /// Why the stream must end, if it must.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<CloseReason> {
        if self.asking.is_none() && now >= self.due {
            self.late = now + self.permits.timeout.unwrap_or(FAR);
            self.asking = Some(self.permits.decide(self.asked.clone(), true));
        }
        let asking = self.asking.as_mut()?;
        let start = std::time::Instant::now();
        let answer = Pin::new(asking).poll(cx);
        self.origin.ran(start);
        let answer = match answer {
            Poll::Ready(answer) => answer,
            Poll::Pending if now >= self.late => Err(self.permits.timed_out(&self.asked)),
            Poll::Pending => return None,
        };
        self.asking = None;
        self.due = now + not_together(self.every);
        let refusal = answer.err()?;
        Some(match refusal.is_unverified() {
            true => CloseReason::Unverified,
            false => CloseReason::Revoked,
        })
    }
}

/// Streams that were opened together must not all be checked together.
fn not_together(interval: Duration) -> Duration {
    random_between(interval.mul_f64(0.8), interval)
}

/// A writer in the hands of a server that keeps one without polling it, for ever if need be: it can
/// be taken back, and everything it holds with it. The server is left with a body that has ended.
pub(crate) struct RevocableBody(Arc<Mutex<Option<Writer>>>);

impl RevocableBody {
    /// Lends the writer that `make` makes of its note with `sweeper`.
    pub(crate) fn new(
        sweeper: &Sweeper,
        timeout: Option<Duration>,
        make: impl FnOnce(Option<Handover>) -> Writer,
    ) -> Self {
        let writer = Arc::new(Mutex::new(None));
        let lent = Arc::downgrade(&writer);
        let cut: Weak<Mutex<Option<Writer>>> = lent.clone();
        let made = make(sweeper.watch(timeout, false, move || take_back(&lent)));
        made.slot.on_cut(move |_| _ = take_back(&cut));
        *writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Self(writer)
    }
}

/// Drops the writer, and says whether it does. One that is just being polled is not stalled.
fn take_back(lent: &Weak<Mutex<Option<Writer>>>) -> bool {
    let writer = lent.upgrade().and_then(|lent| lent.try_lock().ok()?.take());
    // The drop of the application's stream is its own code, and may take its time.
    writer.map(|writer| tokio::spawn(async move { drop(writer) })).is_some()
}

impl Stream for RevocableBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_mut().map_or(Poll::Ready(None), |writer| Pin::new(writer).poll_next(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_core::future::BoxFuture;
    use futures_util::stream;
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{Access, AuthError, Authorizer, Decision, Principal};
    use crate::connections::{Caller, ConnectionFilter, Connections, Limits};
    use crate::event::Event;
    use crate::options::SseOptions;
    use crate::permission::PermissionRule;

    fn writer(events: impl Stream<Item = Event> + Send + 'static) -> Writer {
        writer_in(&Connections::default(), SseOptions::default(), events)
    }

    fn writer_in(
        connections: &Connections,
        options: SseOptions,
        events: impl Stream<Item = Event> + Send + 'static,
    ) -> Writer {
        let (path, caller) = (Arc::from("/s"), Caller::default());
        let slot = connections.admit(&path, caller, &Limits::NONE);
        let slot = slot.unwrap_or_else(|_| panic!("a place"));
        let policy = options.general_policies().private;
        let stay = Stay { end: None, reauthorize: None, again: true };
        Writer::new(EventStream::new(events), None, policy, slot, None, None, stay)
    }

    /// Says no, and counts how often.
    #[derive(Default)]
    struct Never(AtomicUsize);

    impl Authorizer for Never {
        fn authorize<'a>(
            &'a self,
            _: &'a Access<'a>,
        ) -> BoxFuture<'a, Result<Decision, AuthError>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(Decision::denied()) })
        }
    }

    /// Nothing makes it wait, so nothing but the beginning of a turn is there to look at.
    #[tokio::test]
    async fn a_look_that_is_due_comes_before_what_an_always_ready_stream_has() {
        let never = Arc::new(Never::default());
        let permits = AccessControl {
            authorizer: Some(never.clone()),
            timeout: None,
            failures: Arc::default(),
        };
        let principal = Principal::new("ann");
        let asked = AccessRequest { principal, rule: PermissionRule::any_token(), target: None };
        let mut writer = writer(stream::repeat_with(|| Event::text("x")));
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut next = |writer: &mut Writer| match Pin::new(writer).poll_next(cx) {
            Poll::Ready(Some(Ok(batch))) => String::from_utf8_lossy(&batch).into_owned(),
            _ => panic!("a batch"),
        };
        let (every, now) = (Duration::from_secs(30), Instant::now());
        let reauthorize = |since| {
            Reauthorization::new(
                permits.clone(),
                Arc::new(asked),
                writer.slot.origin(),
                every,
                since,
            )
        };
        writer.reauthorize = Some(Box::new(reauthorize(now)));
        assert!(next(&mut writer).contains("data: x"));
        assert_eq!(never.0.load(Ordering::SeqCst), 0);
        if let Some(reauthorize) = &mut writer.reauthorize {
            reauthorize.due = now;
        }
        let text = next(&mut writer);
        assert!(text.contains("\"revoked\"") && !text.contains("data: x"), "{text}");
        assert_eq!(never.0.load(Ordering::SeqCst), 1);
    }

    /// What has left the application is still sent; the application's stream, and whoever is being asked,
    /// go before that.
    #[tokio::test]
    async fn a_batch_on_its_way_in_pieces_keeps_neither_the_stream_nor_a_question() {
        let (held, asking) = (Arc::new(()), Arc::new(()));
        let kept = held.clone();
        let events = stream::iter([Event::text("x".repeat(3 * PIECE))]);
        let events = futures_util::StreamExt::chain(events, stream::pending());
        let mut writer =
            writer(futures_util::StreamExt::inspect(events, move |_| drop(kept.clone())));
        writer.handover = Sweeper::default().watch(Some(Duration::from_secs(9)), true, || true);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut writer).poll_next(cx) else {
            panic!("a piece")
        };
        assert!(piece.len() == PIECE && !writer.rest.is_empty());
        let (permits, principal) = (
            AccessControl { authorizer: None, timeout: None, failures: Arc::default() },
            Principal::new("ann"),
        );
        let asked = AccessRequest { principal, rule: PermissionRule::any_token(), target: None };
        let (asked, origin, now) = (Arc::new(asked), writer.slot.origin(), Instant::now());
        let mut reauthorize =
            Reauthorization::new(permits, asked, origin, Duration::from_secs(9), now);
        let question = asking.clone();
        reauthorize.asking = Some(PendingDecision::new(async move {
            let _question = question;
            std::future::pending().await
        }));
        writer.reauthorize = Some(Box::new(reauthorize));
        assert_eq!((Arc::strong_count(&held), Arc::strong_count(&asking)), (2, 2));
        writer.end = Some(End { at: now, reason: CloseReason::TokenExpired });
        let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut writer).poll_next(cx) else {
            panic!("a piece")
        };
        assert!(piece.iter().all(|byte| *byte == b'x'));
        assert_eq!((Arc::strong_count(&held), Arc::strong_count(&asking)), (1, 1));
    }

    #[test]
    fn a_batch_takes_little_more_memory_than_it_holds() {
        for size in [10, 1000, 1025, 3000, 10_000, 16_400, 100_000] {
            for capacity in [size, size + size / 8, 2 * size] {
                let mut out = BytesMut::with_capacity(capacity);
                out.resize(size, b'x');
                let batch = batch(&mut out);
                assert_eq!(batch.len(), size);
                assert!(out.is_empty() && out.capacity() <= 2 * KEPT, "{}", out.capacity());
                let Ok(taken) = batch.try_into_mut() else { continue };
                assert!(size <= KEPT || taken.capacity() <= size * 5 / 4 + 16, "{size}");
            }
        }
    }

    #[tokio::test]
    async fn an_idle_stream_does_not_hold_on_to_its_largest_batch() {
        let events = stream::iter([Event::text("x".repeat(1 << 20))]);
        let mut writer = writer(futures_util::StreamExt::chain(events, stream::pending()));
        assert!(next_of(&mut writer).await.starts_with(b"retry"));
        let batch = next_of(&mut writer).await;
        assert!(batch.len() > 1 << 20);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut writer).poll_next(cx).is_pending());
        assert!(writer.out.capacity() <= KEPT, "{}", writer.out.capacity());
    }

    async fn next_of(writer: &mut Writer) -> Bytes {
        let next = futures_util::StreamExt::next(writer);
        let next = tokio::time::timeout(Duration::from_secs(20), next).await.expect("in time");
        next.expect("no end").unwrap_or_else(|never| match never {})
    }

    fn write_of_whole_frames(write: &[u8]) -> bool {
        let frames = memchr::memmem::find_iter(write, b"\n\n").count();
        write.ends_with(b"\n\n") && (write.len() <= BATCH || frames == 1)
    }

    /// The numbers at the beginning of the data of all events of this name.
    fn numbers(body: &str, name: &str) -> Vec<usize> {
        let number = |frame: &str| frame.strip_prefix(name)?.split_once(' ')?.0.parse().ok();
        body.split("\n\n").filter_map(number).collect()
    }

    /// Sizes about nothing, about a batch, and beyond.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![
            6 => 0..400usize,
            3 => 0..9_000usize,
            2 => BATCH - 60..BATCH + 60,
            1 => 0..50_000usize,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever is sent from wherever: each write is whole frames of up to a batch, or a longer one
        /// alone; nothing is lost, and each of the two keeps its order.
        #[test]
        fn every_write_is_whole_frames_of_a_batch_or_one_longer_frame(
            own in proptest::collection::vec((size(), any::<bool>(), 0..9u8), 0..60),
            mail in proptest::collection::vec((size(), 0..5usize), 0..30),
            buffered in any::<bool>(),
            heartbeat_event in any::<bool>(),
        ) {
            let text = |n: usize, size: usize, lines: bool| {
                let line = if lines { "y\n\n" } else { "yyy" };
                Event::text(format!("{n} {}", line.repeat(size / 3)))
            };
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                let mut options = SseOptions::default().heartbeat_event(heartbeat_event);
                if buffered {
                    options = options.buffer(1000);
                }
                let (connections, (end, ended)) =
                    (Connections::default(), tokio::sync::oneshot::channel::<()>());
                let made: Vec<_> = own.iter().enumerate().map(|(n, (size, lines, pause))| {
                    (text(n, *size, *lines), *pause == 0)
                }).collect();
                let events = futures_util::StreamExt::then(stream::iter(made), |(event, pause)| async move {
                    if pause {
                        tokio::task::yield_now().await;
                    }
                    event
                });
                let tail = stream::once(async move { let _ = ended.await; Event::text("last").last() });
                let mut writer =
                    writer_in(&connections, options, futures_util::StreamExt::chain(events, tail));
                let (mut body, mut accepted) = (String::new(), Vec::new());
                let mut take = |write: Bytes| {
                    assert!(write_of_whole_frames(&write), "{} bytes", write.len());
                    body.push_str(std::str::from_utf8(&write).expect("text"));
                };
                for (n, (size, writes)) in mail.iter().enumerate() {
                    let event = text(n, *size, n % 2 == 0).named("m").expect("a name");
                    let sent = connections.send(&ConnectionFilter::all(), event).expect("an event");
                    assert_eq!(sent.accepted + sent.full, 1);
                    accepted.extend((sent.accepted == 1).then_some(n));
                    for _ in 0..*writes {
                        // There may be nothing to say.
                        let wait = tokio::time::timeout(Duration::from_millis(1), next_of(&mut writer));
                        wait.await.into_iter().for_each(&mut take);
                    }
                }
                while let Ok(write) =
                    tokio::time::timeout(Duration::from_millis(20), next_of(&mut writer)).await
                {
                    take(write);
                }
                end.send(()).expect("a stream that waits");
                while let Some(Ok(write)) = futures_util::StreamExt::next(&mut writer).await {
                    take(write);
                }
                assert_eq!(numbers(&body, "data: "), (0..own.len()).collect::<Vec<_>>());
                assert_eq!(numbers(&body, "event: m\ndata: "), accepted);
                assert_eq!(body.matches("event: hero.close").count(), 1);
                assert!(body.contains("data: last\n"));
            });
        }
    }

    /// A thread may be taken away amid a burst for longer than a stint: then it leaves in two, rarely.
    #[tokio::test]
    async fn a_burst_leaves_as_one_write_and_what_comes_after_a_silence_at_once() {
        for buffered in [false, true] {
            let mut whole = false;
            for _ in 0..50 {
                let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Event>();
                let events = stream::unfold(receive, async |mut receive| {
                    Some((receive.recv().await?, receive))
                });
                let options = SseOptions::default();
                let options = if buffered { options.buffer(100) } else { options };
                let mut writer = writer_in(&Connections::default(), options, events);
                assert!(next_of(&mut writer).await.starts_with(b"retry"));
                let burst = |count: usize| {
                    (0..count).for_each(|n| send.send(Event::text(n.to_string())).expect("open"));
                };
                for count in [50, 1, 20] {
                    burst(count);
                    let write = next_of(&mut writer).await;
                    whole = memchr::memmem::find_iter(&write, b"\n\n").count() == count;
                    if !whole {
                        break;
                    }
                }
                if whole {
                    break;
                }
            }
            assert!(whole, "buffered: {buffered}");
        }
    }

    /// However much the one has to say, the other is heard in every second write.
    #[tokio::test]
    async fn neither_mail_nor_the_streams_own_events_keep_the_other_waiting() {
        for (own, sent) in
            [(100, 100), (10_000, 10_000), (20_000, 20_000), (100, 20_000), (20_000, 100)]
        {
            let connections = Connections::default();
            let events = stream::repeat_with(move || Event::text("x".repeat(own)));
            let mut writer = writer_in(&connections, SseOptions::default(), events);
            let event = Event::text("y".repeat(sent));
            let (mut own, mut mail) = (0, 0);
            for _ in 0..100 {
                while connections.send(&ConnectionFilter::all(), &event).expect("sent").full == 0 {}
                // A turn that took long is followed by a pause.
                let write = next_of(&mut writer).await;
                own += usize::from(write.contains(&b'x'));
                mail += usize::from(write.contains(&b'y'));
            }
            assert!(own >= 45 && mail >= 45, "{own} and {mail} of 100");
        }
    }

    #[tokio::test]
    async fn mail_that_is_left_when_a_stream_ends_is_dropped_and_no_more_is_taken() {
        let connections = Connections::default();
        let mut writer = writer_in(&connections, SseOptions::default(), stream::empty());
        let event = Event::text("y".repeat(10_000));
        let send =
            || connections.send(&ConnectionFilter::all(), &event).expect("an event").accepted;
        assert_eq!((send(), send()), (1, 1));
        let write = next_of(&mut writer).await;
        assert!(write.contains(&b'y'));
        assert_eq!(send(), 0, "it has said its last word");
        let mut left = Vec::new();
        while let Some(Ok(write)) = futures_util::StreamExt::next(&mut writer).await {
            left.extend_from_slice(&write);
        }
        assert!(!left.contains(&b'y'), "{left:?}");
    }
}
