//! How often something may happen: buckets for callers, and for lines of the log.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// How often each key has come lately: a bucket that holds a minute's attempts and fills up again
/// within a minute, kept as the moment at which it will be full.
///
/// Whoever has not come for a minute has a full bucket, as one who never came. So two tables do, which
/// take turns: what nobody touched for a whole turn goes with the older one.
pub(crate) struct RateLimiter<K> {
    recent: HashMap<K, Instant>,
    older: HashMap<K, Instant>,
    turned: Option<Instant>,
    /// How many keys a table holds; what comes beyond is not counted.
    most: usize,
}

impl<K> Default for RateLimiter<K> {
    fn default() -> Self {
        Self::of_at_most(usize::MAX)
    }
}

impl<K> RateLimiter<K> {
    /// For keys that anybody can make up: no more than so many a turn are remembered.
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self { recent: HashMap::new(), older: HashMap::new(), turned: None, most }
    }
}

impl<K: Clone + Eq + Hash> RateLimiter<K> {
    /// Counts one attempt, unless there were too many.
    ///
    /// # Errors
    ///
    /// The time after which there is room for one more.
    pub(crate) fn attempt(
        &mut self,
        key: &K,
        per_minute: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let full = self.room(key, per_minute, now)?;
        self.keep(key, full);
        Ok(())
    }

    /// Counts one that has happened, though there may have been room for none: what is too much is
    /// paid back before there is room again, a minute's worth at most.
    pub(crate) fn happened(&mut self, key: &K, per_minute: usize, now: Instant) {
        let full = self.full(key, per_minute, now).min(now + 2 * MINUTE);
        self.keep(key, full);
    }

    /// Whether there is room for one more attempt; when the bucket would be full again after it.
    ///
    /// # Errors
    ///
    /// As [`attempt`](Self::attempt).
    pub(crate) fn room(
        &mut self,
        key: &K,
        per_minute: usize,
        now: Instant,
    ) -> Result<Instant, Duration> {
        let full = self.full(key, per_minute, now);
        let wait = full.saturating_duration_since(now + MINUTE);
        if wait.is_zero() { Ok(full) } else { Err(wait) }
    }

    /// When the bucket would be full again after one more.
    fn full(&mut self, key: &K, per_minute: usize, now: Instant) -> Instant {
        self.turn(now);
        let step = MINUTE / u32::try_from(per_minute).unwrap_or(u32::MAX).max(1);
        let known = self.recent.get(key).or_else(|| self.older.get(key));
        known.map_or(now, |full| now.max(*full)) + step
    }

