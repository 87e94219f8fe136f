//! What a test can see of the contract of a [`Broker`].

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Broker, Gap, LogReplica, Position, PublishError, Resume, Retention, Subscription, Topic,
};
use crate::event::SseEvent;
use crate::frame::{FrameWriter, InvalidEvent, LastEventId};

/// So long a broker may take for a step.
const PATIENCE: Duration = Duration::from_secs(5);

/// So long something that must not come is waited for.
const QUIET: Duration = Duration::from_millis(300);

/// Checks what a test can see of the contract of a [`Broker`]: one order on all nodes, the offsets that are returned,
/// what is published together stays together, late openers, what is kept, ids of one node on another, the last event,
/// logs that are dropped, and a log that is lost. It takes some seconds, and uses logs by names of its own
/// (`contract-..`).
///
/// Each call of `node` makes the broker as another node has it. `lose` makes the log of that name be lost, as a broker
/// without a disk that is started anew loses it; until it is back, publishing may fail for some seconds.
///
/// On a multi-threaded runtime, which puts the order to the test: `#[tokio::test(flavor = "multi_thread")]`.
///
/// ```
/// # use hero_sse::{testing, topic::MemoryBroker};
/// # async fn run() -> Result<(), String> {
/// let broker = MemoryBroker::new();
/// testing::broker_contract(|| broker.clone(), async |topic| broker.drop_log(topic)).await
/// # }
/// ```
///
/// # Errors
///
/// What the broker did instead.
pub async fn broker_contract<B: Broker>(
    node: impl Fn() -> B,
    lose: impl AsyncFn(&str),
) -> Result<(), String> {
    one_order(&node).await.map_err(|error| format!("one order: {error}"))?;
    together(&node).await.map_err(|error| format!("events published together: {error}"))?;
    late(&node).await.map_err(|error| format!("a late opener: {error}"))?;
    latest(&node).await.map_err(|error| format!("a late opener of the latest: {error}"))?;
    resumes(&node).await.map_err(|error| format!("a resume on another node: {error}"))?;
    ends(&node).await.map_err(|error| format!("the last event: {error}"))?;
    leaves(&node).await.map_err(|error| format!("a log that was dropped: {error}"))?;
    loses(&node, lose).await.map_err(|error| format!("a log that was lost: {error}"))
}

#[derive(Clone, Debug, PartialEq)]
struct Noted {
    n: u64,
    last: bool,
}

