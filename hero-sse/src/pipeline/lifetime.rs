//! When a stream must end: its maximum age, or the expiry of its caller's token.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::auth::Principal;
use crate::close::CloseReason;
use crate::duration::{random_between, shortened};
use crate::policy::Policy;
use crate::writer::ScheduledEnd;

/// Returns when a stream of this caller must end.
pub(super) fn scheduled_end(
    policy: &Policy,
    principal: Option<&Principal>,
) -> Option<ScheduledEnd> {
    let age = policy.max_age.map(|age| (shortened(age), CloseReason::MaxAge));
    let token = principal.and_then(Principal::expires_at).map(|expiry| {
        let remaining = expiry.duration_since(SystemTime::now()).unwrap_or_default();
        (token_lifetime(remaining), CloseReason::TokenExpired)
    });
    let (after, reason) = [age, token].into_iter().flatten().min_by_key(|(after, _)| *after)?;
    Some(ScheduledEnd { at: Instant::now().checked_add(after)?, reason })
}

/// How long a stream lasts on a token that is valid for `remaining`.
///
/// A client that reconnects with the rest of a token gets at most a tenth of the time, and in the last minute
/// all of it. So one token opens few streams.
fn token_lifetime(remaining: Duration) -> Duration {
    const EXACT: Duration = Duration::from_secs(60);
    if remaining <= EXACT { remaining } else { random_between(remaining.mul_f64(0.9), remaining) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SseOptions;
    use crate::policy::StreamKind;

    /// Even if the random times are the least favorable.
    #[test]
    fn a_token_opens_only_a_few_streams_one_after_another() {
        for whole in [1, 29, 59, 60, 61, 66, 67, 600, 3_600, 86_400, 30 * 86_400] {
            let whole = Duration::from_secs(whole) + Duration::from_millis(987);
            for _ in 0..2_000 {
                let (mut remaining, mut streams) = (whole, 0);
                while !remaining.is_zero() {
                    let life = token_lifetime(remaining);
                    let bounds = remaining.mul_f64(0.9)..=remaining;
                    assert!(bounds.contains(&life), "{life:?} of {remaining:?}");
                    remaining -= life;
                    streams += 1;
                }
                let tenths = (whole.as_secs_f64() / 60.0).log10().max(0.0).ceil() as u32;
                assert!(streams <= tenths + 1, "{streams} streams of {whole:?}");
            }
        }
    }

    #[test]
    fn the_earlier_of_age_and_expiry_ends_a_stream_and_is_its_reason() {
        let seconds = Duration::from_secs;
        let policies =
            |age: Option<Duration>| SseOptions::default().max_age(age).general_policies();
        let policy = |age| policies(age).private;
        let token = |left| Principal::new("ann").valid_until(SystemTime::now() + seconds(left));
        for (age, left, reason) in [
            (Some(seconds(100)), Some(1_000), Some(CloseReason::MaxAge)),
            (Some(seconds(1_000)), Some(100), Some(CloseReason::TokenExpired)),
            (Some(seconds(100)), None, Some(CloseReason::MaxAge)),
            (None, Some(50), Some(CloseReason::TokenExpired)),
            (None, None, None),
        ] {
            let end = scheduled_end(&policy(age), left.map(token).as_ref());
            assert_eq!(end.map(|end| end.reason), reason, "{age:?} {left:?}");
        }
        let unset = SseOptions::default().general_policies();
        let of_private = scheduled_end(&unset.private, None);
        assert!(of_private.is_none(), "a private stream would lose its work");
        let of_topic = scheduled_end(unset.of(StreamKind::Subscription), None).expect("an end");
        let life = of_topic.at.saturating_duration_since(Instant::now());
        assert!(life > seconds(24 * 60 - 1) && life <= seconds(30 * 60), "{life:?}");
        let off = policies(None);
        assert!(scheduled_end(off.of(StreamKind::Subscription), None).is_none(), "off is off");
        let end = scheduled_end(&off.private, Some(&token(50))).expect("an end");
        let left = end.at.saturating_duration_since(Instant::now());
        assert!(left > seconds(49) && left <= seconds(50), "not exact: {left:?}");
    }
}
