//! One reader of a topic, at its worst: gaps that are answered, states, filters, ends, and clients that are too slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use hero_sse::event::{FrameWriter, InvalidEvent};
use hero_sse::options::Overflow;
use hero_sse::prelude::*;
use hero_sse::topic::EncodedEvents;
use hero_sse::{CloseReason, SseOptions};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::testing::{self, EventReader, Received};
use crate::support::{Log, options, serving, sse_with};

#[derive(Clone, Debug, SseEvent)]
enum Step {
    Step {
        n: u64,
        #[sse(key)]
        of: u64,
    },
    #[sse(last)]
    Done { n: u64 },
}

fn step(n: u64) -> Step {
    Step::Step { n, of: n % 3 }
}

#[derive(Clone, Default, Serialize, SseEvent)]
struct State {
    n: u64,
}

/// The sum of the numbers.
fn summed(keep: usize) -> Topic<Step> {
    let add = |state: &mut State, step: &Step| match step {
        Step::Step { n, .. } | Step::Done { n } => state.n += n,
    };
    Topic::builder("steps").retain_events(keep).snapshot(State::default(), add).build()
}

async fn next(reader: &mut EventReader) -> Received {
    reader.next().await.expect("an event").expect("more")
}

/// What is there without waiting, by name and number.
fn there(reader: &mut EventReader) -> Vec<(String, u64)> {
    let mut events = Vec::new();
    while let Some(Ok(Some(event))) = reader.next().now_or_never() {
        events.push(what(&event));
    }
    events
}

/// As many as are said, and the client does not look whether there are more.
async fn some(reader: &mut EventReader, count: usize) -> Vec<(String, u64)> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(what(&next(reader).await));
    }
    events
}

fn what(event: &Received) -> (String, u64) {
    let n = event.json::<Value>().expect("JSON")["n"].as_u64().unwrap_or_default();
    (event.event.clone(), n)
}

fn steps(numbers: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    numbers.into_iter().map(|n| ("step".to_owned(), n)).collect()
}

