//! New clients that get the application's state first, and clients that come with the position of a page.

use std::sync::Mutex;

use axum::Router;
use axum::routing::get;
use hero_sse::topic::{MemoryBroker, Position};

use super::steps::*;
use crate::support::Server;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

fn state(n: u64) -> (String, u64) {
    ("state".to_owned(), n)
}

async fn sent(topic: &Topic<Step>, numbers: std::ops::RangeInclusive<u64>) {
    topic.publish_all(numbers.map(step)).await.expect("sent");
}

/// Two states, the second of which waits until it is let through.
fn gated(gate: &Arc<Semaphore>, n: u64) -> impl Future<Output = Result<Vec<State>, Boxed>> + use<> {
    let gate = gate.clone();
    async move {
        gate.acquire().await.expect("open").forget();
        Ok(vec![State { n }, State { n: n + 100 }])
    }
}

/// An endpoint at `/s` whose hook waits for the gate.
fn beginning(
    topic: &Topic<Step>,
    gate: &Arc<Semaphore>,
    adapt: fn(Subscription<Step>) -> Subscription<Step>,
) -> Router {
    let (of, gate) = (topic.clone(), gate.clone());
    serving(&sse_with(SseOptions::default()), move || {
        let gate = gate.clone();
        adapt(of.subscribe()).begin_with(move || gated(&gate, 7))
    })
}

/// `b16` of the reports from the field.
#[tokio::test(start_paused = true)]
async fn a_new_client_gets_the_state_and_then_exactly_what_is_published_after() {
    let (topic, gate) = (Topic::new("steps"), Arc::new(Semaphore::new(0)));
    sent(&topic, 1..=3).await;
    let app = beginning(&topic, &gate, |all| all);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    // Nothing is sent before the hook is done, not even a position to resume from.
    assert_eq!(there(&mut reader), []);
    sent(&topic, 4..=6).await;
    assert_eq!(there(&mut reader), []);
    gate.add_permits(1);
    let (first, second) = (next(&mut reader).await, next(&mut reader).await);
    assert_eq!((what(&first), first.id), (state(7), None), "a part of the state is no position");
    assert_eq!(what(&second), state(107));
    assert_eq!(there(&mut reader), steps(4..=6));
    // With the state's id a client has the state, and with none it has not.
    let id = second.id.expect("an id");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut back), steps(4..=6));
    gate.add_permits(1);
    let mut new = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(there(&mut new), [state(7), state(107)]);
    sent(&topic, 7..=7).await;
    for reader in [&mut reader, &mut back, &mut new] {
        assert_eq!(there(reader), steps([7]));
    }
}

