//! Where the events of topics are kept: the contract of a broker, and what a node sees of a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::position::{Epoch, Ids};
use super::ring::{Entry, Fold, Keep, Life, Ring, Value, Wake};
use crate::frame::{name_of, write_id};

/// Keeps the logs of topics, for one node or for many.
///
/// # Contract
///
/// All events of a topic have one order, which is the same for every node: the offsets count up from 1 without
/// holes. What is appended reaches the [`Window`] of every open log of that name, on every node, in that order and
/// each event once; at the latest when the next one does. The window tells its readers.
///
/// A log that is opened is first told its [epoch](Window::begin) and then given what is kept, as far as the
/// window [keeps](Window::keep) it. If the broker has lost what this node has not seen, it says so by pushing
/// what comes next at its own offset: readers learn of the gap. If it has lost the log, a new epoch begins.
///
/// A connection that breaks is the broker's to mend: a window stays where it is meanwhile, and its readers wait.
pub trait Broker: Send + Sync + 'static {
    /// Opens the log of a topic, which is made if there is none. The `window` is fed until what is returned is
    /// dropped.
    fn open<'a>(
        &'a self,
        topic: &'a str,
        window: Window,
    ) -> BoxFuture<'a, Result<Box<dyn Log>, BrokerError>>;
}

/// An open log.
pub trait Log: Send + Sync + 'static {
    /// Appends events, next to each other, or none of them; returns the offset of the last. A log whose last event
    /// [ends](Record::is_last) it takes no more.
    ///
    /// If it is dropped before it is ready, the events are appended or they are not: all or none.
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
    fn keep(self) -> Keep {
        Keep { events: self.events, bytes: self.bytes, age: self.age }
    }
}

/// What one node has of a topic's log: the newest events, encoded for the wire, and all who read them there.
///
/// A [`Broker`] feeds it. Clones are one window.
#[derive(Clone)]
pub struct Window(Arc<Inside>);

struct Inside {
    topic: Box<str>,
    retention: Retention,
    ring: Arc<Ring>,
    since: Instant,
}

/// Tells the readers of a window when it is dropped: drop it without a lock in hand.
#[must_use]
pub struct Pushed {
    _wake: Option<Wake>,
}

impl Window {
    pub(super) fn new(
        topic: &str,
        retention: Retention,
        latest: bool,
        fold: Option<Box<dyn Fold>>,
    ) -> Self {
        Self(Arc::new(Inside {
            topic: topic.into(),
            retention,
            ring: Ring::new(retention.keep(), latest, fold, Ids::new(topic, Epoch::random())),
            since: Instant::now(),
        }))
    }

    /// How much of the log it keeps.
    pub fn keep(&self) -> Retention {
        self.0.retention
    }

    /// Begins the log anew: what it holds is of another epoch, and forgotten. The next event is the one at the
    /// offset `next`. Readers who are behind an event learn of the gap.
    pub fn begin(&self, epoch: Epoch, next: u64) -> Pushed {
        Pushed { _wake: Some(self.0.ring.begin(Ids::new(&self.0.topic, epoch), next)) }
    }

    /// The offset of the next event.
    pub fn next(&self) -> u64 {
        self.0.ring.next()
    }

    /// Adds events, of which the first is the one at `offset`. Those that are there already are left out; if others
    /// are missing before it, readers learn of the gap.
    pub fn push(&self, offset: u64, records: Vec<Record>) -> Pushed {
        let at = self.0.since.elapsed();
        let wake =
            self.0.ring.feed(offset, records, |ids, offset, record| record.at(ids, offset, at));
        Pushed { _wake: wake }
    }

    /// Adds events to a log that is here and nowhere else.
    fn append(&self, records: Vec<Record>) -> Option<(u64, Wake)> {
        let at = self.0.since.elapsed();
        self.0.ring.append(records, |ids, offset, record| record.at(ids, offset, at))
    }

    pub(super) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(super) fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
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

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("topic", &self.topic()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pushed")
    }
}

/// The log of a topic without a broker: its window is all there is.
pub(super) struct Own(pub(super) Window);

impl Log for Own {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>> {
        let window = self.0.clone();
        Box::pin(async move {
            let (offset, _wake) = window.append(records).ok_or(BrokerError::Closed)?;
            Ok(offset)
        })
    }
}