/// A topic of which the first event is gone, and its id.
async fn with_a_gap() -> (Topic<Step>, String) {
    let topic = Topic::builder("steps").retain_events(3).build();
    let first = topic.publish(step(1)).await.expect("sent").to_string();
    topic.publish_all((2..=9).map(step)).await.expect("sent");
    (topic, first)
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_gap_comes_once_and_whole() {
    let (topic, id) = with_a_gap().await;
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let state = Arc::new(AtomicUsize::new(9));
    let app = {
        let (topic, gate, asked, state) =
            (topic.clone(), gate.clone(), asked.clone(), state.clone());
        let sse = sse_with(SseOptions::default().overflow(Overflow::DropOldest));
        serving(&sse, move || {
            let (gate, asked, state) = (gate.clone(), asked.clone(), state.clone());
            topic.subscribe().on_gap(move |gap| {
                asked.fetch_add(1, Ordering::SeqCst);
                let (gate, n) = (gate.clone(), state.load(Ordering::SeqCst) as u64);
                async move {
                    assert!(gap.last().is_some());
                    gate.acquire().await?.forget();
                    Ok(vec![State { n }, State { n: n + 100 }])
                }
            })
        })
    };
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    let gap = next(&mut reader).await;
    // Whoever leaves before the answer is told again: its cursor has not moved.
    assert_eq!((gap.event.as_str(), gap.id), ("hero.gap", None));
    assert!(there(&mut reader).is_empty());
    drop(reader);
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut reader), [("hero.gap".to_owned(), 0)]);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // What is published meanwhile comes behind the answer, exactly once.
    topic.publish(step(10)).await.expect("sent");
    gate.add_permits(1);
    let (first, second) = (next(&mut reader).await, next(&mut reader).await);
    assert_eq!((what(&first).1, first.id, what(&second).1), (9, None, 109));
    let id = second.id.expect("an id");
    assert_eq!(there(&mut reader), steps([10]));
    let mut again = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut again), steps([10]));
    // More than is kept comes while it is asked: it is asked again.
    let (_, id) = (topic.publish_all((11..=20).map(step)).await, id);
    state.store(20, Ordering::SeqCst);
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut reader), [("hero.gap".to_owned(), 0)]);
    topic.publish_all((21..=30).map(step)).await.expect("sent");
    state.store(30, Ordering::SeqCst);
    gate.add_permits(2);
    let names = there(&mut reader);
    let state = |n| ("state".to_owned(), n);
    let gap = ("hero.gap".to_owned(), 0);
    assert_eq!(names, [state(20), state(120), gap, state(30), state(130)]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fails_ends_its_own_stream() {
    let (topic, id) = with_a_gap().await;
    let dropped = Arc::new(AtomicBool::new(false));
    struct Tell(Arc<AtomicBool>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    for (kind, reason) in [
        (0, CloseReason::StreamError),
        (1, CloseReason::StreamPanic),
        (2, CloseReason::StreamPanic),
    ] {
        let of = topic.clone();
        let app = serving(&sse_with(SseOptions::default()), move || {
            of.subscribe().on_gap(move |_| {
                assert_ne!(kind, 1, "on purpose");
                async move {
                    tokio::task::yield_now().await;
                    assert_ne!(kind, 2, "on purpose");
                    Err::<Vec<State>, _>("no database".into())
                }
            })
        });
        let mut other = testing::open(&app, "/s").await.expect("a stream");
        let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
        let close = reader.read_to_end().await.expect("all").pop().expect("a closing event");
        assert!(close.data.contains(reason.as_str()), "{}", close.data);
        assert_eq!(next(&mut other).await.event, "hero.cursor");
    }
    // It goes with its stream.
    let (of, tell) = (topic.clone(), dropped.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        let tell = tell.clone();
        of.subscribe().on_gap(move |_| {
            let tell = Tell(tell.clone());
            async move {
                let _tell = tell;
                std::future::pending::<Result<Vec<State>, _>>().await
            }
        })
    });
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    next(&mut reader).await;
    drop(reader);
    assert!(dropped.load(Ordering::SeqCst));
}

/// An answer skips what is there, but the end is told to everybody.
#[tokio::test(start_paused = true)]
async fn the_end_is_told_behind_an_answer_and_behind_a_state() {
    let (topic, id) = with_a_gap().await;
    topic.publish(Step::Done { n: 10 }).await.expect("sent");
    let answered = topic.clone();
    let hook = serving(&sse_with(SseOptions::default()), move || {
        answered.subscribe().on_gap(|_| async { Ok(vec![State { n: 10 }]) })
    });
    let sum = summed(3);
    let first = sum.publish(step(1)).await.expect("sent").to_string();
    sum.publish_all((2..=9).map(step)).await.expect("sent");
    sum.publish(Step::Done { n: 5 }).await.expect("sent");
    let folded = serving(&sse_with(SseOptions::default()), move || sum.subscribe());
    for (app, id, wanted) in [
        (&hook, Some(id), ["hero.gap", "state", "done", "hero.close"].as_slice()),
        (&folded, Some(first), &["hero.gap", "state", "done", "hero.close"]),
        (&folded, None, &["state", "done", "hero.close"]),
    ] {
        let request = testing::open(app, "/s");
        let request = match id {
            Some(id) => request.last_event_id(id),
            None => request,
        };
        let rest = request.await.expect("a stream").read_to_end().await.expect("all");
        let names: Vec<_> = rest.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(names, wanted);
        let id = rest[rest.len() - 2].id.clone().expect("an id");
        let refused = testing::open(app, "/s").last_event_id(id).await.expect_err("no stream");
        assert_eq!(refused.status, Some(http::StatusCode::NO_CONTENT));
    }
    // An id of the last event without the mark, such as a part of another stream's.
    let last = topic.subscribe().next().now_or_never().expect("ready").expect("the last");
    let mut reader =
        testing::open(&hook, "/s").last_event_id(last.position().to_string()).await.expect("one");
    let rest = reader.read_to_end().await.expect("all");
    assert!(rest[0].id.as_ref().is_some_and(|id| id.ends_with(";hero.end")), "{rest:?}");
}

/// State and changes fit each other, whoever publishes meanwhile: nothing twice, nothing lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_and_what_changes_it_fit_under_load() {
    const EACH: u64 = 2_000;
    let topic = summed(200);
    let total: u64 = 3 * (1..=EACH).sum::<u64>();
    let sse = sse_with(options("Overflow = \"drop_oldest\"\nBuffer = 100"));
    let of = topic.clone();
    let app = serving(&sse, move || of.subscribe());
    let publishers: Vec<_> = (0..3)
        .map(|_| {
            let topic = topic.clone();
            std::thread::spawn(move || {
                for n in 1..=EACH {
                    topic.publish(step(n)).now_or_never().expect("at once").expect("sent");
                    if n % 16 == 0 {
                        std::thread::sleep(Duration::from_micros(500));
                    }
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let app = app.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(3 * client)).await;
                let (mut sum, mut id, mut begun, mut gaps) = (0, None::<String>, false, 0);
                loop {
                    let request = testing::open(&app, "/s");
                    let request = match &id {
                        Some(id) => request.last_event_id(id),
                        None => request,
                    };
                    let mut reader = request.await.expect("a stream");
                    for _ in 0..fastrand::usize(1..400) {
                        let event = next(&mut reader).await;
                        let (name, n) = what(&event);
                        match name.as_str() {
                            "state" => (sum, begun) = (n, true),
                            "step" => sum += n,
                            "done" => return (sum, gaps),
                            "hero.gap" => gaps += 1,
                            other => panic!("{other}"),
                        }
                        assert!(begun, "a change before the state");
                        // A gap is behind a client when it has its state.
                        if name != "hero.gap" {
                            id = event.id;
                        }
                    }
                    if fastrand::u8(..) < 80 {
                        drop(reader);
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(..30))).await;
                    }
                }
            })
        })
        .collect();
    tokio::task::spawn_blocking(|| publishers.into_iter().for_each(|p| p.join().expect("done")))
        .await
        .expect("no panic");
    topic.publish(Step::Done { n: 0 }).await.expect("sent");
    for client in clients {
        let (sum, _gaps) = client.await.expect("no panic");
        assert_eq!(sum, total);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_filtered_out_moves_the_cursor_and_the_end_passes() {
    let topic = Topic::builder("steps").retain_events(4).build();
    let sse = sse_with(options("HeartbeatInterval = \"10s\""));
    let of = topic.clone();
    let app = serving(&sse, move || {
        let steps =
            of.subscribe().filter(|step| matches!(step, Step::Step { n, .. } if n % 5 == 0));
        steps.filter(|step| matches!(step, Step::Step { n, .. } if n % 2 == 0))
    });
    let reader = testing::open(&app, "/s").await.expect("a stream");
    let mut reader = reader.timeout(Duration::from_secs(60));
    assert_eq!(next(&mut reader).await.event, "hero.cursor");
    for n in 1..=8 {
        topic.publish(step(n)).await.expect("sent");
        // Where it stood at first is about to go with the fifth.
        assert_eq!(there(&mut reader).len(), usize::from(n == 5));
    }
    let cursor = next(&mut reader).await;
    assert_eq!(cursor.event, "hero.cursor");
    tokio::time::sleep(Duration::from_secs(25)).await;
    topic.publish_all([step(10), step(11)]).await.expect("sent");
    // It did not want what is gone.
    let id = cursor.id.expect("an id");
    let mut again = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut again), steps([10]));
    // Nor what came with what it wanted.
    let mut again = again.timeout(Duration::from_secs(60));
    assert_eq!(next(&mut again).await.event, "hero.cursor");
    topic.publish(Step::Done { n: 12 }).await.expect("sent");
    let names: Vec<_> =
        reader.read_to_end().await.expect("all").into_iter().map(|event| event.event).collect();
    assert_eq!(names, ["step", "done", "hero.close"]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_panics_ends_its_own_stream() {
    let topic = Topic::new("steps");
    let (of, plain) = (topic.clone(), topic.clone());
    let bad = serving(&sse_with(SseOptions::default()), move || {
        of.subscribe().filter(|step| match step {
            Step::Step { n: 3, .. } => panic!("on purpose"),
            _ => true,
        })
    });
    let good = serving(&sse_with(SseOptions::default()), move || plain.subscribe());
    let mut bad = testing::open(&bad, "/s").await.expect("a stream");
    let mut good = testing::open(&good, "/s").await.expect("a stream");
    next(&mut good).await;
    next(&mut bad).await;
    for n in 1..=4 {
        topic.publish(step(n)).await.expect("sent");
        if n < 3 {
            assert_eq!(there(&mut bad), steps([n]));
        }
    }
    assert!(next(&mut bad).await.data.contains("stream_panic"));
    assert_eq!(there(&mut good), steps(1..=4));
    assert_eq!(topic.subscribers(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_the_latest_everybody_gets_what_is_so_now() {
    let topic = Topic::latest("steps");
    let sse = sse_with(SseOptions::default());
    let of = topic.clone();
    let app = serving(&sse, move || of.subscribe());
    topic.publish_all((1..=100).map(step)).await.expect("sent");
    let mut late = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(what(&next(&mut late).await).1, 98);
    let id = next(&mut late).await.id.expect("an id");
    assert_eq!(there(&mut late), steps([100]));
    topic.publish_all([step(103), step(106), step(101)]).await.expect("sent");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut back), steps([106, 101]));
    topic.publish(Step::Done { n: 0 }).await.expect("sent");
    let mut new = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(new.read_to_end().await.expect("all").len(), 5);
}

/// A client that takes nothing for a while, under each policy.
#[tokio::test(start_paused = true)]
async fn who_is_too_slow_gets_what_the_endpoint_says() {
    let served = |settings: &str, keep| {
        let topic = Topic::builder("steps").retain_events(keep).build();
        let of = topic.clone();
        let sse = sse_with(options(settings));
        (topic, serving(&sse, move || of.subscribe()), sse)
    };
    // Three quarters of what is kept.
    let (topic, app, sse) = served("", 100);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let id = next(&mut reader).await.id.expect("an id");
    topic.publish_all((1..=75).map(step)).await.expect("sent");
    assert_eq!(some(&mut reader, 75).await, steps(1..=75));
    topic.publish_all((76..=151).map(step)).await.expect("sent");
    assert!(next(&mut reader).await.data.contains("\"overflow\""));
    drop(reader);
    assert_eq!(sse.connections().closed(CloseReason::Overflow), 1);
    // Nothing is gone by then; who comes back may be as far behind as it is.
    assert_eq!(topic.len(), 100);
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(what(&next(&mut reader).await).0, "hero.gap");
    assert_eq!(there(&mut reader), steps(52..=151));
    // What `buffer` says.
    let (topic, app, _) = served("Buffer = 10", 100);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let id = next(&mut reader).await.id.expect("an id");
    topic.publish_all((1..=10).map(step)).await.expect("sent");
    assert_eq!(some(&mut reader, 10).await, steps(1..=10));
    topic.publish_all((11..=21).map(step)).await.expect("sent");
    assert!(next(&mut reader).await.data.contains("\"overflow\""));
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut reader), steps(1..=21));

    let (topic, app, sse) = served("Buffer = 10\nOverflow = \"drop_oldest\"", 100);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    topic.publish_all((1..=50).map(step)).await.expect("sent");
    let gap = next(&mut reader).await;
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], 40);
    assert_eq!(there(&mut reader), steps(41..=50));
    assert_eq!(sse.connections().gaps(), 1);

    let (topic, app, sse) = served("Overflow = \"latest\"", 100);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    for n in 1..=50 {
        topic.publish(step(n)).await.expect("sent");
    }
    assert_eq!(there(&mut reader), steps([48, 49, 50]));
    for n in 51..=250 {
        topic.publish(step(n)).await.expect("sent");
    }
    assert_eq!(there(&mut reader)[1..], steps([248, 249, 250]));
    assert_eq!(sse.connections().gaps(), 1);
}

