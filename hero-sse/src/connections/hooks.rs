//! The application's hooks on every open and every close: a bounded queue of calls, and the one task that makes
//! them. Streams only enqueue; nothing waits for a hook.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Entry, Identity};
use super::extract::Connection;
use super::registry::{Observer, Registry};
use crate::close::CloseReason;
use crate::telemetry::HookLog;

/// How long a hook may take. It then is dropped, so that a dead database does not use up the calls at a time.
pub(crate) const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of calls at a time. A shutdown ends thousands of streams at once, and a hook may wait for a database.
const AT_A_TIME: usize = 64;

/// After so many calls in a row other tasks have their turn.
const IN_A_ROW: usize = 64;

/// Least number of calls that may wait, whatever `MaxConnections` is.
const MIN_CAPACITY: usize = 1024;

// The hooks, and why calls are dropped, in logs and metrics.
const OPEN: &str = "open";
const CLOSE: &str = "close";
const FULL: &str = "queue_full";
const TIMEOUT: &str = "timeout";
const UNFINISHED: &str = "unfinished";

type Hook<T> = Arc<dyn Fn(T) -> BoxFuture<'static, ()> + Send + Sync>;

/// A stream that has ended, as hooks of [`Builder::on_close`](crate::server::Builder::on_close) receive it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClosedConnection {
    /// The stream: id, endpoint, principal and address. It is no longer in the registry.
    pub connection: Connection,
    /// Why the stream ended, as in the log and in the counts.
    pub reason: CloseReason,
    /// Time from the admission to the end, as in the log.
    pub duration: Duration,
    /// How often the client was told of missed events (`hero.gap`) on this stream.
    pub gaps: u64,
}

/// The hooks, as the builder collects them.
#[derive(Clone, Default)]
pub(crate) struct HookList {
    open: Vec<Hook<Connection>>,
    close: Vec<Hook<ClosedConnection>>,
}

impl HookList {
    pub(crate) fn on_open<F, Fut>(&mut self, hook: F)
    where
        F: FnOnce(Connection) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        self.open.push(boxed(hook));
    }

    pub(crate) fn on_close<F, Fut>(&mut self, hook: F)
    where
        F: FnOnce(ClosedConnection) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        self.close.push(boxed(hook));
    }
}

fn boxed<T, F, Fut>(hook: F) -> Hook<T>
where
    T: Send + 'static,
    F: FnOnce(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    Arc::new(move |argument| {
        let hook = hook.clone();
        // Called inside the async block, so that a panic before its first await is caught as well.
        Box::pin(async move { hook(argument).await })
    })
}

/// The hooks and the calls that wait for them.
pub(super) struct Hooks {
    list: HookList,
    capacity: usize,
    state: Mutex<State>,
    /// Notified when no call waits or runs.
    idle: Notify,
    dropped: AtomicU64,
    log: HookLog,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Call>,
    /// The streams whose open call waits or runs.
    opening: HashMap<u64, Opening>,
    running: usize,
    /// The task that makes the calls. `None` while there are none.
    worker: Option<Option<Waker>>,
    /// Number of times that all calls were abandoned. A worker from before belongs to them.
    epoch: u64,
}

/// A call that waits.
enum Call {
    Open(Identity),
    Close(Closed),
}

/// What becomes a [`ClosedConnection`].
pub(super) struct Closed {
    pub(super) identity: Identity,
    pub(super) reason: CloseReason,
    pub(super) duration: Duration,
    pub(super) gaps: u64,
}

#[derive(Default)]
struct Opening {
    runs: bool,
    /// The stream has ended meanwhile.
    then: Option<Closed>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.opening.is_empty() && self.running == 0
    }

    /// Takes the next call to make.
    fn next(&mut self) -> Option<Call> {
        let call = self.waiting.pop_front()?;
        self.running += 1;
        if let Call::Open(identity) = &call
            && let Some(opening) = self.opening.get_mut(&identity.id)
        {
            opening.runs = true;
        }
        if self.waiting.is_empty() {
            // Releases the memory of a burst.
            self.waiting = VecDeque::new();
        }
        Some(call)
    }

    /// Records that a call has ended. `opened`: the stream whose open call it was.
    fn ended(&mut self, opened: Option<u64>) {
        self.running = self.running.saturating_sub(1);
        let opening = opened.and_then(|id| self.opening.remove(&id));
        self.waiting.extend(opening.and_then(|opening| opening.then).map(Call::Close));
    }
}

