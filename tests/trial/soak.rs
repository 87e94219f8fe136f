//! Thousands of clients of mixed temper on two servers, one of which is restarted again and again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::Request;
use lexopt::Arg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::client::{Cursor, Frames, H1, request};
use crate::node::{ESTABLISHED, FIN_WAIT, Node, Stats};

const HELP: &str = "\
Thousands of clients of mixed temper on two servers, one of which is restarted again and again.

Usage: trial soak [OPTIONS]

  --minutes N       how long [default: 20]
  --clients N       how many clients [default: 2000]
  --interval-ms N   from one event to the next [default: 200]

Of a hundred clients 40 are healthy over HTTP/1.1, 30 over HTTP/2 (ten streams a connection), 5 slow;
12 stall (a quarter of them over HTTP/2), 8 come and go, 5 vanish. Ends with a verdict, which the
exit code repeats.
";

const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
const STREAMS: usize = 10;

/// The least that a receive buffer may be: what is not read soon blocks the server.
const TIGHT: Option<u32> = Some(4096);

/// What glibc keeps of memory that was given back: its arenas are as large as the busiest moment, and
/// their free pages go back to the system only from the end. A leak of 1 KiB a stream would show as
/// hundreds of megabytes over a long run.
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
    soak.all(minutes).await?;
    Ok(soak.verdict.tell())
}

/// What was promised, and whether it was kept.
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

    fn tell(&self) -> ExitCode {
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
    began: Instant,
    verdict: Verdict,
}

/// What the clients that are allowed to go wrong do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Run,
    /// They leave, so that the others can be counted.
    Calm,
    Over,
}

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    nodes: Vec<SocketAddr>,
    phase: watch::Receiver<Phase>,
    /// The event after which a healthy client has done its work.
    target: watch::Receiver<u64>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    /// Streams of healthy clients that are open, and their connections, by node.
    open: [AtomicUsize; 2],
    sockets: [AtomicUsize; 2],
    events: AtomicU64,
    refused: AtomicU64,
    /// How streams of healthy clients ended.
    ends: Mutex<BTreeMap<String, u64>>,
    /// Rounds of the others, by temper.
    rounds: Mutex<BTreeMap<&'static str, u64>>,
    /// How long it took to be reset, of those that stall.
    resets: Mutex<Vec<Duration>>,
    never_reset: AtomicU64,
    /// Clients that come and go keep a cursor too.
    spoilt: AtomicU64,
}

fn add<K: Ord>(counts: &Mutex<BTreeMap<K, u64>>, key: K) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
}

