//! The application's events on their way to the writer: straight from its stream, at the client's
//! pace, or through a buffer that a task of the connection fills.

mod follow;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::task::{AbortHandle, coop, yield_now};
use tracing::Instrument;

use self::follow::Following;
use crate::close::CloseReason;
use crate::connections::{Attribution, Slot};
use crate::endpoint::{About, EventStream, Kind, Source, Step};
use crate::frame::{Contents, EventName, GAP, PreEncoded, contents_of, name_of, write_control};
use crate::policy::{Overflow, Policy};
use crate::telemetry;
use crate::topic::BATCH;

/// A buffer that holds so much is full, however few its events are: the bound in events alone would let a
/// slow client of long ones cost hundreds of megabytes. One more may have come before that shows, so
/// that an event of any length passes.
const HELD: usize = 1 << 20;

/// A stream that takes its time over each event gathers no batch: what it has by then leaves, and
/// others have their turn.
const STINT: Duration = Duration::from_millis(1);

/// Where a writer has its events from. Dropping it drops the application's stream.
pub(crate) enum Events {
    /// Polled only when the client can take more.
    Direct(Running),
    Buffered(Buffer),
    /// From a topic, which keeps them: nothing is buffered.
    Followed(Following),
}

impl Events {
    /// Must be called on the runtime: a buffer starts its task.
    pub(crate) fn new(
        stream: EventStream,
        name: Option<EventName>,
        policy: &Policy,
        slot: &Slot,
    ) -> Self {
        let stream = match stream.0 {
            Kind::Items(stream) => stream,
            Kind::Topic(feed) => {
                return Self::Followed(Following::new(feed, name, policy, slot.origin()));
            }
        };
        let running = Running { stream: Some(stream), name, origin: slot.origin(), pause: false };
        match policy.buffer {
            None => Self::Direct(running),
            Some(most) => Self::Buffered(Buffer::new(running, most, policy.overflow)),
        }
    }

    /// Whether nothing may come before what was made last has left.
    pub(crate) fn is_pausing(&self) -> bool {
        matches!(self, Self::Direct(running) if running.pause)
    }

    /// Appends every event that is ready, until `out` holds a batch, and at least one; the reason if the
    /// stream is over. What many share goes into `shared` instead, if `out` is empty.
    pub(crate) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        shared: &mut Bytes,
    ) -> Option<CloseReason> {
        match self {
            Self::Buffered(buffer) => buffer.gather(cx, out),
            Self::Direct(running) => running.gather(cx, out),
            Self::Followed(following) => following.gather(cx, out, shared),
        }
    }

    /// Appends what a client needs to come back, if it has not got that with an event.
    pub(crate) fn mark(&mut self, out: &mut BytesMut) {
        if let Self::Followed(following) = self {
            following.mark(out);
        }
    }
}

/// The application's stream under guard: a failure or a panic, in its drop too, is logged and goes
/// no further.
pub(crate) struct Running {
    stream: Option<Pin<Box<dyn Source>>>,
    name: Option<EventName>,
    origin: Attribution,
    /// The last stint was a long one: what came of it must leave before the next.
    pause: bool,
}

impl Running {
    fn gather(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Option<CloseReason> {
        if self.pause && !out.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.pause) {
            // A server asks for more until a body is pending, and only then sends what it has. Its
            // sockets and timers come before the next stint, which a mere wake would not grant them.
            let _ = pin!(yield_now()).poll(cx);
            return None;
        }
        let start = Instant::now();
        let end = loop {
            let before = out.len();
            let Poll::Ready((flow, about)) = self.poll(cx, out, false) else { break None };
            if about.whole != PreEncoded::No {
                let contents = contents_of(out.get(before..).unwrap_or_default());
                (0..contents.gaps).for_each(|_| self.origin.gap());
            }
            if let ControlFlow::Break(reason) = flow {
                break Some(reason);
            }
            self.pause = start.elapsed() >= STINT;
            if self.pause || out.len() >= BATCH {
                break None;
            }
        };
        self.origin.ran(start);
        end
    }

    /// Appends the next event, whole. A break may have appended one, the stream's last.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        ask_key: bool,
    ) -> Poll<(ControlFlow<CloseReason>, About)> {
        let Some(stream) = self.stream.as_mut() else {
            return Poll::Ready((ControlFlow::Break(CloseReason::Ended), About::default()));
        };
        let start = out.len();
        let poll = || stream.as_mut().poll_frame(cx, out, self.name.as_ref(), ask_key);
        let (step, about) = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(made)) => made,
            Err(_) => {
                // An event may have panicked half-written.
                out.truncate(start);
                telemetry::panicked(self.origin.path(), "stream");
                let reason = CloseReason::StreamPanic;
                return Poll::Ready((ControlFlow::Break(reason), About::default()));
            }
        };
        let flow = match step {
            Step::Wrote => ControlFlow::Continue(()),
            Step::WroteLast => ControlFlow::Break(CloseReason::LastEvent),
            Step::Ended => ControlFlow::Break(CloseReason::Ended),
            Step::Failed(error) => {
                telemetry::stream_error(self.origin.path(), self.origin.id(), &error);
                ControlFlow::Break(CloseReason::StreamError)
            }
        };
        Poll::Ready((flow, about))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let_go(self.stream.take(), &self.origin, "stream's drop");
    }
}

