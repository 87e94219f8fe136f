//! The build feed: starts real builds of a small crate, and streams their progress.
//!
//! Everything is published to a topic, which keeps it. A new client gets all events of the current build, even after its
//! end; a reconnecting client resumes. A build that succeeds is the stream's last event, after which clients stop
//! reconnecting.

use std::error::Error;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use hero_sse::prelude::*;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::cargo::Outcome;

mod cargo;

/// A build that takes longer is stopped.
const BUILD_TIMEOUT: Duration = Duration::from_secs(120);

/// An event of the build feed. Events are named after the variants: `queued`, `started` and so on.
#[derive(Clone, Debug, SseEvent)]
#[allow(missing_docs, reason = "the names of the fields say it")]
pub enum Build {
    /// A client requested a build.
    Queued { build: u64, broken: bool },
    /// Cargo runs.
    Started { build: u64, command: String },
    /// Cargo compiled a crate, or reused it (`fresh`).
    Artifact { build: u64, name: String, fresh: bool },
    /// A warning or an error of the compiler.
    Diagnostic {
        build: u64,
        level: String,
        text: String,
        rendered: String,
        file: Option<String>,
        line: Option<u64>,
    },
    /// The build failed. The stream goes on with the next build.
    Failed { build: u64, errors: u64, seconds: f64, reason: Option<String> },
    /// The build succeeded. This ends the stream.
    #[sse(last)]
    Finished { build: u64, warnings: u64, seconds: f64 },
}

/// Progress of the builds, from the first event of the current feed until a build succeeds.
#[sse_endpoint("/builds/stream", permission = "builds.read")]
pub async fn build_feed(State(builds): State<Builds>) -> Subscription<Build> {
    builds.feed().await.subscribe().from_start()
}

/// The body of `POST /api/v1/builds`. An empty body is allowed.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BuildRequest {
    broken: bool,
}

/// `POST /api/v1/builds`: starts a build. An ordinary axum handler, with the same tokens and permissions as the streams.
///
/// Every response carries the [`Principal`] as an extension, for the audit log.
///
/// # Errors
///
/// `403` without the permission `builds.start`, `400` for another body, `409` while a build runs.
pub async fn start_build(
    State(builds): State<Builds>,
    principal: Principal,
    body: Bytes,
) -> Result<impl IntoResponse, (Extension<Principal>, Refusal)> {
    let start = async {
        principal.require("builds.start")?;
        let request = if body.is_empty() {
            BuildRequest::default()
        } else {
            serde_json::from_slice(&body).map_err(|error| {
                Refusal::bad_request(format!("write {{\"broken\": false}}, or nothing: {error}"))
            })?
        };
        let started = builds.start(request.broken).await;
        started.map_err(|error| Refusal::new(StatusCode::CONFLICT, error.to_string()))
    };
    match start.await {
        Ok(build) => {
            Ok((StatusCode::ACCEPTED, Extension(principal), Json(json!({ "build": build }))))
        }
        Err(refusal) => Err((Extension(principal), refusal)),
    }
}

/// Runs one build at a time. Clones share the builds.
#[derive(Clone, Debug)]
pub struct Builds {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Directory of the crate.
    sample: PathBuf,
    current: Mutex<Current>,
    /// `true` when the program is about to exit.
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct Current {
    /// A successful build closes this topic. The next build gets a new one.
    feed: Topic<Build>,
    /// Number of the newest build.
    builds: u64,
    running: Option<JoinHandle<()>>,
}

fn new_feed() -> Topic<Build> {
    // No time limit: the events of a build are of use until the next build.
    Topic::builder("builds").retain_for(None).build()
}

async fn publish(feed: &Topic<Build>, event: Build) {
    if let Err(error) = feed.publish(event).await {
        tracing::warn!(%error, "an event of a build was not published");
    }
}

/// The error of [`Builds::start`] while a build runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyRunning;

impl Display for AlreadyRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a build is running already")
    }
}

impl Error for AlreadyRunning {}

