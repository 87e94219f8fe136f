//! What an operator writes, the default of every setting with its reason, and the way from there
//! to the [`Policy`] of one endpoint.

mod code;
mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use self::keys::{Key, Scope, Set};
pub use crate::client_addr::ForwardedHeader;
use crate::client_addr::TrustedProxies;
pub use crate::cors::Cors;
use crate::origin::{Host, Listed, Origin};
pub use crate::policy::{OverLimit, Overflow, TokenSource, parse_duration};
use crate::policy::{Policy, PolicyOverrides, TokenSources, fault_of_count, fault_of_time};
use crate::telemetry;

const SECTION: &str = "SseOptions";
const ENDPOINTS: &str = "Endpoints";
const VARIABLE_PREFIX: &str = "HERO_SSE_";

/// What is wrong with sources that name the cookie, where no cookie is named.
pub(crate) const NO_COOKIE: &str =
    "a token may stand in a cookie, but none is named: write TokenCookie, or leave out \"cookie\"";

/// The kit's settings.
///
/// They come from code, from the section `SseOptions` of a TOML or JSON file, and from environment
/// variables named `HERO_SSE_` and the key in capitals (`HERO_SSE_WRITE_TIMEOUT`), key by key the
/// later winning over the earlier. What an endpoint declares for itself wins over all of these, and
/// the operator's table for that endpoint (`Endpoints."/path"`) over everything. Variables cannot set
/// `Endpoints`; one that looks like a slip of a key is an error, another unknown one a warning.
///
/// ```
/// let options = hero_sse::SseOptions::from_toml(
///     r#"
///     [SseOptions]
///     WriteTimeout = "00:00:05"
///     HeartbeatInterval = "15s"
///
///     [SseOptions.Endpoints."/api/v1/usage/stream"]
///     HeartbeatInterval = "5s"
///     "#,
/// )?;
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
///
/// | key | default | also per endpoint | what it bounds, and why that default |
/// |---|---|---|---|
/// | `Enabled` | `true` | | `false` makes mapping an endpoint an error, so a program that can do without streams asks its own configuration first |
/// | `HeartbeatInterval` | 15 s | yes | silence between writes; proxies cut idle connections after 30 to 60 s |
/// | `HeartbeatEvent` | `false` | yes | adds the event `hero.heartbeat`, which a page can watch for: a browser has no read timeout and shows no comments |
/// | `WriteTimeout` | 5 s | yes | one write without progress; longer than any healthy hiccup, short enough to bound what a stalled client holds |
/// | `PeerTimeout` | 60 s | | bytes unacknowledged, or a window kept shut, while a stream is live; shorter would cut clients in a tunnel, which never learn of it |
/// | `Retry` | 3 s | yes | reconnection time, spread to 1.5 times; the browsers' own. At least 500 ms |
/// | `MaxAge` | 30 min for a topic's subscription, else off | yes | a stream's life, cut up to a fifth earlier: a proxy may keep the stream of a dead browser for ever. A subscription resumes where it was cut; a private stream's work is done again, so it is cut only if this is set |
/// | `ReauthorizeInterval` | off | yes | how often an open stream's caller is looked at again, each time after four fifths of it or more; needs an [`Authorizer`](crate::auth::Authorizer), which it costs one question a stream. Off since without one nothing could change, and [`disconnect`](crate::connections::Connections::disconnect) is at once |
/// | `AuthorizerTimeout` | 5 s | | how long an [`Authorizer`](crate::auth::Authorizer) may take; then nobody knows, and the caller is refused. As long as a browser's user waits |
/// | `MaxConnections` | 10000 | yes, no limit by default | open streams; `serve` raises the soft limit of open files to fit, or warns |
/// | `MaxPerPrincipal` | 8 | yes | open streams of one subject (of one issuer) over all endpoints; an endpoint's own value is compared with that total. Callers without a token are not counted |
/// | `MaxPerAddress` | off | yes | open streams of one address over all endpoints, those of an IPv6 network of 64 bits as one; off since behind a proxy or a company's router many share one: set `TrustedProxies` first. An endpoint's own value is compared with the same total. Sockets without an address are not counted |
/// | `ConnectsPerMinute` | 300 | | attempts of one subject (of one issuer) to open a stream, over all endpoints, that many at once and a minute: eight tabs that come back every 3 s make 160; more for a subject that holds many streams, such as a service. Callers without a token are not counted: `MaxPerAddress` is for them |
/// | `FailedAttemptsPerMinute` | 60 | | tokens and tickets of one address (an IPv6 network of 64 bits) that are not accepted, that many at once and a minute: a page whose token has expired makes one, and guessing gets nowhere at that pace. Whoever is over it is turned away before a token is looked at, and so is everybody at that address, good tokens included, until there is room again: at the default within a second. Sockets without an address are not counted. Without `TrustedProxies` a client in a private network that sends the header of a proxy is not limited, since it may be one; the log says so once |
/// | `TrustedProxies` | none | | networks (`["10.0.0.0/8", "127.0.0.1"]`; in a variable with commas) of your own proxies. From them, and from nobody else, a header is read that says whose request it is |
/// | `ForwardedHeader` | `"x-forwarded-for"` | | that header; or `"forwarded"` (RFC 7239). Every trusted proxy must set it: what it leaves there is believed |
/// | `OverLimit` | `"retry"` | yes | `"retry"` or `"refuse"`; a browser never returns from a refusal |
/// | `TokenSources` | `["header", "cookie", "query"]` | yes | where a token may stand, looked at in this order: `Authorization`, the cookie that `TokenCookie` names, `?access_token=`, since an `EventSource` cannot send headers. A token elsewhere is as none; a `POST` never has one in its query. An endpoint's declaration can only leave some out |
/// | `TokenCookie` | none | | the cookie that holds a token, such as `"__Host-session"`; none since a browser sends it whoever asks it to. A token that came by cookie alone counts only in requests of the site's own pages and of those that `CorsCredentials` lets in |
/// | `PublicOrigins` | none: the host that a request asks for | | origins of the application's own pages as browsers see them, such as `["https://app.example.com"]`; needed for cookies behind a proxy that ends TLS or asks for another host |
/// | `AllowedHosts` | any | | the hosts that endpoints answer to (`"app.example.com"`, any port; `"localhost:8080"`, this one), against pages whose name was made to lead here; off since balancers ask by address |
/// | `CorsOrigins` | none | | pages of other origins that may open endpoints, such as `["https://pages.example.net"]`; no `*`. Off: browsers let no other origin read |
/// | `CorsCredentials` | `false` | | whether their browsers send cookies along: they then act for the caller as the site's own pages do |
/// | `RedactQuery` | `true` | | takes `access_token` and `ticket` out of the URI of every request under `serve`, `guard` and the [layer](crate::HeroSse::redact_layer), since URIs end up in logs. An application with a parameter of that name of its own reads it by [`QueryToken`](crate::server::QueryToken), or switches this off |
/// | `Buffer` | none; 256 where `Overflow` is set | yes | frames that wait for a slow client; without either key a stream is held back to its client's pace. Bounds the burst a stream may have at once; whatever it is, no more than 1 MiB and one frame wait. For a topic's subscription how many events it may be behind, else three quarters of what the topic keeps |
/// | `Overflow` | none; `"disconnect"` where `Buffer` is set | yes | `"disconnect"`, `"drop_oldest"` or `"latest"`; the first since it alone leaves no hole |
/// | `DrainJitter` | 5 s | yes | clients of a drain are told to come back at different times in [`Retry`, `Retry` + this]: ten thousand make 2,000 a second, and nobody is away for long. `"off"`: spread as other farewells are |
/// | `DrainDelay` | off | | time between [not being ready](crate::server::Readiness) and the end of accepting, for balancers to notice; a bit more than they take to ask twice |
/// | `DrainTimeout` | 5 s | | how long shutdown waits for farewells to be sent |
///
/// Durations are `"15s"`, `"500ms"`, `"2m"`, `"1h"`, `"00:00:05"` (hh:mm:ss) or `"off"`.
#[derive(Clone, Debug)]
pub struct SseOptions {
    pub(crate) enabled: bool,
    pub(crate) peer_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) drain_delay: Option<Duration>,
    pub(crate) authorizer_timeout: Option<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) connects_per_minute: Option<usize>,
    pub(crate) failed_attempts_per_minute: Option<usize>,
    pub(crate) proxies: TrustedProxies,
    /// What code gave that is no network.
    no_networks: Vec<String>,
    pub(crate) token_cookie: Option<String>,
    pub(crate) public_origins: Listed<Origin>,
    pub(crate) allowed_hosts: Listed<Host>,
    pub(crate) cors: Cors,
    pub(crate) redact_query: bool,
    general: PolicyOverrides,
    endpoints: BTreeMap<String, PolicyOverrides>,
}

