//! Comments, reconnection times and ids alone in a topic: they take a position, and cost no event.

use super::steps::*;
use crate::support::serving as serve;
use axum::Router;
use hero_sse::Event;
use hero_sse::options::Profile;

fn event(n: u64) -> Event {
    Event::text(n.to_string())
}

/// The comments without heartbeats.
fn comments(reader: &EventReader) -> Vec<String> {
    reader.comments().into_iter().filter(|comment| !comment.is_empty()).collect()
}

fn app(topic: &Topic<Event>) -> Router {
    let topic = topic.clone();
    serve(&sse_with(options("HeartbeatInterval = \"10s\"")), move || topic.subscribe())
}

#[tokio::test(start_paused = true)]
async fn they_take_a_position_and_a_reconnecting_client_misses_nothing() {
    let topic: Topic<Event> = Topic::new("notes");
    let app = app(&topic);
    let reader = testing::open(&app, "/s").await.expect("a stream");
    let mut reader = reader.timeout(Duration::from_secs(60));
    assert_eq!(next(&mut reader).await.event, "hero.cursor");
    let first = topic.publish(event(1)).await.expect("published");
    let got = next(&mut reader).await;
    assert_eq!((got.data.as_str(), got.id.as_deref()), ("1", Some(first.as_str())));

    topic.publish(Event::comment("working")).await.expect("published");
    topic.publish(Event::retry(Duration::from_secs(7)).expect("a time")).await.expect("published");
    // Its own id is not the topic's. What is left is nothing, and takes a position all the same.
    let last = topic.publish(Event::id_only(7).expect("an id")).await.expect("published");
    assert_eq!(topic.len(), 4);
    // Firefox ignores the ids of blocks without data. An event carries the position with the next heartbeat.
    let cursor = next(&mut reader).await;
    assert_eq!((cursor.event.as_str(), cursor.id.as_deref()), ("hero.cursor", Some(last.as_str())));
    assert_eq!(
        (comments(&reader), reader.retry()),
        (vec!["working".into()], Some(Duration::from_secs(7)))
    );
    assert!(!reader.raw().contains("id: 7\n"), "{}", reader.raw());

    topic.publish(event(2)).await.expect("published");
    for (id, seen) in [(first.as_str(), 1), (last.as_str(), 0)] {
        let mut again = testing::open(&app, "/s").last_event_id(id).await.expect("a stream");
        assert_eq!(next(&mut again).await.data, "2");
        assert_eq!(comments(&again).len(), seen, "{}", again.raw());
        assert!(!again.raw().contains("hero.gap"), "{}", again.raw());
    }
}

#[tokio::test(start_paused = true)]
async fn they_replace_no_event_of_a_topic_of_latest_values_nor_of_a_slow_client() {
    let latest: Topic<Event> = Topic::builder("notes").latest().build();
    let all: Topic<Event> = Topic::new("notes");
    let (first, second) = (latest.clone(), all.clone());
    for topic in [&latest, &all] {
        topic.publish(event(1)).await.expect("published");
        topic.publish(event(2)).await.expect("published");
        for n in 0..50 {
            topic.publish(Event::comment(n.to_string())).await.expect("published");
        }
        topic
            .publish(Event::retry(Duration::from_secs(7)).expect("a time").with_key("retry"))
            .await
            .expect("published");
    }
    let sse = || sse_with(options("Overflow = \"latest\""));
    for app in [
        serve(&sse(), move || first.subscribe()),
        serve(&sse(), move || second.subscribe().from_start()),
    ] {
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(next(&mut reader).await.data, "2", "{}", reader.raw());
        while reader.next().now_or_never().is_some() {}
        let found = (comments(&reader), reader.retry());
        assert_eq!(found, (vec!["49".into()], Some(Duration::from_secs(7))), "{}", reader.raw());
    }
}

