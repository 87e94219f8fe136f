//! Where the events of topics are kept: the contract of a broker, and what a node sees of a log.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::position::{Epoch, Ids};
use super::ring::{Entry, Fold, Keep, Life, Ring, Value, Wake};
use crate::frame::{data_of, name_of, write_id};
use crate::telemetry;

/// Keeps the logs of topics, for one node or for many: [`MemoryBroker`](crate::topic::MemoryBroker) within this process.
///
/// [`testing::broker_contract`](crate::testing::broker_contract) checks what a test can see of the contract.
///
/// # Order
///
/// All events of a log have one order, which is the same on every node. Offsets count up from 1 without holes within an
/// epoch; none is used twice. What was appended reaches the [`LogReplica`] of every open log of that name, on every node, that
/// of who appended it included, in that order and each event once; no later than the next one does. `append` may be
/// ready before or after the windows have the event.
///
/// # Epochs
///
/// An [`Epoch`] is one life of a log. All nodes have the same one: ids are made with it and with the topic's name, so that
/// what one node made is good on the other. It is kept with the log, and is a secret. Where the log is lost, a new one
/// begins ([`LogReplica::begin`]), and clients learn that they may have missed something.
///
/// # A log that is opened
///
/// Before `open` is ready, the window has been told the epoch and given what is kept, as far as it
/// [keeps](LogReplica::keep) it: the newest events, or, of a topic that is of [the latest](LogReplica::is_latest), the newest of each
/// name and key. A log that has ended is opened as well; its last event is always kept.
///
/// # When the broker dies
///
/// A connection that breaks is the broker's to mend, with pauses that grow. Meanwhile the windows stay as they are, and
/// their readers wait; `append` says [`BrokerError::Failed`] instead of waiting without a bound. Back again, it pushes what
/// was appended meanwhile. If some of it is lost, it goes on with what comes next at its own offset: readers learn which
/// events they missed.
///
/// # Threads
///
/// One window is fed by one thread at a time. Nothing is called back: feeding a window runs no code of the broker's, but
/// it may run the application's (what a [`snapshot`](crate::topic::TopicBuilder::snapshot) applies and how events are
/// [decoded](crate::topic::TopicBuilder::decode), both guarded against panics), which must not use the topic.
pub trait Broker: Send + Sync + 'static {
    /// Opens the log of a topic, which is made if there is none. The `window` is fed until what is returned is
    /// dropped. If the future is dropped before it is ready, the log is not open.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Failed`] when it cannot be reached; a log that has ended is no error.
    fn open<'a>(
        &'a self,
        topic: &'a str,
        window: LogReplica,
    ) -> BoxFuture<'a, Result<Box<dyn Log>, BrokerError>>;
}

/// An open log.
pub trait Log: Send + Sync + 'static {
    /// Appends events, next to each other, or none of them; returns the offset of the last. Those behind one that
    /// [ends](Record::is_last) the log are left out. Several may be on their way at the same time; each has its
    /// own place.
    ///
    /// If the future is dropped before it is ready, the events are appended or they are not: all or none.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Closed`] once the log has ended, whoever ended it. [`BrokerError::Failed`] where the answer did not
    /// come: the events may have been appended. It does not try again by itself, unless it can tell that they were not.
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>>;
}

