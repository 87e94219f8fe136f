//! The build-status feed: starts real builds of a small crate and tells how they go.
//!
//! What happened is kept as a log of events a build, so a reader resumes by counting: nothing is
//! sent twice, and nothing is lost while it is away.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{self, Display},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::stream;
use hero_sse::prelude::*;
use tokio::sync::watch;

use self::cargo::{Diagnostic, Ended, Said};

mod cargo;

/// How many builds are remembered.
const KEPT: usize = 10;
/// A reader that comes so soon after the end of a build most likely came to see it.
const JUST_NOW: Duration = Duration::from_secs(2);
/// A build that takes longer is stuck.
const LONGEST: Duration = Duration::from_secs(120);

/// What a build reports.
#[derive(Clone, Debug, SseEvent)]
#[allow(missing_docs, reason = "the names of the fields say it")]
pub enum Build {
    /// Somebody asked for a build.
    Queued {
        #[sse(id)]
        #[serde(skip)]
        id: String,
        build: u64,
        broken: bool,
    },
    /// It runs.
    Started {
        #[sse(id)]
        #[serde(skip)]
        id: String,
        build: u64,
        command: String,
    },
    /// A part of it is done.
    Artifact {
        #[sse(id)]
        #[serde(skip)]
        id: String,
        build: u64,
        name: String,
        fresh: bool,
    },
    /// The compiler has something to say.
    Diagnostic {
        #[sse(id)]
        #[serde(skip)]
        id: String,
        build: u64,
        level: String,
        text: String,
        rendered: String,
        file: Option<String>,
        line: Option<u64>,
    },
    /// It failed; the reader waits for the next build.
    Failed {
        #[sse(id)]
        #[serde(skip)]
        id: String,
        build: u64,
        errors: u64,
        seconds: f64,
        reason: Option<String>,
    },
    /// It succeeded, and there is no more to say.
    #[sse(last)]
    Finished {
        #[sse(id)]
        #[serde(skip)]
        id: String,
        build: u64,
        warnings: u64,
        seconds: f64,
    },
}

/// How the builds go, until one succeeds.
#[sse_endpoint("/builds/stream", permission = "builds.read")]
pub async fn build_feed(
    State(builds): State<Builds>,
    cursor: LastEventId,
) -> impl Stream<Item = Build> {
    builds.feed(cursor.as_str())
}

/// One build at a time, and the story of the last few. Clones share them.
#[derive(Clone, Debug)]
pub struct Builds {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sample: PathBuf,
    /// Tells ids of this process from those of an earlier one.
    run: String,
    logs: Mutex<BTreeMap<u64, Log>>,
    changed: watch::Sender<()>,
    /// Whether the program is about to end.
    stopping: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Build>,
    ended: Option<Instant>,
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
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self {
            shared: Arc::new(Shared {
                sample: sample.into(),
                run: format!("{run:x}"),
                logs: Mutex::default(),
                changed: watch::Sender::new(()),
                stopping: watch::Sender::new(false),
            }),
        }
    }

    /// Starts a build and gives its number; a broken one fails with a compiler error.
    ///
    /// # Errors
    ///
    /// [`AlreadyRunning`]: only one runs at a time.
    pub fn start(&self, broken: bool) -> Result<u64, AlreadyRunning> {
        let build = self.shared.begin()?;
        let shared = Arc::clone(&self.shared);
        shared.tell(build, |id| Build::Queued { id, build, broken });
        tokio::spawn(async move { shared.run(build, broken).await });
        Ok(build)
    }

    /// Ends the build that runs, if any, and returns when nothing of it is left; call it before the
    /// program ends. A build that is started later is stopped at once.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let mut changed = self.shared.changed.subscribe();
        let over = async { while self.shared.is_running() && changed.changed().await.is_ok() {} };
        if tokio::time::timeout(2 * cargo::LAST_BREATH, over).await.is_err() {
            tracing::warn!("a build could not be stopped in time");
        }
    }

    /// Follows the builds until one succeeds: from behind the event with the id `from`, or else
    /// from the beginning of the build that runs now or next.
    pub fn feed(&self, from: Option<&str>) -> impl Stream<Item = Build> + use<> {
        let shared = Arc::clone(&self.shared);
        let changed = shared.changed.subscribe();
        let place = from.and_then(|id| shared.behind(id)).unwrap_or_else(|| shared.newest());
        stream::unfold(Some((shared, changed, place)), |feed| async move {
            let (shared, mut changed, mut place) = feed?;
            loop {
                match shared.next(&mut place) {
                    Some(last @ Build::Finished { .. }) => return Some((last, None)),
                    Some(event) => return Some((event, Some((shared, changed, place)))),
                    None => changed.changed().await.ok()?,
                }
            }
        })
    }
}