impl Hooks {
    /// Returns `None` without a hook. `max_connections`: so many calls may wait, since a shutdown ends all streams at
    /// once.
    pub(super) fn new(list: HookList, max_connections: usize) -> Option<Self> {
        let any = !list.open.is_empty() || !list.close.is_empty();
        any.then(|| Self {
            list,
            capacity: max_connections.max(MIN_CAPACITY),
            state: Mutex::default(),
            idle: Notify::new(),
            dropped: AtomicU64::default(),
            log: HookLog::default(),
        })
    }

    /// No code that can panic runs under the lock, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the calls are made: wakes the worker, or starts one on the first of these runtimes that still
    /// runs. A runtime that has ended drops it at once.
    fn make_calls(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        runtimes: impl IntoIterator<Item = Handle>,
    ) {
        for runtime in runtimes {
            let epoch = {
                let mut state = self.lock();
                if let Some(waker) = &state.worker {
                    let waker = waker.clone();
                    drop(state);
                    return waker.into_iter().for_each(Waker::wake);
                }
                if state.waiting.is_empty() {
                    return;
                }
                state.worker = Some(None);
                state.epoch
            };
            let (hooks, registry) = (self.clone(), registry.clone());
            let calls = FuturesUnordered::new();
            runtime.spawn(Worker { hooks, registry, epoch, calls, done: false });
        }
    }

    /// Records that a call has ended. `opened`: the stream whose open call it was.
    fn ended(&self, epoch: u64, opened: Option<u64>) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.ended(opened);
        }
    }

    /// Makes one call, for at most [`HOOK_TIMEOUT`].
    async fn make<T: Send>(
        &self,
        name: &'static str,
        hook: &Hook<T>,
        stream: &Connection,
        argument: T,
    ) {
        let called = Guarded(Some(Box::pin(async { hook(argument).await })));
        let called = AssertUnwindSafe(called).catch_unwind();
        let measured = stream.registry.timed(stream.endpoint(), Some(stream.id()), called);
        match timeout(HOOK_TIMEOUT, measured).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.log.panicked(stream.endpoint(), stream.id(), name),
            Err(_) => self.count_dropped(name, TIMEOUT, 1),
        }
    }

    /// Counts and logs calls that are not made, or not to their end.
    fn count_dropped(&self, hook: &'static str, cause: &'static str, calls: usize) {
        if calls > 0 {
            let calls = calls as u64;
            let total = self.dropped.fetch_add(calls, Ordering::Relaxed) + calls;
            self.log.dropped(hook, cause, calls, total);
        }
    }

    /// Drops all calls that wait or run.
    fn abandon(&self) {
        let mut state = self.lock();
        let epoch = state.epoch + 1;
        let State { waiting, opening, running, worker, .. } =
            mem::replace(&mut *state, State { epoch, ..State::default() });
        drop(state);
        // The worker drops its calls when it is polled. It may be unable to: a hook may block its thread.
        worker.flatten().into_iter().for_each(Waker::wake);
        let waiting_opens = waiting.iter().filter(|call| matches!(call, Call::Open(_))).count();
        let running_opens = opening.values().filter(|opening| opening.runs).count();
        let closes_after = opening.values().filter(|opening| opening.then.is_some()).count();
        let closes = waiting.len() - waiting_opens + running - running_opens + closes_after;
        self.count_dropped(OPEN, UNFINISHED, waiting_opens + running_opens);
        self.count_dropped(CLOSE, UNFINISHED, closes);
        self.idle.notify_waiters();
    }
}

impl Observer for Hooks {
    fn opened(self: Arc<Self>, registry: &Arc<Registry>, entry: &Entry) -> bool {
        if self.list.open.is_empty() {
            return true;
        }
        let identity = &entry.identity;
        {
            let mut state = self.lock();
            if state.waiting.len() >= self.capacity {
                drop(state);
                self.count_dropped(OPEN, FULL, 1);
                return false;
            }
            state.opening.insert(identity.id, Opening::default());
            state.waiting.push_back(Call::Open(identity.clone()));
        }
        self.make_calls(registry, entry.runtimes());
        true
    }

