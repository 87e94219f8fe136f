//! Finds stalled streams where no socket shows the stall, and ends them.
//!
//! While an HTTP/2 client keeps a stream's window closed, hyper does not poll the stream's body. The socket
//! carries other streams and does not block, so neither the writer nor `GuardedIo` can notice. The same
//! holds for servers whose sockets are not guarded. Therefore the writer records when it handed over a
//! piece, and one ticker checks the records of all such streams.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, sleep};

use crate::close::CloseReason;

/// The interval between checks. A quarter of the shortest write timeout applies if that is less.
const TICK: Duration = Duration::from_millis(250);
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// The watched streams of a `HeroSse`. Clones share them.
#[derive(Clone)]
pub(crate) struct Sweeper(Arc<Shared>);

struct Shared {
    streams: Mutex<Streams>,
    epoch: Instant,
}

#[derive(Default)]
struct Streams {
    watched: Slab<Arc<Watched>>,
    /// Whether a ticker runs: from the first stream to the end of the last.
    ticking: bool,
}

struct Watched {
    /// The stream's runtime. The ticker moves to it when its own runtime ends.
    runtime: Handle,
    /// Whether pieces that are still held below the writer count as not taken.
    held_counts: bool,
    /// Ends the stream, and returns whether it did.
    end: Box<dyn Fn() -> bool + Send + Sync>,
    timeout: Duration,
    /// When the last piece was handed over, in milliseconds after the epoch, plus one. Zero once the
    /// writer is polled again.
    handed_over: AtomicU64,
    /// Number of pieces that are still held below the writer, and when the last one was released.
    held: AtomicUsize,
    released: AtomicU64,
    stalled: AtomicBool,
}

impl Watched {
    /// Returns since when the client has taken nothing. Zero if nothing waits for it.
    fn waiting_since(&self) -> u64 {
        match self.held.load(Ordering::Acquire) {
            0 => self.handed_over.load(Ordering::Acquire),
            _ => self.released.load(Ordering::Acquire),
        }
    }
}

impl Default for Sweeper {
    fn default() -> Self {
        Self(Arc::new(Shared { streams: Mutex::default(), epoch: Instant::now() }))
    }
}