/// A state without events still is a position: the client does not get it again.
#[tokio::test(start_paused = true)]
async fn an_empty_state_is_a_position() {
    let topic = Topic::new("steps");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || {
        of.subscribe().begin_with(async || Ok(Vec::<State>::new()))
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let cursor = next(&mut reader).await;
    assert_eq!(cursor.event, "hero.cursor");
    drop(reader);
    sent(&topic, 1..=2).await;
    let back = testing::open(&app, "/s").last_event_id(cursor.id.expect("an id"));
    assert_eq!(there(&mut back.await.expect("a stream")), steps(1..=2));
}

#[tokio::test(start_paused = true)]
async fn the_state_replaces_what_the_topic_sends_first_unless_a_start_is_chosen() {
    type Make = fn() -> Topic<Step>;
    type Adapt = fn(Subscription<Step>) -> Subscription<Step>;
    let folded: Make = || summed(100);
    let latest: Make = || Topic::builder("steps").latest().build();
    let log: Make = || Topic::new("steps");
    let odd: Adapt =
        |all| all.from_start().filter(|s| matches!(s, Step::Step { n, .. } if n % 2 == 1));
    let cases: [(Make, Adapt, &[u64]); 7] = [
        (folded, |all| all, &[]),
        (folded, |all| all.recent(2), &[4, 5]),
        (latest, |all| all, &[]),
        (latest, |all| all.from_start(), &[3, 4]),
        (log, |all| all.from_start(), &[1, 2, 3, 4, 5]),
        (log, |all| all.recent(2), &[4, 5]),
        (log, odd, &[1, 3, 5]),
    ];
    for (number, (make, adapt, retained)) in cases.into_iter().enumerate() {
        let (topic, gate) = (make(), Arc::new(Semaphore::new(0)));
        sent(&topic, 1..=5).await;
        let app = beginning(&topic, &gate, adapt);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(there(&mut reader), []);
        // Of the latest values, it replaces that of the same key.
        sent(&topic, 101..=101).await;
        gate.add_permits(1);
        let rest = steps(retained.iter().copied().chain([101]));
        assert_eq!(there(&mut reader), [vec![state(7), state(107)], rest].concat(), "{number}");
    }
}

/// More came while the hook was running than the topic retains. What was there before does not count as missed.
#[tokio::test(start_paused = true)]
async fn what_is_evicted_during_the_hook_is_a_gap() {
    for (answered, from_start) in [(false, false), (true, false), (false, true)] {
        let topic = Topic::builder("steps").retain_events(20).build();
        sent(&topic, 1..=20).await;
        let gate = Arc::new(Semaphore::new(0));
        let (of, opened) = (topic.clone(), gate.clone());
        let sse = sse_with(SseOptions::default());
        let app = serving(&sse, move || {
            let gate = opened.clone();
            let begin = of.subscribe().begin_with(move || gated(&gate, 7));
            let begin = if from_start { begin.from_start() } else { begin };
            match answered {
                true => begin.on_gap(async |gap| Ok(vec![State { n: gap.missed().unwrap_or(0) }])),
                false => begin,
            }
        });
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(there(&mut reader), []);
        sent(&topic, 21..=50).await;
        gate.add_permits(1);
        let (first, last) = (next(&mut reader).await, next(&mut reader).await);
        assert_eq!((what(&first), what(&last)), (state(7), state(107)));
        let gap = next(&mut reader).await;
        assert_eq!(gap.event, "hero.gap");
        assert_eq!(gap.json::<Value>().expect("JSON")["missed"], 10, "{answered} {from_start}");
        let rest = there(&mut reader);
        assert_eq!(rest, if answered { vec![state(10)] } else { steps(31..=50) });
        assert_eq!(sse.connections().gaps(), 1);
    }
    // All that was evicted was there before the hook.
    let topic = Topic::builder("steps").retain_events(20).build();
    sent(&topic, 1..=20).await;
    let gate = Arc::new(Semaphore::new(0));
    let app = beginning(&topic, &gate, |all| all.from_start());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(there(&mut reader), []);
    sent(&topic, 21..=25).await;
    gate.add_permits(1);
    let got = there(&mut reader);
    assert_eq!(got[..2], [state(7), state(107)]);
    assert_eq!(got[2..], steps(6..=25));
}

/// The end of the topic, and an epoch that starts while the hook is running.
#[tokio::test(start_paused = true)]
async fn a_topic_that_ends_or_restarts_during_the_hook() {
    let (topic, gate) = (Topic::new("steps"), Arc::new(Semaphore::new(0)));
    sent(&topic, 1..=3).await;
    let app = beginning(&topic, &gate, |all| all);
    let reader = testing::open(&app, "/s").await.expect("a stream");
    topic.publish(Step::Done { n: 9 }).await.expect("sent");
    gate.add_permits(2);
    let late = testing::open(&app, "/s").await.expect("a stream");
    for mut reader in [reader, late] {
        let rest = reader.read_to_end().await.expect("all");
        let names: Vec<_> = rest.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(names, ["state", "state", "done", "hero.close"]);
        assert!(rest[2].id.as_ref().is_some_and(|id| id.ends_with(";hero.end")), "{rest:?}");
    }

    let broker = MemoryBroker::new();
    let topic: Topic<Step> = Topic::builder("steps").open(&broker).await.expect("open");
    sent(&topic, 1..=3).await;
    let app = beginning(&topic, &gate, |all| all);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(there(&mut reader), []);
    broker.drop_log("steps");
    sent(&topic, 1..=1).await;
    gate.add_permits(1);
    let got = there(&mut reader);
    assert_eq!(got, [state(7), state(107), ("hero.gap".to_owned(), 0), steps([1]).remove(0)]);
}

struct Tell(Arc<AtomicUsize>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_panics_or_hangs_ends_with_its_own_stream() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Fault {
        Fails,
        PanicsAtOnce,
        PanicsLater,
        CannotBeEncoded,
    }
    struct Odd(bool);
    impl SseEvent for Odd {
        fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
            if self.0 {
                frame.retry(Duration::ZERO)?;
            }
            frame.text("odd");
            Ok(())
        }
    }
    let topic = Topic::<Step>::new("steps");
    for (fault, reason) in [
        (Fault::Fails, CloseReason::StreamError),
        (Fault::PanicsAtOnce, CloseReason::StreamPanic),
        (Fault::PanicsLater, CloseReason::StreamPanic),
        (Fault::CannotBeEncoded, CloseReason::StreamError),
    ] {
        let (of, dropped) = (topic.clone(), Arc::new(AtomicUsize::new(0)));
        let tell = dropped.clone();
        let sse = sse_with(SseOptions::default());
        let app = serving(&sse, move || {
            let tell = Tell(tell.clone());
            of.subscribe().begin_with(move || {
                assert_ne!(fault, Fault::PanicsAtOnce, "on purpose");
                async move {
                    let _tell = tell;
                    tokio::task::yield_now().await;
                    assert_ne!(fault, Fault::PanicsLater, "on purpose");
                    match fault {
                        Fault::Fails => Err("no database".into()),
                        _ => Ok(vec![Odd(false), Odd(true)]),
                    }
                }
            })
        });
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        let close = reader.read_to_end().await.expect("all").pop().expect("a closing event");
        assert!(close.data.contains(reason.as_str()), "{fault:?}: {}", close.data);
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "{fault:?}");
        assert_eq!(topic.subscribers(), 0);
    }

    // It hangs. The client leaves, the stream grows too old, the server drains, an operator disconnects.
    let dropped = Arc::new(AtomicUsize::new(0));
    for end in ["leaves", "age", "drain", "disconnect"] {
        let (of, tell) = (topic.clone(), dropped.clone());
        let sse = sse_with(options("MaxAge = \"1m\""));
        let app = serving(&sse, move || {
            let tell = Tell(tell.clone());
            of.subscribe().begin_with(move || async move {
                let _tell = tell;
                std::future::pending::<Result<Vec<State>, Boxed>>().await
            })
        });
        let before = dropped.load(Ordering::SeqCst);
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(there(&mut reader), []);
        match end {
            "leaves" => {}
            "age" => tokio::time::sleep(Duration::from_secs(61)).await,
            "drain" => drop(sse.drain()),
            _ => {
                let all = hero_sse::connections::ConnectionFilter::all();
                sse.connections().disconnect(&all, CloseReason::Revoked);
            }
        }
        if end != "leaves" {
            let rest = reader.read_to_end().await.expect("an end");
            assert_eq!(rest.last().map(|event| event.event.as_str()), Some("hero.close"), "{end}");
            // The client has no part of the state, and no position to come back to.
            assert!(rest.iter().all(|event| event.id.is_none()), "{end}: {rest:?}");
        }
        drop(reader);
        assert_eq!(dropped.load(Ordering::SeqCst), before + 1, "{end}");
        assert_eq!(topic.subscribers(), 0, "{end}");
    }
}

