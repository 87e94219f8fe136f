//! Limits failed authentication attempts: counts tokens and tickets that were refused, by network.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use http::request::Parts;
use tokio::time::Instant;

use super::site_policy::is_cross_origin;
use crate::client_addr::{self, TrustedProxies};
use crate::refusal::Refusal;
use crate::telemetry;
use crate::throttle::{LogThrottle, RateLimiter};

/// Bounds the memory, since the owner of a large IPv6 network has any number of addresses: at most about
/// 4 MiB for the two minutes that are counted.
const MAX_NETWORKS: usize = 32 * 1024;

/// The counters of one server.
pub(crate) struct Attempts {
    proxies: TrustedProxies,
    per_minute: Option<usize>,
    counters: Mutex<Counters>,
    unlisted_proxy: Once,
}

struct Counters {
    failed: RateLimiter<AttemptKey>,
    log: LogThrottle<AttemptKey>,
}

/// Attempts with the same key count together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct AttemptKey {
    network: IpAddr,
    /// Whether a page of another site sent the request, as the browser says.
    ///
    /// Any page can make its visitors' browsers send bad tokens. Counted apart, these do not lock the
    /// visitors out of the application's own pages. A client that forges the header gets twice the attempts.
    cross_origin: bool,
}

impl Attempts {
    /// `per_minute`: `None` is no limit.
    pub(crate) fn new(proxies: TrustedProxies, per_minute: Option<usize>) -> Self {
        let (failed, log) = (RateLimiter::with_max_keys(MAX_NETWORKS), LogThrottle::default());
        let counters = Mutex::new(Counters { failed, log });
        Self { proxies, per_minute, counters, unlisted_proxy: Once::new() }
    }

    /// Refuses the request with `429` if its network has had too many failures.
    pub(super) fn check(&self, parts: &Parts) -> Result<(), Refusal> {
        let Some((key, per_minute)) = self.key_of(parts) else { return Ok(()) };
        let now = Instant::now();
        let mut counters = self.lock();
        let Err(wait) = counters.failed.check(&key, per_minute, now) else { return Ok(()) };
        let logged = counters.log.allow(key, now);
        drop(counters);
        if let Some(suppressed) = logged {
            telemetry::failed_attempts(key.network, suppressed);
        }
        Err(Refusal::too_many_failures(wait))
    }

    /// Counts a failure of this request's network.
    pub(super) fn record_failure(&self, parts: &Parts) {
        if let Some((key, per_minute)) = self.key_of(parts) {
            // Of many requests at once, each may have passed `check`. All of them count.
            self.lock().failed.record(&key, per_minute, Instant::now());
        }
    }

    /// Returns what the request is counted by, and the limit. `None`: it is not counted.
    fn key_of(&self, parts: &Parts) -> Option<(AttemptKey, usize)> {
        let per_minute = self.per_minute?;
        let client = self.proxies.client_of(parts)?;
        // All clients behind a proxy that is not configured have its address: they must not share a limit.
        if let Some(proxy) = self.proxies.unlisted_proxy(parts) {
            self.unlisted_proxy.call_once(|| telemetry::unnamed_proxy(proxy));
            return None;
        }
        let cross_origin = is_cross_origin(parts) == Some(true);
        Some((AttemptKey { network: client_addr::network_of(client), cross_origin }, per_minute))
    }

    /// No code under the lock can panic, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
