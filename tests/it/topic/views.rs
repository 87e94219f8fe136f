//! `map` and `take` of a subscription keep what it has, and other adaptors are named in the log.

use super::steps::*;
use proptest::prelude::*;

#[derive(Serialize, SseEvent)]
struct Double {
    n: u64,
}

fn doubled(step: &Step) -> Double {
    let (Step::Step { n, .. } | Step::Done { n }) = step;
    Double { n: 2 * n }
}

fn doubles(numbers: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    numbers.into_iter().map(|n| ("double".to_owned(), 2 * n)).collect()
}

async fn sent(topic: &Topic<Step>, numbers: std::ops::RangeInclusive<u64>) {
    topic.publish_all(numbers.map(step)).await.expect("sent");
}

fn is_odd(step: &Step) -> bool {
    matches!(step, Step::Step { n, .. } if n % 2 == 1)
}

#[tokio::test(start_paused = true)]
async fn a_mapped_subscription_resumes_and_ends_as_before() {
    let topic = Topic::new("steps");
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || {
        // Filters apply to what they stand behind.
        of.subscribe().from_start().filter(is_odd).map(doubled).filter(|double| double.n != 6)
    });
    sent(&topic, 1..=6).await;
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let first = next(&mut reader).await;
    assert_eq!(what(&first), ("double".to_owned(), 2));
    assert_eq!(there(&mut reader), doubles([5]));
    let id = first.id.expect("an id");
    let mut back = testing::open(&app, "/s").last_event_id(&id).await.expect("a stream");
    assert_eq!(there(&mut back), doubles([5]));
    // A last event passes every filter, and is the last of the new type.
    topic.publish(Step::Done { n: 3 }).await.expect("sent");
    for mut reader in [reader, back] {
        let rest = reader.read_to_end().await.expect("all");
        assert_eq!(what(&rest[0]), ("double".to_owned(), 6));
        let id = rest[0].id.clone().expect("an id");
        assert!(id.ends_with(";hero.end") && rest[1].data.contains("\"last_event\""), "{rest:?}");
    }
}

/// What the client is too slow for, and what it missed.
#[tokio::test(start_paused = true)]
async fn a_mapped_subscription_keeps_overflow_keys_and_gaps() {
    let topic = Topic::new("steps");
    let of = topic.clone();
    let sse = sse_with(options("Overflow = \"latest\""));
    let app = serving(&sse, move || of.subscribe().map(doubled));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    sent(&topic, 1..=30).await;
    assert_eq!(there(&mut reader), doubles([28, 29, 30]));

    let (topic, id) = with_a_gap().await;
    let of = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe().map(doubled));
    let mut reader = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
    let gap = vec![("hero.gap".to_owned(), 0)];
    assert_eq!(there(&mut reader), [gap, doubles(7..=9)].concat());
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_fails_or_panics_ends_the_stream_after_what_was_before() {
    for (panics, reason) in [(false, CloseReason::StreamError), (true, CloseReason::StreamPanic)] {
        let topic = Topic::new("steps");
        let of = topic.clone();
        let app = serving(&sse_with(SseOptions::default()), move || {
            of.subscribe().from_start().map(move |step| {
                let Step::Step { n, .. } = step else { panic!("no end") };
                assert!(*n != 3 || !panics, "on purpose");
                let text = if *n == 3 { "error" } else { "fine" };
                // An `EventSource` would not get it.
                Event::text(n.to_string()).named(text).expect("a name")
            })
        });
        sent(&topic, 1..=4).await;
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        let all = reader.read_to_end().await.expect("an end");
        let close = all.last().expect("a closing event");
        assert!(close.data.contains(reason.as_str()), "{all:?}");
        assert!(all.iter().all(|event| event.event != "error"), "{all:?}");
    }
}