/// Another topic's events come while the hook is running, and the client leaves in the middle.
#[tokio::test(start_paused = true)]
async fn on_a_merged_stream_each_topic_has_its_own_beginning() {
    let (topic, other) = (Topic::new("steps"), Topic::<Reading>::new("readings"));
    let gate = Arc::new(Semaphore::new(0));
    sent(&topic, 1..=3).await;
    let (of, also, opened) = (topic.clone(), other.clone(), gate.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        let gate = opened.clone();
        of.subscribe().begin_with(move || gated(&gate, 7)).and(also.subscribe())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let cursor = next(&mut reader).await;
    assert_eq!(cursor.event, "hero.cursor");
    other.publish(reading(1, 0)).await.expect("sent");
    let event = next(&mut reader).await;
    assert_eq!(what(&event), ("reading".to_owned(), 1));
    sent(&topic, 4..=4).await;
    drop(reader);
    // It resumes in one topic, and begins in the other.
    other.publish(reading(2, 0)).await.expect("sent");
    let back = testing::open(&app, "/s").last_event_id(event.id.expect("an id"));
    let mut reader = back.await.expect("a stream");
    assert_eq!(there(&mut reader), [("reading".to_owned(), 2)]);
    sent(&topic, 5..=5).await;
    gate.add_permits(1);
    let (first, last) = (next(&mut reader).await, next(&mut reader).await);
    assert_eq!((what(&first), first.id, what(&last)), (state(7), None, state(107)));
    assert_eq!(there(&mut reader), steps([5]));
    let back = testing::open(&app, "/s").last_event_id(last.id.expect("an id"));
    assert_eq!(there(&mut back.await.expect("a stream")), steps([5]));
}

/// Publishers run while clients begin, leave and return: no client misses a number, or gets one twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_events_fit_under_load() {
    const COUNT: u64 = 3_000;
    let topic = Topic::builder("steps").retain_events(100_000).build();
    // What a database would hold: all events up to this one. It is written before the event is published.
    let stored = Arc::new(Mutex::new(0));
    let (of, database) = (topic.clone(), stored.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        let database = database.clone();
        of.subscribe().begin_with(move || async move {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(..500))).await;
            let n = *database.lock().expect("no panic");
            tokio::time::sleep(Duration::from_micros(fastrand::u64(..500))).await;
            Ok(vec![State { n }])
        })
    });
    let publisher = {
        let topic = topic.clone();
        std::thread::spawn(move || {
            for n in 1..=COUNT {
                *stored.lock().expect("no panic") = n;
                topic.publish_now(step(n)).expect("sent");
                if n % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
            topic.publish_now(Step::Done { n: 0 }).expect("sent");
        })
    };
    let clients = (0..6).map(|client| {
        let app = app.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3 * client)).await;
            let (mut reached, mut from_state, mut id) = (0, false, None::<String>);
            loop {
                let request = testing::open(&app, "/s");
                let request = match &id {
                    Some(id) => request.last_event_id(id),
                    None => request,
                };
                let mut reader = request.await.expect("a stream");
                for _ in 0..fastrand::usize(1..300) {
                    let event = next(&mut reader).await;
                    match what(&event) {
                        (name, n) if name == "state" => {
                            assert!(id.is_none() && n >= reached, "one state at the start");
                            (reached, from_state) = (n, true);
                        }
                        // The state may include what was published while it was read.
                        (name, n) if name == "step" && from_state && n <= reached => {}
                        (name, n) if name == "step" => {
                            assert_eq!(n, reached + 1);
                            (reached, from_state) = (n, false);
                        }
                        (name, _) => {
                            assert_eq!((name.as_str(), reached), ("done", COUNT));
                            return;
                        }
                    }
                    id = event.id;
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    publisher.join().expect("no panic");
}

async fn at(app: &Router, position: impl std::fmt::Display) -> Vec<(String, u64)> {
    let path = format!("/s?last_event_id={position}");
    there(&mut testing::open(app, &path).await.expect("a stream"))
}

#[tokio::test(start_paused = true)]
async fn a_position_is_a_cursor_that_loses_nothing() {
    let topic = Topic::builder("steps").retain_events(5).build();
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || {
        of.subscribe().recent(2).begin_with(async || Ok(vec![State { n: 7 }]))
    });
    // Also on a topic without an event.
    let start = topic.position();
    assert_eq!(start.offset(), 0);
    sent(&topic, 1..=2).await;
    assert_eq!(at(&app, start).await, steps(1..=2));
    let position = topic.position();
    assert_eq!(position.offset(), 2);
    assert_eq!(serde_json::to_value(position).expect("JSON"), Value::from(position.to_string()));
    sent(&topic, 3..=5).await;
    assert_eq!(at(&app, position).await, steps(3..=5));
    sent(&topic, 6..=9).await;
    // Too old, another topic's, an earlier process's.
    let gap = |from| [vec![("hero.gap".to_owned(), 0)], steps(from..=9)].concat();
    assert_eq!(at(&app, position).await, gap(5));
    let stranger: Position = Topic::<Step>::new("others").position();
    assert_eq!(at(&app, stranger).await, gap(5));
    assert_eq!(at(&app, Topic::<Step>::new("steps").position()).await, gap(5));
    // The end is no gap.
    topic.publish(Step::Done { n: 0 }).await.expect("sent");
    let end = at(&app, topic.position()).await;
    assert_eq!(
        end.iter().map(|event| event.0.as_str()).collect::<Vec<_>>(),
        ["hero.cursor", "hero.close"]
    );
}

/// A broker's position is valid on its other nodes, also before they have the event, and no more once the log is lost.
#[tokio::test(start_paused = true)]
async fn a_position_on_a_broker() {
    let broker = MemoryBroker::new();
    let one: Topic<Step> = Topic::builder("steps").open(&broker).await.expect("open");
    let other: Topic<Step> = Topic::builder("steps").open(&broker).await.expect("open");
    let of = other.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe());
    sent(&one, 1..=2).await;
    let position = one.position();
    sent(&one, 3..=4).await;
    assert_eq!(at(&app, position).await, steps(3..=4));
    broker.drop_log("steps");
    sent(&one, 5..=5).await;
    let gap = at(&app, position).await;
    assert_eq!(gap, [vec![("hero.gap".to_owned(), 0)], steps([5])].concat());
}

