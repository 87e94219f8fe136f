//! Topics through an endpoint: new and reconnecting clients, gaps, filters, ends.

mod adaptors;
mod begins;
mod filters;
mod gaps_and_snapshots;
mod lines;
mod merge;
mod publish;
mod reconnects;
mod slow_clients;
mod starts_and_ends;
mod steps;
mod transports;
mod views;
mod without_data;

use axum::Router;
use axum::extract::State;
use hero_sse::options::Overflow;
use hero_sse::prelude::*;
use hero_sse::{CloseReason, SseOptions};
use serde::Serialize;

use crate::support::testing::{self, EventReader};
use crate::support::{Log, sse_with};

#[derive(Clone, Debug, Serialize, SseEvent)]
struct Order {
    n: u64,
    #[serde(skip)]
    #[sse(key)]
    of: String,
}

fn order(n: u64) -> Order {
    Order { n, of: format!("customer {}", n % 3) }
}

#[sse_endpoint("/orders", public)]
async fn orders(State(orders): State<Topic<Order>>) -> Subscription<Order> {
    orders.subscribe()
}

#[sse_endpoint("/all", public)]
async fn all(
    State(orders): State<Topic<Order>>,
) -> impl Stream<Item = hero_sse::topic::Published<Order>> {
    orders.subscribe().from_start()
}

#[sse_endpoint("/odd", public)]
async fn odd(State(orders): State<Topic<Order>>) -> Result<Subscription<Order>, Refusal> {
    Ok(orders.subscribe().from_start().filter(|order| order.n % 2 == 1))
}

fn app(topic: &Topic<Order>) -> Router {
    let sse = sse_with(SseOptions::default());
    let endpoints = sse.routes(endpoints![orders, all, odd]).expect("routes");
    Router::new().merge(endpoints).with_state(topic.clone())
}

