//! What the subscribers of one topic cost, when half of them take nothing.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lexopt::{Arg, ValueExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::client::{H1, request};
use crate::node::{ESTABLISHED, Node, Stats};

const HELP: &str = "\
Subscribers of one topic, half of which take nothing: memory of the server, as a table in Markdown.

Usage: trial topic [OPTIONS]

  --subscribers N     all of them [default: 10000]
  --seconds N         how long events are published once they are there [default: 60]

Four events of 1,000 bytes a second; the topic keeps 100. Those that take nothing have small receive buffers,
and the write timeout is an hour, so that all of them stay: what they cost is what is measured.
";

/// The kernel's least, so that a client which takes nothing stalls within seconds.
const RECEIVE_BUFFER: u32 = 2048;
const INTERVAL_MS: u64 = 250;
const KEEP: u64 = 100;

pub(crate) async fn run(mut parser: lexopt::Parser) -> Outcome {
    let (mut subscribers, mut seconds) = (10_000, 60);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("subscribers") => subscribers = parser.value()?.parse()?,
            Arg::Long("seconds") => seconds = parser.value()?.parse()?,
            Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    let (interval, keep) = (INTERVAL_MS.to_string(), KEEP.to_string());
    let arguments = ["--topic", &keep, "--interval-ms", &interval, "--payload", "1000"];
    let settings = ["WriteTimeout=1h", "PeerTimeout=1h", "MaxConnections=100000"];
    let settings = settings.into_iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<_> = arguments.into_iter().chain(settings).map(str::to_owned).collect();
    let mut node = Node::start(&arguments).await?;
    let none = node.stats().await?;

    let tally = Arc::new(Tally::default());
    let (mut healthy, mut stalled) = (JoinSet::new(), Vec::new());
    for n in 0..subscribers {
        if n % 2 == 0 {
            stalled.push(request(node.address, "/feed", None, Some(RECEIVE_BUFFER)).await?);
        } else {
            let stream = H1::open(node.address, "/feed", None, None).await?;
            healthy.spawn(follow(stream, tally.clone()));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.stats().await?.get("open") < subscribers {
        if Instant::now() > deadline {
            return Err("the subscribers are not there after a minute".into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    println!("{subscribers} subscribers are there; publishing for {seconds} s");
    // Until those that take nothing have what sockets hold.
    sleep(Duration::from_secs(seconds / 2)).await;
    let half = node.stats().await?;
    let before = tally.events.load(Ordering::Relaxed);
    sleep(Duration::from_secs(seconds / 2)).await;
    let full = node.stats().await?;
    let (_, unsent) = node.sockets(&[ESTABLISHED]);
    let after = tally.events.load(Ordering::Relaxed);

    let (lost, doubled) =
        (tally.lost.load(Ordering::Relaxed), tally.doubled.load(Ordering::Relaxed));
    let gone = healthy.try_join_next().is_some();
    let followers = healthy.len() as u64;
    drop(stalled);
    healthy.abort_all();
    let mib = |stats: &Stats| stats.get("rss_kib") as f64 / 1024.0;
    let each = |stats: &Stats| (mib(stats) - mib(&none)) * 1024.0 / subscribers as f64;
    println!(
        "\n| subscribers, stalled | RSS without any, after {0} s, after {1} s | RSS a subscriber, then, at the end \
         | events to a healthy one in the second half | lost, doubled, gaps |\n|---|---|---|---|---|\n\
         | {subscribers}, {2} | {3:.1}, {4:.1}, {5:.1} MiB | {6:.1}, {7:.1} KiB | {8:.0} | {lost}, {doubled}, {9} |",
        seconds / 2,
        seconds,
        subscribers.div_ceil(2),
        mib(&none),
        mib(&half),
        mib(&full),
        each(&half),
        each(&full),
        (after - before) as f64 / followers.max(1) as f64,
        full.get("gaps"),
    );
    node.kill().await?;
    // What stalled clients miss in half of the time must not be in memory: 1 KB each, four times a second.
    let queued = (subscribers / 2) as f64 * seconds as f64 / 2.0 * 4.0 / 1024.0;
    let grown = mib(&full) - mib(&half);
    let held = unsent as f64 / 1024.0 / subscribers.div_ceil(2) as f64;
    println!("the kernel holds {held:.1} KiB unsent for each that takes nothing");
    println!(
        "queues would have grown by {queued:.0} MiB in the second half; it grew by {grown:.1} MiB"
    );
    let well =
        held > 8.0 && lost + doubled == 0 && !gone && after > before && grown < queued / 10.0;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Tally {
    events: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
}

/// Reads until it is aborted, or its stream ends.
async fn follow(mut stream: H1, tally: Arc<Tally>) {
    let mut last = None;
    while let Ok(Some(frame)) = stream.next(4096).await {
        let data = frame.data.filter(|_| frame.name.is_none()).unwrap_or_default();
        let Some(n) = data.split(' ').next().and_then(|n| n.parse::<u64>().ok()) else { continue };
        tally.events.fetch_add(1, Ordering::Relaxed);
        match last {
            Some(last) if n <= last => _ = tally.doubled.fetch_add(1, Ordering::Relaxed),
            Some(last) => _ = tally.lost.fetch_add(n - last - 1, Ordering::Relaxed),
            None => {}
        }
        last = Some(n);
    }
}
