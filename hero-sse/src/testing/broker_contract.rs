//! A test suite for implementations of [`Broker`].

use std::time::Duration;

use bytes::BytesMut;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::ContractViolation;
use crate::event::SseEvent;
use crate::frame::{EventName, FrameWriter, InvalidEvent, LastEventId, write_body};
use crate::topic::broker::{Broker, BrokerError, Log, LogReplica, Record, Retention};
use crate::topic::{Gap, Position, Resume, Subscription, Topic};

/// How long a broker may take for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the suite waits to see that something does not arrive.
const QUIET: Duration = Duration::from_millis(300);

/// Checks that a [`Broker`] keeps its contract, as far as a test can see it.
///
/// It checks: one order on all nodes, returned offsets, events that are published together, late openers, retention, ids of
/// one node on another, last events, dropped logs and lost logs. It takes some seconds, and uses logs named `contract-..`.
///
/// * `node` returns the broker as another node has it. It is called several times.
/// * `drop_log` makes the log of that name be lost, as a broker without a disk does when it restarts. Publishing may fail
///   for some seconds afterwards.
///
/// Use a multi-threaded runtime, which puts the order to the test: `#[tokio::test(flavor = "multi_thread")]`.
///
/// ```
/// use hero_sse::testing;
/// use hero_sse::topic::MemoryBroker;
///
/// # async fn run() -> Result<(), testing::ContractViolation> {
/// let broker = MemoryBroker::new();
/// testing::broker_contract(|| broker.clone(), async |topic| broker.drop_log(topic)).await
/// # }
/// ```
///
/// # Errors
///
/// The rule that the broker breaks, and what it did instead.
pub async fn broker_contract<B: Broker>(
    node: impl Fn() -> B,
    drop_log: impl AsyncFn(&str),
) -> Result<(), ContractViolation> {
    let of = ContractViolation::of;
    one_order(&node).await.map_err(of("one order"))?;
    published_together(&node).await.map_err(of("events published together"))?;
    late_opener(&node).await.map_err(of("a late opener"))?;
    late_opener_of_latest(&node).await.map_err(of("a late opener of latest values"))?;
    resume_elsewhere(&node).await.map_err(of("a resume on another node"))?;
    last_event(&node).await.map_err(of("the last event"))?;
    dropped_log(&node).await.map_err(of("a log that was dropped"))?;
    lost_log(&node, drop_log).await.map_err(of("a log that was lost"))
}

#[derive(Clone, Debug, PartialEq)]
struct Numbered {
    n: u64,
    last: bool,
}

impl SseEvent for Numbered {
    const NAME: Option<&'static str> = Some("numbered");

    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.event(&EventName::new("numbered")?);
        // On two lines: a broker must store the body as it is.
        frame.text(&format!("{}\n{}", self.n, self.last));
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.last
    }

    fn key(&self) -> Option<String> {
        Some(format!("{} \u{fc}", self.n % 10))
    }
}

fn event(n: u64) -> Numbered {
    Numbered { n, last: false }
}

fn decode(name: &str, data: &str) -> Option<Numbered> {
    let (n, last) = data.split_once('\n')?;
    let event = Numbered { n: n.parse().ok()?, last: last.parse().ok()? };
    (name == "numbered").then_some(event)
}

/// A record as a topic appends it.
fn record(event: &Numbered) -> Result<Record, String> {
    let mut body = BytesMut::new();
    let written = write_body(&mut body, None, |frame| event.encode(frame));
    written.map_err(|error| error.to_string())?;
    Ok(Record::new(body.freeze(), event.key(), event.last))
}

fn log_name() -> String {
    format!("contract-{:016x}", fastrand::u64(..))
}

async fn open<B: Broker>(broker: &B, name: &str, events: usize) -> Result<Topic<Numbered>, String> {
    let topic = Topic::builder(name.to_owned()).retain_events(events).decode(decode);
    topic.open(broker).await.map_err(|error| format!("open: {error}"))
}

/// Opens a log without a topic: a topic does not ask the broker whether the log has ended.
async fn open_log<B: Broker>(broker: &B, name: &str) -> Result<(Box<dyn Log>, LogReplica), String> {
    let retention = Retention { events: 10, bytes: 1 << 20, age: None };
    let replica = LogReplica::new(name, retention, false, None, None);
    let log = broker.open(name, replica.clone()).await.map_err(|error| format!("open: {error}"))?;
    Ok((log, replica))
}

