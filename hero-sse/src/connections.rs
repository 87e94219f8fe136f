//! Who is connected: admission under limits, one slot a stream, and the way to ask streams to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::time::Instant;

use crate::auth::Principal;
use crate::close::CloseReason;
use crate::telemetry;

/// Code that keeps a thread busy for so long holds up what else was to run there.
const BLOCKING: Duration = Duration::from_millis(100);

/// The registry of a kit: [`HeroSse::connections`](crate::HeroSse::connections).
///
/// A stream is in it from its admission, before the application's function runs, until its last
/// trace is gone, whichever way that comes about; then it is counted once, under its
/// [`CloseReason`]. Cheap to clone; all clones are one registry.
#[derive(Clone, Default)]
pub struct Connections(Arc<Registry>);

#[derive(Default)]
struct Registry {
    open: Mutex<Open>,
    next_id: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    blocking: AtomicU64,
}

#[derive(Default)]
struct Open {
    streams: Slab<Arc<Connection>>,
    by_path: HashMap<Arc<str>, usize>,
    by_subject: HashMap<Arc<str>, usize>,
    draining: bool,
}

struct Connection {
    id: u64,
    path: Arc<str>,
    subject: Option<Arc<str>>,
    tenant: Option<String>,
    since: Instant,
    /// The place in [`CloseReason::ALL`] of the end that was asked for, plus one; zero is none.
    asked: AtomicU8,
    waker: AtomicWaker,
}

/// One open stream, as [`Connections::snapshot`] shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its number, unique within the process.
    pub id: u64,
    /// The endpoint's path.
    pub path: String,
    /// Who holds it; `None` on a public endpoint without token.
    pub subject: Option<String>,
    /// For which tenant.
    pub tenant: Option<String>,
    /// For how long.
    pub age: Duration,
}

impl Connections {
    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.0.lock().streams.len()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many streams have ended for this reason since the start. Those turned away by a limit count
    /// under [`CloseReason::OverLimit`], those turned away by a shutdown under
    /// [`CloseReason::Draining`].
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.0.closed.get(reason.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How often since the start the application's code, a function's or a stream's, kept a worker
    /// thread busy for 100 ms or more by the clock without awaiting; each is a WARN line as well. The
    /// other workers go on, but what was about to run on that one waits: such work belongs in
    /// `tokio::task::spawn_blocking`. A rise of these without a cause in the code is a machine short
    /// of processors.
    pub fn blocking_polls(&self) -> u64 {
        self.0.blocking.load(Ordering::Relaxed)
    }

    /// The open streams at this moment, in no particular order.
    pub fn snapshot(&self) -> Vec<ConnectionInfo> {
        let open = self.0.lock();
        let info = |connection: &Arc<Connection>| ConnectionInfo {
            id: connection.id,
            path: connection.path.to_string(),
            subject: connection.subject.as_deref().map(str::to_owned),
            tenant: connection.tenant.clone(),
            age: connection.since.elapsed(),
        };
        open.streams.iter().map(|(_, connection)| info(connection)).collect()
    }

    /// Takes a place for a stream, or says why there is none.
    pub(crate) fn admit(
        &self,
        path: &Arc<str>,
        principal: Option<&Principal>,
        limits: Limits,
    ) -> Result<Slot, NoPlace> {
        let mut open = self.0.lock();
        let subject = principal.map(|principal| Arc::<str>::from(principal.subject()));
        open.check(path, subject.as_ref(), limits).inspect_err(|no_place| {
            self.0.count(no_place.reason());
        })?;
        let connection = Arc::new(Connection {
            id: self.0.next_id.fetch_add(1, Ordering::Relaxed),
            path: path.clone(),
            subject: subject.clone(),
            tenant: principal.and_then(Principal::tenant_id).map(str::to_owned),
            since: Instant::now(),
            asked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        });
        *open.by_path.entry(path.clone()).or_default() += 1;
        if let Some(subject) = subject {
            *open.by_subject.entry(subject).or_default() += 1;
        }
        let key = open.streams.insert(connection.clone());
        drop(open);
        telemetry::places(path, 1.0);
        let reason = Some(CloseReason::ClientGone);
        Ok(Slot { registry: self.0.clone(), connection, key, reason })
    }

    /// Admits nobody any more and asks every stream to say farewell; how many there are.
    pub(crate) fn drain(&self) -> usize {
        let streams: Vec<_> = {
            let mut open = self.0.lock();
            open.draining = true;
            open.streams.iter().map(|(_, connection)| connection.clone()).collect()
        };
        streams.iter().for_each(|connection| connection.ask(CloseReason::Draining));
        streams.len()
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// How many streams there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) on_path: Option<usize>,
    pub(crate) of_subject: usize,
}

/// Why a stream was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Draining,
    Total,
    Path,
    Subject,
}

impl NoPlace {
    pub(crate) const fn reason(self) -> CloseReason {
        match self {
            Self::Draining => CloseReason::Draining,
            Self::Total | Self::Path | Self::Subject => CloseReason::OverLimit,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Total => "all connections",
            Self::Path => "this endpoint's connections",
            Self::Subject => "this principal's connections",
        }
    }
}

impl Open {
    fn check(
        &self,
        path: &Arc<str>,
        subject: Option<&Arc<str>>,
        limits: Limits,
    ) -> Result<(), NoPlace> {
        let count = |counts: &HashMap<_, usize>, key| counts.get(key).copied().unwrap_or(0);
        if self.draining {
            Err(NoPlace::Draining)
        } else if self.streams.len() >= limits.total {
            Err(NoPlace::Total)
        } else if limits.on_path.is_some_and(|limit| count(&self.by_path, path) >= limit) {
            Err(NoPlace::Path)
        } else if subject.is_some_and(|s| count(&self.by_subject, s) >= limits.of_subject) {
            Err(NoPlace::Subject)
        } else {
            Ok(())
        }
    }
}

impl Registry {
    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, reason: CloseReason) {
        if let Some(count) = self.closed.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Connection {
    fn ask(&self, reason: CloseReason) {
        let place = u8::try_from(reason.index() + 1).unwrap_or(u8::MAX);
        self.asked.store(place, Ordering::Release);
        self.waker.wake();
    }
}

/// A stream's place in the registry. Dropping it gives the place back and counts the end.
pub(crate) struct Slot {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
    key: usize,
    /// `None` when no stream came of it.
    reason: Option<CloseReason>,
}

impl Slot {
    pub(crate) fn origin(&self) -> Origin {
        Origin { registry: self.registry.clone(), connection: self.connection.clone() }
    }

    /// The end that somebody asked for; the task is woken when one is.
    pub(crate) fn poll_asked(&self, cx: &Context<'_>) -> Option<CloseReason> {
        self.connection.waker.register(cx.waker());
        let place = usize::from(self.connection.asked.load(Ordering::Acquire));
        CloseReason::ALL.get(place.checked_sub(1)?).copied()
    }

    /// The stream begins.
    pub(crate) fn opened(&self) {
        let Connection { id, path, subject, .. } = &*self.connection;
        telemetry::opened(path, *id, subject.as_deref());
    }

    /// Why the stream is over; without a word from here the client has gone.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.reason = Some(reason);
    }

    /// Gives the place back for a stream that never was: the answer is a refusal, not an end.
    pub(crate) fn withdraw(mut self) {
        self.reason = None;
    }
}

/// Whose code it is that runs: for the log and the counts.
pub(crate) struct Origin {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl Origin {
    pub(crate) fn path(&self) -> &str {
        &self.connection.path
    }

