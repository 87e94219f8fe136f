//! Limits rates: of callers ([`RateLimiter`]), and of lines in the log ([`LogThrottle`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Limits the attempts per minute of each key by token buckets. A bucket holds the attempts of one minute and refills
/// within a minute. It is stored as the time at which it will be full.
///
/// A key that was unused for a minute has a full bucket, like an unknown key. Two tables therefore alternate: each
/// minute the older table is dropped, with the keys that were unused since.
pub(crate) struct RateLimiter<K> {
    recent: HashMap<K, Instant>,
    older: HashMap<K, Instant>,
    /// When the tables last alternated.
    rotated: Option<Instant>,
    /// Maximum number of keys per table. Attempts of further keys are not counted.
    max_keys: usize,
}

impl<K> Default for RateLimiter<K> {
    fn default() -> Self {
        Self::with_max_keys(usize::MAX)
    }
}

impl<K> RateLimiter<K> {
    /// Creates a limiter that stores at most `max_keys` per minute, for keys that clients choose.
    pub(crate) fn with_max_keys(max_keys: usize) -> Self {
        Self { recent: HashMap::new(), older: HashMap::new(), rotated: None, max_keys }
    }
}

impl<K: Clone + Eq + Hash> RateLimiter<K> {
    /// Counts one attempt, unless the key is over its limit.
    ///
    /// # Errors
    ///
    /// Returns the time until the next attempt is allowed.
    pub(crate) fn attempt(
        &mut self,
        key: &K,
        per_minute: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let full = self.check(key, per_minute, now)?;
        self.store(key, full);
        Ok(())
    }

    /// Counts an event that has happened already, even over the limit. The excess, up to the attempts of one minute,
    /// delays the next allowed attempt.
    pub(crate) fn record(&mut self, key: &K, per_minute: usize, now: Instant) {
        let full = self.full_at(key, per_minute, now).min(now + 2 * MINUTE);
        self.store(key, full);
    }

    /// Checks whether one more attempt is allowed, without counting it. Returns when the bucket would be full after it.
    ///
    /// # Errors
    ///
    /// As [`attempt`](Self::attempt).
    pub(crate) fn check(
        &mut self,
        key: &K,
        per_minute: usize,
        now: Instant,
    ) -> Result<Instant, Duration> {
        let full = self.full_at(key, per_minute, now);
        let wait = full.saturating_duration_since(now + MINUTE);
        if wait.is_zero() { Ok(full) } else { Err(wait) }
    }

    /// Returns when the bucket would be full after one more attempt.
    fn full_at(&mut self, key: &K, per_minute: usize, now: Instant) -> Instant {
        self.rotate(now);
        let step = MINUTE / u32::try_from(per_minute).unwrap_or(u32::MAX).max(1);
        let known = self.recent.get(key).or_else(|| self.older.get(key));
        known.map_or(now, |full| now.max(*full)) + step
    }

    fn store(&mut self, key: &K, full: Instant) {
        if self.recent.len() < self.max_keys || self.recent.contains_key(key) {
            self.recent.insert(key.clone(), full);
        }
    }

