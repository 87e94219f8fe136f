//! The audit log: a real file with one JSON record a line, and a live tail of it.
//!
//! The file is the truth. Whoever follows it resumes by position, so nothing has to be kept in
//! memory for a reader that may come back, and a restart of the program loses no reader's place.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use hero_sse::prelude::*;
use serde::Deserialize;
use tokio::{task::spawn_blocking, time::sleep};

use self::tail::{Piece, Tail};

mod tail;

/// What a reader of the audit log is told. Its id is the position to resume from.
#[derive(Clone, Debug, SseEvent)]
pub enum Audit {
    /// A line that is a record.
    #[sse(event = "audit")]
    Record {
        /// Where the next line begins.
        #[sse(id)]
        #[serde(skip)]
        position: String,
        /// What it says.
        #[serde(flatten)]
        record: Record,
    },
    /// A line that is not a record, as it stands.
    #[sse(event = "audit-raw")]
    Raw {
        /// Where the next line begins.
        #[sse(id)]
        #[serde(skip)]
        position: String,
        /// Its text.
        line: String,
    },
    /// Lines may be missing here: the file no longer holds what came next.
    #[sse(event = "audit-gap")]
    Gap {
        /// Where the next line begins.
        #[sse(id)]
        #[serde(skip)]
        position: String,
        /// Why.
        reason: String,
    },
}

/// Live tail of the audit log.
#[sse_endpoint("/audit/stream", permission = "audit.read")]
pub async fn audit_stream(
    State(log): State<AuditLog>,
    cursor: LastEventId,
) -> impl Stream<Item = Audit> {
    log.tail(cursor.as_str())
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

/// The log file. Clones share it.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    max_bytes: u64,
    // Held while writing: one line is whole before the next begins, and one writer rotates.
    turn: Arc<Mutex<()>>,
}

impl AuditLog {
    /// A size at which a log may well be rotated.
    pub const MAX_BYTES: u64 = 1024 * 1024;

    /// Opens the log, or begins it. Once it holds `max_bytes` it becomes `<path>.1`, in place of an
    /// earlier one, and a new file begins.
    ///
    /// # Errors
    ///
    /// The file cannot be opened for writing, or what stands there is no file.
    pub fn open(path: impl Into<PathBuf>, max_bytes: u64) -> io::Result<Self> {
        let path = path.into();
        open_to_append(&path)?;
        Ok(Self { path, max_bytes, turn: Arc::default() })
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

    /// Follows the log: from behind the position `from`, or else from the last few lines on. Each
    /// reader reads for itself, which is fine for some dozens.
    pub fn tail(&self, from: Option<&str>) -> impl Stream<Item = Audit> + use<> {
        stream::unfold(Tail::new(self.path.clone(), from), |mut tail| async move {
            let read = spawn_blocking(move || (tail.read(), tail)).await;
            let (pieces, tail) = read.inspect_err(|error| tracing::warn!(%error, "tail")).ok()?;
            if pieces.is_empty() {
                sleep(Duration::from_millis(200)).await;
            }
            Some((stream::iter(pieces.into_iter().map(Audit::from)), tail))
        })
        .flatten()
    }
}

impl From<Piece> for Audit {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Line { position, text } => match serde_json::from_str(&text) {
                Ok(record) => Self::Record { position, record },
                Err(_) => Self::Raw { position, line: text },
            },
            Piece::Gap { position, reason } => Self::Gap { position, reason: reason.to_owned() },
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
    use std::pin::pin;

    use super::*;

    fn record(path: &str) -> Record {
        Record::now("GET", path, 200, Some("ann"))
    }

    async fn take(stream: &mut (impl Stream<Item = Audit> + Unpin), count: usize) -> Vec<Audit> {
        let taken = stream.take(count).collect::<Vec<_>>();
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

    fn paths(taken: &[Audit]) -> Vec<&str> {
        taken.iter().map(path).collect()
    }

    #[tokio::test]
    async fn what_is_appended_is_followed_and_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().join("audit.log"), AuditLog::MAX_BYTES).unwrap();
        for path in ["/a", "/b", "/c"] {
            log.append(&record(path)).await;
        }
        let mut tail = pin!(log.tail(None));
        let taken = take(&mut tail, 3).await;
        assert_eq!(paths(&taken), ["/a", "/b", "/c"]);

        log.append(&record("/d")).await;
        assert_eq!(paths(&take(&mut tail, 1).await), ["/d"]);

        let Some(Audit::Record { position, .. }) = taken.get(1) else { panic!() };
        let taken = take(&mut pin!(log.tail(Some(position))), 2).await;
        assert_eq!(paths(&taken), ["/c", "/d"]);
    }

    #[tokio::test]
    async fn a_reader_does_not_notice_that_the_log_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path().join("audit.log"), 8000).unwrap();
        let reader = tokio::spawn({
            let tail = log.tail(None);
            async move { take(&mut pin!(tail), 300).await }
        });
        let sent: Vec<_> = (0..300).map(|n| format!("/{n}")).collect();
        for path in &sent {
            log.append(&record(path)).await;
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(paths(&reader.await.unwrap()), sent);
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
        let taken = take(&mut pin!(log.tail(None)), 40).await;
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
        let record = r#"{"time":"t","method":"GET","path":"/","status":200,"subject":null}"#;
        let line = |text: &str| Piece::Line { position: "1:2".into(), text: text.into() };
        let gap = Piece::Gap { position: "1:0".into(), reason: "why" };
        let events = [line(record), line("so what"), gap].map(Audit::from);

        let sse = HeroSse::builder().build().unwrap();
        let opened = move || async move { stream::iter(events) };
        let app = sse.endpoint("/").public().handler(opened).unwrap();
        let request = axum::http::Request::new(axum::body::Body::empty());
        let answer = tower::ServiceExt::oneshot(app, request).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        let body = str::from_utf8(&body).unwrap();

        for frame in [
            format!("event: audit\nid: 1:2\ndata: {record}\n\n").as_str(),
            "event: audit-raw\nid: 1:2\ndata: {\"line\":\"so what\"}\n\n",
            "event: audit-gap\nid: 1:0\ndata: {\"reason\":\"why\"}\n\n",
        ] {
            assert!(body.contains(frame), "{frame} is missing in {body}");
        }
    }
}