/// Drops what the application made: that is its own code as well.
fn let_go<T>(made: Option<T>, origin: &Attribution, what: &'static str) {
    let Some(made) = made else { return };
    let start = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| drop(made))).is_err() {
        telemetry::panicked(origin.path(), what);
    }
    origin.ran(start);
}

/// The writer's end of a buffer, whose other end is a task that polls the stream.
pub(crate) struct Buffer {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    origin: Attribution,
    most: usize,
    overflow: Overflow,
    state: Mutex<State>,
}

struct State {
    /// Away while the task polls it, so that the lock is never held over the application's code.
    stream: Option<Running>,
    /// What waits, in order; by number, since the latest takes frames out of the middle.
    frames: BTreeMap<u64, Waiting>,
    /// How many bytes they are.
    bytes: usize,
    places: BTreeMap<Arc<CompactionKey>, u64>,
    next: u64,
    /// How many events were dropped before the first that waits.
    missed: u64,
    /// A gap that nobody was told of went with a frame, so that nobody knows how many are missing.
    untold: bool,
    end: Option<CloseReason>,
    /// Set while the writer waits for a frame.
    writer: Option<Waker>,
    /// The writer was woken and has not come yet.
    coming: bool,
    closed: bool,
}

struct Waiting {
    frame: Bytes,
    place: Option<Arc<CompactionKey>>,
    /// How many events it has, and how many gaps it tells of: of an event that a stream makes there is one.
    events: u64,
    gaps: u64,
}

/// What a frame is the latest of.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct CompactionKey {
    name: Option<Box<[u8]>>,
    key: Option<String>,
}

/// What a turn of the task came to.
enum Turn {
    Wait,
    Again,
    Over(CloseReason),
}

/// What became of a frame, and what the task does next.
enum Push {
    Done,
    Yield,
    Overflow,
}

impl Buffer {
    fn new(stream: Running, most: usize, overflow: Overflow) -> Self {
        let origin = stream.origin.clone();
        let state = State {
            stream: Some(stream),
            frames: BTreeMap::new(),
            bytes: 0,
            places: BTreeMap::new(),
            next: 0,
            missed: 0,
            untold: false,
            end: None,
            writer: None,
            coming: true,
            closed: false,
        };
        let shared = Arc::new(Shared { origin, most, overflow, state: Mutex::new(state) });
        // The application's stream logs in the span of its request, as it would unbuffered.
        let task = tokio::spawn(fill(shared.clone()).in_current_span()).abort_handle();
        Self { shared, task }
    }

    /// Appends what waits, until there is a batch; the stream's end comes after the last frame.
    fn gather(&self, cx: &mut Context<'_>, out: &mut BytesMut) -> Option<CloseReason> {
        let mut state = self.shared.lock();
        state.coming = false;
        let mut gaps = 0;
        let missed = std::mem::take(&mut state.missed);
        let untold = std::mem::take(&mut state.untold);
        if missed > 0 || untold {
            // Without an id: who leaves before the next event is told again.
            let missed = (!untold).then_some(missed);
            write_control(out, GAP, &json!({ "missed": missed }));
            gaps += 1;
        }
        let (mut end, mut before) = (None, None);
        while let Some(waiting) = state.pop() {
            out.extend_from_slice(&waiting.frame);
            gaps += waiting.gaps;
            if out.len() >= BATCH {
                break;
            }
        }
        if out.len() < BATCH {
            end = state.end;
            before = end.is_none().then(|| state.writer.replace(cx.waker().clone())).flatten();
        }
        drop(state);
        drop(before);
        // What logs, and what wakes, may be anybody's code: not under the lock.
        (0..gaps).for_each(|_| self.shared.origin.gap());
        end
    }
}

/// The application's stream goes here and now. Only if the task is just polling it, on another thread,
/// it goes when that poll returns: aborting a task is not immediate, and dropping it would not be here.
impl Drop for Buffer {
    fn drop(&mut self) {
        let (stream, writer) = {
            let mut state = self.shared.lock();
            state.closed = true;
            (state.stream.take(), state.writer.take())
        };
        self.task.abort();
        drop((stream, writer));
    }
}

/// The task of a buffer. A stream that is always ready leaves the thread to others now and then.
async fn fill(shared: Arc<Shared>) {
    while poll_fn(|cx| shared.fill(cx)).await {
        yield_now().await;
    }
}

