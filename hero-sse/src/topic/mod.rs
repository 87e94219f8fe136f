//! KeyedTopics: an event is published once, encoded once, and read in place by all who follow.

#[cfg(feature = "server")]
mod answer;
pub(crate) mod broker;
#[cfg(feature = "testing")]
pub(crate) mod contract;
mod feed;
mod keyed;
mod memory;
mod merge;
pub(crate) mod position;
mod ring;
mod subscription;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::broker::{Broker, BrokerError, Log, LogReplica, Record, Retention};
use self::broker::{Decode, Own};
pub(crate) use self::feed::{FeedPoll, Patience};
pub use self::keyed::{KeyedTopics, KeyedTopicsBuilder, TopicLimitReached};
pub use self::memory::MemoryBroker;
pub(crate) use self::merge::Feeds;
pub use self::merge::{EncodedEvents, MergedSubscription};
pub use self::position::Position;
pub(crate) use self::ring::BATCH;
use self::ring::{Fold, Value};
pub use self::subscription::{Gap, Published, Resume, Subscription};
use crate::event::SseEvent;
use crate::frame::{EventName, InvalidEvent, InvalidField, write_body};
use crate::telemetry;

/// Events that many follow: published once, encoded once, kept for those who come back.
///
/// ```
/// use hero_sse::prelude::*;
/// use hero_sse::axum::extract::State;
/// use serde::Serialize;
///
/// #[derive(Serialize, SseEvent)]
/// struct Order { id: u64 }
///
/// /// The orders as they come in; who was away gets what it missed.
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
/// A subscriber is a place in a ring of encoded events, and no queue: publishing never waits for one, and a slow
/// one costs its place and what it is just being sent: a batch of up to 16 KiB, or one longer event. How far it may
/// fall behind, and what then, is the endpoint's [`Overflow`](crate::options::Overflow).
///
/// The events' ids are the topic's own: each says where its event stands, and a client that comes back with one goes
/// on behind it. What `#[sse(id)]` marks is data. The name is the event's own, else what
/// [`event`](TopicBuilder::event) says, else made of the type's: the endpoint's `event` does not reach what was
/// encoded before.
///
/// Clones are one topic. It ends when an event that [is the last](SseEvent::is_last) is published, when somebody
/// [closes](Self::close) it, or with its last clone; its subscribers get what there is, and their streams end.
pub struct Topic<E> {
    handle: Arc<Handle>,
    marker: PhantomData<fn(E)>,
}

struct Handle {
    window: LogReplica,
    log: Box<dyn Log>,
    event: Option<EventName>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.window.ring().close());
    }
}

impl<E: SseEvent + Send + Sync + 'static> Topic<E> {
    /// A topic that keeps the last 1,000 events, for an hour and 4 MiB at most. Its name goes into its ids: those
    /// of another topic are of no use here.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::builder(name).build()
    }

    /// A topic that keeps the newest event of each name and [key](SseEvent::key), of 1,000 keys at most: for
    /// gauges. A subscriber first gets the present value of each, then the changes; who comes back gets what has
    /// changed, or all of it where its id is of another life of the topic: that is no gap.
    pub fn latest(name: impl Into<Cow<'static, str>>) -> Self {
        Self::builder(name).latest().build()
    }

    /// A topic with settings of its own.
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
            fold: None,
            decode: None,
            marker: PhantomData,
        }
    }

    /// Publishes an event, and returns where it stands. Subscribers are woken; nobody is waited for.
    ///
    /// Without a broker it is done when it is first polled, and never pending: a loop that publishes more than is kept
    /// should let others have a turn now and then (`tokio::task::yield_now`), or those on its thread get a gap. With a
    /// broker, an event whose future is dropped is published or is not.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; then no subscriber gets the event.
    pub async fn publish(&self, event: E) -> Result<Position, PublishError> {
        let record = self.record(event)?;
        self.append(vec![record]).await
    }

    /// Publishes events next to each other, and returns where the last stands; `None` without any. A
    /// [last](SseEvent::is_last) event ends the topic: those behind it are left out. If the future is dropped, all are
    /// published or none. Of more than the topic keeps nobody gets the first ones: subscribers are told of a gap.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; then none of them is published.
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
        self.append(records).await.map(Some)
    }

    async fn append(&self, records: Vec<Record>) -> Result<Position, PublishError> {
        if self.is_closed() {
            return Err(PublishError::Closed);
        }
        // Should the log begin anew meanwhile, an id of the earlier life is a gap later on; the other way round
        // it would be a wrong place.
        let life = self.handle.window.life();
        let offset = self.handle.log.append(records).await?;
        Ok(life.of(offset))
    }

    fn record(&self, event: E) -> Result<Record, PublishError> {
        let mut body = BytesMut::new();
        write_body(&mut body, self.handle.event.as_ref(), |frame| event.encode(frame))?;
        let most = self.handle.window.keep().bytes;
        if body.len() + 64 > most {
            return Err(PublishError::TooLarge { bytes: body.len(), most });
        }
        let (key, last) = (event.key(), event.is_last());
        Ok(Record::of(body.freeze(), key, last, Arc::new(event)))
    }

    /// Follows the topic.
    ///
    /// Returned by an endpoint's function it goes on where the request's `Last-Event-ID` says, and for a new client
    /// with what is published from now on, that is after this call; see [`Subscription`] for other beginnings.
    pub fn subscribe(&self) -> Subscription<E> {
        Subscription::new(&self.handle.window)
    }

    /// Ends the topic without a last event: its subscribers get what there is, then their streams end
    /// ([`CloseReason::Ended`](crate::CloseReason::Ended)), and browsers come back.
    pub fn close(&self) {
        drop(self.handle.window.ring().close());
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.handle.window.ring().is_closed()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.handle.window.topic()
    }

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        self.handle.window.ring().readers()
    }

    /// How many events are kept for those who come back.
    pub fn len(&self) -> usize {
        self.handle.window.expire();
        self.handle.window.ring().kept().0
    }

    /// Whether none is kept.
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
        f.debug_struct("Topic").field("name", &self.handle.window.topic()).finish_non_exhaustive()
    }
}

