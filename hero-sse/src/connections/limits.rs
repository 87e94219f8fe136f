//! How many streams there may be, and how many there are of each kind.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Principal;
use crate::close::CloseReason;

/// How many streams there may be. `None` is any number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) on_path: Option<usize>,
    pub(crate) of_subject: usize,
    pub(crate) of_address: Option<usize>,
    pub(crate) connects_per_minute: Option<usize>,
}

impl Limits {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self {
        total: usize::MAX,
        on_path: None,
        of_subject: usize::MAX,
        of_address: None,
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
    Total,
    Path,
    Subject,
    Address,
    /// Whether the caller may have one cannot be found out now.
    Unverified,
    /// Callers like this one were disconnected since it was looked at.
    Changed,
    /// The subject comes too often; after this time it may come once more.
    RateLimited(Duration),
    /// Too many tokens from this address were not accepted; after this time one more is looked at.
    Failures(Duration),
}

impl AdmissionError {
    pub(crate) const fn reason(self) -> CloseReason {
        match self {
            Self::Draining | Self::Closed => CloseReason::Draining,
            Self::Unverified | Self::Changed => CloseReason::Unverified,
            Self::Total
            | Self::Path
            | Self::Subject
            | Self::Address
            | AdmissionError::RateLimited(_)
            | Self::Failures(_) => CloseReason::OverLimit,
        }
    }

    /// As the log has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Closed => "closed endpoint",
            Self::Unverified | Self::Changed => "unverified",
            Self::Total => "all connections",
            Self::Path => "this endpoint's connections",
            Self::Subject => "this principal's connections",
            Self::Address => "this address's connections",
            AdmissionError::RateLimited(_) => "this principal's connects a minute",
            Self::Failures(_) => "this address's failed attempts a minute",
        }
    }
}

/// Whose streams are counted as one caller's: a subject is one among those of its issuer.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Holder {
    issuer: Option<String>,
    subject: String,
}

impl Holder {
    pub(super) fn of(principal: &Principal) -> Self {
        let issuer = principal.issuer().map(str::to_owned);
        Self { issuer, subject: principal.subject().to_owned() }
    }
}

/// What a stream is counted by.
pub(super) struct Keys<'a> {
    pub(super) path: &'a Arc<str>,
    pub(super) holder: Option<&'a Arc<Holder>>,
    /// What is counted as one address.
    pub(super) place: Option<IpAddr>,
}

/// How many streams are open on each path, for each caller and from each address. What has none
/// has no entry.
#[derive(Default)]
pub(super) struct Places {
    by_path: HashMap<Arc<str>, usize>,
    by_holder: HashMap<Arc<Holder>, usize>,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    /// Whether one more stream fits beside the `total` there are.
    pub(super) fn check(
        &self,
        total: usize,
        keys: &Keys<'_>,
        limits: &Limits,
    ) -> Result<(), AdmissionError> {
        let Self { by_path, by_holder, by_address } = self;
        if total >= limits.total {
            Err(AdmissionError::Total)
        } else if limits.on_path.is_some_and(|limit| count(by_path, keys.path) >= limit) {
            Err(AdmissionError::Path)
        } else if keys.holder.is_some_and(|who| count(by_holder, who) >= limits.of_subject) {
            Err(AdmissionError::Subject)
        } else if keys
            .place
            .zip(limits.of_address)
            .is_some_and(|(place, limit)| count(by_address, &place) >= limit)
        {
            Err(AdmissionError::Address)
        } else {
            Ok(())
        }
    }

    pub(super) fn enter(&mut self, keys: &Keys<'_>) {
        *self.by_path.entry(keys.path.clone()).or_default() += 1;
        if let Some(holder) = keys.holder {
            *self.by_holder.entry(holder.clone()).or_default() += 1;
        }
        if let Some(place) = keys.place {
            *self.by_address.entry(place).or_default() += 1;
        }
    }

    pub(super) fn leave(&mut self, keys: &Keys<'_>) {
        release(&mut self.by_path, keys.path);
        if let Some(holder) = keys.holder {
            release(&mut self.by_holder, holder);
        }
        if let Some(place) = keys.place {
            release(&mut self.by_address, &place);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty() && self.by_holder.is_empty() && self.by_address.is_empty()
    }
}

fn count<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