/// A client that had everything was not slow, however much comes before it has a turn.
#[tokio::test(start_paused = true)]
async fn a_burst_sends_nobody_away_who_waited_for_it() {
    for settings in ["", "Buffer = 10"] {
        let topic = Topic::builder("steps").retain_events(100).build();
        let of = topic.clone();
        let sse = sse_with(options(settings));
        let app = serving(&sse, move || of.subscribe());
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        next(&mut reader).await;
        assert_eq!(there(&mut reader), []);
        topic.publish_all((1..=100).map(step)).await.expect("sent");
        assert_eq!(there(&mut reader), steps(1..=100), "{settings}");
        // One after the other, and more than is kept: what is gone is told in place.
        for n in 101..=210 {
            topic.publish(step(n)).await.expect("sent");
        }
        let gap = next(&mut reader).await;
        assert_eq!(gap.json::<Value>().expect("JSON")["missed"], 10, "{settings}");
        // Now it has not taken all that there is, and is as slow as anybody.
        assert_eq!(some(&mut reader, 100).await, steps(111..=210));
        topic.publish_all((211..=300).map(step)).await.expect("sent");
        assert!(next(&mut reader).await.data.contains("\"overflow\""), "{settings}");
        assert_eq!(sse.connections().gaps(), 1);
    }
}

