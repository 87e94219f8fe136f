//! Topics: an event is published once, encoded once, and read in place by all subscribers.

#[cfg(feature = "server")]
mod answer;
pub(crate) mod broker;
mod feed;
mod gap;
mod keyed;
mod memory;
mod merge;
pub(crate) mod position;
mod reply;
mod ring;
mod subscription;
mod unseen;
mod view;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::broker::{Broker, BrokerError, Decode, Log, LogReplica, Record, Retention};
pub(crate) use self::feed::{FeedPoll, SlowClientLimits, TopicFeed};
pub use self::gap::{Gap, Resume};
pub use self::keyed::{KeyedTopics, KeyedTopicsBuilder, TopicLimitReached};
pub use self::memory::MemoryBroker;
pub use self::merge::{EncodedEvents, MergedSubscription};
pub use self::position::{MergedPosition, Position};
pub(crate) use self::ring::BATCH;
use self::ring::{Snapshot, Value};
pub use self::subscription::{Published, Subscription};
#[cfg(feature = "server")]
pub(crate) use self::unseen::find_unseen;
use crate::event::SseEvent;
use crate::frame::{EventName, InvalidEvent, InvalidField, write_body};
use crate::telemetry;

/// A named sequence of events for many subscribers. Each event is encoded once, and retained for reconnecting clients.
///
/// ```
/// use hero_sse::axum::extract::State;
/// use hero_sse::prelude::*;
/// use serde::Serialize;
///
/// #[derive(Serialize, SseEvent)]
/// struct Order { id: u64 }
///
/// /// The orders as they come in. A reconnecting client gets what it missed.
/// #[sse_endpoint("/orders", public)]
/// async fn orders(State(orders): State<Topic<Order>>) -> Subscription<Order> {
///     orders.subscribe()
/// }
///
/// # async fn run() -> Result<(), hero_sse::topic::PublishError> {
/// let topic = Topic::new("orders");
/// let position = topic.publish(Order { id: 7 }).await?;
/// assert_eq!(position.offset(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Slow subscribers
///
/// Publishing never waits for a subscriber. A slow subscriber costs a position in the topic and the batch being sent: up to
/// 16 KiB, or one larger event. The endpoint's [`Overflow`](crate::options::Overflow) says how far it may lag, and what
/// happens then.
///
/// # Ids and names
///
/// The topic makes the events' ids, from which a reconnecting client resumes. A field with `#[sse(id)]` is only data here.
/// The name of an event is its own, else the one set with [`event`](TopicBuilder::event), else made from its type. The
/// `event` of an endpoint does not apply, because events are encoded when they are published.
///
/// # The end
///
/// Clones share one topic. It ends when a [last](SseEvent::is_last) event is published, with [`close`](Self::close), or
/// when the last clone is dropped. Subscribers then get the remaining events, and their streams end.
#[doc(alias = "broadcast")]
#[doc(alias = "channel")]
#[doc(alias = "fan-out")]
#[doc(alias = "pub/sub")]
#[doc(alias = "pubsub")]
#[doc(alias = "replay")]
pub struct Topic<E> {
    handle: Arc<Handle>,
    marker: PhantomData<fn(E)>,
}

struct Handle {
    replica: LogReplica,
    storage: Storage,
    event: Option<EventName>,
}

/// Where events are appended.
enum Storage {
    /// To the replica, which is the whole log.
    Memory,
    Broker(Box<dyn Log>),
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.replica.ring().close());
    }
}