#[tokio::test(start_paused = true)]
async fn positions_of_several_topics_are_one_cursor() {
    let (topic, other) = (Topic::new("steps"), Topic::<Reading>::new("readings"));
    let (of, also) = (topic.clone(), other.clone());
    let app =
        serving(&sse_with(SseOptions::default()), move || of.subscribe().and(also.subscribe()));
    sent(&topic, 1..=2).await;
    other.publish(reading(1, 0)).await.expect("sent");
    let both = other.position().and(topic.position());
    assert_eq!(serde_json::to_value(&both).expect("JSON"), Value::from(both.to_string()));
    sent(&topic, 3..=3).await;
    other.publish(reading(2, 0)).await.expect("sent");
    let mut got = at(&app, &both).await;
    got.sort();
    assert_eq!(got, [("reading".to_owned(), 2), ("step".to_owned(), 3)]);
    // Nine do not make an id that no server would read.
    let nine = (0..8).fold(both, |all, _| all.and(topic.position()));
    assert_eq!(nine.as_str().split('.').count(), 8);
    assert!(nine.as_str().len() < 256);
}

/// A page is loaded over a socket, events are published, then its stream is opened: none is lost or doubled.
#[tokio::test]
async fn nothing_falls_between_a_page_and_its_stream() {
    let topic = Topic::<Step>::new("steps");
    let stored = Arc::new(Mutex::new(Vec::<u64>::new()));
    let (of, read_of, database) = (topic.clone(), topic.clone(), stored.clone());
    let sse = sse_with(SseOptions::default());
    let routes =
        sse.endpoint("/s").public().handler(async move || of.subscribe()).expect("a route");
    let page = get(async move || {
        let position = read_of.position();
        let numbers = database.lock().expect("no panic").clone();
        axum::Json(serde_json::json!({ "numbers": numbers, "position": position }))
    });
    let app = Router::new().route("/page", page).merge(routes);
    let server = Server::start(&sse, app).await;
    let address = server.address;
    let publisher = {
        let (topic, stored) = (topic.clone(), stored.clone());
        tokio::task::spawn_blocking(move || {
            for n in 1..=400 {
                stored.lock().expect("no panic").push(n);
                topic.publish_now(step(n)).expect("sent");
                std::thread::sleep(Duration::from_micros(500));
            }
        })
    };
    for _ in 0..4 {
        let body = fetched(address, "/page").await;
        let page: Value = serde_json::from_str(&body).expect("JSON");
        let mut numbers: Vec<u64> =
            serde_json::from_value(page["numbers"].clone()).expect("numbers");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let path = format!("/s?last_event_id={}", page["position"].as_str().expect("a position"));
        let mut reader = testing::connect(address, &path).await.expect("a stream");
        // An event between position and page is in both: the page knows it by its number.
        while numbers.len() < 400 {
            let (name, n) = what(&next(&mut reader).await);
            assert_eq!(name, "step");
            if numbers.last().is_none_or(|last| n > *last) {
                numbers.push(n);
            }
        }
        assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    }
    publisher.await.expect("no panic");
    server.stop().await;
}

async fn fetched(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}
