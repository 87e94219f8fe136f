//! `hero.gap` with the reply of `on_gap` or the snapshot of a topic: exact, once, and before later events.

use super::steps::*;

#[tokio::test(start_paused = true)]
async fn a_gap_reply_is_sent_once_and_whole() {
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
    // A client that disconnects before the reply gets the gap again: its cursor has not moved.
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
async fn a_failing_gap_reply_ends_its_own_stream() {
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

/// A reply skips the events that are there, but every client gets the last event.
#[tokio::test(start_paused = true)]
async fn the_last_event_follows_a_gap_reply_and_a_snapshot() {
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
async fn a_snapshot_and_its_changes_fit_under_load() {
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

/// A client that is disconnected between the two gets both again.
#[tokio::test(start_paused = true)]
async fn a_gap_carries_no_id_before_its_reply() {
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
async fn a_new_epoch_is_reported_once() {
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
async fn a_snapshot_that_cannot_be_encoded_ends_the_stream_with_its_reason() {
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