impl<E: SseEvent + Send + Sync + 'static> Topic<E> {
    /// Returns a topic that retains the last 1,000 events, for at most an hour and up to 4 MiB.
    ///
    /// Its ids are made from its name and a random secret. They are invalid in any other topic, and after a restart.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::builder(name).build()
    }

    /// Returns a topic of latest values, such as gauges: it retains the newest event of each name and
    /// [key](SseEvent::key), up to 1,000.
    ///
    /// A new subscriber gets the current values, then the changes. A reconnecting client gets the values that changed
    /// since. After a restart it gets all of them, without a gap.
    #[doc(alias = "watch")]
    #[doc(alias = "gauge")]
    pub fn latest(name: impl Into<Cow<'static, str>>) -> Self {
        Self::builder(name).latest().build()
    }

    /// Returns a builder, for other settings than those of [`new`](Self::new).
    pub fn builder(name: impl Into<Cow<'static, str>>) -> TopicBuilder<E> {
        TopicBuilder {
            name: name.into(),
            retention: Retention {
                events: 1_000,
                bytes: 4 * 1024 * 1024,
                age: Some(Duration::from_secs(60 * 60)),
            },
            latest: false,
            event: None,
            snapshot: None,
            decode: None,
            marker: PhantomData,
        }
    }

    /// Publishes an event, and returns its position. It wakes subscribers, and waits for none.
    ///
    /// A topic in memory publishes at the first poll, and is never pending. A loop that publishes more than the topic
    /// retains should call `tokio::task::yield_now` now and then: otherwise subscribers on its thread get a gap.
    ///
    /// From synchronous code, use [`publish_now`](Self::publish_now).
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, a topic on a broker may or may not have published the event.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. No subscriber gets the event, except perhaps after [`PublishError::Broker`].
    #[doc(alias = "send")]
    #[doc(alias = "broadcast")]
    pub async fn publish(&self, event: E) -> Result<Position, PublishError> {
        let record = self.record(event)?;
        match &self.handle.storage {
            Storage::Memory => self.append_to_memory([record]),
            Storage::Broker(log) => self.append_to_broker(&**log, vec![record]).await,
        }
    }

    /// Publishes an event from synchronous code, and returns its position.
    ///
    /// It needs no runtime, works on any thread and waits for nothing but a short lock. For topics in memory only: those of
    /// [`new`](Self::new), [`latest`](Self::latest), [`build`](TopicBuilder::build) and [`KeyedTopics`].
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use serde::Serialize;
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Order { id: u64 }
    /// let orders = Topic::new("orders");
    /// let from_thread = orders.clone();
    /// std::thread::spawn(move || from_thread.publish_now(Order { id: 7 })).join().unwrap()?;
    /// assert_eq!(orders.len(), 1);
    /// # Ok::<(), hero_sse::topic::PublishError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`PublishError::NotInMemory`] on a topic that was [opened](TopicBuilder::open) on a broker. Call
    ///   [`publish`](Self::publish) there.
    /// * The other errors of [`publish`](Self::publish). No subscriber gets the event.
    #[doc(alias = "publish_sync")]
    #[doc(alias = "publish_blocking")]
    #[doc(alias = "blocking_publish")]
    #[doc(alias = "try_publish")]
    pub fn publish_now(&self, event: E) -> Result<Position, PublishError> {
        match &self.handle.storage {
            Storage::Memory => self.append_to_memory([self.record(event)?]),
            Storage::Broker(_) => Err(PublishError::NotInMemory),
        }
    }

    /// Publishes events next to each other, and returns the position of the last. `None`: there were none.
    ///
    /// A [last](SseEvent::is_last) event ends the topic, and events after it are left out. If there are more events than
    /// the topic retains, subscribers get a gap instead of the first ones. If the future is dropped, all events are
    /// published or none.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. None of the events is published, except perhaps after [`PublishError::Broker`].
    pub async fn publish_all(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Option<Position>, PublishError> {
        let mut records = Vec::new();
        for event in events {
            let record = self.record(event)?;
            let last = record.is_last();
            records.push(record);
            if last {
                break;
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        let appended = match &self.handle.storage {
            Storage::Memory => self.append_to_memory(records),
            Storage::Broker(log) => self.append_to_broker(&**log, records).await,
        };
        appended.map(Some)
    }

    fn append_to_memory(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Position, PublishError> {
        let replica = &self.handle.replica;
        let (offset, _wake) = replica.append(records).ok_or(PublishError::Closed)?;
        // A log in memory has one epoch.
        Ok(replica.epoch().position(offset))
    }

    async fn append_to_broker(
        &self,
        log: &dyn Log,
        records: Vec<Record>,
    ) -> Result<Position, PublishError> {
        if self.is_closed() {
            return Err(PublishError::Closed);
        }
        // If a new epoch starts meanwhile, an id of the earlier one leads to a gap. The other way round it would name
        // another event.
        let epoch = self.handle.replica.epoch();
        let offset = log.append(records).await?;
        Ok(epoch.position(offset))
    }

    fn record(&self, event: E) -> Result<Record, PublishError> {
        let mut body = BytesMut::new();
        write_body(&mut body, self.handle.event.as_ref(), |frame| event.encode(frame))?;
        let limit = self.handle.replica.retention().bytes;
        // The id comes in addition.
        if body.len() + 64 > limit {
            return Err(PublishError::TooLarge { bytes: body.len(), limit });
        }
        let (key, last) = (event.key(), event.is_last());
        Ok(Record::of(body.freeze(), key, last, Arc::new(event)))
    }

    /// Subscribes to the topic. Return the [`Subscription`] from an endpoint: `-> Subscription<E>`. It yields
    /// [`Published<E>`], so `-> impl Stream<Item = E>` does not compile ([the compiler's
    /// error](crate::guide::errors#subscription-returned-as-events)).
    ///
    /// A reconnecting client resumes after the request's `Last-Event-ID`. A new client starts with the first event that is
    /// published after this call; see [`from_start`](Subscription::from_start) and [`recent`](Subscription::recent) for
    /// others.
    pub fn subscribe(&self) -> Subscription<E> {
        Subscription::new(&self.handle.replica)
    }

    /// Returns the position of the newest event: give it out with a page or an answer that holds the topic's state.
    ///
    /// The client opens the stream with it, as `?last_event_id=` or `Last-Event-ID`, and receives what was published
    /// since. Nothing is lost between the page and the stream. Take the position first, then read the state: an event in
    /// between is then sent as well, and the page must be able to apply it twice.
    ///
    /// ```
    /// use hero_sse::axum::Json;
    /// use hero_sse::axum::extract::State;
    /// use hero_sse::prelude::*;
    /// use hero_sse::topic::Position;
    /// use serde::Serialize;
    ///
    /// #[derive(Clone, Serialize, SseEvent)]
    /// struct Order { id: u64 }
    ///
    /// #[derive(Serialize)]
    /// struct Page { orders: Vec<Order>, position: Position }
    ///
    /// async fn page(State(topic): State<Topic<Order>>) -> Json<Page> {
    ///     let position = topic.position();
    ///     // A query of your database.
    ///     let orders = Vec::new();
    ///     Json(Page { orders, position })
    /// }
    /// ```
    ///
    /// A position that another topic made, or an earlier [epoch](crate::extend::Epoch) of this one, is a gap of unknown
    /// size and never an error. For several topics on one stream, join their positions with [`Position::and`].
    ///
    /// On a topic without an event, it is the position before the first one. On a [broker](TopicBuilder::open) it is the
    /// newest event that has reached this node.
    #[doc(alias = "cursor")]
    #[doc(alias = "Last-Event-ID")]
    pub fn position(&self) -> Position {
        let (epoch, offset) = self.handle.replica.ring().newest();
        epoch.position(offset)
    }

    /// Ends the topic without a last event.
    ///
    /// Subscribers get the remaining events. Then their streams end with
    /// [`CloseReason::Ended`](crate::CloseReason::Ended), and browsers reconnect.
    pub fn close(&self) {
        drop(self.handle.replica.ring().close());
    }

    /// Returns whether the topic has ended.
    pub fn is_closed(&self) -> bool {
        self.handle.replica.ring().is_closed()
    }

    /// Returns the topic's name.
    pub fn name(&self) -> &str {
        self.handle.replica.topic()
    }

    /// Returns the number of subscriptions on this node.
    pub fn subscribers(&self) -> usize {
        self.handle.replica.ring().readers()
    }

    /// Returns the number of retained events.
    pub fn len(&self) -> usize {
        self.handle.replica.expire();
        self.handle.replica.ring().len().0
    }

    /// Returns whether no event is retained.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E> Clone for Topic<E> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), marker: PhantomData }
    }
}

impl<E> fmt::Debug for Topic<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.handle.replica.topic()).finish_non_exhaustive()
    }
}