/// `take` counts what the client gets. Who returns gets the next ones.
#[tokio::test(start_paused = true)]
async fn a_taken_stream_ends_and_the_next_one_goes_on() {
    let topic = Topic::new("steps");
    let of = topic.clone();
    let sse = sse_with(SseOptions::default());
    let app = serving(&sse, move || {
        of.subscribe().from_start().take(2).map(doubled).filter(|double| double.n % 4 == 2)
    });
    sent(&topic, 1..=9).await;
    let mut id = None::<String>;
    for wanted in [vec![1, 3], vec![5, 7], vec![9]] {
        let request = testing::open(&app, "/s");
        let request = match &id {
            Some(id) => request.last_event_id(id),
            None => request,
        };
        let mut reader = request.await.expect("a stream");
        if wanted.len() == 2 {
            let all = reader.read_to_end().await.expect("an end");
            assert_eq!(all.iter().take(2).map(what).collect::<Vec<_>>(), doubles(wanted));
            assert_eq!((all.len(), all[2].event.as_str()), (3, "hero.close"), "{all:?}");
            assert!(all[2].data.contains("\"reason\":\"ended\",\"reconnect\":true"), "{all:?}");
            id = all[1].id.clone();
        } else {
            assert_eq!(there(&mut reader), doubles(wanted));
            // The last event is the topic's end, and not that of the count.
            topic.publish(Step::Done { n: 0 }).await.expect("sent");
            let all = reader.read_to_end().await.expect("an end");
            assert!(all.last().expect("closed").data.contains("\"last_event\""), "{all:?}");
        }
    }
    // None at all: the state, and where it stands.
    let of = Topic::<Step>::new("none");
    let app = serving(&sse_with(SseOptions::default()), move || of.subscribe().take(0));
    let all = testing::open(&app, "/s").await.expect("a stream").read_to_end().await.expect("all");
    let names: Vec<_> = all.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["hero.cursor", "hero.close"]);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_merged_stream_is_mapped_and_taken() {
    let (topic, other) = (Topic::new("steps"), Topic::<Reading>::new("readings"));
    let (of, also) = (topic.clone(), other.clone());
    let app = serving(&sse_with(SseOptions::default()), move || {
        of.subscribe().from_start().map(doubled).take(2).and(also.subscribe())
    });
    sent(&topic, 1..=3).await;
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let (first, second) = (next(&mut reader).await, next(&mut reader).await);
    assert_eq!([what(&first), what(&second)], doubles(1..=2)[..]);
    assert_eq!(there(&mut reader), []);
    other.publish(reading(7, 0)).await.expect("sent");
    let event = next(&mut reader).await;
    let back = testing::open(&app, "/s").last_event_id(event.id.expect("an id"));
    assert_eq!(there(&mut back.await.expect("a stream")), doubles([3]));
    let back = testing::open(&app, "/s").last_event_id(first.id.expect("an id"));
    let mut got = there(&mut back.await.expect("a stream"));
    got.sort();
    assert_eq!(got, [doubles(2..=3), vec![("reading".to_owned(), 7)]].concat());
}

