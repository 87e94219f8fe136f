//! The types that a setting can have: how an options file writes them, and which values are out of bounds.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use serde_json::Value;

use crate::client_addr::{ForwardedHeader, Network};
use crate::duration::{BOUNDS, parse_duration};
use crate::frame::RETRY;
use crate::origin::{Host, Listed, Origin, header_name};
use crate::overflow::Overflow;
use crate::profile::Profile;

/// The method by which a client asks an endpoint for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// `GET`, which an `EventSource` sends. `HEAD` is answered with the head alone.
    Get,
    /// `POST`, for clients that use `fetch`. The request may have a body, and its URL has no token.
    Post,
}

/// The answer to a client that is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverLimit {
    /// `200` with a reconnection time, `hero.close` and a clean end. A browser tries again by itself; after
    /// any other status it gives up for good.
    Retry,
    /// `503`, or `429` for the limit of one principal or address, with `Retry-After`. For clients other than
    /// browsers.
    Refuse,
}

/// A part of a request that can hold the caller's token.
///
/// All parts are read. A request with two different tokens is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// The cookie named by [`token_cookie`](crate::SseOptions::token_cookie). Any page can make a browser send
    /// it. A token that is only in a cookie therefore counts only in requests of trusted pages.
    Cookie,
    /// `?access_token=`, for `EventSource`, which cannot send headers. Never read from a `POST`.
    Query,
}

impl TokenSource {
    const ALL: [Self; 3] = [Self::Header, Self::Cookie, Self::Query];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Query => "query",
        }
    }
}

/// A set of token sources.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenSources(u8);

impl TokenSources {
    pub(crate) const ALL: Self = Self::of(&TokenSource::ALL);

    pub(crate) const fn of(sources: &[TokenSource]) -> Self {
        let (mut bits, mut left) = (0, sources);
        while let Some((first, rest)) = left.split_first() {
            bits |= 1 << *first as u8;
            left = rest;
        }
        Self(bits)
    }

    pub(crate) const fn has(self, source: TokenSource) -> bool {
        self.0 & (1 << source as u8) != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Keeps the sources that are in both sets.
    pub(super) fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub(crate) fn without_cookie(self) -> Self {
        Self(self.0 & !(1 << TokenSource::Cookie as u8))
    }

    /// A client that sends a body can send a header, and URLs end up in logs.
    pub(super) fn without_query(self) -> Self {
        Self(self.0 & !(1 << TokenSource::Query as u8))
    }
}

impl FromIterator<TokenSource> for TokenSources {
    fn from_iter<T: IntoIterator<Item = TokenSource>>(sources: T) -> Self {
        Self::of(&sources.into_iter().collect::<Vec<_>>())
    }
}

impl fmt::Debug for TokenSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = TokenSource::ALL.into_iter().filter(|source| self.has(*source));
        f.debug_list().entries(sources.map(TokenSource::as_str)).finish()
    }
}

/// The two kinds of streams, some of whose defaults differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Made by user code for one client. Its work is lost when it is cut.
    Private,
    /// A topic's subscription, which resumes where it was cut.
    Subscription,
}

/// A type of setting.
pub(crate) trait SettingValue: Sized {
    /// Reads a value of an options file. A value from an environment variable is a text, a number or a truth
    /// value. The error says what is wrong and what to write.
    fn read(value: &Value) -> Result<Self, String>;

    /// Returns what is wrong with a value that has been read, or that code has set.
    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

impl SettingValue for Option<Duration> {
    fn read(value: &Value) -> Result<Self, String> {
        let text = match value {
            Value::String(text) => text,
            // TOML reads a bare 00:00:05 as a time of day.
            Value::Object(_) => {
                return Err("is not a text: put the duration in quotes, \"00:00:05\"".to_owned());
            }
            other => &other.to_string(),
        };
        parse_duration(text).map_err(|error| error.to_string())
    }

    fn faults(&self) -> Vec<String> {
        let odd = self.filter(|time| !BOUNDS.contains(time));
        odd.map(|time| format!("{time:?} is out of bounds: 1 ms to 366 days")).into_iter().collect()
    }
}

impl SettingValue for Duration {
    fn read(value: &Value) -> Result<Self, String> {
        Option::<Self>::read(value)?.ok_or_else(|| "cannot be off: write a duration".to_owned())
    }

    fn faults(&self) -> Vec<String> {
        Some(*self).faults()
    }
}

impl SettingValue for bool {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("{value} is neither true nor false"))
    }
}

impl SettingValue for usize {
    fn read(value: &Value) -> Result<Self, String> {
        let count = value.as_u64().and_then(|count| Self::try_from(count).ok());
        count.ok_or_else(|| not_a_limit(value))
    }

