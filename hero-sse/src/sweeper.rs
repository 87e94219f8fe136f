//! Finds streams whose client takes nothing where no socket can tell, and gives them up.
//!
//! While an HTTP/2 stream's window is shut hyper does not poll its body, and the socket, which carries
//! other streams, does not block: neither the writer nor `DeadlineIo` can notice. The same holds for
//! a server whose sockets are not ours. So the writer notes when it handed a piece over, and one
//! ticker for all such streams looks at the notes.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, sleep};

use crate::close::CloseReason;

/// The ticker looks this often, or in a quarter of the shortest write timeout where that is less.
const TICK: Duration = Duration::from_millis(250);
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// The watched streams of a kit. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Sweeper(Arc<Shared>);

struct Shared {
    streams: Mutex<Streams>,
    epoch: Instant,
}

#[derive(Default)]
struct Streams {
    watched: Slab<Arc<Watched>>,
    /// Whether a ticker runs: from the first stream until there is none left.
    ticking: bool,
}

struct Watched {
    /// Where it is served: somebody must look there when another runtime ends.
    runtime: Handle,
    /// Whether what is held below counts as waiting.
    held_counts: bool,
    give_up: Box<dyn Fn() -> bool + Send + Sync>,
    timeout: Duration,
    /// When the last piece was handed over, in milliseconds after the epoch and plus one; zero when
    /// the writer was polled since.
    handed: AtomicU64,
    /// Pieces that somebody below still holds on their way out, and when there was the last progress.
    pieces: AtomicUsize,
    progress: AtomicU64,
    stalled: AtomicBool,
}

impl Watched {
    /// Since when the client takes nothing; zero if nothing waits for it.
    fn waiting(&self) -> u64 {
        match self.pieces.load(Ordering::Acquire) {
            0 => self.handed.load(Ordering::Acquire),
            _ => self.progress.load(Ordering::Acquire),
        }
    }
}

impl Default for Sweeper {
    fn default() -> Self {
        Self(Arc::new(Shared { streams: Mutex::default(), epoch: Instant::now() }))
    }
}

impl Sweeper {
    /// Holds a stream to `timeout` until the note is gone. When it is exceeded `give_up` is called,
    /// perhaps more than once, and says whether it did. Must be called on the runtime: the ticker is a
    /// task.
    ///
    /// Under our own transport what was handed over is let go when it is sent, so `held_counts`.
    /// Elsewhere somebody may keep it for good: there only polling counts.
    pub(crate) fn watch(
        &self,
        timeout: Option<Duration>,
        held_counts: bool,
        give_up: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Option<Handover> {
        let timeout = timeout?;
        let runtime = Handle::current();
        let stream = Arc::new(Watched {
            runtime: runtime.clone(),
            held_counts,
            give_up: Box::new(give_up),
            timeout,
            handed: AtomicU64::new(0),
            pieces: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        });
        let mut streams = self.0.lock();
        let key = streams.watched.insert(stream.clone());
        let ticking = std::mem::replace(&mut streams.ticking, true);
        drop(streams);
        if !ticking {
            Ticker::start(self.clone(), &runtime);
        }
        Some(Handover { sweeper: self.clone(), stream, key })
    }

    /// Gives up the streams that are stalled; the shortest write timeout of all, `None` without any.
    fn sweep(&self, now: Instant) -> Option<Duration> {
        let now = self.0.mark(now);
        let (mut stalled, mut shortest) = (Vec::new(), None::<Duration>);
        let mut streams = self.0.lock();
        for (_, stream) in &streams.watched {
            let since = stream.waiting();
            let waits = Duration::from_millis(now.saturating_sub(since));
            if since != 0 && waits >= stream.timeout {
                stalled.push(stream.clone());
            }
            shortest = Some(shortest.map_or(stream.timeout, |time| time.min(stream.timeout)));
        }
        streams.ticking = shortest.is_some();
        // Not under the lock: it wakes tasks, and may drop streams.
        drop(streams);
        for stream in &stalled {
            // Before, for whoever is dropped by it.
            let again = stream.stalled.swap(true, Ordering::AcqRel);
            if !(stream.give_up)() && !again {
                stream.stalled.store(false, Ordering::Release);
            }
        }
        shortest
    }
}

impl Shared {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// The task that looks. It may be dropped with its runtime, and the kit live on in another.
struct Ticker {
    sweeper: Option<Sweeper>,
    runtime: Id,
    begun: bool,
}

impl Ticker {
    fn start(sweeper: Sweeper, runtime: &Handle) {
        let ticker = Self { sweeper: Some(sweeper), runtime: runtime.id(), begun: false };
        runtime.spawn(ticker.run());
    }

    async fn run(mut self) {
        self.begun = true;
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
        // One that never began was given to a runtime that has gone too, and gives itself to nobody.
        let mut runtimes = streams.watched.iter().map(|(_, stream)| &stream.runtime);
        let other = runtimes.find(|other| self.begun && other.id() != self.runtime).cloned();
        streams.ticking = other.is_some();
        drop(streams);
        if let Some(other) = other {
            Self::start(sweeper, &other);
        }
    }
}

/// A writer's notes on its stream.
pub(crate) struct Handover {
    sweeper: Sweeper,
    stream: Arc<Watched>,
    key: usize,
}

impl Handover {
    /// Hands a piece over, which tells when whoever sends it has let it go. Somebody in between may copy
    /// it: so it also counts that the writer is not polled again.
    pub(crate) fn hand(&self, bytes: Bytes, now: Instant) -> Bytes {
        let (stream, mark) = (&self.stream, self.sweeper.0.mark(now));
        stream.handed.store(mark, Ordering::Release);
        if !stream.held_counts {
            return bytes;
        }
        // Before it counts: the sweeper must not see a piece with the progress of long ago.
        if stream.pieces.load(Ordering::Acquire) == 0 {
            stream.progress.store(mark, Ordering::Release);
        }
        stream.pieces.fetch_add(1, Ordering::AcqRel);
        let (sweeper, stream) = (self.sweeper.clone(), stream.clone());
        Bytes::from_owner(Piece { bytes, sweeper, stream })
    }

