//! One topic per key: created once, retained while it is used, removed afterwards.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::IntoResponse;
use futures_util::{FutureExt, Stream, StreamExt};
use hero_sse::event::{FrameWriter, InvalidEvent};
use hero_sse::prelude::*;
use hero_sse::topic::Resume;
use hero_sse::{CloseReason, SseOptions};
use http::StatusCode;
use serde::Serialize;

use crate::support::testing;
use crate::support::{Log, serving, sse_with};

#[derive(Debug, SseEvent)]
enum Build {
    Line {
        n: u64,
    },
    #[sse(last)]
    Done {},
}

const MINUTE: Duration = Duration::from_secs(61);

/// The keys that exist now.
fn ready<T: Stream + Unpin>(stream: &mut T) -> Poll<Option<T::Item>> {
    pin!(stream).poll_next(&mut Context::from_waker(futures_util::task::noop_waker_ref()))
}

#[tokio::test(start_paused = true)]
async fn a_key_has_one_topic_which_is_made_when_it_is_needed() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::new("builds");
    assert!(builds.get(&7).is_none() && builds.is_empty());
    let seven = builds.topic(&7).expect("a topic");
    let mut reader = builds.get(&7).expect("the topic").subscribe();
    builds.clone().topic(&7).expect("a topic").publish(Build::Line { n: 1 }).await.expect("sent");
    assert!(matches!(*reader.next().await.expect("an event"), Build::Line { n: 1 }));
    assert_eq!((seven.name(), seven.len(), builds.len()), ("builds/7", 1, 1));
    assert!(builds.topic(&8).expect("a topic").is_empty());
}

