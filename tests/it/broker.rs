//! Brokers: the contract, the mistakes that it catches, and a broker that loses its connection and reconnects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt};
use hero_sse::SseOptions;
use hero_sse::extend::{Broker, BrokerError, Epoch, Log, LogReplica, Record};
use hero_sse::prelude::*;
use hero_sse::topic::{MemoryBroker, PublishError};
use serde::Serialize;

use crate::support::testing::{self, EventReader, broker_contract};
use crate::support::{self, sse_with};

/// What a broker does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    EpochOfItsOwn,
    NoHistory,
    TwoByTwo,
    OffsetOfTheFirst,
    OrderOfItsOwn,
    SwapsNeighbours,
    NewestAlone,
    OpensWithoutTheEnd,
    BeginsApart,
    GoesOnAfterTheEnd,
    FeedsOnAfterTheDrop,
    LosesInSilence,
}

/// A broker written from the documentation alone. It retains everything, and each of its nodes can lose its connection.
#[derive(Clone)]
struct Simple {
    fault: Fault,
    logs: Arc<Mutex<HashMap<String, Kept>>>,
    node: usize,
}

struct Kept {
    epoch: Epoch,
    records: Vec<Record>,
    replicas: Vec<Fed>,
    /// The nodes that have lost their connection.
    down: Vec<usize>,
    opened: usize,
}

struct Fed {
    replica: LogReplica,
    node: usize,
    number: usize,
    /// Records that are delivered after the next one.
    held: Vec<Record>,
}

impl Simple {
    fn new(fault: Fault) -> Self {
        Self { fault, logs: Arc::default(), node: 0 }
    }

    fn node(&self, node: usize) -> Self {
        Self { node, ..self.clone() }
    }

    fn with<R>(&self, topic: &str, with: impl FnOnce(&mut Kept) -> R) -> R {
        let mut logs = self.logs.lock().expect("the logs");
        with(logs.entry(topic.to_owned()).or_insert_with(|| Kept {
            epoch: Epoch::random(),
            records: vec![],
            replicas: vec![],
            down: vec![],
            opened: 0,
        }))
    }

    fn drop_log(&self, topic: &str) {
        let begun = self.with(topic, |kept| {
            kept.records.clear();
            if self.fault == Fault::LosesInSilence {
                return vec![];
            }
            kept.epoch = Epoch::random();
            let epoch = || match self.fault {
                Fault::BeginsApart => Epoch::random(),
                _ => kept.epoch,
            };
            kept.replicas.iter().map(|fed| fed.replica.start_epoch(epoch(), 1)).collect()
        });
        drop(begun);
    }

    fn disconnect(&self, topic: &str) {
        self.with(topic, |kept| kept.down.push(self.node));
    }

    /// Pushes what was appended since, from that offset or from the replica's own.
    fn reconnect(&self, topic: &str, from: Option<u64>) {
        let pushed = self.with(topic, |kept| {
            kept.down.retain(|down| *down != self.node);
            let push = |replica: &LogReplica| {
                let from = from.unwrap_or(replica.next_offset());
                replica.push(from, kept.records[from as usize - 1..].to_vec())
            };
            let mine = kept.replicas.iter().filter(|fed| fed.node == self.node);
            mine.map(|fed| push(&fed.replica)).collect::<Vec<_>>()
        });
        drop(pushed);
    }
}

impl Broker for Simple {
    fn open<'a>(
        &'a self,
        topic: &'a str,
        replica: LogReplica,
    ) -> BoxFuture<'a, Result<Box<dyn Log>, BrokerError>> {
        Box::pin(async move {
            let (number, pushed) = self.with(topic, |kept| {
                let epoch = match self.fault {
                    Fault::EpochOfItsOwn => Epoch::random(),
                    _ => kept.epoch,
                };
                let mut pushed = vec![replica.start_epoch(epoch, 1)];
                let (mut from, mut to) = (0, kept.records.len());
                match self.fault {
                    Fault::NoHistory => from = to,
                    Fault::NewestAlone => from = to.saturating_sub(100),
                    Fault::OpensWithoutTheEnd
                        if kept.records.last().is_some_and(Record::is_last) =>
                    {
                        to -= 1
                    }
                    _ => {}
                }
                pushed.push(replica.skip_to(from as u64 + 1));
                pushed.push(replica.push(from as u64 + 1, kept.records[from..to].to_vec()));
                kept.opened += 1;
                let number = kept.opened;
                kept.replicas.push(Fed { replica, node: self.node, number, held: vec![] });
                (number, pushed)
            });
            drop(pushed);
            let log = SimpleLog { broker: self.clone(), topic: topic.to_owned(), number };
            Ok(Box::new(log) as Box<dyn Log>)
        })
    }
}