    /// The writer is polled.
    pub(crate) fn taken(&self) {
        self.stream.handed.store(0, Ordering::Release);
    }

    /// Why the stream was given up from here.
    pub(crate) fn failure(&self) -> Option<CloseReason> {
        self.stream.stalled.load(Ordering::Acquire).then_some(CloseReason::WriteTimeout)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.sweeper.0.lock().watched.try_remove(self.key);
    }
}

/// Bytes on their way out.
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
        self.stream.progress.store(self.sweeper.0.mark(Instant::now()), Ordering::Release);
        self.stream.pieces.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stream(sweeper: &Sweeper, timeout: Duration) -> (Handover, Arc<AtomicBool>) {
        let given_up = Arc::new(AtomicBool::new(false));
        let told = given_up.clone();
        let give_up = move || {
            told.store(true, Ordering::SeqCst);
            true
        };
        let handover = sweeper.watch(Some(timeout), true, give_up);
        (handover.expect("a note"), given_up)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_piece_that_nobody_takes_gives_its_stream_up() {
        let sweeper = Sweeper::default();
        // The ticker comes with the first stream, goes after the last, and comes again.
        for _ in 0..2 {
            assert!(!sweeper.0.lock().ticking);
            let (stalled, given_up) = stream(&sweeper, 2 * SECOND);
            let (taking, other) = stream(&sweeper, 2 * SECOND);
            let (idle, third) = stream(&sweeper, SECOND / 10);
            drop(idle.hand(Bytes::new(), Instant::now()));
            idle.taken();
            let start = Instant::now();
            let _held = stalled.hand(Bytes::new(), start);
            while !given_up.load(Ordering::SeqCst) {
                taking.taken();
                drop(taking.hand(Bytes::new(), Instant::now()));
                sleep(SECOND / 100).await;
                assert!(start.elapsed() < 3 * SECOND, "never given up");
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
    async fn what_is_held_below_waits_though_the_writer_is_polled_and_the_other_way_round() {
        let sweeper = Sweeper::default();
        let (held, given_up) = stream(&sweeper, 2 * SECOND);
        let (unpolled, also_given_up) = stream(&sweeper, 2 * SECOND);
        let first = held.hand(Bytes::from_static(b"1"), Instant::now());
        let second = held.hand(Bytes::from_static(b"2"), Instant::now());
        held.taken();
        sleep(SECOND * 3 / 2).await;
        // Progress: two seconds from now.
        drop(first);
        drop(unpolled.hand(Bytes::new(), Instant::now()));
        sleep(SECOND * 3 / 2).await;
        assert!(!given_up.load(Ordering::SeqCst) && !also_given_up.load(Ordering::SeqCst));
        assert_eq!(second.as_ref(), b"2");
        sleep(SECOND).await;
        assert!(given_up.load(Ordering::SeqCst) && also_given_up.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timeout_there_is_nothing_to_watch() {
        let sweeper = Sweeper::default();
        assert!(sweeper.watch(None, true, || true).is_none());
        assert!(sweeper.0.lock().watched.is_empty() && !sweeper.0.lock().ticking);
    }

    #[test]
    fn a_ticker_that_goes_with_its_runtime_is_followed_by_another() {
        let sweeper = Sweeper::default();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().build().expect("a runtime")
        };
        let first = runtime();
        let (_kept, _) = first.block_on(async { stream(&sweeper, SECOND) });
        drop(first);
        runtime().block_on(async {
            let (stalled, given_up) = stream(&sweeper, SECOND / 20);
            let _held = stalled.hand(Bytes::new(), Instant::now());
            let wait = async {
                while !given_up.load(Ordering::SeqCst) {
                    sleep(SECOND / 100).await;
                }
            };
            tokio::time::timeout(10 * SECOND, wait).await.expect("a ticker");
        });
    }

    /// Two servers of one kit, each on its own runtime, of which the one that looked for both ends.
    #[test]
    fn a_ticker_that_goes_is_followed_where_streams_are_left() {
        let sweeper = Sweeper::default();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).enable_time().build().expect("a runtime")
        };
        let (first, second) = (runtime(), runtime());
        let left = first.block_on(async { stream(&sweeper, 60 * SECOND) });
        let (stalled, given_up) = second.block_on(async { stream(&sweeper, SECOND / 20) });
        drop(first);
        let _held = stalled.hand(Bytes::new(), Instant::now());
        second.block_on(async {
            let start = Instant::now();
            while !given_up.load(Ordering::SeqCst) {
                assert!(start.elapsed() < 10 * SECOND, "nobody looks");
                sleep(SECOND / 100).await;
            }
        });
        // What is left of runtimes that have gone is nobody's.
        drop(second);
        assert!(!sweeper.0.lock().ticking);
        drop((left, stalled));
    }
}
