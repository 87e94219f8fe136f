//! The live example as a program: started, used over real sockets, and stopped by signals.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

use crate::support::testing::{self, EventReader, SlowReader};

const USAGE: &str = "/api/v1/usage/stream";
const AUDIT: &str = "/api/v1/audit/stream";
const BUILDS: &str = "/api/v1/builds/stream";
/// Timeout of an answer, of the first line and of an exit.
const SOON: Duration = Duration::from_secs(10);
/// Timeout of a build, on a busy machine.
const BUILD: Duration = Duration::from_secs(120);

/// One server at a time: the tests measure durations.
static TURN: Mutex<()> = Mutex::const_new(());

fn program() -> PathBuf {
    let path = std::env::var_os("LIVE_BIN").expect("LIVE_BIN is not set; call ./tests/run");
    // The tests run in another folder than the one where the variable was set.
    Path::new(&path).canonicalize().expect("LIVE_BIN names no program; call ./tests/run")
}

/// Returns the command that runs the program in this folder, with its log there.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary).expect("a folder");
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERO_SSE_") {
            command.env_remove(name);
        }
    }
    // Another crate of the workspace may switch the colours of the log on.
    command.env("NO_COLOR", "1");
    command
        .args(["--listen", "127.0.0.1:0", "--audit-log"])
        .arg(folder.join("audit.log"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("TMPDIR", temporary)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(folder.join("stderr")).expect("a file"));
    command
}