/// Ids and names belong to one topic, whatever the keys look like.
#[tokio::test(start_paused = true)]
async fn no_two_topics_share_a_name_or_an_id() {
    let names: Vec<_> = [("a", "b/c"), ("a/b", "c"), ("a", "b%2Fc"), ("a%2Fb", "c"), ("a/", "b")]
        .map(|(family, key)| {
            let family: KeyedTopics<String, Build> = KeyedTopics::new(family);
            family.topic(&key.to_owned()).expect("a topic").name().to_owned()
        })
        .into();
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");

    let tenants: KeyedTopics<&str, Build> = KeyedTopics::new("tenants");
    let [acme, globex] = ["acme", "globex"].map(|key| tenants.topic(&key).expect("a topic"));
    let of_acme = acme.publish(Build::Line { n: 1 }).await.expect("sent");
    globex.publish(Build::Line { n: 2 }).await.expect("sent");
    let sse = sse_with(SseOptions::default());
    let app = serving(&sse, move || globex.subscribe());
    let id = of_acme.to_string();
    let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    let gap = reader.next().await.expect("an event").expect("more");
    assert_eq!(gap.event, "hero.gap");
    assert_eq!(gap.json::<serde_json::Value>().expect("JSON")["missed"], serde_json::Value::Null);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_needed_goes() {
    let builds: KeyedTopics<u64, Build> =
        KeyedTopics::builder("builds").each_topic(|topic, _| topic.retain_for(10 * MINUTE)).build();
    let held = builds.topic(&1).expect("a topic");
    let mut followed = builds.topic(&2).expect("a topic").subscribe();
    builds.topic(&3).expect("a topic").publish(Build::Line { n: 1 }).await.expect("sent");
    builds.topic(&4).expect("a topic");
    assert_eq!(builds.len(), 4);
    // A reconnecting client finds its topic.
    tokio::time::advance(MINUTE / 2).await;
    assert_eq!(builds.len(), 4);
    tokio::time::advance(MINUTE).await;
    assert_eq!(builds.len(), 3);
    assert!(builds.get(&4).is_none());
    builds.topic(&2).expect("a topic").publish(Build::Line { n: 2 }).await.expect("sent");
    assert!(followed.next().await.is_some());
    assert!(matches!(ready(&mut followed), Poll::Pending));
    drop((held, followed));
    // Two of them retain an event.
    builds.len();
    tokio::time::advance(MINUTE).await;
    assert_eq!(builds.len(), 2);
    tokio::time::advance(10 * MINUTE).await;
    assert_eq!(builds.len(), 2);
    tokio::time::advance(MINUTE).await;
    assert_eq!(builds.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_minute_begins_when_somebody_was_there_last() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::new("builds");
    builds.topic(&1).expect("a topic");
    assert_eq!(builds.len(), 1);
    for _ in 0..4 {
        tokio::time::advance(MINUTE * 2 / 3).await;
        assert!(builds.get(&1).is_some());
    }
    tokio::time::advance(MINUTE * 2 / 3).await;
    assert_eq!(builds.len(), 1);
    tokio::time::advance(MINUTE).await;
    assert_eq!(builds.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_build_waits_for_who_comes_late() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::new("builds");
    let build = builds.topic(&1).expect("a topic");
    build.publish_all([Build::Line { n: 1 }, Build::Done {}]).await.expect("sent");
    drop(build);
    let sse = sse_with(SseOptions::default());
    let of = builds.clone();
    let app = serving(&sse, move || of.get(&1).expect("a topic").subscribe().from_start());
    for _ in 0..3 {
        tokio::time::advance(10 * MINUTE).await;
        assert_eq!(builds.len(), 1);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        let names: Vec<_> =
            reader.read_to_end().await.expect("all").into_iter().map(|e| e.event).collect();
        assert_eq!(names, ["line", "done", "hero.close"]);
    }
    assert_eq!(sse.connections().closed(CloseReason::LastEvent), 3);
    tokio::time::advance(60 * MINUTE).await;
    assert!(builds.get(&1).is_none());
    let again = builds.topic(&1).expect("a topic");
    assert!(!again.is_closed() && again.is_empty());
    again.publish(Build::Line { n: 1 }).await.expect("another topic");
}

#[tokio::test(start_paused = true)]
async fn a_full_family_gives_up_no_history() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::builder("builds").max_topics(3).build();
    builds.topic(&1).expect("a topic").publish(Build::Line { n: 1 }).await.expect("sent");
    let two = builds.topic(&2).expect("a topic");
    let three = builds.topic(&3).expect("a topic").subscribe();
    let (log, guard) = Log::everything();
    let full = builds.topic(&4).expect_err("no room");
    assert!(log.text().contains("`max_topics` is reached"), "{}", log.text());
    drop(guard);
    assert!(full.to_string().contains("`builds` has 3 topics"), "{full}");
    assert_eq!(full.clone().into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(Refusal::from(full).into_response().headers()["retry-after"], "3");
    // Existing topics are still found.
    assert!(builds.topic(&2).is_ok() && builds.get(&1).is_some());
    drop(two);
    let four = builds.topic(&4).expect("the place of one that nobody needs");
    assert!(builds.get(&2).is_none());
    assert!(builds.topic(&5).is_err());
    assert!(matches!(three.resume_state(), Resume::Live));
    drop((three, four));
    assert!(builds.topic(&5).is_ok() && builds.topic(&6).is_ok());
    assert_eq!(builds.get(&1).expect("a topic").len(), 1);
}

/// A new topic evicts an unused one when the limit is reached.
#[tokio::test(start_paused = true)]
async fn making_some_takes_out_those_that_nobody_needs() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::new("builds");
    for minute in 0..10 {
        for key in 0..200 {
            builds.topic(&(minute * 200 + key)).expect("a topic");
        }
        tokio::time::advance(MINUTE).await;
    }
    assert!(builds.len() < 600, "{}", builds.len());
}

/// When the limit is reached, an invented key costs a look at a few topics, not at all of them.
#[tokio::test(start_paused = true)]
async fn who_finds_no_room_again_and_again_looks_at_few() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    #[derive(Clone, PartialEq, Eq)]
    struct Key(u64);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            LOOKS.fetch_add(1, Ordering::SeqCst);
            self.0.hash(state);
        }
    }
    impl std::fmt::Display for Key {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }
    let builds: KeyedTopics<Key, Build> = KeyedTopics::builder("builds").max_topics(5_000).build();
    let _held: Vec<_> = (0..5_000).map(|n| builds.topic(&Key(n)).expect("a topic")).collect();
    let looked = || {
        assert!(builds.topic(&Key(9_999)).is_err());
        LOOKS.swap(0, Ordering::SeqCst)
    };
    looked();
    assert!((0..50).all(|_| looked() < 100));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(looked() > 5_000);
    assert!(looked() < 100);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_looks_at_all() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::builder("builds").max_topics(1_000).build();
    let mut held: Vec<_> = (0..1_000).map(|key| builds.topic(&key).expect("a topic")).collect();
    held.pop();
    held.push(builds.topic(&1_000).expect("the place of the one that nobody needs"));
    held.pop();
    // All topics were examined just now. The next full examination is allowed a second later.
    tokio::time::advance(Duration::from_secs(1)).await;
    held.push(builds.topic(&1_001).expect("another's place"));
    assert!(builds.topic(&1_002).is_err());
}