/// Builds a [`Topic`].
#[must_use = "nothing is made until `build` or `open`"]
pub struct TopicBuilder<E> {
    name: Cow<'static, str>,
    retention: Retention,
    latest: bool,
    event: Option<EventName>,
    snapshot: Option<Box<dyn Snapshot>>,
    decode: Option<Decode>,
    marker: PhantomData<fn(E)>,
}

impl<E: SseEvent + Send + Sync + 'static> TopicBuilder<E> {
    /// Limits the number of retained events. Default: 1,000. At least 1.
    #[doc(alias = "capacity")]
    #[doc(alias = "history")]
    pub fn retain_events(mut self, events: usize) -> Self {
        self.retention.events = events.max(1);
        self
    }

    /// Limits the size of the retained events, encoded, in bytes. Default: 4 MiB. A larger event cannot be published.
    pub fn retain_bytes(mut self, bytes: usize) -> Self {
        self.retention.bytes = bytes;
        self
    }

    /// Limits the age of retained events. Default: one hour. `None`: unlimited.
    ///
    /// New and reconnecting clients get no older event. An event leaves memory when the topic is next published to,
    /// subscribed to or asked for its [`len`](Topic::len), or when [`KeyedTopics`] checks whether it is still needed.
    /// On a quiet topic that may be later.
    #[doc(alias = "ttl")]
    pub fn retain_for(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.retention.age = age.into();
        self
    }

    /// Retains only the newest event of each name and [key](SseEvent::key), of any age; see [`Topic::latest`].
    ///
    /// [`retain_events`](Self::retain_events) limits the number of keys. To limit the age as well, call
    /// [`retain_for`](Self::retain_for) after this.
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self.retention.age = None;
        self
    }

    /// Sets the name of events that have none of their own. Default: made from the event's type.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] when the text cannot be an [`EventName`].
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidField> {
        self.event = Some(EventName::new(name)?);
        Ok(self)
    }

    /// Keeps a state that is computed from the events. A new client, or one that missed events, gets the state first, then
    /// the events that change it.
    ///
    /// `apply` is called once for each event, in order. State and position are read together: no subscriber gets an event
    /// that its state already includes, and none misses one. `apply` must be fast, and must not use the topic. A panic in
    /// it is logged, and leaves the state as it is.
    ///
    /// The state is encoded when a client needs it and it has changed. Publishing waits for that, so keep it small.
    pub fn snapshot<S: SseEvent + Clone + Send + 'static>(
        mut self,
        state: S,
        apply: impl FnMut(&mut S, &E) + Send + 'static,
    ) -> Self {
        self.snapshot = Some(Box::new(ComputedState {
            initial: state.clone(),
            state,
            encoded: None,
            apply,
            topic: String::new(),
            marker: PhantomData,
        }));
        self
    }

    /// Sets how an event of another node is decoded from its name and data. `None`: it cannot be decoded.
    ///
    /// A [`Broker`] across processes carries encoded events. Clients get those bytes without decoding, but filters,
    /// [`snapshot`](Self::snapshot) and [`Published`] need the event itself. They leave out what cannot be decoded, and the
    /// log says so once.
    ///
    /// ```
    /// # use hero_sse::Topic;
    /// # #[derive(hero_sse::SseEvent, serde::Serialize, serde::Deserialize)]
    /// # struct Order { id: u64 }
    /// Topic::<Order>::builder("orders").decode(|_, data| serde_json::from_str(data).ok());
    /// ```
    pub fn decode(
        mut self,
        decode: impl Fn(&str, &str) -> Option<E> + Send + Sync + 'static,
    ) -> Self {
        self.decode = Some(Box::new(move |name, data| Some(Arc::new(decode(name, data)?))));
        self
    }

    /// Builds a topic in the memory of this process.
    pub fn build(self) -> Topic<E> {
        let (replica, event) = self.replica();
        Topic::of(replica, Storage::Memory, event)
    }

    /// Opens the topic on a broker, with all events that the broker retains and that other nodes publish.
    ///
    /// All nodes must use the same name and settings.
    ///
    /// * [`Topic::close`] and dropping the last clone end the topic on this node alone. A [last](SseEvent::is_last) event
    ///   ends it on all nodes.
    /// * A [`snapshot`](Self::snapshot) is computed from what the broker retains. When the broker loses the log, it starts
    ///   from its initial state again.
    ///
    /// If the future is dropped, the topic is not open.
    ///
    /// # Errors
    ///
    /// The error of the broker.
    pub async fn open<B: Broker + ?Sized>(self, broker: &B) -> Result<Topic<E>, BrokerError> {
        let (replica, event) = self.replica();
        let log = broker.open(replica.topic(), replica.clone()).await?;
        Ok(Topic::of(replica, Storage::Broker(log), event))
    }

    fn replica(self) -> (LogReplica, Option<EventName>) {
        let Self { name, retention, latest, event, mut snapshot, decode, .. } = self;
        if let Some(snapshot) = &mut snapshot {
            snapshot.set_topic(&name);
        }
        (LogReplica::new(&name, retention, latest, snapshot, decode), event)
    }
}

