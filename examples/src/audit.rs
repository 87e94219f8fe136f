//! The audit log: a file with one JSON record per line, and a live tail of it.
//!
//! The file is the source of truth. One task follows it and publishes each line to a topic. A reconnecting client resumes
//! after the last line it received; a slow one costs the topic nothing but a position.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hero_sse::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use self::tail::{Entry, LAST_LINES, Tail};

mod file;
mod tail;

/// How often the file is checked for new lines while there are none.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// An event of the audit stream.
///
/// `place` is the position of a line in its file. It survives a restart of this program, which event ids do not: by it
/// a page recognizes lines that it shows already.
#[derive(Clone, Debug, SseEvent)]
pub enum Audit {
    /// A line that is a record.
    #[sse(event = "audit")]
    Record {
        /// Position of the line in its file.
        place: String,
        /// The record.
        #[serde(flatten)]
        record: Record,
    },
    /// A line that is not a record.
    #[sse(event = "audit-raw")]
    Raw {
        /// Position of the line in its file.
        place: String,
        /// Text of the line.
        line: String,
    },
    /// Lines may be missing here: the file no longer has them.
    #[sse(event = "audit-gap")]
    Gap {
        /// The reason.
        reason: String,
    },
}

/// Live tail of the audit log: the last lines, then each new one.
#[sse_endpoint("/audit/stream", permission = "audit.read")]
pub async fn audit_stream(State(log): State<AuditLog>) -> Subscription<Audit> {
    log.lines.subscribe().recent(LAST_LINES)
}

/// Middleware that writes a record for every request, once the status of the response is known.
///
/// The server puts the [`Principal`] into the response's extensions, so the record names the caller.
pub async fn record_request(State(log): State<AuditLog>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let subject = response.extensions().get::<Principal>().map(Principal::subject);
    log.append(&Record::now(&method, &path, response.status().as_u16(), subject)).await;
    response
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Time of the response: RFC 3339, UTC.
    pub time: String,
    /// Method of the request.
    pub method: String,
    /// Path of the request.
    pub path: String,
    /// Status of the response.
    pub status: u16,
    /// Subject of the caller's token, if the request had a valid one.
    pub subject: Option<String>,
}

impl Record {
    /// Creates a record with the current time. Pass the path without its query, which may contain a token.
    pub fn now(method: &str, path: &str, status: u16, subject: Option<&str>) -> Self {
        Self {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            method: method.to_owned(),
            path: path.to_owned(),
            status,
            subject: subject.map(str::to_owned),
        }
    }
}

/// The log file. Clones share it.
///
/// Dropping the last clone stops the task that follows the file, and ends the streams.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    max_bytes: u64,
    /// Held while writing: lines never mix, and only one writer rotates.
    write_lock: Arc<Mutex<()>>,
    lines: Topic<Audit>,
    /// Aborts the task when dropped.
    _task: Arc<JoinSet<()>>,
}

impl AuditLog {
    /// A sensible size limit of the file: 1 MiB.
    pub const MAX_BYTES: u64 = 1024 * 1024;

    /// Opens or creates the log, and follows it in the background. When the file has `max_bytes`, it is renamed to
    /// `<path>.1`, which replaces an earlier one, and a new file is created.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened for writing, or if `path` is not a regular file.
    pub fn open(path: impl Into<PathBuf>, max_bytes: u64) -> io::Result<Self> {
        let path = path.into();
        open_to_append(&path)?;
        // A quiet log still has its last lines, however old they are.
        let lines = Topic::builder("audit").retain_for(None).build();
        let mut task = JoinSet::new();
        task.spawn(follow(Tail::new(path.clone()), lines.clone()));
        Ok(Self { path, max_bytes, write_lock: Arc::default(), lines, _task: Arc::new(task) })
    }

    /// Appends a record, and returns when it is in the file. An error is logged: a full disk must not stop the server.
    pub async fn append(&self, record: &Record) {
        let log = self.clone();
        let written = match serde_json::to_string(record) {
            // Writing may block on the disk, which no async thread should.
            Ok(line) => spawn_blocking(move || log.write(line)).await.map_err(io::Error::other),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written.flatten() {
            tracing::warn!(%error, path = %self.path.display(), "an audit record was not written");
        }
    }

    fn write(&self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Opened for each line, so that a rotation by another program, such as logrotate, is noticed.
        let mut file = open_to_append(&self.path)?;
        if file.metadata()?.len() >= self.max_bytes {
            match std::fs::rename(&self.path, rotated(&self.path)) {
                Ok(()) => file = open_to_append(&self.path)?,
                // A log that is too long is better than a missing record.
                Err(error) => tracing::warn!(%error, "the audit log was not rotated"),
            }
        }
        file.write_all(line.as_bytes())
    }
}

/// Publishes the last lines of the file, then each line that any program appends.
async fn follow(mut tail: Tail, lines: Topic<Audit>) {
    loop {
        let entries;
        (entries, tail) = match spawn_blocking(move || (tail.read(), tail)).await {
            Ok(read) => read,
            Err(error) => return tracing::warn!(%error, "the audit log is no longer followed"),
        };
        if entries.is_empty() {
            sleep(POLL_INTERVAL).await;
        }
        if let Err(error) = lines.publish_all(entries.into_iter().map(Audit::from)).await {
            tracing::warn!(%error, "lines of the audit log were not published");
        }
    }
}

impl From<Entry> for Audit {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Line { place, text } => match serde_json::from_str(&text) {
                Ok(record) => Self::Record { place, record },
                Err(_) => Self::Raw { place, line: text },
            },
            Entry::Gap { reason } => Self::Gap { reason: reason.to_owned() },
        }
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    // Checked first: opening a pipe blocks until a reader opens it too.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::other("not a regular file"));
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// Returns the path of the rotated file, the same that logrotate uses.
fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use hero_sse::topic::Published;