/// Latest values have no age limit: their topics stay until they are removed explicitly.
#[tokio::test(start_paused = true)]
async fn what_is_removed_has_ended_and_the_next_of_its_key_is_another() {
    let gauges: KeyedTopics<u64, Build> =
        KeyedTopics::builder("gauges").max_topics(2).each_topic(|topic, _| topic.latest()).build();
    assert!(!gauges.remove(&1));
    let held = gauges.topic(&1).expect("a topic");
    held.publish(Build::Line { n: 1 }).await.expect("sent");
    gauges.topic(&2).expect("a topic").publish(Build::Done {}).await.expect("sent");
    tokio::time::advance(1_000 * MINUTE).await;
    assert!(gauges.topic(&3).is_err() && gauges.len() == 2);
    let mut reader = held.subscribe();
    assert!(gauges.remove(&1) && gauges.remove(&2) && !gauges.remove(&1));
    assert_eq!((gauges.len(), held.is_closed()), (0, true));
    assert!(held.publish(Build::Line { n: 2 }).await.is_err());
    assert!(matches!(*reader.next().await.expect("what there is"), Build::Line { n: 1 }));
    assert!(reader.next().await.is_none());
    for key in [1, 2] {
        let another = gauges.topic(&key).expect("room");
        assert!(another.is_empty() && !another.is_closed());
        another.publish(Build::Line { n: 3 }).await.expect("sent");
    }
    assert_eq!(held.len(), 1, "of the earlier one");
}

/// A reader that is woken by the end may remove the topic as well, and create the next one of its key. That one stays.
#[test]
fn what_is_removed_twice_takes_no_other_with_it() {
    struct Again(KeyedTopics<u64, Build>, std::sync::Mutex<Option<Topic<Build>>>);
    impl std::task::Wake for Again {
        fn wake(self: Arc<Self>) {
            let removed = self.0.remove(&1);
            let another = self.0.topic(&1).expect("room");
            *self.1.lock().expect("the other") = removed.then_some(another);
        }
    }
    let builds: KeyedTopics<u64, Build> = KeyedTopics::new("builds");
    let mut reader = builds.topic(&1).expect("a topic").subscribe();
    let again = Arc::new(Again(builds.clone(), Default::default()));
    let waker = again.clone().into();
    assert!(pin!(reader.next()).poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(!builds.remove(&1), "another has removed it");
    let another = again.1.lock().expect("the other").take().expect("it was woken");
    let mut reader = builds.get(&1).expect("the key's next topic").subscribe();
    another.publish(Build::Line { n: 1 }).now_or_never().expect("at once").expect("sent");
    assert!(matches!(ready(&mut reader), Poll::Ready(Some(_))));
}

/// Nothing of a removed topic is left, not even its key in the order of examination.
#[test]
fn what_is_removed_leaves_no_key_behind() {
    let tenants: KeyedTopics<Arc<str>, Build> = KeyedTopics::new("tenants");
    let key = Arc::from("acme");
    tenants.topic(&key).expect("a topic");
    assert!(tenants.remove(&key));
    assert_eq!(Arc::strong_count(&key), 1);
}

/// A key that counts its comparisons and its copies.
#[derive(Clone)]
struct Counted {
    key: u64,
    compared: Arc<AtomicUsize>,
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.compared.fetch_add(1, Ordering::Relaxed);
        self.key == other.key
    }
}

impl Eq for Counted {}

