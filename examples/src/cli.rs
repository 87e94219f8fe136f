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

/// RFC 7518, section 3.2: a key at least as long as the hash.
const SHORTEST_SECRET: usize = 32;

/// What the command line asks for.
pub(crate) struct Cli {
    pub(crate) listen: String,
    pub(crate) secret: String,
    pub(crate) options: Option<PathBuf>,
    pub(crate) audit_log: PathBuf,
}

impl Cli {
    /// Reads the arguments; `None` when help was asked for and given.
    pub(crate) fn from_arguments() -> Result<Option<Self>, lexopt::Error> {
        let mut listen = "127.0.0.1:8080".to_owned();
        let (mut secret, mut options) = (None, None);
        let mut audit_log = PathBuf::from("hero-sse-audit.log");
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("listen") => listen = parser.value()?.string()?,
                Arg::Long("secret") => secret = Some(parser.value()?.string()?),
                Arg::Long("options") => options = Some(parser.value()?.into()),
                Arg::Long("audit-log") => audit_log = parser.value()?.into(),
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(format!("{}; see --help", other.unexpected()).into()),
            }
        }
        let secret = match secret {
            Some(secret) if secret.len() < SHORTEST_SECRET => {
                return Err(format!(
                    "--secret: {} bytes, but HS256 needs at least {SHORTEST_SECRET}; give a longer \
                     one, or leave --secret out for a random one",
                    secret.len()
                )
                .into());
            }
            Some(secret) => secret,
            None => random_secret()?,
        };
        Ok(Some(Self { listen, secret, options, audit_log }))
    }
}

fn random_secret() -> Result<String, lexopt::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