    use super::*;

    fn record(path: &str) -> Record {
        Record::now("GET", path, 200, Some("ann"))
    }

    async fn take(log: &AuditLog, count: usize) -> Vec<Published<Audit>> {
        let taken = log.lines.subscribe().recent(LAST_LINES).take(count).collect::<Vec<_>>();
        let taken = tokio::time::timeout(Duration::from_secs(10), taken).await.expect("in time");
        assert_eq!(taken.len(), count, "the stream ended early");
        taken
    }

    fn path(audit: &Audit) -> &str {
        match audit {
            Audit::Record { record, .. } => &record.path,
            other => panic!("not a record: {other:?}"),
        }
    }

    fn paths(taken: &[Published<Audit>]) -> Vec<&str> {
        taken.iter().map(|audit| path(audit)).collect()
    }

    #[tokio::test]
    async fn a_client_gets_the_last_lines_then_each_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = AuditLog::open(&path, AuditLog::MAX_BYTES).unwrap();
        for n in 0..LAST_LINES + 10 {
            log.append(&record(&format!("/{n}"))).await;
        }
        let mut before = take(&log, LAST_LINES).await;
        while paths(&before).last() != Some(&"/59") {
            before = take(&log, LAST_LINES).await;
        }
        assert_eq!(paths(&before)[0], "/10");

        let next = log.lines.subscribe().take(1).collect::<Vec<_>>();
        log.append(&record("/60")).await;
        assert_eq!(paths(&next.await), ["/60"]);

        // A restart does not change the place of a line.
        drop(log);
        let log = AuditLog::open(&path, AuditLog::MAX_BYTES).unwrap();
        let after = take(&log, LAST_LINES).await;
        assert_eq!(paths(&after)[0], "/11");
        let lines =
            |taken: &[Published<Audit>]| taken.iter().map(|l| format!("{:?}", **l)).collect();
        let (before, after): (Vec<_>, Vec<_>) = (lines(&before), lines(&after));
        assert_eq!(before[1..], after[..after.len() - 1]);
    }

    #[tokio::test]
    async fn a_rotation_neither_drops_nor_repeats_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().join("audit.log"), 8000).unwrap();
        let mut reader = log.lines.subscribe();
        let sent: Vec<_> = (0..300).map(|n| format!("/{n}")).collect();
        for path in &sent {
            log.append(&record(path)).await;
            sleep(Duration::from_millis(10)).await;
        }
        let seen: Vec<_> = reader.by_ref().take(300).collect().await;
        assert_eq!(paths(&seen), sent);
        assert!(dir.path().join("audit.log.1").exists());
        assert!(std::fs::metadata(dir.path().join("audit.log")).unwrap().len() < 4200);
    }

    #[tokio::test]
    async fn concurrent_writers_do_not_mix_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().join("audit.log"), AuditLog::MAX_BYTES).unwrap();
        let writes = (0..40).map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.append(&record(&format!("/{n}"))).await })
        });
        futures_util::future::join_all(writes).await;
        let taken = take(&log, 40).await;
        let mut paths = paths(&taken);
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), 40);
    }

    #[tokio::test]
    async fn a_missing_directory_is_an_error_at_first_and_a_warning_later() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AuditLog::open(dir.path().join("none/audit.log"), 1).is_err());
        let log = AuditLog::open(dir.path().join("audit.log"), 1).unwrap();
        drop(dir);
        log.append(&record("/a")).await;
    }

    #[test]
    fn a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = AuditLog::open(dir.path(), 1).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_is_refused_and_blocks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = AuditLog::open(&path, 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let both = async {
            log.append(&record("/a")).await;
            spawn_blocking(move || AuditLog::open(&path, 1).unwrap_err()).await.unwrap()
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("in time");
    }

    #[tokio::test]
    async fn a_line_becomes_an_event_without_a_wrapper() {
        let record = r#""time":"t","method":"GET","path":"/","status":200,"subject":null"#;
        let line = |text: &str| Entry::Line { place: "1:2".into(), text: text.into() };
        let gap = Entry::Gap { reason: "why" };
        let events = [line(&format!("{{{record}}}")), line("so what"), gap].map(Audit::from);

        let sse = HeroSse::builder().build().unwrap();
        let handler = move || async move { stream::iter(events) };
        let app = sse.endpoint("/").public().handler(handler).unwrap();
        let request = axum::http::Request::new(axum::body::Body::empty());
        let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body = str::from_utf8(&body).unwrap();

        for frame in [
            format!("event: audit\ndata: {{\"place\":\"1:2\",{record}}}\n\n").as_str(),
            "event: audit-raw\ndata: {\"place\":\"1:2\",\"line\":\"so what\"}\n\n",
            "event: audit-gap\ndata: {\"reason\":\"why\"}\n\n",
        ] {
            assert!(body.contains(frame), "{frame} is missing in {body}");
        }
    }
}