impl Default for SseOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            peer_timeout: Some(Duration::from_secs(60)),
            drain_timeout: Some(Duration::from_secs(5)),
            drain_delay: None,
            authorizer_timeout: Some(Duration::from_secs(5)),
            max_connections: 10_000,
            connects_per_minute: Some(300),
            failed_attempts_per_minute: Some(60),
            proxies: TrustedProxies::NONE,
            no_networks: Vec::new(),
            token_cookie: None,
            public_origins: Listed::NONE,
            allowed_hosts: Listed::NONE,
            cors: Cors::OFF,
            redact_query: true,
            general: PolicyOverrides::NONE,
            endpoints: BTreeMap::new(),
        }
    }
}

fn default_policy() -> Policy {
    Policy {
        heartbeat: Some(Duration::from_secs(15)),
        heartbeat_event: false,
        write_timeout: Some(Duration::from_secs(5)),
        retry: Duration::from_secs(3),
        max_age: None,
        reauthorize: None,
        max_connections: None,
        max_per_principal: 8,
        max_per_address: None,
        over_limit: OverLimit::Retry,
        token_sources: TokenSources::ALL,
        buffer: None,
        overflow: None,
        drain_jitter: Some(Duration::from_secs(5)),
    }
}

impl SseOptions {
    /// Reads the section `SseOptions` of a TOML text.
    ///
    /// # Errors
    ///
    /// Every mistake in it, each with its key and the accepted forms.
    pub fn from_toml(text: &str) -> Result<Self, SetupErrors> {
        Self::from_document(toml(text), "options")
    }

