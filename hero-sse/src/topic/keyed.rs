//! One topic for each key: made when it is first needed, gone when nobody needs it any more.

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
use crate::telemetry::Full;

/// So many members there are at most, if nobody says another number.
const MOST: usize = 10_000;

/// Whoever makes one looks at so many whether they can go: more than come, so that none is left for long.
const LOOKS: usize = 4;

/// So many where there is no room, or somebody counts.
const MORE_LOOKS: usize = 64;

/// How often one who finds no room looks at all of them.
const LOOK_AT_ALL: Duration = Duration::from_secs(1);

/// A member that nobody needs stays for so long: whoever comes back within it finds the topic that made his id.
const GRACE: Duration = Duration::from_secs(60);

/// A [`Topic`] for each key: each tenant, user or build has its own, with its own ids.
///
/// ```
/// use hero_sse::prelude::*;
/// use hero_sse::axum::extract::Path;
/// use hero_sse::axum::extract::State;
/// use serde::Serialize;
/// use hero_sse::KeyedTopics;
///
/// #[derive(Serialize, SseEvent)]
/// struct Line { text: String }
///
/// /// What a build says, from its first line.
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
/// [`topic`](Self::topic) makes a member when it is first asked for, by who publishes or by who reads. Check first that the
/// caller may have this key, as the permission does here, so that nobody fills the family with keys that are made up.
/// [`get`](Self::get) makes none: it is for who only looks.
///
/// A member goes when it has no subscriber, nobody else holds its [`Topic`] and nothing is kept in it, for a minute: it
/// is looked for as others are made. An event that is kept keeps its member, as does the last one of a topic that has
/// ended: whoever comes late gets it, until it is older than [`retain_for`](TopicBuilder::retain_for) says. Then the key's
/// next topic is another one. What is [never too old](TopicBuilder::latest) keeps its member until that is
/// [removed](Self::remove). Where there is [no room](KeyedTopicsBuilder::most) members that could go do so at once.
///
/// A member's name is the family's and the key's `Display`, with a `/` between them (and `%2F` for one in either):
/// different keys must be written differently. Clones are one family; with its last one go the members that nobody
/// else holds.
pub struct KeyedTopics<K, E> {
    inner: Arc<Inner<K, E>>,
}

struct Inner<K, E> {
    name: String,
    most: usize,
    event: Option<EventName>,
    each: Each<K, E>,
    members: Mutex<Members<K, E>>,
    full: Full,
}

type Each<K, E> = Box<dyn Fn(TopicBuilder<E>, &K) -> TopicBuilder<E> + Send + Sync>;

struct Members<K, E> {
    topics: HashMap<K, Member<E>>,
    /// All keys, in the order in which they are looked at: each by its member's turn.
    round: BTreeMap<u64, K>,
    /// The turn of the next.
    next: u64,
    /// When all were looked at last.
    looked: Option<Instant>,
}

struct Member<E> {
    topic: Topic<E>,
    turn: u64,
    /// Since when it is known that nobody needs it.
    idle: Option<Instant>,
}