/// What it was sent beside the topic it has yet to take: then it has not waited for the burst.
#[tokio::test(start_paused = true)]
async fn who_is_sent_something_else_has_not_waited() {
    let topic = Topic::builder("steps").retain_events(100).build();
    let of = topic.clone();
    let sse = sse_with(SseOptions::default());
    let app = serving(&sse, move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    let all = hero_sse::connections::ConnectionFilter::all();
    sse.connections().send(&all, Event::text("1")).expect("a good event");
    assert_eq!(next(&mut reader).await.data, "1");
    topic.publish_all((1..=90).map(step)).await.expect("sent");
    assert!(next(&mut reader).await.data.contains("\"overflow\""));
}

/// Whatever is published is kept, and so reaches whoever follows; else it is refused.
#[tokio::test(start_paused = true)]
async fn what_is_not_refused_is_kept() {
    for length in 0..150 {
        let topic = Topic::builder("events").retain_events(0).retain_bytes(150).build();
        let mut reader = topic.subscribe();
        let sent = topic.publish(Event::text("x".repeat(length))).await;
        let told = reader.next().now_or_never().flatten().is_some();
        assert_eq!((told, topic.len()), (sent.is_ok(), usize::from(sent.is_ok())), "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_client_begins_where_the_endpoint_says() {
    let topic = Topic::builder("steps").retain_events(100).build();
    topic.publish_all((1..=100).map(step)).await.expect("sent");
    for (recent, wanted) in [(0, vec![]), (3, vec![98, 99, 100]), (1_000, (1..=100).collect())] {
        let of = topic.clone();
        let app = serving(&sse_with(options("Buffer = 20")), move || of.subscribe().recent(recent));
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        let events: Vec<_> =
            there(&mut reader).into_iter().filter(|(name, _)| name == "step").collect();
        assert_eq!(events, steps(wanted), "{recent}");
    }
    topic.publish(Step::Done { n: 0 }).await.expect("sent");
    for (recent, wanted) in [(None, 1), (Some(1), 1), (Some(3), 3)] {
        let subscription = topic.subscribe();
        let subscription = match recent {
            Some(count) => subscription.recent(count),
            None => subscription,
        };
        assert_eq!(subscription.count().now_or_never(), Some(wanted), "{recent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_followed_stream_has_an_end() {
    let topic = Topic::<Step>::new("steps");
    let (one, two, other) = (topic.clone(), topic.clone(), Topic::<Step>::new("other"));
    for app in [
        serving(&sse_with(SseOptions::default()), move || one.subscribe()),
        serving(&sse_with(SseOptions::default()), move || two.subscribe().and(other.subscribe())),
    ] {
        let start = tokio::time::Instant::now();
        let reader = testing::open(&app, "/s").await.expect("a stream");
        let mut reader = reader.timeout(Duration::from_secs(60 * 60));
        let reader = reader.read_to_end().await.expect("all").pop().expect("a closing event");
        assert!(reader.data.contains("max_age"), "{}", reader.data);
        let age = start.elapsed();
        let (least, most) = (Duration::from_secs(24 * 60), Duration::from_secs(30 * 60 + 1));
        assert!(age >= least && age <= most, "{age:?}");
    }
}

/// Behind an adaptor a gap is told by the next frame, all of it, and before it on the wire.
#[tokio::test(start_paused = true)]
async fn a_mapped_frame_tells_what_was_missed() {
    let topic = Topic::builder("steps").retain_events(3).build();
    let mut reader =
        Box::pin(topic.subscribe().filter(|step| matches!(step, Step::Step { n: 30, .. })));
    for n in 1..=10 {
        topic.publish(step(n)).await.expect("sent");
    }
    assert!(reader.next().now_or_never().is_none());
    for n in 11..=30 {
        topic.publish(step(n)).await.expect("sent");
    }
    let frame = reader.next().now_or_never().expect("ready").expect("more");
    let gap = frame.gap().expect("a gap").clone();
    assert_eq!(gap.missed(), Some(7 + 17));
    assert_eq!((gap.first().expect("from").offset(), gap.last().expect("to").offset()), (1, 27));
    let text = testing::frame(&frame).expect("a frame");
    assert!(
        text.starts_with(&format!("id: {}\nevent: hero.gap\n", gap.last().expect("to"))),
        "{text}"
    );
    assert!(text.contains(&format!("\n\nid: {}\nevent: step\n", frame.position())), "{text}");

    let of = topic.clone();
    let sse = sse_with(SseOptions::default());
    let app = serving(&sse, move || of.subscribe().from_start().map(|frame| frame));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(some(&mut reader, 3).await, steps(28..=30));
    let of = topic.clone();
    let sse = sse_with(SseOptions::default());
    let resumed = async move |cursor: LastEventId| of.subscribe().resume(&cursor).map(|f| f);
    let app = sse.endpoint("/s").public().handler(resumed).expect("a route");
    let mut reader = testing::open(&app, "/s").last_event_id("another").await.expect("a stream");
    let gap = next(&mut reader).await;
    assert_eq!(gap.event, "hero.gap");
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], Value::Null);
    assert_eq!(some(&mut reader, 3).await, steps(28..=30));
}

/// Behind an adaptor the frames are events like any others: they have their keys, and the last is the end.
#[tokio::test(start_paused = true)]
async fn a_mapped_frame_has_its_key_and_its_end() {
    let topic = Topic::new("steps");
    let of = topic.clone();
    let sse = sse_with(options("Overflow = \"latest\""));
    let app = serving(&sse, move || of.subscribe().map(|frame| frame));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    topic.publish_all((1..=30).map(step)).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(there(&mut reader), steps([28, 29, 30]));
    topic.publish(Step::Done { n: 0 }).await.expect("sent");
    let rest = reader.read_to_end().await.expect("all");
    assert!(rest.last().expect("a closing event").data.contains("\"last_event\""), "{rest:?}");
}

/// Each of these frames tells of eight events that are gone; their key is the same.
async fn two_with_gaps() -> Vec<hero_sse::topic::Published<Step>> {
    let topic = Topic::builder("steps").retain_events(1).build();
    let mut reader = topic.subscribe();
    let mut frames = Vec::new();
    for numbers in [1..=9, 10..=18] {
        topic.publish_all(numbers.map(step)).await.expect("sent");
        frames.push(reader.next().now_or_never().expect("ready").expect("a frame"));
    }
    frames
}

/// All that a client gets of these: of a gap how many are missing, of an event its number.
async fn sent<T>(settings: &str, items: Vec<T>) -> (Vec<(String, Option<u64>)>, u64)
where
    T: SseEvent + Clone + Send + Sync + 'static,
{
    let sse = sse_with(options(settings));
    let app = serving(&sse, move || futures_util::stream::iter(items.clone()));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    // Before the client takes anything, whoever fills a buffer has filled it.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let events = reader.read_to_end().await.expect("all");
    let number = |event: &Received| {
        let data: Value = event.json().expect("JSON");
        data.get("missed").or(data.get("n")).and_then(Value::as_u64)
    };
    let events = events.iter().map(|event| (event.event.clone(), number(event)));
    let (close, mut events): (Vec<_>, Vec<_>) = events.partition(|(name, _)| name == "hero.close");
    events.retain(|(name, _)| name != "hero.cursor");
    assert_eq!(close.len(), 1);
    (events, sse.connections().gaps())
}

fn gap_of(missed: impl Into<Option<u64>>) -> (String, Option<u64>) {
    ("hero.gap".to_owned(), missed.into())
}

fn step_of(n: u64) -> (String, Option<u64>) {
    ("step".to_owned(), Some(n))
}

/// A frame that is dropped, or that a newer one replaces, does not take with it what it tells.
#[tokio::test(start_paused = true)]
async fn behind_an_adaptor_every_gap_is_told_and_counted() {
    let frames = two_with_gaps().await;
    let all = [gap_of(8), step_of(9), gap_of(8), step_of(18)];
    let newest = [gap_of(None), gap_of(8), step_of(18)];
    for (settings, expected) in [
        ("", &all[..]),
        ("Buffer = 8", &all),
        ("Overflow = \"drop_oldest\"\nBuffer = 8", &all),
        ("Overflow = \"drop_oldest\"\nBuffer = 1", &newest),
        ("Overflow = \"latest\"\nBuffer = 1", &newest),
        ("Overflow = \"latest\"\nBuffer = 8", &newest),
    ] {
        let (events, counted) = sent(settings, frames.clone()).await;
        assert_eq!(events, expected, "{settings}");
        assert_eq!(counted, 2, "{settings}");
    }
    // Without a gap before it, what it is the newest of is the same.
    let topic = Topic::builder("steps").retain_events(3).build();
    let mut reader = topic.subscribe();
    topic.publish_all((1..=6).map(step)).await.expect("sent");
    let frames: Vec<_> = reader.by_ref().take(3).collect().await;
    topic.publish(step(7)).await.expect("sent");
    let frames: Vec<_> = [frames, reader.take(1).collect().await].concat();
    let (events, _) = sent("Overflow = \"latest\"\nBuffer = 8", frames).await;
    assert_eq!(events, [gap_of(None), step_of(5), step_of(6), step_of(7)]);
}

/// Behind an adaptor several topics yield what they have together: that is the newest of nothing, and is counted
/// by its events.
#[tokio::test(start_paused = true)]
async fn what_comes_together_is_never_replaced() {
    let (one, other) = (Topic::builder("one").retain_events(2).build(), Topic::new("other"));
    let mut both = one.subscribe().and(other.subscribe());
    let mut frames = Vec::new();
    for numbers in [1..=5, 6..=7] {
        one.publish_all(numbers.clone().map(step)).await.expect("sent");
        other.publish_all(numbers.map(|n| step(100 + n))).await.expect("sent");
        while let Some(Some(some)) = both.next().now_or_never() {
            frames.push(some.expect("frames"));
        }
    }
    let (all, counted) = sent("", frames.clone()).await;
    assert_eq!((counted, all.iter().filter(|event| **event == gap_of(3)).count()), (1, 1));
    let numbers = |events: &[(String, Option<u64>)]| {
        let mut numbers: Vec<_> = events.iter().filter(|event| event.0 == "step").collect();
        numbers.sort();
        numbers.into_iter().filter_map(|event| event.1).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&all), [4, 5, 6, 7, 101, 102, 103, 104, 105, 106, 107]);
    let (latest, counted) = sent("Overflow = \"latest\"\nBuffer = 64", frames.clone()).await;
    assert_eq!((latest, counted), (all.clone(), 1));

    // Those that told of the gap are dropped; the last one stays.
    let last = frames.pop().expect("frames");
    let before = EncodedEvents::clone(&last);
    let (first, _) = sent("", vec![last.clone()]).await;
    assert!(first.len() > 1, "{first:?}");
    let (dropped, counted) =
        sent("Overflow = \"drop_oldest\"\nBuffer = 1", vec![before, last.clone()]).await;
    let expected = [vec![gap_of(first.len() as u64)], first].concat();
    assert_eq!((dropped, counted), (expected, 1));
}

/// What somebody has read of a subscription and not used is not lost when it is returned all the same.
#[tokio::test(start_paused = true)]
async fn a_subscription_may_be_read_before_it_is_returned() {
    let topic = Topic::builder("steps").retain_events(3).build();
    let of = topic.clone();
    let sse = sse_with(SseOptions::default());
    let app = serving(&sse, move || {
        let mut subscription = of.subscribe().from_start();
        let first = subscription.next().now_or_never().flatten();
        assert!(first.is_some());
        subscription
    });
    topic.publish_all((1..=3).map(step)).await.expect("sent");
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(there(&mut reader), steps([2, 3]));
    // Nor is it sent again to who comes back.
    let of = topic.clone();
    let read = async move |cursor: LastEventId| {
        let mut subscription = of.subscribe().resume(&cursor);
        let first = subscription.next().now_or_never().flatten();
        assert!(first.is_some());
        subscription
    };
    let sse = sse_with(SseOptions::default());
    let app = sse.endpoint("/s").public().handler(read).expect("a route");
    let first = topic.subscribe().from_start().next().await.expect("an event").position();
    let back = testing::open(&app, "/s").last_event_id(first.to_string());
    assert_eq!(there(&mut back.await.expect("a stream")), steps([3]));
}

/// Nor is a gap that it came upon: alone it is told with the state, once; beside others it is told to who leaves before.
#[tokio::test(start_paused = true)]
async fn a_gap_that_was_read_before_is_told_when_it_is_returned() {
    let topic = summed(3);
    let of = topic.clone();
    let read = move || {
        let mut subscription = of.subscribe().filter(|_| false);
        let sent = of.publish_all((1..=5).map(step)).now_or_never().expect("at once");
        sent.expect("sent");
        assert!(subscription.next().now_or_never().is_none());
        subscription
    };
    let app = serving(&sse_with(SseOptions::default()), read.clone());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let gap = next(&mut reader).await;
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], 2);
    assert_eq!(there(&mut reader), [("state".to_owned(), 15)]);

    let other = Topic::<Step>::new("other");
    other.publish(step(1)).await.expect("sent");
    let of = other.clone();
    let app =
        serving(&sse_with(SseOptions::default()), move || of.subscribe().recent(1).and(read()));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let first = next(&mut reader).await;
    assert_eq!(what(&first), ("step".to_owned(), 1));
    let app =
        serving(&sse_with(SseOptions::default()), move || other.subscribe().and(topic.subscribe()));
    let id = first.id.expect("an id");
    let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    let gap = next(&mut reader).await;
    assert_eq!((gap.event.as_str(), gap.id), ("hero.gap", None));
    assert_eq!(what(&next(&mut reader).await), ("state".to_owned(), 30));
}