impl SseEvent for Noted {
    const NAME: Option<&'static str> = Some("noted");

    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        // On two lines, so that nobody takes the body apart.
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

fn event(n: u64) -> Noted {
    Noted { n, last: false }
}

fn read(name: &str, data: &str) -> Option<Noted> {
    let (n, last) = data.split_once('\n')?;
    let noted = Noted { n: n.parse().ok()?, last: last.parse().ok()? };
    (name == "noted").then_some(noted)
}

fn name() -> String {
    format!("contract-{:016x}", fastrand::u64(..))
}

async fn open<B: Broker>(broker: &B, name: &str, keep: usize) -> Result<Topic<Noted>, String> {
    let topic = Topic::builder(name.to_owned()).retain_events(keep).decode(read);
    topic.open(broker).await.map_err(|error| format!("open: {error}"))
}

async fn publish(topic: &Topic<Noted>, n: u64) -> Result<Position, String> {
    topic.publish(event(n)).await.map_err(|error| format!("publish: {error}"))
}

/// What a reader got: which event, and its position.
type Got = (u64, Position);

async fn frames(reader: &mut Subscription<Noted>, count: usize) -> Result<Vec<Got>, String> {
    let mut got: Vec<Got> = Vec::new();
    while got.len() < count {
        let Ok(next) = timeout(PATIENCE, reader.next()).await else {
            return Err(format!(
                "no more than {got:?} came within {PATIENCE:?}; {count} were published"
            ));
        };
        let frame = next.ok_or_else(|| format!("the stream ended after {got:?}"))?;
        if let Some(gap) = frame.gap() {
            return Err(format!("{gap:?} behind {got:?}"));
        }
        got.push((frame.n, frame.position()));
    }
    Ok(got)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
}

fn numbers(got: &[Got]) -> Vec<u64> {
    got.iter().map(|(n, _)| *n).collect()
}

fn cursor(position: Position) -> Result<LastEventId, String> {
    let request = http::Request::builder().header("last-event-id", position.as_str());
    let (parts, ()) = request.body(()).map_err(|error| error.to_string())?.into_parts();
    LastEventId::from_parts(&parts).map_err(|error| error.to_string())
}

async fn one_order<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    const EACH: u64 = 100;
    let name = name();
    let nodes = [node(), node()];
    let topics = [open(&nodes[0], &name, 1_000).await?, open(&nodes[1], &name, 1_000).await?];
    let mut readers = topics.each_ref().map(|topic| topic.subscribe());
    let mut publishers = Vec::new();
    for (from, topic) in [(1_000, &topics[0]), (2_000, &topics[1]), (3_000, &topics[0])] {
        let topic = topic.clone();
        publishers.push(tokio::spawn(async move {
            let mut positions = Vec::new();
            for n in from..from + EACH {
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
    let one = frames(one, 3 * EACH as usize).await?;
    let other = frames(other, 3 * EACH as usize).await?;
    same(
        "the offsets",
        one.iter().map(|(_, at)| at.offset()).collect(),
        (1..=3 * EACH).collect::<Vec<_>>(),
    )?;
    for (n, position) in &published.concat() {
        let found = one.iter().find(|(found, _)| found == n).map(|(_, position)| *position);
        same(&format!("where {n} stands, and where `publish` said"), found, Some(*position))?;
    }
    for published in published {
        if !published.is_sorted_by(|(_, one), (_, next)| one.offset() < next.offset()) {
            return Err("one publisher's events are not in its order".to_owned());
        }
    }
    // Equal ids are equal epochs.
    same("what the two nodes read", other, one)
}

async fn together<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = name();
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
    let got = numbers(&frames(&mut reader, 400).await?);
    for ten in got.chunks(10) {
        let first = ten.first().copied().unwrap_or_default();
        same("ten events", ten.to_vec(), (first..first + 10).collect())?;
    }

    // One that is given up is published whole or not at all.
    let given_up = topics[0].publish_all((5_000..5_003).map(event)).now_or_never();
    publish(&topics[0], 6_000).await?;
    let got = if given_up.is_some() {
        numbers(&frames(&mut reader, 4).await?)
    } else {
        let mut got = numbers(&frames(&mut reader, 1).await?);
        sleep(QUIET).await;
        while let Some(Some(frame)) = reader.next().now_or_never() {
            got.push(frame.n);
        }
        got
    };
    let given_up: Vec<_> = got.into_iter().filter(|n| *n != 6_000).collect();
    if !given_up.is_empty() {
        same("three events", given_up, vec![5_000, 5_001, 5_002])?;
    }
    Ok(())
}

async fn late<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = name();
    let (first, second) = (node(), node());
    let topic = open(&first, &name, 20).await?;
    for n in 1..=50 {
        publish(&topic, n).await?;
    }
    for (keep, from) in [(20, 31), (5, 46)] {
        let late = open(&second, &name, keep).await?;
        same("how many are there", late.len(), keep)?;
        let mut reader = late.subscribe().from_start();
        let got = frames(&mut reader, keep).await?;
        same("what is kept", numbers(&got), (from..=50).collect())?;
        same(
            "its offsets",
            got.iter().map(|(_, at)| at.offset()).collect(),
            (from..=50).collect::<Vec<_>>(),
        )?;
    }
    let late = open(&second, &name, 20).await?;
    let mut reader = late.subscribe();
    let position = publish(&topic, 51).await?;
    same("what comes then", frames(&mut reader, 1).await?, vec![(51, position)])?;
    drop((topic, late, reader));
    let again = open(&first, &name, 20).await?;
    let got = frames(&mut again.subscribe().from_start(), 1).await?;
    same("what is there when nobody had it open for a while", numbers(&got), vec![32])
}

async fn latest<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = name();
    let (first, second) = (node(), node());
    let builder = || Topic::builder(name.clone()).latest().decode(read);
    let topic = builder().open(&first).await.map_err(|error| error.to_string())?;
    // Ten keys, of which one is never heard of again.
    let superseded = publish(&topic, 20).await?;
    publish(&topic, 10).await?;
    publish(&topic, 0).await?;
    for n in (1..500).filter(|n| n % 10 != 0) {
        publish(&topic, n).await?;
    }
    let late = builder().open(&second).await.map_err(|error| error.to_string())?;
    let mut reader = late.subscribe();
    let got = numbers(&frames(&mut reader, 10).await?);
    same("the newest of each key", got, std::iter::once(0).chain(491..500).collect())?;
    let back = late.subscribe().resume(&cursor(superseded)?);
    same("how one begins whose event was superseded", back.start(), &Resume::Resumed)?;
    publish(&topic, 500).await?;
    same("what comes then", numbers(&frames(&mut reader, 1).await?), vec![500])
}

async fn resumes<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = name();
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
    same("how it begins", reader.start(), &Resume::Resumed)?;
    same("what it missed", numbers(&frames(&mut reader, 8).await?), (2..=9).collect())?;
    for n in 10..=20 {
        publish(&one, n).await?;
        same("what comes then", numbers(&frames(&mut reader, 1).await?), vec![n])?;
    }
    let reader = other.subscribe().resume(&cursor(early)?);
    let Resume::Gap(gap) = reader.start() else {
        return Err(format!("{:?} though what it missed is not kept", reader.start()));
    };
    same("how many are gone", gap.missed(), Some(9))
}

async fn ends<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = name();
    let nodes = [node(), node(), node()];
    let topics = [open(&nodes[0], &name, 2).await?, open(&nodes[1], &name, 2).await?];
    let mut readers = topics.each_ref().map(|topic| topic.subscribe());
    publish(&topics[0], 1).await?;
    let events = [Noted { n: 2, last: true }, event(3)];
    let record = |event: &Noted| topics[1].record(event.clone()).map_err(|error| error.to_string());
    let records = events.iter().map(record).collect::<Result<Vec<_>, _>>()?;
    let appended = topics[1].handle.log.append(records).await.map_err(|error| error.to_string())?;
    same("the offset of the last event", appended, 2)?;
    for reader in &mut readers {
        same("what comes before the end", numbers(&frames(reader, 2).await?), vec![1, 2])?;
        let end = timeout(PATIENCE, reader.next()).await;
        let end = end.map_err(|_| "a node did not learn of the end".to_owned())?;
        same("what comes after the end", end.map(|frame| frame.n), None)?;
    }
    let late = open(&nodes[2], &name, 2).await?;
    for topic in topics.iter().chain([&late]) {
        same("whether it is closed", topic.is_closed(), true)?;
        let record = topic.record(event(4)).map_err(|error| error.to_string())?;
        match topic.handle.log.append(vec![record]).await.map_err(PublishError::from) {
            Err(PublishError::Closed) => {}
            other => return Err(format!("{other:?} when something is appended after it")),
        }
    }
    let mut reader = late.subscribe();
    same("what a late opener gets", numbers(&frames(&mut reader, 1).await?), vec![2])?;
    same("and then", reader.next().now_or_never().map(|end| end.is_none()), Some(true))
}