impl<K, E> KeyedTopics<K, E>
where
    K: Hash + Eq + Clone + Display + Send + 'static,
    E: SseEvent + Send + Sync + 'static,
{
    /// A family of up to 10,000 topics as [`Topic::new`] makes them.
    pub fn new(name: impl Into<String>) -> Self {
        Self::builder(name).build()
    }

    /// A family with settings of its own.
    pub fn builder(name: impl Into<String>) -> KeyedTopicsBuilder<K, E> {
        KeyedTopicsBuilder {
            name: name.into(),
            most: MOST,
            event: None,
            each: Box::new(|topic, _| topic),
        }
    }

    /// The topic of this key, which is made if there is none.
    ///
    /// Hold it for as long as you publish to it, or ask each time: either way it is the topic of all who ask. One that has
    /// ended, and still keeps something, is it as well: nothing can be published to it. To begin anew,
    /// [`remove`](Self::remove) the key first.
    ///
    /// # Errors
    ///
    /// [`TopicLimitReached`] if there are as many as there may be, and all are needed.
    pub fn topic(&self, key: &K) -> Result<Topic<E>, TopicLimitReached> {
        // What is dropped is the application's, in part: after the lock.
        let mut gone = Vec::new();
        {
            let mut members = self.inner.lock();
            if let Some(topic) = members.find(key, &mut gone) {
                return Ok(topic);
            }
            self.inner.make_room(&mut members, &mut gone)?;
        }
        let made = self.inner.make(key);
        let mut members = self.inner.lock();
        // Another may have been quicker.
        if let Some(topic) = members.find(key, &mut gone) {
            return Ok(topic);
        }
        self.inner.make_room(&mut members, &mut gone)?;
        let (key, also) = (key.clone(), key.clone());
        let turn = members.turn();
        members.topics.insert(key, Member { topic: made.clone(), turn, idle: None });
        members.round.insert(turn, also);
        drop(members);
        Ok(made)
    }

    /// The topic of this key, if there is one: to look at it, or to publish only where somebody may follow.
    ///
    /// For readers ask for [`topic`](Self::topic): after a restart, or once nobody has needed the key for long, there is
    /// none until somebody publishes, and a `404` is final to a browser's `EventSource`.
    pub fn get(&self, key: &K) -> Option<Topic<E>> {
        let mut gone = Vec::new();
        self.inner.lock().find(key, &mut gone)
    }

    /// Ends the topic of this key, as [`Topic::close`] does, and forgets it with all that it keeps: the key's next topic
    /// is another one. Says whether there was one.
    ///
    /// For a key that stands for something which is gone, such as a tenant.
    pub fn remove(&self, key: &K) -> bool {
        let topic = self.inner.lock().topics.get(key).map(|member| member.topic.clone());
        let Some(topic) = topic else { return false };
        // First, so that nobody publishes to the one while readers come to the other.
        topic.close();
        let mut members = self.inner.lock();
        let still = members.topics.get(key);
        let still = still.is_some_and(|member| Arc::ptr_eq(&member.topic.handle, &topic.handle));
        let removed = if still { members.remove(key) } else { None };
        drop(members);
        removed.is_some()
    }

    /// How many there are. Of those that can go it finds some: it looks at 64 each time.
    pub fn len(&self) -> usize {
        let mut gone = Vec::new();
        let mut members = self.inner.lock();
        members.look(MORE_LOOKS, GRACE, &mut gone);
        members.topics.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The family's name.
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
        let mut builder = (self.each)(builder, key);
        builder.name = member_name(&self.name, key).into();
        builder.build()
    }

    /// Looks for some that can go, and harder where there is no room.
    fn make_room(
        &self,
        members: &mut Members<K, E>,
        gone: &mut Vec<Topic<E>>,
    ) -> Result<(), TopicLimitReached> {
        members.look(LOOKS, GRACE, gone);
        if members.topics.len() < self.most {
            return Ok(());
        }
        let now = Instant::now();
        let recently = members.looked.is_some_and(|looked| now - looked < LOOK_AT_ALL);
        if !recently {
            members.looked = Some(now);
        }
        members.look(if recently { MORE_LOOKS } else { usize::MAX }, Duration::ZERO, gone);
        if members.topics.len() < self.most {
            return Ok(());
        }
        self.full.tell(&self.name, self.most);
        Err(TopicLimitReached { topics: self.name.clone(), most: self.most })
    }
}

impl<K, E> Inner<K, E> {
    /// Of the application's code only a key's runs under the lock, and that before anything is changed.
    fn lock(&self) -> MutexGuard<'_, Members<K, E>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, E> Members<K, E> {
    /// The topic of this key; one that has ended, and has nothing left for anybody, is none.
    fn find(&mut self, key: &K, gone: &mut Vec<Topic<E>>) -> Option<Topic<E>> {
        let member = self.topics.get_mut(key)?;
        if member.topic.handle.window.ring().is_closed() && member.is_idle() {
            gone.extend(self.remove(key));
            return None;
        }
        member.idle = None;
        Some(member.topic.clone())
    }