/// Counts one while it lives.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Soak {
    async fn start(clients: usize, interval_ms: u64) -> Outcome<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        // An hour of history: who asks for it gets it at once.
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
        let (began, verdict) = (Instant::now(), Verdict::default());
        Ok(Self { nodes, clients, interval, epoch, began, verdict })
    }

    fn newest(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(self.epoch).as_millis() / self.interval.as_millis();
        u64::try_from(since).unwrap_or_default()
    }

    async fn all(&mut self, minutes: f64) -> Outcome<()> {
        println!("{} clients, {minutes} minutes; first a warm-up", self.clients);
        self.under_load(Duration::from_secs(20), false).await?;
        let base = self.at_rest().await?;
        println!("base: {}", self.line(&base));
        let long = Duration::from_secs_f64(minutes * 60.0);
        let counts = self.under_load(long, true).await?;
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

    /// The servers once nobody is left and they have come to rest.
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

    /// Stops a server and looks at its last words.
    async fn stop(&mut self, n: usize) -> Outcome<()> {
        let (said, took) = self.nodes[n].stop().await?;
        let last = Stats(said);
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

    async fn under_load(&mut self, long: Duration, restarts: bool) -> Outcome<String> {
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
            others.spawn(async move { load.comes_and_goes(n % 2, from).await });
        }
        for n in 0..part(5) {
            let load = load.clone();
            others.spawn(async move { load.vanishes(n % 2).await });
        }

        let start = Instant::now();
        let (mut restarted, mut checkpoints, mut next) = (0, 0, 15);
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while start.elapsed() < long {
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
            control.phase(Phase::Calm);
            self.checkpoint(&load, expected).await?;
            checkpoints += 1;
            control.phase(Phase::Run);
            next = start.elapsed().as_secs() + 15;
        }
        // Everybody is to see what there is by now, then all is over.
        let target = self.newest();
        control.finish(target);
        let mut cursors = Vec::new();
        let finish = async {
            while let Some(done) = healthy.join_next().await {
                cursors.extend(done.unwrap_or_default());
            }
        };
        let in_time = timeout(Duration::from_secs(60), finish).await.is_ok();
        control.phase(Phase::Over);
        let _ =
            timeout(Duration::from_secs(10), async { while others.join_next().await.is_some() {} })
                .await;
        others.shutdown().await;
        healthy.shutdown().await;

        let tally = &load.tally;
        let wanted: usize = expected.iter().sum();
        let whole =
            cursors.iter().filter(|cursor| cursor.flawless() && cursor.last >= Some(target));
        let whole = whole.count();
        let sum = |figure: fn(&Cursor) -> u64| cursors.iter().map(figure).sum::<u64>();
        let (seen, lost, doubled) = (sum(|c| c.seen), sum(|c| c.lost), sum(|c| c.doubled));
        self.verdict.check(
            in_time && whole == wanted,
            format!(
                "{whole} of {wanted} healthy clients saw each of events {} to {target} once and in \
                 order: {seen} events, {lost} lost, {doubled} doubled",
                from + 1
            ),
        );
        let ends = tally.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.verdict.check(
            ends.keys().all(|end| end == "draining"),
            format!("healthy streams ended only with their server: {ends:?}"),
        );
        let spoilt = tally.spoilt.load(Ordering::SeqCst);
        self.verdict.check(spoilt == 0, format!("{spoilt} flaws in what short visits saw"));
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
        let at = self.began.elapsed().as_secs();
        println!(
            "{at:>5} s  {}  {events} events, {resets} stalled reset, {refused} refused",
            self.line(&stats)
        );
        Ok(())
    }

    /// With only the healthy ones left, both ends and the kernel count the same.
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
                let at = self.began.elapsed().as_secs();
                self.verdict.check(right, format!("at {at} s: {} | {}", first.1, second.1));
                return Ok(());
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Says when the clients of a load have done their work.
pub(crate) struct Control {
    phase: watch::Sender<Phase>,
    target: watch::Sender<u64>,
}

impl Control {
    /// Healthy clients are done once they have seen this event.
    pub(crate) fn finish(&self, target: u64) {
        self.target.send_replace(target);
    }

    fn phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Load {
    pub(crate) fn new(nodes: Vec<SocketAddr>) -> (Self, Control) {
        let (set_phase, phase) = watch::channel(Phase::Run);
        let (set_target, target) = watch::channel(u64::MAX);
        let load = Self { nodes, phase, target, tally: Arc::default() };
        (load, Control { phase: set_phase, target: set_target })
    }

    fn done(&self, cursor: &Cursor) -> bool {
        cursor.last >= Some(*self.target.borrow())
    }

    fn ended(&self, cursor: &mut Cursor, end: String) {
        add(&self.tally.ends, cursor.farewell.take().unwrap_or(end));
    }

    fn taken(&self, cursor: &mut Cursor, frame: &crate::client::Frame) {
        if cursor.take(frame) {
            self.tally.events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A healthy client, as fast as a browser or, with a tight buffer, just fast enough.
    pub(crate) async fn http1(mut self, node: usize, from: u64, buffer: Option<u32>) -> Cursor {
        let mut cursor = Cursor::after(from);
        let tally = self.tally.clone();
        while !self.done(&cursor) {
            match H1::open(self.nodes[node], "/feed", cursor.last, buffer).await {
                Err(_) => {
                    tally.refused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(mut stream) => {
                    let _held = (Held::new(&tally.open[node]), Held::new(&tally.sockets[node]));
                    let most = if buffer.is_some() { 512 } else { 4096 };
                    let mut read = Instant::now();
                    let end = loop {
                        if self.done(&cursor) {
                            return cursor;
                        }
                        let frame = tokio::select! {
                            frame = stream.next(most) => frame,
                            _ = self.target.changed() => continue,
                        };
                        match frame {
                            Ok(Some(frame)) => self.taken(&mut cursor, &frame),
                            Ok(None) => break "the end".to_owned(),
                            Err(error) => break error.to_string(),
                        }
                        if buffer.is_some() && read.elapsed() > Duration::from_millis(100) {
                            sleep(Duration::from_millis(200)).await;
                            read = Instant::now();
                        }
                    };
                    self.ended(&mut cursor, end);
                }
            }
            sleep(cursor.retry).await;
        }
        cursor
    }

    /// Healthy streams on one HTTP/2 connection.
    async fn http2(self, node: usize, from: u64) -> Vec<Cursor> {
        let mut cursors = vec![Cursor::after(from); STREAMS];
        while !cursors.iter().all(|cursor| self.done(cursor)) {
            let Ok((requests, driver)) = connect_http2(self.nodes[node], 1 << 16).await else {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
                sleep(cursors[0].retry).await;
                continue;
            };
            let held = Held::new(&self.tally.sockets[node]);
            join_all(cursors.iter_mut().map(|cursor| {
                let (load, requests) = (self.clone(), requests.clone());
                load.stream(node, requests, cursor)
            }))
            .await;
            driver.abort();
            drop(held);
            let retry = cursors.iter().map(|cursor| cursor.retry).max();
            if !cursors.iter().all(|cursor| self.done(cursor)) {
                sleep(retry.unwrap_or_default()).await;
            }
        }
        cursors
    }

    /// Follows on this connection for as long as it takes requests.
    async fn stream(mut self, node: usize, requests: SendRequest<Bytes>, cursor: &mut Cursor) {
        let tally = self.tally.clone();
        while !self.done(cursor) {
            let Ok(mut body) = open_http2(&requests, cursor.last).await else { return };
            let held = Held::new(&tally.open[node]);
            let mut frames = Frames::default();
            let end = loop {
                while let Some(frame) = frames.next() {
                    self.taken(cursor, &frame);
                }
                if self.done(cursor) {
                    return;
                }
                let bytes = tokio::select! {
                    bytes = body.data() => bytes,
                    _ = self.target.changed() => continue,
                };
                match bytes {
                    None => break "the end".to_owned(),
                    Some(Err(error)) => break error.to_string(),
                    Some(Ok(bytes)) => {
                        let _ = body.flow_control().release_capacity(bytes.len());
                        frames.push(&bytes);
                    }
                }
            };
            drop(held);
            self.ended(cursor, end);
            sleep(cursor.retry).await;
        }
    }

    /// Plays rounds until all is over; leaves in the middle of one when there is to be calm.
    async fn rounds<F: Future<Output = io::Result<()>>>(
        mut self,
        temper: &'static str,
        pause: std::ops::Range<u64>,
        mut round: impl FnMut() -> F,
    ) {
        loop {
            sleep(Duration::from_millis(fastrand::u64(pause.clone()))).await;
            let phase = *self.phase.borrow();
            match phase {
                Phase::Over => return,
                Phase::Calm => {
                    let _ = self.phase.wait_for(|phase| *phase != Phase::Calm).await;
                    continue;
                }
                Phase::Run => {}
            }
            tokio::select! {
                done = round() => match done {
                    Ok(()) => add(&self.tally.rounds, temper),
                    Err(_) => { self.tally.refused.fetch_add(1, Ordering::Relaxed); }
                },
                _ = self.phase.wait_for(|phase| *phase != Phase::Run) => {}
            }
        }
    }

    /// Asks for an hour of history and takes nothing of it.
    async fn stalls(self, node: usize, http2: bool) {
        let (address, tally) = (self.nodes[node], self.tally.clone());
        let round = || async {
            let reset = if http2 { stall_http2(address).await? } else { stall(address).await? };
            match reset {
                None => _ = tally.never_reset.fetch_add(1, Ordering::SeqCst),
                Some(after) => {
                    tally.resets.lock().unwrap_or_else(PoisonError::into_inner).push(after);
                }
            }
            Ok(())
        };
        self.rounds("stalled", 1000..3000, round).await;
    }

    /// Reads a little, leaves, and goes on later where it was.
    async fn comes_and_goes(self, node: usize, from: u64) {
        let (address, tally) = (self.nodes[node], self.tally.clone());
        let cursor = Mutex::new(Cursor::after(from));
        let round = || async {
            let mut own = cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut stream = H1::open(address, "/feed", own.last, None).await?;
            for _ in 0..fastrand::u32(1..6) {
                match stream.next(4096).await {
                    Ok(Some(frame)) => own.take(&frame),
                    _ => break,
                };
            }
            tally.spoilt.fetch_add(u64::from(!own.flawless()), Ordering::SeqCst);
            *cursor.lock().unwrap_or_else(PoisonError::into_inner) = own;
            if fastrand::bool() {
                stream.socket.set_zero_linger()?;
            }
            Ok(())
        };
        self.rounds("came and went", 500..3000, round).await;
    }

    /// Leaves without a word, at an odd moment.
    async fn vanishes(self, node: usize) {
        let address = self.nodes[node];
        let round = || async move {
            match fastrand::u32(0..5) {
                // In the middle of a frame, with a reset.
                0 => {
                    let mut socket = request(address, "/feed", Some(0), TIGHT).await?;
                    socket.read_exact(&mut [0; 1500]).await?;
                    socket.set_zero_linger()?;
                }
                // Half-closed, then waiting.
                1 => {
                    let mut socket = request(address, "/feed", None, None).await?;
                    socket.shutdown().await?;
                    let mut bytes = [0; 4096];
                    while socket.read(&mut bytes).await? > 0 {}
                }
                // Before, and in the middle of, its request.
                2 => drop(TcpStream::connect(address).await?),
                3 => TcpStream::connect(address).await?.write_all(b"GET /feed HTT").await?,
                // Takes nothing for a while, and is gone.
                _ => {
                    let socket = request(address, "/feed", Some(0), TIGHT).await?;
                    sleep(Duration::from_millis(fastrand::u64(0..2000))).await;
                    drop(socket);
                }
            }
            Ok(())
        };
        self.rounds("vanished", 500..2000, round).await;
    }
}

/// For how long a client that stalls waits for its reset.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after its request the connection was reset.
async fn stall(address: SocketAddr) -> io::Result<Option<Duration>> {
    let socket = request(address, "/feed", Some(0), TIGHT).await?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if !matches!(socket.take_error(), Ok(None)) {
            return Ok(Some(start.elapsed()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}

/// The same for one stream of an HTTP/2 connection, whose window stays shut.
async fn stall_http2(address: SocketAddr) -> io::Result<Option<Duration>> {
    let (requests, driver) = connect_http2(address, 4096).await?;
    let start = Instant::now();
    let stalled = async {
        let mut body = open_http2(&requests, Some(0)).await?;
        while body.data().await.is_some_and(|data| data.is_ok()) {}
        Ok(start.elapsed())
    };
    let stalled = timeout(PATIENCE, stalled).await;
    driver.abort();
    stalled.ok().transpose()
}

/// Drives a connection of HTTP/2.
pub(crate) struct Driver(tokio::task::JoinHandle<Result<(), h2::Error>>);

impl Driver {
    fn abort(&self) {
        self.0.abort();
    }
}

/// A client that is dropped in the middle of a round takes its connection along.
impl Drop for Driver {
    fn drop(&mut self) {
        self.abort();
    }
}

pub(crate) async fn connect_http2(
    address: SocketAddr,
    window: u32,
) -> io::Result<(SendRequest<Bytes>, Driver)> {
    let connect = async {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 24);
        builder.handshake(socket).await.map_err(io::Error::other)
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let (requests, connection) =
        timeout(Duration::from_secs(10), connect).await.map_err(late)??;
    Ok((requests, Driver(tokio::spawn(connection))))
}

pub(crate) async fn open_http2(
    requests: &SendRequest<Bytes>,
    cursor: Option<u64>,
) -> io::Result<h2::RecvStream> {
    let open = async {
        let mut requests = requests.clone().ready().await?;
        let mut request = Request::get("http://localhost/feed");
        if let Some(id) = cursor {
            request = request.header("last-event-id", id);
        }
        let request = request.body(()).map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (answer, _) = requests.send_request(request, true)?;
        answer.await
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = timeout(Duration::from_secs(10), open).await.map_err(late)?;
    let answer = answer.map_err(io::Error::other)?;
    if answer.status() != 200 {
        return Err(io::Error::other(answer.status().to_string()));
    }
    Ok(answer.into_body())
}