    fn keep(&mut self, key: &K, full: Instant) {
        if self.recent.len() < self.most || self.recent.contains_key(key) {
            self.recent.insert(key.clone(), full);
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
    pub(crate) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }
}

/// Which lines the log has had lately, so that an overload does not flood it.
pub(crate) struct LogThrottle<K>(HashMap<K, (Instant, u64)>);

/// A line is said once in this time.
const QUIET: Duration = Duration::from_secs(1);

/// There may be any number of keys, such as paths that a handler with `SseContext` answers for.
const MOST_LINES: usize = 1024;

impl<K> Default for LogThrottle<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> LogThrottle<K> {
    /// Whether to say this line now, and how many times it was kept back since it was said last.
    pub(crate) fn say(&mut self, line: K, now: Instant) -> Option<u64> {
        if self.0.len() >= MOST_LINES {
            self.0.clear();
        }
        let Some((last, kept_back)) = self.0.get_mut(&line) else {
            self.0.insert(line, (now, 0));
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
    use std::sync::Arc;

    use super::*;

    fn who(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_bucket_gives_a_minutes_attempts_at_once_and_then_one_a_step() {
        let (mut limiter, start, ann) = (RateLimiter::default(), Instant::now(), who("ann"));
        for per_minute in [1, 7, 60, 300] {
            limiter = RateLimiter::default();
            for n in 0..per_minute {
                assert_eq!(limiter.attempt(&ann, per_minute, start), Ok(()), "{n} of {per_minute}");
            }
            let wait = limiter.attempt(&ann, per_minute, start).expect_err("too many");
            assert_eq!(wait.as_millis(), 60_000 / per_minute as u128, "{per_minute}");
            assert_eq!(limiter.attempt(&who("bob"), per_minute, start), Ok(()));
            // Attempts in vain cost nothing; just before the time is too early, at the time is not.
            assert!(
                limiter.attempt(&ann, per_minute, start + wait - Duration::from_micros(1)).is_err()
            );
            assert_eq!(limiter.attempt(&ann, per_minute, start + wait), Ok(()));
            assert!(limiter.attempt(&ann, per_minute, start + wait).is_err());
        }
        let later = start + 3 * MINUTE;
        assert!((0..300).all(|_| limiter.attempt(&ann, 300, later).is_ok()), "full again");
    }

    #[test]
    fn eight_tabs_that_come_back_every_three_seconds_are_never_too_many() {
        let (mut limiter, start, ann) = (RateLimiter::default(), Instant::now(), who("ann"));
        for round in 0..1000u32 {
            for _ in 0..8 {
                let now = start + round * Duration::from_secs(3);
                assert_eq!(limiter.attempt(&ann, 300, now), Ok(()), "{round}");
            }
        }
    }

    #[test]
    fn a_caller_that_never_stops_gets_its_rate_across_the_turns() {
        let (mut limiter, start, ann) = (RateLimiter::default(), Instant::now(), who("ann"));
        let tries = (0..10 * 600u32).map(|n| start + n * Duration::from_millis(100));
        let admitted = tries.filter(|now| limiter.attempt(&ann, 60, *now).is_ok()).count();
        assert!((650..=660).contains(&admitted), "{admitted} in ten minutes");
    }

    #[test]
    fn who_has_not_come_for_a_while_takes_no_memory() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        let mut most = 0;
        for n in 0..100_000u32 {
            let now = start + n * Duration::from_millis(60);
            assert_eq!(limiter.attempt(&who(&n.to_string()), 300, now), Ok(()));
            most = most.max(limiter.len());
        }
        // A thousand new ones a minute.
        assert!(most <= 2_001, "{most}");
        assert_eq!(limiter.attempt(&who("ann"), 300, start + 1000 * MINUTE), Ok(()));
        assert_eq!(limiter.len(), 1);
    }

    #[test]
    fn a_line_is_said_once_a_second_and_tells_how_many_were_not() {
        let (mut said, start, path) = (LogThrottle::default(), Instant::now(), who("/a"));
        assert_eq!(said.say((path.clone(), "x"), start), Some(0));
        for n in 1..1000 {
            assert_eq!(said.say((path.clone(), "x"), start + Duration::from_millis(n)), None);
        }
        assert_eq!(said.say((path.clone(), "y"), start), Some(0), "another limit");
        assert_eq!(said.say((who("/b"), "x"), start), Some(0), "another path");
        assert_eq!(said.say((path.clone(), "x"), start + QUIET), Some(999));
        assert_eq!(said.say((path.clone(), "x"), start + 2 * QUIET), Some(0));
        for n in 0..10 * MOST_LINES {
            said.say((who(&n.to_string()), "x"), start);
        }
        assert!(said.0.len() <= MOST_LINES);
    }

    #[test]
    fn a_table_that_is_full_counts_those_it_knows_and_lets_the_others_pass() {
        let (mut limiter, start) = (RateLimiter::of_at_most(10), Instant::now());
        for n in 0..1000 {
            assert_eq!(limiter.attempt(&n, 2, start), Ok(()));
        }
        assert_eq!(limiter.len(), 10);
        assert_eq!(limiter.attempt(&3, 2, start), Ok(()));
        assert!(limiter.attempt(&3, 2, start).is_err() && limiter.room(&3, 2, start).is_err());
        assert!((0..9).all(|_| limiter.attempt(&500, 2, start).is_ok()));
        assert!(limiter.attempt(&3, 2, start + MINUTE / 2).is_ok());
    }

    #[test]
    fn looking_whether_there_is_room_takes_none() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        assert!((0..1000).all(|_| limiter.room(&"ann", 1, start).is_ok()));
        assert_eq!((limiter.len(), limiter.attempt(&"ann", 1, start)), (0, Ok(())));
        assert_eq!(limiter.room(&"ann", 1, start).err(), Some(MINUTE));
    }

    #[test]
    fn what_happened_without_room_is_paid_back_within_a_minute() {
        let (mut limiter, start) = (RateLimiter::default(), Instant::now());
        (0..90).for_each(|_| limiter.happened(&"ann", 60, start));
        // Thirty too many, and the one to come.
        assert_eq!(limiter.room(&"ann", 60, start).err(), Some(Duration::from_secs(31)));
        (0..1_000).for_each(|_| limiter.happened(&"ann", 60, start));
        assert_eq!(limiter.room(&"ann", 60, start).err(), Some(MINUTE + Duration::from_secs(1)));
        assert!(limiter.room(&"ann", 60, start + MINUTE + Duration::from_secs(1)).is_ok());
        assert!(limiter.room(&"bob", 60, start).is_ok());
    }
}
