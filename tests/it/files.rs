//! The limit of open files. Each server is a process of its own, under a limit that a shell sets.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hero_sse::Event;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

use crate::http2::within;
use crate::support::testing;
use crate::support::{options, public, sse_with};

/// Set in the child process only: the `MaxConnections` of its server.
const CHILD: &str = "OPEN_FILES_TEST";

/// A server process, which stops when its standard input ends.
struct Server {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    /// What it printed before its address: its log.
    log: String,
}

impl Server {
    async fn start(soft: u32, hard: u32, connections: u32) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""))
            .arg(program)
            .args(["--exact", "files::a_server_for_the_others", "--nocapture"])
            .env(CHILD, connections.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        let mut out = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut log = String::new();
        loop {
            let line = within(out.next_line()).await.expect("its output");
            let line = line.unwrap_or_else(|| panic!("it ended after: {log}"));
            if let Some((_, address)) = line.split_once("address=") {
                let address = address.parse().expect("an address");
                return Self { child, out, address, log };
            }
            log.push_str(&line);
            log.push('\n');
        }
    }

    /// Returns its soft limit.
    fn limit(&self) -> u64 {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid())).expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let words = line.expect("a line").split_whitespace().nth(3);
        words.and_then(|word| word.parse().ok()).expect("a number")
    }

    /// Returns its processor time, in hundredths of a second.
    fn busy(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("its state");
        let (_, fields) = stat.rsplit_once(") ").expect("fields");
        let field = |n| fields.split(' ').nth(n).and_then(|field: &str| field.parse::<u64>().ok());
        field(11).expect("user time") + field(12).expect("system time")
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Stops it, and returns its log since the start.
    async fn stop(mut self) -> String {
        drop(self.child.stdin.take());
        let status = within(self.child.wait()).await.expect("an end");
        let mut rest = String::new();
        while let Ok(Some(line)) = self.out.next_line().await {
            rest.push_str(&line);
            rest.push('\n');
        }
        assert!(status.success(), "{status}: {rest}");
        rest
    }
}

/// Not a test but the child process: a server that sends an event every tenth of a second.
#[tokio::test]
async fn a_server_for_the_others() {
    let Ok(connections) = std::env::var(CHILD) else { return };
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stdout);
    let _guard = tracing::subscriber::set_default(log.finish());
    let sse = sse_with(options(&format!("MaxConnections = {connections}")));
    let ticks = || {
        stream::iter(0..).then(async |n: u32| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Event::text(n.to_string())
        })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // Not Tokio's standard input, whose thread would delay the end of the process.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(stop);
    });
    let serving = sse.serve(listener, public(&sse, ticks)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serving.into_future());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut out = std::io::stdout();
    writeln!(out, "address={address}").and_then(|()| out.flush()).expect("said");
    serving.await.expect("no panic").expect("no error");
}

#[tokio::test]
async fn serve_raises_the_soft_limit_as_far_as_needed() {
    let server = Server::start(100, 2_000, 1_000).await;
    assert_eq!(server.limit(), 1_256);
    assert!(server.log.contains("from=100 to=1256"), "{}", server.log);
    assert!(!server.log.contains("WARN"), "{}", server.log);
    server.stop().await;
}

#[tokio::test]
async fn serve_warns_if_the_hard_limit_is_too_low() {
    let server = Server::start(100, 500, 1_000).await;
    assert_eq!(server.limit(), 500);
    let words =
        ["WARN", "limit=500 needed=1256 max_connections=1000", "`ulimit -n`", "`LimitNOFILE=`"];
    for words in words {
        assert!(server.log.contains(words), "{words}: {}", server.log);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_limit_that_is_high_enough_is_not_changed() {
    let server = Server::start(1_500, 2_000, 1_000).await;
    assert_eq!(server.limit(), 1_500);
    assert!(!server.log.contains("open files"), "{}", server.log);
    server.stop().await;
}

/// At the limit it serves the open connections, does not spin, and accepts others once there is room.
#[tokio::test]
async fn a_server_without_a_free_file_waits_for_one() {
    let server = Server::start(50, 50, 1_000).await;
    let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
    let mut idle = Vec::new();
    for _ in 0..100 {
        // The kernel accepts connections even if the server does not.
        idle.push(TcpStream::connect(server.address).await.expect("a socket"));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let busy = server.busy();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        stream.next().await.expect("in time").expect("an event");
    }
    let busy = server.busy() - busy;
    assert!(busy < 100, "{busy} hundredths of a second of work in three");
    let late = testing::connect(server.address, "/s");
    let late = tokio::time::timeout(Duration::from_secs(1), late.into_future()).await;
    assert!(late.is_err(), "there was room after all: the test shows nothing");
    drop(idle);
    // The listener retries after a second.
    let start = Instant::now();
    let mut next = testing::connect(server.address, "/s").await.expect("a stream");
    next.next().await.expect("in time").expect("an event");
    println!("served again after {:?}", start.elapsed());
    let said = server.stop().await;
    assert!(said.contains("shutting down"), "{said}");
}
