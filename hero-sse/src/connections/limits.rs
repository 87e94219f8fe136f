//! How many streams there may be, how many there are of each kind, and how fast callers come.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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
pub(crate) enum NoPlace {
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
    Churn(Duration),
}

impl NoPlace {
    pub(crate) const fn reason(self) -> CloseReason {
        match self {
            Self::Draining | Self::Closed => CloseReason::Draining,
            Self::Unverified | Self::Changed => CloseReason::Unverified,
            Self::Total | Self::Path | Self::Subject | Self::Address | Self::Churn(_) => {
                CloseReason::OverLimit
            }
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
            Self::Churn(_) => "this principal's connects a minute",
        }
    }
}

/// What a stream is counted by.
pub(super) struct Keys<'a> {
    pub(super) path: &'a Arc<str>,
    pub(super) subject: Option<&'a Arc<str>>,
    /// What is counted as one address.
    pub(super) place: Option<IpAddr>,
}

/// How many streams are open on each path, for each subject and from each address. What has none
/// has no entry.
#[derive(Default)]
pub(super) struct Places {
    by_path: HashMap<Arc<str>, usize>,
    by_subject: HashMap<Arc<str>, usize>,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    /// Whether one more stream fits beside the `total` there are.
    pub(super) fn check(
        &self,
        total: usize,
        keys: &Keys<'_>,
        limits: &Limits,
    ) -> Result<(), NoPlace> {
        let Self { by_path, by_subject, by_address } = self;
        if total >= limits.total {
            Err(NoPlace::Total)
        } else if limits.on_path.is_some_and(|limit| count(by_path, keys.path) >= limit) {
            Err(NoPlace::Path)
        } else if keys.subject.is_some_and(|who| count(by_subject, who) >= limits.of_subject) {
            Err(NoPlace::Subject)
        } else if keys
            .place
            .zip(limits.of_address)
            .is_some_and(|(place, limit)| count(by_address, &place) >= limit)
        {
            Err(NoPlace::Address)
        } else {
            Ok(())
        }
    }

    pub(super) fn enter(&mut self, keys: &Keys<'_>) {
        *self.by_path.entry(keys.path.clone()).or_default() += 1;
        if let Some(subject) = keys.subject {
            *self.by_subject.entry(subject.clone()).or_default() += 1;
        }
        if let Some(place) = keys.place {
            *self.by_address.entry(place).or_default() += 1;
        }
    }

