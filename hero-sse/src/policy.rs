//! How one stream behaves: the settings as resolved, and as somebody wrote them.

use std::fmt;
use std::time::Duration;

use crate::close::CloseReason;
use crate::frame::RETRY;

/// What to say to a client that comes when all places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverLimit {
    /// `200` with a reconnection time, `hero.close` and a clean end: a browser tries again by
    /// itself. After any other status it would give up for good.
    Retry,
    /// `503` (or `429` for one principal's limit) with `Retry-After`: for other clients.
    Refuse,
}

/// Where a token may stand in a request. They are looked at in this order, and two different tokens are
/// refused, wherever they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// The cookie that the options [name](crate::SseOptions::token_cookie). A browser sends it whoever asks
    /// it to, so a token that stands here alone counts only in requests of trusted pages.
    Cookie,
    /// `?access_token=`, since an `EventSource` cannot send headers. Never of a `POST`.
    Query,
}

impl TokenSource {
    const ALL: [Self; 3] = [Self::Header, Self::Cookie, Self::Query];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Query => "query",
        }
    }

    /// Reads what an operator writes.
    pub(crate) fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// Some of the sources.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenSources(u8);

impl TokenSources {
    pub(crate) const ALL: Self = Self::of(&TokenSource::ALL);

    pub(crate) const fn of(sources: &[TokenSource]) -> Self {
        let (mut bits, mut left) = (0, sources);
        while let Some((first, rest)) = left.split_first() {
            bits |= 1 << *first as u8;
            left = rest;
        }
        Self(bits)
    }

    pub(crate) const fn has(self, source: TokenSource) -> bool {
        self.0 & (1 << source as u8) != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that both have.
    pub(crate) const fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub(crate) const fn without(self, source: TokenSource) -> Self {
        Self(self.0 & !(1 << source as u8))
    }
}

impl fmt::Debug for TokenSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = TokenSource::ALL.into_iter().filter(|source| self.has(*source));
        f.debug_list().entries(sources.map(TokenSource::as_str)).finish()
    }
}

/// What happens when a buffered stream has one more event, and the buffer is full of those that a
/// slow client has not taken.
///
/// A stream is buffered when its endpoint, the options or the builder set a buffer or an overflow.
/// Else it is polled at its client's pace, and nothing waits or is lost. The [`Subscription`](crate::Subscription) of a
/// topic needs no buffer: there it says what happens to a client that is too far behind; see
/// [`topics`](crate::guide::topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The application's stream is dropped at once. The client gets what waits, then a farewell with
    /// [`CloseReason::Overflow`](crate::CloseReason::Overflow); it comes back and resumes after the
    /// last id it has. For streams that must not have holes.
    Disconnect,
    /// The oldest waiting event goes. Where it was missing the client gets `hero.gap`, with how many
    /// were left out: `{"missed": 3}`.
    DropOldest,
    /// A waiting event gives way to a newer one of the same name and the same
    /// [`key`](crate::SseEvent::key), which goes to the end of the queue; that is no gap. With more
    /// keys than the buffer has places, as [`DropOldest`](Self::DropOldest). For gauges.
    Latest,
}

/// How many frames wait for a slow client where only the overflow is set: enough for a burst, few
/// enough for ten thousand clients.
const DEFAULT_BUFFER: usize = 256;

/// A proxy may go on acknowledging for a browser that has died: nothing but a bound on a stream's life finds that
/// out. Where a cut costs a reconnect and no event, half an hour is seldom enough.
const LIFE_OF_SUBSCRIPTION: Duration = Duration::from_secs(30 * 60);

/// The settings that one stream runs under. `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) heartbeat_event: bool,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) retry: Duration,
    /// As somebody said; see [`life`](Self::life).
    pub(crate) max_age: Option<Option<Duration>>,
    pub(crate) reauthorize: Option<Duration>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_per_principal: usize,
    /// The operator's alone, without a key in the attribute: it depends on what stands before the
    /// server.
    pub(crate) max_per_address: Option<usize>,
    pub(crate) over_limit: OverLimit,
    pub(crate) token_sources: TokenSources,
    pub(crate) buffer: Option<usize>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) drain_jitter: Option<Duration>,
}