    fn faults(&self) -> Vec<String> {
        if *self == 0 { vec![not_a_limit(self)] } else { Vec::new() }
    }
}

fn not_a_limit(value: impl std::fmt::Display) -> String {
    format!("{value} is not a limit: write a whole number from 1 on")
}

impl SettingValue for Option<usize> {
    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("off") => Ok(None),
            _ => usize::read(value).map(Some).map_err(|error| format!("{error}, or \"off\"")),
        }
    }

    fn faults(&self) -> Vec<String> {
        let faults = self.iter().flat_map(SettingValue::faults);
        faults.map(|fault| format!("{fault}, or \"off\"")).collect()
    }
}

impl SettingValue for Profile {
    fn read(value: &Value) -> Result<Self, String> {
        one_of(value, &[("native", Self::Native), ("plain", Self::Plain)])
    }
}

impl SettingValue for OverLimit {
    fn read(value: &Value) -> Result<Self, String> {
        one_of(value, &[("retry", Self::Retry), ("refuse", Self::Refuse)])
    }
}

impl SettingValue for Overflow {
    fn read(value: &Value) -> Result<Self, String> {
        let words = [
            ("disconnect", Self::Disconnect),
            ("drop_oldest", Self::DropOldest),
            ("latest", Self::Latest),
        ];
        one_of(value, &words)
    }
}

impl SettingValue for ForwardedHeader {
    fn read(value: &Value) -> Result<Self, String> {
        let words = [("x-forwarded-for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];
        let lower = value.as_str().map(|name| Value::from(name.to_ascii_lowercase()));
        one_of(lower.as_ref().unwrap_or(value), &words)
    }
}

impl SettingValue for TokenSources {
    fn read(value: &Value) -> Result<Self, String> {
        let words = TokenSource::ALL.map(|source| (source.as_str(), source));
        let read = |text: &str| one_of(&Value::from(text), &words);
        texts(value, "header")?.into_iter().map(read).collect()
    }

    fn faults(&self) -> Vec<String> {
        let none = "names no source, so no token is ever accepted: write \"header\", \"cookie\" or \"query\"";
        if self.is_empty() { vec![none.to_owned()] } else { Vec::new() }
    }
}

impl SettingValue for Option<String> {
    fn read(value: &Value) -> Result<Self, String> {
        value
            .as_str()
            .map(|text| Some(text.to_owned()))
            .ok_or_else(|| format!("{value} is not a text"))
    }
}

/// What a list can consist of.
trait Entry: Sized {
    const EXAMPLE: &'static str;
    const PARSE: fn(&str) -> Result<Self, String>;
}

impl Entry for Origin {
    const EXAMPLE: &'static str = "https://app.example.com";
    const PARSE: fn(&str) -> Result<Self, String> = Self::parse;
}

impl Entry for Host {
    const EXAMPLE: &'static str = "app.example.com";
    const PARSE: fn(&str) -> Result<Self, String> = Self::parse;
}

impl Entry for HeaderName {
    const EXAMPLE: &'static str = "traceparent";
    const PARSE: fn(&str) -> Result<Self, String> = header_name;
}

impl Entry for Network {
    const EXAMPLE: &'static str = "10.0.0.0/8";
    const PARSE: fn(&str) -> Result<Self, String> = Self::parse;
}

impl<T: Entry> SettingValue for Listed<T> {
    fn read(value: &Value) -> Result<Self, String> {
        texts(value, T::EXAMPLE).map(|texts| Self::read(texts, T::PARSE))
    }

    fn faults(&self) -> Vec<String> {
        self.faults.clone()
    }
}

/// Browsers reconnect at once below half a second, and read values from 2^31 milliseconds on as zero.
pub(super) fn fault_of_retry(retry: &Duration) -> Option<String> {
    (!RETRY.contains(retry)).then(|| {
        format!(
            "{retry:?} is out of bounds: write \"500ms\" to \"24h\", or browsers overload a server that is down"
        )
    })
}

/// RFC 6265, section 4.1.1: the name of a cookie is a token.
pub(super) fn fault_of_cookie(name: &Option<String>) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = name.as_ref().filter(|name| name.is_empty() || !name.bytes().all(legal))?;
    Some(format!("{name:?} cannot be the name of a cookie: write one such as \"__Host-session\""))
}

fn one_of<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let words = words.join(", ");
        let (most, last) = words.rsplit_once(", ").unwrap_or_default();
        format!("{value} is not one of the choices: write {most} or {last}")
    })
}

/// Reads a list of texts, or a text with commas in it, because a variable has no lists.
fn texts<'a>(value: &'a Value, example: &str) -> Result<Vec<&'a str>, String> {
    let texts = match value {
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    };
    texts.ok_or_else(|| format!("{value} is not a list of texts: write [{example:?}]"))
}