/// The settings of a [`Topic`].
#[must_use = "nothing is made until `build`"]
pub struct TopicBuilder<E> {
    name: Cow<'static, str>,
    retention: Retention,
    latest: bool,
    event: Option<EventName>,
    fold: Option<Box<dyn Fold>>,
    decode: Option<Decode>,
    marker: PhantomData<fn(E)>,
}

impl<E: SseEvent + Send + Sync + 'static> TopicBuilder<E> {
    /// Keeps so many events at most, 1,000 if not said, and at least one.
    pub fn retain_events(mut self, events: usize) -> Self {
        self.retention.events = events.max(1);
        self
    }

    /// Keeps so many bytes of encoded events at most, 4 MiB if not said. A larger event cannot be published.
    pub fn retain_bytes(mut self, bytes: usize) -> Self {
        self.retention.bytes = bytes;
        self
    }

    /// Keeps events for so long at most, an hour if not said; `None` for ever.
    ///
    /// Nobody who begins or comes back gets an older one; who follows gets what is still there. It leaves memory when
    /// somebody publishes, subscribes or asks for [`len`](Topic::len) the next time, or when a family of [`KeyedTopics`] looks
    /// at its member: where a topic has fallen quiet, that may be later.
    pub fn retain_for(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.retention.age = age.into();
        self
    }

    /// Keeps the newest event of each name and [key](SseEvent::key) alone, whatever its age; see
    /// [`Topic::latest`]. So many keys as [`keep`](Self::keep) says.
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self.retention.age = None;
        self
    }

    /// The name of events that do not say their own.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] when the text cannot be an [`EventName`].
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidField> {
        self.event = Some(EventName::new(name)?);
        Ok(self)
    }

    /// Sums the events up: whoever begins, or has missed some, gets the `state` first, then what changes it.
    ///
    /// `apply` is called for each event as it is published, one after another; state and position are read together,
    /// so no subscriber gets an event that is in its state already, or misses one. It must be quick, and must not
    /// use the topic. If it panics, that is logged, and the state stays as it left it.
    ///
    /// The state is encoded when somebody needs it and it has changed since, and publishing waits for that: keep it
    /// small.
    pub fn snapshot<S: SseEvent + Clone + Send + 'static>(
        mut self,
        state: S,
        apply: impl FnMut(&mut S, &E) + Send + 'static,
    ) -> Self {
        self.fold = Some(Box::new(Sum {
            initial: state.clone(),
            state,
            rendered: None,
            apply,
            topic: String::new(),
            marker: PhantomData,
        }));
        self
    }

    /// How an event of another node is read, by its name and data; `None` if it cannot be. Filters, states and
    /// [`Published`]s need the event itself, which a [`Broker`] across processes does not carry: what cannot be read they
    /// leave out, and the log says so once. What is sent to clients needs no reading.
    ///
    /// ```
    /// # use hero_sse::Topic;
    /// # #[derive(hero_sse::SseEvent, serde::Serialize, serde::Deserialize)]
    /// # struct Order { id: u64 }
    /// Topic::<Order>::builder("orders").decode(|_, data| serde_json::from_str(data).ok());
    /// ```
    pub fn decode(
        mut self,
        read: impl Fn(&str, &str) -> Option<E> + Send + Sync + 'static,
    ) -> Self {
        self.decode = Some(Box::new(move |name, data| Some(Arc::new(read(name, data)?))));
        self
    }

    /// The topic, of this process alone.
    pub fn build(self) -> Topic<E> {
        let (window, event) = self.window();
        let log = Box::new(Own(window.clone()));
        Topic { handle: Arc::new(Handle { window, log, event }), marker: PhantomData }
    }

    /// The topic, as a broker keeps it: with all that is kept, and with what other nodes publish. All nodes give it
    /// the same name and the same settings.
    ///
    /// [`Topic::close`] and the drop of the last clone end it here alone; a [last](SseEvent::is_last) event ends it on all
    /// nodes. A [`snapshot`](Self::snapshot) sums up what the broker keeps and what comes then, from the first state on; where
    /// the broker loses the log, it begins anew.
    ///
    /// # Errors
    ///
    /// What the broker says. If the future is dropped, the topic is not open.
    pub async fn open<B: Broker + ?Sized>(self, broker: &B) -> Result<Topic<E>, BrokerError> {
        let (window, event) = self.window();
        let log = broker.open(window.topic(), window.clone()).await?;
        Ok(Topic { handle: Arc::new(Handle { window, log, event }), marker: PhantomData })
    }

    fn window(self) -> (LogReplica, Option<EventName>) {
        let Self { name, retention, latest, event, mut fold, decode, .. } = self;
        if let Some(fold) = &mut fold {
            fold.name(&name);
        }
        (LogReplica::new(&name, retention, latest, fold, decode), event)
    }
}

