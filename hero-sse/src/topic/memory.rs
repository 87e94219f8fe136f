//! The broker that lives in this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::future::BoxFuture;
use slab::Slab;

use super::broker::{Broker, BrokerError, Log, Pushed, Record, Window};
use super::position::Epoch;

/// So many logs are kept before it is asked which of them nobody needs.
const FEW: usize = 64;

/// A broker within one process: several [`Topic`](crate::Topic)s that are [opened](crate::TopicBuilder::open) on it by
/// the same name are one log, as on several nodes. For tests of what runs on several nodes in production, and for several
/// kits in one process. A topic alone needs none.
///
/// ```
/// use hero_sse::{MemoryBroker, Topic};
/// # use hero_sse::prelude::*;
/// # #[derive(Serialize, SseEvent)]
/// # struct Order { id: u64 }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MemoryBroker::new();
/// let one: Topic<Order> = Topic::builder("orders").open(&broker).await?;
/// let other: Topic<Order> = Topic::builder("orders").open(&broker).await?;
/// let position = one.publish(Order { id: 7 }).await?;
/// assert_eq!(other.len(), 1);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
///
/// It keeps as much of a log as the topic that keeps most; each topic has its own copy besides. A log is kept while it is
/// open, and afterwards as long as something of it is: with [`keep_for`](crate::TopicBuilder::keep_for) `None` that is
/// until it is [lost](Self::lose). Events of other topics come with their values: nothing is decoded, and the topics of one
/// name must be of one type for filters and states to see them.
///
/// Clones are one broker. Appending is ready at once, and never waits; it does not fail either, but after the end.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    logs: Arc<Mutex<Logs>>,
}

#[derive(Default)]
struct Logs {
    named: HashMap<Box<str>, Arc<Mutex<Kept>>>,
    /// So many are looked through for those that nobody needs.
    many: usize,
}

/// One log: what is kept, and the windows that are open on it.
struct Kept {
    epoch: Epoch,
    own: Window,
    windows: Slab<Window>,
}

impl MemoryBroker {
    /// One without any logs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses a log, as a broker does that has no disk and is started anew: a new epoch begins, without events. Those who
    /// follow learn that they may have missed something. A log that has ended can be appended to again.
    pub fn lose(&self, topic: &str) {
        let mut logs = lock(&self.logs);
        let Some(log) = logs.named.get(topic).cloned() else { return };
        if lock(&log).windows.is_empty() {
            logs.named.remove(topic);
            return;
        }
        drop(logs);
        let mut kept = lock(&log);
        kept.epoch = Epoch::random();
        let Kept { epoch, own, windows } = &*kept;
        let windows = std::iter::once(own).chain(windows.iter().map(|(_, window)| window));
        let begun: Vec<_> = windows.map(|window| window.begin(*epoch, 1)).collect();
        drop(kept);
        drop(begun);
    }
}

impl Broker for MemoryBroker {
    fn open<'a>(
        &'a self,
        topic: &'a str,
        window: Window,
    ) -> BoxFuture<'a, Result<Box<dyn Log>, BrokerError>> {
        Box::pin(async move {
            let mut logs = lock(&self.logs);
            logs.forget_unneeded();
            let log = logs.named.entry(topic.into());
            let log =
                log.or_insert_with(|| Arc::new(Mutex::new(Kept::like(topic, &window)))).clone();
            let mut kept = lock(&log);
            drop(logs);
            let pushed = kept.fill(&window);
            let seat = kept.windows.insert(window);
            drop(kept);
            drop(pushed);
            Ok(Box::new(Open { log, seat }) as Box<dyn Log>)
        })
    }
}

impl Logs {
    fn forget_unneeded(&mut self) {
        if self.named.len() < self.many.max(FEW) {
            return;
        }
        self.named.retain(|_, log| {
            let kept = lock(log);
            kept.own.expire();
            !kept.windows.is_empty() || kept.own.ring().kept().0 > 0
        });
        self.many = self.named.len() * 2;
    }
}

impl Kept {
    fn like(topic: &str, window: &Window) -> Self {
        let epoch = Epoch::random();
        let own = Window::new(topic, window.keep(), window.is_latest(), None, None);
        drop(own.begin(epoch, 1));
        Self { epoch, own, windows: Slab::new() }
    }

    /// Gives a window what is kept.
    fn fill(&self, window: &Window) -> Vec<Pushed> {
        self.own.ring().widen(window.keep().keep());
        self.own.expire();
        let (entries, next) = self.own.ring().all();
        let first = entries.first().map_or(next, |entry| entry.offset);
        let mut pushed = vec![window.begin(self.epoch, first)];
        if self.own.is_latest() && window.is_latest() {
            for entry in &entries {
                pushed.push(window.skip(entry.offset));
                pushed.push(window.push(entry.offset, vec![Record::again(entry)]));
            }
        } else {
            // Between what is kept of the latest there are others; a window of all has what is whole.
            let whole = entries.chunk_by(|one, next| one.offset + 1 == next.offset).last();
            let whole = whole.filter(|whole| whole.last().is_some_and(|e| e.offset + 1 == next));
            let whole = whole.unwrap_or_default();
            let first = whole.first().map_or(next, |entry| entry.offset);
            let records = whole.iter().map(|entry| Record::again(entry)).collect();
            pushed.push(window.skip(first));
            pushed.push(window.push(first, records));
        }
        pushed.push(window.skip(next));
        pushed
    }
}

/// A log as one topic has it open.
struct Open {
    log: Arc<Mutex<Kept>>,
    seat: usize,
}

impl Log for Open {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>> {
        Box::pin(async move {
            let kept = lock(&self.log);
            let first = kept.own.next();
            let (last, own) = kept.own.append(records.clone()).ok_or(BrokerError::Closed)?;
            let windows = kept.windows.iter();
            let pushed: Vec<_> =
                windows.map(|(_, window)| window.push(first, records.clone())).collect();
            drop(kept);
            // Readers are woken when no lock is held.
            drop((pushed, own));
            Ok(last)
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let window = lock(&self.log).windows.try_remove(self.seat);
        drop(window);
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").field("logs", &lock(&self.logs).named.len()).finish()
    }
}

fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
