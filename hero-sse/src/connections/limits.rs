//! The limits of open streams, and how many streams there are of each kind.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Principal;
use crate::close::CloseReason;

/// The maximum numbers of open streams. `None`: unlimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) per_path: Option<usize>,
    pub(crate) per_principal: usize,
    pub(crate) per_address: Option<usize>,
    pub(crate) connects_per_minute: Option<usize>,
}

impl Limits {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self {
        total: usize::MAX,
        per_path: None,
        per_principal: usize::MAX,
        per_address: None,
        connects_per_minute: None,
    };
}

/// Why a stream was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionError {
    /// The server is shutting down.
    Draining,
    /// The endpoint is closed.
    Closed,
    /// One of the limits of open streams was reached.
    Total,
    Path,
    Principal,
    Address,
    /// The caller's permission cannot be verified at the moment.
    Unverified,
    /// A disconnect matched this caller after it was checked.
    Changed,
    /// The caller connects too often. It may connect once more after this time.
    RateLimited(Duration),
    /// Too many invalid tokens came from this address. One more is checked after this time.
    FailedAttempts(Duration),
}

impl AdmissionError {
    pub(crate) const fn reason(self) -> CloseReason {
        match self {
            Self::Draining | Self::Closed => CloseReason::Draining,
            Self::Unverified | Self::Changed => CloseReason::Unverified,
            Self::Total
            | Self::Path
            | Self::Principal
            | Self::Address
            | Self::RateLimited(_)
            | Self::FailedAttempts(_) => CloseReason::OverLimit,
        }
    }

    /// Returns the limit's name in logs and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Closed => "closed endpoint",
            Self::Unverified | Self::Changed => "unverified",
            Self::Total => "all connections",
            Self::Path => "this endpoint's connections",
            Self::Principal => "this principal's connections",
            Self::Address => "this address's connections",
            Self::RateLimited(_) => "this principal's connects a minute",
            Self::FailedAttempts(_) => "this address's failed attempts a minute",
        }
    }

    /// Returns the time after which a new attempt can succeed, where it is known.
    pub(crate) const fn retry_after(self) -> Duration {
        match self {
            Self::RateLimited(wait) | Self::FailedAttempts(wait) => wait,
            _ => Duration::ZERO,
        }
    }
}

/// What the streams of one caller are counted by. Subjects of different issuers are different callers.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct CallerKey {
    issuer: Option<String>,
    subject: String,
}

impl CallerKey {
    pub(super) fn of(principal: &Principal) -> Self {
        let issuer = principal.issuer().map(str::to_owned);
        Self { issuer, subject: principal.subject().to_owned() }
    }
}

/// What one stream is counted by.
pub(super) struct Keys<'a> {
    pub(super) path: &'a Arc<str>,
    pub(super) caller: Option<&'a Arc<CallerKey>>,
    /// The address, or the network that counts as one address.
    pub(super) network: Option<IpAddr>,
}

/// Numbers of open streams of each path, caller and network. Zero has no entry.
#[derive(Default)]
pub(super) struct Counts {
    by_path: HashMap<Arc<str>, usize>,
    by_caller: HashMap<Arc<CallerKey>, usize>,
    by_network: HashMap<IpAddr, usize>,
}

impl Counts {
    /// Checks whether one more stream fits within the limits, besides the `total` that are open.
    pub(super) fn check(
        &self,
        total: usize,
        keys: &Keys<'_>,
        limits: &Limits,
    ) -> Result<(), AdmissionError> {
        let Self { by_path, by_caller, by_network } = self;
        if total >= limits.total {
            Err(AdmissionError::Total)
        } else if limits.per_path.is_some_and(|limit| count(by_path, keys.path) >= limit) {
            Err(AdmissionError::Path)
        } else if keys.caller.is_some_and(|key| count(by_caller, key) >= limits.per_principal) {
            Err(AdmissionError::Principal)
        } else if keys
            .network
            .zip(limits.per_address)
            .is_some_and(|(network, limit)| count(by_network, &network) >= limit)
        {
            Err(AdmissionError::Address)
        } else {
            Ok(())
        }
    }

    pub(super) fn add(&mut self, keys: &Keys<'_>) {
        *self.by_path.entry(keys.path.clone()).or_default() += 1;
        if let Some(caller) = keys.caller {
            *self.by_caller.entry(caller.clone()).or_default() += 1;
        }
        if let Some(network) = keys.network {
            *self.by_network.entry(network).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, keys: &Keys<'_>) {
        decrement(&mut self.by_path, keys.path);
        if let Some(caller) = keys.caller {
            decrement(&mut self.by_caller, caller);
        }
        if let Some(network) = keys.network {
            decrement(&mut self.by_network, &network);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty() && self.by_caller.is_empty() && self.by_network.is_empty()
    }
}

fn count<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