impl Policy {
    /// How many frames may wait for a slow client, and what happens when there is one more; `None`
    /// holds the stream back instead.
    pub(crate) fn buffering(&self) -> Option<(usize, Overflow)> {
        let most = self.buffer.or(self.overflow.map(|_| DEFAULT_BUFFER))?;
        Some((most, self.overflow.unwrap_or(Overflow::Disconnect)))
    }

    /// How old a stream may become: one that follows a topic resumes where it was cut, a private one loses
    /// what it had.
    pub(crate) fn life(&self, follows: bool) -> Option<Duration> {
        self.max_age.unwrap_or(follows.then_some(LIFE_OF_SUBSCRIPTION))
    }

    /// The reconnection time of one connection, in [retry, 1.5 retry]: browsers neither jitter nor
    /// back off, so the server spreads them.
    pub(crate) fn jittered_retry(&self) -> Duration {
        jittered(self.retry)
    }

    /// The reconnection time of a client that is told to go. Those of a drain, who all leave at once,
    /// are spread over a time of its own; `least` is a time before which coming back is in vain.
    pub(crate) fn farewell_retry(&self, reason: CloseReason, least: Duration) -> Duration {
        let from = self.retry.max(least);
        match self.drain_jitter.filter(|_| reason == CloseReason::Draining) {
            Some(spread) => (from + spread.mul_f64(fastrand::f64())).min(*RETRY.end()),
            None => jittered(from),
        }
    }

    /// What is wrong with it as a whole.
    pub(crate) fn fault(&self) -> Option<String> {
        let (heartbeat, age) = (self.heartbeat?, self.max_age??);
        (heartbeat >= age).then(|| {
            format!("the heartbeat ({heartbeat:?}) must be shorter than the maximum age ({age:?})")
        })
    }

    pub(crate) fn apply(&mut self, over: &PolicyOverrides) {
        fn set<T: Clone>(value: &mut T, over: &Option<T>) {
            if let Some(over) = over {
                value.clone_from(over);
            }
        }
        set(&mut self.heartbeat, &over.heartbeat);
        set(&mut self.heartbeat_event, &over.heartbeat_event);
        set(&mut self.write_timeout, &over.write_timeout);
        set(&mut self.retry, &over.retry);
        set(&mut self.max_age, &over.max_age.map(Some));
        set(&mut self.reauthorize, &over.reauthorize);
        set(&mut self.max_connections, &over.max_connections.map(Some));
        set(&mut self.max_per_principal, &over.max_per_principal);
        set(&mut self.max_per_address, &over.max_per_address);
        set(&mut self.over_limit, &over.over_limit);
        set(&mut self.token_sources, &over.token_sources);
        set(&mut self.buffer, &over.buffer.map(Some));
        set(&mut self.overflow, &over.overflow.map(Some));
        set(&mut self.drain_jitter, &over.drain_jitter);
    }
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(1.0 + fastrand::f64() / 2.0).min(*RETRY.end())
}

/// The settings that an endpoint's declaration, or an operator's table for it, changes. The outer
/// `None` leaves a setting as it is; an inner one switches it off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyOverrides {
    pub(crate) heartbeat: Option<Option<Duration>>,
    pub(crate) heartbeat_event: Option<bool>,
    pub(crate) write_timeout: Option<Option<Duration>>,
    pub(crate) retry: Option<Duration>,
    pub(crate) max_age: Option<Option<Duration>>,
    pub(crate) reauthorize: Option<Option<Duration>>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_per_principal: Option<usize>,
    pub(crate) max_per_address: Option<Option<usize>>,
    pub(crate) over_limit: Option<OverLimit>,
    pub(crate) token_sources: Option<TokenSources>,
    pub(crate) buffer: Option<usize>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) drain_jitter: Option<Option<Duration>>,
}

impl PolicyOverrides {
    pub(crate) const NONE: Self = Self {
        heartbeat: None,
        heartbeat_event: None,
        write_timeout: None,
        retry: None,
        max_age: None,
        reauthorize: None,
        max_connections: None,
        max_per_principal: None,
        max_per_address: None,
        over_limit: None,
        token_sources: None,
        buffer: None,
        overflow: None,
        drain_jitter: None,
    };

