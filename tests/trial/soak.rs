//! Thousands of healthy and misbehaving clients on two servers, one of which is restarted again and again.

use std::process::ExitCode;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lexopt::Arg;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::client::Cursor;
use crate::load::{Load, Phase, STREAMS, TIGHT};
use crate::node::{ESTABLISHED, FIN_WAIT, Node, Stats};

const HELP: &str = "\
Thousands of healthy and misbehaving clients on two servers, one of which is restarted again and again.

Usage: trial soak [OPTIONS]

  --minutes N       how long [default: 20]
  --clients N       how many clients [default: 2000]
  --interval-ms N   time between events [default: 200]

Of 100 clients, 40 are healthy over HTTP/1.1, 30 over HTTP/2 (ten streams per connection), 5 slow;
12 stall (a quarter of them over HTTP/2), 8 reconnect often, 5 vanish. Ends with a verdict, which is
also the exit code.
";

const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// Tolerance for freed memory that glibc does not return to the system. Its arenas stay as large as at the busiest
/// moment. A leak of 1 KiB per stream would show as hundreds of megabytes over a long run.
const RSS_FACTOR: f64 = 1.25;
const RSS_KIB: f64 = 8192.0;

pub(crate) async fn run(mut parser: lexopt::Parser) -> Outcome {
    let (mut minutes, mut clients, mut interval_ms) = (20.0_f64, 2000_usize, 200_u64);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("minutes") => minutes = lexopt::ValueExt::parse(&parser.value()?)?,
            Arg::Long("clients") => clients = lexopt::ValueExt::parse(&parser.value()?)?,
            Arg::Long("interval-ms") => interval_ms = lexopt::ValueExt::parse(&parser.value()?)?,
            Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    let mut soak = Soak::start(clients, interval_ms).await?;
    soak.run(minutes).await?;
    Ok(soak.verdict.print())
}

/// Each promise, and whether it was kept.
#[derive(Default)]
struct Verdict(Vec<(bool, String)>);

impl Verdict {
    fn check(&mut self, kept: bool, what: impl Into<String>) {
        let what = what.into();
        if !kept {
            println!("FAILED: {what}");
        }
        self.0.push((kept, what));
    }

    fn print(&self) -> ExitCode {
        println!("\nVerdict");
        for (kept, what) in &self.0 {
            println!("  {} {what}", if *kept { "ok    " } else { "FAILED" });
        }
        let failed = self.0.iter().filter(|(kept, _)| !kept).count();
        if failed == 0 {
            println!("All {} promises were kept.", self.0.len());
            return ExitCode::SUCCESS;
        }
        println!("{failed} of {} promises were broken.", self.0.len());
        ExitCode::FAILURE
    }
}

struct Soak {
    nodes: Vec<Node>,
    clients: usize,
    interval: Duration,
    epoch: Duration,
    started: Instant,
    verdict: Verdict,
}