/// Age counts where one begins, though nothing has been published since.
#[tokio::test(start_paused = true)]
async fn who_begins_gets_nothing_that_is_too_old() {
    let topic = Topic::builder("steps").retain_for(Duration::from_secs(60)).build();
    let first = topic.publish(step(1)).await.expect("sent").to_string();
    topic.publish(step(2)).await.expect("sent");
    tokio::time::advance(Duration::from_secs(40)).await;
    topic.publish(step(3)).await.expect("sent");
    tokio::time::advance(Duration::from_secs(40)).await;
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe().from_start());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(there(&mut reader), steps([3]));
    let mut reader = testing::open(&app, "/s").last_event_id(first).await.expect("a stream");
    assert_eq!(next(&mut reader).await.json::<Value>().expect("JSON")["missed"], 1);
    assert_eq!(there(&mut reader), steps([3]));
    tokio::time::advance(Duration::from_secs(40)).await;
    assert!(topic.is_empty());
}

/// A page that listens to what the endpoint declares would hear nothing.
#[tokio::test(start_paused = true)]
async fn a_declared_name_that_no_event_has_is_logged_once() {
    let sse = sse_with(SseOptions::default());
    let run = async |name: &'static str, path: &str, combine: bool| {
        let (log, _guard) = Log::everything();
        let (topic, other) = (Topic::<Step>::new("steps"), Topic::<Step>::new("other"));
        let of = topic.clone();
        let route = sse.endpoint(path.to_owned()).public().event(name);
        let app: axum::Router = if combine {
            route.handler(async move || of.subscribe().and(other.subscribe())).expect("a route")
        } else {
            route.handler(async move || of.subscribe()).expect("a route")
        };
        for _ in 0..3 {
            let mut reader = testing::open(&app, path).await.expect("a stream");
            next(&mut reader).await;
            topic.publish_all([step(1), step(2)]).await.expect("sent");
            next(&mut reader).await;
        }
        log.text().matches("declares an `event`").count()
    };
    assert_eq!(run("progress", "/progress", false).await, 1);
    assert_eq!(run("progress", "/both", true).await, 1);
    assert_eq!(run("step", "/step", false).await, 0);
}

/// After a restart the page gets every present value anew, and misses nothing.
#[tokio::test(start_paused = true)]
async fn of_the_latest_an_id_of_another_life_is_as_none() {
    let old = Topic::latest("steps").publish(step(1)).await.expect("sent").to_string();
    for empty in [false, true] {
        let topic = Topic::latest("steps");
        if !empty {
            topic.publish_all((1..=9).map(step)).await.expect("sent");
        }
        let sse = sse_with(SseOptions::default());
        let of = topic.clone();
        let app = serving(&sse, move || of.subscribe());
        let mut back = testing::open(&app, "/s").last_event_id(&old).await.expect("a stream");
        if empty {
            // What it had is of no use any more.
            let cursor = next(&mut back).await;
            assert_eq!(cursor.event, "hero.cursor");
            assert_ne!(cursor.id.expect("an id"), old);
        } else {
            assert_eq!(there(&mut back), steps([7, 8, 9]));
        }
        assert_eq!(sse.connections().gaps(), 0);
        // In this life it is resumed.
        let first = topic.publish(step(10)).await.expect("sent").to_string();
        topic.publish_all([step(11), step(12)]).await.expect("sent");
        let mut back = testing::open(&app, "/s").last_event_id(&first).await.expect("a stream");
        assert_eq!(there(&mut back), steps([11, 12]));
    }
}

