//! The audit log: a real file with one JSON record a line, and a live tail of it.
//!
//! The file is the truth. It is read once for all who look: each line is published to a topic, where
//! a slow reader costs its place and the batch that it is being sent.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::extract::State;
use hero_sse::prelude::*;
use serde::Deserialize;
use serde::Serialize;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use self::tail::{LAST_LINES, Piece, Tail};

mod tail;

/// What a reader of the audit log is told.
///
/// The `place` of a line in the file outlives the program, which the ids of its stream do not: by it a
/// page knows again, after a restart, what it shows already.
#[derive(Clone, Debug, SseEvent)]
pub enum Audit {
    /// A line that is a record.
    #[sse(event = "audit")]
    Record {
        /// Where it stands in the file.
        place: String,
        /// What it says.
        #[serde(flatten)]
        record: Record,
    },
    /// A line that is not a record, as it stands.
    #[sse(event = "audit-raw")]
    Raw {
        /// Where it stands in the file.
        place: String,
        /// Its text.
        line: String,
    },
    /// Lines may be missing here: the file no longer holds what came next.
    #[sse(event = "audit-gap")]
    Gap {
        /// Why.
        reason: String,
    },
}

/// Live tail of the audit log: the last lines, then each that follows.
#[sse_endpoint("/audit/stream", permission = "audit.read")]
pub async fn audit_stream(State(log): State<AuditLog>) -> Subscription<Audit> {
    log.lines.subscribe().recent(LAST_LINES)
}

/// One line of the audit log: who asked for what, and the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When: RFC 3339, UTC.
    pub time: String,
    /// The method of the request.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// Who, if known.
    pub subject: Option<String>,
}

impl Record {
    /// A record of this moment. Give the path without its query, where tokens may stand.
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

/// The log file. Clones share it; with the last, nobody follows it any more, and its streams end.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    max_bytes: u64,
    // Held while writing: one line is whole before the next begins, and one writer rotates.
    turn: Arc<Mutex<()>>,
    lines: Topic<Audit>,
    /// Dropped, it ends what it holds.
    _task: Arc<JoinSet<()>>,
}

impl AuditLog {
    /// A size at which a log may well be rotated.
    pub const MAX_BYTES: u64 = 1024 * 1024;

    /// Opens the log, or begins it, and follows it in the background. Once it holds `max_bytes` it
    /// becomes `<path>.1`, in place of an earlier one, and a new file begins.
    ///
    /// # Errors
    ///
    /// The file cannot be opened for writing, or what stands there is no file.
    pub fn open(path: impl Into<PathBuf>, max_bytes: u64) -> io::Result<Self> {
        let path = path.into();
        open_to_append(&path)?;
        // Of a quiet log, too, the last lines are to be had.
        let lines = Topic::builder("audit").retain_for(None).build();
        let mut task = JoinSet::new();
        task.spawn(follow(Tail::new(path.clone()), lines.clone()));
        Ok(Self { path, max_bytes, turn: Arc::default(), lines, _task: Arc::new(task) })
    }

    /// Adds a line; it is in the file when this returns. A full disk must not stop the program: an
    /// error goes to its own log.
    pub async fn append(&self, record: &Record) {
        let log = self.clone();
        let written = match serde_json::to_string(record) {
            // A disk may keep its writer waiting, which no async thread should.
            Ok(line) => spawn_blocking(move || log.write(line)).await.map_err(io::Error::other),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written.flatten() {
            tracing::warn!(%error, path = %self.path.display(), "an audit record was not written");
        }
    }

    fn write(&self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Opened for each line: so a rotation by somebody else is followed without being told.
        let mut file = open_to_append(&self.path)?;
        if file.metadata()?.len() >= self.max_bytes {
            match std::fs::rename(&self.path, rotated(&self.path)) {
                Ok(()) => file = open_to_append(&self.path)?,
                // Better a log that is too long than a record that is missing.
                Err(error) => tracing::warn!(%error, "the audit log was not rotated"),
            }
        }
        file.write_all(line.as_bytes())
    }
}

/// Publishes the last lines, then each that is added, by whomever.
async fn follow(mut tail: Tail, lines: Topic<Audit>) {
    loop {
        let pieces;
        (pieces, tail) = match spawn_blocking(move || (tail.read(), tail)).await {
            Ok(read) => read,
            Err(error) => return tracing::warn!(%error, "the audit log is not followed any more"),
        };
        if pieces.is_empty() {
            sleep(Duration::from_millis(200)).await;
        }
        if let Err(error) = lines.publish_all(pieces.into_iter().map(Audit::from)).await {
            tracing::warn!(%error, "lines of the audit log were not published");
        }
    }
}

impl From<Piece> for Audit {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Line { place, text } => match serde_json::from_str(&text) {
                Ok(record) => Self::Record { place, record },
                Err(_) => Self::Raw { place, line: text },
            },
            Piece::Gap { reason } => Self::Gap { reason: reason.to_owned() },
        }
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    // Asked first: to open a pipe is to wait for its reader.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::other("this is no regular file"));
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// Where a full log goes, here and with logrotate.
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
        assert_eq!(taken.len(), count, "the tail of a log has no end");
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
    async fn the_last_lines_come_first_then_what_is_appended() {
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

        // After a restart each line stands where it stood.
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
    async fn a_reader_does_not_notice_that_the_log_rotates() {
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
    async fn writers_at_the_same_time_keep_their_lines_whole() {
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
    async fn a_lost_directory_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AuditLog::open(dir.path().join("none/audit.log"), 1).is_err());
        let log = AuditLog::open(dir.path().join("audit.log"), 1).unwrap();
        drop(dir);
        log.append(&record("/a")).await;
    }

    #[test]
    fn a_directory_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let error = AuditLog::open(dir.path(), 1).unwrap_err();
        assert_eq!(error.to_string(), "this is no regular file");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_is_no_log_and_nothing_waits_for_it() {
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
    async fn a_reader_is_sent_the_record_alone() {
        let record = r#""time":"t","method":"GET","path":"/","status":200,"subject":null"#;
        let line = |text: &str| Piece::Line { place: "1:2".into(), text: text.into() };
        let gap = Piece::Gap { reason: "why" };
        let events = [line(&format!("{{{record}}}")), line("so what"), gap].map(Audit::from);

        let sse = HeroSse::builder().build().unwrap();
        let opened = move || async move { stream::iter(events) };
        let app = sse.endpoint("/").public().handler(opened).unwrap();
        let request = axum::http::Request::new(axum::body::Body::empty());
        let answer = tower::ServiceExt::oneshot(app, request).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
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
