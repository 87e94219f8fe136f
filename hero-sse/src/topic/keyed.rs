//! One topic per key: created when it is first needed, removed when nobody needs it any more.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Write as _};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Handle, Topic, TopicBuilder};
use crate::event::SseEvent;
use crate::frame::{EventName, InvalidField};
use crate::telemetry::TopicLimitLog;

/// Enough for the tenants of most applications, and a bound on memory.
const DEFAULT_MAX_TOPICS: usize = 10_000;

/// Number of topics that are checked for each new one. As it is more than one, unneeded topics do not pile up.
const CHECKS_PER_NEW_TOPIC: usize = 4;

/// Number of topics that are checked at the limit, or for [`KeyedTopics::len`].
const MORE_CHECKS: usize = 64;

/// At the limit, all topics are checked at most this often.
const CHECK_ALL_INTERVAL: Duration = Duration::from_secs(1);

/// An unneeded topic stays this long: a client that reconnects meanwhile finds the topic that made its id.
const IDLE_GRACE: Duration = Duration::from_secs(60);

/// One [`Topic`] per key, such as a tenant, a user or a build, each with its own ids.
///
/// ```
/// use hero_sse::axum::extract::{Path, State};
/// use hero_sse::prelude::*;
/// use serde::Serialize;
///
/// #[derive(Serialize, SseEvent)]
/// struct Line { text: String }
///
/// /// The log of a build, from its first line.
/// #[sse_endpoint("/builds/{build}", permission = "builds.{build}.read")]
/// async fn build_log(
///     Path(build): Path<u64>,
///     State(builds): State<KeyedTopics<u64, Line>>,
/// ) -> Result<Subscription<Line>, Refusal> {
///     Ok(builds.topic(&build)?.subscribe().from_start())
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let builds = KeyedTopics::new("builds");
/// builds.topic(&7)?.publish(Line { text: "compiling".to_owned() }).await?;
/// # Ok(())
/// # }
/// # fn main() { let _: hero_sse::extend::Endpoints<KeyedTopics<u64, Line>> = endpoints![build_log]; }
/// ```
///
/// # Creating topics
///
/// [`topic`](Self::topic) creates the topic of a key, for publishers and subscribers alike. First check that the caller may
/// have this key, as the permission does here. Otherwise clients could create topics for invented keys.
/// [`get`](Self::get) creates none.
///
/// # Removing topics
///
/// A topic is removed when, for a minute, it has had no subscriber, no other owner and no retained event. Topics are
/// checked when others are created. At the [limit](KeyedTopicsBuilder::max_topics), unneeded topics are removed at once.
///
/// Retained events keep their topic, as does a last event: late clients still get them, until
/// [`retain_for`](TopicBuilder::retain_for) is over. Then the key gets a new topic. [Latest values](TopicBuilder::latest)
/// never become too old: [`remove`](Self::remove) such a topic yourself, or set `retain_for`.
///
/// # Names
///
/// A topic is named after the collection and its key's `Display`, joined with `/` (a `/` in either is written as `%2F`). Two
/// different keys must not print the same text.
///
/// Clones share their topics. Dropping the last clone drops the topics that have no other owner.
#[doc(alias = "channels")]
#[doc(alias = "rooms")]
#[doc(alias = "per-user")]
pub struct KeyedTopics<K, E> {
    inner: Arc<Inner<K, E>>,
}

struct Inner<K, E> {
    name: String,
    max_topics: usize,
    event: Option<EventName>,
    each_topic: EachTopic<K, E>,
    members: Mutex<Members<K, E>>,
    full: TopicLimitLog,
}

type EachTopic<K, E> = Box<dyn Fn(TopicBuilder<E>, &K) -> TopicBuilder<E> + Send + Sync>;

struct Members<K, E> {
    topics: HashMap<K, Member<E>>,
    /// All keys by their turn: the lowest is checked next.
    turns: BTreeMap<u64, K>,
    last_turn: u64,
    /// When all topics were checked last.
    all_checked: Option<Instant>,
}

struct Member<E> {
    topic: Topic<E>,
    turn: u64,
    /// When a check first found that nobody needs the topic.
    idle_since: Option<Instant>,
}