/// As a `Stream`, for a consumer in the server, they do the same.
#[tokio::test(start_paused = true)]
async fn as_a_stream_it_yields_the_mapped_events() {
    let topic = Topic::new("steps");
    sent(&topic, 1..=9).await;
    let mapped = topic.subscribe().from_start().filter(is_odd).map(doubled).take(3);
    let all: Vec<_> = mapped.collect::<Vec<_>>().await;
    assert_eq!(all.iter().map(|double| double.n).collect::<Vec<_>>(), [2, 6, 10]);
    let text = testing::frame(&all[0]).expect("a frame");
    let position = all[0].position();
    assert_eq!(text, format!("id: {position}\nevent: double\ndata: {{\"n\":2}}\n\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the stream is cut into parts, a client that returns gets what it asked for, each once, in order.
    #[test]
    fn parts_of_a_mapped_stream_are_the_whole(
        counts in proptest::collection::vec(1..6_usize, 1..12),
        filters: bool,
        overflow in prop_oneof![Just("disconnect"), Just("drop_oldest")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
        runtime.block_on(async {
            let topic = Topic::new("steps");
            let (of, left) = (topic.clone(), Arc::new(std::sync::Mutex::new(counts.clone())));
            let sse = sse_with(options(&format!("Overflow = \"{overflow}\"")));
            let app = serving(&sse, move || {
                let count = left.lock().expect("no panic").pop().expect("one more");
                let all = of.subscribe().from_start();
                let all = if filters { all.filter(is_odd) } else { all };
                all.map(doubled).take(count)
            });
            sent(&topic, 1..=200).await;
            let (mut id, mut got) = (None::<String>, Vec::new());
            for _ in &counts {
                let request = testing::open(&app, "/s");
                let request = match &id {
                    Some(id) => request.last_event_id(id),
                    None => request,
                };
                let all = request.await.expect("a stream").read_to_end().await.expect("an end");
                for event in all.iter().filter(|event| event.event == "double") {
                    got.push(what(event));
                    id = event.id.clone();
                }
            }
            let count = counts.iter().sum();
            let wanted = (1..).filter(|n| !filters || n % 2 == 1).take(count);
            assert_eq!(got, doubles(wanted));
        });
    }
}

/// Once per path, and only where resuming is lost.
#[tokio::test(start_paused = true)]
async fn a_subscription_inside_another_stream_is_logged_with_the_cure() {
    let (log, _guard) = Log::everything();
    let topic = Topic::<Step>::new("steps");
    sent(&topic, 1..=3).await;
    let sse = sse_with(SseOptions::default());
    let route = |path: &'static str| sse.endpoint(path).public();
    let of = [(); 7].map(|()| topic.clone());
    let [a, b, c, d, e, f, g] = of;
    let app = axum::Router::new()
        .merge(
            route("/mapped")
                .handler(async move || StreamExt::map(a.subscribe(), |one| one))
                .expect("a route"),
        )
        .merge(
            route("/mapped-to-another")
                .handler(async move || StreamExt::map(b.subscribe(), |one| doubled(&one)))
                .expect("a route"),
        )
        .merge(
            route("/in-a-block")
                .handler(async move || {
                    hero_sse::stream(async move |mut emitter| {
                        let mut all = c.subscribe();
                        while let Some(step) = all.next().await {
                            emitter.send(doubled(&step)).await;
                        }
                        Ok::<_, String>(())
                    })
                })
                .expect("a route"),
        )
        .merge(
            route("/hooks")
                .handler(async move |cursor: LastEventId| {
                    let hooked = d.subscribe().begin_with(async || Ok(Vec::<State>::new()));
                    StreamExt::map(hooked.resume(&cursor), |one| one)
                })
                .expect("a route"),
        )
        .merge(
            route("/resumes")
                .handler(async move |cursor: LastEventId| {
                    StreamExt::map(e.subscribe().resume(&cursor), |one| one)
                })
                .expect("a route"),
        )
        .merge(
            route("/own")
                .handler(async move || f.subscribe().take(9).map(doubled))
                .expect("a route"),
        )
        .merge(
            route("/merged")
                .handler(async move || {
                    let readings = Topic::<Reading>::new("readings");
                    StreamExt::map(g.subscribe().and(readings.subscribe()), |one| one)
                })
                .expect("a route"),
        );
    for path in
        ["/mapped", "/mapped-to-another", "/in-a-block", "/hooks", "/resumes", "/own", "/merged"]
    {
        let before = log.text().len();
        for _ in 0..2 {
            let mut reader = testing::open(&app, path).await.expect("a stream");
            there(&mut reader);
        }
        let said = log.text().split_off(before);
        let lines = said.lines().filter(|line| line.contains("inside another stream")).count();
        let lost = !["/resumes", "/own"].contains(&path);
        assert_eq!(lines, usize::from(lost), "{path}: {said}");
        assert!(!lost || said.contains("call `resume(&cursor)`"), "{path}: {said}");
    }
    // A consumer of its own is no client's stream.
    let before = log.text().len();
    let _ = topic.subscribe().next().now_or_never();
    assert!(!log.text().split_off(before).contains("inside another stream"));
}