impl Sweeper {
    /// Applies the write timeout to a stream until the returned record is dropped. Must be called on a Tokio
    /// runtime, since the ticker is a task.
    ///
    /// `end` ends a stream that stalls, and returns whether it did. It may be called more than once.
    ///
    /// `held_counts`: under `serve`, bytes are released once they are sent, so held pieces count as not
    /// taken. Another server may keep them forever; there only polling the writer counts.
    pub(super) fn watch(
        &self,
        timeout: Option<Duration>,
        held_counts: bool,
        end: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Option<WatchedStream> {
        let timeout = timeout?;
        let runtime = Handle::current();
        let stream = Arc::new(Watched {
            runtime: runtime.clone(),
            held_counts,
            end: Box::new(end),
            timeout,
            handed_over: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            released: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        });
        let mut streams = self.0.lock();
        let key = streams.watched.insert(stream.clone());
        let ticking = std::mem::replace(&mut streams.ticking, true);
        drop(streams);
        if !ticking {
            Ticker::start(self.clone(), &runtime, Vec::new());
        }
        Some(WatchedStream { sweeper: self.clone(), stream, key })
    }

    /// Ends the stalled streams. Returns the shortest write timeout of all streams, `None` without streams.
    fn sweep(&self, now: Instant) -> Option<Duration> {
        let now = self.0.millis(now);
        let (mut stalled, mut shortest) = (Vec::new(), None::<Duration>);
        let mut streams = self.0.lock();
        for (_, stream) in &streams.watched {
            let since = stream.waiting_since();
            let waited = Duration::from_millis(now.saturating_sub(since));
            if since != 0 && waited >= stream.timeout {
                stalled.push(stream.clone());
            }
            shortest = Some(shortest.map_or(stream.timeout, |time| time.min(stream.timeout)));
        }
        streams.ticking = shortest.is_some();
        // `end` wakes tasks and may drop streams, so it must not run under the lock.
        drop(streams);
        for stream in &stalled {
            // Set first: ending the stream may drop its writer, which reads it.
            let already = stream.stalled.swap(true, Ordering::AcqRel);
            if !(stream.end)() && !already {
                stream.stalled.store(false, Ordering::Release);
            }
        }
        shortest
    }
}

impl Shared {
    /// No code that can panic runs under the lock, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds after the epoch, plus one: zero stands for no time.
    fn millis(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// The task that checks the streams. Its runtime may end, and with it the task, while streams of other
/// runtimes remain. Then it moves to one of those.
struct Ticker {
    sweeper: Option<Sweeper>,
    /// Its runtime, after those that have ended before the task could start.
    runtimes: Vec<Id>,
}

impl Ticker {
    fn start(sweeper: Sweeper, runtime: &Handle, mut ended: Vec<Id>) {
        ended.push(runtime.id());
        let ticker = Self { sweeper: Some(sweeper), runtimes: ended };
        runtime.spawn(ticker.run());
    }

    async fn run(mut self) {
        // Only its own runtime matters from now on, since ids may be used again.
        self.runtimes.drain(..self.runtimes.len().saturating_sub(1));
        while let Some(sweeper) = &self.sweeper {
            match sweeper.sweep(Instant::now()) {
                Some(shortest) => sleep(TICK.min(shortest / 4).max(SHORTEST_TICK)).await,
                None => self.sweeper = None,
            }
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        let Some(sweeper) = self.sweeper.take() else { return };
        let mut streams = sweeper.0.lock();
        let mut runtimes = streams.watched.iter().map(|(_, stream)| &stream.runtime);
        let other = runtimes.find(|other| !self.runtimes.contains(&other.id())).cloned();
        streams.ticking = other.is_some();
        drop(streams);
        if let Some(other) = other {
            // A runtime that has ended drops the task at once, within this call.
            Self::start(sweeper, &other, std::mem::take(&mut self.runtimes));
        }
    }
}

/// The record of one stream, which its writer keeps up to date.
pub(super) struct WatchedStream {
    sweeper: Sweeper,
    stream: Arc<Watched>,
    key: usize,
}

impl WatchedStream {
    /// Records that a piece is handed over, and returns a piece that records its release. What lies between
    /// the writer and the client may copy the bytes, so a missing poll counts as well.
    pub(super) fn hand_over(&self, bytes: Bytes, now: Instant) -> Bytes {
        let (stream, now) = (&self.stream, self.sweeper.0.millis(now));
        stream.handed_over.store(now, Ordering::Release);
        if !stream.held_counts {
            return bytes;
        }
        // Before the piece counts, so that the sweeper never sees it with an old time.
        if stream.held.load(Ordering::Acquire) == 0 {
            stream.released.store(now, Ordering::Release);
        }
        stream.held.fetch_add(1, Ordering::AcqRel);
        let (sweeper, stream) = (self.sweeper.clone(), stream.clone());
        Bytes::from_owner(Piece { bytes, sweeper, stream })
    }

    /// Records that the writer is polled.
    pub(super) fn polled(&self) {
        self.stream.handed_over.store(0, Ordering::Release);
    }

    /// Returns why the sweeper ended the stream, if it did.
    pub(super) fn failure(&self) -> Option<CloseReason> {
        self.stream.stalled.load(Ordering::Acquire).then_some(CloseReason::WriteTimeout)
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        self.sweeper.0.lock().watched.try_remove(self.key);
    }
}

/// Bytes on their way to the client.
struct Piece {
    bytes: Bytes,
    sweeper: Sweeper,
    stream: Arc<Watched>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.stream.released.store(self.sweeper.0.millis(Instant::now()), Ordering::Release);
        self.stream.held.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stream(sweeper: &Sweeper, timeout: Duration) -> (WatchedStream, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let end = move || {
            flag.store(true, Ordering::SeqCst);
            true
        };
        (sweeper.watch(Some(timeout), true, end).expect("a timeout"), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_whose_piece_is_not_taken_is_ended() {
        let sweeper = Sweeper::default();
        // The ticker starts with the first stream, stops after the last, and starts again.
        for _ in 0..2 {
            assert!(!sweeper.0.lock().ticking);
            let (stalled, ended) = stream(&sweeper, 2 * SECOND);
            let (taking, other) = stream(&sweeper, 2 * SECOND);
            let (idle, third) = stream(&sweeper, SECOND / 10);
            drop(idle.hand_over(Bytes::new(), Instant::now()));
            idle.polled();
            let start = Instant::now();
            let _held = stalled.hand_over(Bytes::new(), start);
            while !ended.load(Ordering::SeqCst) {
                taking.polled();
                drop(taking.hand_over(Bytes::new(), Instant::now()));
                sleep(SECOND / 100).await;
                assert!(start.elapsed() < 3 * SECOND, "never ended");
            }
            assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
            assert!(start.elapsed() <= 2 * SECOND + TICK, "{:?}", start.elapsed());
            assert_eq!(stalled.failure(), Some(CloseReason::WriteTimeout));
            assert_eq!((taking.failure(), other.load(Ordering::SeqCst)), (None, false));
            assert_eq!((idle.failure(), third.load(Ordering::SeqCst)), (None, false));
            drop((stalled, taking, idle));
            sleep(SECOND).await;
        }
        assert!(sweeper.0.lock().watched.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_piece_and_a_missing_poll_each_count_as_a_stall() {
        let sweeper = Sweeper::default();
        let (held, ended) = stream(&sweeper, 2 * SECOND);
        let (unpolled, also_ended) = stream(&sweeper, 2 * SECOND);
        let first = held.hand_over(Bytes::from_static(b"1"), Instant::now());
        let second = held.hand_over(Bytes::from_static(b"2"), Instant::now());
        held.polled();
        sleep(SECOND * 3 / 2).await;
        // Released: two seconds remain from now.
        drop(first);
        drop(unpolled.hand_over(Bytes::new(), Instant::now()));
        sleep(SECOND * 3 / 2).await;
        assert!(!ended.load(Ordering::SeqCst) && !also_ended.load(Ordering::SeqCst));
        assert_eq!(second.as_ref(), b"2");
        sleep(SECOND).await;
        assert!(ended.load(Ordering::SeqCst) && also_ended.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timeout_there_is_nothing_to_watch() {
        let sweeper = Sweeper::default();
        assert!(sweeper.watch(None, true, || true).is_none());
        assert!(sweeper.0.lock().watched.is_empty() && !sweeper.0.lock().ticking);
    }

    #[test]
    fn a_ticker_that_ended_with_its_runtime_is_replaced() {
        let sweeper = Sweeper::default();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().build().expect("a runtime")
        };
        let first = runtime();
        let (_watched, _) = first.block_on(async { stream(&sweeper, SECOND) });
        drop(first);
        runtime().block_on(async {
            let (stalled, ended) = stream(&sweeper, SECOND / 20);
            let _held = stalled.hand_over(Bytes::new(), Instant::now());
            let wait = async {
                while !ended.load(Ordering::SeqCst) {
                    sleep(SECOND / 100).await;
                }
            };
            tokio::time::timeout(10 * SECOND, wait).await.expect("a ticker");
        });
    }

    /// Servers of one `HeroSse`, each on its own runtime. The runtime of the ticker ends, perhaps before the ticker
    /// could start there. Another one has ended already.
    #[test]
    fn a_ticker_moves_to_a_runtime_that_still_has_streams() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().build().expect("a runtime")
        };
        for started in [false, true] {
            let sweeper = Sweeper::default();
            let (first, gone, last) = (runtime(), runtime(), runtime());
            let watch = |runtime: &tokio::runtime::Runtime, timeout| {
                let _guard = runtime.enter();
                stream(&sweeper, timeout)
            };
            let left = (watch(&first, 60 * SECOND), watch(&gone, 60 * SECOND));
            let (stalled, ended) = watch(&last, SECOND / 20);
            if started {
                first.block_on(tokio::task::yield_now());
            }
            drop(gone);
            drop(first);
            let _held = stalled.hand_over(Bytes::new(), Instant::now());
            last.block_on(async {
                let start = Instant::now();
                while !ended.load(Ordering::SeqCst) {
                    assert!(start.elapsed() < 10 * SECOND, "no ticker runs");
                    sleep(SECOND / 100).await;
                }
            });
            // No runtime remains.
            drop(last);
            assert!(!sweeper.0.lock().ticking);
            drop((left, stalled));
        }
    }
}
