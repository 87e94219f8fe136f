//! Where a client starts, what it gets of old and latest values, and how its stream ends.

use super::steps::*;

#[tokio::test(start_paused = true)]
async fn latest_values_are_sent_to_new_and_reconnecting_clients() {
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

/// Whatever is published is kept, and so reaches whoever follows; else it is refused.
#[tokio::test(start_paused = true)]
async fn every_published_event_is_retained() {
    for length in 0..150 {
        let topic = Topic::builder("events").retain_events(0).retain_bytes(150).build();
        let mut reader = topic.subscribe();
        let sent = topic.publish(Event::text("x".repeat(length))).await;
        let told = reader.next().now_or_never().flatten().is_some();
        assert_eq!((told, topic.len()), (sent.is_ok(), usize::from(sent.is_ok())), "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_client_starts_where_the_endpoint_says() {
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
async fn a_subscription_ends_after_its_maximum_age() {
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

/// Age counts where one begins, though nothing has been published since.
#[tokio::test(start_paused = true)]
async fn a_new_client_gets_no_expired_event() {
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
        log.text().matches("the endpoint's `event` is ignored").count()
    };
    assert_eq!(run("progress", "/progress", false).await, 1);
    assert_eq!(run("progress", "/both", true).await, 1);
    assert_eq!(run("step", "/step", false).await, 0);
}

/// After a restart the page gets every present value anew, and misses nothing.
#[tokio::test(start_paused = true)]
async fn an_id_of_another_epoch_counts_as_none_for_latest_values() {
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

/// A reader that joined all there is leaves it to the next, until it is outdated.
#[tokio::test(start_paused = true)]
async fn a_new_client_gets_no_outdated_value() {
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

/// Who follows loses nothing by age that is still there.
#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_events_that_expired_meanwhile() {
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
async fn the_last_event_is_sent_to_every_new_client() {
    let topic = Topic::new("steps");
    topic.publish_all([step(1), Step::Done { n: 7 }]).await.expect("sent");
    let of = topic.clone();
    let app = serving(&sse_with(options("")), move || of.subscribe().recent(0));
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    let rest = reader.read_to_end().await.expect("all");
    assert!(rest.iter().any(|event| event.event == "done"), "{rest:?}");
}