    /// What no text could have said, but code can: times and limits out of their bounds.
    pub(crate) fn faults(&self) -> Vec<String> {
        let times = [
            ("heartbeat", self.heartbeat.flatten()),
            ("write timeout", self.write_timeout.flatten()),
            ("maximum age", self.max_age.flatten()),
            ("re-check interval", self.reauthorize.flatten()),
            ("drain spread", self.drain_jitter.flatten()),
        ];
        let counts = [
            ("connections", self.max_connections),
            ("connections of one principal", self.max_per_principal),
            ("connections of one address", self.max_per_address.flatten()),
        ];
        let times = times.into_iter().filter_map(|(what, time)| fault_of_time(what, time));
        let counts = counts.into_iter().filter_map(|(what, count)| fault_of_count(what, count));
        let retry = self.retry.and_then(fault_of_retry);
        let nowhere = self.token_sources.is_some_and(TokenSources::is_empty);
        let nowhere = nowhere.then(|| {
            "tokens that may stand nowhere let nobody in: name header, cookie or query".to_owned()
        });
        let buffer = self.buffer.and_then(fault_of_buffer);
        times.chain(counts).chain(retry).chain(nowhere).chain(buffer).collect()
    }
}

/// A time of less than a millisecond or more than a year is a mistake, and would upset the clock.
pub(crate) fn fault_of_time(what: &str, time: Option<Duration>) -> Option<String> {
    let time = time?;
    let bounds = Duration::from_millis(1)..=Duration::from_millis(MAX_MILLIS);
    (!bounds.contains(&time))
        .then(|| format!("a {what} of {time:?} is out of bounds: 1 ms to 366 days"))
}

pub(crate) fn fault_of_count(what: &str, count: Option<usize>) -> Option<String> {
    (count? == 0).then(|| format!("a limit of 0 {what} refuses everybody: write 1 or more"))
}

pub(crate) fn fault_of_buffer(frames: usize) -> Option<String> {
    (frames == 0).then(|| "a buffer of 0 frames holds none: write 1 or more".to_owned())
}

pub(crate) fn fault_of_retry(retry: Duration) -> Option<String> {
    (!RETRY.contains(&retry)).then(|| {
        format!(
            "a reconnection time of {retry:?} is out of bounds: write \"500ms\" to \"24h\", or \
             browsers turn on their own server"
        )
    })
}

/// Reads a duration as an operator writes it; `None` is `"off"`.
///
/// Accepted are `"15s"`, `"500ms"`, `"2m"`, `"1h"`, the clock form `"00:00:05"` (hours, minutes,
/// seconds, perhaps a fraction) and `"off"`. A bare number and `"5:00"` are refused: nobody can
/// tell their unit.
///
/// # Errors
///
/// A sentence that names the accepted forms.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, String> {
    let refuse = |why: &str| {
        Err(format!(
            "{text:?} {why}: write \"15s\", \"500ms\", \"2m\", \"1h\", \"00:00:05\" (hh:mm:ss) or \
             \"off\""
        ))
    };
    if text == "off" {
        return Ok(None);
    }
    let millis = match text.split(':').collect::<Vec<_>>().as_slice() {
        [hours, minutes, seconds] => clock_millis(hours, minutes, seconds),
        [simple] => {
            if simple.parse::<f64>().is_ok() {
                return refuse("has no unit");
            }
            unit_millis(simple)
        }
        _ => return refuse("is ambiguous"),
    };
    match millis {
        Some(0) => refuse("is zero"),
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => refuse("is no duration"),
    }
}

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
    let two = |text: &str, limit: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok())?.filter(|value| *value < limit)
    };
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if fraction.is_empty() || fraction.len() > 7 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    Some(((two(hours, 24)? * 60 + two(minutes, 60)?) * 60 + two(whole, 60)?) * 1_000 + millis)
}

/// A year: longer is a mistake, and would overflow the clock.
const MAX_MILLIS: u64 = 366 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written_and_the_rest_is_refused() {
        for (text, millis) in [
            ("15s", 15_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("00:00:05", 5_000),
            ("01:02:03", 3_723_000),
            ("00:00:00.25", 250),
            ("00:00:01.5000000", 1_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(parse_duration("off"), Ok(None));
        for text in [
            "",
            "5",
            "5.5",
            "0s",
            "00:00:00",
            "5:00",
            "0:00:05",
            "00:60:00",
            "24:00:00",
            "-5s",
            "1:2:3:4",
            "5 s",
            "s",
            "5sec",
            "00:00:05.",
            "+5s",
            "99999999999999999999s",
            "9999999h",
            "ünf",
            "00:00:0é",
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("\"15s\""), "{error}");
        }
    }
}