/// Which event a reader gets next.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    build: u64,
    index: usize,
}

impl Shared {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<u64, Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<u64, AlreadyRunning> {
        let mut logs = self.logs();
        let build = match logs.last_key_value() {
            Some((_, log)) if log.ended.is_none() => return Err(AlreadyRunning),
            Some((build, _)) => build + 1,
            None => 1,
        };
        logs.insert(build, Log::default());
        while logs.len() > KEPT {
            logs.pop_first();
        }
        Ok(build)
    }

    fn is_running(&self) -> bool {
        self.logs().last_key_value().is_some_and(|(_, log)| log.ended.is_none())
    }

    fn tell(&self, build: u64, event: impl FnOnce(String) -> Build) {
        if let Some(log) = self.logs().get_mut(&build) {
            let event = event(format!("{}-{build}-{}", self.run, log.events.len()));
            if matches!(event, Build::Failed { .. } | Build::Finished { .. }) {
                log.ended = Some(Instant::now());
            }
            log.events.push(event);
        }
        self.changed.send_replace(());
    }

    async fn run(&self, build: u64, broken: bool) {
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
        let run = cargo::build(&self.sample, broken, stop, |said| match said {
            Said::Started { command } => {
                self.tell(build, |id| Build::Started { id, build, command })
            }
            Said::Artifact { name, fresh } => {
                self.tell(build, |id| Build::Artifact { id, build, name, fresh });
            }
            Said::Diagnostic(Diagnostic { level, text, rendered, file, line }) => {
                let is_error = level.starts_with("error");
                let count = if is_error { &mut errors } else { &mut warnings };
                *count += 1;
                self.tell(build, |id| Build::Diagnostic {
                    id,
                    build,
                    level,
                    text,
                    rendered,
                    file,
                    line,
                });
            }
        });
        let ended = run.await;
        let seconds = began.elapsed().as_secs_f64();
        let reason = match ended {
            Ok(Ended::Itself { status, .. }) if status.success() => {
                return self.tell(build, |id| Build::Finished { id, build, warnings, seconds });
            }
            Ok(Ended::Itself { .. }) if errors > 0 => None,
            Ok(Ended::Itself { status, last_words }) => Some(format!("{last_words}{status}")),
            Ok(Ended::Stopped) if *self.stopping.borrow() => Some("the server stops".to_owned()),
            Ok(Ended::Stopped) => Some(format!("stopped after {} s", LONGEST.as_secs())),
            Err(error) => Some(format!("cargo cannot be run: {error}")),
        };
        self.tell(build, |id| Build::Failed { id, build, errors, seconds, reason });
    }

    fn next(&self, place: &mut Place) -> Option<Build> {
        let logs = self.logs();
        for (&build, log) in logs.range(place.build..) {
            if build > place.build {
                *place = Place { build, index: 0 };
            }
            if let Some(event) = log.events.get(place.index) {
                place.index += 1;
                return Some(event.clone());
            }
        }
        None
    }

    /// Where a reader begins that knows nothing.
    fn newest(&self) -> Place {
        let build = match self.logs().last_key_value() {
            Some((build, log)) if log.ended.is_none_or(|at| at.elapsed() < JUST_NOW) => *build,
            Some((build, _)) => build + 1,
            None => 1,
        };
        Place { build, index: 0 }
    }