    pub(super) fn leave(&mut self, keys: &Keys<'_>) {
        release(&mut self.by_path, keys.path);
        if let Some(subject) = keys.subject {
            release(&mut self.by_subject, subject);
        }
        if let Some(place) = keys.place {
            release(&mut self.by_address, &place);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty() && self.by_subject.is_empty() && self.by_address.is_empty()
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

const MINUTE: Duration = Duration::from_secs(60);

/// How often each subject has come lately: a bucket that holds a minute's attempts and fills up again
/// within a minute, kept as the moment at which it will be full.
///
/// Whoever has not come for a minute has a full bucket, as one who never came. So two tables do, which
/// take turns: what nobody touched for a whole turn goes with the older one.
#[derive(Default)]
pub(super) struct Churn {
    recent: HashMap<Arc<str>, Instant>,
    older: HashMap<Arc<str>, Instant>,
    turned: Option<Instant>,
}

impl Churn {
    /// Counts one attempt, unless there were too many.
    ///
    /// # Errors
    ///
    /// The time after which there is room for one more.
    pub(super) fn attempt(
        &mut self,
        subject: &Arc<str>,
        per_minute: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        self.turn(now);
        let step = MINUTE / u32::try_from(per_minute).unwrap_or(u32::MAX).max(1);
        let known = self.recent.get(subject).or_else(|| self.older.get(subject));
        let full = known.map_or(now, |full| now.max(*full)) + step;
        let wait = full.saturating_duration_since(now + MINUTE);
        if wait.is_zero() {
            self.recent.insert(subject.clone(), full);
            Ok(())
        } else {
            Err(wait)
        }
    }

    fn turn(&mut self, now: Instant) {
        let since = self.turned.map(|turned| now.saturating_duration_since(turned));
        if since.is_some_and(|since| since < MINUTE) {
            return;
        }
        self.older = mem::take(&mut self.recent);
        if since.is_some_and(|since| since >= 2 * MINUTE) {
            self.older = HashMap::new();
        }
        self.turned = Some(now);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

/// Which lines the log has had lately, so that an overload does not flood it.
#[derive(Default)]
pub(super) struct Said(HashMap<(Arc<str>, &'static str), (Instant, u64)>);

/// A path and limit are named once in this time.
const QUIET: Duration = Duration::from_secs(1);

/// Where a handler with `SseContext` answers for any path there may be any number of them.
const MOST_LINES: usize = 1024;

impl Said {
    /// Whether to say now that this limit of this path was reached, and how many times it was kept
    /// back since it was said last.
    pub(super) fn say(
        &mut self,
        path: &Arc<str>,
        limit: &'static str,
        now: Instant,
    ) -> Option<u64> {
        if self.0.len() >= MOST_LINES {
            self.0.clear();
        }
        let Some((last, kept_back)) = self.0.get_mut(&(path.clone(), limit)) else {
            self.0.insert((path.clone(), limit), (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*last) < QUIET {
            *kept_back += 1;
            return None;
        }
        *last = now;
        Some(mem::take(kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_bucket_gives_a_minutes_attempts_at_once_and_then_one_a_step() {
        let (mut churn, start, ann) = (Churn::default(), Instant::now(), who("ann"));
        for per_minute in [1, 7, 60, 300] {
            churn = Churn::default();
            for n in 0..per_minute {
                assert_eq!(churn.attempt(&ann, per_minute, start), Ok(()), "{n} of {per_minute}");
            }
            let wait = churn.attempt(&ann, per_minute, start).expect_err("too many");
            assert_eq!(wait.as_millis(), 60_000 / per_minute as u128, "{per_minute}");
            assert_eq!(churn.attempt(&who("bob"), per_minute, start), Ok(()));
            // Attempts in vain cost nothing; just before the time is too early, at the time is not.
            assert!(
                churn.attempt(&ann, per_minute, start + wait - Duration::from_micros(1)).is_err()
            );
            assert_eq!(churn.attempt(&ann, per_minute, start + wait), Ok(()));
            assert!(churn.attempt(&ann, per_minute, start + wait).is_err());
        }
        let later = start + 3 * MINUTE;
        assert!((0..300).all(|_| churn.attempt(&ann, 300, later).is_ok()), "full again");
    }

    #[test]
    fn eight_tabs_that_come_back_every_three_seconds_are_never_too_many() {
        let (mut churn, start, ann) = (Churn::default(), Instant::now(), who("ann"));
        for round in 0..1000u32 {
            for _ in 0..8 {
                let now = start + round * Duration::from_secs(3);
                assert_eq!(churn.attempt(&ann, 300, now), Ok(()), "{round}");
            }
        }
    }

    #[test]
    fn a_caller_that_never_stops_gets_its_rate_across_the_turns() {
        let (mut churn, start, ann) = (Churn::default(), Instant::now(), who("ann"));
        let tries = (0..10 * 600u32).map(|n| start + n * Duration::from_millis(100));
        let admitted = tries.filter(|now| churn.attempt(&ann, 60, *now).is_ok()).count();
        assert!((650..=660).contains(&admitted), "{admitted} in ten minutes");
    }

    #[test]
    fn who_has_not_come_for_a_while_takes_no_memory() {
        let (mut churn, start) = (Churn::default(), Instant::now());
        let mut most = 0;
        for n in 0..100_000u32 {
            let now = start + n * Duration::from_millis(60);
            assert_eq!(churn.attempt(&who(&n.to_string()), 300, now), Ok(()));
            most = most.max(churn.len());
        }
        // A thousand new ones a minute.
        assert!(most <= 2_001, "{most}");
        assert_eq!(churn.attempt(&who("ann"), 300, start + 1000 * MINUTE), Ok(()));
        assert_eq!(churn.len(), 1);
    }

    #[test]
    fn a_line_is_said_once_a_second_and_tells_how_many_were_not() {
        let (mut said, start, path) = (Said::default(), Instant::now(), who("/a"));
        assert_eq!(said.say(&path, "x", start), Some(0));
        for n in 1..1000 {
            assert_eq!(said.say(&path, "x", start + Duration::from_millis(n)), None);
        }
        assert_eq!(said.say(&path, "y", start), Some(0), "another limit");
        assert_eq!(said.say(&who("/b"), "x", start), Some(0), "another path");
        assert_eq!(said.say(&path, "x", start + QUIET), Some(999));
        assert_eq!(said.say(&path, "x", start + 2 * QUIET), Some(0));
        for n in 0..10 * MOST_LINES {
            said.say(&who(&n.to_string()), "x", start);
        }
        assert!(said.0.len() <= MOST_LINES);
    }
}