impl<E> Topic<E> {
    fn of(replica: LogReplica, storage: Storage, event: Option<EventName>) -> Self {
        Self { handle: Arc::new(Handle { replica, storage, event }), marker: PhantomData }
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }
}

/// A state, and how events change it.
struct ComputedState<S, F, E> {
    initial: S,
    state: S,
    /// The encoded state, until the next event: many clients may ask for it at once.
    encoded: Option<Bytes>,
    apply: F,
    topic: String,
    marker: PhantomData<fn(E)>,
}

impl<S, F, E> Snapshot for ComputedState<S, F, E>
where
    S: SseEvent + Clone + Send,
    F: FnMut(&mut S, &E) + Send,
    E: 'static,
{
    fn set_topic(&mut self, topic: &str) {
        topic.clone_into(&mut self.topic);
    }

    fn reset(&mut self) {
        self.encoded = None;
        let initial = catch_unwind(AssertUnwindSafe(|| self.initial.clone()));
        match initial {
            Ok(initial) => self.state = initial,
            Err(_) => telemetry::panicked(&self.topic, "snapshot"),
        }
    }

    /// A panic must not keep the event from its readers, nor from those of other nodes.
    fn apply(&mut self, value: &Value) {
        let Some(event) = value.downcast_ref() else { return };
        self.encoded = None;
        let applied = catch_unwind(AssertUnwindSafe(|| (self.apply)(&mut self.state, event)));
        if applied.is_err() {
            telemetry::panicked(&self.topic, "snapshot");
        }
    }

    fn encode(&mut self) -> Result<Bytes, String> {
        if let Some(encoded) = &self.encoded {
            return Ok(encoded.clone());
        }
        let mut body = BytesMut::new();
        let mut write = || write_body(&mut body, None, |frame| self.state.encode(frame));
        match catch_unwind(AssertUnwindSafe(&mut write)) {
            Ok(Ok(_)) => Ok(self.encoded.insert(body.freeze()).clone()),
            Ok(Err(error)) => {
                Err(format!("the state of topic {:?} cannot be encoded: {error}", self.topic))
            }
            Err(_) => {
                telemetry::panicked(&self.topic, "snapshot");
                Err(format!("the state of topic {:?} panicked while it was encoded", self.topic))
            }
        }
    }
}

