//! Several topics on one stream: one id for all of them, and none waits for another.

use axum::Router;
use futures_util::{FutureExt, StreamExt};
use hero_sse::options::Overflow;
use hero_sse::prelude::*;
use hero_sse::{CloseReason, SseOptions};
use serde::Serialize;
use serde_json::{Value, json};

use crate::support::testing::{self, EventReader, Received};
use crate::support::{Log, options, serving, sse_with};

#[derive(Clone, Debug, Serialize, SseEvent)]
struct Order {
    n: u64,
}

#[derive(Clone, Debug, SseEvent)]
enum Note {
    Note {
        n: u64,
        text: String,
    },
    #[sse(last)]
    End {
        n: u64,
    },
}

fn note(n: u64) -> Note {
    Note::Note { n, text: String::new() }
}

fn order(n: u64) -> Order {
    Order { n }
}

async fn next(reader: &mut EventReader) -> Received {
    reader.next().await.expect("an event").expect("more")
}

fn what(event: &Received) -> (String, u64) {
    let n = event.json::<Value>().expect("JSON")["n"].as_u64().unwrap_or_default();
    (event.event.clone(), n)
}

/// The next events of the application, by name.
async fn some(reader: &mut EventReader, count: usize) -> Vec<(String, u64)> {
    let mut events = Vec::new();
    while events.len() < count {
        let event = next(reader).await;
        assert_ne!(event.event, "hero.gap", "{event:?}");
        if !event.event.starts_with("hero.") {
            events.push(what(&event));
        }
    }
    events
}

fn of(events: &[(String, u64)], name: &str) -> Vec<u64> {
    events.iter().filter(|(of, _)| of == name).map(|(_, n)| *n).collect()
}

fn both(orders: &Topic<Order>, notes: &Topic<Note>) -> Router {
    let (orders, notes) = (orders.clone(), notes.clone());
    serving(&sse_with(SseOptions::default()), move || {
        orders.subscribe().from_start().and(notes.subscribe().from_start())
    })
}

