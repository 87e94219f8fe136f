//! The settings of one stream. [`settings`] is the table of all settings, one row each; here are the types of
//! their values, and the one place where defaults, options and declaration become a [`Policy`].

mod generate;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::generate::{attribute_row, method_of};
pub(crate) use self::settings::{Policy, PolicyOverrides, ServerSettings};
pub(crate) use self::value::SettingValue;
use crate::close::CloseReason;
use crate::duration::random_between;
use crate::frame::RETRY;
pub use crate::overflow::Overflow;

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
    fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// A client that sends a body can send a header, and URLs end up in logs.
    fn without_query(self) -> Self {
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

/// The capacity of a buffer when only `overflow` is set: enough for a burst, and affordable for ten thousand
/// clients.
const DEFAULT_BUFFER: usize = 256;

/// The two kinds of streams, some of whose defaults differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Made by user code for one client. Its work is lost when it is cut.
    Private,
    /// A topic's subscription, which resumes where it was cut.
    Subscription,
}

/// Settings by who made them, from the weakest to the strongest.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    /// The options for all endpoints.
    pub(crate) options: &'a PolicyOverrides,
    /// The endpoint's own declaration.
    pub(crate) declaration: &'a PolicyOverrides,
    /// The options' table for the endpoint.
    pub(crate) table: &'a PolicyOverrides,
}

impl Layers<'_> {
    fn set<T>(&self, field: fn(&PolicyOverrides) -> Option<T>) -> bool {
        [self.options, self.declaration, self.table].into_iter().any(|layer| field(layer).is_some())
    }
}

/// The policy of an endpoint, for either kind of stream. What matters before the stream exists (token sources,
/// limits) is the same in both.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    pub(crate) private: Arc<Policy>,
    subscription: Arc<Policy>,
}

impl Policies {
    pub(crate) fn resolve(layers: Layers<'_>, method: Method) -> Self {
        let resolve = |kind| Arc::new(Policy::resolve(layers, method, kind));
        Self {
            private: resolve(StreamKind::Private),
            subscription: resolve(StreamKind::Subscription),
        }
    }

    pub(crate) fn of(&self, kind: StreamKind) -> &Arc<Policy> {
        match kind {
            StreamKind::Private => &self.private,
            StreamKind::Subscription => &self.subscription,
        }
    }
}

impl Policy {
    /// Row by row, then the one rule that concerns two rows.
    fn resolve(layers: Layers<'_>, method: Method, kind: StreamKind) -> Self {
        let mut policy = Self::resolve_rows(layers, method, kind);
        let buffer = layers.set(|layer| layer.buffer);
        if kind == StreamKind::Private && !buffer && layers.set(|layer| layer.overflow) {
            policy.buffer = Some(DEFAULT_BUFFER);
        }
        policy
    }

    /// Returns a reconnection time in [`retry`, 1.5 `retry`]. Browsers neither jitter nor back off, so the server
    /// spreads them.
    pub(crate) fn jittered_retry(&self) -> Duration {
        jittered(self.retry)
    }

    /// Returns the reconnection time of a client whose stream ends. All clients of a drain leave at once, so
    /// they are spread over a time of its own. An attempt before `least` would fail.
    pub(crate) fn closing_retry(&self, reason: CloseReason, least: Duration) -> Duration {
        let from = self.retry.max(least);
        match self.drain_jitter.filter(|_| reason == CloseReason::Draining) {
            Some(jitter) => random_between(from, from + jitter).min(*RETRY.end()),
            None => jittered(from),
        }
    }

    /// Returns what is wrong with settings that do not fit each other.
    pub(crate) fn fault(&self) -> Option<String> {
        let (heartbeat, age) = (self.heartbeat?, self.max_age?);
        (heartbeat >= age).then(|| {
            format!("the heartbeat ({heartbeat:?}) must be shorter than the maximum age ({age:?})")
        })
    }
}

fn jittered(retry: Duration) -> Duration {
    random_between(retry, retry.mul_f64(1.5)).min(*RETRY.end())
}