/// A running server. Dropping it kills it.
struct Live {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Live {
    async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| ()).await
    }

    async fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let turn = TURN.lock().await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = command(folder.path(), arguments);
        change(&mut command);
        let mut child = command.spawn().expect("the program runs");
        let stdout = child.stdout.take().expect("a pipe");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on `drop` kills it, also after a panic.
        let mut live = Self { address, child, folder, _turn: turn };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let first = lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("{}", live.stderr()));
        let address = first.strip_prefix("listening on http://");
        live.address = address.expect(&first).parse().expect(&first);
        live
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).expect("text")
    }

    /// Sends a request on a new connection. Returns the status and the body of the answer.
    async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await.expect("a socket");
            let token = match token {
                "" => String::new(),
                token => format!("authorization: Bearer {token}\r\n"),
            };
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.expect("an answer");
            answer
        };
        let answer = timeout(SOON, exchange).await.expect("an answer in time");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, body.to_owned())
    }

    async fn request_token(&self, request: Value) -> (u16, Value) {
        let (status, body) = self.ask("POST", "/token", "", &request.to_string()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn token(&self, permissions: &[&str], ttl: &str) -> String {
        let request = json!({ "subject": "ann", "permissions": permissions, "ttl": ttl });
        let (status, answer) = self.request_token(request).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().expect("a token").to_owned()
    }

    async fn open(&self, path: &str, token: &str) -> EventReader {
        testing::connect(self.address, path).bearer(token).await.expect("a stream")
    }

    /// Returns the status with which a stream is refused.
    async fn refused(&self, path: &str, token: &str) -> Option<StatusCode> {
        let mut open = testing::connect(self.address, path);
        if !token.is_empty() {
            open = open.bearer(token);
        }
        open.await.expect_err("no stream").status
    }

    /// Sends SIGINT, as Ctrl-C does. Returns the exit status and the time until then.
    async fn interrupt(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -s INT \"$0\"", &pid]).status();
        assert!(kill.expect("a shell").success());
        while start.elapsed() < SOON {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, start.elapsed());
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("the program does not stop: {}", self.stderr());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that cannot start. Returns its exit code and its output on stderr.
fn failure(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = command(folder, arguments).spawn().expect("the program runs");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if start.elapsed() > SOON {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?}: it started");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status.code(), fs::read_to_string(folder.join("stderr")).expect("text"))
}

async fn until(stream: &mut EventReader, name: &str) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    let all = async {
        while let Some(event) = stream.next().await.expect("a whole stream") {
            let data = event.json().expect("JSON");
            let done = event.event == name;
            if !["hero.heartbeat", "hero.cursor"].contains(&event.event.as_str()) {
                events.push((event.event, data));
            }
            if done {
                return;
            }
        }
        panic!("the stream ended before {name}: {events:?}");
    };
    timeout(BUILD, all).await.expect("in time");
    events
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn the_page_tokens_and_all_three_streams_work() {
    let live = Live::start(&[]).await;
    for path in ["/", "/style.css", "/app.js"] {
        assert_eq!(live.ask("GET", path, "", "").await.0, 200, "{path}");
    }
    let token = live.token(&["usage.read", "audit.read"], "60s").await;
    let mut by_header = live.open(USAGE, &token).await;
    let query = format!("{USAGE}?access_token={token}");
    let mut by_query = testing::connect(live.address, &query).await.expect("a stream");
    for stream in [&mut by_header, &mut by_query] {
        let (_, usage) = until(stream, "usage").await.pop().expect("a reading");
        assert!(usage["memory_used"].as_u64().is_some_and(|used| used > 0), "{usage}");
    }
    // The requests so far are records, and none of them holds a query.
    let mut audit = live.open(AUDIT, &token).await;
    let (_, record) = until(&mut audit, "audit").await.pop().expect("a record");
    assert_eq!((&record["path"], &record["status"]), (&json!("/"), &json!(200)));
    loop {
        let (_, record) = until(&mut audit, "audit").await.pop().expect("a record");
        if record["path"] == USAGE {
            assert_eq!(record["subject"], "ann");
            break;
        }
    }
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn requests_without_a_token_or_permission_are_refused() {
    let live = Live::start(&[]).await;
    let token = live.token(&["usage.read"], "60s").await;
    for path in [USAGE, AUDIT, BUILDS] {
        assert_eq!(live.refused(path, "").await, Some(StatusCode::UNAUTHORIZED), "{path}");
        assert_eq!(live.refused(path, "a.b.c").await, Some(StatusCode::UNAUTHORIZED), "{path}");
    }
    for path in [AUDIT, BUILDS] {
        assert_eq!(live.refused(path, &token).await, Some(StatusCode::FORBIDDEN), "{path}");
    }
    assert_eq!(live.ask("POST", "/api/v1/builds", "", "").await.0, 401);
    assert_eq!(live.ask("POST", "/api/v1/builds", &token, "").await.0, 403);

    let short = live.token(&["usage.read"], "2s").await;
    let mut stream = live.open(USAGE, &short).await;
    let events = until(&mut stream, "hero.close").await;
    assert_eq!(events.last().expect("a closing event").1["reason"], "token_expired", "{events:?}");
    assert_eq!(stream.next().await, Ok(None));
    // A stream may end shortly before its token expires.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(live.refused(USAGE, &short).await, Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_token_survives_a_restart_only_with_a_secret_of_ones_own() {
    let secret = ["--secret", "a secret for this test, 32 bytes or more"];
    for (arguments, survives) in [(&secret[..], true), (&[], false)] {
        let mut live = Live::start(arguments).await;
        let token = live.token(&["usage.read"], "60s").await;
        live.interrupt().await;
        drop(live);
        let live = Live::start(arguments).await;
        let restarted = testing::connect(live.address, USAGE).bearer(&token).await;
        let refused = restarted.err().map(|error| error.status);
        let expected = if survives { None } else { Some(Some(StatusCode::UNAUTHORIZED)) };
        assert_eq!(refused, expected, "{arguments:?}");
    }
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_token_request_that_makes_no_sense_is_a_400() {
    let live = Live::start(&[]).await;
    for (request, word) in [
        (json!({}), "subject"),
        (json!({ "subject": "" }), "subject"),
        (json!({ "subject": "a\nb" }), "subject"),
        (json!({ "subject": "ann", "permissions": [""] }), "permissions"),
        (json!({ "subject": "ann", "permissions": ["usage read"] }), "usage read"),
        (json!({ "subject": "ann", "permission": ["usage.read"] }), "unknown field"),
        (json!({ "subject": "ann", "ttl": "soon" }), "ttl"),
        (json!({ "subject": "ann", "ttl": "off" }), "ttl"),
    ] {
        let (status, problem) = live.request_token(request.clone()).await;
        assert_eq!(status, 400, "{request}: {problem}");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains(word), "{request}: {detail}");
    }
    let endless = json!({ "subject": "ann", "ttl": "18446744073709551615s" });
    assert_ne!(live.request_token(endless).await.0, 500);
    let token = live.token(&["builds.start"], "60s").await;
    for body in ["{", r#"{"broke": true}"#, r#"{"broken": 1}"#] {
        let (status, problem) = live.ask("POST", "/api/v1/builds", &token, body).await;
        assert_eq!(status, 400, "{body}: {problem}");
        assert!(problem.contains("broken"), "{body}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_stalled_client_is_reset_and_delays_no_request() {
    let options = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    fs::write(options.path(), "[SseOptions]\nWriteTimeout = \"1s\"\n").expect("written");
    let live = Live::start(&["--options", options.path().to_str().expect("text")]).await;
    let token = live.token(&["audit.read"], "60s").await;
    // Long records, so that the last fifty of them fill the socket.
    let path = format!("/{}", "x".repeat(8000));
    for _ in 0..60 {
        assert_eq!(live.ask("GET", &path, "", "").await.0, 404);
    }
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let stalled = SlowReader::connect(live.address, AUDIT, &headers).await.expect("a socket");
    let requests = async {
        let (mut count, mut longest) = (0, Duration::ZERO);
        loop {
            let start = Instant::now();
            assert_eq!(live.ask("GET", &path, "", "").await.0, 404);
            longest = longest.max(start.elapsed());
            count += 1;
            if count >= 50 && longest > Duration::from_secs(1) {
                return longest;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let reset = tokio::select! {
        reset = stalled.reset_within(Duration::from_secs(4)) => reset.expect("a reset"),
        longest = requests => panic!("a request took {longest:?}"),
    };
    assert!((0.9..=2.0).contains(&reset.as_secs_f64()), "{reset:?}");
    live.open(AUDIT, &token).await.next().await.expect("in time").expect("a record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn an_interrupt_sends_a_closing_event_on_every_stream() {
    let mut live = Live::start(&[]).await;
    let token = live.token(&["usage.read", "audit.read", "builds.read"], "60s").await;
    let mut streams = Vec::new();
    for path in [USAGE, AUDIT, BUILDS].iter().cycle().take(10) {
        streams.push(live.open(path, &token).await);
    }
    let (status, took) = live.interrupt().await;
    assert_eq!(status.code(), Some(0), "{}", live.stderr());
    assert!(took < Duration::from_secs(2), "{took:?}");
    for mut stream in streams {
        let events = until(&mut stream, "hero.close").await;
        let (_, close) = events.last().expect("a closing event");
        assert_eq!((&close["reason"], &close["reconnect"]), (&json!("draining"), &json!(true)));
        assert_eq!(stream.next().await, Ok(None));
    }
}

#[test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
fn an_error_at_the_start_names_the_fault_the_place_and_the_cure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let missing = folder.path().join("none.toml").to_str().expect("text").to_owned();
    let broken = file("broken.toml", "[SseOptions\n");
    let unknown = file("unknown.toml", "[SseOptions]\nWritTimeout = \"5s\"\n");
    let wrong = file("wrong.json", r#"{"SseOptions": {"WriteTimeout": "5 parsecs"}}"#);
    let pipe = folder.path().join("pipe").to_str().expect("text").to_owned();
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let directory = folder.path().to_str().expect("text");

    let cases: [(&[&str], &[&str]); 12] = [
        (&["--listen", "nonsense"], &["listen on nonsense", "--listen"]),
        (&["--listen", &port], &["listen on", &port, "in use", "--listen"]),
        (&["--options", &missing], &[&missing, "No such file", "--options"]),
        (&["--options", &broken], &[&broken, "not TOML", "line 1", "--options"]),
        (&["--options", &unknown], &[&unknown, "WritTimeout", "WriteTimeout", "--options"]),
        (&["--options", &wrong], &[&wrong, "WriteTimeout", "5 parsecs", "--options"]),
        (&["--secret", "short"], &["--secret", "5 bytes", "32", "longer"]),
        (&["--secret", ""], &["--secret", "0 bytes", "32", "longer"]),
        (&["--sercet", "x"], &["--sercet", "--help"]),
        (&["--audit-log", &pipe], &["audit log", &pipe, "not a regular file", "--audit-log"]),
        (
            &["--audit-log", directory],
            &["audit log", directory, "not a regular file", "--audit-log"],
        ),
        (&["--audit-log", "no/such/log"], &["audit log no/such/log", "No such", "--audit-log"]),
    ];
    for (arguments, words) in cases {
        let (code, stderr) = failure(folder.path(), arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: {word} is missing in {stderr}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn no_log_contains_a_token() {
    let mut live = Live::start_with(&[], |command| {
        command.env("RUST_LOG", "trace");
    })
    .await;
    let token = live.token(&["usage.read"], "60s").await;
    let forged = format!("{token}x");
    let query = format!("{USAGE}?access_token={token}");
    let mut stream = testing::connect(live.address, &query).await.expect("a stream");
    until(&mut stream, "usage").await;
    until(&mut live.open(USAGE, &token).await, "usage").await;
    for (path, expected) in [
        (format!("{USAGE}?access_token={forged}"), 401),
        (format!("{AUDIT}?a=1&access%5Ftoken={token}"), 403),
        (format!("/nowhere?access_token={token}"), 404),
    ] {
        assert_eq!(live.ask("GET", &path, "", "").await.0, expected, "{path}");
    }
    live.interrupt().await;
    let signature = token.rsplit('.').next().expect("a signature");
    let audit = fs::read_to_string(live.folder.path().join("audit.log")).expect("text");
    let log = live.stderr();
    assert!(log.contains("request{method=GET uri=") && log.contains("stream opened"), "{log}");
    assert!(audit.contains(USAGE) && audit.contains("/nowhere"), "{audit}");
    for log in [log, audit] {
        assert!(!log.contains(signature), "{log}");
    }
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn an_unknown_log_level_is_a_warning() {
    let live = Live::start_with(&[], |command| {
        command.env("RUST_LOG", "hero_sse=debug");
    })
    .await;
    let log = live.stderr();
    assert!(log.contains("RUST_LOG=hero_sse=debug") && log.contains("error, warn, info"), "{log}");
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_broken_build_fails_and_a_good_one_ends_the_feed() {
    let live = Live::start(&[]).await;
    let token = live.token(&["builds.read", "builds.start", "audit.read"], "300s").await;
    let mut feed = live.open(BUILDS, &token).await.timeout(BUILD);

    let (status, answer) = live.ask("POST", "/api/v1/builds", &token, r#"{"broken":true}"#).await;
    assert_eq!((status, answer.as_str()), (202, r#"{"build":1}"#));
    assert_eq!(live.ask("POST", "/api/v1/builds", &token, "").await.0, 409);
    let events = until(&mut feed, "failed").await;
    assert_eq!(names(&events)[..2], ["queued", "started"]);
    assert!(names(&events).contains(&"diagnostic"), "{events:?}");
    assert_eq!(events.last().expect("an end").1["errors"], 1, "{events:?}");

    assert_eq!(live.ask("POST", "/api/v1/builds", &token, "").await.0, 202);
    let events = until(&mut feed, "finished").await;
    assert_eq!(names(&events)[..2], ["queued", "started"], "the stream continues");
    assert_eq!(names(&events).iter().filter(|name| **name == "artifact").count(), 3);
    let (_, close) = until(&mut feed, "hero.close").await.pop().expect("a closing event");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("last_event"), &json!(false)));
    assert_eq!(feed.next().await, Ok(None));
    let raw = feed.raw();
    let id = raw.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    assert!(id.ends_with("hero.end"), "{raw}");
    let again = testing::connect(live.address, BUILDS).bearer(&token).last_event_id(id).await;
    assert_eq!(again.expect_err("no stream").status, Some(StatusCode::NO_CONTENT));

    // The audit log has the subject of each attempt.
    let audit = fs::read_to_string(live.folder.path().join("audit.log")).expect("text");
    let records = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let started: Vec<_> = records.filter(|record| record["path"] == "/api/v1/builds").collect();
    assert_eq!(started.len(), 3, "{audit}");
    assert!(started.iter().all(|record| record["subject"] == "ann"), "{audit}");
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_new_client_gets_the_newest_reading_at_once() {
    let live = Live::start(&[]).await;
    let token = live.token(&["usage.read"], "60s").await;
    let mut early = live.open(USAGE, &token).await;
    // The next reading may arrive before the second stream opens, but not each time.
    for _ in 0..5 {
        let (_, newest) = until(&mut early, "usage").await.pop().expect("a reading");
        let mut late = live.open(USAGE, &token).await;
        let (_, first) = until(&mut late, "usage").await.pop().expect("a reading");
        if first == newest {
            return;
        }
    }
    panic!("each new client waited for another reading");
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_client_that_connects_after_a_build_gets_all_its_events() {
    let live = Live::start(&[]).await;
    let token = live.token(&["builds.read", "builds.start"], "300s").await;
    assert_eq!(live.ask("POST", "/api/v1/builds", &token, "").await.0, 202);
    let mut early = live.open(BUILDS, &token).await.timeout(BUILD);
    let all = until(&mut early, "finished").await;
    assert_eq!(names(&all)[..2], ["queued", "started"]);
    let id =
        early.raw().lines().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    for (last_id, from) in [(None, 0), (Some(id), 1)] {
        let mut open = testing::connect(live.address, BUILDS).bearer(&token);
        if let Some(id) = last_id {
            open = open.last_event_id(&id);
        }
        let mut late = open.await.expect("a stream");
        assert_eq!(until(&mut late, "finished").await, all[from..]);
        let (_, close) = until(&mut late, "hero.close").await.pop().expect("a closing event");
        assert_eq!(close["reason"], "last_event");
        assert_eq!(late.next().await, Ok(None));
    }
}

/// Returns the command lines of processes that name this folder, on systems with /proc.
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("text");
    let processes = fs::read_dir("/proc").into_iter().flatten().map_while(Result::ok);
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect()
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_stopped_server_leaves_no_process_or_file_of_a_build() {
    // At several moments: while cargo starts, and while compilers run.
    for pause in [0, 50, 100, 200, 300, 450] {
        let mut live = Live::start(&[]).await;
        let token = live.token(&["builds.read", "builds.start"], "60s").await;
        let mut feed = live.open(BUILDS, &token).await.timeout(BUILD);
        assert_eq!(live.ask("POST", "/api/v1/builds", &token, "").await.0, 202);
        until(&mut feed, "started").await;
        sleep(Duration::from_millis(pause)).await;
        let (status, took) = live.interrupt().await;
        assert_eq!(status.code(), Some(0), "{}", live.stderr());
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(processes_in(live.folder.path()), [""; 0], "after {pause} ms");
        // A process that survived would still write.
        sleep(Duration::from_millis(300)).await;
        let left = fs::read_dir(live.folder.path().join("tmp")).expect("a folder");
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").path()).collect();
        assert!(left.is_empty(), "after {pause} ms: {left:?}");
    }
}

#[tokio::test]
#[ignore = "needs the live example's binary: ./tests/run builds and runs it"]
async fn a_missing_cargo_is_the_reason_of_a_failed_build() {
    let live = Live::start_with(&[], |command| {
        command.env_remove("CARGO").env("PATH", "/nowhere");
    })
    .await;
    let token = live.token(&["builds.read", "builds.start"], "60s").await;
    let mut feed = live.open(BUILDS, &token).await;
    assert_eq!(live.ask("POST", "/api/v1/builds", &token, "").await.0, 202);
    let events = until(&mut feed, "failed").await;
    let reason = events.last().expect("an end").1["reason"].as_str().expect("text").to_owned();
    assert!(reason.contains("there is no cargo") && reason.contains("PATH"), "{reason}");
}