    /// Reads the section `SseOptions` of a JSON text.
    ///
    /// # Errors
    ///
    /// As [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self, SetupErrors> {
        Self::from_document(json(text), "options")
    }

    /// Reads the section `SseOptions` of a file: JSON where its name ends in `.json`, else TOML. A
    /// file without the section leaves every default in place.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and as [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SetupErrors> {
        let (mut options, mut mistakes) = (Self::default(), Vec::new());
        options.read_file(path.as_ref(), &mut mistakes);
        SetupErrors::none_or(mistakes).map(|()| options)
    }

    fn from_document(document: Result<Value, String>, source: &str) -> Result<Self, SetupErrors> {
        let (mut options, mut mistakes) = (Self::default(), Vec::new());
        options.read_document(document, source, &mut mistakes);
        SetupErrors::none_or(mistakes).map(|()| options)
    }

    /// Takes over what a file sets.
    pub(crate) fn read_file(&mut self, path: &Path, mistakes: &mut Vec<String>) {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Err(error) => mistakes.push(format!("options file {name}: {error}")),
            Ok(text) if path.extension().is_some_and(|extension| extension == "json") => {
                self.read_document(json(&text), &name, mistakes);
            }
            Ok(text) => self.read_document(toml(&text), &name, mistakes),
        }
    }

    fn read_document(
        &mut self,
        document: Result<Value, String>,
        source: &str,
        mistakes: &mut Vec<String>,
    ) {
        let mut found = Vec::new();
        match document {
            Ok(Value::Object(document)) => match document.get(SECTION) {
                Some(section) => self.read_section(section, &mut found),
                None => {
                    let alike = document.keys().find(|key| key.eq_ignore_ascii_case(SECTION));
                    found.extend(alike.map(|key| format!("[{key}]: spell it [{SECTION}]")));
                }
            },
            Ok(_) => found.push(format!("expected a table with the section {SECTION}")),
            Err(error) => found.push(error),
        }
        mistakes.extend(found.iter().map(|mistake| format!("{source}: {mistake}")));
    }

    fn read_section(&mut self, section: &Value, mistakes: &mut Vec<String>) {
        let Value::Object(section) = section else {
            mistakes.push(format!("{SECTION}: expected a table of settings"));
            return;
        };
        for (name, value) in section {
            if name != ENDPOINTS {
                let result = match Key::find(name, Scope::Server) {
                    Ok(Key { set: Set::Server(set), .. }) => set(self, value),
                    Ok(Key { set: Set::Policy(set), .. }) => set(&mut self.general, value),
                    Err(unknown) => Err(unknown),
                };
                mistakes.extend(result.err().map(|error| format!("{SECTION}.{name}: {error}")));
                continue;
            }
            let Value::Object(tables) = value else {
                mistakes.push(format!("{SECTION}.{ENDPOINTS}: expected a table for each path"));
                continue;
            };
            for (path, table) in tables {
                self.read_endpoint(path, table, mistakes);
            }
        }
    }

    fn read_endpoint(&mut self, path: &str, table: &Value, mistakes: &mut Vec<String>) {
        let place = format!("{SECTION}.{ENDPOINTS}.{path:?}");
        let Value::Object(table) = table else {
            mistakes.push(format!("{place}: expected a table of settings"));
            return;
        };
        if !path.starts_with('/') {
            mistakes.push(format!("{place}: a path begins with `/`"));
        }
        let over = self.endpoints.entry(path.to_owned()).or_insert(PolicyOverrides::NONE);
        for (name, value) in table {
            let result = match Key::find(name, Scope::Endpoint) {
                Ok(Key { set: Set::Policy(set), .. }) => set(over, value),
                Ok(_) => Err("can only be set for the whole server".to_owned()),
                Err(unknown) => Err(unknown),
            };
            mistakes.extend(result.err().map(|error| format!("{place}.{name}: {error}")));
        }
    }

    /// Takes the `HERO_SSE_*` variables out of `variables`; the others are not ours.
    pub(crate) fn read_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
        mistakes: &mut Vec<String>,
    ) {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else {
                continue;
            };
            let name = pascal_case(rest);
            // A variable is always text, so numbers and truth values are read out of it.
            let value = serde_json::from_str(&text)
                .ok()
                .filter(|value: &Value| value.is_boolean() || value.is_u64())
                .unwrap_or(Value::String(text));
            let result = match Key::find(&name, Scope::Server) {
                Ok(Key { set: Set::Server(set), .. }) => set(self, &value),
                Ok(Key { set: Set::Policy(set), .. }) => set(&mut self.general, &value),
                // Cluster managers set variables named after a service, which may be `hero-sse`:
                // only what looks like a slip is a mistake.
                Err(_) if Key::nearest(&name, Scope::Server).is_none() => {
                    telemetry::unknown_variable(&variable);
                    continue;
                }
                Err(unknown) => Err(unknown),
            };
            mistakes.extend(result.err().map(|error| format!("variable {variable}: {error}")));
        }
    }

    /// The settings of the endpoint at `path`, which declares `declared` for itself.
    pub(crate) fn policy(&self, path: &str, declared: &PolicyOverrides) -> Policy {
        let mut policy = default_policy();
        policy.apply(&self.general);
        let sources = policy.token_sources;
        policy.apply(declared);
        // A declaration can be stricter than the operator, but not laxer.
        policy.token_sources = policy.token_sources.and(sources);
        if let Some(over) = self.endpoints.get(path) {
            policy.apply(over);
        }
        policy
    }

    /// The paths that the operator wrote a table for.
    pub(crate) fn endpoint_paths(&self) -> impl Iterator<Item = &str> {
        self.endpoints.keys().map(String::as_str)
    }

    /// Whether these ask for tokens in a cookie that nobody has named.
    pub(crate) fn names_no_cookie(&self, over: &PolicyOverrides) -> bool {
        self.token_cookie.is_none()
            && over.token_sources.is_some_and(|sources| sources.has(TokenSource::Cookie))
    }

    /// What is wrong with settings made from code; texts were checked as they were read.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.general.faults();
        faults.extend(fault_of_time("peer timeout", self.peer_timeout));
        faults.extend(fault_of_time("drain timeout", self.drain_timeout));
        faults.extend(fault_of_time("drain delay", self.drain_delay));
        faults.extend(fault_of_time("authorizer timeout", self.authorizer_timeout));
        faults.extend(fault_of_count("connections", Some(self.max_connections)));
        faults.extend(fault_of_count("connects a minute", self.connects_per_minute));
        let failed = self.failed_attempts_per_minute;
        faults.extend(fault_of_count("failed attempts a minute", failed));
        faults.extend(self.no_networks.iter().map(|fault| format!("trusted proxies: {fault}")));
        faults.extend(self.token_cookie.as_deref().and_then(fault_of_cookie));
        let public = self.public_origins.faults.iter();
        faults.extend(public.map(|fault| format!("public origins: {fault}")));
        let hosts = self.allowed_hosts.faults.iter();
        faults.extend(hosts.map(|fault| format!("allowed hosts: {fault}")));
        faults.extend(self.cors.faults().map(|fault| format!("CORS: {fault}")));
        if self.names_no_cookie(&self.general) {
            faults.push(NO_COOKIE.to_owned());
        }
        let endpoints = self.endpoints.iter().filter(|(_, over)| self.names_no_cookie(over));
        faults.extend(
            endpoints.map(|(path, _)| format!("{SECTION}.{ENDPOINTS}.{path:?}: {NO_COOKIE}")),
        );
        faults
    }
}