    fn rotate(&mut self, now: Instant) {
        let since = self.rotated.map(|rotated| now.saturating_duration_since(rotated));
        if since.is_some_and(|since| since < MINUTE) {
            return;
        }
        self.older = mem::take(&mut self.recent);
        if since.is_some_and(|since| since >= 2 * MINUTE) {
            self.older = HashMap::new();
        }
        self.rotated = Some(now);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

/// Limits how often each line is logged, so that an overload does not flood the log.
pub(crate) struct LogThrottle<K>(HashMap<K, (Instant, u64)>);

/// Each line is logged at most once in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of lines stored. Keys are unbounded: a handler with `SseContext` may answer any number of paths.
const MAX_LINES: usize = 1024;

impl<K> Default for LogThrottle<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> LogThrottle<K> {
    /// Returns the number of suppressed repetitions if `line` may be logged now, or `None` if it is suppressed.
    pub(crate) fn allow(&mut self, line: K, now: Instant) -> Option<u64> {
        if self.0.len() >= MAX_LINES {
            self.0.clear();
        }
        let Some((last, suppressed)) = self.0.get_mut(&line) else {
            self.0.insert(line, (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*last) < INTERVAL {
            *suppressed += 1;
            return None;
        }
        *last = now;
        Some(mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_bucket_allows_a_burst_of_one_minute_and_then_a_steady_rate() {
        let (mut limiter, start, ann) = (RateLimiter::default(), Instant::now(), key("ann"));
        for per_minute in [1, 7, 60, 300] {
            limiter = RateLimiter::default();
            for n in 0..per_minute {
                assert_eq!(limiter.attempt(&ann, per_minute, start), Ok(()), "{n} of {per_minute}");
            }
            let wait = limiter.attempt(&ann, per_minute, start).expect_err("over the limit");
            assert_eq!(wait.as_millis(), 60_000 / per_minute as u128, "{per_minute}");
            assert_eq!(limiter.attempt(&key("bob"), per_minute, start), Ok(()));
            // A rejected attempt is not counted, and the returned time is exact.
            assert!(
                limiter.attempt(&ann, per_minute, start + wait - Duration::from_micros(1)).is_err()
            );
            assert_eq!(limiter.attempt(&ann, per_minute, start + wait), Ok(()));
            assert!(limiter.attempt(&ann, per_minute, start + wait).is_err());
        }
        let later = start + 3 * MINUTE;
        assert!(
            (0..300).all(|_| limiter.attempt(&ann, 300, later).is_ok()),
            "the bucket is full again"
        );
    }

    #[test]
    fn eight_tabs_that_reconnect_every_three_seconds_stay_below_the_limit() {
        let (mut limiter, start, ann) = (RateLimiter::default(), Instant::now(), key("ann"));
        for round in 0..1000u32 {
            for _ in 0..8 {
                let now = start + round * Duration::from_secs(3);
                assert_eq!(limiter.attempt(&ann, 300, now), Ok(()), "{round}");
            }
        }
    }

    #[test]
    fn a_caller_that_never_pauses_gets_its_rate_across_rotations() {
        let (mut limiter, start, ann) = (RateLimiter::default(), Instant::now(), key("ann"));
        let tries = (0..10 * 600u32).map(|n| start + n * Duration::from_millis(100));
        let admitted = tries.filter(|now| limiter.attempt(&ann, 60, *now).is_ok()).count();
        assert!((650..=660).contains(&admitted), "{admitted} in ten minutes");
    }

    #[test]
    fn unused_keys_are_dropped() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        let mut most = 0;
        for n in 0..100_000u32 {
            let now = start + n * Duration::from_millis(60);
            assert_eq!(limiter.attempt(&key(&n.to_string()), 300, now), Ok(()));
            most = most.max(limiter.len());
        }
        // A thousand new keys per minute.
        assert!(most <= 2_001, "{most}");
        assert_eq!(limiter.attempt(&key("ann"), 300, start + 1000 * MINUTE), Ok(()));
        assert_eq!(limiter.len(), 1);
    }

    #[test]
    fn a_line_is_logged_once_a_second_with_the_number_of_suppressed_ones() {
        let (mut log, start, path) = (LogThrottle::default(), Instant::now(), key("/a"));
        assert_eq!(log.allow((path.clone(), "x"), start), Some(0));
        for n in 1..1000 {
            assert_eq!(log.allow((path.clone(), "x"), start + Duration::from_millis(n)), None);
        }
        assert_eq!(log.allow((path.clone(), "y"), start), Some(0), "another limit");
        assert_eq!(log.allow((key("/b"), "x"), start), Some(0), "another path");
        assert_eq!(log.allow((path.clone(), "x"), start + INTERVAL), Some(999));
        assert_eq!(log.allow((path.clone(), "x"), start + 2 * INTERVAL), Some(0));
        for n in 0..10 * MAX_LINES {
            log.allow((key(&n.to_string()), "x"), start);
        }
        assert!(log.0.len() <= MAX_LINES);
    }

    #[test]
    fn a_full_table_limits_known_keys_and_lets_others_pass() {
        let (mut limiter, start) = (RateLimiter::with_max_keys(10), Instant::now());
        for n in 0..1000 {
            assert_eq!(limiter.attempt(&n, 2, start), Ok(()));
        }
        assert_eq!(limiter.len(), 10);
        assert_eq!(limiter.attempt(&3, 2, start), Ok(()));
        assert!(limiter.attempt(&3, 2, start).is_err() && limiter.check(&3, 2, start).is_err());
        assert!((0..9).all(|_| limiter.attempt(&500, 2, start).is_ok()));
        assert!(limiter.attempt(&3, 2, start + MINUTE / 2).is_ok());
    }

    #[test]
    fn checking_does_not_count_an_attempt() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        assert!((0..1000).all(|_| limiter.check(&"ann", 1, start).is_ok()));
        assert_eq!((limiter.len(), limiter.attempt(&"ann", 1, start)), (0, Ok(())));
        assert_eq!(limiter.check(&"ann", 1, start).err(), Some(MINUTE));
    }

    #[test]
    fn recorded_excess_delays_the_next_attempt_by_a_minute_at_most() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        (0..90).for_each(|_| limiter.record(&"ann", 60, start));
        // Thirty over the limit, and the next one.
        assert_eq!(limiter.check(&"ann", 60, start).err(), Some(Duration::from_secs(31)));
        (0..1_000).for_each(|_| limiter.record(&"ann", 60, start));
        assert_eq!(limiter.check(&"ann", 60, start).err(), Some(MINUTE + Duration::from_secs(1)));
        assert!(limiter.check(&"ann", 60, start + MINUTE + Duration::from_secs(1)).is_ok());
        assert!(limiter.check(&"bob", 60, start).is_ok());
    }
}