    fn remove(&mut self, key: &K) -> Option<Topic<E>> {
        let member = self.topics.remove(key)?;
        self.round.remove(&member.turn);
        Some(member.topic)
    }

    fn turn(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Looks at the next so many, and takes out those that nobody has needed for so long.
    fn look(&mut self, most: usize, grace: Duration, gone: &mut Vec<Topic<E>>) {
        let now = Instant::now();
        for _ in 0..most.min(self.round.len()) {
            let turn = self.turn();
            let Some((_, key)) = self.round.pop_first() else { return };
            let Some(member) = self.topics.get_mut(&key) else { continue };
            if !member.is_idle() {
                member.idle = None;
            } else if now - *member.idle.get_or_insert(now) >= grace {
                gone.extend(self.topics.remove(&key).map(|member| member.topic));
                continue;
            }
            member.turn = turn;
            self.round.insert(turn, key);
        }
    }
}

impl<E> Member<E> {
    /// Whether nobody else holds it, follows it, or could come for what it keeps. Under the family's lock, without
    /// which nobody gets hold of it, that stays so.
    fn is_idle(&mut self) -> bool {
        let Some(Handle { window, .. }) = Arc::get_mut(&mut self.topic.handle) else {
            return false;
        };
        window.ring().readers() == 0 && window.is_spent()
    }
}

impl<K, E> Clone for KeyedTopics<K, E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K, E> fmt::Debug for KeyedTopics<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

/// No two families and keys have one name.
fn member_name(topics: &str, key: impl Display) -> String {
    let mut name = String::new();
    // Neither fails, unless a key does.
    let _ = write!(Escaped(&mut name), "{topics}");
    name.push('/');
    let _ = write!(Escaped(&mut name), "{key}");
    name
}

/// Takes text without the `/`.
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

/// The settings of [`KeyedTopics`].
#[must_use = "nothing is made until `build`"]
pub struct KeyedTopicsBuilder<K, E> {
    name: String,
    most: usize,
    event: Option<EventName>,
    each: Each<K, E>,
}

impl<K, E> KeyedTopicsBuilder<K, E>
where
    K: Hash + Eq + Clone + Display + Send + 'static,
    E: SseEvent + Send + Sync + 'static,
{
    /// The settings of each member, of which the key may be a part:
    /// `KeyedTopics::builder("builds").each(|topic, _build| topic.retain_events(500))`.
    ///
    /// It is called when a member is made, now and then for one that another was quicker to make.
    pub fn each(
        mut self,
        each: impl Fn(TopicBuilder<E>, &K) -> TopicBuilder<E> + Send + Sync + 'static,
    ) -> Self {
        self.each = Box::new(each);
        self
    }

    /// The name of events that do not say their own, in all members, as [`TopicBuilder::event`] says it for one topic.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] when the text cannot be an [`EventName`].
    pub fn event(mut self, name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidField> {
        self.event = Some(EventName::new(name)?);
        Ok(self)
    }

    /// So many members at most, 10,000 if not said. Those that keep events count, so `most` times what
    /// [`retain_bytes`](TopicBuilder::retain_bytes) says is what the family may take in memory.
    pub fn most(mut self, members: usize) -> Self {
        self.most = members;
        self
    }

    /// The family.
    pub fn build(self) -> KeyedTopics<K, E> {
        let Self { name, most, event, each } = self;
        let members =
            Members { topics: HashMap::new(), round: BTreeMap::new(), next: 0, looked: None };
        let (members, full) = (Mutex::new(members), Full::default());
        KeyedTopics { inner: Arc::new(Inner { name, most, event, each, members, full }) }
    }
}

/// A family has as many [`KeyedTopics`] as it may have, and all are needed. As an answer it is a `503`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLimitReached {
    topics: String,
    most: usize,
}

impl Display for TopicLimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topics, most } = self;
        write!(
            f,
            "there are {most} topics in `{topics}`, and each is held, followed or keeps events: raise `most`, or \
             lower `retain_for`"
        )
    }
}

impl std::error::Error for TopicLimitReached {}