async fn publish(topic: &Topic<Numbered>, n: u64) -> Result<Position, String> {
    topic.publish(event(n)).await.map_err(|error| format!("publish: {error}"))
}

/// What a reader received: the event's number, and its position.
type Received = (u64, Position);

async fn receive(
    reader: &mut Subscription<Numbered>,
    count: usize,
) -> Result<Vec<Received>, String> {
    let mut received: Vec<Received> = Vec::new();
    while received.len() < count {
        let Ok(next) = timeout(STEP_TIMEOUT, reader.next()).await else {
            return Err(format!(
                "no more than {received:?} came within {STEP_TIMEOUT:?}; {count} were published"
            ));
        };
        let published = next.ok_or_else(|| format!("the stream ended after {received:?}"))?;
        if let Some(gap) = published.gap() {
            return Err(format!("{gap:?} after {received:?}"));
        }
        received.push((published.n, published.position()));
    }
    Ok(received)
}

fn expect_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: {found:?} instead of {expected:?}"))
    }
}

fn numbers(received: &[Received]) -> Vec<u64> {
    received.iter().map(|(n, _)| *n).collect()
}

fn offsets(received: &[Received]) -> Vec<u64> {
    received.iter().map(|(_, position)| position.offset()).collect()
}

fn cursor(position: Position) -> Result<LastEventId, String> {
    let request = http::Request::builder().header("last-event-id", position.as_str());
    let (parts, ()) = request.body(()).map_err(|error| error.to_string())?.into_parts();
    Ok(LastEventId::from_parts(&parts))
}

async fn one_order<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    const EVENTS_EACH: u64 = 100;
    let name = log_name();
    let nodes = [node(), node()];
    let topics = [open(&nodes[0], &name, 1_000).await?, open(&nodes[1], &name, 1_000).await?];
    let mut readers = topics.each_ref().map(|topic| topic.subscribe());
    let mut publishers = Vec::new();
    for (from, topic) in [(1_000, &topics[0]), (2_000, &topics[1]), (3_000, &topics[0])] {
        let topic = topic.clone();
        publishers.push(tokio::spawn(async move {
            let mut positions = Vec::new();
            for n in from..from + EVENTS_EACH {
                positions.push((n, publish(&topic, n).await?));
                tokio::task::yield_now().await;
            }
            Ok::<_, String>(positions)
        }));
    }
    let mut published = Vec::new();
    for publisher in publishers {
        published.push(publisher.await.map_err(|error| error.to_string())??);
    }
    let [one, other] = &mut readers;
    let one = receive(one, 3 * EVENTS_EACH as usize).await?;
    let other = receive(other, 3 * EVENTS_EACH as usize).await?;
    expect_equal("the offsets", offsets(&one), (1..=3 * EVENTS_EACH).collect())?;
    for (n, position) in &published.concat() {
        let found = one.iter().find(|(found, _)| found == n).map(|(_, position)| *position);
        let what = format!("the position of event {n}, compared with what `publish` returned");
        expect_equal(&what, found, Some(*position))?;
    }
    for published in published {
        if !published.is_sorted_by(|(_, one), (_, next)| one.offset() < next.offset()) {
            return Err("one publisher's events are not in its order".to_owned());
        }
    }
    // The ids are equal only if both nodes have the same epoch.
    expect_equal("what the two nodes read", other, one)
}

