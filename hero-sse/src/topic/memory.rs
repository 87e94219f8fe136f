//! The broker of a single process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::future::BoxFuture;
use slab::Slab;

use super::broker::{Broker, BrokerError, Log, LogReplica, Record, WakeOnDrop};
use super::position::Epoch;

/// With fewer logs than this, the broker does not look for unneeded ones.
const MIN_LOGS_TO_SWEEP: usize = 64;

/// A [`Broker`] within one process: [`Topic`](crate::Topic)s [opened](crate::topic::TopicBuilder::open) on it by the same
/// name share one log.
///
/// Use it to test what runs on several nodes in production, or to share topics between several [`HeroSse`](crate::HeroSse)
/// in one process. A single topic needs no broker.
///
/// ```
/// use hero_sse::prelude::*;
/// use hero_sse::topic::MemoryBroker;
/// # use serde::Serialize;
/// # #[derive(Serialize, SseEvent)]
/// # struct Order { id: u64 }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MemoryBroker::new();
/// let one: Topic<Order> = Topic::builder("orders").open(&broker).await?;
/// let other: Topic<Order> = Topic::builder("orders").open(&broker).await?;
/// one.publish(Order { id: 7 }).await?;
/// assert_eq!(other.len(), 1);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
///
/// # Memory
///
/// A log retains as much as the topic with the largest retention, and each topic has a copy besides. A log stays while it
/// is open, and afterwards while it retains events. With [`retain_for`](crate::topic::TopicBuilder::retain_for) `None`, that is
/// until [`drop_log`](Self::drop_log).
///
/// # Details
///
/// Clones share one broker. Appending is ready at the first poll, and fails only after the log has ended. Events keep their
/// values: nothing is decoded, but filters and snapshots only see the events of topics with the same event type.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    logs: Arc<Mutex<Logs>>,
}

#[derive(Default)]
struct Logs {
    named: HashMap<Box<str>, Arc<Mutex<SharedLog>>>,
    /// With this many logs, the broker looks for unneeded ones.
    sweep_at: usize,
}

/// One log: the retained events, and the replicas that are open on it.
struct SharedLog {
    epoch: Epoch,
    retained: LogReplica,
    replicas: Slab<LogReplica>,
}

impl MemoryBroker {
    /// Returns a broker without any logs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Drops a log, as a broker without a disk does when it restarts: a new epoch starts without events.
    ///
    /// Subscribers learn that they may have missed events. A log that has ended can be appended to again.
    pub fn drop_log(&self, topic: &str) {
        let mut logs = lock(&self.logs);
        let Some(log) = logs.named.get(topic).cloned() else { return };
        if lock(&log).replicas.is_empty() {
            logs.named.remove(topic);
            return;
        }
        drop(logs);
        let mut shared = lock(&log);
        shared.epoch = Epoch::random();
        let SharedLog { epoch, retained, replicas } = &*shared;
        let all = std::iter::once(retained).chain(replicas.iter().map(|(_, replica)| replica));
        let wakes: Vec<_> = all.map(|replica| replica.start_epoch(*epoch, 1)).collect();
        drop(shared);
        drop(wakes);
    }
}

impl Broker for MemoryBroker {
    fn open<'a>(
        &'a self,
        topic: &'a str,
        replica: LogReplica,
    ) -> BoxFuture<'a, Result<Box<dyn Log>, BrokerError>> {
        Box::pin(async move {
            let mut logs = lock(&self.logs);
            logs.sweep();
            let make = || Arc::new(Mutex::new(SharedLog::new(topic, &replica)));
            let log = logs.named.entry(topic.into()).or_insert_with(make).clone();
            let mut shared = lock(&log);
            drop(logs);
            let wakes = shared.fill(&replica);
            let key = shared.replicas.insert(replica);
            drop(shared);
            drop(wakes);
            Ok(Box::new(OpenLog { log, key }) as Box<dyn Log>)
        })
    }
}

