//! Measures what a stalled client costs, before and after the server drops it.

use std::process::{Command, ExitCode};
use std::time::Duration;

use lexopt::Arg;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::client::{Cursor, Driver, connect_http2, open_http2, request};
use crate::load::Load;
use crate::node::{FIN_WAIT, Node};

const HELP: &str = "\
What a stalled client costs: memory of the server and of the kernel, as a table in Markdown.

Usage: trial memory [OPTIONS]

  --healthy N     healthy clients beside them [default: 1000]
  --stalled N     clients that do not read [default: 1000]
  --peers N       the same under axum's own Sse, where each may hold megabytes [default: 100]

Events of 1,000 bytes, ten a second. A stalled client requests hours of them at once. The write timeout
is 20 s, to leave time to measure. The memory does not depend on it.
";

const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const INTERVAL_MS: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http1,
    Http2,
    Axum,
}

/// An open connection that is not read.
enum Stalled {
    Http1 { _socket: TcpStream },
    Http2 { _driver: Driver, _body: h2::RecvStream },
}

pub(crate) async fn run(mut parser: lexopt::Parser) -> Outcome {
    let (mut healthy, mut stalled, mut peers) = (1000, 1000, 100);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("healthy") => healthy = lexopt::ValueExt::parse(&parser.value()?)?,
            Arg::Long("stalled") => stalled = lexopt::ValueExt::parse(&parser.value()?)?,
            Arg::Long("peers") => peers = lexopt::ValueExt::parse(&parser.value()?)?,
            Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    let mut rows = Vec::new();
    let mut kept = true;
    for (kind, stalled) in [(Kind::Http1, stalled), (Kind::Http2, stalled), (Kind::Axum, peers)] {
        let (row, well) = measure(kind, healthy, stalled).await?;
        println!("{row}");
        rows.push(row);
        kept &= well;
    }
    println!(
        "\n| server | healthy, flawless | stalled | RSS before, with stalled, after | RSS a stalled \
         client | kernel's send queue a stalled client: bytes, memory | dropped after | left in \
         FIN_WAIT: sockets, bytes |\n|---|---|---|---|---|---|---|---|"
    );
    rows.iter().for_each(|row| println!("{row}"));
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns a row of the table, and whether it is as expected.
async fn measure(kind: Kind, healthy: usize, stalled: usize) -> Outcome<(String, bool)> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let epoch = now - Duration::from_secs(3600);
    let timeout_setting = format!("WriteTimeout={}s", WRITE_TIMEOUT.as_secs());
    let (epoch, interval) = (epoch.as_millis().to_string(), INTERVAL_MS.to_string());
    let mut arguments = vec!["--epoch-ms", &epoch, "--interval-ms", &interval, "--payload", "1000"];
    if kind == Kind::Axum {
        arguments.push("--axum");
    } else {
        arguments.extend(["--set", &timeout_setting, "--set", "MaxConnections=100000"]);
    }
    let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
    let mut node = Node::start(&arguments).await?;

    let (load, control) = Load::new(vec![node.address]);
    let from = 3600 * 1000 / INTERVAL_MS;
    let mut followers = JoinSet::new();
    for _ in 0..healthy {
        followers.spawn(load.clone().http1(0, from, None));
    }
    until(&node, "healthy clients are connected", |alive| alive == healthy as u64).await?;
    sleep(Duration::from_secs(5)).await;
    let before = node.stats().await?;
    let idle = queues(&node);

    let mut held = Vec::new();
    let begun = Instant::now();
    for _ in 0..stalled {
        held.push(match kind {
            Kind::Http1 | Kind::Axum => {
                Stalled::Http1 { _socket: request(node.address, "/feed", Some(0), None).await? }
            }
            Kind::Http2 => {
                let (requests, driver) = connect_http2(node.address, 65_535).await?;
                let body = open_http2(&requests, Some(0)).await?;
                Stalled::Http2 { _driver: driver, _body: body }
            }
        });
    }
    let all = (healthy + stalled) as u64;
    until(&node, "stalled clients are connected", |alive| alive == all).await?;
    sleep(Duration::from_secs(8)).await;
    let during = node.stats().await?;
    if during.get("alive") != all {
        return Err(
            "the machine is too slow: some clients were dropped before the measurement".into()
        );
    }
    let full = queues(&node);

    let (dropped, after) = if kind == Kind::Axum {
        sleep(WRITE_TIMEOUT).await;
        let left = node.stats().await?;
        let kept = left.get("alive").saturating_sub(healthy as u64);
        (
            format!("{kept} of {stalled} still held after {:.0} s", begun.elapsed().as_secs_f64()),
            left,
        )
    } else {
        until(&node, "stalled clients are dropped", |alive| alive == healthy as u64).await?;
        let dropped = format!("{:.1} s", begun.elapsed().as_secs_f64());
        sleep(Duration::from_secs(3)).await;
        (dropped, node.stats().await?)
    };
    let (lingering, bytes) = node.sockets(&FIN_WAIT);

    let newest = now.as_millis() as u64 / INTERVAL_MS;
    let newest = newest - epoch.parse::<u64>()? / INTERVAL_MS + begun.elapsed().as_secs() * 10;
    control.finish(newest);
    let mut cursors: Vec<Cursor> = Vec::new();
    let finish = async {
        while let Some(done) = followers.join_next().await {
            cursors.extend(done);
        }
    };
    let _ = timeout(Duration::from_secs(30), finish).await;
    let flawless = cursors.iter().filter(|cursor| cursor.is_flawless() && cursor.seen > 50).count();
    drop(held);
    if kind == Kind::Axum {
        node.kill().await?;
    } else {
        node.stop().await?;
    }

    let name = match kind {
        Kind::Http1 => "hero-sse, HTTP/1.1",
        Kind::Http2 => "hero-sse, HTTP/2",
        Kind::Axum => "axum `Sse` under `axum::serve`, HTTP/1.1",
    };
    let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
    let [before, during, after] = [before, during, after].map(|stats| stats.get("rss_kib"));
    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / stalled as f64;
    let row = format!(
        "| {name} | {healthy}, {flawless} | {stalled} | {}, {}, {} MiB | {:.1} KiB | {:.1} KiB, {:.1} KiB \
         | {dropped} | {lingering}, {bytes} |",
        mib(before),
        mib(during),
        mib(after),
        each(during, before),
        each(full.bytes, idle.bytes) / 1024.0,
        each(full.memory, idle.memory) / 1024.0,
    );
    Ok((row, flawless == healthy && bytes == 0))
}

async fn until(node: &Node, what: &str, holds: impl Fn(u64) -> bool) -> Outcome<()> {
    let start = Instant::now();
    loop {
        let alive = node.stats().await?.get("alive");
        if holds(alive) {
            return Ok(());
        }
        if start.elapsed().as_secs() > 90 {
            return Err(format!("{what}: not within 90 s; {alive} user streams").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The kernel's send queues of a server: the bytes, and the memory they take.
struct Queues {
    bytes: u64,
    memory: u64,
}

fn queues(node: &Node) -> Queues {
    let (_, bytes) = node.sockets(&[crate::node::ESTABLISHED]);
    let port = format!("sport = :{}", node.address.port());
    // Of iproute2. Without it, the memory is unknown.
    let listed = Command::new("ss").args(["-tnmHO", "state", "established", &port]).output();
    let listed = listed.map(|listed| listed.stdout).unwrap_or_default();
    let memory = String::from_utf8_lossy(&listed)
        .lines()
        .filter_map(|line| {
            let (_, memory) = line.split_once("skmem:(")?;
            memory.split(',').find_map(|field| field.strip_prefix('w')?.parse::<u64>().ok())
        })
        .sum();
    Queues { bytes, memory }
}
