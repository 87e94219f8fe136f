//! Where the events of topics are kept: the `Broker` trait, and one node's replica of a log.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::position::{Epoch, EpochIds};
pub use super::ring::Retention;
use super::ring::{Entry, LogEpoch, Ring, Snapshot, Value, WakeReaders};
use crate::frame::{data_of, has_data, name_of, write_id};
use crate::telemetry;

/// Keeps the logs of topics, for one node or for many.
///
/// [`MemoryBroker`](crate::topic::MemoryBroker) is the one for a single process. Implement this trait to share topics
/// between processes, and check the implementation with
/// [`testing::broker_contract`](crate::testing::broker_contract).
///
/// # Order
///
/// * All events of a log have one order, the same on every node.
/// * Offsets count up from 1 without holes within an epoch. None is used twice.
/// * An appended event reaches the [`LogReplica`] of every open log of that name, on every node, the appending one
///   included: in that order, once, and no later than the next event. `append` may return before or after.
///
/// # Epochs
///
/// An [`Epoch`] lasts until the log is lost. All nodes have the same one, because ids are made from it and the topic's
/// name: an id of one node is valid on the others. It is stored with the log, and is a secret. When the log is lost, start
/// a new one ([`LogReplica::start_epoch`]). Clients then learn that they may have missed events.
///
/// # Opening a log
///
/// Before `open` returns, the replica is given the epoch and the retained events, as far as its
/// [retention](LogReplica::retention) goes: the newest events, or, for a topic of [latest values](LogReplica::is_latest),
/// the newest of each name and key. A log that has ended can be opened as well. Its last event is always retained.
///
/// # Failures
///
/// A broker reconnects by itself, with growing pauses. Meanwhile the replicas stay as they are, their readers wait, and
/// `append` returns [`BrokerError::Failed`] rather than wait without a bound. After the reconnect, the broker pushes what
/// was appended meanwhile. If some events are lost, it continues with the next one at its own offset. Readers then learn
/// which events they missed.
///
/// # Threads
///
/// One thread at a time feeds a replica. Feeding may run user code: a [`snapshot`](crate::topic::TopicBuilder::snapshot)'s
/// `apply`, and [`decode`](crate::topic::TopicBuilder::decode). Both are guarded against panics, and must not use the topic.
pub trait Broker: Send + Sync + 'static {
    /// Opens the log of a topic, and creates it if there is none.
    ///
    /// The `replica` is fed until the returned log is dropped. If the future is dropped, the log is not open.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Failed`] when the broker cannot be reached. A log that has ended is no error.
    fn open<'a>(
        &'a self,
        topic: &'a str,
        replica: LogReplica,
    ) -> BoxFuture<'a, Result<Box<dyn Log>, BrokerError>>;
}

/// An open log of a [`Broker`].
pub trait Log: Send + Sync + 'static {
    /// Appends all these events next to each other, or none of them. Returns the offset of the last.
    ///
    /// Events after one that [ends](Record::is_last) the log are left out. Several appends may run at the same time. If the
    /// future is dropped, all events are appended or none.
    ///
    /// # Errors
    ///
    /// * [`BrokerError::Closed`] when the log has ended, on whichever node.
    /// * [`BrokerError::Failed`] when no answer came. The events may have been appended: do not retry, unless the broker
    ///   knows that they were not.
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>>;
}

/// Why a [`Broker`] did not open a log, or append to one.
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerError {
    /// The log has ended.
    Closed,
    /// The broker's own error. The events may have been appended, unless it says otherwise.
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the topic has ended"),
            Self::Failed(error) => write!(f, "the broker failed: {error}"),
        }
    }
}

impl std::error::Error for BrokerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Closed => None,
            Self::Failed(error) => Some(&**error),
        }
    }
}

/// One event as a [`Broker`] stores it.
#[derive(Clone)]
pub struct Record {
    body: Bytes,
    key: Option<Box<str>>,
    last: bool,
    pub(super) value: Option<Value>,
}

impl Record {
    /// Returns a stored record. `body` must be what [`body`](Self::body) returned, byte for byte.
    pub fn new(body: Bytes, key: Option<String>, last: bool) -> Self {
        Self { body, key: key.map(Into::into), last, value: None }
    }

    pub(super) fn of(body: Bytes, key: Option<String>, last: bool, value: Value) -> Self {
        Self { value: Some(value), ..Self::new(body, key, last) }
    }

    /// Returns the record of an event that was appended in this process.
    pub(super) fn of_entry(entry: &Entry) -> Self {
        let Entry { frame, body, key, last, value, .. } = entry;
        let body = frame.slice((*body).min(frame.len())..);
        Self { body, key: key.clone(), last: *last, value: value.clone() }
    }

    /// Encodes the event at its offset.
    fn into_entry(self, ids: &EpochIds, offset: u64, at: Duration) -> Entry {
        let Self { body, key, last, value } = self;
        let mut frame = BytesMut::with_capacity(body.len() + 48);
        write_id(&mut frame, ids.position(offset).as_str(), last);
        let id = frame.len();
        frame.put_slice(&body);
        let name = name_of(&body).map(Into::into);
        let (frame, has_data) = (frame.freeze(), has_data(&body));
        Entry { offset, frame, body: id, has_data, name, key, last, value, at }
    }

