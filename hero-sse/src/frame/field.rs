//! What event names, ids and reconnection times may be.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The range of reconnection times. With shorter ones, browsers overload their own server. Some browsers
/// misread values above 2^31 milliseconds, and a day is long enough.
pub(crate) const RETRY: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(24 * 60 * 60);

/// The maximum length of a name or an id, in bytes.
pub(super) const MAX_LENGTH: usize = 256;

/// The id of a last event that has no id of its own. It means that the stream has ended for good.
pub(super) const END_MARK: &str = "hero.end";

/// What is appended to the id of a last event.
pub(super) const END_SUFFIX: &str = ";hero.end";

/// An event's name: a browser passes the event to the listeners of this name
/// (`addEventListener(name, ..)`).
///
/// A name has 1 to 256 bytes and no control characters, since a line break could forge fields.
/// Names that start with `hero.` are reserved for the library's own events.
///
/// # `error` and `open`
///
/// An `EventSource` passes events of these names to the handlers of the connection itself: `onerror` and `onopen`. Only
/// other clients can read them, such as the official clients of language models. So these names are legal here, and the
/// endpoint decides:
///
/// * An endpoint of the `plain` profile sends them.
/// * For an endpoint of the `native` profile, `routes()` refuses a type with such a name. A stream that yields such a
///   name at run time ends with [`CloseReason::StreamError`](crate::CloseReason::StreamError).
///
/// ```
/// use hero_sse::event::EventName;
///
/// assert_eq!(EventName::new("usage")?.as_str(), "usage");
/// assert!(EventName::new("hero.close").is_err());
/// # Ok::<(), hero_sse::event::InvalidField>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// Checks `name` and wraps it.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] names the rule that `name` breaks.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidField> {
        let name = name.into();
        match fault_of_name(&name) {
            None => Ok(Self(name)),
            Some(fault) => Err(InvalidField::new("event name", fault)),
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an `EventSource` passes the event to a handler of its own: see [`is_trap`].
    pub(crate) fn is_trap(&self) -> bool {
        is_trap(self.0.as_bytes())
    }

    /// Wraps a literal that a macro has checked already. Evaluated at compile time.
    pub(crate) const fn from_literal(name: &'static str) -> Self {
        assert!(fault_of_name(name).is_none(), "not a valid event name");
        Self(Cow::Borrowed(name))
    }
}

impl Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's id: a browser sends the last one it received as `Last-Event-ID` when it reconnects.
///
/// An id has 1 to 256 bytes. These are refused:
///
/// * control characters, after which a browser might never reconnect;
/// * white space at the start or the end, which a browser would cut off;
/// * the end mark `hero.end`, alone or as `;hero.end` at the end.
///
/// ```
/// use hero_sse::event::EventId;
///
/// assert_eq!(EventId::new("42")?.as_str(), "42");
/// assert!(EventId::new("two\nlines").is_err());
/// # Ok::<(), hero_sse::event::InvalidField>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventId(String);

impl EventId {
    /// Checks `id` and wraps it.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] names the rule that `id` breaks.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidField> {
        let id = id.into();
        match fault_of_id(&id) {
            None => Ok(Self(id)),
            Some(fault) => Err(InvalidField::new("event id", fault)),
        }
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for a name, an id, a cursor or a reconnection time that an event stream cannot carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    field: &'static str,
    fault: Fault,
}

impl InvalidField {
    pub(super) const fn new(field: &'static str, fault: Fault) -> Self {
        Self { field, fault }
    }

    /// The error of an event whose name an `EventSource` passes to a handler of its own.
    pub(crate) const fn trap() -> Self {
        Self::new("event name", Fault::Trap)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    TooLong,
    Control,
    Reserved,
    Trap,
    OuterSpace,
    NotUtf8,
    Repeated,
    OutOfBounds,
}

impl Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.fault {
            Fault::Empty => "is empty",
            Fault::TooLong => "is longer than 256 bytes",
            Fault::Control => "contains a control character",
            Fault::Reserved => "is reserved: hero-sse uses `hero.` itself",
            Fault::Trap => {
                "is `error` or `open`, which an `EventSource` passes to the handlers of the connection itself: choose \
                 another name, or write `profile = \"plain\"` on an endpoint that no `EventSource` reads"
            }
            Fault::OuterSpace => "starts or ends with white space, which browsers cut off",
            Fault::NotUtf8 => "is not UTF-8",
            Fault::Repeated => "is repeated with another value",
            Fault::OutOfBounds => "is out of bounds: 500 ms to 24 h",
        };
        write!(f, "the {} {words}", self.field)
    }
}

impl std::error::Error for InvalidField {}

/// Returns the reconnection time if a client can take it.
pub(crate) fn checked_retry(retry: Duration) -> Result<Duration, InvalidField> {
    let legal = RETRY.contains(&retry);
    if legal { Ok(retry) } else { Err(InvalidField::new("reconnection time", Fault::OutOfBounds)) }
}

const fn fault_of_name(name: &str) -> Option<Fault> {
    let bytes = name.as_bytes();
    if let Some(fault) = fault_of_line(bytes) {
        return Some(fault);
    }
    match bytes {
        [b'h', b'e', b'r', b'o', b'.', ..] => Some(Fault::Reserved),
        _ => None,
    }
}

/// Whether an `EventSource` passes an event of this name to the handlers of the connection itself. Streams of the
/// native profile refuse these names.
pub(crate) const fn is_trap(name: &[u8]) -> bool {
    matches!(name, b"error" | b"open")
}

pub(super) fn fault_of_id(id: &str) -> Option<Fault> {
    if let Some(fault) = fault_of_line(id.as_bytes()) {
        return Some(fault);
    }
    if id.trim() != id {
        return Some(Fault::OuterSpace);
    }
    (id == END_MARK || id.ends_with(END_SUFFIX)).then_some(Fault::Reserved)
}

/// The rules for names and ids alike. C1 control characters are two bytes in UTF-8: C2, then 80 to 9F.
const fn fault_of_line(mut bytes: &[u8]) -> Option<Fault> {
    if bytes.is_empty() {
        return Some(Fault::Empty);
    }
    if bytes.len() > MAX_LENGTH {
        return Some(Fault::TooLong);
    }
    while let [first, rest @ ..] = bytes {
        let c1 = *first == 0xC2 && matches!(rest, [0x80..=0x9F, ..]);
        if *first < 0x20 || *first == 0x7F || c1 {
            return Some(Fault::Control);
        }
        bytes = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_that_break_clients_are_refused() {
        for bad in ["", "a\nb", "a\rb", "a\0", "\u{7f}", "a\u{85}", "hero.close"] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["usage", "message", "heroic", "ünï", "opened", "a b", "error", "open"] {
            let name = EventName::new(good).expect("a legal name");
            assert_eq!(name.is_trap(), matches!(good, "error" | "open"), "{good:?}");
        }
        assert!(EventName::new("x".repeat(257)).is_err());
        for bad in ["", " a", "a ", "\ta", "a\nb", "hero.end", "7;hero.end", "a\u{9f}"] {
            assert!(EventId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["42", "a b", "é…", "a:b;c", "Hero.end"] {
            assert!(EventId::new(good).is_ok(), "{good:?}");
        }
        assert!(EventId::new("x".repeat(256)).is_ok());
    }
}
