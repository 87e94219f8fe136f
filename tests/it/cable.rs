//! A pulled cable: the client vanishes without FIN or RST. It is in a network namespace of its own, behind a switch in
//! another. The link between those two goes down and up; the server's own link stays up.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::{CloseReason, Event, HeroSse, LastEventId};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::support::{Alive, options, sse_with};

const SECOND: Duration = Duration::from_secs(1);

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|error| {
        panic!("no network namespace: cannot run `ip` ({error}); ./tests/run installs iproute2")
    });
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "no network namespace: `ip {arguments}`: {why} Is this root?");
}

/// The namespaces of a client and of the switch before it. Dropping it removes them.
struct Cable {
    client: String,
    switch: String,
    outside: String,
    address: String,
}

impl Cable {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self::sweep();
        let pid = std::process::id();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let (client, switch) =
            (format!("hero-sse-{pid}-{count}"), format!("hero-sse-{pid}-{count}s"));
        // At most 15 letters, and addresses from the range for such tests (RFC 2544).
        let outside = format!("hs{pid}x{count}");
        let net = format!("198.{}.{}", 18 + (pid >> 8 & 1), pid & 255);
        let (address, peer) =
            (format!("{net}.{}", 4 * count + 1), format!("{net}.{}", 4 * count + 2));
        let cable = Self { client, switch, outside, address };
        let Self { client, switch, outside, address } = &cable;
        ip(&format!("netns add {client}"));
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add bridge type bridge"));
        ip(&format!("link add {outside} type veth peer name server netns {switch}"));
        ip(&format!("-n {switch} link add client type veth peer name wire netns {client}"));
        for port in ["server", "client"] {
            ip(&format!("-n {switch} link set {port} master bridge up"));
        }
        ip(&format!("-n {switch} link set bridge up"));
        ip(&format!("addr add {address}/30 dev {outside}"));
        ip(&format!("link set {outside} up"));
        ip(&format!("-n {client} addr add {peer}/30 dev wire"));
        ip(&format!("-n {client} link set wire up"));
        cable
    }

    /// Removes namespaces of earlier processes that ended too early to do so.
    fn sweep() {
        let names = Command::new("ip").args(["netns", "list"]).output();
        let names = names.map(|names| names.stdout).unwrap_or_default();
        for name in String::from_utf8_lossy(&names).split_whitespace() {
            let pid = name.strip_prefix("hero-sse-").and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = Command::new("ip").args(["netns", "del", name]).output();
            }
        }
    }

    fn pull(&self) {
        ip(&format!("-n {} link set client down", self.switch));
    }

    fn plug_in(&self) {
        ip(&format!("-n {} link set client up", self.switch));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let Self { client, switch, outside, .. } = self;
        for words in [["link", "del", outside], ["netns", "del", client], ["netns", "del", switch]]
        {
            let _ = Command::new("ip").args(words).output();
        }
    }
}

/// Numbered events, one per interval. A client receives those after its cursor.
fn numbers(from: u64, begun: Instant, interval: Duration) -> impl Stream<Item = Event> + Send {
    stream::unfold(from, move |n| async move {
        let due = begun + interval * u32::try_from(n).expect("a short test");
        tokio::time::sleep_until(due.into()).await;
        Some((Event::text(format!("{n}")).with_id(n).expect("an id"), n + 1))
    })
}

/// A server on this side of the cable, a client on the other.
struct Scene {
    cable: Cable,
    sse: HeroSse,
    alive: Alive,
    _stop: oneshot::Sender<()>,
    _client: Child,
    /// What the client printed, with the times.
    said: Arc<Mutex<Vec<(Instant, Value)>>>,
}

