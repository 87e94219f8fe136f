//! The command line of the live example.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

const HELP: &str = "\
The live example of hero-sse: a usage gauge, an audit log and a build feed, with
a page that shows them.

Usage: live [OPTIONS]

  --listen ADDR     address to listen on; port 0 takes any free port
                    [default: 127.0.0.1:8080]
  --secret S        HS256 secret for tokens, at least 32 bytes [default: random;
                    a restart makes old tokens invalid, and the page signs in
                    again by itself]
  --options FILE    settings: a TOML or JSON file with the section SseOptions
                    [default: examples/options.toml, compiled in]
  --audit-log FILE  file that records every request
                    [default: hero-sse-audit.log]
  --help            print this help

The first line on stdout is `listening on http://ADDR`. The log goes to stderr;
RUST_LOG=debug or trace shows more. Ctrl-C sends a closing event on every
stream, then stops the program.
";

/// RFC 7518, section 3.2: the key must be at least as long as the hash.
const MIN_SECRET_BYTES: usize = 32;

/// The arguments of the program.
pub(crate) struct Cli {
    pub(crate) listen: String,
    pub(crate) secret: String,
    pub(crate) options: Option<PathBuf>,
    pub(crate) audit_log: PathBuf,
}

impl Cli {
    /// Reads the arguments. Returns `None` after printing the help.
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
            Some(secret) if secret.len() < MIN_SECRET_BYTES => {
                return Err(format!(
                    "--secret: {} bytes, but HS256 needs at least {MIN_SECRET_BYTES}; give a longer \
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

/// The secret is not stored on disk. Every client of this demo can request a token, so a new secret costs it one request.
fn random_secret() -> Result<String, lexopt::Error> {
    let mut bytes = [0; MIN_SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