impl Builds {
    /// Creates a runner for the crate in this directory.
    pub fn new(sample: impl Into<PathBuf>) -> Self {
        let current = Mutex::new(Current { feed: new_feed(), builds: 0, running: None });
        let stopping = watch::Sender::new(false);
        Self { inner: Arc::new(Inner { sample: sample.into(), current, stopping }) }
    }

    /// Returns the feed of the current build, or of the last one if none runs.
    pub async fn feed(&self) -> Topic<Build> {
        self.inner.current.lock().await.feed.clone()
    }

    /// Starts a build and returns its number. A broken build fails with a compiler error.
    ///
    /// # Errors
    ///
    /// Returns [`AlreadyRunning`] while another build runs.
    pub async fn start(&self, broken: bool) -> Result<u64, AlreadyRunning> {
        let mut current = self.inner.current.lock().await;
        if current.running.is_some() {
            return Err(AlreadyRunning);
        }
        if current.feed.is_closed() {
            current.feed = new_feed();
        }
        current.builds += 1;
        let (build, feed, inner) = (current.builds, current.feed.clone(), Arc::clone(&self.inner));
        publish(&feed, Build::Queued { build, broken }).await;
        current.running = Some(tokio::spawn(async move { inner.run(build, broken, &feed).await }));
        Ok(build)
    }

    /// Stops the running build, and returns when its processes and files are gone. Call it before the program exits.
    /// Builds that start later are stopped at once.
    pub async fn stop(&self) {
        self.inner.stopping.send_replace(true);
        let running = self.inner.current.lock().await.running.take();
        if let Some(running) = running
            && timeout(2 * cargo::KILL_TIMEOUT, running).await.is_err()
        {
            tracing::warn!("a build could not be stopped in time");
        }
    }
}

impl Inner {
    async fn run(&self, build: u64, broken: bool, feed: &Topic<Build>) {
        let started = Instant::now();
        let (mut warnings, mut errors) = (0, 0);
        let mut stopping = self.stopping.subscribe();
        let stop = async {
            tokio::select! {
                () = sleep(BUILD_TIMEOUT) => {}
                // Fails only if the sender is dropped, and `self` owns it.
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        };
        // Cargo's output is read in a callback, which cannot await: a channel carries it to `publish`.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let run = cargo::build(&self.sample, build, broken, stop, move |event| {
            // Fails only if the receiver is dropped, and `forward` owns it until `run` ends.
            let _ = sender.send(event);
        });
        let forward = async {
            while let Some(event) = receiver.recv().await {
                if let Build::Diagnostic { level, .. } = &event {
                    let is_error = level.starts_with("error");
                    *if is_error { &mut errors } else { &mut warnings } += 1;
                }
                publish(feed, event).await;
            }
        };
        let (outcome, ()) = tokio::join!(run, forward);
        let seconds = started.elapsed().as_secs_f64();
        let failed = |reason| Build::Failed { build, errors, seconds, reason };
        let last = match outcome {
            Ok(Outcome::Exited { status, .. }) if status.success() => {
                Build::Finished { build, warnings, seconds }
            }
            Ok(Outcome::Exited { .. }) if errors > 0 => failed(None),
            Ok(Outcome::Exited { status, last_lines }) => {
                failed(Some(format!("{last_lines}{status}")))
            }
            Ok(Outcome::Stopped) if *self.stopping.borrow() => {
                failed(Some("the server is shutting down".to_owned()))
            }
            Ok(Outcome::Stopped) => {
                failed(Some(format!("stopped after {} s", BUILD_TIMEOUT.as_secs())))
            }
            Err(error) => failed(Some(format!("cargo cannot run: {error}"))),
        };
        // First make room for the next build: a client that receives the last event may start one at once.
        let mut current = self.current.lock().await;
        current.running = None;
        publish(feed, last).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn builds() -> Builds {
        Builds::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sample"))
    }