impl Logs {
    /// Removes logs that are not open and retain nothing.
    fn sweep(&mut self) {
        if self.named.len() < self.sweep_at.max(MIN_LOGS_TO_SWEEP) {
            return;
        }
        self.named.retain(|_, log| {
            let shared = lock(log);
            shared.retained.expire();
            !shared.replicas.is_empty() || shared.retained.ring().len().0 > 0
        });
        self.sweep_at = self.named.len() * 2;
    }
}

impl SharedLog {
    fn new(topic: &str, replica: &LogReplica) -> Self {
        let epoch = Epoch::random();
        // Its own ids are never sent: events are copied without them.
        let retained = LogReplica::new(topic, replica.retention(), replica.is_latest(), None, None);
        Self { epoch, retained, replicas: Slab::new() }
    }

    /// Gives a replica the retained events.
    fn fill(&self, replica: &LogReplica) -> Vec<WakeOnDrop> {
        self.retained.ring().widen(replica.retention());
        self.retained.expire();
        let (entries, offsets) = self.retained.ring().retained();
        let mut wakes = vec![replica.start_epoch(self.epoch, offsets.start)];
        if self.retained.is_latest() && replica.is_latest() {
            for entry in &entries {
                wakes.push(replica.skip_to(entry.offset));
                wakes.push(replica.push(entry.offset, vec![Record::of_entry(entry)]));
            }
        } else {
            // A log of latest values has holes. A replica of all events gets those after the last hole.
            let whole = entries.chunk_by(|one, next| one.offset + 1 == next.offset).last();
            let whole = whole.unwrap_or_default();
            let first = whole.first().map_or(offsets.end, |entry| entry.offset);
            let records = whole.iter().map(|entry| Record::of_entry(entry)).collect();
            wakes.push(replica.skip_to(first));
            wakes.push(replica.push(first, records));
        }
        wakes
    }
}

/// A log as one topic has it open.
struct OpenLog {
    log: Arc<Mutex<SharedLog>>,
    /// The topic's replica.
    key: usize,
}

impl Log for OpenLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>> {
        Box::pin(async move {
            let shared = lock(&self.log);
            let first = shared.retained.next_offset();
            let appended = shared.retained.append(records.clone());
            let (last, wake) = appended.ok_or(BrokerError::Closed)?;
            let replicas = shared.replicas.iter();
            let wakes: Vec<_> =
                replicas.map(|(_, replica)| replica.push(first, records.clone())).collect();
            drop(shared);
            // Readers are woken without a lock.
            drop((wakes, wake));
            Ok(last)
        })
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        let replica = lock(&self.log).replicas.try_remove(self.key);
        drop(replica);
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

    fn replica(events: usize, age: u64, latest: bool) -> LogReplica {
        let age = Some(Duration::from_secs(age));
        LogReplica::new("log", Retention { events, bytes: 1 << 20, age }, latest, None, None)
    }

    fn open(broker: &MemoryBroker, name: &str, replica: &LogReplica) -> Box<dyn Log> {
        let opened = broker.open(name, replica.clone()).now_or_never().expect("at once");
        opened.expect("opened")
    }