/// Who reads what is kept of a busy topic is overtaken where it begins: it is not sent away for that.
#[tokio::test(start_paused = true)]
async fn what_goes_while_one_begins_is_no_reason_to_end() {
    let topic = Topic::builder("steps").retain_events(100).build();
    let first = topic.publish(step(1)).await.expect("sent").to_string();
    topic.publish_all((2..=101).map(step)).await.expect("sent");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe().from_start());
    let mut new = testing::open(&app, "/s").await.expect("a stream");
    let mut back = testing::open(&app, "/s").last_event_id(&first).await.expect("a stream");
    topic.publish_all((102..=310).map(step)).await.expect("sent");
    // The new one has nothing to miss yet.
    assert_eq!(there(&mut new), steps(211..=310));
    let gap = next(&mut back).await;
    assert_eq!(gap.event, "hero.gap");
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], 209);
    assert_eq!(there(&mut back), steps(211..=310));

    let gauges = Topic::builder("steps").latest().retain_events(2).build();
    let of = gauges.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe());
    gauges.publish_all((1..=3).map(step)).await.expect("sent");
    let mut new = testing::open(&app, "/s").await.expect("a stream");
    gauges.publish_all((4..=5).map(step)).await.expect("sent");
    assert_eq!(there(&mut new), steps([4, 5]));
    // More keys than are kept, at once.
    gauges.publish_all((6..=8).map(step)).await.expect("sent");
    let gap = next(&mut new).await;
    assert_eq!(gap.event, "hero.gap");
    // Of the latest nobody knows how many there were.
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], Value::Null);
    assert_eq!(there(&mut new), steps([7, 8]));
}

/// A buffer that is set for all streams is no bound for what has none, nor one that would be reached too late.
#[tokio::test(start_paused = true)]
async fn a_buffer_ends_nobody_for_nothing() {
    let gauges = Topic::latest("steps");
    let of = gauges.clone();
    let app = serving(&sse_with(options("Buffer = 10")), move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    gauges.publish_all((1..=50).map(step)).await.expect("sent");
    assert_eq!(there(&mut reader), steps([48, 49, 50]));

    // Who comes back, or begins far behind, is not slow.
    let topic = Topic::builder("steps").retain_events(100).build();
    let of = topic.clone();
    let settings = options("Buffer = 10\nOverflow = \"drop_oldest\"");
    let sse = sse_with(settings);
    let app = serving(&sse, move || of.subscribe().from_start());
    let id = topic.publish(step(1)).await.expect("sent").to_string();
    topic.publish_all((2..=60).map(step)).await.expect("sent");
    let mut new = testing::open(&app, "/s").await.expect("a stream");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut new), steps(1..=60));
    assert_eq!(there(&mut back), steps(2..=60));
    topic.publish_all((61..=90).map(step)).await.expect("sent");
    assert_eq!(there(&mut back)[1..], steps(81..=90));

    // With a buffer as long as the topic the client is told in time as well.
    let topic = Topic::builder("steps").retain_events(100).build();
    let of = topic.clone();
    let app = serving(&sse_with(options("Buffer = 1000")), move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let id = next(&mut reader).await.id.expect("an id");
    topic.publish_all((1..=80).map(step)).await.expect("sent");
    assert!(next(&mut reader).await.data.contains("\"overflow\""));
    let mut reader = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut reader), steps(1..=80));
}

/// A filter that publishes, and wants nothing: there is always more to look at.
#[tokio::test(start_paused = true)]
async fn a_filter_may_publish_and_leaves_others_their_turn() {
    let topic = Topic::new("steps");
    let asked = Arc::new(AtomicUsize::new(0));
    let (of, count) = (topic.clone(), asked.clone());
    let publishes = move || {
        let (again, count) = (of.clone(), count.clone());
        of.subscribe().from_start().filter(move |_| {
            if count.fetch_add(1, Ordering::Relaxed) < 10_000 {
                again.publish(step(0)).now_or_never().expect("at once").expect("sent");
            }
            false
        })
    };
    topic.publish(step(1)).await.expect("sent");
    let mut subscription = publishes();
    assert!(subscription.next().now_or_never().is_none());
    assert!(asked.swap(0, Ordering::Relaxed) < 1_000);
    drop(subscription);
    let app = serving(&sse_with(SseOptions::default()), publishes);
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert!(reader.next().now_or_never().is_none());
    assert!(asked.load(Ordering::Relaxed) < 1_000);
}

#[derive(Serialize, SseEvent)]
struct Reading {
    n: u64,
    #[sse(key)]
    of: u64,
    pad: String,
}

fn reading(n: u64, pad: usize) -> Reading {
    Reading { n, of: 0, pad: "x".repeat(pad) }
}