impl Scene {
    /// Events every `interval`. `None`: no event after the first.
    async fn open(settings: &str, interval: Option<Duration>, silence: Option<Duration>) -> Self {
        let cable = Cable::new();
        let sse = sse_with(options(settings));
        let alive = Alive::default();
        let (watch, begun) = (alive.clone(), Instant::now());
        let handler = async move |cursor: LastEventId| {
            let from = cursor.as_str().map_or(0, |id| id.parse::<u64>().expect("a number") + 1);
            watch.watch(match interval {
                Some(interval) => numbers(from, begun, interval).left_stream(),
                None => numbers(from, begun, SECOND / 100)
                    .take(1)
                    .chain(stream::pending())
                    .right_stream(),
            })
        };
        let app: Router = sse.endpoint("/feed").public().handler(handler).expect("a route");
        let listener = TcpListener::bind(format!("{}:0", cable.address)).await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = sse.serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        tokio::spawn(serve.into_future());

        let mut client = tokio::process::Command::new("ip");
        client.args(["netns", "exec", &cable.client, env!("CARGO_BIN_EXE_trial"), "follow"]);
        client.args(["--connect", &address.to_string()]);
        if let Some(silence) = silence {
            client.args(["--silence-ms", &silence.as_millis().to_string()]);
        }
        client.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut client = client.spawn().expect("a client");
        let mut lines = BufReader::new(client.stdout.take().expect("its words")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let hear = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let value: Value = serde_json::from_str(&line).expect("JSON");
                hear.lock().expect("no panic").push((Instant::now(), value["it"].clone()));
            }
        });
        let scene = Self { cable, sse, alive, _stop: stop, _client: client, said };
        scene.until("the first event", 10 * SECOND, || !scene.events().is_empty()).await;
        scene
    }

    fn heard(&self, what: &str) -> Vec<Value> {
        let said = self.said.lock().expect("no panic");
        said.iter().filter_map(|(_, it)| it.get(what).cloned()).collect()
    }

    fn events(&self) -> Vec<u64> {
        self.heard("event").iter().filter_map(Value::as_u64).collect()
    }

    async fn until(&self, what: &str, limit: Duration, holds: impl Fn() -> bool) -> f64 {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < limit, "{what}: not within {limit:?}; {:?}", self.report());
            sleep(Duration::from_millis(5)).await;
        }
        start.elapsed().as_secs_f64()
    }

    fn report(&self) -> String {
        let (closed, said) = (self.closed(), self.said.lock().expect("no panic"));
        let last: Vec<_> = said.iter().rev().take(5).map(|(_, it)| it.to_string()).collect();
        format!("closed {closed:?}, alive {}, client {last:?}", self.alive.count())
    }

    fn closed(&self) -> Vec<(CloseReason, u64)> {
        let counts = CloseReason::ALL.iter().map(|why| (*why, self.sse.connections().closed(*why)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns how long it took until the server dropped the stream.
    async fn dropped(&self, case: &str, limit: Duration) -> f64 {
        let gone = || self.alive.count() == 0 && self.sse.connections().is_empty();
        let seconds = self.until("the stream is dropped", limit, gone).await;
        println!("figure {{\"case\":\"{case}\",\"seconds\":{seconds:.3}}}");
        std::io::stdout().flush().expect("a flush");
        // The slot is released a moment before the end is counted.
        self.until("it is counted", SECOND, || !self.closed().is_empty()).await;
        assert_eq!(self.closed(), [(CloseReason::PeerTimeout, 1)], "{case}");
        seconds
    }

    fn in_order(&self) {
        let events = self.events();
        assert!(events.iter().copied().eq(0..events.len() as u64), "{events:?}");
    }
}

/// With a heartbeat, and then with the kernel's keep-alive probes alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and `ip`: ./tests/run installs it and runs this"]
async fn pulled_while_idle() {
    for (case, heartbeat, most) in
        [("cable pulled, idle", "500ms", 2.5), ("cable pulled, idle, no heartbeat", "off", 4.0)]
    {
        let settings = format!("PeerTimeout = \"2s\"\nHeartbeatInterval = \"{heartbeat}\"");
        let scene = Scene::open(&settings, None, None).await;
        scene.cable.pull();
        let seconds = scene.dropped(case, 20 * SECOND).await;
        assert!((1.9..most + 2.0).contains(&seconds), "{case}: {seconds}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and `ip`: ./tests/run installs it and runs this"]
async fn pulled_while_busy() {
    // The write timeout does not help here, since few bytes fill no buffer.
    let settings = "PeerTimeout = \"2s\"\nWriteTimeout = \"60s\"";
    let scene = Scene::open(settings, Some(SECOND / 50), None).await;
    scene.until("a good many", 10 * SECOND, || scene.events().len() > 20).await;
    scene.cable.pull();
    let seconds = scene.dropped("cable pulled, busy", 20 * SECOND).await;
    assert!((1.9..4.5).contains(&seconds), "{seconds}");
    scene.in_order();
}

/// With the default of 60 s the kernel finds out before that no host answers at the address, and reports that instead.
/// Here it is made to find out sooner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and `ip`: ./tests/run installs it and runs this"]
async fn pulled_for_long_enough_to_be_unreachable() {
    let settings = "PeerTimeout = \"14s\"\nWriteTimeout = \"60s\"";
    let scene = Scene::open(settings, Some(SECOND / 50), None).await;
    let neighbours = format!("/proc/sys/net/ipv4/neigh/{}", scene.cable.outside);
    for (name, value) in [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1")] {
        std::fs::write(format!("{neighbours}/{name}"), value).expect("a setting of the kernel");
    }
    // Known neighbours keep their old setting.
    ip(&format!("neigh flush dev {}", scene.cable.outside));
    sleep(SECOND).await;
    scene.cable.pull();
    let seconds = scene.dropped("cable pulled, found unreachable", 40 * SECOND).await;
    assert!((13.9..18.0).contains(&seconds), "{seconds}");
    scene.in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and `ip`: ./tests/run installs it and runs this"]
async fn plugged_in_again_before_the_peer_timeout() {
    let settings = "PeerTimeout = \"10s\"\nWriteTimeout = \"60s\"";
    let scene = Scene::open(settings, Some(SECOND / 50), None).await;
    scene.until("a good many", 10 * SECOND, || scene.events().len() > 20).await;
    scene.cable.pull();
    sleep(2 * SECOND).await;
    let before = scene.events().len();
    scene.cable.plug_in();
    let again = scene.until("news", 8 * SECOND, || scene.events().len() > before + 100).await;
    println!("figure {{\"case\":\"plugged in before: until the news\",\"seconds\":{again:.3}}}");
    scene.in_order();
    assert_eq!(scene.heard("opened").len(), 1, "not the same connection: {}", scene.report());
    assert_eq!((scene.closed(), scene.sse.connections().len()), (vec![], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and `ip`: ./tests/run installs it and runs this"]
async fn plugged_in_again_after_the_peer_timeout() {
    let settings = "PeerTimeout = \"2s\"\nWriteTimeout = \"60s\"\nHeartbeatInterval = \"500ms\"";
    let scene = Scene::open(settings, Some(SECOND / 50), Some(SECOND * 5 / 4)).await;
    scene.until("a good many", 10 * SECOND, || scene.events().len() > 20).await;
    scene.cable.pull();
    scene.dropped("cable pulled, watchdog", 20 * SECOND).await;
    let (before, missed) = (scene.events().len(), scene.heard("opened").len());
    scene.cable.plug_in();
    let again = scene.until("news", 15 * SECOND, || scene.events().len() > before + 200).await;
    println!("figure {{\"case\":\"plugged in after: until the news\",\"seconds\":{again:.3}}}");
    scene.in_order();
    assert_eq!(missed, 1, "{}", scene.report());
    assert_eq!(scene.heard("opened").len(), 2, "{}", scene.report());
    let closes = scene.heard("closed");
    assert_eq!(closes, ["silence"], "only its watchdog could tell");
    assert_eq!(scene.closed(), [(CloseReason::PeerTimeout, 1)]);
    assert_eq!((scene.alive.count(), scene.sse.connections().len()), (1, 1));
}

#[test]
#[ignore = "needs root, `ip`, Chromium and Node.js: ./tests/run installs them and runs this"]
fn a_page_behind_a_pulled_cable_misses_nothing() {
    let Cable { client, switch, address, .. } = &Cable::new();
    let variables = [
        ("CABLE_CLIENT", client.as_str()),
        ("CABLE_SWITCH", switch.as_str()),
        ("CABLE_ADDRESS", address.as_str()),
    ];
    crate::browser::node("cable.test.mjs", &variables);
}
