//! The settings of one stream. [`settings`] is the table of all settings, one row each; [`value`] has the types of
//! their values. Here is the one place where defaults, options and declaration become a [`Policy`].

mod generate;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::generate::{attribute_row, method_of};
pub(crate) use self::settings::{Layers, Policy, PolicyOverrides, ServerSettings};
pub use self::value::{Method, OverLimit, TokenSource};
pub(crate) use self::value::{StreamKind, TokenSources};
use crate::close::CloseReason;
use crate::duration::random_between;
use crate::frame::RETRY;
pub use crate::overflow::Overflow;
pub use crate::profile::Profile;

/// The capacity of a buffer when only `overflow` is set: enough for a burst, and affordable for ten thousand
/// clients.
const DEFAULT_BUFFER: usize = 256;

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

    /// Returns how a stream ends for this reason. `can_reopen` is `false` where the same request cannot open it again.
    pub(crate) fn ending(&self, reason: CloseReason, can_reopen: bool) -> Ending {
        let is_broken = reason.reconnect() && can_reopen && !self.clean_end;
        match (self.profile, reason) {
            (Profile::Native, CloseReason::Ended) => Ending::CloseEvent,
            (Profile::Native, _) if is_broken => Ending::Broken,
            (Profile::Native, _) => Ending::CloseEvent,
            (Profile::Plain, CloseReason::Ended | CloseReason::LastEvent) => Ending::Clean,
            (Profile::Plain, _) => Ending::Broken,
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

/// How a stream ends on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `hero.close`, then the end of the body.
    CloseEvent,
    /// The end of the body.
    Clean,
    /// The body breaks off.
    Broken,
}

fn jittered(retry: Duration) -> Duration {
    random_between(retry, retry.mul_f64(1.5)).min(*RETRY.end())
}
