//! Runs cargo, and turns what it says into what the feed tells.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    path::Path,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::Build;

/// How long what was killed may take to be gone.
pub(super) const LAST_BREATH: Duration = Duration::from_secs(1);

/// How it ended.
pub(super) enum Ended {
    Itself {
        status: ExitStatus,
        /// What cargo itself said last.
        last_words: String,
    },
    Stopped,
}

/// Builds the crate in the directory `sample` and says how it goes, until `stop` resolves at the latest. Nothing that it
/// started or wrote is left when it returns; dropping it earlier ends cargo alone.
pub(super) async fn build(
    sample: &Path,
    build: u64,
    broken: bool,
    stop: impl Future<Output = ()>,
    mut say: impl FnMut(Build),
) -> io::Result<Ended> {
    // The error of a start does not say what was not found.
    if !sample.is_dir() {
        return Err(io::Error::other(format!(
            "the sample directory {} is missing",
            sample.display()
        )));
    }
    // A directory of its own, so that there is something to compile each time.
    let target = tempfile::Builder::new().prefix("hero-sse-build-").tempdir()?;
    let mut arguments = vec!["build", "--message-format=json", "--offline", "--locked"];
    if broken {
        arguments.extend(["--features", "broken"]);
    }
    let mut command = cargo(sample, target.path());
    let mut child = command.args(&arguments).spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let program = command.as_std().get_program().display();
            io::Error::other(format!("there is no {program}; install Rust, or mend PATH"))
        }
        _ => error,
    })?;
    say(Build::Started { build, command: format!("cargo {}", arguments.join(" ")) });

    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both at once: a child whose full pipe nobody reads stands still.
    let mut talk = pin!(async {
        tokio::join!(
            each_line(stdout, |line| {
                if let Some(event) = understand(build, &line) {
                    say(event);
                }
            }),
            last_lines(stderr),
        )
    });
    let (done, last_words) = tokio::select! {
        all = &mut talk => all,
        () = stop => {
            kill(&mut child).await;
            // Until both pipes are closed, somebody may still be writing into the directory.
            let _ = timeout(LAST_BREATH, talk).await;
            remove(target).await;
            return Ok(Ended::Stopped);
        }
    };
    done?;
    Ok(Ended::Itself { status: child.wait().await?, last_words: last_words? })
}

/// Kills cargo and the compilers it started, and waits until they are gone: a killed compiler takes
/// a moment to die, and holds no pipe of ours that would tell.
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
        let began = Instant::now();
        while began.elapsed() < LAST_BREATH / 2 && signal(group, "0").await {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Whether the process group got the signal; `0` only asks whether there is anybody.
#[cfg(unix)]
async fn signal(group: u32, signal: &str) -> bool {
    // Every shell has a `kill` of its own; not every machine has the program.
    let sent = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" -- \"-$0\" 2>/dev/null", &group.to_string(), signal])
        .stdin(Stdio::null())
        .status();
    matches!(timeout(LAST_BREATH, sent).await, Ok(Ok(status)) if status.success())
}

/// Removes the directory, again if a dying compiler has just put something into it.
async fn remove(target: TempDir) {
    let path = target.keep();
    let began = Instant::now();
    while let Err(error) = std::fs::remove_dir_all(&path) {
        if began.elapsed() > LAST_BREATH {
            return tracing::warn!(%error, path = %path.display(), "a directory is left behind");
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn cargo(sample: &Path, target: &Path) -> Command {
    // Under `cargo run` this names the very cargo that runs us.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        // What was meant for the build of this program is not meant for that one.
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
        // A linker that is killed leaves its files behind: here they go with the rest.
        .env("TMPDIR", target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // So that the compilers it starts can be killed with it.
    #[cfg(unix)]
    command.process_group(0);
    command
}

async fn each_line(
    from: Option<impl AsyncRead + Unpin>,
    mut take: impl FnMut(String),
) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        take(line);
    }
    Ok(())
}

async fn last_lines(from: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut last = VecDeque::new();
    each_line(from, |line| {
        last.push_back(line + "\n");
        if last.len() > 10 {
            last.pop_front();
        }
    })
    .await?;
    Ok(last.into_iter().collect())
}

/// A line of cargo's, as far as it matters here.
#[derive(Deserialize)]
#[serde(tag = "reason")]
enum Line {
    #[serde(rename = "compiler-artifact")]
    Artifact { target: Target, fresh: bool },
    #[serde(rename = "compiler-message")]
    Message { message: Message },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Message {
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

fn understand(build: u64, line: &str) -> Option<Build> {
    match serde_json::from_str(line) {
        Ok(Line::Artifact { target: Target { name }, fresh }) => {
            Some(Build::Artifact { build, name, fresh })
        }
        Ok(Line::Message { message: Message { level, message: text, rendered, spans } }) => {
            // Without a place in the code a warning only sums up, while an error may be a linker's.
            if spans.is_empty() && !level.starts_with("error") {
                return None;
            }
            let place = spans.into_iter().find(|span| span.is_primary);
            let (file, line) = place.map(|at| (at.file_name, at.line_start)).unzip();
            let rendered = rendered.unwrap_or_default();
            Some(Build::Diagnostic { build, level, text, rendered, file, line })
        }
        Ok(Line::Other) => None,
        Err(error) => {
            tracing::debug!(%error, "cargo said something unknown");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_told() {
        for line in [
            "",
            "not json",
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"compiler-message","message":{"level":"warning","message":"2 warnings emitted","rendered":null,"spans":[]}}"#,
            r#"{"reason":"compiler-message","message":{"level":"failure-note","message":"m","spans":[]}}"#,
        ] {
            assert!(understand(1, line).is_none(), "{line}");
        }
    }

    #[test]
    fn an_error_of_the_linker_has_no_place() {
        let line = r#"{"reason":"compiler-message","message":{"level":"error","message":"linking failed","rendered":"r","spans":[]}}"#;
        let Some(Build::Diagnostic { text, file, line, .. }) = understand(1, line) else {
            panic!("{line}")
        };
        assert_eq!((text.as_str(), file, line), ("linking failed", None, None));
    }

    #[tokio::test]
    async fn of_many_lines_the_last_are_kept() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let last = last_lines(Some(text.as_bytes())).await.unwrap();
        assert_eq!(last.lines().collect::<Vec<_>>().first(), Some(&"90"));
        assert_eq!(last_lines(None::<&[u8]>).await.unwrap(), "");
    }
}