    /// Returns all events up to the one that `matches`, or up to the end of the feed.
    async fn until(builds: &Builds, matches: impl Fn(&Build) -> bool) -> Vec<Build> {
        let mut feed = builds.feed().await.subscribe().from_start();
        let mut events = Vec::new();
        let all = async {
            while let Some(event) = feed.next().await {
                events.push((*event).clone());
                if matches(&event) {
                    return;
                }
            }
        };
        timeout(BUILD_TIMEOUT, all).await.expect("in time");
        events
    }

    async fn until_failed(builds: &Builds) -> Vec<Build> {
        until(builds, |event| matches!(event, Build::Failed { .. })).await
    }

    /// Returns the reason in the last event, which is a failure.
    fn reason(events: &[Build]) -> &str {
        match events.last() {
            Some(Build::Failed { reason: Some(reason), .. }) => reason,
            other => panic!("no failure with a reason: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_broken_build_fails_and_the_next_one_succeeds() {
        let builds = builds();
        assert_eq!(builds.start(true).await, Ok(1));
        assert_eq!(builds.start(false).await, Err(AlreadyRunning));

        let failed = until_failed(&builds).await;
        assert!(matches!(failed[0], Build::Queued { build: 1, broken: true }));
        let Build::Started { build: 1, command } = &failed[1] else { panic!("{failed:?}") };
        let expected = "cargo build --message-format=json --offline --locked --features broken";
        assert_eq!(command, expected);
        let error = failed.iter().find_map(|event| match event {
            Build::Diagnostic { level, text, rendered, file, line, .. } if level == "error" => {
                Some((text.as_str(), rendered, file.as_deref(), line))
            }
            _ => None,
        });
        let (text, rendered, file, line) = error.expect("a compiler error");
        assert_eq!((text, file), ("mismatched types", Some("clock/src/main.rs")));
        assert!(line.is_some_and(|line| line > 10));
        assert!(rendered.starts_with("error[E0308]"), "{rendered}");
        let Some(Build::Failed { build: 1, errors: 1, seconds, reason: None }) = failed.last()
        else {
            panic!("{failed:?}")
        };
        assert!(*seconds > 0.0);

        assert_eq!(builds.start(false).await, Ok(2));
        let both = until(&builds, |_| false).await;
        assert!(matches!(both.last(), Some(Build::Finished { build: 2, warnings: 3, .. })));
        let names = both.iter().filter_map(|event| match event {
            Build::Artifact { build: 2, name, fresh: false } => Some(name.as_str()),
            _ => None,
        });
        assert_eq!(names.collect::<Vec<_>>(), ["spring", "gear", "clock"]);

        // A new client gets all events, and the next build starts a new feed.
        assert_eq!(until(&builds, |_| false).await.len(), both.len());
        assert_eq!(builds.start(true).await, Ok(3));
        let first = until(&builds, |_| true).await;
        assert!(matches!(first[..], [Build::Queued { build: 3, .. }]));
        builds.stop().await;
    }

    #[tokio::test]
    async fn a_missing_sample_is_a_failed_build() {
        let builds = Builds::new("/nowhere/at/all");
        builds.start(false).await.unwrap();
        let failed = until_failed(&builds).await;
        let expected = "cargo cannot run: the sample directory /nowhere/at/all is missing";
        assert_eq!(reason(&failed), expected);
        assert_eq!(builds.start(false).await, Ok(2), "the first build has ended");
    }

    #[tokio::test]
    async fn stopping_the_program_stops_the_build() {
        let builds = builds();
        builds.stop().await;
        builds.start(false).await.unwrap();
        let started = Instant::now();
        builds.stop().await;
        assert!(started.elapsed() < cargo::KILL_TIMEOUT, "{:?}", started.elapsed());
        assert_eq!(reason(&until_failed(&builds).await), "the server is shutting down");
    }

    #[tokio::test]
    async fn a_failure_before_compiling_has_the_last_lines_of_cargo_as_its_reason() {
        let empty = tempfile::tempdir().unwrap();
        let builds = Builds::new(empty.path());
        builds.start(false).await.unwrap();
        let failed = until_failed(&builds).await;
        assert!(reason(&failed).contains("could not find `Cargo.toml`"), "{failed:?}");
    }
}