/// The end mark reaches every browser in a block with data, whatever carries the event.
#[tokio::test(start_paused = true)]
async fn a_last_one_ends_the_stream_for_good() {
    for carrier in 0..3 {
        let topic: Topic<Event> = Topic::new("notes");
        let other: Topic<Event> = Topic::new("other");
        topic.publish(event(1)).await.expect("published");
        topic.publish(Event::comment("bye").last()).await.expect("published");
        other.publish(Event::comment("bye").last()).await.expect("published");
        assert!(topic.is_closed());
        let sse = sse_with(SseOptions::default());
        let app = match carrier {
            0 => serve(&sse, move || topic.subscribe().from_start()),
            1 => serve(&sse, move || StreamExt::map(topic.subscribe().from_start(), |event| event)),
            _ => serve(&sse, move || {
                topic.subscribe().from_start().and(other.subscribe().from_start())
            }),
        };
        let mut reader = testing::open(&app, "/s").await.expect("a stream");
        let events = reader.read_to_end().await.expect("a clean end");
        assert_eq!(reader.close_reason(), Some(CloseReason::LastEvent), "{carrier}");
        // Each of these has data.
        let id = events.iter().rev().find_map(|event| event.id.clone()).expect("an id");
        assert!(id.ends_with(";hero.end"), "{carrier}: {}", reader.raw());
        let again = testing::open(&app, "/s").last_event_id(id).await.expect_err("no stream");
        assert_eq!(again.status.map(|status| status.as_u16()), Some(204), "{carrier}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_answered_with_them_and_the_id_follows() {
    let topic: Topic<Event> = Topic::builder("notes").retain_events(2).build();
    let first = topic.publish(event(1)).await.expect("published");
    topic.publish_all((2..=5).map(event)).await.expect("published");
    let subscribed = topic.clone();
    let app = serve(&sse_with(SseOptions::default()), move || {
        let reply = async |_| Ok(vec![event(0), Event::comment("that is all")]);
        subscribed.subscribe().on_gap(reply)
    });
    let reader = testing::open(&app, "/s").last_event_id(first.as_str()).await.expect("a stream");
    let mut reader = reader.timeout(Duration::from_secs(60));
    let names = [next(&mut reader).await.event, next(&mut reader).await.data];
    assert_eq!(names, ["hero.gap", "0"]);
    // Not every browser takes the id of a block without data. An event carries it with the next heartbeat.
    assert_eq!(next(&mut reader).await.event, "hero.cursor");
    let six = topic.publish(event(6)).await.expect("published");
    let got = next(&mut reader).await;
    assert_eq!(
        (got.data.as_str(), got.id.as_deref()),
        ("6", Some(six.as_str())),
        "{}",
        reader.raw()
    );
    assert_eq!(comments(&reader), ["that is all"]);
}

/// A filter sees them as it sees every event.
#[tokio::test(start_paused = true)]
async fn filters_apply_to_them() {
    let topic: Topic<Event> = Topic::new("notes");
    topic.publish(Event::comment("no").with_key("no")).await.expect("published");
    topic.publish(Event::comment("yes")).await.expect("published");
    topic.publish(event(1)).await.expect("published");
    let app = serve(&sse_with(SseOptions::default()), move || {
        topic.subscribe().from_start().filter(|event| event.key().is_none())
    });
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(next(&mut reader).await.data, "1");
    assert_eq!(comments(&reader), ["yes"]);
}

/// Behind an adaptor, too, a plain stream has the application's events alone, and a native one no name that an
/// `EventSource` keeps for itself.
#[tokio::test(start_paused = true)]
async fn an_adapted_subscription_follows_the_profile() {
    let topic: Topic<Event> = Topic::builder("notes").retain_events(3).build();
    let first = topic.publish(event(0)).await.expect("published").to_string();
    let error = || Event::text("x").named("error").expect("a name");
    topic.publish_all([event(1), event(2), error(), event(3).last()]).await.expect("published");
    let app = |profile: &str| {
        let topic = topic.clone();
        let sse = sse_with(options(&format!("Profile = \"{profile}\"")));
        let endpoint = sse.endpoint("/s").public();
        endpoint
            .handler(async move |cursor: LastEventId| {
                StreamExt::map(topic.subscribe().from_start().resume(&cursor), |event| event)
            })
            .expect("a route")
    };
    let open = |app: Router| async move { testing::open(&app, "/s").await.expect("a stream") };

    let mut plain = open(app("plain")).await;
    let events = plain.read_to_end().await.expect("a clean end");
    let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(data, ["2", "x", "3"]);
    assert!(!plain.raw().contains("hero."), "{}", plain.raw());
    let mut native = open(app("native")).await;
    let events = native.read_to_end().await.expect("a clean end");
    assert_eq!(events.first().map(|event| event.data.as_str()), Some("2"));
    assert_eq!(native.close_reason(), Some(CloseReason::StreamError), "{}", native.raw());
    assert!(!native.raw().contains("event: error"), "{}", native.raw());

    // A gap that nothing answers breaks the body.
    let resumed = testing::open(&app("plain"), "/s").last_event_id(first);
    let mut resumed = resumed.await.expect("a stream");
    assert!(resumed.read_to_end().await.is_err(), "{}", resumed.raw());
    assert!(!resumed.raw().contains("data:"), "{}", resumed.raw());
}

/// So does one of several topics, which encodes its events itself.
#[tokio::test(start_paused = true)]
async fn an_adapted_merged_subscription_follows_the_profile() {
    let topic: Topic<Event> = Topic::builder("notes").retain_events(3).build();
    let other: Topic<Event> = Topic::new("other");
    let first = topic.publish(event(0)).await.expect("published").to_string();
    let error = || Event::text("x").named("error").expect("a name");
    topic.publish_all([event(1), event(2), error(), event(3)]).await.expect("published");
    let app = |answered: bool| {
        let (topic, other) = (topic.clone(), other.clone());
        let endpoint = sse_with(SseOptions::default().profile(Profile::Plain));
        let endpoint = endpoint.endpoint("/s").public();
        let open = async move |cursor: LastEventId| {
            let mut subscription = topic.subscribe().from_start();
            if answered {
                subscription = subscription.on_gap(async |_| Ok(vec![event(7)]));
            }
            StreamExt::map(subscription.and(other.subscribe()).resume(&cursor), |event| event)
        };
        endpoint.handler(open).expect("a route")
    };
    let mut plain = testing::open(&app(false), "/s").await.expect("a stream");
    let mut data = Vec::new();
    while data.len() < 3 {
        data.push(next(&mut plain).await.data);
    }
    assert_eq!(data, ["2", "x", "3"]);
    assert!(!plain.raw().contains("hero."), "{}", plain.raw());

    let open = |answered| testing::open(&app(answered), "/s").last_event_id(first.clone());
    let mut broken = open(false).await.expect("a stream");
    assert!(broken.read_to_end().await.is_err(), "{}", broken.raw());
    let mut answered = open(true).await.expect("a stream");
    assert_eq!(next(&mut answered).await.data, "7");
    assert!(!answered.raw().contains("hero."), "{}", answered.raw());
}
