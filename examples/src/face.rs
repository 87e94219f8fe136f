//! The live example's command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

const HELP: &str = "\
The live example of hero-sse: a usage gauge, an audit-log tail and a build feed.

Usage: live [OPTIONS]

  --listen ADDR      address to listen on [default: 127.0.0.1:8080]; port 0 takes any free one
  --secret S         HS256 secret for tokens, at least 32 bytes [default: random at each start]
  --options FILE     settings: a TOML or JSON file with the section SseOptions
                     [default: examples/options.toml, compiled in]
  --audit-log FILE   file that every request is recorded in [default: hero-sse-audit.log]
  --help             print this

The first line on stdout is `listening on http://ADDR`; the log goes to stderr, RUST_LOG=debug
or trace makes it longer. Ctrl-C says farewell on every stream and stops.
";

/// What the command line asks for.
pub(crate) struct Face {
    pub(crate) listen: String,
    pub(crate) secret: String,
    pub(crate) options: Option<PathBuf>,
    pub(crate) audit_log: PathBuf,
}

impl Face {
    /// Reads the arguments; `None` when help was asked for and given.
    pub(crate) fn from_arguments() -> Result<Option<Self>, lexopt::Error> {
        let mut face = Self {
            listen: "127.0.0.1:8080".to_owned(),
            secret: String::new(),
            options: None,
            audit_log: PathBuf::from("hero-sse-audit.log"),
        };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("listen") => face.listen = parser.value()?.string()?,
                Arg::Long("secret") => face.secret = parser.value()?.string()?,
                Arg::Long("options") => face.options = Some(parser.value()?.into()),
                Arg::Long("audit-log") => face.audit_log = parser.value()?.into(),
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(format!("{}; see --help", other.unexpected()).into()),
            }
        }
        if face.secret.is_empty() {
            face.secret = random_secret()?;
        }
        Ok(Some(face))
    }
}

fn random_secret() -> Result<String, lexopt::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