/// Whichever event a client had last, it gets the rest of each topic.
#[tokio::test(start_paused = true)]
async fn one_id_stands_for_all_topics() {
    let (orders, notes) = (Topic::new("orders"), Topic::new("notes"));
    let app = both(&orders, &notes);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let cursor = next(&mut reader).await;
    assert_eq!(cursor.event, "hero.cursor");
    let mut ids = vec![(cursor.id.expect("an id"), 0)];
    let mut had = Vec::new();
    for n in 1..=20 {
        orders.publish(order(n)).await.expect("sent");
        if n % 3 == 0 {
            notes.publish_all([note(n), note(n + 100)]).await.expect("sent");
        }
        while let Some(Ok(Some(event))) = reader.next().now_or_never() {
            had.push(what(&event));
            ids.push((event.id.expect("an id"), had.len()));
        }
    }
    assert_eq!((of(&had, "order").len(), of(&had, "note").len()), (20, 12));
    for (id, count) in ids {
        let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let rest = some(&mut reader, had.len() - count).await;
        assert!(reader.next().now_or_never().is_none(), "too much after {count}");
        for name in ["order", "note"] {
            let all = [of(&had[..count], name), of(&rest, name)].concat();
            assert_eq!(all, of(&had, name), "{name} behind {count}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn topics_may_come_and_go() {
    let [one, two, three] = ["one", "two", "three"].map(Topic::<Order>::new);
    let subscribe = {
        let topics = [one.clone(), two.clone(), three.clone()];
        move |of: &[usize]| {
            let mut all = of.iter().map(|at| topics[*at].subscribe());
            let first = all.next().expect("one").and(all.next().expect("two"));
            all.fold(first, hero_sse::MergedSubscription::and)
        }
    };
    let open = async |of: &'static [usize], id: &str| {
        let subscribe = subscribe.clone();
        let app = serving(&sse_with(SseOptions::default()), move || subscribe(of));
        let request = testing::open(&app, "/s");
        let request = if id.is_empty() { request } else { request.last_event_id(id) };
        request.await.expect("a stream")
    };
    let mut reader = open(&[0, 1], "").await;
    next(&mut reader).await;
    for (topic, n) in [(&one, 1), (&two, 2)] {
        topic.publish(order(n)).await.expect("sent");
    }
    some(&mut reader, 1).await;
    let id = next(&mut reader).await.id.expect("an id");
    for (topic, n) in [(&one, 3), (&two, 4), (&three, 5)] {
        topic.publish(order(n)).await.expect("sent");
    }
    // In another order, and with one more: that one has nothing to make up for.
    let mut reader = open(&[2, 1, 0], &id).await;
    let mut events = some(&mut reader, 2).await;
    events.sort();
    assert_eq!(of(&events, "order"), [3, 4]);
    three.publish(order(6)).await.expect("sent");
    let with_three = next(&mut reader).await;
    assert_eq!(what(&with_three).1, 6);
    let with_three = with_three.id.expect("an id");
    assert_eq!(with_three.split('.').count(), 3);
    // One less, on its own too.
    one.publish(order(7)).await.expect("sent");
    let mut reader = open(&[2, 0], &with_three).await;
    assert_eq!(of(&some(&mut reader, 1).await, "order"), [7]);
    let app = serving(&sse_with(SseOptions::default()), move || one.subscribe());
    let mut reader = testing::open(&app, "/s").last_event_id(&with_three).await.expect("a stream");
    assert_eq!(of(&some(&mut reader, 1).await, "order"), [7]);
    // One gone and another new: nobody can tell that from a restart.
    let mut reader = open(&[1, 2], &id).await;
    let (event, gap) = (next(&mut reader).await, next(&mut reader).await);
    assert_eq!((what(&event).1, gap.event.as_str()), (4, "hero.gap"));
    let gap: Value = gap.json().expect("JSON");
    assert_eq!((&gap["missed"], &gap["part"]), (&Value::Null, &json!(1)));
}

/// A topic with much to say leaves room for one with little, and no write is large.
#[tokio::test(start_paused = true)]
async fn a_busy_topic_starves_no_other() {
    let (orders, notes) =
        (Topic::builder("orders").retain_events(5_000).build(), Topic::new("notes"));
    orders.publish_all((1..=5_000).map(order)).await.expect("sent");
    let mut stream = Box::pin(orders.subscribe().from_start().and(notes.subscribe()));
    let mut write = || {
        let frames = stream.next().now_or_never().expect("ready").expect("more").expect("no error");
        testing::frame(&frames).expect("frames")
    };
    for n in 1..=4 {
        notes.publish(note(n)).await.expect("sent");
        let text = write();
        assert!(text.len() <= 16 * 1024 && text.len() > 12 * 1024, "{}", text.len());
        assert!(text.contains(&format!("data: {{\"n\":{n},\"text\"")), "{text}");
    }
    let large = Note::Note { n: 5, text: "x".repeat(50_000) };
    notes.publish(large).await.expect("sent");
    let sizes: Vec<_> = (0..4).map(|_| write().len()).collect();
    assert_eq!(sizes.iter().filter(|size| **size > 16 * 1024).count(), 1, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 50_400), "{sizes:?}");
}

/// A large state leaves alone; what a topic begins with meanwhile is of the life that it has by then.
#[tokio::test(start_paused = true)]
async fn an_id_belongs_to_the_epoch_of_its_event() {
    #[derive(Clone, Serialize, SseEvent)]
    struct Large {
        pad: String,
    }
    let large = Large { pad: "x".repeat(20_000) };
    let orders = Topic::builder("orders").snapshot(large, |_, _: &Order| ()).build();
    let broker = hero_sse::topic::MemoryBroker::new();
    let notes = Topic::builder("notes").open(&broker).await.expect("open");
    notes.publish_all([note(1), note(2)]).await.expect("sent");
    let mut stream = Box::pin(orders.subscribe().and(notes.subscribe().recent(1)));
    let mut write = || {
        let frames = stream.next().now_or_never().expect("ready").expect("more").expect("no error");
        testing::frame(&frames).expect("frames")
    };
    assert!(!write().contains("event: note"));
    broker.drop_log("notes");
    notes.publish(note(3)).await.expect("sent");
    let text = write();
    assert!(text.contains("\"n\":3"), "{text}");
    let id = text.strip_prefix("id: ").and_then(|text| text.lines().next()).expect("an id");
    let app = serving(&sse_with(SseOptions::default()), {
        let (orders, notes) = (orders.clone(), notes.clone());
        move || orders.subscribe().and(notes.subscribe())
    });
    let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    notes.publish(note(4)).await.expect("sent");
    assert_eq!(what(&next(&mut reader).await), ("note".to_owned(), 4));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_last_of_its_topics() {
    let [one, two] = ["one", "two"].map(Topic::<Note>::new);
    let sse = sse_with(SseOptions::default());
    let topics = (one.clone(), two.clone());
    let app = serving(&sse, move || topics.0.subscribe().and(topics.1.subscribe()));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    one.publish(Note::End { n: 1 }).await.expect("sent");
    let first = next(&mut reader).await.id.expect("an id");
    assert!(!first.contains("hero.end"), "{first}");
    two.publish(note(2)).await.expect("sent");
    let second = next(&mut reader).await.id.expect("an id");
    let mut late = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(of(&some(&mut late, 1).await, "end"), [1]);
    two.publish(Note::End { n: 3 }).await.expect("sent");
    for mut reader in [
        reader,
        late,
        testing::open(&app, "/s").last_event_id(first).await.expect("a stream"),
        testing::open(&app, "/s").last_event_id(second).await.expect("a stream"),
    ] {
        let rest = reader.read_to_end().await.expect("all");
        let [.., end, close] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!((what(end), close.event.as_str()), (("end".to_owned(), 3), "hero.close"));
        let id = end.id.clone().expect("an id");
        assert!(id.ends_with(";hero.end"), "{id}");
        let refused = testing::open(&app, "/s").last_event_id(id).await.expect_err("no stream");
        assert_eq!(refused.status, Some(http::StatusCode::NO_CONTENT));
    }
    assert_eq!(sse.connections().closed(CloseReason::LastEvent), 4);
    // Its parts say that both have ended, though it has no mark.
    let ends = [&one, &two].map(|topic| {
        let last = topic.subscribe().next().now_or_never().expect("the last").expect("one");
        last.position().to_string()
    });
    let ended = ends.join(".");
    let mut reader = testing::open(&app, "/s").last_event_id(ended).await.expect("a stream");
    let rest = reader.read_to_end().await.expect("all");
    assert_eq!(rest[0].event, "hero.cursor");
    assert!(rest[0].id.as_ref().is_some_and(|id| id.ends_with(";hero.end")), "{rest:?}");

    let [three, four] = ["three", "four"].map(Topic::<Note>::new);
    let topics = (three.clone(), four.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        topics.0.subscribe().and(topics.1.subscribe())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    three.publish(Note::End { n: 1 }).await.expect("sent");
    four.close();
    let rest = reader.read_to_end().await.expect("all");
    assert!(rest[1].data.contains("\"ended\""), "{rest:?}");
    assert!(!rest[0].id.as_ref().expect("an id").contains("hero.end"));
}

/// Behind an adaptor a client is waited for, and the end is an end.
#[tokio::test(start_paused = true)]
async fn a_merged_stream_behind_an_adaptor_has_its_gaps_and_its_end() {
    let [one, two] = ["one", "two"].map(|name| Topic::builder(name).retain_events(20).build());
    let topics = (one.clone(), two.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        topics.0.subscribe().and(topics.1.subscribe()).map(|frames| frames)
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(next(&mut reader).await.event, "hero.cursor");
    one.publish_all((1..=30).map(note)).await.expect("sent");
    let gap = next(&mut reader).await;
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], 10);
    assert_eq!(of(&some(&mut reader, 20).await, "note"), (11..=30).collect::<Vec<_>>());
    one.publish(Note::End { n: 1 }).await.expect("sent");
    two.publish(Note::End { n: 2 }).await.expect("sent");
    let rest = reader.read_to_end().await.expect("all");
    let names: Vec<_> = rest.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["end", "end", "hero.close"]);
    assert!(rest[2].data.contains("\"last_event\""), "{rest:?}");
}

/// One that has ended is not asked again and again while the others have nothing to say.
#[test]
fn a_stream_beside_an_ended_topic_is_not_woken_in_vain() {
    struct Wakes(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Wakes {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let [one, two] = ["one", "two"].map(Topic::<Note>::new);
    one.publish(Note::End { n: 1 }).now_or_never().expect("at once").expect("sent");
    let mut stream = Box::pin(one.subscribe().and(two.subscribe()));
    let wakes = std::sync::Arc::new(Wakes(Default::default()));
    let waker = wakes.clone().into();
    let mut poll = || stream.as_mut().poll_next(&mut std::task::Context::from_waker(&waker));
    assert!(poll().is_ready() && poll().is_pending());
    assert_eq!(wakes.0.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_too_slow_for_each_topic_on_its_own() {
    for (overflow, orders_left) in [(Overflow::DropOldest, 5), (Overflow::Latest, 1)] {
        let (orders, notes) = (Topic::new("orders"), Topic::new("notes"));
        let settings = SseOptions::default().overflow(overflow).buffer(5);
        let topics = (notes.clone(), orders.clone());
        let sse = sse_with(settings);
        let app = serving(&sse, move || topics.0.subscribe().and(topics.1.subscribe()));
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        next(&mut reader).await;
        for n in 1..=50 {
            orders.publish(order(n)).await.expect("sent");
        }
        notes.publish(note(1)).await.expect("sent");
        let mut events = Vec::new();
        while let Some(Ok(Some(event))) = reader.next().now_or_never() {
            events.push(event);
        }
        let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(names.iter().filter(|name| **name == "order").count(), orders_left, "{names:?}");
        assert_eq!(names.iter().filter(|name| **name == "note").count(), 1);
        let gap = events.iter().find(|event| event.event == "hero.gap");
        assert_eq!(gap.is_some(), overflow == Overflow::DropOldest);
        if let Some(gap) = gap {
            let gap: Value = gap.json().expect("JSON");
            assert_eq!((&gap["missed"], &gap["part"]), (&json!(45), &json!(1)));
            assert_eq!(sse.connections().gaps(), 1);
        }
    }
    let (orders, notes) =
        (Topic::builder("orders").retain_events(100).build(), Topic::<Note>::new("notes"));
    let sse = sse_with(SseOptions::default());
    let topics = (notes.clone(), orders.clone());
    let app = serving(&sse, move || topics.0.subscribe().and(topics.1.subscribe()));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let id = next(&mut reader).await.id.expect("an id");
    for n in 1..=90 {
        orders.publish(order(n)).await.expect("sent");
    }
    let rest = reader.read_to_end().await.expect("all");
    assert!(rest.last().expect("a closing event").data.contains("\"overflow\""), "{rest:?}");
    let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    assert_eq!(of(&some(&mut reader, 90).await, "order"), (1..=90).collect::<Vec<_>>());
}

/// A gap that one topic has not completed is sent again to a client that reconnects with the id of another's event.
#[tokio::test(start_paused = true)]
async fn a_slow_gap_reply_delays_no_other_topic_and_is_not_lost() {
    let (orders, notes) =
        (Topic::builder("orders").retain_events(2).build(), Topic::<Note>::new("notes"));
    let sse = sse_with(SseOptions::default());
    let topics = (orders.clone(), notes.clone());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let app = serving(&sse, move || {
        let count = count.clone();
        let never = move |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::future::pending::<Result<Vec<Event>, _>>()
        };
        topics.0.subscribe().on_gap(never).and(topics.1.subscribe())
    });
    let old = orders.publish(order(1)).await.expect("sent").to_string();
    orders.publish_all((2..=9).map(order)).await.expect("sent");
    let stale = Topic::<Order>::new("orders").publish(order(1)).await.expect("sent").to_string();
    for (mut id, missed) in [(old, json!(6)), (stale, Value::Null)] {
        for round in 0..3 {
            let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
            let mut gap = next(&mut reader).await;
            while gap.event == "hero.gap" && gap.json::<Value>().expect("JSON")["part"] == 1 {
                gap = next(&mut reader).await;
            }
            assert_eq!(gap.json::<Value>().expect("JSON")["missed"], missed, "{round}");
            notes.publish(note(round)).await.expect("sent");
            let mut event = next(&mut reader).await;
            while event.event.starts_with("hero.") {
                event = next(&mut reader).await;
            }
            assert_eq!(what(&event), ("note".to_owned(), round));
            id = event.id.expect("an id");
        }
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 6);
}

/// A new client's topic with a state is new until it has that.
#[tokio::test(start_paused = true)]
async fn filters_and_states_are_each_topics_own() {
    #[derive(Clone, Default, Serialize, SseEvent)]
    struct Sum {
        n: u64,
    }
    let orders = Topic::builder("orders")
        .snapshot(Sum::default(), |sum, order: &Order| sum.n += order.n)
        .build();
    let notes = Topic::new("notes");
    orders.publish_all((1..=4).map(order)).await.expect("sent");
    let topics = (orders.clone(), notes.clone());
    let sse = sse_with(options("HeartbeatInterval = \"10s\""));
    let app = serving(&sse, move || {
        let odd = |note: &Note| matches!(note, Note::Note { n, .. } if n % 2 == 1);
        topics.0.subscribe().and(topics.1.subscribe().filter(odd))
    });
    let reader = testing::open(&app, "/s").await.expect("a stream");
    let mut reader = reader.timeout(std::time::Duration::from_secs(60));
    let sum = next(&mut reader).await;
    assert_eq!(what(&sum), ("sum".to_owned(), 10));
    assert!(reader.next().now_or_never().is_none(), "it knows where it stands");
    notes.publish_all((1..=5).map(note)).await.expect("sent");
    assert_eq!(of(&some(&mut reader, 3).await, "note"), [1, 3, 5]);
    notes.publish(note(6)).await.expect("sent");
    assert!(reader.next().now_or_never().is_none());
    let cursor = next(&mut reader).await;
    assert_eq!(cursor.event, "hero.cursor");
    notes.publish(note(7)).await.expect("sent");
    orders.publish(order(5)).await.expect("sent");
    for id in [sum.id, cursor.id] {
        let id = id.expect("an id");
        let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let mut names = Vec::new();
        while let Some(Ok(Some(event))) = reader.next().now_or_never() {
            names.push(event.event);
        }
        assert!(!names.contains(&"sum".to_owned()), "{names:?}");
        assert_eq!(names.iter().filter(|name| *name == "order").count(), 1);
    }
    // Whoever leaves before it has the state gets it the next time, however much it had of another topic.
    let topics = (orders, notes.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        topics.1.subscribe().recent(1).and(topics.0.subscribe())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let first = next(&mut reader).await;
    assert_eq!(what(&first), ("note".to_owned(), 7));
    let id = first.id.expect("an id");
    let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    assert_eq!(what(&next(&mut reader).await), ("sum".to_owned(), 15));
}

#[tokio::test(start_paused = true)]
async fn a_ninth_topic_on_a_stream_is_refused() {
    let topics: Vec<_> = (0..9).map(|n| Topic::<Order>::new(format!("topic {n}"))).collect();
    for count in [8, 9] {
        let topics = topics.clone();
        let app = serving(&sse_with(SseOptions::default()), move || {
            let mut all = topics.iter().take(count).map(Topic::subscribe);
            let first = all.next().expect("one").and(all.next().expect("two"));
            all.fold(first, hero_sse::MergedSubscription::and)
        });
        let (log, _guard) = Log::everything();
        let opened = testing::open(&app, "/s").await;
        if count == 8 {
            let cursor = next(&mut opened.expect("a stream")).await;
            let id = cursor.id.expect("an id");
            assert_eq!((cursor.event.as_str(), id.len()), ("hero.cursor", 183));
            testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
        } else {
            let refused = opened.expect_err("no stream");
            assert_eq!(refused.status, Some(http::StatusCode::INTERNAL_SERVER_ERROR));
            assert!(log.text().contains("9 topics on one stream: 8 have room"), "{}", log.text());
        }
    }
}

/// Three topics that are published to while a client breaks off again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reconnects_often_gets_each_event_once() {
    const EVENTS: u64 = 1_500;
    let topics: Vec<Topic<Note>> = ["a", "b", "c"].into_iter().map(Topic::new).collect();
    let publishers: Vec<_> = topics
        .iter()
        .cloned()
        .map(|topic| {
            tokio::spawn(async move {
                let mut n = 0;
                while n < EVENTS {
                    let burst = fastrand::u64(1..=20).min(EVENTS - n);
                    let of = topic.name().to_owned();
                    let text = "x".repeat(fastrand::usize(..300));
                    let notes =
                        (n..n + burst).map(|n| Note::Note { n, text: format!("{of}{text}") });
                    topic.publish_all(notes).await.expect("sent");
                    n += burst;
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                topic.publish(Note::End { n }).await.expect("sent");
            })
        })
        .collect();
    let of = topics.clone();
    let sse = sse_with(SseOptions::default());
    let app = serving(&sse, move || {
        let mut order = [0, 1, 2];
        fastrand::shuffle(&mut order);
        let [a, b, c] = order.map(|at| of[at].subscribe().from_start());
        a.and(b).and(c)
    });
    let (mut had, mut id, mut breaks) = (Vec::new(), None::<String>, 0);
    'over: loop {
        let mut request = testing::open(&app, "/s");
        if let Some(id) = &id {
            request = request.last_event_id(id);
        }
        let mut reader = match request.await {
            Ok(reader) => reader,
            // It disconnected between the end mark and `hero.close`.
            Err(refused) if refused.status == Some(http::StatusCode::NO_CONTENT) => break,
            Err(refused) => panic!("a stream: {refused:?}"),
        };
        for _ in 0..fastrand::usize(1..60) {
            let event = next(&mut reader).await;
            if event.event == "hero.close" {
                // Too slow for this machine: it comes back.
                assert!(event.data.contains("overflow") || event.data.contains("last_event"));
                if event.data.contains("last_event") {
                    break 'over;
                }
                break;
            }
            id = event.id.clone().or(id);
            if event.event == "note" {
                let data: Value = event.json().expect("JSON");
                let of = data["text"].as_str().expect("text").chars().next().expect("a name");
                had.push((of, data["n"].as_u64().expect("n")));
            } else {
                assert!(["end", "hero.cursor"].contains(&event.event.as_str()), "{event:?}");
            }
        }
        breaks += 1;
    }
    for publisher in publishers {
        publisher.await.expect("no panic");
    }
    assert!(breaks > 50, "{breaks}");
    for name in ['a', 'b', 'c'] {
        let numbers: Vec<_> = had.iter().filter(|(of, _)| *of == name).map(|(_, n)| *n).collect();
        assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "{name}");
    }
}

/// What happens in a topic that is new on the stream is not lost with a connection that had no event yet.
#[tokio::test(start_paused = true)]
async fn an_added_topic_has_a_position_to_resume_from() {
    let (orders, notes) = (Topic::new("orders"), Topic::new("notes"));
    let id = orders.publish(order(1)).await.expect("sent").to_string();
    let app = both(&orders, &notes);
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    let cursor = next(&mut reader).await;
    assert_eq!(cursor.event, "hero.cursor");
    drop(reader);
    notes.publish(note(2)).await.expect("sent");
    let id = cursor.id.expect("an id");
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(what(&next(&mut reader).await).1, 2);
}

/// A topic of latest values has no gap, whatever the id. The other topic's gap is sent.
#[tokio::test(start_paused = true)]
async fn an_id_of_another_epoch_is_no_gap_for_latest_values() {
    let (orders, notes) = (Topic::new("orders"), Topic::latest("notes"));
    orders.publish(order(1)).await.expect("sent");
    notes.publish(note(2)).await.expect("sent");
    let app = both(&orders, &notes);
    let mut reader = testing::open(&app, "/s").last_event_id("A.B").await.expect("a stream");
    let events = [next(&mut reader).await, next(&mut reader).await, next(&mut reader).await];
    let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["hero.gap", "order", "note"]);
    assert_eq!(events[0].json::<Value>().expect("JSON")["part"], 0);
}

/// Twice the same log: clones of a topic, or two topics that one broker keeps under one name.
#[tokio::test(start_paused = true)]
async fn a_topic_twice_on_a_stream_is_refused() {
    let orders = Topic::<Order>::new("orders");
    let broker = hero_sse::topic::MemoryBroker::new();
    let opened = async || Topic::<Order>::builder("orders").open(&broker).await.expect("open");
    for (one, other) in [(orders.clone(), orders.clone()), (opened().await, opened().await)] {
        let (sse, notes) = (sse_with(SseOptions::default()), Topic::<Note>::new("notes"));
        let topics = (one.clone(), other.clone());
        let app = serving(&sse, move || {
            let small = topics.0.subscribe().filter(|order| order.n < 40);
            let large = topics.1.subscribe().filter(|order| order.n >= 40);
            small.and(notes.subscribe()).and(large)
        });
        let (log, _guard) = Log::everything();
        // Also with a cursor: it is refused before anything is resumed.
        let id = one.publish(order(1)).await.expect("sent").to_string();
        for request in [testing::open(&app, "/s"), testing::open(&app, "/s").last_event_id(id)] {
            let refused = request.await.expect_err("no stream");
            assert_eq!(refused.status, Some(http::StatusCode::INTERNAL_SERVER_ERROR));
        }
        let text = log.text();
        assert!(text.contains("topic \"orders\" is on one stream twice"), "{text}");
        assert!(text.contains("subscribe to it once, with a filter"), "{text}");
        assert_eq!((sse.connections().len(), one.subscribers()), (0, 0));

        // Behind an adaptor the stream has begun: there it is an error of the stream.
        let topics = (one.clone(), other.clone());
        let app = serving(&sse_with(SseOptions::default()), move || {
            topics.0.subscribe().and(topics.1.subscribe()).map(|events| events)
        });
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(reader.read_to_end().await.expect("all").len(), 1, "`hero.close` alone");
        assert_eq!(reader.close_reason(), Some(CloseReason::StreamError));
    }
    // Read by hand it yields the error, and ends.
    let mut stream = orders.subscribe().and(orders.subscribe());
    assert!(matches!(stream.next().await, Some(Err(_))));
    assert!(stream.next().await.is_none());
}

/// Topics of the same name are two topics, unless a broker keeps them as one.
#[tokio::test(start_paused = true)]
async fn two_topics_of_one_name_may_be_on_one_stream() {
    let [one, two] = [Topic::<Order>::new("orders"), Topic::<Order>::new("orders")];
    let topics = (one.clone(), two.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        topics.0.subscribe().and(topics.1.subscribe())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    one.publish(order(1)).await.expect("sent");
    two.publish(order(2)).await.expect("sent");
    assert_eq!(of(&some(&mut reader, 2).await, "order"), [1, 2]);
}