struct SimpleLog {
    broker: Simple,
    topic: String,
    number: usize,
}

impl SimpleLog {
    fn append_now(&self, mut records: Vec<Record>) -> Result<u64, BrokerError> {
        let fault = self.broker.fault;
        let (appended, pushed) = self.broker.with(&self.topic, |kept| {
            if kept.down.contains(&self.broker.node) {
                return Err(BrokerError::Failed("no connection".into()));
            }
            let ended = kept.records.last().is_some_and(Record::is_last);
            if ended && fault != Fault::GoesOnAfterTheEnd {
                return Err(BrokerError::Closed);
            }
            if let Some(last) = records.iter().position(Record::is_last) {
                records.truncate(last + 1);
            }
            let first = kept.records.len() as u64 + 1;
            kept.records.extend(records.iter().cloned());
            let next = kept.records.len() as u64 + 1;
            let up = kept.replicas.iter_mut().filter(|fed| !kept.down.contains(&fed.node));
            let pushed = up.map(|fed| {
                let mut records = records.clone();
                if fault == Fault::SwapsNeighbours && fed.number == 2 {
                    if first % 2 == 1 {
                        fed.held = records;
                        return fed.replica.skip_to(1);
                    }
                    records.append(&mut fed.held);
                    return fed.replica.push(first - 1, records);
                }
                if fault == Fault::OrderOfItsOwn && fed.number == 2 {
                    records.reverse();
                }
                fed.replica.push(first, records)
            });
            let pushed: Vec<_> = pushed.collect();
            Ok((if fault == Fault::OffsetOfTheFirst { first } else { next - 1 }, pushed))
        })?;
        drop(pushed);
        Ok(appended)
    }
}

impl Log for SimpleLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, Result<u64, BrokerError>> {
        Box::pin(async move {
            if self.broker.fault != Fault::TwoByTwo {
                return self.append_now(records);
            }
            let mut appended = Ok(0);
            for two in records.chunks(2) {
                appended = self.append_now(two.to_vec());
                tokio::task::yield_now().await;
            }
            appended
        })
    }
}