/// A sentence, where `name` cannot be that of a cookie (RFC 6265, section 4.1.1: a token).
fn fault_of_cookie(name: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (name.is_empty() || !name.bytes().all(legal)).then(|| {
        format!("{name:?} cannot be the name of a cookie: write one such as \"__Host-session\"")
    })
}

/// The content of the section, for users of a configuration crate.
impl<'de> Deserialize<'de> for SseOptions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let section = Value::deserialize(deserializer)?;
        let mut options = Self::default();
        let mut mistakes = Vec::new();
        options.read_section(&section, &mut mistakes);
        SetupErrors::none_or(mistakes).map(|()| options).map_err(serde::de::Error::custom)
    }
}

/// Everything that is wrong with a set-up, found in one go.
#[derive(Clone, PartialEq, Eq)]
pub struct SetupErrors(Vec<String>);

impl SetupErrors {
    pub(crate) fn none_or(mistakes: Vec<String>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn of(mistakes: Vec<String>) -> Self {
        Self(mistakes)
    }

    /// The mistakes, one sentence each.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for SetupErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => f.write_str(only),
            all => {
                write!(f, "{} mistakes:", all.len())?;
                all.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
            }
        }
    }
}

/// As `Display`: a `main` that returns the error prints it through `Debug`.
impl fmt::Debug for SetupErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SetupErrors {}