/// Why a broker did not do what it was asked to.
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerError {
    /// The log has ended.
    Closed,
    /// What the broker says. The events may have been appended, unless it knows better.
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

/// One event as a broker keeps it.
#[derive(Clone)]
pub struct Record {
    body: Bytes,
    key: Option<Box<str>>,
    last: bool,
    pub(super) value: Option<Value>,
}

impl Record {
    /// One that was kept. The body must be what [`body`](Self::body) was, byte for byte.
    pub fn new(body: Bytes, key: Option<String>, last: bool) -> Self {
        Self { body, key: key.map(Into::into), last, value: None }
    }

    pub(super) fn of(body: Bytes, key: Option<String>, last: bool, value: Value) -> Self {
        Self { value: Some(value), ..Self::new(body, key, last) }
    }

    /// What was appended to a log in this process.
    pub(super) fn again(entry: &Entry) -> Self {
        let Entry { frame, body, key, last, value, .. } = entry;
        let body = frame.slice((*body).min(frame.len())..);
        Self { body, key: key.clone(), last: *last, value: value.clone() }
    }

    /// As it stands in a log.
    fn at(self, ids: &Ids, offset: u64, at: Duration) -> Entry {
        let Self { body, key, last, value } = self;
        let mut frame = BytesMut::with_capacity(body.len() + 48);
        write_id(&mut frame, ids.of(offset).as_str(), last);
        let id = frame.len();
        frame.put_slice(&body);
        let name = name_of(&body).map(Into::into);
        Entry { offset, frame: frame.freeze(), body: id, name, key, last, value, at }
    }

    /// The event as it goes over the wire, without its id.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it is the state of ([`SseEvent::key`](crate::SseEvent::key)).
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether it ends the log.
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

/// How much of a topic is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// So many events at most.
    pub events: usize,
    /// So many bytes of frames at most.
    pub bytes: usize,
    /// Events of this age at most.
    pub age: Option<Duration>,
}

impl Retention {
    pub(super) fn keep(self) -> Keep {
        Keep { events: self.events, bytes: self.bytes, age: self.age }
    }
}

/// What one node has of a topic's log: the newest events, encoded for the wire, and all who read them there.
///
/// A [`Broker`] feeds it. Clones are one window.
#[derive(Clone)]
pub struct LogReplica(Arc<Inside>);

struct Inside {
    topic: Box<str>,
    retention: Retention,
    ring: Arc<Ring>,
    since: Instant,
    decode: Option<Decode>,
    /// Whether an event could not be read, which is said once.
    unreadable: AtomicBool,
}

/// What an event is, by its name and data.
pub(super) type Decode = Box<dyn Fn(&str, &str) -> Option<Value> + Send + Sync>;

/// Tells the readers of a window when it is dropped: drop it without a lock in hand.
#[must_use]
pub struct WakeOnDrop {
    _wake: Option<Wake>,
}

impl LogReplica {
    pub(super) fn new(
        topic: &str,
        retention: Retention,
        latest: bool,
        fold: Option<Box<dyn Fold>>,
        decode: Option<Decode>,
    ) -> Self {
        Self(Arc::new(Inside {
            topic: topic.into(),
            retention,
            ring: Ring::new(retention.keep(), latest, fold, Ids::new(topic, Epoch::random())),
            since: Instant::now(),
            decode,
            unreadable: AtomicBool::new(false),
        }))
    }

    /// Whether it keeps the newest event of each name and key alone.
    pub fn is_latest(&self) -> bool {
        self.0.ring.is_latest()
    }

    /// How much of the log it keeps.
    pub fn keep(&self) -> Retention {
        self.0.retention
    }

    /// Begins the log anew: what it holds is of another epoch, and forgotten. The next event is the one at the
    /// offset `next`, which is 1 at least. All its readers learn that they may have missed something, and so will who
    /// comes back from before `next`: what was superseded and not lost is [skipped](Self::skip). A topic that was closed on
    /// this node stays so.
    pub fn begin(&self, epoch: Epoch, next: u64) -> WakeOnDrop {
        WakeOnDrop { _wake: Some(self.0.ring.begin(Ids::new(&self.0.topic, epoch), next)) }
    }

    /// The offset of the next event.
    pub fn next(&self) -> u64 {
        self.0.ring.next()
    }

    /// Goes on at the offset `next`, unless it is there already. In a window of [the latest](Self::is_latest) it says
    /// that what was not pushed has been superseded by another event of its name and key; in another one it says that it
    /// is lost.
    pub fn skip(&self, next: u64) -> WakeOnDrop {
        WakeOnDrop { _wake: self.0.ring.skip(next) }
    }

    /// Adds events, of which the first is the one at `offset`. Those that are there already are left out; if others
    /// are missing before it, readers learn of the gap. After a last event, or when the topic was closed on this node,
    /// nothing is added any more.
    ///
    /// A window never holds more than it keeps, whatever is pushed.
    pub fn push(&self, offset: u64, mut records: Vec<Record>) -> WakeOnDrop {
        let at = self.0.since.elapsed();
        records.iter_mut().for_each(|record| self.read(record));
        let wake =
            self.0.ring.feed(offset, records, |ids, offset, record| record.at(ids, offset, at));
        WakeOnDrop { _wake: wake }
    }

    /// Adds events to a log that is here and nowhere else.
    pub(super) fn append(&self, records: Vec<Record>) -> Option<(u64, Wake)> {
        let at = self.0.since.elapsed();
        self.0.ring.append(records, |ids, offset, record| record.at(ids, offset, at))
    }

    pub(super) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(super) fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
    }

    /// Finds the value of an event that another node published.
    fn read(&self, record: &mut Record) {
        if record.value.is_some() {
            return;
        }
        let body = str::from_utf8(&record.body).unwrap_or_default();
        let name = name_of(&record.body).and_then(|name| str::from_utf8(name).ok());
        record.value = self.0.decode.as_ref().and_then(|decode| {
            let decoded = AssertUnwindSafe(|| decode(name.unwrap_or_default(), &data_of(body)));
            catch_unwind(decoded).unwrap_or_default()
        });
        if record.value.is_none() && !self.0.unreadable.swap(true, Ordering::Relaxed) {
            telemetry::unreadable(self.topic());
        }
    }

    /// What the ids are made with now.
    pub(super) fn life(&self) -> Life {
        self.0.ring.life()
    }

    /// Whether nothing is kept that somebody may yet come for.
    pub(super) fn is_spent(&self) -> bool {
        self.0.ring.is_spent(self.0.since.elapsed())
    }

    /// Forgets what is too old.
    pub(super) fn expire(&self) {
        self.0.ring.expire(self.0.since.elapsed());
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

/// The log of a topic without a broker: its window is all there is.
pub(super) struct Own(pub(super) LogReplica);

impl Log for Own {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>> {
        let window = self.0.clone();
        Box::pin(async move {
            let (offset, _wake) = window.append(records).ok_or(BrokerError::Closed)?;
            Ok(offset)
        })
    }
}
