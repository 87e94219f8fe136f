//! The keys of the section, one row each: what it is called, where it may stand, what its value does.

use std::time::Duration;

use serde_json::Value;

use super::{SseOptions, fault_of_cookie};
use crate::client_addr::ForwardedHeader;
use crate::origin::{Host, Listed, Origin};
use crate::policy::{
    OverLimit, Overflow, PolicyOverrides, TokenSource, TokenSources, fault_of_retry, parse_duration,
};

/// One key of the section: its name, and what its value does.
pub(super) struct Key {
    pub(super) name: &'static str,
    scope: Scope,
    pub(super) set: Set,
}

/// Where a key may stand: among the settings of the whole server, in an endpoint's table, in both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Server,
    Endpoint,
    Both,
}

pub(super) enum Set {
    Server(fn(&mut SseOptions, &Value) -> Result<(), String>),
    Policy(fn(&mut PolicyOverrides, &Value) -> Result<(), String>),
}

impl Key {
    /// The key called `name` that may stand in `place`; else one of that name from elsewhere, so
    /// that the caller can say so.
    pub(super) fn find(name: &str, place: Scope) -> Result<&'static Self, String> {
        let known = || KEYS.iter().filter(move |key| key.fits(place));
        if let Some(key) = known().chain(KEYS).find(|key| key.name == name) {
            return Ok(key);
        }
        let names: Vec<_> = known().map(|key| key.name).collect();
        let nearest = Self::nearest(name, place);
        let nearest = nearest.map(|name| format!("did you mean {name}? ")).unwrap_or_default();
        Err(format!("unknown key; {nearest}Known are {}", names.join(", ")))
    }

    /// The key that `name` is a slip of, if it is like one.
    pub(super) fn nearest(name: &str, place: Scope) -> Option<&'static str> {
        let known = KEYS.iter().filter(|key| key.fits(place)).map(|key| key.name);
        known
            .map(|key| (strsim::normalized_damerau_levenshtein(key, name), key))
            .filter(|(likeness, _)| *likeness >= 0.6)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, key)| key)
    }

    fn fits(&self, place: Scope) -> bool {
        self.scope == Scope::Both || self.scope == place
    }
}

