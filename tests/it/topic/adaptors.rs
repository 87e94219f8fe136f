//! Subscriptions behind adaptors such as `map`: gaps, keys and ends reach the client.

use super::steps::*;

/// Behind an adaptor the next event reports the whole gap, and `hero.gap` is sent before that event.
#[tokio::test(start_paused = true)]
async fn a_mapped_event_reports_the_gap_before_it() {
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
    let app = serving(&sse, move || StreamExt::map(of.subscribe().from_start(), |frame| frame));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(some(&mut reader, 3).await, steps(28..=30));
    let of = topic.clone();
    let sse = sse_with(SseOptions::default());
    let resumed =
        async move |cursor: LastEventId| StreamExt::map(of.subscribe().resume(&cursor), |f| f);
    let app = sse.endpoint("/s").public().handler(resumed).expect("a route");
    let mut reader = testing::open(&app, "/s").last_event_id("another").await.expect("a stream");
    let gap = next(&mut reader).await;
    assert_eq!(gap.event, "hero.gap");
    assert_eq!(gap.json::<Value>().expect("JSON")["missed"], Value::Null);
    assert_eq!(some(&mut reader, 3).await, steps(28..=30));
}

/// Behind an adaptor the frames are events like any others: they have their keys, and the last is the end.
#[tokio::test(start_paused = true)]
async fn a_mapped_event_keeps_its_key_and_its_end_mark() {
    let topic = Topic::new("steps");
    let of = topic.clone();
    let sse = sse_with(options("Overflow = \"latest\""));
    let app = serving(&sse, move || StreamExt::map(of.subscribe(), |frame| frame));
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
async fn behind_an_adaptor_every_gap_is_sent_and_counted() {
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
async fn merged_events_behind_an_adaptor_are_never_replaced() {
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
    // A reconnecting client does not get it again.
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

/// A gap that was read by hand is not lost either. It is sent once with the state; on a merged stream, a client that
/// disconnects earlier gets it again.
#[tokio::test(start_paused = true)]
async fn a_gap_that_was_read_by_hand_is_sent_when_the_subscription_is_returned() {
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

/// One event alone neither: its key is not known there, nor of which topic it is.
#[tokio::test(start_paused = true)]
async fn a_single_merged_event_behind_an_adaptor_is_not_replaced() {
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
