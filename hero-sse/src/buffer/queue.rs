//! The buffer of a slow client: a task fills it from the application's stream, the writer empties it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::task::{AbortHandle, coop, yield_now};
use tokio::time::Instant;
use tracing::Instrument;

use super::user_stream::{TIME_SLICE, UserStream};
use crate::close::CloseReason;
use crate::connections::Attribution;
use crate::endpoint::Appended;
use crate::frame::{Contents, GAP, PreEncoded, Written, contents_of, name_of, write_control};
use crate::policy::Overflow;
use crate::topic::BATCH;

/// A buffer with this many bytes is full, however few its events are: with a bound on events alone, a slow
/// client of long events would cost hundreds of megabytes. The bound is checked before an event is added, so
/// that an event of any length passes.
const MAX_BYTES: usize = 1 << 20;

/// The writer's end of the buffer.
pub(crate) struct Buffer {
    shared: Arc<Shared>,
    task: AbortHandle,
    /// The last reconnection time since it was taken.
    retry: Option<Duration>,
}

struct Shared {
    attribution: Attribution,
    max_events: usize,
    overflow: Overflow,
    is_plain: bool,
    state: Mutex<State>,
}

struct State {
    /// The task takes the stream out while it polls it, so that no user code runs under the lock.
    stream: Option<UserStream>,
    /// The buffered frames in order, by number. [`Overflow::Latest`] also removes frames from the middle.
    frames: BTreeMap<u64, BufferedFrame>,
    /// Total length of the frames.
    bytes: usize,
    /// Number of frames [without data](BufferedFrame::is_without_data).
    without_data: usize,
    /// The number of the newest frame of each name and key.
    latest: BTreeMap<Arc<CompactionKey>, u64>,
    next_number: u64,
    /// Number of events that were dropped before the first buffered one.
    missed: u64,
    /// A dropped frame contained a gap event, so the number of missed events is unknown.
    missed_unknown: bool,
    end: Option<CloseReason>,
    /// The last reconnection time that was buffered since the writer has looked.
    retry: Option<Duration>,
    /// Set while the writer waits for a frame.
    writer: Option<Waker>,
    /// The writer was woken and has not been polled yet.
    writer_woken: bool,
    closed: bool,
}

struct BufferedFrame {
    frame: Bytes,
    key: Option<Arc<CompactionKey>>,
    /// Numbers of events with data and of gap events in it. A frame of a stream's own is one event at most.
    events: u64,
    gaps: u64,
}

impl BufferedFrame {
    /// Whether no client dispatches it, as a comment. A full buffer drops such a frame first.
    fn is_without_data(&self) -> bool {
        self.events == 0 && self.gaps == 0
    }
}

/// Under [`Overflow::Latest`] a frame replaces an earlier one of the same name and key. One without data, such as a
/// comment, replaces no event.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct CompactionKey {
    has_data: bool,
    name: Option<Box<[u8]>>,
    key: Option<String>,
}

/// How a turn of the task ended.
enum Turn {
    Pending,
    Again,
    Over(CloseReason),
}

/// What the task does after it pushed a frame.
enum Pushed {
    Continue,
    Yield,
    Overflow,
}