/// However much a filter leaves out, what it wants comes at once.
#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_passed_over_without_a_wait() {
    let topic = Topic::new("readings");
    topic.publish_all((1..=100).map(|n| reading(n, 10_000))).await.expect("sent");
    let wanted = move || topic.subscribe().from_start().filter(|reading| reading.n == 100);
    let start = tokio::time::Instant::now();
    let second = Duration::from_secs(1);
    let frame = tokio::time::timeout(second, wanted().next()).await.expect("at once");
    assert_eq!(frame.expect("an event").n, 100);
    let alone = wanted.clone();
    let merged = move || wanted().and(Topic::<Step>::new("steps").subscribe());
    let sse = || sse_with(SseOptions::default());
    for app in [serving(&sse(), alone), serving(&sse(), merged)] {
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(what(&next(&mut reader).await), ("reading".to_owned(), 100));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// What a filter lets through leaves before more is looked at.
#[tokio::test(start_paused = true)]
async fn a_filter_is_not_far_ahead_of_its_client() {
    let topic = Topic::new("readings");
    topic.publish_all((1..=100).map(|n| reading(n, 4_000))).await.expect("sent");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let app = serving(&sse_with(SseOptions::default()), move || {
        let count = count.clone();
        let even = move |reading: &Reading| {
            count.fetch_add(1, Ordering::Relaxed);
            reading.n.is_multiple_of(2)
        };
        topic.subscribe().from_start().filter(even)
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(what(&next(&mut reader).await).1, 2);
    assert!(asked.load(Ordering::Relaxed) < 10, "{asked:?}");
}

/// Bytes are three quarters of what is kept as well, of what is there and not of all that ever was.
#[tokio::test(start_paused = true)]
async fn who_is_too_slow_is_so_by_bytes_too() {
    let topic = Topic::builder("readings").retain_bytes(100_000).build();
    topic.publish_all((1..=200).map(|n| reading(n, 900))).await.expect("sent");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    topic.publish_all((1..=60).map(|n| reading(n, 900))).await.expect("sent");
    assert_eq!(some(&mut reader, 60).await.last(), Some(&("reading".to_owned(), 60)));
    topic.publish_all((61..=150).map(|n| reading(n, 900))).await.expect("sent");
    assert!(next(&mut reader).await.data.contains("\"overflow\""));
}

/// What a filter holds is the application's too.
#[tokio::test(start_paused = true)]
async fn a_filter_whose_drop_panics_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let topic = Topic::<Step>::new("steps");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || {
        let bomb = Bomb;
        of.subscribe().filter(move |_| {
            let _held = &bomb;
            true
        })
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    drop(reader);
    assert_eq!(topic.subscribers(), 0);
}

/// One client that breaks off again and again, and what it has got.
#[derive(Default)]
struct Broken {
    id: Option<String>,
    got: Vec<u64>,
    missed: u64,
}

impl Broken {
    /// Takes so many events at most; whether the stream is still there.
    fn take(&mut self, reader: &mut EventReader, most: usize) -> bool {
        for _ in 0..most {
            let Some(event) = reader.next().now_or_never() else { return true };
            let Some(event) = event.expect("an event") else { return false };
            let data: Value = event.json().expect("JSON");
            match event.event.as_str() {
                "reading" => self.got.push(data["n"].as_u64().expect("a number")),
                "hero.gap" => self.missed += data["missed"].as_u64().expect("counted"),
                "hero.close" => return false,
                _ => {}
            }
            self.id = event.id.or(self.id.take());
        }
        true
    }
}

/// Wherever a stream breaks, its last id is true: nothing before it is owed, nothing behind it was sent.
#[tokio::test(start_paused = true)]
async fn the_last_id_is_true_under_every_policy() {
    const ALL: u64 = 400;
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (settings, keep) = match seed % 4 {
            0 => ("", 1_000),
            1 => ("Overflow = \"drop_oldest\"", 50),
            2 => ("Overflow = \"drop_oldest\"\nBuffer = 20", 50),
            _ => ("Overflow = \"latest\"", 1_000),
        };
        let filtered = random.bool();
        let wanted = move |n: u64| !filtered || !n.is_multiple_of(5);
        let topic = Topic::builder("readings").retain_events(keep).build();
        let of = topic.clone();
        let app = serving(&sse_with(options(settings)), move || {
            of.subscribe().filter(move |reading: &Reading| wanted(reading.n))
        });
        let mut client = Broken::default();
        let mut reader = Some(testing::open(&app, "/s").await.expect("a stream"));
        client.take(reader.as_mut().expect("open"), 1);
        let mut n = 0;
        while n < ALL || reader.is_none() {
            let many = random.u64(1..=60).min(ALL - n);
            let events = (n + 1..=n + many).map(|n| {
                let pad = if random.u8(..) < 20 { 20_000 } else { 100 };
                Reading { n, of: n % 5, pad: "x".repeat(pad) }
            });
            let events: Vec<_> = events.collect();
            if random.bool() {
                topic.publish_all(events).await.expect("sent");
            } else {
                for event in events {
                    topic.publish(event).await.expect("sent");
                }
            }
            n += many;
            if reader.is_none() {
                let id = client.id.as_deref().expect("an id");
                reader = Some(testing::open(&app, "/s").last_event_id(id).await.expect("a stream"));
            }
            let there = client.take(reader.as_mut().expect("open"), random.usize(0..70));
            reader = reader.filter(|_| there && (n == ALL || random.u8(..) < 170));
        }
        assert!(client.take(reader.as_mut().expect("open"), 1_000), "{seed}");
        let Broken { got, missed, .. } = client;
        assert!(got.is_sorted_by(|a, b| a < b), "{seed}: {got:?}");
        let count = (1..=ALL).filter(|n| wanted(*n)).count() as u64;
        match seed % 4 {
            0 => assert_eq!((got.len() as u64, missed), (count, 0), "{seed}"),
            3 => {
                let newest = |key| (1..=ALL).rfind(|n| n % 5 == key);
                let had = |key| got.iter().copied().rfind(|n| n % 5 == key);
                let keys = (0..5).filter(|key| !filtered || *key != 0);
                keys.for_each(|key| assert_eq!(newest(key), had(key), "{seed}"));
            }
            _ if !filtered => assert_eq!(got.len() as u64 + missed, ALL, "{seed}"),
            _ => assert!(got.len() as u64 + missed >= count, "{seed}"),
        }
    }
}

/// A client that is cut between the two is told again.
#[tokio::test(start_paused = true)]
async fn a_gap_has_no_place_before_what_answers_it() {
    let topic = summed(3);
    let first = topic.publish(step(1)).await.expect("sent").to_string();
    topic.publish_all((2..=9).map(step)).await.expect("sent");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe());
    let mut back = testing::open(&app, "/s").last_event_id(&first).await.expect("a stream");
    let (gap, state) = (next(&mut back).await, next(&mut back).await);
    assert_eq!((gap.event.as_str(), gap.id), ("hero.gap", None));
    assert_eq!(what(&state), ("state".to_owned(), 45));
    let id = state.id.expect("an id");
    topic.publish(step(10)).await.expect("sent");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut back), steps([10]));
}

/// The place behind the gap is of the life that has begun, though the offset is the same.
#[tokio::test(start_paused = true)]
async fn another_life_is_told_once() {
    let broker = hero_sse::topic::MemoryBroker::new();
    let topic: Topic<Step> = Topic::builder("steps").open(&broker).await.expect("open");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    broker.drop_log("steps");
    let gap = next(&mut reader).await;
    let nothing = serde_json::json!({ "missed": null, "from": null, "to": null });
    assert_eq!((gap.event.as_str(), gap.json::<Value>().expect("JSON")), ("hero.gap", nothing));
    topic.publish(step(1)).await.expect("sent");
    let id = gap.id.expect("an id");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut back), steps([1]));
}

/// A state that JSON has no way to write, and one whose encoder panics.
#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_written_ends_the_stream_with_its_reason() {
    #[derive(Clone)]
    struct Unwritable(&'static str);
    impl SseEvent for Unwritable {
        fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
            assert_ne!(self.0, "panics");
            frame.json(&std::collections::BTreeMap::from([((1, 2), "keys of JSON are texts")]))
        }
    }
    for (how, told) in [("fails", "cannot be encoded"), ("panics", "panicked while it was encoded")]
    {
        let (log, _guard) = Log::everything();
        let topic = Topic::builder("sums").snapshot(Unwritable(how), |_, _: &Step| {}).build();
        let of = topic.clone();
        let sse = sse_with(options(""));
        let app = serving(&sse, move || of.subscribe());
        // Publishing is not concerned.
        let id = topic.publish(step(1)).await.expect("sent").to_string();
        let new = testing::open(&app, "/s");
        let lost = testing::open(&app, "/s").last_event_id("AAAAAAAAAAAAAAAAAAAAAA");
        for client in [new, lost] {
            let rest = client.await.expect("a stream").read_to_end().await.expect("an end");
            let last = rest.last().expect("a closing event");
            assert!(last.data.contains("stream_error"), "{rest:?}");
        }
        assert_eq!(sse.connections().closed(CloseReason::StreamError), 2);
        let text = log.text();
        assert!(text.contains(&format!("the state of topic \"sums\" {told}")), "{text}");
        // Who needs no state gets what it needs.
        topic.publish(step(2)).await.expect("sent");
        let mut back = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
        assert_eq!(there(&mut back), steps([2]));
    }
}

