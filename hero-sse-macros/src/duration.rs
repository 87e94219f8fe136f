//! Durations. hero-sse reads them by the same rules: the table in `tests/rules.json` checks both.

use syn::LitStr;

use crate::errors::Errors;
use crate::key::Key;

/// Browsers that reconnect more often overload a server that is down.
const SHORTEST_RETRY: u64 = 500;
/// Browsers misread values from 2^31 milliseconds on. A day is long enough.
const LONGEST_RETRY: u64 = 24 * 3_600_000;
/// A year. A longer duration is a mistake.
const LONGEST: u64 = 366 * 24 * 3_600_000;

/// The milliseconds of a key's value. Reports what is wrong with it.
pub(crate) fn check(key: &Key, written: &LitStr, errors: &mut Errors) -> Option<u64> {
    bad_duration(key, written, errors);
    let millis = millis(&written.value())?;
    if key.name == "retry" {
        retry_too_short(written, millis, errors);
        retry_too_long(written, millis, errors);
    }
    Some(millis)
}

fn bad_duration(key: &Key, written: &LitStr, errors: &mut Errors) {
    let text = written.value();
    if millis(&text).is_none() {
        let Key { name, takes, example, .. } = key;
        errors.push(
            written,
            format!(
                "{text:?} is not a value for `{name}`: write `{example}`\n{}",
                takes.duration_forms()
            ),
        );
    }
}

fn retry_too_short(written: &LitStr, millis: u64, errors: &mut Errors) {
    if millis < SHORTEST_RETRY {
        errors.push(
            written,
            format!(
                "browsers that reconnect every {millis} ms would overload a server that is down: write at \
                 least \"{SHORTEST_RETRY}ms\""
            ),
        );
    }
}

fn retry_too_long(written: &LitStr, millis: u64, errors: &mut Errors) {
    if millis > LONGEST_RETRY {
        errors.push(
            written,
            "a browser would wait for more than a day before it reconnects: write at most \"24h\"",
        );
    }
}

/// The milliseconds of `"500ms"`, `"15s"`, `"2m"`, `"1h"`, `"00:00:05"` or `"00:00:00.5"`.
/// Zero is not a duration.
pub(crate) fn millis(text: &str) -> Option<u64> {
    let millis = match text.split(':').collect::<Vec<_>>().as_slice() {
        [hours, minutes, seconds] => clock(hours, minutes, seconds)?,
        [simple] => number_and_unit(simple)?,
        _ => return None,
    };
    (1..=LONGEST).contains(&millis).then_some(millis)
}

fn number_and_unit(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = digits(text.strip_suffix(unit)?)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn clock(hours: &str, minutes: &str, seconds: &str) -> Option<u64> {
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    digits(fraction).filter(|_| fraction.len() <= 7)?;
    // The first three digits: fractions of a millisecond are dropped.
    let millis = digits(format!("{fraction:0<3}").get(..3)?)?;
    let seconds = (two(hours, 24)? * 60 + two(minutes, 60)?) * 60 + two(seconds, 60)?;
    Some(seconds * 1_000 + millis)
}

/// Two digits below the limit.
fn two(text: &str, limit: u64) -> Option<u64> {
    digits(text).filter(|value| text.len() == 2 && *value < limit)
}

/// A number without a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, expected) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("8784h", LONGEST),
            ("00:00:05", 5_000),
            ("01:02:03", 3_723_000),
            ("23:59:59.9999999", 86_399_999),
            ("00:00:00.5", 500),
            ("00:00:00.0305000", 30),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_rejected() {
        for text in [
            "",
            "5",
            "s",
            "5:00",
            "0s",
            "00:00:00",
            "00:00:00.0001",
            "-5s",
            "+5s",
            "5 s",
            " 5s",
            "1.5s",
            "5sec",
            "24:00:00",
            "00:60:00",
            "00:00:60",
            "0:00:05",
            "00:00:00:05",
            "00.5:00:05",
            "00:00:05.",
            "00:00:05.1.2",
            "00:00:05.12345678",
            "off",
            "١s",
            "8785h",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }
}
