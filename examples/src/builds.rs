//! The build-status feed: starts real builds of a small crate and tells how they go.
//!
//! What happens is published to a topic, which keeps it: whoever comes late, even after the end, or
//! comes back, gets the story from its first line or from where it stopped.

use std::{
    error::Error,
    fmt::{self, Display},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::extract::State;
use hero_sse::prelude::*;
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};

use self::cargo::Ended;

mod cargo;

/// A build that takes longer is stuck.
const LONGEST: Duration = Duration::from_secs(120);

/// What a build reports.
#[derive(Clone, Debug, SseEvent)]
#[allow(missing_docs, reason = "the names of the fields say it")]
pub enum Build {
    /// Somebody asked for a build.
    Queued { build: u64, broken: bool },
    /// It runs.
    Started { build: u64, command: String },
    /// A part of it is done.
    Artifact { build: u64, name: String, fresh: bool },
    /// The compiler has something to say.
    Diagnostic {
        build: u64,
        level: String,
        text: String,
        rendered: String,
        file: Option<String>,
        line: Option<u64>,
    },
    /// It failed; the reader waits for the next build.
    Failed { build: u64, errors: u64, seconds: f64, reason: Option<String> },
    /// It succeeded, and there is no more to say.
    #[sse(last)]
    Finished { build: u64, warnings: u64, seconds: f64 },
}

/// How the builds go, from the first line until one succeeds, however late one comes.
#[sse_endpoint("/builds/stream", permission = "builds.read")]
pub async fn build_feed(State(builds): State<Builds>) -> Subscription<Build> {
    builds.feed().await.subscribe().from_start()
}

/// One build at a time, and the story of the last few. Clones share them.
#[derive(Clone, Debug)]
pub struct Builds {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sample: PathBuf,
    now: Mutex<Now>,
    /// Whether the program is about to end.
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct Now {
    /// Ends with the first build that succeeds; the next build begins another.
    feed: Topic<Build>,
    /// How many builds there were.
    builds: u64,
    running: Option<JoinHandle<()>>,
}

/// A feed on which nothing has happened.
fn feed() -> Topic<Build> {
    // A story is of use as long as no other has begun.
    Topic::builder("builds").retain_for(None).build()
}

async fn tell(feed: &Topic<Build>, event: Build) {
    if let Err(error) = feed.publish(event).await {
        tracing::warn!(%error, "an event of a build was not published");
    }
}

/// Why a build was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyRunning;

impl Display for AlreadyRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a build is already running")
    }
}

impl Error for AlreadyRunning {}

impl Builds {
    /// Builds of the crate in this directory.
    pub fn new(sample: impl Into<PathBuf>) -> Self {
        let now = Now { feed: feed(), builds: 0, running: None };
        let stopping = watch::Sender::new(false);
        Self { shared: Arc::new(Shared { sample: sample.into(), now: Mutex::new(now), stopping }) }
    }

    /// The feed of the build that runs now, or else ran last.
    pub async fn feed(&self) -> Topic<Build> {
        self.shared.now.lock().await.feed.clone()
    }

    /// Starts a build and gives its number; a broken one fails with a compiler error.
    ///
    /// # Errors
    ///
    /// [`AlreadyRunning`]: only one runs at a time.
    pub async fn start(&self, broken: bool) -> Result<u64, AlreadyRunning> {
        let mut now = self.shared.now.lock().await;
        if now.running.is_some() {
            return Err(AlreadyRunning);
        }
        if now.feed.is_closed() {
            now.feed = feed();
        }
        now.builds += 1;
        let (build, feed, shared) = (now.builds, now.feed.clone(), Arc::clone(&self.shared));
        tell(&feed, Build::Queued { build, broken }).await;
        now.running = Some(tokio::spawn(async move { shared.run(build, broken, &feed).await }));
        Ok(build)
    }

    /// Ends the build that runs, if any, and returns when nothing of it is left; call it before the
    /// program ends. A build that is started later is stopped at once.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let running = self.shared.now.lock().await.running.take();
        if let Some(running) = running
            && tokio::time::timeout(2 * cargo::LAST_BREATH, running).await.is_err()
        {
            tracing::warn!("a build could not be stopped in time");
        }
    }
}