impl std::hash::Hash for Counted {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

/// Many topics are removed at once, as when tenants leave or builds end.
#[test]
fn a_removal_looks_at_its_own_key_alone() {
    const KEYS: u64 = 20_000;
    let compared = Arc::new(AtomicUsize::new(0));
    let key = |key| Counted { key, compared: compared.clone() };
    let tenants: KeyedTopics<Counted, Build> =
        KeyedTopics::builder("tenants").max_topics(KEYS as usize).build();
    for n in 0..KEYS {
        tenants.topic(&key(n)).expect("a topic");
    }
    compared.store(0, Ordering::Relaxed);
    assert!((0..KEYS).rev().all(|n| tenants.remove(&key(n))));
    let compared_then = compared.load(Ordering::Relaxed);
    assert!(compared_then < 20 * KEYS as usize, "{compared_then} comparisons");
    assert!(tenants.is_empty());

    // Nor is anything left of topics that are created and removed beside one that stays.
    let _held = tenants.topic(&key(0)).expect("a topic");
    let before = Arc::strong_count(&compared);
    for n in 0..KEYS {
        tenants.topic(&key(1 + n % 3)).expect("a topic");
        assert!(tenants.remove(&key(1 + n % 3)));
    }
    assert_eq!(Arc::strong_count(&compared), before);
}

/// A key that was removed and created again is one topic, and is examined once per round.
#[tokio::test(start_paused = true)]
async fn a_key_that_comes_back_has_one_turn() {
    let builds: KeyedTopics<u64, Build> = KeyedTopics::new("builds");
    // Together with the one created again, as many as are examined each time.
    let held: Vec<_> = (1..64).map(|key| builds.topic(&key).expect("a topic")).collect();
    for _ in 0..100 {
        builds.topic(&0).expect("a topic");
        assert!(builds.remove(&0));
    }
    builds.topic(&0).expect("a topic");
    assert_eq!(builds.len(), 64);
    tokio::time::advance(MINUTE).await;
    assert_eq!(builds.len(), 63, "all were looked at, the one that nobody needs among them");
    assert!(builds.get(&0).is_none());
    drop(held);
    assert_eq!(builds.len(), 63);
    tokio::time::advance(MINUTE).await;
    assert_eq!(builds.len(), 0);
}

/// While other tasks create topics, and so examine unused ones, no topic with a subscription is evicted.
#[test]
fn a_sweep_takes_nobody_s_topic() {
    const THREADS: u64 = 4;
    let builds: KeyedTopics<u64, Build> = KeyedTopics::builder("builds")
        .max_topics(THREADS as usize + 1)
        .each_topic(|topic, _| topic.retain_for(Duration::ZERO))
        .build();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let builds = builds.clone();
            scope.spawn(move || {
                for round in 0..2_000 {
                    let key = thread * 100 + round % 10;
                    let made = loop {
                        match builds.topic(&key) {
                            Ok(topic) => break topic,
                            Err(_) => std::thread::yield_now(),
                        }
                    };
                    let mut reader = made.subscribe();
                    drop(made);
                    let found = builds.topic(&key).expect("it is followed");
                    let sent = found.publish(Build::Line { n: round }).now_or_never();
                    sent.expect("at once").expect("sent");
                    drop(found);
                    match ready(&mut reader) {
                        Poll::Ready(Some(event)) => match *event {
                            Build::Line { n } => assert_eq!(n, round),
                            Build::Done {} => panic!("the end"),
                        },
                        other => panic!("{round}: {:?}", other.map(|event| event.is_some())),
                    }
                }
            });
        }
    });
}

