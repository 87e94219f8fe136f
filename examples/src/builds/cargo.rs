//! Runs cargo, and turns what it says into what the feed tells.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

/// What comes to light while cargo runs.
pub(super) enum Said {
    Started { command: String },
    Artifact { name: String, fresh: bool },
    Diagnostic(Diagnostic),
}

/// What the compiler has to say.
pub(super) struct Diagnostic {
    pub(super) level: String,
    pub(super) text: String,
    /// As a terminal would show it.
    pub(super) rendered: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u64>,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// What cargo itself said last.
    pub(super) last_words: String,
}

/// Builds the crate in the directory `sample`. Dropping the future ends cargo.
pub(super) async fn build(
    sample: &Path,
    broken: bool,
    mut said: impl FnMut(Said),
) -> io::Result<Ended> {
    // A directory of its own, so that there is something to compile each time.
    let target = tempfile::Builder::new().prefix("hero-sse-build-").tempdir()?;
    let mut arguments = vec!["build", "--message-format=json", "--offline", "--locked"];
    if broken {
        arguments.extend(["--features", "broken"]);
    }
    let mut child = cargo(sample, target.path()).args(&arguments).spawn()?;
    said(Said::Started { command: format!("cargo {}", arguments.join(" ")) });

    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both at once: a child whose full pipe nobody reads stands still.
    let (done, last_words) = tokio::join!(
        each_line(stdout, |line| {
            if let Some(what) = understand(&line) {
                said(what);
            }
        }),
        last_lines(stderr),
    );
    done?;
    Ok(Ended { status: child.wait().await?, last_words: last_words? })
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
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
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

fn understand(line: &str) -> Option<Said> {
    match serde_json::from_str(line) {
        Ok(Line::Artifact { target: Target { name }, fresh }) => {
            Some(Said::Artifact { name, fresh })
        }
        Ok(Line::Message { message: Message { level, message: text, rendered, spans } }) => {
            // Without a place in the code a warning only sums up, while an error may be a linker's.
            if spans.is_empty() && !level.starts_with("error") {
                return None;
            }
            let place = spans.into_iter().find(|span| span.is_primary);
            let (file, line) = place.map(|at| (at.file_name, at.line_start)).unzip();
            let rendered = rendered.unwrap_or_default();
            Some(Said::Diagnostic(Diagnostic { level, text, rendered, file, line }))
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
            assert!(understand(line).is_none(), "{line}");
        }
    }

    #[test]
    fn an_error_of_the_linker_has_no_place() {
        let line = r#"{"reason":"compiler-message","message":{"level":"error","message":"linking failed","rendered":"r","spans":[]}}"#;
        let Some(Said::Diagnostic(error)) = understand(line) else { panic!("{line}") };
        assert_eq!((error.text.as_str(), error.file, error.line), ("linking failed", None, None));
    }

    #[tokio::test]
    async fn of_many_lines_the_last_are_kept() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let last = last_lines(Some(text.as_bytes())).await.unwrap();
        assert_eq!(last.lines().collect::<Vec<_>>().first(), Some(&"90"));
        assert_eq!(last_lines(None::<&[u8]>).await.unwrap(), "");
    }
}