/// Why an event was not published.
///
/// Return it from a route that publishes: it answers `409`, `413`, `500` or `503`.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic has ended.
    Closed,
    /// The event cannot be encoded.
    Event(InvalidEvent),
    /// The event is larger than the topic's [`retain_bytes`](TopicBuilder::retain_bytes).
    #[non_exhaustive]
    TooLarge {
        /// Size of the encoded event, in bytes.
        bytes: usize,
        /// The topic's `retain_bytes`.
        limit: usize,
    },
    /// The broker failed. The event may have been published all the same.
    Broker(BrokerError),
    /// [`publish_now`](Topic::publish_now) was called on a topic that was opened on a broker.
    NotInMemory,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the topic has ended: no more events can be published"),
            Self::Event(error) => write!(f, "the event cannot be encoded: {error}"),
            Self::TooLarge { bytes, limit } => write!(
                f,
                "an event of {bytes} bytes does not fit into a topic that retains {limit}: raise `retain_bytes`"
            ),
            Self::Broker(error) => error.fmt(f),
            Self::NotInMemory => f.write_str(
                "`publish_now` cannot wait for the broker on which this topic was opened: call `publish(..).await`",
            ),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Event(error) => Some(error),
            Self::Broker(error) => Some(error),
            Self::Closed | Self::TooLarge { .. } | Self::NotInMemory => None,
        }
    }
}

impl From<InvalidEvent> for PublishError {
    fn from(error: InvalidEvent) -> Self {
        Self::Event(error)
    }
}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Closed => Self::Closed,
            error @ BrokerError::Failed(_) => Self::Broker(error),
        }
    }
}