#[test]
fn no_race_makes_more_than_there_may_be() {
    const THREADS: u64 = 4;
    let (made, barrier) = (AtomicUsize::new(0), Barrier::new(THREADS as usize));
    // Reported afterwards: the other threads wait for the one that panics.
    let wrong = AtomicUsize::new(0);
    // Makes the other threads wait at the creation of a topic.
    let slow = |topic: hero_sse::topic::TopicBuilder<Build>, _: &u64| {
        std::thread::sleep(Duration::from_millis(2));
        topic
    };
    let builds: KeyedTopics<u64, Build> =
        KeyedTopics::builder("builds").max_topics(2).each_topic(slow).build();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (builds, made, barrier, wrong) = (&builds, &made, &barrier, &wrong);
            scope.spawn(move || {
                for round in 0..20 {
                    barrier.wait();
                    let topic = builds.topic(&(round * THREADS + thread));
                    made.fetch_add(usize::from(topic.is_ok()), Ordering::SeqCst);
                    barrier.wait();
                    let made_now = made.load(Ordering::SeqCst);
                    wrong.fetch_add(usize::from(made_now != 2), Ordering::SeqCst);
                    barrier.wait();
                    drop(topic);
                    made.store(0, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(wrong.into_inner(), 0);
    assert!(builds.len() <= 2);
}

/// An event's drop is user code, and may use the topics.
#[test]
fn no_event_is_dropped_under_the_family_s_lock() {
    struct Asks(KeyedTopics<u64, Asks>, Arc<AtomicUsize>);
    impl SseEvent for Asks {
        fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
            frame.text("x");
            Ok(())
        }
    }
    impl Drop for Asks {
        fn drop(&mut self) {
            let _ = (self.0.get(&1), self.0.len());
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let family: KeyedTopics<u64, Asks> = KeyedTopics::builder("asks")
            .max_topics(1)
            .each_topic(|topic, _| topic.retain_for(Duration::from_millis(200)))
            .build();
        let topic = family.topic(&1).expect("a topic");
        for _ in 0..5 {
            let asks = Asks(family.clone(), dropped.clone());
            topic.publish(asks).now_or_never().expect("at once").expect("sent");
        }
        drop(topic);
        std::thread::sleep(Duration::from_millis(250));
        family.topic(&2).expect("the place of one that nobody needs");
        let _ = done.send(dropped.load(Ordering::SeqCst));
    });
    assert_eq!(finished.recv_timeout(Duration::from_secs(20)), Ok(5), "no deadlock");
}

#[test]
fn a_key_is_never_split() {
    const THREADS: usize = 4;
    // Slow enough that other threads are faster.
    let slow = |topic: hero_sse::topic::TopicBuilder<Build>, _: &u64| {
        std::thread::sleep(Duration::from_millis(1));
        topic
    };
    let builds: KeyedTopics<u64, Build> = KeyedTopics::builder("builds").each_topic(slow).build();
    let barrier = Barrier::new(THREADS);
    // Reported afterwards: the other threads wait for the one that panics.
    let split = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (builds, barrier, split) = (&builds, &barrier, &split);
            scope.spawn(move || {
                for key in 0..300 {
                    barrier.wait();
                    let topic = if thread == 0 { builds.get(&key) } else { None };
                    let topic = topic.map_or_else(|| builds.topic(&key), Ok);
                    let reader = topic.expect("a topic").subscribe();
                    barrier.wait();
                    let topic = builds.topic(&key).expect("a topic");
                    let sent = topic.publish(Build::Line { n: thread as u64 }).now_or_never();
                    let sent = matches!(sent, Some(Ok(_)));
                    barrier.wait();
                    topic.close();
                    let all = reader.collect::<Vec<_>>().now_or_never();
                    let whole = sent && all.is_some_and(|all| all.len() == THREADS);
                    split.fetch_add(usize::from(!whole), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(split.into_inner(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_family_have_one_name_unless_a_member_says_another() {
    #[derive(Serialize, SseEvent)]
    struct Line {
        n: u64,
    }
    assert!(KeyedTopics::<u64, Line>::builder("builds").event("hero.line").is_err());
    let other = |topic: hero_sse::topic::TopicBuilder<Line>, key: &u64| match key {
        1 => topic,
        _ => Topic::builder("").event("other").unwrap_or(topic),
    };
    let builds =
        KeyedTopics::builder("builds").event("said").expect("a name").each_topic(other).build();
    let sse = sse_with(SseOptions::default());
    let both = builds.clone();
    let app = serving(&sse, move || {
        let [one, two] = [1, 2].map(|key| both.topic(&key).expect("a topic").subscribe());
        one.from_start().and(two.from_start())
    });
    for key in [1, 2] {
        builds.topic(&key).expect("a topic").publish(Line { n: key }).await.expect("sent");
    }
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let mut names = Vec::new();
    while names.len() < 2 {
        let event = reader.next().await.expect("an event").expect("more");
        names.push(event.event);
        names.retain(|name| name != "hero.cursor");
    }
    names.sort();
    assert_eq!(names, ["other", "said"]);
}
