//! The broker that lives in this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::future::BoxFuture;
use slab::Slab;

use super::broker::{Broker, BrokerError, Log, LogReplica, Record, WakeOnDrop};
use super::position::Epoch;

/// So many logs are kept before it is asked which of them nobody needs.
const FEW: usize = 64;

/// A broker within one process: several [`Topic`](crate::Topic)s that are [opened](crate::topic::TopicBuilder::open) on it by
/// the same name are one log, as on several nodes. For tests of what runs on several nodes in production, and for several
/// kits in one process. A topic alone needs none.
///
/// ```
/// use hero_sse::Topic;
/// use hero_sse::topic::MemoryBroker;
/// # use hero_sse::prelude::*;
/// # use serde::Serialize;
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
/// open, and afterwards as long as something of it is: with [`retain_for`](crate::topic::TopicBuilder::retain_for) `None` that is
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
    own: LogReplica,
    windows: Slab<LogReplica>,
}

impl MemoryBroker {
    /// One without any logs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses a log, as a broker does that has no disk and is started anew: a new epoch begins, without events. Those who
    /// follow learn that they may have missed something. A log that has ended can be appended to again.
    pub fn drop_log(&self, topic: &str) {
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
        window: LogReplica,
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
    fn like(topic: &str, window: &LogReplica) -> Self {
        let epoch = Epoch::random();
        // Its ids are nobody's: what is kept leaves without them.
        let own = LogReplica::new(topic, window.keep(), window.is_latest(), None, None);
        Self { epoch, own, windows: Slab::new() }
    }

    /// Gives a window what is kept.
    fn fill(&self, window: &LogReplica) -> Vec<WakeOnDrop> {
        self.own.ring().widen(window.keep().keep());
        self.own.expire();
        let (entries, kept) = self.own.ring().all();
        let mut pushed = vec![window.begin(self.epoch, kept.start)];
        if self.own.is_latest() && window.is_latest() {
            for entry in &entries {
                pushed.push(window.skip(entry.offset));
                pushed.push(window.push(entry.offset, vec![Record::again(entry)]));
            }
        } else {
            // Between what is kept of the latest there are others; a window of all has what is whole.
            let whole = entries.chunk_by(|one, next| one.offset + 1 == next.offset).last();
            let whole = whole.unwrap_or_default();
            let first = whole.first().map_or(kept.end, |entry| entry.offset);
            let records = whole.iter().map(|entry| Record::again(entry)).collect();
            pushed.push(window.skip(first));
            pushed.push(window.push(first, records));
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::task::noop_waker_ref;
    use tokio::time::advance;

    use super::super::broker::Retention;
    use super::*;

    fn window(keep: usize, age: u64, latest: bool) -> LogReplica {
        let age = Some(Duration::from_secs(age));
        LogReplica::new("log", Retention { events: keep, bytes: 1 << 20, age }, latest, None, None)
    }

    fn open(broker: &MemoryBroker, name: &str, window: &LogReplica) -> Box<dyn Log> {
        let opened = broker.open(name, window.clone()).now_or_never().expect("at once");
        opened.expect("opened")
    }

    fn append(log: &dyn Log, keys: impl IntoIterator<Item = usize>) -> u64 {
        let body = || "data: {}\n\n".into();
        let records = keys.into_iter().map(|key| Record::new(body(), Some(key.to_string()), false));
        let appended = log.append(records.collect()).now_or_never().expect("at once");
        appended.expect("appended")
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_is_kept_while_it_is_open_or_something_of_it_is_kept() {
        let broker = MemoryBroker::new();
        let logs = || lock(&broker.logs).named.len();
        let open_one = window(9, 60, false);
        let log = open(&broker, "open", &open_one);
        for n in 0..FEW * 10 {
            let name = n.to_string();
            let log = open(&broker, &name, &window(9, 60, false));
            append(&*log, if n % 2 == 0 { 0..0 } else { 0..3 });
        }
        assert!((FEW * 5..FEW * 9).contains(&logs()), "{}", logs());
        advance(Duration::from_secs(61)).await;
        for n in 0..FEW * 10 {
            drop(open(&broker, &format!("other {n}"), &window(9, 60, false)));
        }
        assert!(logs() < FEW * 9, "{}", logs());
        let old = lock(&broker.logs).named.keys().filter(|name| !name.starts_with("other")).count();
        assert_eq!(old, 1, "the open one");
        assert_eq!(append(&*log, [1]), 1);
        let again = window(9, 60, false);
        let _again = open(&broker, "open", &again);
        assert_eq!((open_one.next(), again.next()), (2, 2), "one log");
        broker.drop_log("7");
        broker.drop_log("no such log");
    }

    #[tokio::test(start_paused = true)]
    async fn who_opens_late_gets_nothing_that_is_too_old() {
        let broker = MemoryBroker::new();
        let log = open(&broker, "log", &window(9, 60, false));
        append(&*log, 0..3);
        advance(Duration::from_secs(40)).await;
        append(&*log, 3..5);
        advance(Duration::from_secs(40)).await;
        let late = window(9, 60, false);
        let _log = open(&broker, "log", &late);
        assert_eq!((late.ring().kept().0, late.next()), (2, 6));
    }

    /// The widest decides, and each has its own share; of the latest, and beside it, too.
    #[tokio::test(start_paused = true)]
    async fn each_window_gets_what_it_keeps() {
        for latest in [false, true] {
            let broker = MemoryBroker::new();
            let first = window(3, 60, latest);
            let log = open(&broker, "log", &first);
            append(&*log, 0..5);
            let wide = window(10, 60, latest);
            let other = open(&broker, "log", &wide);
            assert_eq!(wide.ring().kept().0, 3);
            append(&*other, 5..20);
            append(&*log, [10, 19, 19]);
            for (keep, of_latest) in [(20, latest), (4, latest), (20, !latest), (1, !latest)] {
                let late = window(keep, 60, of_latest);
                let log = open(&broker, "log", &late);
                assert_eq!(late.next(), 24);
                let (entries, _) = late.ring().all();
                let offsets: Vec<_> = entries.iter().map(|entry| entry.offset).collect();
                let wanted: Vec<u64> = match (keep, latest, of_latest) {
                    (20, false, false) => (14..24).collect(),
                    (20, true, true) => [12, 13, 14, 15, 16, 17, 18, 19, 21, 23].into(),
                    _ => offsets.clone(),
                };
                assert!(offsets.ends_with(&wanted) || !of_latest, "{offsets:?}");
                assert!(offsets.len() <= keep && offsets.last() == Some(&23), "{offsets:?}");
                drop(log);
            }
            assert_eq!((first.next(), wide.next()), (24, 24));
        }
    }

    /// Whoever is woken may use the broker at once.
    #[tokio::test(start_paused = true)]
    async fn nobody_is_woken_under_a_lock() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::task::{Context, Wake, Waker};

        use super::super::ring::Cursor;

        struct Asks(MemoryBroker, AtomicBool);
        impl Wake for Asks {
            fn wake(self: Arc<Self>) {
                let logs = self.0.logs.try_lock().expect("no lock is held");
                assert!(logs.named.values().all(|log| log.try_lock().is_ok()));
                self.1.store(true, Ordering::Relaxed);
            }
        }
        let broker = MemoryBroker::new();
        let window = window(3, 60, false);
        let log = open(&broker, "log", &window);
        let mut cursor = Cursor::new(window.ring());
        let mut woken = async |what: &dyn Fn()| {
            while cursor.poll(&Context::from_waker(noop_waker_ref()), None).is_ready() {
                cursor.skip();
            }
            let asks = Arc::new(Asks(broker.clone(), AtomicBool::new(false)));
            let waker = Waker::from(asks.clone());
            assert!(cursor.poll(&Context::from_waker(&waker), None).is_pending());
            what();
            assert!(asks.1.load(Ordering::Relaxed));
        };
        woken(&|| _ = append(&*log, [1])).await;
        woken(&|| broker.drop_log("log")).await;
        // Opening tells nobody else.
        drop(open(&broker, "log", &window));
    }
}