    fn closed(
        self: Arc<Self>,
        registry: &Arc<Registry>,
        entry: &Entry,
        reason: CloseReason,
        open_accepted: bool,
    ) {
        if self.list.close.is_empty() {
            return;
        }
        let has_open = !self.list.open.is_empty();
        let identity = entry.identity.clone();
        let (duration, gaps) = (entry.since.elapsed(), entry.gaps());
        let closed = Closed { identity, reason, duration, gaps };
        {
            let mut state = self.lock();
            // A close whose open was accepted always fits: so an application that counts both never counts wrong.
            let fits = if has_open { open_accepted } else { state.waiting.len() < self.capacity };
            if !fits {
                drop(state);
                return self.count_dropped(CLOSE, FULL, 1);
            }
            match state.opening.get_mut(&closed.identity.id) {
                Some(opening) => opening.then = Some(closed),
                None => state.waiting.push_back(Call::Close(closed)),
            }
        }
        self.make_calls(registry, entry.runtimes());
    }

    fn finish(
        self: Arc<Self>,
        registry: Arc<Registry>,
        until: Option<Instant>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                let mut idle = std::pin::pin!(self.idle.notified());
                // Before the check, so that no notification is lost.
                idle.as_mut().enable();
                if self.lock().is_idle() {
                    return;
                }
                self.make_calls(&registry, Handle::try_current());
                match until {
                    None => idle.await,
                    Some(until) if timeout_at(until, idle).await.is_ok() => {}
                    Some(_) => return self.abandon(),
                }
            }
        })
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // Nothing runs any more: a worker holds the hooks.
        if !self.lock().is_idle() {
            self.abandon();
        }
    }
}

/// The task that makes the calls, a few at a time. It ends when there are none: the next call may come from another
/// runtime.
struct Worker {
    hooks: Arc<Hooks>,
    registry: Arc<Registry>,
    epoch: u64,
    /// Each resolves to the stream whose open call it was.
    calls: FuturesUnordered<BoxFuture<'static, Option<u64>>>,
    done: bool,
}

impl Worker {
    /// Starts calls that wait. Returns whether the worker has something to do.
    fn start_calls(&mut self, cx: &Context<'_>) -> bool {
        loop {
            let call = {
                let mut state = self.hooks.lock();
                if state.epoch != self.epoch {
                    return false;
                }
                let call = (self.calls.len() < AT_A_TIME).then(|| state.next()).flatten();
                if call.is_none() {
                    let busy = !self.calls.is_empty();
                    state.worker = busy.then(|| Some(cx.waker().clone()));
                    return busy;
                }
                call
            };
            self.calls.extend(call.map(|call| self.call(call)));
        }
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Option<u64>> {
        let (hooks, registry) = (self.hooks.clone(), self.registry.clone());
        match call {
            Call::Open(identity) => Box::pin(async move {
                let connection = Connection::new(identity, registry);
                for hook in &hooks.list.open {
                    hooks.make(OPEN, hook, &connection, connection.clone()).await;
                }
                Some(connection.id())
            }),
            Call::Close(Closed { identity, reason, duration, gaps }) => Box::pin(async move {
                let connection = Connection::new(identity, registry);
                let closed = ClosedConnection { connection, reason, duration, gaps };
                for hook in &hooks.list.close {
                    hooks.make(CLOSE, hook, &closed.connection, closed.clone()).await;
                }
                None
            }),
        }
    }
}

impl Future for Worker {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..IN_A_ROW {
            if !this.start_calls(cx) {
                this.done = true;
                this.calls.clear();
                this.hooks.idle.notify_waiters();
                return Poll::Ready(());
            }
            match this.calls.poll_next_unpin(cx) {
                Poll::Ready(opened) => this.hooks.ended(this.epoch, opened.flatten()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Worker {
    /// Its runtime has ended. Calls that wait are left to the next worker.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let calls = mem::take(&mut self.calls);
        let mut state = self.hooks.lock();
        if state.epoch != self.epoch {
            return;
        }
        let running = mem::take(&mut state.running);
        state.worker = None;
        let opens: Vec<_> = state.opening.extract_if(|_, opening| opening.runs).collect();
        let running_opens = opens.len();
        let then = opens.into_iter().filter_map(|(_, opening)| opening.then);
        state.waiting.extend(then.map(Call::Close));
        drop(state);
        drop(calls);
        self.hooks.count_dropped(OPEN, UNFINISHED, running_opens);
        self.hooks.count_dropped(CLOSE, UNFINISHED, running - running_opens);
        self.hooks.idle.notify_waiters();
    }
}

/// A call of user code, whose drop may panic as well.
struct Guarded<'a>(Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>);

impl Future for Guarded<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Ready(()), |call| call.as_mut().poll(cx))
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        let call = self.0.take();
        // The panic hook has printed the panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(call)));
    }
}