/// What is not wanted supersedes nothing that is.
#[tokio::test(start_paused = true)]
async fn the_newest_that_is_wanted_comes_whatever_came_behind_it() {
    let topic = Topic::builder("steps").retain_events(4_000).build();
    let of = topic.clone();
    let app = serving(&sse_with(options("Overflow = \"latest\"")), move || {
        let even = |step: &Step| !matches!(step, Step::Step { n, .. } if n % 2 == 1);
        of.subscribe().filter(even)
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    // Of the same key.
    topic.publish_all([step(2), step(8), step(5), step(11)]).await.expect("sent");
    assert_eq!(there(&mut reader), steps([8]));
    // Where it stands behind what it did not want, it learns with the heartbeat.
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(there(&mut reader), [("hero.cursor".to_owned(), 0)]);
    let id = topic.publish(step(4)).await.expect("sent").to_string();
    assert_eq!(there(&mut reader), steps([4]));
    // A thousand at a time, each once and in order.
    topic.publish_all((1..=3_000).map(|n| step(2 * n))).await.expect("sent");
    let got = there(&mut reader);
    assert!(got.len() == 9 && got.is_sorted_by_key(|(_, n)| *n), "{got:?}");
    assert_eq!(got[got.len() - 3..], steps([5_996, 5_998, 6_000]));
    topic.publish(Step::Done { n: 7 }).await.expect("sent");
    let mut back = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    let rest = back.read_to_end().await.expect("all");
    assert!(rest.iter().any(|event| event.event == "done") && rest.len() < 16, "{rest:?}");
}

/// To find the newest of what waits, a reader looks ahead; what is large is not looked at again and again.
#[tokio::test(start_paused = true)]
async fn what_is_large_is_not_asked_about_for_each_write() {
    #[derive(SseEvent, Serialize)]
    struct Large {
        #[sse(key)]
        n: u64,
        text: String,
    }
    let topic = Topic::new("large");
    let (of, asked) = (topic.clone(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let app = serving(&sse_with(options("Overflow = \"latest\"")), move || {
        let count = count.clone();
        of.subscribe().from_start().filter(move |_| count.fetch_add(1, Ordering::Relaxed) < 9_999)
    });
    let text = "x".repeat(8_000);
    topic.publish_all((0..200).map(|n| Large { n, text: text.clone() })).await.expect("sent");
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(some(&mut reader, 200).await.len(), 200);
    // Two to a write; without a bound all that wait would be asked about each time, 10,100 times in all.
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked < 2_000, "{asked}");
}

/// A heartbeat tells a client that wants nothing where it stands; what is sent to it holds that back.
#[tokio::test(start_paused = true)]
async fn who_wants_nothing_of_what_passes_misses_nothing_either() {
    for alone in [true, false] {
        let topic = Topic::builder("steps").retain_events(20).build();
        let (of, none) = (topic.clone(), Topic::<Step>::new("none"));
        let sse = sse_with(options(""));
        let app = match alone {
            true => serving(&sse, move || of.subscribe().filter(|_| false)),
            false => serving(&sse, move || {
                of.subscribe().filter(|_| false).and(none.subscribe().from_start())
            }),
        };
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        let (mut id, mut marks) = (next(&mut reader).await.id, 0);
        for n in 0..200 {
            topic.publish(step(n)).await.expect("sent");
            let everyone = hero_sse::connections::ConnectionFilter::all();
            sse.connections().send(&everyone, Event::text("mail")).expect("sent");
            while let Some(Ok(Some(event))) = reader.next().now_or_never() {
                marks += u64::from(event.id.is_some());
                id = event.id.or(id);
            }
        }
        // Not with each event that passes.
        assert!((5..=15).contains(&marks), "{marks}");
        drop(reader);
        let id = id.expect("an id");
        let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
        assert!(there(&mut reader).iter().all(|(name, _)| name == "hero.cursor"));
        assert_eq!(sse.connections().gaps(), 0);
    }
}

/// Who gets an event now and then knows where it stands by that.
#[tokio::test(start_paused = true)]
async fn what_a_filter_lets_through_is_told_alone() {
    let topic = Topic::builder("steps").retain_events(40).build();
    let of = topic.clone();
    let app = serving(&sse_with(options("")), move || {
        of.subscribe().filter(|step| matches!(step, Step::Step { n, .. } if n % 10 == 0))
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    for n in 1..200 {
        topic.publish(step(n)).await.expect("sent");
        assert_eq!(there(&mut reader), steps((n % 10 == 0).then_some(n)));
    }
}

/// A reader that joined all there is leaves it to the next, until it is outdated.
#[tokio::test(start_paused = true)]
async fn who_begins_gets_no_value_that_is_outdated() {
    let gauges = Topic::latest("gauges");
    let of = gauges.clone();
    let app = serving(&sse_with(options("")), move || of.subscribe());
    gauges.publish_all([step(1), step(2), step(3)]).await.expect("sent");
    for n in [4, 7, 10] {
        let mut new = testing::open(&app, "/s").await.expect("a stream");
        gauges.publish(step(n)).await.expect("sent");
        assert_eq!(there(&mut new), steps([2, 3, n]));
        let mut same = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(there(&mut same), steps([2, 3, n]));
    }
}

/// One event alone neither: its key is not known there, nor of which topic it is.
#[tokio::test(start_paused = true)]
async fn what_comes_alone_of_several_topics_is_not_replaced() {
    let (one, other) = (Topic::new("one"), Topic::new("other"));
    let mut both = one.subscribe().and(other.subscribe());
    let mut frames = Vec::new();
    for n in 0..3 {
        for topic in [&one, &other] {
            topic.publish(step(n)).await.expect("sent");
            while let Some(Some(some)) = both.next().now_or_never() {
                frames.push(some.expect("frames"));
            }
        }
    }
    let (all, _) = sent("", frames.clone()).await;
    let (latest, _) = sent("Overflow = \"latest\"\nBuffer = 64", frames.clone()).await;
    assert_eq!(latest, all);
}

/// Who follows loses nothing by age that is still there.
#[tokio::test(start_paused = true)]
async fn who_follows_gets_what_has_become_old_meanwhile() {
    let topic = Topic::builder("steps").retain_for(Duration::from_secs(60)).build();
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    topic.publish_all((0..3).map(step)).await.expect("sent");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(there(&mut reader), steps(0..3));
}

/// Who wants nothing of what was gets the end all the same.
#[tokio::test(start_paused = true)]
async fn the_end_comes_whatever_a_new_client_wants() {
    let topic = Topic::new("steps");
    topic.publish_all([step(1), Step::Done { n: 7 }]).await.expect("sent");
    let of = topic.clone();
    let app = serving(&sse_with(options("")), move || of.subscribe().recent(0));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let rest = reader.read_to_end().await.expect("all");
    assert!(rest.iter().any(|event| event.event == "done"), "{rest:?}");
}