impl Buffer {
    pub(super) fn new(stream: UserStream, max_events: usize, overflow: Overflow) -> Self {
        let attribution = stream.attribution.clone();
        let is_plain = stream.is_plain();
        let state = State {
            stream: Some(stream),
            frames: BTreeMap::new(),
            bytes: 0,
            without_data: 0,
            latest: BTreeMap::new(),
            next_number: 0,
            missed: 0,
            missed_unknown: false,
            end: None,
            retry: None,
            writer: None,
            writer_woken: true,
            closed: false,
        };
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { attribution, max_events, overflow, is_plain, state });
        // The application's stream logs in the span of its request, as it does unbuffered.
        let task = tokio::spawn(fill(shared.clone()).in_current_span()).abort_handle();
        Self { shared, task, retry: None }
    }

    /// Appends buffered frames, up to a batch. The stream's end follows the last frame.
    pub(super) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Option<CloseReason> {
        let mut state = self.shared.lock();
        self.retry = state.retry.take().or(self.retry);
        state.writer_woken = false;
        let mut gaps = 0;
        let missed = std::mem::take(&mut state.missed);
        let missed_unknown = std::mem::take(&mut state.missed_unknown);
        if self.shared.is_plain && (missed > 0 || missed_unknown) {
            // A plain stream cannot report missed events.
            return Some(CloseReason::Overflow);
        }
        if missed > 0 || missed_unknown {
            // Without an id: a client that disconnects before the next event receives the gap again.
            let missed = (!missed_unknown).then_some(missed);
            write_control(out, GAP, &json!({ "missed": missed }));
            gaps += 1;
        }
        let (mut end, mut replaced) = (None, None);
        while let Some(buffered) = state.pop() {
            out.extend_from_slice(&buffered.frame);
            gaps += buffered.gaps;
            if out.len() >= BATCH {
                break;
            }
        }
        if out.len() < BATCH {
            end = state.end;
            if end.is_none() {
                replaced = state.writer.replace(cx.waker().clone());
            }
        }
        drop(state);
        // Without the lock, since loggers and wakers may run any code.
        drop(replaced);
        (0..gaps).for_each(|_| self.shared.attribution.gap());
        end
    }

    pub(super) fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    #[cfg(test)]
    fn has_no_keys(&self) -> bool {
        self.shared.lock().latest.is_empty()
    }
}

/// Drops the application's stream here and now. Only if the task polls it at this moment, on another thread, is
/// it dropped when that poll returns.
impl Drop for Buffer {
    fn drop(&mut self) {
        let (stream, writer) = {
            let mut state = self.shared.lock();
            state.closed = true;
            (state.stream.take(), state.writer.take())
        };
        // Aborting alone would drop the stream later, and not on this thread.
        self.task.abort();
        drop((stream, writer));
    }
}

/// The task of a buffer. It yields now and then, so that a stream that is always ready does not keep the
/// thread from other tasks.
async fn fill(shared: Arc<Shared>) {
    while poll_fn(|cx| shared.fill(cx)).await {
        yield_now().await;
    }
}

