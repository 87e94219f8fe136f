//! Filters: the client's cursor moves on, and a filter that is slow or panics harms its own stream alone.

use super::steps::*;

#[tokio::test(start_paused = true)]
async fn filtered_events_move_the_cursor_and_the_last_event_passes() {
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

/// A filter that publishes, and wants nothing: there is always more to look at.
#[tokio::test(start_paused = true)]
async fn a_filter_may_publish_and_lets_other_tasks_run() {
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

/// However much a filter leaves out, what it wants comes at once.
#[tokio::test(start_paused = true)]
async fn filtered_events_are_skipped_without_a_wait() {
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

/// What a filter holds is the application's too.
#[tokio::test(start_paused = true)]
async fn a_filter_whose_drop_panics_harms_no_other_stream() {
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

/// What is not wanted supersedes nothing that is.
#[tokio::test(start_paused = true)]
async fn a_filtered_event_replaces_no_accepted_one_under_latest() {
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
async fn a_filter_is_not_asked_again_for_each_write_of_large_events() {
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
async fn a_client_whose_filter_accepts_nothing_misses_nothing() {
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
async fn only_events_that_a_filter_accepts_are_sent() {
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
