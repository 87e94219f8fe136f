//! Finds HTTP/2 streams whose client takes nothing, and resets them alone.
//!
//! While a stream's window is shut hyper does not poll its body, and the socket, which carries other
//! streams, does not block: neither the writer nor `DeadlineIo` can notice. So the writer notes when
//! it handed a piece over, and one ticker for all streams looks at the notes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::close::CloseReason;

/// The ticker looks this often, or in a quarter of the shortest write timeout where that is less.
const TICK: Duration = Duration::from_millis(250);
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// The HTTP/2 streams of a server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Sweeper(Arc<Shared>);

struct Shared {
    streams: Mutex<Slab<Arc<Watched>>>,
    /// Told of the first stream after there was none: with none there is nothing to tick for.
    woken: Notify,
    epoch: Instant,
}

struct Watched {
    reset: CancellationToken,
    timeout: Duration,
    /// When the last piece was handed over, in milliseconds after the epoch and plus one; zero when
    /// it has been taken.
    handed: AtomicU64,
    stalled: AtomicBool,
}

impl Sweeper {
    pub(crate) fn new() -> Self {
        let (streams, woken) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { streams, woken, epoch: Instant::now() }))
    }

    /// Looks at the streams, for ever.
    pub(crate) async fn run(self) {
        loop {
            match self.sweep(Instant::now()) {
                None => self.0.woken.notified().await,
                Some(shortest) => sleep(TICK.min(shortest / 4).max(SHORTEST_TICK)).await,
            }
        }
    }

    /// Resets the streams that are stalled; the shortest write timeout of the others.
    fn sweep(&self, now: Instant) -> Option<Duration> {
        let now = self.0.mark(now);
        let (mut stalled, mut shortest) = (Vec::new(), None::<Duration>);
        for (_, stream) in self.0.lock().iter() {
            let handed = stream.handed.load(Ordering::Acquire);
            let waits = Duration::from_millis(now.saturating_sub(handed));
            if handed != 0 && waits >= stream.timeout {
                stalled.push(stream.clone());
            } else {
                shortest = Some(shortest.map_or(stream.timeout, |time| time.min(stream.timeout)));
            }
        }
        // Not under the lock: it wakes tasks.
        for stream in &stalled {
            stream.stalled.store(true, Ordering::Release);
            stream.reset.cancel();
        }
        // One that was reset stays in the list until its task has seen to that.
        shortest.or(stalled.first().map(|stream| stream.timeout))
    }
}

impl Shared {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Watched>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// The way to reset one HTTP/2 stream: its request carries it. Who serves the stream drops it when
/// the token says so.
#[derive(Clone)]
pub(crate) struct StreamReset {
    sweeper: Sweeper,
    token: CancellationToken,
}

impl StreamReset {
    pub(crate) fn new(sweeper: &Sweeper, token: CancellationToken) -> Self {
        Self { sweeper: sweeper.clone(), token }
    }

    /// Holds the stream to `timeout` until the guard is gone.
    pub(crate) fn arm(self, timeout: Option<Duration>) -> Option<Handover> {
        let stream = Arc::new(Watched {
            reset: self.token,
            timeout: timeout?,
            handed: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        });
        let mut streams = self.sweeper.0.lock();
        if streams.is_empty() {
            self.sweeper.0.woken.notify_one();
        }
        let key = streams.insert(stream.clone());
        drop(streams);
        Some(Handover { sweeper: self.sweeper, stream, key })
    }
}

/// A writer's notes on its stream.
pub(crate) struct Handover {
    sweeper: Sweeper,
    stream: Arc<Watched>,
    key: usize,
}

impl Handover {
    /// A piece was handed over; until the next poll it waits for the client.
    pub(crate) fn handed(&self, now: Instant) {
        self.stream.handed.store(self.sweeper.0.mark(now), Ordering::Release);
    }

    /// The writer is polled: what it handed over has been taken.
    pub(crate) fn taken(&self) {
        self.stream.handed.store(0, Ordering::Release);
    }

    /// Why the stream was reset from here.
    pub(crate) fn failure(&self) -> Option<CloseReason> {
        self.stream.stalled.load(Ordering::Acquire).then_some(CloseReason::WriteTimeout)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.sweeper.0.lock().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stream(sweeper: &Sweeper, timeout: Duration) -> (Handover, CancellationToken) {
        let token = CancellationToken::new();
        let handover = StreamReset::new(sweeper, token.clone()).arm(Some(timeout));
        (handover.expect("a guard"), token)
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_nobody_takes_resets_its_stream_alone() {
        let sweeper = Sweeper::new();
        let ticker = tokio::spawn(sweeper.clone().run());
        // The ticker waits before the first stream comes, and between streams.
        for _ in 0..2 {
            sleep(100 * SECOND).await;
            let (stalled, reset) = stream(&sweeper, 2 * SECOND);
            let (taking, other) = stream(&sweeper, 2 * SECOND);
            let (idle, third) = stream(&sweeper, SECOND / 10);
            idle.handed(Instant::now());
            idle.taken();
            let start = Instant::now();
            stalled.handed(start);
            while !reset.is_cancelled() {
                taking.taken();
                taking.handed(Instant::now());
                sleep(SECOND / 100).await;
                assert!(start.elapsed() < 3 * SECOND, "never reset");
            }
            assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
            assert!(start.elapsed() <= 2 * SECOND + TICK, "{:?}", start.elapsed());
            assert_eq!(stalled.failure(), Some(CloseReason::WriteTimeout));
            assert_eq!((taking.failure(), other.is_cancelled()), (None, false));
            assert_eq!((idle.failure(), third.is_cancelled()), (None, false));
        }
        assert!(sweeper.0.lock().is_empty());
        ticker.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timeout_there_is_nothing_to_watch() {
        let sweeper = Sweeper::new();
        assert!(StreamReset::new(&sweeper, CancellationToken::new()).arm(None).is_none());
        assert!(sweeper.0.lock().is_empty());
    }
}
