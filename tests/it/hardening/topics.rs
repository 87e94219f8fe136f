//! Ids of topics are what clients like them to be.

use axum::Router;
use hero_sse::SseOptions;
use hero_sse::prelude::*;
use hero_sse::topic::Position;
use serde::Serialize;
use serde_json::Value;

use crate::support::sse_with;
use crate::support::testing::{self, EventReader, Received};

#[derive(Clone, Serialize, SseEvent)]
struct Order {
    n: u64,
    seen_by_all: bool,
}

/// The topic of one tenant, at a path of its own.
struct Shop {
    app: Router,
    orders: Topic<Order>,
}

impl Shop {
    fn open(tenant: &str) -> Self {
        let orders = Topic::builder(format!("orders of {tenant}")).retain_events(50).build();
        let (ours, sse) = (orders.clone(), sse_with(SseOptions::default()));
        let app = sse.endpoint("/orders").public().handler(async move || {
            ours.subscribe().from_start().filter(|order: &Order| order.seen_by_all)
        });
        Self { app: app.expect("a route"), orders }
    }

    async fn sell(&self, numbers: std::ops::RangeInclusive<u64>) -> Vec<Position> {
        let mut positions = Vec::new();
        for n in numbers {
            let order = Order { n, seen_by_all: n % 10 == 1 };
            positions.push(self.orders.publish(order).await.expect("published"));
        }
        positions
    }

    async fn come_back(&self, id: &str) -> Vec<Received> {
        let reader = testing::open(&self.app, "/orders").last_event_id(id).await;
        first_events(reader.expect("a stream")).await
    }
}

/// What is there at once.
async fn first_events(reader: EventReader) -> Vec<Received> {
    let mut reader = reader.timeout(std::time::Duration::from_millis(50));
    let mut events = Vec::new();
    while let Ok(Some(event)) = reader.next().await {
        events.push(event);
    }
    events
}

fn numbers(events: &[Received]) -> Vec<u64> {
    let orders = events.iter().filter(|event| event.event == "order");
    orders.map(|order| order.json::<Value>().expect("JSON")["n"].as_u64().expect("n")).collect()
}

fn gap(events: &[Received]) -> Value {
    let first = events.first().expect("an event");
    assert_eq!(first.event, "hero.gap", "{events:?}");
    first.json().expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_tenants_topic_opens_nothing_of_either() {
    let (one, other) = (Shop::open("one"), Shop::open("other"));
    let (ours, theirs) = (one.sell(1..=30).await, other.sell(1..=30).await);
    // The same place, another topic.
    assert_ne!(ours[4].to_string(), theirs[4].to_string());
    let events = one.come_back(theirs[4].as_str()).await;
    assert!(gap(&events)["missed"].is_null() && gap(&events)["from"].is_null(), "{events:?}");
    // The caller gets what any new client gets, after a gap of unknown size.
    assert_eq!(numbers(&events), [1, 11, 21]);
    assert_eq!(numbers(&one.come_back(ours[4].as_str()).await), [11, 21]);
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_life_before_the_restart_is_no_silent_hole() {
    let before = Shop::open("one").sell(1..=40).await;
    let after = Shop::open("one");
    after.sell(100..=101).await;
    let events = after.come_back(before[1].as_str()).await;
    assert!(gap(&events)["missed"].is_null());
    assert_eq!(numbers(&events), [101]);
}

/// Nine of ten events are not for this caller; how many there are is nobody's business.
#[tokio::test(start_paused = true)]
async fn ids_tell_nothing_of_events_that_one_does_not_see() {
    let shop = Shop::open("one");
    let positions = shop.sell(1..=50).await;
    let events = first_events(testing::open(&shop.app, "/orders").await.expect("a stream")).await;
    let ids: Vec<_> = events.iter().filter_map(|event| event.id.clone()).collect();
    assert_eq!(numbers(&events), [1, 11, 21, 31, 41]);
    for (one, two) in ids.iter().zip(ids.iter().skip(1)) {
        assert_eq!((one.len(), two.len()), (22, 22));
        let same = one.bytes().zip(two.bytes()).filter(|(a, b)| a == b).count();
        assert!(same < 6, "{one} {two}");
    }
    // Not even sorted, as ids that tell a time or a count are.
    let all: Vec<_> = positions.iter().map(Position::to_string).collect();
    assert!(!all.is_sorted() && !all.iter().rev().is_sorted());
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_touched_or_made_up_is_none() {
    let shop = Shop::open("one");
    let id = shop.sell(1..=30).await[4].to_string();
    for at in 0..id.len() {
        let mut touched = id.clone().into_bytes();
        touched[at] = if touched[at] == b'A' { b'B' } else { b'A' };
        let events = shop.come_back(&String::from_utf8(touched).expect("ASCII")).await;
        assert!(gap(&events)["missed"].is_null(), "at {at}");
    }
    let long = "A".repeat(256);
    let parts = "A.".repeat(120);
    for id in
        ["1", "-1", "18446744073709551615", "null", "AAAAAAAAAAAAAAAAAAAAAA", "ü", &long, &parts]
    {
        assert!(gap(&shop.come_back(id).await)["missed"].is_null(), "{id}");
    }
    // Longer than any id can be, with a control character, and not UTF-8.
    let too_long = format!("{id}{}", ".".repeat(300)).into_bytes();
    for id in [vec![b'A'; 257], too_long, b"a\tb".to_vec(), vec![0xff]] {
        let open = testing::open(&shop.app, "/orders").header("last-event-id", id.clone());
        let mut reader = open.await.expect("a stream");
        let first = reader.next().await.expect("in time").expect("an event");
        assert_eq!(first.event, "hero.gap", "{id:?}");
        assert!(first.json::<Value>().expect("JSON")["missed"].is_null(), "{id:?}");
    }
}

/// Whoever has one id cannot name the next, to skip or to repeat a part at will.
#[tokio::test(start_paused = true)]
async fn a_cursor_beyond_the_end_is_a_gap() {
    let shop = Shop::open("one");
    let ahead = Shop::open("one").sell(1..=49).await;
    shop.sell(1..=3).await;
    assert!(gap(&shop.come_back(ahead[48].as_str()).await)["missed"].is_null());
}