impl Soak {
    async fn start(clients: usize, interval_ms: u64) -> Outcome<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        // An hour of history, which a client can request at once.
        let epoch = now - Duration::from_secs(3600);
        let arguments = [
            "--epoch-ms",
            &epoch.as_millis().to_string(),
            "--interval-ms",
            &interval_ms.to_string(),
            "--set",
            &format!("WriteTimeout={}s", WRITE_TIMEOUT.as_secs()),
            "--set",
            "Retry=1s",
            "--set",
            "MaxConnections=100000",
        ];
        let arguments = arguments.map(str::to_owned);
        let nodes = vec![Node::start(&arguments).await?, Node::start(&arguments).await?];
        let interval = Duration::from_millis(interval_ms);
        let (started, verdict) = (Instant::now(), Verdict::default());
        Ok(Self { nodes, clients, interval, epoch, started, verdict })
    }

    fn newest(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(self.epoch).as_millis() / self.interval.as_millis();
        u64::try_from(since).unwrap_or_default()
    }

    async fn run(&mut self, minutes: f64) -> Outcome<()> {
        println!("{} clients, {minutes} minutes; first a warm-up", self.clients);
        self.under_load(Duration::from_secs(20), false).await?;
        let base = self.at_rest().await?;
        println!("base: {}", self.line(&base));
        let time = Duration::from_secs_f64(minutes * 60.0);
        let counts = self.under_load(time, true).await?;
        let rest = self.at_rest().await?;
        println!("at rest: {}", self.line(&rest));

        for (n, (base, rest)) in base.iter().zip(&rest).enumerate() {
            for (name, what) in [("open", "streams"), ("alive", "user streams")] {
                let left = rest.get(name);
                self.verdict.check(left == 0, format!("server {n}: {left} {what} left"));
            }
            for name in ["tasks", "fds"] {
                let (before, after) = (base.get(name), rest.get(name));
                self.verdict
                    .check(after <= before, format!("server {n}: {name} {before} to {after}"));
            }
            let (before, after) = (base.get("rss_kib"), rest.get("rss_kib"));
            let limit = before as f64 * RSS_FACTOR + RSS_KIB;
            let streams = rest.get("asked") - if n == 1 { base.get("asked") } else { 0 };
            self.verdict.check(
                after as f64 <= limit,
                format!(
                    "server {n}: RSS {before} to {after} KiB after {streams} streams; at most {limit:.0}"
                ),
            );
            let (lingering, bytes) = self.nodes[n].sockets(&FIN_WAIT);
            self.verdict.check(
                bytes == 0,
                format!("server {n}: {lingering} sockets linger with {bytes} bytes"),
            );
        }
        for n in 0..self.nodes.len() {
            self.stop(n).await?;
        }
        println!("{counts}");
        Ok(())
    }

    fn line(&self, stats: &[Stats]) -> String {
        let one = |stats: &Stats| {
            let [open, tasks, fds] = ["open", "tasks", "fds"].map(|name| stats.get(name));
            let rss = stats.get("rss_kib") / 1024;
            format!("[{open} open, {tasks} tasks, {fds} fds, {rss} MiB]")
        };
        format!("{} {}", one(&stats[0]), one(&stats[1]))
    }

    async fn stats(&self) -> Outcome<Vec<Stats>> {
        let mut all = Vec::new();
        for node in &self.nodes {
            all.push(node.stats().await?);
        }
        Ok(all)
    }

    /// Waits until all clients have left and the servers are idle. Returns their figures.
    async fn at_rest(&self) -> Outcome<Vec<Stats>> {
        let (start, mut last) = (Instant::now(), self.stats().await?);
        loop {
            sleep(Duration::from_millis(500)).await;
            let now = self.stats().await?;
            let still = |name| last.iter().zip(&now).all(|(a, b)| a.get(name) == b.get(name));
            let empty = now.iter().all(|stats| stats.get("open") == 0);
            if (empty && still("tasks") && still("fds")) || start.elapsed().as_secs() > 30 {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Stops a server and checks the figures that it prints at its end.
    async fn stop(&mut self, n: usize) -> Outcome<()> {
        let (figures, took) = self.nodes[n].stop().await?;
        let last = Stats(figures);
        let (asked, closed) = (last.get("asked"), last.closed());
        let (opened, alive) = (last.get("opened"), last.get("alive"));
        let seconds = took.as_secs_f64();
        let reasons = &last.0["closed"];
        self.verdict.check(
            asked == closed && alive == 0 && seconds < 10.0,
            format!(
                "server {n} ended in {seconds:.1} s: {asked} asked, {opened} opened, {alive} alive, \
                 {closed} counted {reasons}"
            ),
        );
        Ok(())
    }

    async fn under_load(&mut self, time: Duration, restarts: bool) -> Outcome<String> {
        let nodes = self.nodes.iter().map(|node| node.address).collect();
        let (load, control) = Load::new(nodes);
        let from = self.newest();
        let mut healthy: JoinSet<Vec<Cursor>> = JoinSet::new();
        let mut others = JoinSet::new();
        let part = |percent: usize| self.clients * percent / 100;
        let mut expected = [0; 2];
        for n in 0..part(40) {
            expected[n % 2] += 1;
            let load = load.clone();
            healthy.spawn(async move { vec![load.http1(n % 2, from, None).await] });
        }
        for n in 0..part(5) {
            expected[n % 2] += 1;
            let load = load.clone();
            healthy.spawn(async move { vec![load.http1(n % 2, from, TIGHT).await] });
        }
        for n in 0..part(30) / STREAMS {
            expected[n % 2] += STREAMS;
            let load = load.clone();
            healthy.spawn(async move { load.http2(n % 2, from).await });
        }
        for n in 0..part(12) {
            let load = load.clone();
            others.spawn(async move { load.stalls(n % 2, n % 8 > 5).await });
        }
        for n in 0..part(8) {
            let load = load.clone();
            others.spawn(async move { load.reconnects(n % 2, from).await });
        }
        for n in 0..part(5) {
            let load = load.clone();
            others.spawn(async move { load.vanishes(n % 2).await });
        }

        let start = Instant::now();
        let (mut restarted, mut checkpoints, mut next) = (0, 0, 15);
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while start.elapsed() < time {
            ticks.tick().await;
            self.progress(&load).await?;
            if start.elapsed().as_secs() < next || !restarts {
                continue;
            }
            self.stop(0).await?;
            sleep(Duration::from_secs(2)).await;
            self.nodes[0].restart().await?;
            restarted += 1;
            sleep(Duration::from_secs(15)).await;
            self.progress(&load).await?;
            control.phase(Phase::Pause);
            self.checkpoint(&load, expected).await?;
            checkpoints += 1;
            control.phase(Phase::Run);
            next = start.elapsed().as_secs() + 15;
        }
        // Every healthy client is to receive the events until now. Then all stop.
        let target = self.newest();
        control.finish(target);
        let mut cursors = Vec::new();
        let finish = async {
            while let Some(done) = healthy.join_next().await {
                cursors.extend(done.unwrap_or_default());
            }
        };
        let in_time = timeout(Duration::from_secs(60), finish).await.is_ok();
        control.phase(Phase::Stop);
        let _ =
            timeout(Duration::from_secs(10), async { while others.join_next().await.is_some() {} })
                .await;
        others.shutdown().await;
        healthy.shutdown().await;

        let tally = &load.tally;
        let expected: usize = expected.iter().sum();
        let complete =
            cursors.iter().filter(|cursor| cursor.is_flawless() && cursor.last >= Some(target));
        let complete = complete.count();
        let sum = |figure: fn(&Cursor) -> u64| cursors.iter().map(figure).sum::<u64>();
        let (seen, missed, repeated) = (sum(|c| c.seen), sum(|c| c.missed), sum(|c| c.repeated));
        self.verdict.check(
            in_time && complete == expected,
            format!(
                "{complete} of {expected} healthy clients saw each of events {} to {target} once and in \
                 order: {seen} events, {missed} missed, {repeated} repeated",
                from + 1
            ),
        );
        let ends = tally.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.verdict.check(
            ends.keys().all(|end| end == "draining"),
            format!("healthy streams ended only with their server: {ends:?}"),
        );
        let spoilt = tally.flawed.load(Ordering::SeqCst);
        self.verdict
            .check(spoilt == 0, format!("{spoilt} flaws in what reconnecting clients received"));
        let resets = tally.resets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let never = tally.never_reset.load(Ordering::SeqCst);
        let most = resets.iter().max().copied().unwrap_or_default();
        let limit = WRITE_TIMEOUT + Duration::from_secs(5);
        self.verdict.check(
            never == 0 && most < limit,
            format!(
                "{} stalled streams were reset after {:.1} to {:.1} s, {never} never; at most {} s",
                resets.len(),
                resets.iter().min().copied().unwrap_or_default().as_secs_f64(),
                most.as_secs_f64(),
                limit.as_secs()
            ),
        );
        let rounds = tally.rounds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = tally.refused.load(Ordering::SeqCst);
        Ok(format!(
            "{restarted} restarts, {checkpoints} checkpoints, {refused} refused connects; rounds {rounds:?}"
        ))
    }

    async fn progress(&self, load: &Load) -> Outcome<()> {
        let stats = self.stats().await?;
        let events = load.tally.events.load(Ordering::Relaxed);
        let resets = load.tally.resets.lock().unwrap_or_else(PoisonError::into_inner).len();
        let refused = load.tally.refused.load(Ordering::Relaxed);
        let at = self.started.elapsed().as_secs();
        println!(
            "{at:>5} s  {}  {events} events, {resets} stalled reset, {refused} refused",
            self.line(&stats)
        );
        Ok(())
    }

    /// With healthy clients only, checks that servers, clients and kernel count the same.
    async fn checkpoint(&mut self, load: &Load, expected: [usize; 2]) -> Outcome<()> {
        let start = Instant::now();
        loop {
            let stats = self.stats().await?;
            let count = |n: usize| {
                let ours = load.tally.open[n].load(Ordering::SeqCst);
                let (sockets, _) = self.nodes[n].sockets(&[ESTABLISHED]);
                let theirs =
                    [stats[n].get("open"), stats[n].get("alive")].map(|count| count as usize);
                let connections = load.tally.sockets[n].load(Ordering::SeqCst);
                let right =
                    theirs == [expected[n]; 2] && ours == expected[n] && sockets == connections;
                (
                    right,
                    format!(
                        "{} in the registry, {} user streams, {ours} at the clients; {connections} connections, {sockets} sockets",
                        theirs[0], theirs[1]
                    ),
                )
            };
            let (first, second) = (count(0), count(1));
            let right = first.0 && second.0;
            if right || start.elapsed().as_secs() > 60 {
                let at = self.started.elapsed().as_secs();
                self.verdict.check(right, format!("at {at} s: {} | {}", first.1, second.1));
                return Ok(());
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
}