async fn leaves<B: Broker>(node: &impl Fn() -> B) -> Result<(), String> {
    let name = name();
    let (first, second) = (node(), node());
    let topic = open(&first, &name, 10).await?;
    let keep = Retention { events: 10, bytes: 1 << 20, age: None };
    let window = LogReplica::new(&name, keep, false, None, None);
    let log = second.open(&name, window.clone()).await.map_err(|error| error.to_string())?;
    publish(&topic, 1).await?;
    let begun = Instant::now();
    while window.next() < 2 {
        if begun.elapsed() > PATIENCE {
            return Err("it was not fed while it was open".to_owned());
        }
        sleep(Duration::from_millis(5)).await;
    }
    drop(log);
    sleep(QUIET).await;
    publish(&topic, 2).await?;
    sleep(QUIET).await;
    same("the next offset of its window", window.next(), 2)
}

async fn loses<B: Broker>(node: &impl Fn() -> B, lose: impl AsyncFn(&str)) -> Result<(), String> {
    let name = name();
    let nodes = [node(), node()];
    let topics = [open(&nodes[0], &name, 10).await?, open(&nodes[1], &name, 10).await?];
    let mut readers = topics.each_ref().map(|topic| topic.subscribe());
    let before = publish(&topics[0], 1).await?;
    for reader in &mut readers {
        frames(reader, 1).await?;
    }
    lose(&name).await;
    let begun = Instant::now();
    while let Err(error) = publish(&topics[0], 2).await {
        if begun.elapsed() > PATIENCE {
            return Err(error);
        }
        sleep(Duration::from_millis(50)).await;
    }
    let mut told = Vec::new();
    for reader in &mut readers {
        let next = timeout(PATIENCE, reader.next()).await;
        let frame = next.map_err(|_| "nothing came".to_owned())?.ok_or("the stream ended")?;
        same("what comes then", frame.n, 2)?;
        let missed = frame.gap().map(Gap::missed);
        same("how many a reader is told it missed", missed, Some(None))?;
        told.push(frame.position());
    }
    same("the two nodes' ids", told.first(), told.last())?;
    let late = open(&nodes[1], &name, 10).await?;
    let got = frames(&mut late.subscribe().from_start(), 1).await?;
    same("the oldest event that a late opener gets", numbers(&got), vec![2])?;
    for topic in &topics {
        let reader = topic.subscribe().resume(&cursor(before)?);
        if !matches!(reader.start(), Resume::Gap(_)) {
            return Err(format!("{:?} with an id of the earlier epoch", reader.start()));
        }
    }
    Ok(())
}