impl Shared {
    /// One turn of the task, pending when it must wait for the stream; whether another must follow.
    fn fill(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(mut stream) = self.lock().stream.take() else {
            return Poll::Ready(false);
        };
        let start = Instant::now();
        let turn = self.turn(&mut stream, cx);
        stream.origin.ran(start);
        if let Turn::Over(reason) = turn {
            // Before its end is known, so that a closed stream is a dropped one.
            drop(stream);
            let mut state = self.lock();
            state.end = Some(reason);
            let writer = state.writer.take();
            drop(state);
            writer.into_iter().for_each(Waker::wake);
            return Poll::Ready(false);
        }
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return Poll::Ready(false);
        }
        state.stream = Some(stream);
        if matches!(turn, Turn::Again) { Poll::Ready(true) } else { Poll::Pending }
    }

    fn turn(&self, stream: &mut Running, cx: &mut Context<'_>) -> Turn {
        let (mut out, mut filled) = (BytesMut::new(), 0);
        let start = Instant::now();
        while filled < BATCH && start.elapsed() < STINT {
            let Poll::Ready(budget) = coop::poll_proceed(cx) else {
                return Turn::Wait;
            };
            let ask_key = self.overflow == Overflow::Latest;
            let Poll::Ready((step, about)) = stream.poll(cx, &mut out, ask_key) else {
                return Turn::Wait;
            };
            budget.made_progress();
            if !out.is_empty() {
                // A copy of its own size: a slice of `out` would keep the whole of it alive.
                match self.push(Bytes::copy_from_slice(&out), about, step.is_break()) {
                    Push::Done => {}
                    Push::Yield => return Turn::Again,
                    Push::Overflow => return Turn::Over(CloseReason::Overflow),
                }
                filled += out.len();
                out.clear();
            }
            if let ControlFlow::Break(reason) = step {
                return Turn::Over(reason);
            }
        }
        Turn::Again
    }

    /// Lets a frame wait. The stream's last is let in above the bound: nothing comes after it.
    fn push(&self, frame: Bytes, about: About, last: bool) -> Push {
        let About { key, whole } = about;
        let latest = self.overflow == Overflow::Latest;
        let Contents { gaps, events, name } = match whole {
            PreEncoded::Event | PreEncoded::Batch => contents_of(&frame),
            PreEncoded::No if latest => Contents { gaps: 0, events: 1, name: name_of(&frame) },
            PreEncoded::No => Contents { gaps: 0, events: 1, name: None },
        };
        // What comes together is not the latest of anything, be it one event alone.
        let place = (latest && whole != PreEncoded::Batch)
            .then(|| Arc::new(CompactionKey { name: name.map(Box::from), key }));
        let mut state = self.lock();
        if state.closed {
            return Push::Yield;
        }
        if let Some(place) = &place
            && let Some(superseded) = state.places.remove(place)
            && let Some(waiting) = state.frames.remove(&superseded)
        {
            state.bytes -= waiting.frame.len();
            state.untold |= waiting.gaps > 0;
        }
        while !last && state.is_full(self.most) {
            if self.overflow == Overflow::Disconnect {
                return Push::Overflow;
            }
            let Some(dropped) = state.pop() else { break };
            state.missed += dropped.events;
            state.untold |= dropped.gaps > 0;
        }
        let number = state.next;
        state.next += 1;
        if let Some(place) = &place {
            state.places.insert(place.clone(), number);
        }
        state.bytes += frame.len();
        state.frames.insert(number, Waiting { frame, place, events, gaps });
        let writer = state.writer.take();
        state.coming |= writer.is_some();
        // A writer on its way gets one chance to make room: a client that keeps up loses nothing,
        // however small the buffer.
        let give_way = state.is_full(self.most) && !last && std::mem::take(&mut state.coming);
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        if give_way { Push::Yield } else { Push::Done }
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self, most: usize) -> bool {
        self.frames.len() >= most || self.bytes >= HELD
    }

    fn pop(&mut self) -> Option<Waiting> {
        let (_, waiting) = self.frames.pop_first()?;
        self.bytes -= waiting.frame.len();
        if let Some(place) = &waiting.place {
            self.places.remove(place);
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::connections::{Caller, Connections, Limits};
    use crate::event::Event;
    use crate::options::SseOptions;

    /// A stream whose keys are ever new ones would fill the memory with them.
    #[tokio::test(start_paused = true)]
    async fn what_has_left_leaves_no_place_behind() {
        let slot = Connections::default().admit(&"/s".into(), Caller::default(), &Limits::NONE);
        let slot = slot.unwrap_or_else(|_| panic!("a place"));
        let options = SseOptions::default().overflow(Overflow::Latest);
        let policy = options.general_policies().private;
        let keys = stream::iter((0..50_u32).map(|n| Event::text("x").with_key(n)));
        let stream = EventStream::new(keys.chain(stream::pending()));
        let mut events = Events::new(stream, None, &policy, &slot);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (mut out, mut shared) = (BytesMut::new(), Bytes::new());
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(events.gather(cx, &mut out, &mut shared), None);
        assert_eq!(out.len(), 50 * "data: x\n\n".len());
        let Events::Buffered(buffer) = &events else { panic!("a buffer") };
        assert!(buffer.shared.lock().places.is_empty());
    }
}