impl Shared {
    /// Runs one turn of the task. It is pending while the stream is. Returns whether another turn must follow.
    fn fill(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(mut stream) = self.lock().stream.take() else {
            return Poll::Ready(false);
        };
        let start = Instant::now();
        let turn = self.turn(&mut stream, cx);
        stream.attribution.ran(start);
        if let Turn::Over(reason) = turn {
            // Before the end is published: a stream that is closed has been dropped.
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

    fn turn(&self, stream: &mut UserStream, cx: &mut Context<'_>) -> Turn {
        let (mut out, mut filled) = (BytesMut::new(), 0);
        let start = Instant::now();
        while filled < BATCH && start.elapsed() < TIME_SLICE {
            let Poll::Ready(budget) = coop::poll_proceed(cx) else {
                return Turn::Pending;
            };
            let ask_key = self.overflow == Overflow::Latest;
            let Poll::Ready((step, appended)) = stream.poll(cx, &mut out, ask_key) else {
                return Turn::Pending;
            };
            budget.made_progress();
            if !out.is_empty() {
                let retry = stream.take_retry();
                // An exact copy: a slice of `out` would keep its whole allocation.
                match self.push(Bytes::copy_from_slice(&out), appended, retry, step.is_break()) {
                    Pushed::Continue => {}
                    Pushed::Yield => return Turn::Again,
                    Pushed::Overflow => return Turn::Over(CloseReason::Overflow),
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

    /// Buffers a frame. The stream's last frame is accepted above the bound, since no other follows.
    fn push(
        &self,
        frame: Bytes,
        appended: Appended,
        retry: Option<Duration>,
        last: bool,
    ) -> Pushed {
        let Appended { key, written: Written { pre_encoded, has_data, .. } } = appended;
        let latest = self.overflow == Overflow::Latest;
        let Contents { gaps, events, name } = match pre_encoded {
            PreEncoded::Event | PreEncoded::Batch => contents_of(&frame),
            PreEncoded::No => Contents {
                gaps: 0,
                events: u64::from(has_data),
                name: if latest { name_of(&frame) } else { None },
            },
        };
        // A batch replaces no other frame, even if it is a single event.
        let key = (latest && pre_encoded != PreEncoded::Batch).then(|| {
            Arc::new(CompactionKey { has_data: events > 0, name: name.map(Box::from), key })
        });
        let mut state = self.lock();
        if state.closed {
            return Pushed::Yield;
        }
        if let Some(key) = &key
            && let Some(superseded) = state.latest.remove(key)
            && let Some(superseded) = state.frames.remove(&superseded)
        {
            state.bytes -= superseded.frame.len();
            state.without_data -= usize::from(superseded.is_without_data());
            state.missed_unknown |= superseded.gaps > 0;
        }
        let buffered = BufferedFrame { frame, key, events, gaps };
        while !last && state.is_full(self.max_events) {
            if buffered.is_without_data() {
                return Pushed::Continue;
            }
            if state.drop_one_without_data() {
                continue;
            }
            if self.overflow == Overflow::Disconnect {
                return Pushed::Overflow;
            }
            let Some(dropped) = state.pop() else { break };
            state.missed += dropped.events;
            state.missed_unknown |= dropped.gaps > 0;
        }
        state.retry = retry.or(state.retry);
        let number = state.next_number;
        state.next_number += 1;
        if let Some(key) = &buffered.key {
            state.latest.insert(key.clone(), number);
        }
        state.bytes += buffered.frame.len();
        state.without_data += usize::from(buffered.is_without_data());
        state.frames.insert(number, buffered);
        let writer = state.writer.take();
        state.writer_woken |= writer.is_some();
        // A woken writer gets one chance to make room, so that a client that keeps up misses nothing, however
        // small the buffer is.
        let wait_for_writer =
            !last && state.is_full(self.max_events) && std::mem::take(&mut state.writer_woken);
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        if wait_for_writer { Pushed::Yield } else { Pushed::Continue }
    }

    /// No code that can panic runs under the lock, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self, max_events: usize) -> bool {
        self.frames.len() >= max_events || self.bytes >= MAX_BYTES
    }

    fn pop(&mut self) -> Option<BufferedFrame> {
        let (_, buffered) = self.frames.pop_first()?;
        self.removed(&buffered);
        Some(buffered)
    }

    /// Drops the oldest frame without data. A comment is worth no event.
    fn drop_one_without_data(&mut self) -> bool {
        if self.without_data == 0 {
            return false;
        }
        let is_without_data = |(_, buffered): &(&u64, &BufferedFrame)| buffered.is_without_data();
        let Some(number) = self.frames.iter().find(is_without_data).map(|(number, _)| *number)
        else {
            return false;
        };
        let Some(buffered) = self.frames.remove(&number) else { return false };
        self.removed(&buffered);
        true
    }

    fn removed(&mut self, buffered: &BufferedFrame) {
        self.bytes -= buffered.frame.len();
        self.without_data -= usize::from(buffered.is_without_data());
        if let Some(key) = &buffered.key {
            self.latest.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::buffer::Events;
    use crate::connections::{Caller, Connections, Limits};
    use crate::endpoint::EventStream;
    use crate::event::Event;
    use crate::options::SseOptions;

    /// A stream whose every event has a new key would otherwise fill the memory with keys.
    #[tokio::test(start_paused = true)]
    async fn a_frame_that_has_left_leaves_no_key_behind() {
        let slot = Connections::default().admit(&"/s".into(), Caller::default(), &Limits::NONE);
        let slot = slot.unwrap_or_else(|_| panic!("a slot"));
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
        assert!(buffer.has_no_keys());
    }
}