impl Shared {
    async fn run(&self, build: u64, broken: bool, feed: &Topic<Build>) {
        let began = Instant::now();
        let (mut warnings, mut errors) = (0, 0);
        let mut stopping = self.stopping.subscribe();
        let stop = async {
            tokio::select! {
                () = tokio::time::sleep(LONGEST) => {}
                // It fails when nobody can ever ask: not while `self` is here.
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        };
        let (say, mut said) = mpsc::unbounded_channel();
        let run = cargo::build(&self.sample, build, broken, stop, move |event| {
            // It fails when nobody listens: not before this has ended.
            let _ = say.send(event);
        });
        let publish = async {
            while let Some(event) = said.recv().await {
                if let Build::Diagnostic { level, .. } = &event {
                    let is_error = level.starts_with("error");
                    *if is_error { &mut errors } else { &mut warnings } += 1;
                }
                tell(feed, event).await;
            }
        };
        let (ended, ()) = tokio::join!(run, publish);
        let seconds = began.elapsed().as_secs_f64();
        let failed = |reason| Build::Failed { build, errors, seconds, reason };
        let last = match ended {
            Ok(Ended::Itself { status, .. }) if status.success() => {
                Build::Finished { build, warnings, seconds }
            }
            Ok(Ended::Itself { .. }) if errors > 0 => failed(None),
            Ok(Ended::Itself { status, last_words }) => {
                failed(Some(format!("{last_words}{status}")))
            }
            Ok(Ended::Stopped) if *self.stopping.borrow() => {
                failed(Some("the server stops".to_owned()))
            }
            Ok(Ended::Stopped) => failed(Some(format!("stopped after {} s", LONGEST.as_secs()))),
            Err(error) => failed(Some(format!("cargo cannot be run: {error}"))),
        };
        // Whoever hears of the end may start the next build.
        let mut now = self.now.lock().await;
        now.running = None;
        tell(feed, last).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn builds() -> Builds {
        Builds::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sample"))
    }

    /// The story from its first line to the event that `is_it`, or else to its end.
    async fn until(builds: &Builds, is_it: impl Fn(&Build) -> bool) -> Vec<Build> {
        let mut story = builds.feed().await.subscribe().from_start();
        let mut events = Vec::new();
        let all = async {
            while let Some(event) = story.next().await {
                events.push((*event).clone());
                if is_it(&event) {
                    return;
                }
            }
        };
        tokio::time::timeout(LONGEST, all).await.expect("in time");
        events
    }

    async fn until_failed(builds: &Builds) -> Vec<Build> {
        until(builds, |event| matches!(event, Build::Failed { .. })).await
    }

    /// Why the build failed that ends these events.
    fn reason(events: &[Build]) -> &str {
        match events.last() {
            Some(Build::Failed { reason: Some(reason), .. }) => reason,
            other => panic!("not failed for a reason: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_broken_build_then_a_good_one() {
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

        // Whoever comes now gets the whole story; the next build begins another.
        assert_eq!(until(&builds, |_| false).await.len(), both.len());
        assert_eq!(builds.start(true).await, Ok(3));
        let first = until(&builds, |_| true).await;
        assert!(matches!(first[..], [Build::Queued { build: 3, .. }]));
        builds.stop().await;
    }

    #[tokio::test]
    async fn a_cargo_that_cannot_start_is_a_failed_build() {
        let builds = Builds::new("/nowhere/at/all");
        builds.start(false).await.unwrap();
        let failed = until_failed(&builds).await;
        let expected = "cargo cannot be run: the sample directory /nowhere/at/all is missing";
        assert_eq!(reason(&failed), expected);
        assert_eq!(builds.start(false).await, Ok(2), "it is over");
    }

    #[tokio::test]
    async fn a_build_is_stopped_with_the_program() {
        let builds = builds();
        builds.stop().await;
        builds.start(false).await.unwrap();
        let began = Instant::now();
        builds.stop().await;
        assert!(began.elapsed() < cargo::LAST_BREATH, "{:?}", began.elapsed());
        assert_eq!(reason(&until_failed(&builds).await), "the server stops");
    }

    #[tokio::test]
    async fn a_cargo_that_refuses_gives_its_last_words() {
        let empty = tempfile::tempdir().unwrap();
        let builds = Builds::new(empty.path());
        builds.start(false).await.unwrap();
        let failed = until_failed(&builds).await;
        assert!(reason(&failed).contains("could not find `Cargo.toml`"), "{failed:?}");
    }
}