    fn append(log: &dyn Log, keys: impl IntoIterator<Item = usize>) -> u64 {
        let body = || "data: {}\n\n".into();
        let records = keys.into_iter().map(|key| Record::new(body(), Some(key.to_string()), false));
        let appended = log.append(records.collect()).now_or_never().expect("at once");
        appended.expect("appended")
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_stays_while_it_is_open_or_retains_events() {
        let broker = MemoryBroker::new();
        let logs = || lock(&broker.logs).named.len();
        let open_one = replica(9, 60, false);
        let log = open(&broker, "open", &open_one);
        for n in 0..MIN_LOGS_TO_SWEEP * 10 {
            let name = n.to_string();
            let log = open(&broker, &name, &replica(9, 60, false));
            append(&*log, if n % 2 == 0 { 0..0 } else { 0..3 });
        }
        assert!((MIN_LOGS_TO_SWEEP * 5..MIN_LOGS_TO_SWEEP * 9).contains(&logs()), "{}", logs());
        advance(Duration::from_secs(61)).await;
        for n in 0..MIN_LOGS_TO_SWEEP * 10 {
            drop(open(&broker, &format!("other {n}"), &replica(9, 60, false)));
        }
        assert!(logs() < MIN_LOGS_TO_SWEEP * 9, "{}", logs());
        let old = lock(&broker.logs).named.keys().filter(|name| !name.starts_with("other")).count();
        assert_eq!(old, 1, "the open one");
        assert_eq!(append(&*log, [1]), 1);
        let again = replica(9, 60, false);
        let _again = open(&broker, "open", &again);
        assert_eq!((open_one.next_offset(), again.next_offset()), (2, 2), "one log");
        broker.drop_log("7");
        broker.drop_log("no such log");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_opener_gets_no_event_that_is_too_old() {
        let broker = MemoryBroker::new();
        let log = open(&broker, "log", &replica(9, 60, false));
        append(&*log, 0..3);
        advance(Duration::from_secs(40)).await;
        append(&*log, 3..5);
        advance(Duration::from_secs(40)).await;
        let late = replica(9, 60, false);
        let _log = open(&broker, "log", &late);
        assert_eq!((late.ring().len().0, late.next_offset()), (2, 6));
    }

    /// The log retains as much as the largest of its replicas, and each replica gets its own share of that.
    #[tokio::test(start_paused = true)]
    async fn each_replica_gets_what_it_retains() {
        for latest in [false, true] {
            let broker = MemoryBroker::new();
            let first = replica(3, 60, latest);
            let log = open(&broker, "log", &first);
            append(&*log, 0..5);
            let wide = replica(10, 60, latest);
            let other = open(&broker, "log", &wide);
            assert_eq!(wide.ring().len().0, 3);
            append(&*other, 5..20);
            append(&*log, [10, 19, 19]);
            for (retained, of_latest) in [(20, latest), (4, latest), (20, !latest), (1, !latest)] {
                let late = replica(retained, 60, of_latest);
                let log = open(&broker, "log", &late);
                assert_eq!(late.next_offset(), 24);
                let (entries, _) = late.ring().retained();
                let offsets: Vec<_> = entries.iter().map(|entry| entry.offset).collect();
                let wanted: Vec<u64> = match (retained, latest, of_latest) {
                    (20, false, false) => (14..24).collect(),
                    (20, true, true) => [12, 13, 14, 15, 16, 17, 18, 19, 21, 23].into(),
                    _ => offsets.clone(),
                };
                assert!(offsets.ends_with(&wanted) || !of_latest, "{offsets:?}");
                assert!(offsets.len() <= retained && offsets.last() == Some(&23), "{offsets:?}");
                drop(log);
            }
            assert_eq!((first.next_offset(), wide.next_offset()), (24, 24));
        }
    }

    /// A waker may use the broker.
    #[tokio::test(start_paused = true)]
    async fn readers_are_woken_without_a_lock() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::task::{Context, Wake, Waker};

        use super::super::ring::Cursor;

        struct UsesBroker(MemoryBroker, AtomicBool);
        impl Wake for UsesBroker {
            fn wake(self: Arc<Self>) {
                let logs = self.0.logs.try_lock().expect("no lock is held");
                assert!(logs.named.values().all(|log| log.try_lock().is_ok()));
                self.1.store(true, Ordering::Relaxed);
            }
        }
        let broker = MemoryBroker::new();
        let replica = replica(3, 60, false);
        let log = open(&broker, "log", &replica);
        let mut cursor = Cursor::new(replica.ring());
        let mut woken = async |what: &dyn Fn()| {
            while cursor.poll(&Context::from_waker(noop_waker_ref()), None).is_ready() {
                cursor.skip_to_end();
            }
            let waiting = Arc::new(UsesBroker(broker.clone(), AtomicBool::new(false)));
            let waker = Waker::from(waiting.clone());
            assert!(cursor.poll(&Context::from_waker(&waker), None).is_pending());
            what();
            assert!(waiting.1.load(Ordering::Relaxed));
        };
        woken(&|| _ = append(&*log, [1])).await;
        woken(&|| broker.drop_log("log")).await;
        // Opening a log wakes no other reader.
        drop(open(&broker, "log", &replica));
    }
}
