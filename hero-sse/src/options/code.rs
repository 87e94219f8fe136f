//! The keys as methods, for options that are made by code.

use std::time::Duration;

use super::SseOptions;
use crate::client_addr::ForwardedHeader;
use crate::cors::Cors;
use crate::origin::{Host, Listed, Origin};
use crate::policy::{OverLimit, Overflow, TokenSource, TokenSources};

/// Setting options from code.
impl SseOptions {
    /// The longest silence between two writes; `None` sends no heartbeats. Default 15 s.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.general.heartbeat = Some(interval.into());
        self
    }

    /// Whether each heartbeat is also the event `hero.heartbeat`. Default `false`.
    #[must_use]
    pub fn heartbeat_event(mut self, enabled: bool) -> Self {
        self.general.heartbeat_event = Some(enabled);
        self
    }

    /// How long a write may go without progress; `None` waits for ever. Default 5 s.
    #[must_use]
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.general.write_timeout = Some(timeout.into());
        self
    }

    /// How long, while a stream is live, bytes may stay unacknowledged by the peer's machine, or its
    /// receive window shut. Default 60 s.
    #[must_use]
    pub fn peer_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.peer_timeout = timeout.into();
        self
    }

    /// The reconnection time, at least 500 ms. Default 3 s.
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> Self {
        self.general.retry = Some(retry);
        self
    }

    /// A stream's longest life; `None`, the default, does not end it.
    #[must_use]
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.general.max_age = Some(age.into());
        self
    }

    /// How often the [`Authorizer`](crate::auth::Authorizer) is asked again about an open stream, each time
    /// after four fifths of this or more; `None`, the default, never.
    #[must_use]
    pub fn reauthorize(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.general.reauthorize = Some(interval.into());
        self
    }

    /// How long the [`Authorizer`](crate::auth::Authorizer) may take; then nobody knows, and the caller is
    /// refused. `None` waits for ever. Default 5 s.
    #[must_use]
    pub fn authorizer_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.authorizer_timeout = timeout.into();
        self
    }

    /// How many streams may be open in all. Default 10,000.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = limit;
        self
    }

    /// How many streams one subject may have open. Default 8.
    #[must_use]
    pub fn max_per_principal(mut self, limit: usize) -> Self {
        self.general.max_per_principal = Some(limit);
        self
    }

    /// How many streams one address may have open, or one IPv6 network of 64 bits; `None`, the
    /// default, any number. Behind a proxy of yours set [`trusted_proxies`](Self::trusted_proxies)
    /// too, or all clients share its address.
    #[must_use]
    pub fn max_per_address(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.general.max_per_address = Some(limit.into());
        self
    }

    /// How often one subject may try to open a stream: this often at once, and a minute. `None` is
    /// any number. Default 300.
    #[must_use]
    pub fn connects_per_minute(mut self, attempts: impl Into<Option<usize>>) -> Self {
        self.connects_per_minute = attempts.into();
        self
    }

    /// How many tokens and tickets from one address may be not accepted, that many at once and a minute;
    /// whoever sends more is turned away before the next one is looked at. `None` is any number. Default
    /// 60. Behind a proxy of yours set [`trusted_proxies`](Self::trusted_proxies) too.
    #[must_use]
    pub fn failed_attempts_per_minute(mut self, attempts: impl Into<Option<usize>>) -> Self {
        self.failed_attempts_per_minute = attempts.into();
        self
    }

    /// The networks of your own proxies (`"10.0.0.0/8"`, or an address), which say whose requests
    /// they pass on. Default none: no header is read. What is no network comes out of
    /// [`build`](crate::server::Builder::build).
    #[must_use]
    pub fn trusted_proxies<'a>(mut self, networks: impl IntoIterator<Item = &'a str>) -> Self {
        self.no_networks = self.proxies.trust(networks).err().unwrap_or_default();
        self
    }

    /// The header in which they say so. Default [`ForwardedHeader::XForwardedFor`].
    #[must_use]
    pub fn forwarded_header(mut self, header: ForwardedHeader) -> Self {
        self.proxies.header = header;
        self
    }

    /// What to say when a limit is reached. Default [`OverLimit::Retry`].
    #[must_use]
    pub fn over_limit(mut self, answer: OverLimit) -> Self {
        self.general.over_limit = Some(answer);
        self
    }

    /// Where a token may stand. Default all three; the cookie counts where it is
    /// [named](Self::token_cookie). A token where none may stand is as none at all.
    #[must_use]
    pub fn token_sources(mut self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        let sources: Vec<_> = sources.into_iter().collect();
        self.general.token_sources = Some(TokenSources::of(&sources));
        self
    }

    /// The cookie that holds a token. Default none. With the prefix `__Host-` browsers take it over TLS
    /// from this very host alone, so that no sibling can plant another.
    #[must_use]
    pub fn token_cookie(mut self, name: impl Into<String>) -> Self {
        self.token_cookie = Some(name.into());
        self
    }

    /// The origins of the application's own pages, as browsers see them
    /// (`"https://app.example.com"`): theirs alone are the requests in which a cookie counts. Default
    /// none: the host that a request asks for tells. Behind a proxy that ends TLS or asks for another
    /// host they must be written. What is no origin comes out of [`build`](crate::server::Builder::build).
    #[must_use]
    pub fn public_origins<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Self {
        self.public_origins = Listed::read(origins, Origin::parse);
        self
    }

    /// The hosts that the kit answers to (`"app.example.com"`, any port; `"localhost:8080"`, this one);
    /// requests for others are refused. Default none: any. What is no host comes out of
    /// [`build`](crate::server::Builder::build).
    #[must_use]
    pub fn allowed_hosts<'a>(mut self, hosts: impl IntoIterator<Item = &'a str>) -> Self {
        self.allowed_hosts = Listed::read(hosts, Host::parse);
        self
    }

    /// Which pages of other origins may open endpoints. Default none, and no header says anything of it.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// Whether `access_token` and `ticket` are taken out of the URI of every request, of other routes,
    /// too; [`QueryToken`](crate::server::QueryToken) has them then. Default `true`.
    #[must_use]
    pub fn redact_query(mut self, taken_out: bool) -> Self {
        self.redact_query = taken_out;
        self
    }

    /// How many frames may wait for a slow client, whose stream is then not held back to its pace.
    /// Default none; 256 where only [`overflow`](Self::overflow) is set. With 1 MiB it is full all the same.
    #[must_use]
    pub fn buffer(mut self, frames: usize) -> Self {
        self.general.buffer = Some(frames);
        self
    }

    /// What happens to one more frame than the [`buffer`](Self::buffer) holds. Default
    /// [`Overflow::Disconnect`] where a buffer is set.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.general.overflow = Some(overflow);
        self
    }

    /// Over how long the clients of a drain come back, beyond their reconnection time; `None` spreads
    /// them as other farewells do. Default 5 s.
    #[must_use]
    pub fn drain_jitter(mut self, spread: impl Into<Option<Duration>>) -> Self {
        self.general.drain_jitter = Some(spread.into());
        self
    }

    /// How long a server that is shutting down goes on as before, only no longer
    /// [ready](crate::HeroSse::readiness). Default `None`: not at all.
    #[must_use]
    pub fn drain_delay(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.drain_delay = delay.into();
        self
    }

    /// How long a shutdown waits for farewells to be sent; `None` waits for ever. Default 5 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.drain_timeout = timeout.into();
        self
    }
}