/// Only the place and the kind of the mistake: the line itself may belong to another section, and
/// hold that one's secrets.
fn toml(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("not TOML: line {line}: {}", error.message())
    })
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// `WRITE_TIMEOUT` to `WriteTimeout`.
fn pascal_case(variable: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters.map(|c| c.to_ascii_lowercase())).collect::<String>()
    };
    variable.split('_').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_addr::ForwardedHeader;
    use crate::close::CloseReason;
    use crate::policy::Overflow;

    fn declared(write_timeout: u64) -> PolicyOverrides {
        let timeout = Some(Some(Duration::from_secs(write_timeout)));
        PolicyOverrides { write_timeout: timeout, ..PolicyOverrides::NONE }
    }

    #[test]
    fn defaults_lose_to_options_then_the_attribute_then_the_operators_table() {
        let timeout = |options: &SseOptions, path: &str, declared| {
            options.policy(path, &declared).write_timeout.map(|timeout| timeout.as_secs())
        };
        let none = SseOptions::default();
        assert_eq!(timeout(&none, "/a", PolicyOverrides::NONE), Some(5));
        let mut options = SseOptions::from_toml(
            "[SseOptions]\nWriteTimeout = \"6s\"\n[SseOptions.Endpoints.\"/b\"]\nWriteTimeout = \"off\"",
        )
        .expect("options");
        assert_eq!(timeout(&options, "/a", PolicyOverrides::NONE), Some(6));
        assert_eq!(timeout(&options, "/a", declared(7)), Some(7));
        assert_eq!(timeout(&options, "/b", declared(7)), None);
        let mut mistakes = Vec::new();
        let variable = ("HERO_SSE_WRITE_TIMEOUT".to_owned(), "00:00:08".to_owned());
        options.read_environment([variable], &mut mistakes);
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!(timeout(&options, "/a", PolicyOverrides::NONE), Some(8));
        assert_eq!(timeout(&options, "/a", declared(7)), Some(7));
    }

    #[test]
    fn json_and_the_origins_spelling_are_read() {
        let options = SseOptions::from_json(
            r#"{"Logging": {}, "SseOptions": {"WriteTimeout": "00:00:05", "HeartbeatInterval": "00:00:15"}}"#,
        )
        .expect("options");
        let policy = options.policy("/", &PolicyOverrides::NONE);
        assert_eq!(policy, SseOptions::default().policy("/", &PolicyOverrides::NONE));
    }

    #[test]
    fn every_mistake_is_told_with_its_key_and_the_cure() {
        let errors = SseOptions::from_toml(
            r#"
            [SseOptions]
            WriteTimeout = 5
            HeartbeatIntervall = "15s"
            Retry = "100ms"
            Enabled = "yes"
            MaxConnections = 0
            OverLimit = "panic"
            Buffer = 0
            Overflow = "drop"
            [SseOptions.Endpoints."/a"]
            PeerTimeout = "1s"
            HeartbeatInterval = "5:00"
            [SseOptions.Endpoints.b]
            "#,
        )
        .expect_err("mistakes");
        for words in [
            "SseOptions.WriteTimeout: \"5\" has no unit: write \"15s\"",
            "SseOptions.HeartbeatIntervall: unknown key; did you mean HeartbeatInterval?",
            "SseOptions.Retry: a reconnection time of 100ms is out of bounds",
            "SseOptions.Enabled: \"yes\" is neither true nor false",
            "SseOptions.MaxConnections: 0 is no limit",
            "SseOptions.OverLimit: \"panic\" is neither",
            "SseOptions.Buffer: 0 is no limit",
            "SseOptions.Overflow: \"drop\" is none of \"disconnect\", \"drop_oldest\" and \"latest\"",
            "SseOptions.Endpoints.\"/a\".PeerTimeout: can only be set for the whole server",
            "SseOptions.Endpoints.\"/a\".HeartbeatInterval: \"5:00\" is ambiguous",
            "SseOptions.Endpoints.\"b\": a path begins with `/`",
        ] {
            assert!(errors.iter().any(|error| error.contains(words)), "{words}\nin {errors}");
        }
        assert_eq!(errors.iter().count(), 11, "{errors}");
    }

    #[test]
    fn files_that_are_none_say_so() {
        let error = SseOptions::from_toml("[SseOptions").expect_err("no TOML").to_string();
        assert!(error.contains("not TOML"), "{error}");
        let error = SseOptions::from_toml("[sseoptions]").expect_err("a misspelling").to_string();
        assert!(error.contains("spell it [SseOptions]"), "{error}");
        let error = SseOptions::from_file("/no/such/file").expect_err("no file").to_string();
        assert!(error.contains("/no/such/file"), "{error}");
        let mut mistakes = Vec::new();
        let variable = ("HERO_SSE_WRIT_TIMEOUT".to_owned(), "5s".to_owned());
        SseOptions::default().read_environment([variable], &mut mistakes);
        assert!(mistakes.concat().contains("HERO_SSE_WRIT_TIMEOUT"), "{mistakes:?}");
    }

    #[test]
    fn the_reconnection_time_is_spread_over_half_its_length() {
        let mut policy = default_policy();
        policy.retry = Duration::from_secs(2);
        let spread: Vec<_> = (0..500).map(|_| policy.jittered_retry().as_millis()).collect();
        assert!(spread.iter().all(|retry| (2_000..=3_000).contains(retry)));
        assert!(spread.iter().max() > spread.iter().min());
    }

    #[test]
    fn the_documentation_has_a_row_for_every_key_and_no_other() {
        let documented: Vec<_> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | `")?.split('`').next())
            .collect();
        let mut names: Vec<_> = keys::KEYS.iter().map(|key| key.name).collect();
        names.dedup();
        assert_eq!(documented, names);
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let options = SseOptions::default();
        let Policy { heartbeat, write_timeout, retry, max_age, .. } = default_policy();
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        assert_eq!((seconds(heartbeat), seconds(write_timeout)), (Some(15.0), Some(5.0)));
        assert_eq!((retry, max_age), (Duration::from_secs(3), None));
        assert_eq!(seconds(options.peer_timeout), Some(60.0));
        assert_eq!(seconds(options.drain_timeout), Some(5.0));
        let Policy { heartbeat_event, max_per_principal, over_limit, token_sources, .. } =
            default_policy();
        assert_eq!((options.max_connections, max_per_principal), (10_000, 8));
        assert_eq!((heartbeat_event, options.enabled), (false, true));
        assert_eq!((token_sources, options.redact_query), (TokenSources::ALL, true));
        assert_eq!(over_limit, OverLimit::Retry);
        assert_eq!(default_policy().buffering(), None);
        assert_eq!(
            (default_policy().max_per_address, options.connects_per_minute),
            (None, Some(300))
        );
        assert_eq!(default_policy().drain_jitter, Some(Duration::from_secs(5)));
        assert_eq!(options.drain_delay, None);
        assert_eq!(default_policy().reauthorize, None);
        assert_eq!(options.authorizer_timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn rechecks_are_read_from_files_variables_and_code() {
        let options = SseOptions::from_toml(
            "[SseOptions]\nReauthorizeInterval = \"30s\"\nAuthorizerTimeout = \"2s\"\n\
             [SseOptions.Endpoints.\"/a\"]\nReauthorizeInterval = \"off\"",
        );
        let mut options = options.expect("options");
        let declared = PolicyOverrides {
            reauthorize: Some(Some(Duration::from_secs(9))),
            ..PolicyOverrides::NONE
        };
        let reauthorize = |options: &SseOptions, path, over: &PolicyOverrides| {
            options.policy(path, over).reauthorize.map(|interval| interval.as_secs())
        };
        assert_eq!(reauthorize(&options, "/b", &PolicyOverrides::NONE), Some(30));
        assert_eq!(reauthorize(&options, "/b", &declared), Some(9));
        assert_eq!(reauthorize(&options, "/a", &declared), None, "the operator has the last word");
        assert_eq!(options.authorizer_timeout, Some(Duration::from_secs(2)));
        let variables =
            [("HERO_SSE_REAUTHORIZE_INTERVAL", "1m"), ("HERO_SSE_AUTHORIZER_TIMEOUT", "off")];
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        options.read_environment(variables.map(text), &mut Vec::new());
        assert_eq!(reauthorize(&options, "/b", &PolicyOverrides::NONE), Some(60));
        assert_eq!(options.authorizer_timeout, None);
        let code =
            SseOptions::default().reauthorize(Duration::ZERO).authorizer_timeout(Duration::ZERO);
        let faults = code.faults().join("\n");
        for words in ["re-check interval", "authorizer timeout"] {
            assert!(faults.contains(words), "{words} in {faults}");
        }
        let code = code.reauthorize(None).authorizer_timeout(None);
        assert_eq!(code.faults(), Vec::<String>::new());
    }

    #[test]
    fn admission_and_drain_are_read_from_files_variables_and_code() {
        let options = SseOptions::from_toml(
            r#"
            [SseOptions]
            MaxPerAddress = 40
            ConnectsPerMinute = "off"
            TrustedProxies = ["10.0.0.0/8", "::1"]
            ForwardedHeader = "Forwarded"
            DrainJitter = "20s"
            DrainDelay = "7s"
            [SseOptions.Endpoints."/a"]
            MaxPerAddress = "off"
            DrainJitter = "off"
            "#,
        );
        let mut options = options.expect("options");
        let policy = |options: &SseOptions, path| {
            let policy = options.policy(path, &PolicyOverrides::NONE);
            (policy.max_per_address, policy.drain_jitter.map(|spread| spread.as_secs()))
        };
        assert_eq!(policy(&options, "/a"), (None, None));
        assert_eq!(policy(&options, "/b"), (Some(40), Some(20)));
        assert_eq!(options.connects_per_minute, None);
        assert_eq!(options.drain_delay, Some(Duration::from_secs(7)));
        assert_eq!(options.proxies.header, ForwardedHeader::Forwarded);
        assert!(format!("{:?}", options.proxies).contains("10.0.0.0/8"));

        let variables = [
            ("HERO_SSE_MAX_PER_ADDRESS", "5"),
            ("HERO_SSE_CONNECTS_PER_MINUTE", "60"),
            ("HERO_SSE_TRUSTED_PROXIES", "192.0.2.1, 2001:db8::/32"),
            ("HERO_SSE_FORWARDED_HEADER", "x-forwarded-for"),
            ("HERO_SSE_DRAIN_JITTER", "off"),
            ("HERO_SSE_DRAIN_DELAY", "1s"),
        ];
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut mistakes = Vec::new();
        options.read_environment(variables.map(text), &mut mistakes);
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!(policy(&options, "/b"), (Some(5), None));
        assert_eq!(options.connects_per_minute, Some(60));
        assert_eq!(options.drain_delay, Some(Duration::from_secs(1)));
        let proxies = format!("{:?}", options.proxies);
        assert!(proxies.contains("192.0.2.1") && proxies.contains("2001:db8::"), "{proxies}");
        assert!(!proxies.contains("10.0.0.0"), "{proxies}");

        for (wrong, words) in [
            ("MaxPerAddress = 0", "or \"off\""),
            ("ConnectsPerMinute = \"many\"", "or \"off\""),
            ("TrustedProxies = [\"proxy\"]", "\"proxy\" is no network"),
            ("TrustedProxies = [\"0.0.0.0/0\"]", "trusts everybody"),
            ("TrustedProxies = [10]", "no list of texts"),
            ("ForwardedHeader = \"x-real-ip\"", "neither \"x-forwarded-for\" nor"),
            ("DrainDelay = 5", "no unit"),
            ("DrainJitter = \"0s\"", "is zero"),
        ] {
            let error = SseOptions::from_toml(&format!("[SseOptions]\n{wrong}")).expect_err(wrong);
            assert!(error.to_string().contains(words), "{error}");
        }
        let code = SseOptions::default()
            .max_per_address(0)
            .connects_per_minute(0)
            .trusted_proxies(["10.0.0.0/8", "nobody"])
            .drain_jitter(Duration::ZERO)
            .drain_delay(Duration::from_secs(u64::MAX));
        let faults = code.faults().join("\n");
        for words in
            ["of one address", "connects a minute", "\"nobody\"", "drain spread", "drain delay"]
        {
            assert!(faults.contains(words), "{words} in {faults}");
        }
        let code = code.trusted_proxies(["10.0.0.0/8"]).drain_jitter(None).max_per_address(None);
        assert_eq!(code.faults().len(), 2, "{:?}", code.faults());
    }

    #[test]
    fn where_tokens_stand_and_who_may_send_them_is_read_from_files_variables_and_code() {
        let options = SseOptions::from_toml(
            r#"
            [SseOptions]
            TokenSources = ["cookie", "header"]
            TokenCookie = "__Host-session"
            PublicOrigins = ["https://app.example.com"]
            AllowedHosts = ["app.example.com", "localhost:8080"]
            CorsOrigins = ["https://pages.example.net"]
            CorsCredentials = true
            RedactQuery = false
            [SseOptions.Endpoints."/a"]
            TokenSources = ["query"]
            "#,
        );
        let mut options = options.expect("options");
        assert_eq!(options.faults(), Vec::<String>::new());
        let sources = |options: &SseOptions, path: &str, declared: Option<TokenSources>| {
            let declared = PolicyOverrides { token_sources: declared, ..PolicyOverrides::NONE };
            format!("{:?}", options.policy(path, &declared).token_sources)
        };
        let only = |source| Some(TokenSources::of(&[source]));
        assert_eq!(sources(&options, "/b", None), r#"["header", "cookie"]"#);
        assert_eq!(sources(&options, "/b", only(TokenSource::Cookie)), r#"["cookie"]"#);
        // A declaration can be stricter, but not laxer; the operator's table has the last word.
        assert_eq!(sources(&options, "/b", only(TokenSource::Query)), "[]");
        assert_eq!(sources(&options, "/a", only(TokenSource::Cookie)), r#"["query"]"#);
        assert_eq!(options.token_cookie.as_deref(), Some("__Host-session"));
        assert_eq!(
            (options.public_origins.entries.len(), options.allowed_hosts.entries.len()),
            (1, 2)
        );
        assert!(options.cors.is_on() && options.cors.credentials && !options.redact_query);

        let variables = [
            ("HERO_SSE_TOKEN_SOURCES", "header, query"),
            ("HERO_SSE_TOKEN_COOKIE", "token"),
            ("HERO_SSE_PUBLIC_ORIGINS", "https://a.example, https://b.example"),
            ("HERO_SSE_ALLOWED_HOSTS", "a.example"),
            ("HERO_SSE_CORS_ORIGINS", "http://localhost:5173,http://localhost:3000"),
            ("HERO_SSE_CORS_CREDENTIALS", "false"),
            ("HERO_SSE_REDACT_QUERY", "true"),
        ];
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut mistakes = Vec::new();
        options.read_environment(variables.map(text), &mut mistakes);
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!(sources(&options, "/b", None), r#"["header", "query"]"#);
        assert_eq!(options.token_cookie.as_deref(), Some("token"));
        assert_eq!(
            (options.public_origins.entries.len(), options.allowed_hosts.entries.len()),
            (2, 1)
        );
        assert_eq!(options.cors.origins.entries.len(), 2);
        assert!(!options.cors.credentials && options.redact_query);

        for (wrong, words) in [
            ("TokenSources = []", "names no source"),
            (
                "TokenSources = [\"body\"]",
                "\"body\" is none of \"header\", \"cookie\" and \"query\"",
            ),
            ("TokenSources = true", "no list of texts: write [\"header\"]"),
            ("TokenCookie = \"\"", "cannot be the name of a cookie"),
            ("TokenCookie = \"a b\"", "cannot be the name of a cookie"),
            ("TokenCookie = 1", "is no name"),
            ("PublicOrigins = [\"app.example.com\"]", "has no scheme: put `https://` before it"),
            ("PublicOrigins = [\"https://app.example.com/\"]", "ends in a slash"),
            ("AllowedHosts = [\"https://app.example.com\"]", "leave out its scheme"),
            ("AllowedHosts = [\"*.example.com\"]", "name each host"),
            ("CorsOrigins = [\"*\"]", "name each origin"),
            ("CorsOrigins = [\"null\"]", "sandboxed"),
            ("CorsOrigins = [\"https://app.example.com/page\"]", "has a path"),
            ("CorsCredentials = \"yes\"", "neither true nor false"),
        ] {
            let error = SseOptions::from_toml(&format!("[SseOptions]\n{wrong}")).expect_err(wrong);
            assert!(error.to_string().contains(words), "{error}");
        }
        let code = SseOptions::default()
            .token_sources([TokenSource::Cookie])
            .public_origins(["app.example.com"])
            .allowed_hosts(["a b"])
            .cors(Cors::origins(["*"]));
        let faults = code.faults().join("\n");
        for words in [
            "public origins: \"app.example.com\" has no scheme",
            "allowed hosts: \"a b\" is no host",
            "CORS: \"*\" is a pattern",
            "but none is named: write TokenCookie",
        ] {
            assert!(faults.contains(words), "{words} in {faults}");
        }
        let code = SseOptions::default()
            .token_sources([])
            .token_cookie("a;b")
            .cors(Cors::origins([]).credentials(true));
        assert_eq!(code.faults().len(), 3, "{:?}", code.faults());
        let table = "[SseOptions.Endpoints.\"/a\"]\nTokenSources = [\"cookie\"]";
        let table = SseOptions::from_toml(table).expect("options").faults().join("\n");
        assert!(table.contains("Endpoints.\"/a\": a token may stand in a cookie"), "{table}");
    }

    #[test]
    fn failed_attempts_are_read_from_files_variables_and_code() {
        let read = |text: &str| SseOptions::from_toml(&format!("[SseOptions]\n{text}"));
        let of = |options: &SseOptions| options.failed_attempts_per_minute;
        assert_eq!(of(&SseOptions::default()), Some(60));
        assert_eq!(of(&read("FailedAttemptsPerMinute = 7").expect("options")), Some(7));
        let mut options = read("FailedAttemptsPerMinute = \"off\"").expect("options");
        assert_eq!(of(&options), None);
        let variable = ("HERO_SSE_FAILED_ATTEMPTS_PER_MINUTE".to_owned(), "9".to_owned());
        let mut mistakes = Vec::new();
        options.read_environment([variable], &mut mistakes);
        assert_eq!((of(&options), mistakes), (Some(9), Vec::new()));
        let error = read("FailedAttemptsPerMinute = 0").expect_err("no limit").to_string();
        assert!(error.contains("or \"off\""), "{error}");
        let code = SseOptions::default().failed_attempts_per_minute(0);
        assert!(code.faults().concat().contains("failed attempts a minute"), "{:?}", code.faults());
        assert!(code.failed_attempts_per_minute(None).faults().is_empty());
    }

    #[test]
    fn farewells_of_a_drain_are_spread_over_a_time_of_their_own() {
        let policy = Policy { retry: Duration::from_secs(2), ..default_policy() };
        let all = |policy: &Policy, reason, least| {
            let retry = || policy.farewell_retry(reason, Duration::from_secs(least)).as_millis();
            let mut all: Vec<_> = (0..1000).map(|_| retry()).collect();
            all.sort_unstable();
            (all[0], all[999])
        };
        let within = |(least, most): (u128, u128), from: u128, to: u128| {
            let slack = (to - from) / 50;
            let spread = least < from + slack && most > to - slack;
            assert!(least >= from && most <= to && spread, "{least} to {most} in {from} to {to}");
        };
        within(all(&policy, CloseReason::Draining, 0), 2_000, 7_000);
        within(all(&policy, CloseReason::MaxAge, 0), 2_000, 3_000);
        within(all(&policy, CloseReason::OverLimit, 0), 2_000, 3_000);
        within(all(&policy, CloseReason::OverLimit, 20), 20_000, 30_000);
        let off = Policy { drain_jitter: None, ..policy.clone() };
        within(all(&off, CloseReason::Draining, 0), 2_000, 3_000);
        let far = Policy { drain_jitter: Some(Duration::from_secs(366 * 86_400)), ..policy };
        assert!(all(&far, CloseReason::Draining, 0).1 <= 86_400_000);
    }

    #[test]
    fn a_buffer_brings_its_overflow_and_an_overflow_its_buffer() {
        let declared = PolicyOverrides {
            buffer: Some(4),
            overflow: Some(Overflow::DropOldest),
            ..PolicyOverrides::NONE
        };
        for (text, declared, buffering) in [
            ("", PolicyOverrides::NONE, None),
            ("Buffer = 7", PolicyOverrides::NONE, Some((7, Overflow::Disconnect))),
            ("Overflow = \"latest\"", PolicyOverrides::NONE, Some((256, Overflow::Latest))),
            (
                "Buffer = 7\nOverflow = \"latest\"",
                declared.clone(),
                Some((4, Overflow::DropOldest)),
            ),
            ("[SseOptions.Endpoints.\"/a\"]\nBuffer = 9", declared.clone(), {
                Some((9, Overflow::DropOldest))
            }),
            ("[SseOptions.Endpoints.\"/a\"]\nOverflow = \"disconnect\"", declared, {
                Some((4, Overflow::Disconnect))
            }),
        ] {
            let options = SseOptions::from_toml(&format!("[SseOptions]\n{text}")).expect(text);
            assert_eq!(options.policy("/a", &declared).buffering(), buffering, "{text}");
        }
        let mut options = SseOptions::default();
        let variables = [("HERO_SSE_BUFFER", "12"), ("HERO_SSE_OVERFLOW", "drop_oldest")];
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        options.read_environment(variables.map(text), &mut Vec::new());
        let policy = options.policy("/a", &PolicyOverrides::NONE);
        assert_eq!(policy.buffering(), Some((12, Overflow::DropOldest)));
    }
}
