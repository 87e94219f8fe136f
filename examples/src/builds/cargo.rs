//! Runs cargo, and turns its output into events.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Build;

/// How long to wait until killed processes are gone.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines of cargo's stderr that are kept for an error message.
const LAST_LINES: usize = 10;

/// How a build ended.
pub(super) enum Outcome {
    /// Cargo exited.
    Exited {
        status: ExitStatus,
        /// The last lines on its stderr.
        last_lines: String,
    },
    /// `stop` resolved first, and cargo was killed.
    Stopped,
}

/// Builds the crate in the directory `sample`, and calls `on_event` with each event. Kills cargo when `stop` resolves.
///
/// When it returns, no process and no file of the build is left. Dropping the future earlier kills cargo, but not the
/// compilers that cargo started.
pub(super) async fn build(
    sample: &Path,
    build: u64,
    broken: bool,
    stop: impl Future<Output = ()>,
    mut on_event: impl FnMut(Build),
) -> io::Result<Outcome> {
    // Checked first: the error of `spawn` does not say which path is missing.
    if !sample.is_dir() {
        return Err(io::Error::other(format!(
            "the sample directory {} is missing",
            sample.display()
        )));
    }
    // A new target directory for each build, so that there is something to compile.
    let target = tempfile::Builder::new().prefix("hero-sse-build-").tempdir()?;
    let mut arguments = vec!["build", "--message-format=json", "--offline", "--locked"];
    if broken {
        arguments.extend(["--features", "broken"]);
    }
    let mut command = cargo(sample, target.path());
    let mut child = command.args(&arguments).spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let program = command.as_std().get_program().display();
            io::Error::other(format!("there is no {program}; install Rust, or correct PATH"))
        }
        _ => error,
    })?;
    on_event(Build::Started { build, command: format!("cargo {}", arguments.join(" ")) });

    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both pipes are read at the same time: cargo blocks when one of them is full.
    let mut output = pin!(async {
        tokio::join!(
            each_line(stdout, |line| {
                if let Some(event) = parse_line(build, &line) {
                    on_event(event);
                }
            }),
            last_lines(stderr),
        )
    });
    let (events, last_lines) = tokio::select! {
        both = &mut output => both,
        () = stop => {
            kill(&mut child).await;
            // While a pipe is open, a process may still write into the directory.
            let _ = timeout(KILL_TIMEOUT, output).await;
            remove(target).await;
            return Ok(Outcome::Stopped);
        }
    };
    events?;
    Ok(Outcome::Exited { status: child.wait().await?, last_lines: last_lines? })
}

/// Kills cargo and its compilers, and waits until they are gone. The compilers are in cargo's process group, but they
/// hold none of our pipes: the group has to be polled.
async fn kill(child: &mut Child) {
    #[cfg(unix)]
    let group = child.id();
    #[cfg(unix)]
    if let Some(group) = group
        && !signal(group, "KILL").await
    {
        tracing::debug!(group, "cargo's process group was not killed");
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "cargo was not killed");
    }
    #[cfg(unix)]
    if let Some(group) = group {
        let started = Instant::now();
        while started.elapsed() < KILL_TIMEOUT / 2 && signal(group, "0").await {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a signal to a process group. Returns whether the group exists; signal `0` only checks that.
#[cfg(unix)]
async fn signal(group: u32, signal: &str) -> bool {
    // `kill` is built into every shell; the program of that name is not on every machine.
    let sent = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" -- \"-$0\" 2>/dev/null", &group.to_string(), signal])
        .stdin(Stdio::null())
        .status();
    matches!(timeout(KILL_TIMEOUT, sent).await, Ok(Ok(status)) if status.success())
}

/// Removes the directory. Tries again if an exiting compiler has just written into it.
async fn remove(target: TempDir) {
    let path = target.keep();
    let started = Instant::now();
    while let Err(error) = std::fs::remove_dir_all(&path) {
        if started.elapsed() > KILL_TIMEOUT {
            return tracing::warn!(%error, path = %path.display(), "a directory was not removed");
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn cargo(sample: &Path, target: &Path) -> Command {
    // `cargo run` sets CARGO to the cargo that runs this program.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        // Settings for the build of this program do not apply to the sample.
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO") && text != "CARGO_HOME")
            || (text.starts_with("RUST") && text.ends_with("FLAGS"))
            || text.starts_with("RUSTC")
        {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(sample)
        .env("CARGO_TARGET_DIR", target)
        // A killed linker leaves temporary files. Here they are removed with the directory.
        .env("TMPDIR", target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // A process group of its own, so that its compilers can be killed too.
    #[cfg(unix)]
    command.process_group(0);
    command
}

async fn each_line(
    from: Option<impl AsyncRead + Unpin>,
    mut on_line: impl FnMut(String),
) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        on_line(line);
    }
    Ok(())
}

async fn last_lines(from: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut last = VecDeque::new();
    each_line(from, |line| {
        last.push_back(line + "\n");
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    })
    .await?;
    Ok(last.into_iter().collect())
}

/// A message of `cargo build --message-format=json`, as far as this example needs it.
#[derive(Deserialize)]
#[serde(tag = "reason")]
enum CargoMessage {
    #[serde(rename = "compiler-artifact")]
    Artifact { target: Target, fresh: bool },
    #[serde(rename = "compiler-message")]
    Message { message: Diagnostic },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    rendered: Option<String>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    line_start: u64,
    is_primary: bool,
}

/// Turns a line on stdout into an event. Returns `None` for lines that no client needs.
fn parse_line(build: u64, line: &str) -> Option<Build> {
    match serde_json::from_str(line) {
        Ok(CargoMessage::Artifact { target: Target { name }, fresh }) => {
            Some(Build::Artifact { build, name, fresh })
        }
        Ok(CargoMessage::Message {
            message: Diagnostic { level, message: text, rendered, spans },
        }) => {
            // A warning without a position in the code is a summary. An error without one may be from the linker.
            if spans.is_empty() && !level.starts_with("error") {
                return None;
            }
            let primary = spans.into_iter().find(|span| span.is_primary);
            let (file, line) = primary.map(|at| (at.file_name, at.line_start)).unzip();
            let rendered = rendered.unwrap_or_default();
            Some(Build::Diagnostic { build, level, text, rendered, file, line })
        }
        Ok(CargoMessage::Other) => None,
        Err(error) => {
            tracing::debug!(%error, "cargo printed a line that is not JSON");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_no_client_needs_are_skipped() {
        for line in [
            "",
            "not json",
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"compiler-message","message":{"level":"warning","message":"2 warnings emitted","rendered":null,"spans":[]}}"#,
            r#"{"reason":"compiler-message","message":{"level":"failure-note","message":"m","spans":[]}}"#,
        ] {
            assert!(parse_line(1, line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_linker_error_has_no_position() {
        let line = r#"{"reason":"compiler-message","message":{"level":"error","message":"linking failed","rendered":"r","spans":[]}}"#;
        let Some(Build::Diagnostic { text, file, line, .. }) = parse_line(1, line) else {
            panic!("{line}")
        };
        assert_eq!((text.as_str(), file, line), ("linking failed", None, None));
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let last = last_lines(Some(text.as_bytes())).await.unwrap();
        assert_eq!(last.lines().collect::<Vec<_>>().first(), Some(&"90"));
        assert_eq!(last_lines(None::<&[u8]>).await.unwrap(), "");
    }
}