async fn published_together<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = log_name();
    let nodes = [node(), node()];
    let topics = [open(&nodes[0], &name, 1_000).await?, open(&nodes[1], &name, 1_000).await?];
    let mut reader = topics[1].subscribe();
    let mut publishers = Vec::new();
    for (from, topic) in [(1_000, &topics[0]), (2_000, &topics[1])] {
        let topic = topic.clone();
        publishers.push(tokio::spawn(async move {
            for n in (from..from + 200).step_by(10) {
                let published = topic.publish_all((n..n + 10).map(event)).await;
                let position =
                    published.map_err(|error| error.to_string())?.ok_or("no position")?;
                if position.offset() < 10 {
                    return Err(format!("ten events end at offset {}", position.offset()));
                }
            }
            Ok(())
        }));
    }
    for publisher in publishers {
        publisher.await.map_err(|error| error.to_string())??;
    }
    let received = numbers(&receive(&mut reader, 400).await?);
    for ten in received.chunks(10) {
        let first = ten.first().copied().unwrap_or_default();
        expect_equal("ten events", ten.to_vec(), (first..first + 10).collect())?;
    }

    // If the future is dropped, all events are published or none.
    let dropped = topics[0].publish_all((5_000..5_003).map(event)).now_or_never();
    publish(&topics[0], 6_000).await?;
    let received = if dropped.is_some() {
        numbers(&receive(&mut reader, 4).await?)
    } else {
        let mut received = numbers(&receive(&mut reader, 1).await?);
        sleep(QUIET).await;
        while let Some(Some(published)) = reader.next().now_or_never() {
            received.push(published.n);
        }
        received
    };
    let of_dropped: Vec<_> = received.into_iter().filter(|n| *n != 6_000).collect();
    if !of_dropped.is_empty() {
        expect_equal("three events", of_dropped, vec![5_000, 5_001, 5_002])?;
    }
    Ok(())
}

async fn late_opener<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = log_name();
    let (first, second) = (node(), node());
    let topic = open(&first, &name, 20).await?;
    for n in 1..=50 {
        publish(&topic, n).await?;
    }
    for (events, from) in [(20, 31), (5, 46)] {
        let late = open(&second, &name, events).await?;
        expect_equal("the number of retained events", late.len(), events)?;
        let mut reader = late.subscribe().from_start();
        let received = receive(&mut reader, events).await?;
        expect_equal("the retained events", numbers(&received), (from..=50).collect())?;
        expect_equal("their offsets", offsets(&received), (from..=50).collect())?;
    }
    let late = open(&second, &name, 20).await?;
    let mut reader = late.subscribe();
    let position = publish(&topic, 51).await?;
    expect_equal("the next event", receive(&mut reader, 1).await?, vec![(51, position)])?;
    drop((topic, late, reader));
    let again = open(&first, &name, 20).await?;
    let received = receive(&mut again.subscribe().from_start(), 1).await?;
    expect_equal("the oldest event after all had dropped the log", numbers(&received), vec![32])
}

async fn late_opener_of_latest<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = log_name();
    let (first, second) = (node(), node());
    let builder = || Topic::builder(name.clone()).latest().decode(decode);
    let topic = builder().open(&first).await.map_err(|error| error.to_string())?;
    // Ten keys. The key of event 0 gets no newer event.
    let replaced = publish(&topic, 20).await?;
    publish(&topic, 10).await?;
    publish(&topic, 0).await?;
    for n in (1..500).filter(|n| n % 10 != 0) {
        publish(&topic, n).await?;
    }
    let late = builder().open(&second).await.map_err(|error| error.to_string())?;
    let mut reader = late.subscribe();
    let received = numbers(&receive(&mut reader, 10).await?);
    expect_equal("the newest of each key", received, std::iter::once(0).chain(491..500).collect())?;
    let resumed = late.subscribe().resume(&cursor(replaced)?);
    let what = "a resume after an event that a newer one has replaced";
    expect_equal(what, resumed.resume_state(), &Resume::Resumed)?;
    publish(&topic, 500).await?;
    expect_equal("the next event", numbers(&receive(&mut reader, 1).await?), vec![500])
}

async fn resume_elsewhere<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = log_name();
    let (first, second) = (node(), node());
    let one = open(&first, &name, 10).await?;
    let early = publish(&one, 1).await?;
    for n in 2..=5 {
        publish(&one, n).await?;
    }
    let other = open(&second, &name, 10).await?;
    for n in 6..=9 {
        publish(&other, n).await?;
    }
    let mut reader = other.subscribe().resume(&cursor(early)?);
    expect_equal("how it begins", reader.resume_state(), &Resume::Resumed)?;
    expect_equal("the replay", numbers(&receive(&mut reader, 8).await?), (2..=9).collect())?;
    for n in 10..=20 {
        publish(&one, n).await?;
        expect_equal("the next event", numbers(&receive(&mut reader, 1).await?), vec![n])?;
    }
    let reader = other.subscribe().resume(&cursor(early)?);
    let Resume::Gap(gap) = reader.resume_state() else {
        let found = reader.resume_state();
        return Err(format!("{found:?} after an event that is no longer retained"));
    };
    expect_equal("the number of missed events", gap.missed(), Some(9))
}

