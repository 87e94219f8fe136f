//! The keys as methods, for options that are made by code.

use std::time::Duration;

use super::SseOptions;
use crate::peer::ForwardedHeader;
use crate::policy::{OverLimit, Overflow};

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

    /// How often the [`Authorizer`](crate::Authorizer) is asked again about an open stream, each time
    /// after four fifths of this or more; `None`, the default, never.
    #[must_use]
    pub fn recheck(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.general.recheck = Some(interval.into());
        self
    }

    /// How long the [`Authorizer`](crate::Authorizer) may take; then nobody knows, and the caller is
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

    /// The networks of your own proxies (`"10.0.0.0/8"`, or an address), which say whose requests
    /// they pass on. Default none: no header is read. What is no network comes out of
    /// [`build`](crate::Builder::build).
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

    /// Whether `?access_token=` is accepted. Default `true`.
    #[must_use]
    pub fn query_token(mut self, accepted: bool) -> Self {
        self.general.query_token = Some(accepted);
        self
    }

    /// How many frames may wait for a slow client, whose stream is then not held back to its pace.
    /// Default none; 256 where only [`overflow`](Self::overflow) is set.
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
    pub fn drain_spread(mut self, spread: impl Into<Option<Duration>>) -> Self {
        self.general.drain_spread = Some(spread.into());
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