    /// Where a reader goes on that has seen the event `id`. It may be anything.
    fn behind(&self, id: &str) -> Option<Place> {
        let (build, index) = id.strip_prefix(&self.run)?.strip_prefix('-')?.split_once('-')?;
        let (build, index) = (build.parse().ok()?, index.parse::<usize>().ok()?);
        self.logs().get(&build)?.events.get(index)?;
        Some(Place { build, index: index + 1 })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn builds() -> Builds {
        Builds::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sample"))
    }

    /// A build of which nothing runs, so that a test says what happens.
    fn quiet(builds: &Builds) -> u64 {
        let build = builds.shared.begin().unwrap();
        builds.shared.tell(build, |id| Build::Queued { id, build, broken: false });
        build
    }

    fn end(builds: &Builds, build: u64, good: bool) {
        let (seconds, reason) = (0.5, None);
        builds.shared.tell(build, |id| match good {
            true => Build::Finished { id, build, warnings: 0, seconds },
            false => Build::Failed { id, build, errors: 1, seconds, reason },
        });
    }

    fn forget_when(builds: &Builds) {
        for log in builds.shared.logs().values_mut() {
            log.ended = log.ended.and_then(|at| at.checked_sub(JUST_NOW));
        }
    }

    fn id(event: &Build) -> &str {
        match event {
            Build::Queued { id, .. }
            | Build::Started { id, .. }
            | Build::Artifact { id, .. }
            | Build::Diagnostic { id, .. }
            | Build::Failed { id, .. }
            | Build::Finished { id, .. } => id,
        }
    }

    /// Why the build failed that ends these events.
    fn reason(events: &[Build]) -> &str {
        match events.last() {
            Some(Build::Failed { reason: Some(reason), .. }) => reason,
            other => panic!("not failed for a reason: {other:?}"),
        }
    }

    /// What comes without waiting.
    fn ready(feed: impl Stream<Item = Build>) -> Vec<Build> {
        let mut feed = pin!(feed);
        std::iter::from_fn(|| feed.next().now_or_never().flatten()).collect()
    }

    /// The build and the index of each event.
    fn numbers(events: &[Build]) -> Vec<&str> {
        events.iter().map(|event| id(event).split_once('-').unwrap().1).collect()
    }

    async fn until(
        feed: &mut (impl Stream<Item = Build> + Unpin),
        is_it: impl Fn(&Build) -> bool,
    ) -> Vec<Build> {
        let mut events = Vec::new();
        let all = async {
            while let Some(event) = feed.next().await {
                let done = is_it(&event);
                events.push(event);
                if done {
                    return;
                }
            }
        };
        tokio::time::timeout(LONGEST, all).await.expect("in time");
        events
    }

    #[tokio::test]
    async fn a_broken_build_then_a_good_one() {
        let builds = builds();
        let mut feed = pin!(builds.feed(None));
        assert_eq!(builds.start(true), Ok(1));
        assert_eq!(builds.start(false), Err(AlreadyRunning));

        let failed = until(&mut feed, |event| matches!(event, Build::Failed { .. })).await;
        assert!(matches!(failed[0], Build::Queued { build: 1, broken: true, .. }));
        let Build::Started { build: 1, command, .. } = &failed[1] else { panic!("{failed:?}") };
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
        let Some(Build::Failed { build: 1, errors: 1, seconds, reason: None, .. }) = failed.last()
        else {
            panic!("{failed:?}")
        };
        assert!(*seconds > 0.0);

        assert_eq!(builds.start(false), Ok(2));
        let finished = until(&mut feed, |_| false).await;
        let names = finished.iter().filter_map(|event| match event {
            Build::Artifact { name, fresh: false, .. } => Some(name.as_str()),
            _ => None,
        });
        assert_eq!(names.collect::<Vec<_>>(), ["spring", "gear", "clock"]);
        assert!(matches!(finished.last(), Some(Build::Finished { warnings: 3, .. })));
    }

    #[tokio::test]
    async fn a_cargo_that_cannot_start_is_a_failed_build() {
        let builds = Builds::new("/nowhere/at/all");
        builds.start(false).unwrap();
        let events = until(&mut pin!(builds.feed(None)), |_| true).await;
        assert_eq!(events.len(), 1);
        let mut feed = pin!(builds.feed(Some(id(&events[0]))));
        let failed = until(&mut feed, |_| true).await;
        let expected = "cargo cannot be run: the sample directory /nowhere/at/all is missing";
        assert_eq!(reason(&failed), expected);
        assert_eq!(builds.start(false), Ok(2), "it is over");
    }

    #[tokio::test]
    async fn a_build_is_stopped_with_the_program() {
        let builds = builds();
        builds.stop().await;
        let mut feed = pin!(builds.feed(None));
        builds.start(false).unwrap();
        let began = Instant::now();
        builds.stop().await;
        assert!(began.elapsed() < cargo::LAST_BREATH, "{:?}", began.elapsed());
        let events = ready(&mut feed);
        assert_eq!(reason(&events), "the server stops");
    }

    #[tokio::test]
    async fn a_cargo_that_refuses_gives_its_last_words() {
        let empty = tempfile::tempdir().unwrap();
        let builds = Builds::new(empty.path());
        builds.start(false).unwrap();
        let mut feed = pin!(builds.feed(None));
        let events = until(&mut feed, |event| matches!(event, Build::Failed { .. })).await;
        assert!(reason(&events).contains("could not find `Cargo.toml`"), "{events:?}");
    }

    #[test]
    fn a_reader_resumes_behind_its_event_and_goes_on_after_a_failure() {
        let builds = builds();
        let one = quiet(&builds);
        let seen = ready(builds.feed(None));
        end(&builds, one, false);
        let two = quiet(&builds);
        end(&builds, two, true);
        quiet(&builds);
        let events = ready(builds.feed(Some(id(&seen[0]))));
        assert_eq!(numbers(&events), ["1-1", "2-0", "2-1"], "a success ends the stream");
        let events = ready(builds.feed(Some(id(&events[2]))));
        assert_eq!(numbers(&events), ["3-0"]);
    }

    #[test]
    fn a_new_reader_sees_the_running_build_or_one_just_over() {
        let builds = builds();
        assert!(ready(builds.feed(None)).is_empty());
        let one = quiet(&builds);
        assert_eq!(numbers(&ready(builds.feed(None))), ["1-0"]);
        end(&builds, one, true);
        assert_eq!(numbers(&ready(builds.feed(None))), ["1-0", "1-1"]);

        forget_when(&builds);
        let waiting = builds.feed(None);
        let two = quiet(&builds);
        end(&builds, two, false);
        assert_eq!(numbers(&ready(waiting)), ["2-0", "2-1"]);
    }

    #[test]
    fn an_unknown_id_is_none() {
        let builds = builds();
        let one = quiet(&builds);
        end(&builds, one, true);
        forget_when(&builds);
        let run = &builds.shared.run;
        let beyond = [format!("{run}-1-2"), format!("{run}-2-0"), format!("{run}-1-{}", u128::MAX)];
        let beyond = beyond.iter().map(String::as_str);
        for id in ["", "-", "1-1-0", "\u{1F980}", run].into_iter().chain(beyond) {
            assert!(ready(builds.feed(Some(id))).is_empty(), "{id}");
        }
    }

    #[test]
    fn only_the_last_builds_are_kept() {
        let builds = builds();
        let mut first = None;
        for _ in 0..KEPT + 5 {
            let build = quiet(&builds);
            first = first.or_else(|| ready(builds.feed(None)).pop());
            end(&builds, build, false);
        }
        assert_eq!(builds.shared.logs().len(), KEPT);
        let events = ready(builds.feed(first.as_ref().map(id)));
        assert_eq!(numbers(&events), ["15-0", "15-1"], "as for a new reader");
    }
}