impl Drop for SimpleLog {
    fn drop(&mut self) {
        if self.broker.fault == Fault::FeedsOnAfterTheDrop {
            return;
        }
        let dropped = self.broker.with(&self.topic, |kept| {
            let at = kept.replicas.iter().position(|fed| fed.number == self.number)?;
            Some(kept.replicas.remove(at))
        });
        drop(dropped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_in_memory_keeps_the_contract() {
    let broker = MemoryBroker::new();
    broker_contract(|| broker.clone(), async |topic| broker.drop_log(topic))
        .await
        .expect("the contract");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_breaks_the_contract_is_caught() {
    let check = async |fault| {
        let broker = Simple::new(fault);
        broker_contract(|| broker.clone(), async |topic: &str| broker.drop_log(topic)).await
    };
    check(Fault::None).await.expect("the contract");
    let faults = [
        (Fault::EpochOfItsOwn, "one order"),
        (Fault::NoHistory, "a late opener"),
        (Fault::TwoByTwo, "events published together"),
        (Fault::OffsetOfTheFirst, "events published together"),
        (Fault::OrderOfItsOwn, "events published together"),
        (Fault::SwapsNeighbours, "one order: what the two nodes read"),
        (Fault::NewestAlone, "a late opener of latest values"),
        (Fault::OpensWithoutTheEnd, "the last event: `is_closed`"),
        (Fault::BeginsApart, "a log that was lost: the two nodes' ids"),
        (Fault::GoesOnAfterTheEnd, "the last event"),
        (Fault::FeedsOnAfterTheDrop, "a log that was dropped"),
        (Fault::LosesInSilence, "a log that was lost"),
    ];
    let checks = faults.map(|(fault, said)| async move {
        let error = check(fault).await.expect_err("it is caught").to_string();
        assert!(error.starts_with(said), "{fault:?}: {error}");
    });
    join_all(checks).await;
}

#[derive(Clone, Debug, Serialize, serde::Deserialize, SseEvent)]
struct Order {
    n: u64,
}

fn order(n: u64) -> Order {
    Order { n }
}

async fn open(broker: &impl Broker) -> Topic<Order> {
    Topic::builder("orders").open(broker).await.expect("opened")
}

#[sse_endpoint("/orders", public)]
async fn orders(State(orders): State<Topic<Order>>) -> Subscription<Order> {
    orders.subscribe()
}

fn app(topic: &Topic<Order>) -> Router {
    let sse = sse_with(SseOptions::default());
    let endpoints = sse.routes(endpoints![orders]).expect("routes");
    Router::new().merge(endpoints).with_state(topic.clone())
}

async fn next(reader: &mut EventReader) -> (String, serde_json::Value) {
    let event = reader.next().await.expect("an event").expect("more");
    let data = event.json().expect("JSON");
    (event.event, data)
}

async fn numbers(reader: &mut EventReader, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let (name, data) = next(reader).await;
        match name.as_str() {
            "order" => numbers.push(data["n"].as_u64().expect("a number")),
            "hero.cursor" => {}
            _ => panic!("{name}: {data}"),
        }
    }
    numbers
}

/// One of two nodes loses its connection while its client reads.
struct Nodes {
    mine: Simple,
    here: Topic<Order>,
    there: Topic<Order>,
    reader: EventReader,
}

async fn nodes() -> Nodes {
    let broker = Simple::new(Fault::None);
    let (mine, theirs) = (broker.node(1), broker.node(2));
    let (here, there) = (open(&mine).await, open(&theirs).await);
    let mut reader = testing::open(&app(&here), "/orders").await.expect("a stream");
    there.publish(order(1)).await.expect("published");
    assert_eq!(numbers(&mut reader, 1).await, [1]);
    mine.disconnect("orders");
    match here.publish(order(0)).await {
        Err(PublishError::Broker(BrokerError::Failed(error))) => {
            assert_eq!(error.to_string(), "no connection");
        }
        other => panic!("{other:?} without a connection"),
    }
    for n in 2..=5 {
        there.publish(order(n)).await.expect("published where there is a connection");
    }
    assert_eq!((here.len(), there.len()), (1, 5));
    Nodes { mine, here, there, reader }
}

#[tokio::test(start_paused = true)]
async fn readers_wait_for_a_broker_and_go_on() {
    let Nodes { mine, here, there, mut reader } = nodes().await;
    let elsewhere = there.publish(order(6)).await.expect("published");
    // A client that reconnects from the other node is ahead of this node. It waits, and receives nothing twice.
    let ahead = elsewhere.to_string();
    let mut ahead =
        testing::open(&app(&here), "/orders").last_event_id(&ahead).await.expect("a stream");
    mine.reconnect("orders", None);
    assert_eq!(numbers(&mut reader, 5).await, [2, 3, 4, 5, 6]);
    here.publish(order(7)).await.expect("published");
    assert_eq!(numbers(&mut reader, 1).await, [7]);
    assert_eq!(numbers(&mut ahead, 1).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn readers_learn_of_what_a_broker_lost_and_stay() {
    let Nodes { mine, here, there: _there, mut reader } = nodes().await;
    // The events at offsets 2 and 3 are evicted.
    mine.reconnect("orders", Some(4));
    let (name, gap) = next(&mut reader).await;
    assert_eq!((name.as_str(), &gap["missed"]), ("hero.gap", &serde_json::json!(2)));
    assert_eq!(numbers(&mut reader, 2).await, [4, 5]);
    here.publish(order(6)).await.expect("published");
    assert_eq!(numbers(&mut reader, 1).await, [6]);
}

#[tokio::test(start_paused = true)]
async fn readers_learn_of_another_epoch_and_stay() {
    let Nodes { mine, here, there, mut reader } = nodes().await;
    let mut frames = there.subscribe();
    mine.drop_log("orders");
    mine.reconnect("orders", None);
    let (name, gap) = next(&mut reader).await;
    assert_eq!((name.as_str(), &gap["missed"]), ("hero.gap", &serde_json::Value::Null));
    let first = here.publish(order(21)).await.expect("published");
    assert_eq!(first.offset(), 1);
    assert_eq!(numbers(&mut reader, 1).await, [21]);
    let frame = frames.next().await.expect("a frame");
    assert_eq!((frame.n, frame.position()), (21, first));
    assert_eq!(frame.gap().map(hero_sse::topic::Gap::missed), Some(None));
}

/// A topic that one node closes is closed on that node only, and nothing opens it again.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_closed_on_one_node_goes_on_on_the_others() {
    let broker = MemoryBroker::new();
    let (here, there) = (open(&broker).await, open(&broker).await);
    let mut frames = here.subscribe();
    here.close();
    broker.drop_log("orders");
    there.publish(order(1)).await.expect("published");
    assert!(here.is_closed() && !there.is_closed());
    assert!(matches!(here.publish(order(2)).await, Err(PublishError::Closed)));
    assert_eq!((here.len(), there.len()), (0, 1));
    let mut ended = None;
    for _ in 0..2 {
        ended = frames.next().now_or_never();
    }
    assert!(matches!(ended, Some(None)));
    drop(here);
    assert_eq!(there.publish(order(3)).await.expect("published").offset(), 2);
}

/// A snapshot adds up the events of its own epoch only. It reads the values of other nodes. If the application's code
/// panics, readers still receive the event.
#[tokio::test(start_paused = true)]
async fn a_state_is_of_the_events_that_there_are() {
    #[derive(Clone, Serialize, SseEvent)]
    struct Total {
        total: u64,
    }
    let broker = Simple::new(Fault::None);
    let topic = Topic::builder("orders")
        .decode(|_, data| serde_json::from_str(data).ok())
        .snapshot(Total { total: 0 }, |total: &mut Total, order: &Order| {
            assert_ne!(order.n, 13, "a bug of the application's");
            total.total += order.n;
        })
        .open(&broker)
        .await
        .expect("opened");
    let other = open(&broker).await;
    let state = async || {
        let mut reader = testing::open(&app(&topic), "/orders").await.expect("a stream");
        let (name, total) = next(&mut reader).await;
        assert_eq!(name, "total");
        total["total"].as_u64().expect("a number")
    };
    other.publish_all([4, 13, 5].map(order)).await.expect("published");
    assert_eq!((state().await, topic.len()), (9, 3));
    // As a broker of another process delivers it. Without `decode`, one line is logged.
    let (log, _guard) = support::Log::everything();
    broker.with("orders", |kept| {
        let body = kept.records[0].body().clone();
        let record = Record::new(body, None, false);
        kept.records.push(record.clone());
        for fed in &kept.replicas {
            drop(fed.replica.push(4, vec![record.clone(); 3]));
        }
    });
    assert_eq!(log.text().matches("cannot decode events").count(), 1, "{}", log.text());
    assert_eq!(state().await, 21);
    broker.drop_log("orders");
    assert_eq!(state().await, 0);
    other.publish(order(2)).await.expect("published");
    assert_eq!(state().await, 2);
}

/// Whatever a broker pushes, nothing panics, and no more than the retention is kept.
#[tokio::test(start_paused = true)]
async fn a_broker_out_of_its_mind_does_no_harm() {
    let broker = Simple::new(Fault::None);
    let topic: Topic<Order> = Topic::builder("orders")
        .retain_events(3)
        .retain_bytes(500)
        .open(&broker)
        .await
        .expect("opened");
    let mut frames = topic.subscribe().from_start();
    let large = Record::new(vec![b'x'; 1_000].into(), Some("k".repeat(1_000)), false);
    let odd = Record::new(vec![0xFF, b'\n'].into(), None, false);
    broker.with("orders", |kept| {
        let replica = &kept.replicas[0].replica;
        for offset in [0, 1, 2, 1 << 40, u64::MAX - 2, u64::MAX - 1, u64::MAX, 0, 7] {
            for records in [vec![], vec![large.clone(); 2], vec![odd.clone(); 5]] {
                drop(replica.push(offset, records));
            }
            assert!(topic.len() <= 3);
            drop(replica.skip_to(offset));
        }
        assert_eq!(replica.next_offset(), u64::MAX);
        drop(replica.start_epoch(Epoch::random(), u64::MAX));
        drop(replica.push(u64::MAX, vec![odd.clone()]));
        assert_eq!(topic.len(), 0);
        drop(replica.start_epoch(Epoch::random(), 0));
        assert_eq!(replica.next_offset(), 1);
    });
    assert!(frames.next().now_or_never().is_none());
    let published = tokio::time::timeout(Duration::from_secs(1), topic.publish(order(1)));
    assert_eq!(published.await.expect("in time").expect("published").offset(), 1);
    let frame = frames.next().await.expect("a frame");
    assert_eq!(frame.n, 1);
    assert!(frame.gap().is_some());
}