impl<K, E> KeyedTopics<K, E>
where
    K: Hash + Eq + Clone + Display + Send + 'static,
    E: SseEvent + Send + Sync + 'static,
{
    /// Returns a collection of up to 10,000 topics with the settings of [`Topic::new`].
    pub fn new(name: impl Into<String>) -> Self {
        Self::builder(name).build()
    }

    /// Returns a builder, for other settings than those of [`new`](Self::new).
    pub fn builder(name: impl Into<String>) -> KeyedTopicsBuilder<K, E> {
        KeyedTopicsBuilder {
            name: name.into(),
            max_topics: DEFAULT_MAX_TOPICS,
            event: None,
            each_topic: Box::new(|topic, _| topic),
        }
    }

    /// Returns the topic of this key, and creates it if there is none.
    ///
    /// Keep the topic while you publish to it, or call this each time: you get the same one.
    ///
    /// A topic that has ended is returned while it retains events, and cannot be published to. For a new one,
    /// [`remove`](Self::remove) the key first.
    ///
    /// # Errors
    ///
    /// [`TopicLimitReached`] at the [limit](KeyedTopicsBuilder::max_topics), if every topic is needed.
    pub fn topic(&self, key: &K) -> Result<Topic<E>, TopicLimitReached> {
        // Dropping a topic may run user code: after the lock.
        let mut removed = Vec::new();
        {
            let mut members = self.inner.lock();
            if let Some(topic) = members.find(key, &mut removed) {
                return Ok(topic);
            }
            self.inner.make_room(&mut members, &mut removed)?;
        }
        let made = self.inner.make(key);
        let mut members = self.inner.lock();
        // Another thread may have been faster.
        if let Some(topic) = members.find(key, &mut removed) {
            return Ok(topic);
        }
        self.inner.make_room(&mut members, &mut removed)?;
        let (key, key_of_turn) = (key.clone(), key.clone());
        let turn = members.next_turn();
        members.topics.insert(key, Member { topic: made.clone(), turn, idle_since: None });
        members.turns.insert(turn, key_of_turn);
        drop(members);
        Ok(made)
    }

    /// Returns the topic of this key, if there is one: for statistics, or to publish only where somebody may subscribe.
    ///
    /// For subscribers, call [`topic`](Self::topic). After a restart, or when nobody has needed the key for long, there is
    /// no topic until somebody publishes. A `404` would be final for a browser's `EventSource`.
    pub fn get(&self, key: &K) -> Option<Topic<E>> {
        let mut removed = Vec::new();
        self.inner.lock().find(key, &mut removed)
    }

    /// Removes the topic of this key, and ends it as [`Topic::close`] does. Returns whether there was one.
    ///
    /// Its retained events are dropped, and the key's next topic is a new one. Use it when the key's subject, such as a
    /// tenant, was deleted.
    pub fn remove(&self, key: &K) -> bool {
        let topic = self.inner.lock().topics.get(key).map(|member| member.topic.clone());
        let Some(topic) = topic else { return false };
        // First, so that nobody publishes to this topic while subscribers come to the next one.
        topic.close();
        let mut members = self.inner.lock();
        let current = members.topics.get(key);
        let is_current = current.is_some_and(|current| current.topic.is_same(&topic));
        let removed = if is_current { members.remove(key) } else { None };
        drop(members);
        removed.is_some()
    }

    /// Returns the number of topics. It first removes unneeded ones, and checks 64 of them each time.
    pub fn len(&self) -> usize {
        let mut removed = Vec::new();
        let mut members = self.inner.lock();
        members.check(MORE_CHECKS, IDLE_GRACE, &mut removed);
        members.topics.len()
    }

    /// Returns whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name of the collection.
    pub fn name(&self) -> &str {
        &self.inner.name
    }
}

impl<K, E> Inner<K, E>
where
    K: Hash + Eq + Clone + Display,
    E: SseEvent + Send + Sync + 'static,
{
    fn make(&self, key: &K) -> Topic<E> {
        let mut builder = Topic::builder("");
        builder.event = self.event.clone();
        let mut builder = (self.each_topic)(builder, key);
        builder.name = topic_name(&self.name, key).into();
        builder.build()
    }

    /// Checks some topics; more at the limit.
    fn make_room(
        &self,
        members: &mut Members<K, E>,
        removed: &mut Vec<Topic<E>>,
    ) -> Result<(), TopicLimitReached> {
        members.check(CHECKS_PER_NEW_TOPIC, IDLE_GRACE, removed);
        if members.topics.len() < self.max_topics {
            return Ok(());
        }
        let now = Instant::now();
        let recently =
            members.all_checked.is_some_and(|checked| now - checked < CHECK_ALL_INTERVAL);
        if !recently {
            members.all_checked = Some(now);
        }
        let checks = if recently { MORE_CHECKS } else { usize::MAX };
        members.check(checks, Duration::ZERO, removed);
        if members.topics.len() < self.max_topics {
            return Ok(());
        }
        self.full.log(&self.name, self.max_topics);
        Err(TopicLimitReached { topics: self.name.clone(), max_topics: self.max_topics })
    }
}

impl<K, E> Inner<K, E> {
    /// The only user code that runs under the lock is the key's, before anything is changed.
    fn lock(&self) -> MutexGuard<'_, Members<K, E>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, E> Members<K, E> {
    /// Returns the topic of this key. One that has ended and that nobody needs counts as none.
    fn find(&mut self, key: &K, removed: &mut Vec<Topic<E>>) -> Option<Topic<E>> {
        let member = self.topics.get_mut(key)?;
        if member.topic.handle.replica.ring().is_closed() && member.is_idle() {
            removed.extend(self.remove(key));
            return None;
        }
        member.idle_since = None;
        Some(member.topic.clone())
    }