    /// Returns the event as it goes over the wire, without its id.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the event's [key](crate::SseEvent::key).
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns whether the event ends the log.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, key, last, .. } = self;
        f.debug_struct("Record")
            .field("bytes", &body.len())
            .field("key", key)
            .field("last", last)
            .finish()
    }
}

/// One node's copy of a topic's log: the newest events, encoded for the wire, and their readers.
///
/// A [`Broker`] feeds it. Clones share one replica.
#[derive(Clone)]
pub struct LogReplica(Arc<Inner>);

struct Inner {
    topic: Box<str>,
    retention: Retention,
    ring: Arc<Ring>,
    /// The time from which the ages of events are counted.
    created: Instant,
    decode: Option<Decode>,
    /// Whether an event could not be decoded. That is logged once.
    failed_to_decode: AtomicBool,
}

/// Makes an event from its name and data.
pub(crate) type Decode = Box<dyn Fn(&str, &str) -> Option<Value> + Send + Sync>;

/// Wakes subscribers on drop. Release locks first.
#[must_use = "readers wake when it is dropped: release locks first"]
pub struct WakeOnDrop {
    _wake: Option<WakeReaders>,
}

impl LogReplica {
    pub(crate) fn new(
        topic: &str,
        retention: Retention,
        latest: bool,
        snapshot: Option<Box<dyn Snapshot>>,
        decode: Option<Decode>,
    ) -> Self {
        let ids = EpochIds::new(topic, Epoch::random());
        Self(Arc::new(Inner {
            topic: topic.into(),
            retention,
            ring: Ring::new(retention, latest, snapshot, ids),
            created: Instant::now(),
            decode,
            failed_to_decode: AtomicBool::new(false),
        }))
    }

    /// Returns whether it retains only the newest event of each name and key.
    pub fn is_latest(&self) -> bool {
        self.0.ring.is_latest()
    }

    /// Returns how much of the log it retains.
    pub fn retention(&self) -> Retention {
        self.0.retention
    }

    /// Starts a new epoch, and evicts all events of the earlier one. The next event has the offset `next`, at least 1.
    ///
    /// All readers learn that they may have missed events. So does a client that reconnects with an id before `next`. For
    /// events that newer values replaced, call [`skip_to`](Self::skip_to) instead. A topic that was closed on this node
    /// stays closed.
    pub fn start_epoch(&self, epoch: Epoch, next: u64) -> WakeOnDrop {
        let ids = EpochIds::new(&self.0.topic, epoch);
        WakeOnDrop { _wake: Some(self.0.ring.start_epoch(ids, next)) }
    }

    /// Returns the offset of the next event.
    pub fn next_offset(&self) -> u64 {
        self.0.ring.next()
    }

    /// Continues at the offset `next`, unless the replica is already there.
    ///
    /// In a replica of [latest values](Self::is_latest), newer events have replaced those in between. In any other, those
    /// in between are lost, and readers get a gap.
    pub fn skip_to(&self, next: u64) -> WakeOnDrop {
        WakeOnDrop { _wake: self.0.ring.skip(next) }
    }

    /// Adds events, the first of which has the offset `offset`.
    ///
    /// Events that are already there are ignored. If events before `offset` are missing, readers get a gap. After a last
    /// event, or when the topic was closed on this node, nothing is added. A replica never holds more than its retention,
    /// however much is pushed.
    pub fn push(&self, offset: u64, mut records: Vec<Record>) -> WakeOnDrop {
        let at = self.0.created.elapsed();
        records.iter_mut().for_each(|record| self.decode(record));
        let make = |ids: &EpochIds, offset, record: Record| record.into_entry(ids, offset, at);
        WakeOnDrop { _wake: self.0.ring.feed(offset, records, make) }
    }

    /// Appends events, and returns the offset of the last. This replica must be the only one of its log.
    pub(super) fn append(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> Option<(u64, WakeReaders)> {
        let at = self.0.created.elapsed();
        self.0.ring.append(records, |ids, offset, record| record.into_entry(ids, offset, at))
    }

    pub(super) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(super) fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
    }

    /// Finds the value of an event that another node published.
    fn decode(&self, record: &mut Record) {
        if record.value.is_some() {
            return;
        }
        let body = str::from_utf8(&record.body).unwrap_or_default();
        let name = name_of(&record.body).and_then(|name| str::from_utf8(name).ok());
        record.value = self.0.decode.as_ref().and_then(|decode| {
            let decoded = AssertUnwindSafe(|| decode(name.unwrap_or_default(), &data_of(body)));
            catch_unwind(decoded).unwrap_or_default()
        });
        if record.value.is_none()
            && has_data(&record.body)
            && !self.0.failed_to_decode.swap(true, Ordering::Relaxed)
        {
            telemetry::not_decoded(self.topic());
        }
    }

    pub(super) fn epoch(&self) -> LogEpoch {
        self.0.ring.epoch()
    }

    /// Whether every retained event is too old.
    pub(super) fn is_expired(&self) -> bool {
        self.0.ring.is_expired(self.0.created.elapsed())
    }

    /// Evicts events that are too old.
    pub(super) fn expire(&self) {
        self.0.ring.expire(self.0.created.elapsed());
    }
}

impl fmt::Debug for LogReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReplica").field("topic", &self.topic()).finish_non_exhaustive()
    }
}

impl fmt::Debug for WakeOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WakeOnDrop")
    }
}