/// A state, and how events change it.
struct Sum<S, F, E> {
    initial: S,
    state: S,
    /// As it was asked for last: many who come together share it.
    rendered: Option<Bytes>,
    apply: F,
    topic: String,
    marker: PhantomData<fn(E)>,
}

impl<S, F, E> Fold for Sum<S, F, E>
where
    S: SseEvent + Clone + Send,
    F: FnMut(&mut S, &E) + Send,
    E: 'static,
{
    fn name(&mut self, topic: &str) {
        topic.clone_into(&mut self.topic);
    }

    fn reset(&mut self) {
        self.rendered = None;
        let initial = catch_unwind(AssertUnwindSafe(|| self.initial.clone()));
        match initial {
            Ok(initial) => self.state = initial,
            Err(_) => telemetry::panicked(&self.topic, "snapshot"),
        }
    }

    /// A panic must not keep the event from its readers, least of all from those of another node.
    fn apply(&mut self, value: &Value) {
        let Some(event) = value.downcast_ref() else { return };
        self.rendered = None;
        let applied = catch_unwind(AssertUnwindSafe(|| (self.apply)(&mut self.state, event)));
        if applied.is_err() {
            telemetry::panicked(&self.topic, "snapshot");
        }
    }

    fn render(&mut self) -> Result<Bytes, String> {
        if let Some(rendered) = &self.rendered {
            return Ok(rendered.clone());
        }
        let mut body = BytesMut::new();
        let mut write = || write_body(&mut body, None, |frame| self.state.encode(frame));
        match catch_unwind(AssertUnwindSafe(&mut write)) {
            Ok(Ok(())) => Ok(self.rendered.insert(body.freeze()).clone()),
            Ok(Err(error)) => {
                Err(format!("the state of topic {:?} cannot be written: {error}", self.topic))
            }
            Err(_) => {
                telemetry::panicked(&self.topic, "snapshot");
                Err(format!("the state of topic {:?} panicked as it was written", self.topic))
            }
        }
    }
}

/// Why an event was not published. For a route that publishes it is an answer too: a `409` if the topic has ended, a
/// `413`, a `500` or a `503`.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic has ended.
    Closed,
    /// The event cannot be written.
    Event(InvalidEvent),
    /// The event is larger than all that the topic keeps.
    TooLarge {
        /// Its size, encoded.
        bytes: usize,
        /// What the topic keeps ([`retain_bytes`](TopicBuilder::retain_bytes)).
        most: usize,
    },
    /// The broker failed. The event may have been published all the same.
    Broker(BrokerError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the topic has ended: nothing can be published any more"),
            Self::Event(error) => write!(f, "the event cannot be written: {error}"),
            Self::TooLarge { bytes, most } => write!(
                f,
                "an event of {bytes} bytes does not fit into a topic that keeps {most}: raise `retain_bytes`"
            ),
            Self::Broker(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Event(error) => Some(error),
            Self::Broker(error) => Some(error),
            Self::Closed | Self::TooLarge { .. } => None,
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
