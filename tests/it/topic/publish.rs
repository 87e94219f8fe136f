//! Publishing from synchronous code: `publish_now` needs no runtime, and refuses a topic on a broker.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use axum::response::IntoResponse;
use futures_util::{FutureExt, StreamExt};
use hero_sse::SseOptions;
use hero_sse::prelude::*;
use hero_sse::topic::{MemoryBroker, PublishError};
use serde::Serialize;

use crate::support::{Log, serving, sse_with, testing};

#[derive(Clone, Debug, PartialEq, Serialize, SseEvent)]
struct Order {
    n: u64,
}

fn numbers(subscription: &mut Subscription<Order>) -> Vec<u64> {
    std::iter::from_fn(|| subscription.next().now_or_never().flatten().map(|event| event.n))
        .collect()
}

/// No thread here has a runtime: `#[test]` instead of `#[tokio::test]`.
#[test]
fn publish_now_needs_no_runtime() {
    assert!(tokio::runtime::Handle::try_current().is_err(), "there is a runtime");
    let builder = || Topic::builder("orders").retain_events(3).retain_for(Duration::from_secs(60));
    let gauges = Topic::latest("gauges");
    let inboxes = KeyedTopics::<u64, Order>::new("inboxes");
    let inbox = inboxes.topic(&7).expect("a topic");
    for topic in [Topic::new("orders"), builder().build(), gauges, inbox] {
        let mut subscription = topic.subscribe();
        for n in 1..=3 {
            let position = topic.publish_now(Order { n }).expect("published");
            assert_eq!(position.offset(), n);
            assert_eq!(numbers(&mut subscription), [n], "{}", topic.name());
        }
        topic.close();
        assert!(matches!(topic.publish_now(Order { n: 4 }), Err(PublishError::Closed)));
    }
}

#[test]
fn publish_now_refuses_what_publish_refuses() {
    let topic = Topic::builder("orders").retain_bytes(80).build();
    assert!(topic.publish_now(Event::text("small")).is_ok());
    let refused = topic.publish_now(Event::text("x".repeat(80))).expect_err("too large");
    assert!(matches!(refused, PublishError::TooLarge { limit: 80, .. }), "{refused}");
    topic.publish_now(Event::text("end").last()).expect("published");
    let refused = topic.publish_now(Event::text("small")).expect_err("closed");
    assert!(matches!(refused, PublishError::Closed), "{refused}");
}

/// Several threads without a runtime and a task on one: each event is published once, in the order of its publisher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_and_tasks_may_publish_to_one_topic() {
    const EACH: u64 = 500;
    let topic = Topic::builder("orders").retain_events(4 * EACH as usize).build();
    let mut subscription = topic.subscribe();
    let start = Arc::new(Barrier::new(3));
    let publishers: Vec<_> = (0..3)
        .map(|publisher| {
            let (topic, start) = (topic.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                for n in 0..EACH {
                    topic.publish_now(Order { n: publisher * EACH + n }).expect("published");
                }
            })
        })
        .collect();
    for n in 0..EACH {
        topic.publish(Order { n: 3 * EACH + n }).await.expect("published");
        tokio::task::yield_now().await;
    }
    let joined = tokio::task::spawn_blocking(|| {
        publishers.into_iter().try_for_each(|publisher| publisher.join())
    });
    joined.await.expect("no panic").expect("no panic");
    let received = numbers(&mut subscription);
    for publisher in 0..4 {
        let own: Vec<_> = received.iter().copied().filter(|n| n / EACH == publisher).collect();
        assert_eq!(own, (publisher * EACH..(publisher + 1) * EACH).collect::<Vec<_>>());
    }
    assert_eq!(received.len(), 4 * EACH as usize);
}

/// A waiting client is woken by a thread that knows nothing of its runtime.
#[tokio::test]
async fn publish_now_wakes_a_waiting_client() {
    let topic = Topic::new("orders");
    let subscribed = topic.clone();
    let app = serving(&sse_with(SseOptions::default()), move || subscribed.subscribe());
    let mut reader = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(reader.next().await.expect("an event").expect("more").event, "hero.cursor");
    let publisher = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        topic.publish_now(Order { n: 1 }).map(|position| position.to_string())
    });
    let event = reader.next().await.expect("an event").expect("more");
    let id = publisher.join().expect("no panic").expect("published");
    assert_eq!((event.event.as_str(), event.id), ("order", Some(id)));
}

#[tokio::test(start_paused = true)]
async fn publish_now_on_a_broker_is_an_error_that_names_publish() {
    let (log, _guard) = Log::everything();
    let broker = MemoryBroker::new();
    let topic = Topic::builder("orders").open(&broker).await.expect("open");
    let mut subscription = topic.subscribe();
    let refused = topic.publish_now(Order { n: 1 }).expect_err("it is on a broker");
    assert!(matches!(refused, PublishError::NotInMemory), "{refused:?}");
    assert!(refused.to_string().contains("call `publish(..).await`"), "{refused}");
    assert!(numbers(&mut subscription).is_empty());
    // For a route it is the server's own mistake, and the cure is in the log.
    assert_eq!(refused.into_response().status(), http::StatusCode::INTERNAL_SERVER_ERROR);
    assert!(log.text().contains("call `publish(..).await`"), "{}", log.text());
    topic.publish(Order { n: 2 }).await.expect("published");
    assert_eq!(numbers(&mut subscription), [2]);
}