    fn remove(&mut self, key: &K) -> Option<Topic<E>> {
        let member = self.topics.remove(key)?;
        self.turns.remove(&member.turn);
        Some(member.topic)
    }

    fn next_turn(&mut self) -> u64 {
        self.last_turn += 1;
        self.last_turn
    }

    /// Checks the next `count` topics, and removes those that were idle for as long as `grace`.
    fn check(&mut self, count: usize, grace: Duration, removed: &mut Vec<Topic<E>>) {
        let now = Instant::now();
        for _ in 0..count.min(self.turns.len()) {
            let turn = self.next_turn();
            let Some((_, key)) = self.turns.pop_first() else { return };
            let Some(member) = self.topics.get_mut(&key) else { continue };
            if !member.is_idle() {
                member.idle_since = None;
            } else if now - *member.idle_since.get_or_insert(now) >= grace {
                removed.extend(self.topics.remove(&key).map(|member| member.topic));
                continue;
            }
            member.turn = turn;
            self.turns.insert(turn, key);
        }
    }
}

impl<E> Member<E> {
    /// Whether the topic has no other owner, no subscriber and no event that is not too old.
    ///
    /// The caller holds the lock, without which nobody gets the topic: so it stays idle.
    fn is_idle(&mut self) -> bool {
        let Some(Handle { replica, .. }) = Arc::get_mut(&mut self.topic.handle) else {
            return false;
        };
        replica.ring().readers() == 0 && replica.is_expired()
    }
}

impl<K, E> Clone for KeyedTopics<K, E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K, E> fmt::Debug for KeyedTopics<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedTopics").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

/// Names a topic, so that no two collections and keys have the same name.
fn topic_name(topics: &str, key: impl Display) -> String {
    let mut name = String::new();
    // Writing to a string fails only if the key's `Display` does.
    let _ = write!(Escaped(&mut name), "{topics}");
    name.push('/');
    let _ = write!(Escaped(&mut name), "{key}");
    name
}

/// Escapes `/`, and `%` with it.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().for_each(|c| match c {
            '/' => self.0.push_str("%2F"),
            '%' => self.0.push_str("%25"),
            c => self.0.push(c),
        });
        Ok(())
    }
}

/// Builds [`KeyedTopics`].
#[must_use = "nothing is made until `build`"]
pub struct KeyedTopicsBuilder<K, E> {
    name: String,
    max_topics: usize,
    event: Option<EventName>,
    each_topic: EachTopic<K, E>,
}

impl<K, E> KeyedTopicsBuilder<K, E>
where
    K: Hash + Eq + Clone + Display + Send + 'static,
    E: SseEvent + Send + Sync + 'static,
{
    /// Sets the settings of each topic, which may depend on its key:
    /// `KeyedTopics::builder("builds").each_topic(|topic, _build| topic.retain_events(500))`.
    ///
    /// The function is called when a topic is created. Two threads that create the same topic may both call it.
    pub fn each_topic(
        mut self,
        settings: impl Fn(TopicBuilder<E>, &K) -> TopicBuilder<E> + Send + Sync + 'static,
    ) -> Self {
        self.each_topic = Box::new(settings);
        self
    }

    /// Sets the name of events that have none of their own, in all topics; see [`TopicBuilder::event`].
    ///
    /// # Errors
    ///
    /// [`InvalidField`] when the text cannot be an [`EventName`].
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidField> {
        self.event = Some(EventName::new(name)?);
        Ok(self)
    }

    /// Limits the number of topics. Default: 10,000.
    ///
    /// Topics that retain events count. So all topics together take at most this many times
    /// [`retain_bytes`](TopicBuilder::retain_bytes) of memory.
    pub fn max_topics(mut self, topics: usize) -> Self {
        self.max_topics = topics;
        self
    }

    /// Builds the collection, without any topics.
    pub fn build(self) -> KeyedTopics<K, E> {
        let Self { name, max_topics, event, each_topic } = self;
        let members = Mutex::new(Members {
            topics: HashMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
            all_checked: None,
        });
        let full = TopicLimitLog::default();
        let inner = Inner { name, max_topics, event, each_topic, members, full };
        KeyedTopics { inner: Arc::new(inner) }
    }
}

/// The error of [`KeyedTopics::topic`] at the [limit](KeyedTopicsBuilder::max_topics), when every topic is needed.
///
/// Return it from a handler: it answers `503`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLimitReached {
    topics: String,
    max_topics: usize,
}

impl Display for TopicLimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topics, max_topics } = self;
        write!(
            f,
            "`{topics}` has {max_topics} topics, and each has an owner, a subscriber or retained events: raise \
             `max_topics`, or lower `retain_for`"
        )
    }
}

impl std::error::Error for TopicLimitReached {}
