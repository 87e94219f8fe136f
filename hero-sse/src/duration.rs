//! Durations: how they are written, their bounds, and random ones between two.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A duration of less than a millisecond or more than a year is a mistake, and the clock could not hold some.
pub(crate) const BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(MAX_MILLIS);

/// 366 days.
const MAX_MILLIS: u64 = 366 * 24 * 3_600_000;

/// Returns a random duration between the two. Clients that arrived together must not return together.
pub(crate) fn random_between(shortest: Duration, longest: Duration) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(fastrand::f64())
}

/// Shortens a duration by up to a fifth, at random. Streams that were opened together then do not act together.
pub(crate) fn shortened(duration: Duration) -> Duration {
    random_between(duration.mul_f64(0.8), duration)
}

/// Reads a duration as options write it. `"off"` is `None`.
///
/// The accepted forms are `"15s"`, `"500ms"`, `"2m"`, `"1h"`, `"00:00:05"` (hours, minutes and seconds, with
/// up to seven decimals) and `"off"`. A bare number and `"5:00"` are refused, because their unit is a guess.
/// The longest duration is 366 days. Digits beyond the millisecond are dropped.
///
/// ```
/// use std::time::Duration;
/// use hero_sse::options::parse_duration;
///
/// assert_eq!(parse_duration("15s")?, Some(Duration::from_secs(15)));
/// assert_eq!(parse_duration("off")?, None);
/// assert!(parse_duration("15").is_err());
/// # Ok::<(), hero_sse::options::InvalidDuration>(())
/// ```
///
/// # Errors
///
/// [`InvalidDuration`], whose message lists the accepted forms.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, InvalidDuration> {
    let invalid = |why| InvalidDuration { text: text.to_owned(), why };
    if text == "off" {
        return Ok(None);
    }
    let millis = match text.split(':').collect::<Vec<_>>().as_slice() {
        [hours, minutes, seconds] => clock_millis(hours, minutes, seconds),
        [number] if number.parse::<f64>().is_ok() => return Err(invalid(Why::NoUnit)),
        [number_and_unit] => unit_millis(number_and_unit),
        _ => return Err(invalid(Why::Ambiguous)),
    };
    match millis {
        Some(0) => Err(invalid(Why::Zero)),
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(invalid(Why::Malformed)),
    }
}

/// The error of [`parse_duration`]: the text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDuration {
    text: String,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NoUnit,
    Ambiguous,
    Zero,
    Malformed,
}

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, why } = self;
        let why = match why {
            Why::NoUnit => "has no unit",
            Why::Ambiguous => "is ambiguous",
            Why::Zero => "is zero",
            Why::Malformed => "is not a duration of at most 366 days",
        };
        write!(
            f,
            "{text:?} {why}: write \"15s\", \"500ms\", \"2m\", \"1h\", \"00:00:05\" (hh:mm:ss) or \"off\""
        )
    }
}

impl std::error::Error for InvalidDuration {}

fn unit_millis(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|millis| *millis <= MAX_MILLIS)
}

fn clock_millis(hours: &str, minutes: &str, seconds: &str) -> Option<u64> {
    let two_digits = |text: &str, limit: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok())?.filter(|value| *value < limit)
    };
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if fraction.is_empty() || fraction.len() > 7 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    let minutes = two_digits(hours, 24)? * 60 + two_digits(minutes, 60)?;
    Some((minutes * 60 + two_digits(whole, 60)?) * 1_000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_forms_are_read_and_all_others_are_refused() {
        for (text, millis) in [
            ("15s", 15_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("8784h", MAX_MILLIS),
            ("00:00:05", 5_000),
            ("01:02:03", 3_723_000),
            ("00:00:00.25", 250),
            ("00:00:01.5000000", 1_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(parse_duration("off"), Ok(None));
        for (text, why) in [
            ("", "not a duration"),
            ("5", "no unit"),
            ("5.5", "no unit"),
            ("0s", "zero"),
            ("00:00:00", "zero"),
            ("5:00", "ambiguous"),
            ("1:2:3:4", "ambiguous"),
            ("0:00:05", "not a duration"),
            ("00:60:00", "not a duration"),
            ("24:00:00", "not a duration"),
            ("-5s", "not a duration"),
            ("5 s", "not a duration"),
            ("s", "not a duration"),
            ("5sec", "not a duration"),
            ("00:00:05.", "not a duration"),
            ("+5s", "not a duration"),
            ("99999999999999999999s", "not a duration"),
            ("8785h", "366 days"),
            ("ünf", "not a duration"),
            ("00:00:0é", "not a duration"),
        ] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains("write \"15s\""), "{error}");
        }
    }

    #[test]
    fn random_durations_fill_the_whole_range_and_stay_in_it() {
        let (shortest, longest) = (Duration::from_secs(2), Duration::from_secs(3));
        let mut all: Vec<_> = (0..1_000).map(|_| random_between(shortest, longest)).collect();
        all.sort_unstable();
        assert!(all[0] >= shortest && all[0] < shortest + Duration::from_millis(50), "{all:?}");
        assert!(all[999] <= longest && all[999] > longest - Duration::from_millis(50), "{all:?}");
        assert_eq!(random_between(longest, shortest), longest, "an empty range is its start");
    }
}