async fn numbers(reader: &mut EventReader, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let event = reader.next().await.expect("an event").expect("more");
        if event.event == "order" {
            numbers
                .push(event.json::<serde_json::Value>().expect("JSON")["n"].as_u64().expect("n"));
        }
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn a_reconnecting_client_resumes_after_its_last_event() {
    let topic = Topic::new("orders");
    let app = app(&topic);
    topic.publish(order(1)).await.expect("published");
    let mut reader = testing::open(&app, "/orders").await.expect("a stream");
    let cursor = reader.next().await.expect("an event").expect("more");
    assert_eq!((cursor.event.as_str(), cursor.data.as_str()), ("hero.cursor", "{}"));
    topic.publish_all((2..=4).map(order)).await.expect("published");
    let event = reader.next().await.expect("an event").expect("more");
    assert_eq!((event.event.as_str(), event.data.as_str()), ("order", "{\"n\":2}"));
    drop(reader);
    topic.publish(order(5)).await.expect("published");

    for (id, wanted) in [(cursor.id, vec![2, 3, 4, 5]), (event.id, vec![3, 4, 5])] {
        let id = id.expect("an id");
        let mut reader = testing::open(&app, "/orders").last_event_id(&id).await.expect("a stream");
        assert_eq!(numbers(&mut reader, wanted.len()).await, wanted);
        let path = format!("/orders?last_event_id={id}");
        let mut reader = testing::open(&app, &path).await.expect("a stream");
        assert_eq!(numbers(&mut reader, wanted.len()).await, wanted);
    }
    drop(topic);
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn evicted_events_are_reported_as_a_gap() {
    let topic = Topic::builder("orders").retain_events(3).build();
    let app = app(&topic);
    let first = topic.publish(order(1)).await.expect("published");
    topic.publish_all((2..=10).map(order)).await.expect("published");
    let mut reader =
        testing::open(&app, "/orders").last_event_id(first.to_string()).await.expect("a stream");
    let gap = reader.next().await.expect("an event").expect("more");
    assert_eq!(gap.event, "hero.gap");
    let told: serde_json::Value = gap.json().expect("JSON");
    assert_eq!(told["missed"], 6);
    assert_eq!(numbers(&mut reader, 3).await, [8, 9, 10]);
    // The gap is sent once.
    let id = gap.id.expect("an id");
    assert_eq!(told["to"], id);
    let mut reader = testing::open(&app, "/orders").last_event_id(&id).await.expect("a stream");
    let event = reader.next().await.expect("an event").expect("more");
    assert_eq!(event.event, "order");
}

#[tokio::test(start_paused = true)]
async fn a_burst_larger_than_the_retention_is_a_gap_for_subscribers() {
    let topic = Topic::builder("orders").retain_events(3).build();
    let sse = sse_with(SseOptions::default().overflow(Overflow::DropOldest));
    let endpoints = sse.routes(endpoints![orders]).expect("routes");
    let app = Router::new().merge(endpoints).with_state(topic.clone());
    let mut reader = testing::open(&app, "/orders").await.expect("a stream");
    reader.next().await.expect("an event").expect("where it stands");
    topic.publish_all((1..=10).map(order)).await.expect("published");
    let gap = reader.next().await.expect("an event").expect("more");
    assert_eq!(
        (gap.event.as_str(), &gap.json::<serde_json::Value>().expect("JSON")["missed"]),
        ("hero.gap", &7.into())
    );
    assert_eq!(numbers(&mut reader, 3).await, [8, 9, 10]);
    assert_eq!(sse.connections().gaps(), 1);
}

/// Whoever begins far behind is not slow.
#[tokio::test(start_paused = true)]
async fn a_full_topic_is_read_from_its_start() {
    let topic = Topic::builder("orders").retain_events(100).build();
    let app = app(&topic);
    topic.publish_all((1..=100).map(order)).await.expect("published");
    let mut reader = testing::open(&app, "/all").await.expect("a stream");
    assert_eq!(numbers(&mut reader, 100).await, (1..=100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_filter_leaves_out_and_a_new_client_may_have_all() {
    let topic = Topic::new("orders");
    let app = app(&topic);
    topic.publish_all((1..=6).map(order)).await.expect("published");
    let mut reader = testing::open(&app, "/all").await.expect("a stream");
    assert_eq!(numbers(&mut reader, 6).await, [1, 2, 3, 4, 5, 6]);
    let mut reader = testing::open(&app, "/odd").await.expect("a stream");
    assert_eq!(numbers(&mut reader, 3).await, [1, 3, 5]);
    assert_eq!(topic.subscribers(), 2);
    drop(reader);
    assert_eq!(topic.subscribers(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_streams() {
    let topic = Topic::new("orders");
    let sse = sse_with(SseOptions::default());
    let mine = topic.clone();
    let routes = sse
        .endpoint("/mine")
        .public()
        .handler(async move || mine.subscribe().from_start())
        .expect("routes");
    let app: Router = Router::new().merge(routes);
    topic.publish(order(1)).await.expect("published");
    let mut reader = testing::open(&app, "/mine").await.expect("a stream");
    drop(app);
    drop(topic);
    assert_eq!(numbers(&mut reader, 1).await, [1]);
    let close = reader.next().await.expect("an event").expect("a closing event");
    assert_eq!(close.event, "hero.close");
    assert!(close.data.contains("\"ended\""), "{}", close.data);
    assert!(reader.next().await.expect("an end").is_none());
    drop(reader);
    assert_eq!(sse.connections().closed(CloseReason::Ended), 1);
}

#[sse_endpoint("/newest", public, overflow = "drop_oldest", buffer = 4)]
async fn newest(State(orders): State<Topic<Order>>) -> Subscription<Order> {
    orders.subscribe()
}

/// Events in a gap are not sent afterwards.
#[tokio::test(start_paused = true)]
async fn who_skips_gets_the_last_ones_once() {
    let topic = Topic::new("orders");
    let sse = sse_with(SseOptions::default());
    let endpoints = sse.routes(endpoints![newest]).expect("routes");
    let app = Router::new().merge(endpoints).with_state(topic.clone());
    topic.publish(order(1)).await.expect("published");
    let mut reader = testing::open(&app, "/newest").await.expect("a stream");
    reader.next().await.expect("an event").expect("where it stands");
    topic.publish_all((2..=50).map(order)).await.expect("published");
    let gap = reader.next().await.expect("an event").expect("more");
    let told: serde_json::Value = gap.json().expect("JSON");
    assert_eq!((gap.event.as_str(), &told["missed"]), ("hero.gap", &serde_json::json!(45)));
    assert_eq!(numbers(&mut reader, 4).await, [47, 48, 49, 50]);
    topic.publish_all((51..=60).map(order)).await.expect("published");
    let gap = reader.next().await.expect("an event").expect("more");
    let told: serde_json::Value = gap.json().expect("JSON");
    assert_eq!((gap.event.as_str(), &told["missed"]), ("hero.gap", &serde_json::json!(6)));
    assert_eq!(numbers(&mut reader, 4).await, [57, 58, 59, 60]);
}

/// What a route that publishes answers by `?`: whose fault it is, and nothing from within.
#[tokio::test(start_paused = true)]
async fn what_was_not_published_is_an_answer() {
    use axum::response::IntoResponse;
    use hero_sse::event::{FrameWriter, InvalidEvent};
    use hero_sse::extend::BrokerError;
    use hero_sse::topic::PublishError;
    use http_body_util::BodyExt;

    struct Odd(&'static str);
    impl SseEvent for Odd {
        fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
            if self.0 == "odd" {
                frame.retry(std::time::Duration::ZERO)?;
            }
            frame.text(self.0);
            Ok(())
        }
    }
    async fn publish(topic: &Topic<Odd>, text: &'static str) -> Result<(), PublishError> {
        topic.publish(Odd(text)).await.map(drop)
    }

    let (log, _guard) = Log::everything();
    let topic = Topic::builder("odd").retain_bytes(200).build();
    publish(&topic, "even").await.expect("published");
    let large = publish(&topic, Box::leak("x".repeat(1_000).into())).await.expect_err("large");
    let odd = publish(&topic, "odd").await.expect_err("odd");
    topic.close();
    let closed = publish(&topic, "even").await.expect_err("closed");
    let broker = PublishError::Broker(BrokerError::Failed("redis.internal:6379".into()));
    let again = Odd("odd");
    let unwritten = testing::frame(&again).expect_err("odd");
    for (error, status, detail, logged) in [
        (closed, 409, "the topic has ended", None),
        (large, 413, "the event is too large", Some("raise `retain_bytes`")),
        (odd, 500, "the server failed to write an event", Some("out of bounds")),
        (broker, 503, "events cannot be published at the moment", Some("redis.internal:6379")),
        (unwritten.into(), 500, "the server failed to write an event", Some("out of bounds")),
    ] {
        let before = log.text().len();
        let answer = error.into_response();
        assert_eq!(answer.status().as_u16(), status);
        let back = answer.headers().get("retry-after").cloned();
        assert_eq!(back.is_some(), status == 503, "{back:?}");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem");
        assert_eq!(problem["detail"], detail);
        let said = log.text().split_off(before);
        match logged {
            Some(logged) => assert!(said.contains(logged), "{said}"),
            None => assert_eq!(said, ""),
        }
    }
    let refusal: Refusal = testing::frame(&again).expect_err("odd").into();
    assert_eq!(refusal.status().as_u16(), 500);
    // While the broker is down the log has a line a second.
    let before = log.text().len();
    let down = || PublishError::Broker(BrokerError::Failed("redis.internal:6379".into()));
    (0..100).for_each(|_| drop(down().into_response()));
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    drop(down().into_response());
    let said = log.text().split_off(before);
    assert!(said.lines().count() == 1 && said.contains("suppressed=100"), "{said}");
}