pub(super) const KEYS: &[Key] = {
    use Scope::{Both, Endpoint, Server};
    &[
        server("Enabled", |options, value| {
            options.enabled = flag(value)?;
            Ok(())
        }),
        policy("HeartbeatInterval", Both, |over, value| {
            over.heartbeat = Some(duration(value)?);
            Ok(())
        }),
        policy("HeartbeatEvent", Both, |over, value| {
            over.heartbeat_event = Some(flag(value)?);
            Ok(())
        }),
        policy("WriteTimeout", Both, |over, value| {
            over.write_timeout = Some(duration(value)?);
            Ok(())
        }),
        server("PeerTimeout", |options, value| {
            options.peer_timeout = duration(value)?;
            Ok(())
        }),
        policy("Retry", Both, |over, value| {
            let retry = duration(value)?.ok_or("cannot be off: browsers always reconnect")?;
            fault_of_retry(retry).map_or(Ok(()), Err)?;
            over.retry = Some(retry);
            Ok(())
        }),
        policy("MaxAge", Both, |over, value| {
            over.max_age = Some(duration(value)?);
            Ok(())
        }),
        policy("ReauthorizeInterval", Both, |over, value| {
            over.reauthorize = Some(duration(value)?);
            Ok(())
        }),
        server("AuthorizerTimeout", |options, value| {
            options.authorizer_timeout = duration(value)?;
            Ok(())
        }),
        Key {
            name: "MaxConnections",
            scope: Server,
            set: Set::Server(|options, value| {
                options.max_connections = count(value)?;
                Ok(())
            }),
        },
        policy("MaxConnections", Endpoint, |over, value| {
            over.max_connections = Some(count(value)?);
            Ok(())
        }),
        policy("MaxPerPrincipal", Both, |over, value| {
            over.max_per_principal = Some(count(value)?);
            Ok(())
        }),
        policy("MaxPerAddress", Both, |over, value| {
            over.max_per_address = Some(count_or_off(value)?);
            Ok(())
        }),
        server("ConnectsPerMinute", |options, value| {
            options.connects_per_minute = count_or_off(value)?;
            Ok(())
        }),
        server("FailedAttemptsPerMinute", |options, value| {
            options.failed_attempts_per_minute = count_or_off(value)?;
            Ok(())
        }),
        server("TrustedProxies", |options, value| {
            let networks = texts(value, "10.0.0.0/8")?;
            options.proxies.trust(networks).map_err(|faults| faults.join("; "))
        }),
        server("ForwardedHeader", |options, value| {
            let is =
                |name: &str| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(name));
            options.proxies.header = match () {
                () if is("x-forwarded-for") => ForwardedHeader::XForwardedFor,
                () if is("forwarded") => ForwardedHeader::Forwarded,
                () => {
                    return Err(format!(
                        "{value} is neither \"x-forwarded-for\" nor \"forwarded\""
                    ));
                }
            };
            Ok(())
        }),
        policy("OverLimit", Both, |over, value| {
            over.over_limit = Some(match value.as_str() {
                Some("retry") => OverLimit::Retry,
                Some("refuse") => OverLimit::Refuse,
                _ => return Err(format!("{value} is neither \"retry\" nor \"refuse\"")),
            });
            Ok(())
        }),
        policy("TokenSources", Both, |over, value| {
            let read = |text: &str| {
                TokenSource::read(text).ok_or_else(|| {
                    format!("{text:?} is none of \"header\", \"cookie\" and \"query\"")
                })
            };
            let sources = texts(value, "header")?.into_iter().map(read);
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            if sources.is_empty() {
                return Err("names no source: nobody could get in".to_owned());
            }
            over.token_sources = Some(TokenSources::of(&sources));
            Ok(())
        }),
        server("TokenCookie", |options, value| {
            let name = value.as_str().ok_or_else(|| format!("{value} is no name"))?;
            fault_of_cookie(name).map_or(Ok(()), Err)?;
            options.token_cookie = Some(name.to_owned());
            Ok(())
        }),
        server("PublicOrigins", |options, value| {
            let origins = texts(value, "https://app.example.com")?;
            options.public_origins = Listed::read(origins, Origin::parse).faultless()?;
            Ok(())
        }),
        server("AllowedHosts", |options, value| {
            let hosts = texts(value, "app.example.com")?;
            options.allowed_hosts = Listed::read(hosts, Host::parse).faultless()?;
            Ok(())
        }),
        server("CorsOrigins", |options, value| {
            let origins = texts(value, "https://app.example.com")?;
            options.cors.origins = Listed::read(origins, Origin::parse).faultless()?;
            Ok(())
        }),
        server("CorsCredentials", |options, value| {
            options.cors.credentials = flag(value)?;
            Ok(())
        }),
        server("RedactQuery", |options, value| {
            options.redact_query = flag(value)?;
            Ok(())
        }),
        policy("Buffer", Both, |over, value| {
            over.buffer = Some(count(value)?);
            Ok(())
        }),
        policy("Overflow", Both, |over, value| {
            over.overflow = Some(match value.as_str() {
                Some("disconnect") => Overflow::Disconnect,
                Some("drop_oldest") => Overflow::DropOldest,
                Some("latest") => Overflow::Latest,
                _ => {
                    return Err(format!(
                        "{value} is none of \"disconnect\", \"drop_oldest\" and \"latest\""
                    ));
                }
            });
            Ok(())
        }),
        policy("DrainJitter", Both, |over, value| {
            over.drain_jitter = Some(duration(value)?);
            Ok(())
        }),
        server("DrainDelay", |options, value| {
            options.drain_delay = duration(value)?;
            Ok(())
        }),
        server("DrainTimeout", |options, value| {
            options.drain_timeout = duration(value)?;
            Ok(())
        }),
    ]
};

const fn server(name: &'static str, set: fn(&mut SseOptions, &Value) -> Result<(), String>) -> Key {
    Key { name, scope: Scope::Server, set: Set::Server(set) }
}

const fn policy(
    name: &'static str,
    scope: Scope,
    set: fn(&mut PolicyOverrides, &Value) -> Result<(), String>,
) -> Key {
    Key { name, scope, set: Set::Policy(set) }
}

fn duration(value: &Value) -> Result<Option<Duration>, String> {
    match value {
        Value::String(text) => parse_duration(text),
        // TOML reads a bare 00:00:05 as a time of day.
        Value::Object(_) => Err("is no text: put the duration in quotes, \"00:00:05\"".to_owned()),
        other => parse_duration(&other.to_string()),
    }
}

fn flag(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{value} is neither true nor false"))
}

fn count(value: &Value) -> Result<usize, String> {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("{value} is no limit: write a whole number from 1 on"))
}

fn count_or_off(value: &Value) -> Result<Option<usize>, String> {
    match value.as_str() {
        Some("off") => Ok(None),
        _ => count(value).map(Some).map_err(|error| format!("{error}, or \"off\"")),
    }
}

/// A list of texts, or a text with commas in it: a variable has no lists.
fn texts<'a>(value: &'a Value, example: &str) -> Result<Vec<&'a str>, String> {
    let texts = match value {
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    };
    texts.ok_or_else(|| format!("{value} is no list of texts: write [{example:?}]"))
}
