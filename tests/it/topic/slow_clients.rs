//! Slow clients under each `Overflow`: which lag counts, and that every id a client has is true.

use super::steps::*;

/// A client that takes nothing for a while, under each policy.
#[tokio::test(start_paused = true)]
async fn a_slow_client_is_treated_as_the_endpoint_says() {
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
    // Nothing is evicted by then. A reconnecting client may lag as far as it does.
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
async fn a_burst_disconnects_no_client_that_was_up_to_date() {
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
        // One after the other, and more than is kept: a gap reports the evicted events.
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
async fn a_client_with_an_unread_direct_message_is_not_up_to_date() {
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

/// Who reads what is kept of a busy topic is overtaken where it begins: it is not sent away for that.
#[tokio::test(start_paused = true)]
async fn events_evicted_during_a_replay_do_not_end_the_stream() {
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
async fn a_buffer_disconnects_no_client_without_need() {
    let gauges = Topic::latest("steps");
    let of = gauges.clone();
    let app = serving(&sse_with(options("Buffer = 10")), move || of.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    next(&mut reader).await;
    gauges.publish_all((1..=50).map(step)).await.expect("sent");
    assert_eq!(there(&mut reader), steps([48, 49, 50]));

    // A client that replays events is not slow.
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

    // With a buffer as long as the topic, the client is disconnected in time as well.
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

/// Bytes are three quarters of what is kept as well, of what is there and not of all that ever was.
#[tokio::test(start_paused = true)]
async fn a_client_can_be_too_slow_by_bytes() {
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
async fn a_client_resumes_from_its_last_id_under_every_overflow() {
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