async fn last_event<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = log_name();
    let nodes = [node(), node(), node()];
    let topics = [open(&nodes[0], &name, 2).await?, open(&nodes[1], &name, 2).await?];
    let mut readers = topics.each_ref().map(|topic| topic.subscribe());
    publish(&topics[0], 1).await?;
    let (log, _replica) = open_log(&nodes[1], &name).await?;
    let records = vec![record(&Numbered { n: 2, last: true })?, record(&event(3))?];
    let appended = log.append(records).await.map_err(|error| error.to_string())?;
    expect_equal("the offset of the last event", appended, 2)?;
    for reader in &mut readers {
        expect_equal("up to the end", numbers(&receive(reader, 2).await?), vec![1, 2])?;
        let end = timeout(STEP_TIMEOUT, reader.next()).await;
        let end = end.map_err(|_| "a node did not learn of the end".to_owned())?;
        expect_equal("after the end", end.map(|published| published.n), None)?;
    }
    let late = open(&nodes[2], &name, 2).await?;
    for topic in topics.iter().chain([&late]) {
        expect_equal("`is_closed`", topic.is_closed(), true)?;
    }
    for node in &nodes {
        let (log, _replica) = open_log(node, &name).await?;
        match log.append(vec![record(&event(4))?]).await {
            Err(BrokerError::Closed) => {}
            other => return Err(format!("{other:?} when something is appended after it")),
        }
    }
    let mut reader = late.subscribe();
    expect_equal("for a late opener", numbers(&receive(&mut reader, 1).await?), vec![2])?;
    let end = reader.next().now_or_never().map(|end| end.is_none());
    expect_equal("whether its stream ends then", end, Some(true))
}

async fn dropped_log<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = log_name();
    let (first, second) = (node(), node());
    let topic = open(&first, &name, 10).await?;
    let (log, replica) = open_log(&second, &name).await?;
    publish(&topic, 1).await?;
    let start = Instant::now();
    while replica.next_offset() < 2 {
        if start.elapsed() > STEP_TIMEOUT {
            return Err("its replica was not fed while it was open".to_owned());
        }
        sleep(Duration::from_millis(5)).await;
    }
    drop(log);
    sleep(QUIET).await;
    publish(&topic, 2).await?;
    sleep(QUIET).await;
    expect_equal("the next offset of its replica", replica.next_offset(), 2)
}

async fn lost_log<B: Broker>(
    node: &impl Fn() -> B,
    drop_log: impl AsyncFn(&str),
) -> Result<(), String> {
    let name = log_name();
    let nodes = [node(), node()];
    let topics = [open(&nodes[0], &name, 10).await?, open(&nodes[1], &name, 10).await?];
    let mut readers = topics.each_ref().map(|topic| topic.subscribe());
    let before = publish(&topics[0], 1).await?;
    for reader in &mut readers {
        receive(reader, 1).await?;
    }
    drop_log(&name).await;
    let start = Instant::now();
    while let Err(error) = publish(&topics[0], 2).await {
        if start.elapsed() > STEP_TIMEOUT {
            return Err(error);
        }
        sleep(Duration::from_millis(50)).await;
    }
    let mut positions = Vec::new();
    for reader in &mut readers {
        let next = timeout(STEP_TIMEOUT, reader.next()).await;
        let next = next.map_err(|_| "no event came".to_owned())?.ok_or("the stream ended")?;
        expect_equal("the next event", next.n, 2)?;
        let missed = next.gap().map(Gap::missed);
        expect_equal("the number of missed events, which is unknown", missed, Some(None))?;
        positions.push(next.position());
    }
    expect_equal("the two nodes' ids", positions.first(), positions.last())?;
    let late = open(&nodes[1], &name, 10).await?;
    let received = receive(&mut late.subscribe().from_start(), 1).await?;
    expect_equal("the oldest event of a late opener", numbers(&received), vec![2])?;
    for topic in &topics {
        let reader = topic.subscribe().resume(&cursor(before)?);
        if !matches!(reader.resume_state(), Resume::Gap(_)) {
            let found = reader.resume_state();
            return Err(format!("{found:?} with an id of the earlier epoch"));
        }
    }
    Ok(())
}