    pub(crate) fn id(&self) -> u64 {
        self.connection.id
    }

    /// A piece of the application's code, which began then, has come to its end or its next `await`.
    /// The machine's clock: that of tests stands still while a thread is blocked.
    pub(crate) fn ran(&self, since: std::time::Instant) {
        let took = since.elapsed();
        if took >= BLOCKING {
            self.registry.blocking.fetch_add(1, Ordering::Relaxed);
            telemetry::blocking(self.path(), self.id(), took);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Connection { id, path, subject, since, .. } = &*self.connection;
        {
            let mut open = self.registry.lock();
            open.streams.try_remove(self.key);
            release(&mut open.by_path, path);
            if let Some(subject) = subject {
                release(&mut open.by_subject, subject);
            }
        }
        telemetry::places(path, -1.0);
        if let Some(reason) = self.reason {
            self.registry.count(reason);
            telemetry::closed(path, *id, reason, since.elapsed());
        }
    }
}

fn release(counts: &mut HashMap<Arc<str>, usize>, key: &Arc<str>) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 4, on_path: Some(3), of_subject: 2 };

    #[test]
    fn every_limit_is_kept_and_every_place_comes_back() {
        let connections = Connections::default();
        let (a, b) = (Arc::from("/a"), Arc::from("/b"));
        let ann = Principal::new("ann");
        let admit = |path, who: Option<&Principal>| connections.admit(path, who, LIMITS);
        let first = admit(&a, Some(&ann)).ok();
        let second = admit(&a, Some(&ann)).ok();
        assert_eq!(admit(&b, Some(&ann)).err(), Some(NoPlace::Subject));
        let third = admit(&a, None).ok();
        assert_eq!(admit(&a, None).err(), Some(NoPlace::Path));
        let fourth = admit(&b, None).ok();
        assert_eq!(admit(&b, None).err(), Some(NoPlace::Total));
        assert_eq!((connections.len(), connections.closed(CloseReason::OverLimit)), (4, 3));
        drop((first, second, third, fourth));
        assert!(connections.is_empty());
        assert_eq!(connections.closed(CloseReason::ClientGone), 4);
        assert!(connections.0.lock().by_path.is_empty());
        assert!(connections.0.lock().by_subject.is_empty());
        assert!(admit(&a, Some(&ann)).is_ok());
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn draining_asks_everybody_and_admits_nobody() {
        let connections = Connections::default();
        let path = Arc::from("/a");
        let slot = connections.admit(&path, None, LIMITS).unwrap_or_else(|_| panic!("a place"));
        let cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(slot.poll_asked(&cx), None);
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(woken.clone());
        assert_eq!(slot.poll_asked(&Context::from_waker(&waker)), None);
        assert_eq!(connections.drain(), 1);
        assert!(woken.0.load(Ordering::SeqCst), "an idle stream must be woken");
        assert_eq!(slot.poll_asked(&cx), Some(CloseReason::Draining));
        assert_eq!(connections.admit(&path, None, LIMITS).err(), Some(NoPlace::Draining));
    }
}
