//! The bytes of an event stream: the only place that writes a field, a comment or a blank line.
//!
//! Knows the wire format of [WHATWG HTML 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html)
//! and nothing about connections, policies or HTTP.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::request::Parts;
use serde::Serialize;

/// The heartbeat: an empty comment, which every client ignores and every proxy counts as traffic.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// What a reconnection time may be. Below it browsers become an attack on their own server; above,
/// they misread values from 2^31 milliseconds on, and a day is long enough.
pub(crate) const RETRY: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(24 * 60 * 60);

/// Names and ids are at most this long, in bytes.
const MAX_FIELD: usize = 256;

/// What an id carries when the stream has come to its end for good.
const END_MARK: &str = "hero.end";
const END_SUFFIX: &str = ";hero.end";

/// An event's name, what a browser hands to `addEventListener`.
///
/// Cannot be empty, hold a control character (a line break would let it forge fields) or exceed
/// 256 bytes. `error` and `open` are refused since they reach the wrong handler in a browser, and
/// `hero.` begins the kit's own events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] says which rule it breaks.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidField> {
        let name = name.into();
        match fault_of_name(&name) {
            None => Ok(Self(name)),
            Some(fault) => Err(InvalidField { field: "event name", fault }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For literals that a macro has checked already; evaluated at compile time.
    pub(crate) const fn from_literal(name: &'static str) -> Self {
        assert!(fault_of_name(name).is_none(), "this is no event name");
        Self(Cow::Borrowed(name))
    }
}

impl Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's id, what a browser sends back as `Last-Event-ID` when it reconnects.
///
/// Cannot be empty, hold a control character (a browser would never reconnect again), begin or end
/// with white space (a browser would cut it off), exceed 256 bytes, or carry the kit's end mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventId(String);

impl EventId {
    /// Checks `id`.
    ///
    /// # Errors
    ///
    /// [`InvalidField`] says which rule it breaks.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidField> {
        let id = id.into();
        match fault_of_id(&id) {
            None => Ok(Self(id)),
            Some(fault) => Err(InvalidField { field: "event id", fault }),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a returning client stopped reading: an extractor for endpoint functions.
///
/// It is the `Last-Event-ID` header, which a browser sends when it reconnects by itself (raw UTF-8
/// bytes, so not limited to ASCII), else the query parameter `last_event_id`, since a new
/// `EventSource` object cannot send the header. It is a client's word: look it up, never trust it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(Option<String>);

impl LastEventId {
    /// The id, or `None` for a client that starts afresh.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether the client has seen the last event of this stream.
    pub(crate) fn is_end(&self) -> bool {
        self.as_str().is_some_and(|id| id == END_MARK || id.ends_with(END_SUFFIX))
    }

    /// The id without the end mark.
    pub(crate) fn own(&self) -> Option<&str> {
        let id = self.as_str()?;
        Some(id.strip_suffix(END_SUFFIX).unwrap_or(id))
    }

    pub(crate) fn from_parts(parts: &Parts) -> Result<Self, InvalidField> {
        let invalid = |fault| InvalidField { field: "Last-Event-ID", fault };
        let id = match parts.headers.get("last-event-id") {
            Some(value) => match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => Some(text.to_owned()),
                Err(_) => return Err(invalid(Fault::NotUtf8)),
            },
            None => form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .find(|(key, _)| key == "last_event_id")
                .map(|(_, value)| value.into_owned()),
        };
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Ok(Self(None));
        };
        let own = id.strip_suffix(END_SUFFIX).unwrap_or(&id);
        match fault_of_id(own).filter(|_| own != END_MARK) {
            None => Ok(Self(Some(id))),
            Some(fault) => Err(invalid(fault)),
        }
    }
}

/// A name, an id or a cursor that cannot stand in an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    field: &'static str,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong,
    Control,
    Reserved,
    OuterSpace,
    NotUtf8,
    OutOfBounds,
}

impl Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.fault {
            Fault::Empty => "is empty",
            Fault::TooLong => "is longer than 256 bytes",
            Fault::Control => "holds a control character",
            Fault::Reserved => {
                "is reserved: `hero.` belongs to the kit; `error` and `open` reach the wrong handler"
            }
            Fault::OuterSpace => "begins or ends with white space, which browsers cut off",
            Fault::NotUtf8 => "is not UTF-8",
            Fault::OutOfBounds => "is out of bounds: 500 ms to 24 h",
        };
        write!(f, "the {} {words}", self.field)
    }
}

impl std::error::Error for InvalidField {}

/// An event that could not be written: a bad id, or data that did not serialise.
#[derive(Debug)]
pub struct InvalidEvent(Box<dyn std::error::Error + Send + Sync>);

impl InvalidEvent {
    pub(crate) fn data(error: serde_json::Error) -> Self {
        Self(Box::new(error))
    }
}

impl Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

impl std::error::Error for InvalidEvent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.0.as_ref())
    }
}

impl From<InvalidField> for InvalidEvent {
    fn from(error: InvalidField) -> Self {
        Self(Box::new(error))
    }
}

/// Writes one event. [`SseEvent::encode`](crate::SseEvent::encode) receives it, and calls each
/// method at most once: a name, an id, then data.
///
/// The fields go straight into the connection's buffer. An event that fails half-way leaves
/// nothing behind.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut BytesMut,
    endpoint: Option<&'a EventName>,
    last: bool,
    /// Whether the event's id is none of the stream that it goes to.
    foreign: bool,
    named: bool,
    has_id: bool,
    has_data: bool,
    /// It was written elsewhere, with all that belongs to it.
    whole: PreEncoded,
}

impl<'a> FrameWriter<'a> {
    fn new(out: &'a mut BytesMut) -> Self {
        let (last, foreign, named, has_id, has_data, whole) = Default::default();
        Self { out, endpoint: None, last, foreign, named, has_id, has_data, whole }
    }

    /// The event's own name: it wins over the one that the endpoint declares.
    pub fn event(&mut self, name: &EventName) {
        self.named = true;
        field(self.out, "event: ", name.as_str());
    }

    /// A name for want of a better one: the endpoint's `event`, where declared, wins over it.
    pub fn event_or(&mut self, name: &EventName) {
        self.event(self.endpoint.unwrap_or(name));
    }

    /// The event's id, as its `Display` prints it.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the text cannot be an [`EventId`].
    pub fn id(&mut self, id: impl Display) -> Result<(), InvalidEvent> {
        if self.foreign {
            return Ok(());
        }
        self.out.put_slice(b"id: ");
        let start = self.out.len();
        let written = write!(Capped { out: self.out, left: MAX_FIELD }, "{id}");
        let text = self.out.get(start..).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let fault = match (written, text) {
            (Ok(()), Some(text)) => fault_of_id(text),
            _ => Some(Fault::TooLong),
        };
        if let Some(fault) = fault {
            return Err(InvalidField { field: "event id", fault }.into());
        }
        if self.last {
            self.out.put_slice(END_SUFFIX.as_bytes());
        }
        self.out.put_u8(b'\n');
        self.has_id = true;
        Ok(())
    }

    /// A new reconnection time: from now on the browser waits that long before it comes back. Other
    /// than the stream's own it is not spread out: all who get this event come back together.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when it is shorter than 500 ms or longer than 24 h.
    pub fn retry(&mut self, retry: Duration) -> Result<(), InvalidEvent> {
        if !RETRY.contains(&retry) {
            return Err(
                InvalidField { field: "reconnection time", fault: Fault::OutOfBounds }.into()
            );
        }
        field(self.out, "retry: ", &retry.as_millis().to_string());
        Ok(())
    }

    /// The data as JSON, on one line.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the value refuses to serialise.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), InvalidEvent> {
        self.out.put_slice(b"data: ");
        let start = self.out.len();
        serde_json::to_writer((&mut *self.out).writer(), value).map_err(InvalidEvent::data)?;
        // Only a `RawValue` brings line breaks, and only between tokens, where a space is as good.
        if let Some(json) = self.out.get_mut(start..)
            && memchr::memchr2(b'\r', b'\n', json).is_some()
        {
            json.iter_mut().filter(|byte| matches!(**byte, b'\r' | b'\n')).for_each(|b| *b = b' ');
        }
        self.out.put_u8(b'\n');
        self.has_data = true;
        Ok(())
    }

    /// The data as plain text: one `data` line for each of its lines, whichever way they end. A
    /// client reads them back joined by LF: a bare CR cannot travel.
    pub fn text(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            let (line, tail) = rest.split_at(at);
            data_line(self.out, line);
            rest = match tail {
                [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
                [] => tail,
            };
        }
        data_line(self.out, rest);
        self.has_data = true;
    }

    /// An event that was encoded for many, with what stands before it.
    pub(crate) fn whole(&mut self, whole: PreEncoded, before: &[u8], frame: &[u8]) {
        self.out.put_slice(before);
        self.out.put_slice(frame);
        self.whole = whole;
    }

    fn finish(self) {
        if self.whole != PreEncoded::No {
            return;
        }
        if !self.named
            && let Some(name) = self.endpoint
        {
            field(self.out, "event: ", name.as_str());
        }
        if self.last && !self.has_id {
            field(self.out, "id: ", END_MARK);
        }
        // Without a data line a browser throws the whole event away.
        if !self.has_data {
            self.out.put_slice(b"data:\n");
        }
        self.out.put_u8(b'\n');
    }
}

/// Whether an event was encoded elsewhere, and as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PreEncoded {
    #[default]
    No,
    /// One event, and what is missing before it.
    Event,
    /// Whatever several topics had: events, gaps, cursors. Of which topic an event is, and its key, nobody knows here.
    Batch,
}

/// Appends one whole frame, or nothing: what `encode` left of a failed event is taken back. Says whether it
/// was [encoded elsewhere](FrameWriter::whole).
pub(crate) fn write_event(
    out: &mut BytesMut,
    endpoint: Option<&EventName>,
    last: bool,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<PreEncoded, InvalidEvent> {
    write_whole(FrameWriter { endpoint, last, ..FrameWriter::new(out) }, encode)
}

/// The same for an event whose id is none of the stream that it goes to: a topic numbers its events itself,
/// and what is sent from elsewhere has no place in a stream.
pub(crate) fn write_body(
    out: &mut BytesMut,
    name: Option<&EventName>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<(), InvalidEvent> {
    let frame = FrameWriter { endpoint: name, foreign: true, ..FrameWriter::new(out) };
    write_whole(frame, encode).map(drop)
}

fn write_whole(
    mut frame: FrameWriter<'_>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<PreEncoded, InvalidEvent> {
    let start = frame.out.len();
    match encode(&mut frame) {
        Ok(()) => {
            let whole = frame.whole;
            frame.finish();
            Ok(whole)
        }
        Err(error) => {
            frame.out.truncate(start);
            Err(error)
        }
    }
}

/// Begins a frame with an id that the kit has made; a [body](write_body) follows.
pub(crate) fn write_id(out: &mut BytesMut, id: &str, last: bool) {
    out.put_slice(b"id: ");
    out.put_slice(id.as_bytes());
    if last {
        out.put_slice(END_SUFFIX.as_bytes());
    }
    out.put_u8(b'\n');
}

/// Where the next write of these frames ends: whole ones of up to `most` bytes, or a longer one alone.
pub(crate) fn end_of_write(frames: &[u8], most: usize) -> usize {
    /// A blank line, which is in no frame but at its end.
    const END: &[u8] = b"\n\n";
    if frames.len() <= most {
        return frames.len();
    }
    let (within, _) = frames.split_at(most);
    if let Some(last) = memchr::memmem::rfind(within, END) {
        return last + END.len();
    }
    // An end may lie across.
    let from = most.saturating_sub(1);
    let (_, long) = frames.split_at(from);
    memchr::memmem::find(long, END).map_or(frames.len(), |end| from + end + END.len())
}

/// The event name that a frame of ours carries.
pub(crate) fn name_of(frame: &[u8]) -> Option<&[u8]> {
    let mut lines = frame;
    while !lines.is_empty() {
        let end = memchr::memchr(b'\n', lines).unwrap_or(lines.len());
        let (line, rest) = lines.split_at(end);
        if let Some(name) = line.strip_prefix(b"event: ") {
            return Some(name);
        }
        lines = rest.get(1..).unwrap_or_default();
    }
    None
}

/// What tells a client of events that it cannot have any more.
pub(crate) const GAP: &str = "hero.gap";

/// What frames of ours say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents<'a> {
    /// How many of them tell of a gap.
    pub(crate) gaps: u64,
    /// How many are events of an application.
    pub(crate) events: u64,
    /// The name of the last of those.
    pub(crate) name: Option<&'a [u8]>,
}

pub(crate) fn contents_of(mut frames: &[u8]) -> Contents<'_> {
    let mut contents = Contents::default();
    while !frames.is_empty() {
        // One alone.
        let (frame, rest) = frames.split_at(end_of_write(frames, 1));
        match name_of(frame) {
            Some(name) if name == GAP.as_bytes() => contents.gaps += 1,
            Some(name) if name.starts_with(b"hero.") => {}
            name => {
                contents.events += 1;
                contents.name = name;
            }
        }
        frames = rest;
    }
    contents
}

/// The data of a frame of ours.
pub(crate) fn data_of(frame: &str) -> String {
    let lines = frame.split('\n').filter_map(|line| line.strip_prefix("data: "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Appends one of the kit's own events, whose names (`hero.*`) no application can use.
pub(crate) fn write_control(out: &mut BytesMut, name: &str, data: &serde_json::Value) {
    field(out, "event: ", name);
    field(out, "data: ", &data.to_string());
    out.put_u8(b'\n');
}

/// Appends the reconnection time as a block of its own.
pub(crate) fn write_retry(out: &mut BytesMut, retry: Duration) {
    field(out, "retry: ", &retry.as_millis().to_string());
    out.put_u8(b'\n');
}

fn field(out: &mut BytesMut, name: &str, value: &str) {
    out.reserve(name.len() + value.len() + 1);
    out.put_slice(name.as_bytes());
    out.put_slice(value.as_bytes());
    out.put_u8(b'\n');
}

fn data_line(out: &mut BytesMut, line: &[u8]) {
    // A space only before text: the empty line is `data:`, as the specification writes it.
    out.put_slice(if line.is_empty() { b"data:" } else { b"data: " });
    out.put_slice(line);
    out.put_u8(b'\n');
}

/// Takes text up to a bound, so that no `Display` can fill the memory.
struct Capped<'a> {
    out: &'a mut BytesMut,
    left: usize,
}

impl fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.out.put_slice(text.as_bytes());
        Ok(())
    }
}

const fn fault_of_name(name: &str) -> Option<Fault> {
    let bytes = name.as_bytes();
    if let Some(fault) = fault_of_line(bytes) {
        return Some(fault);
    }
    match bytes {
        b"error" | b"open" | [b'h', b'e', b'r', b'o', b'.', ..] => Some(Fault::Reserved),
        _ => None,
    }
}

fn fault_of_id(id: &str) -> Option<Fault> {
    if let Some(fault) = fault_of_line(id.as_bytes()) {
        return Some(fault);
    }
    if id.trim() != id {
        return Some(Fault::OuterSpace);
    }
    (id == END_MARK || id.ends_with(END_SUFFIX)).then_some(Fault::Reserved)
}

/// What every name and id obeys. C1 controls are two bytes in UTF-8: C2, then 80 to 9F.
const fn fault_of_line(mut bytes: &[u8]) -> Option<Fault> {
    if bytes.is_empty() {
        return Some(Fault::Empty);
    }
    if bytes.len() > MAX_FIELD {
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

    fn frame(encode: impl FnOnce(&mut FrameWriter<'_>)) -> String {
        let mut out = BytesMut::new();
        write_event(&mut out, None, false, |frame| {
            encode(frame);
            Ok(())
        })
        .expect("a frame");
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn text_is_split_at_every_line_ending_once() {
        for (text, wire) in [
            ("", "data:\n\n"),
            ("a", "data: a\n\n"),
            (" a", "data:  a\n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata:\ndata: b\n\n"),
            ("a\n\nb", "data: a\ndata:\ndata: b\n\n"),
            ("a\r\n", "data: a\ndata:\n\n"),
            ("\n", "data:\ndata:\n\n"),
            ("a\u{2028}b\u{85}c\u{b}d", "data: a\u{2028}b\u{85}c\u{b}d\n\n"),
            ("data: x\n\nevent: y", "data: data: x\ndata:\ndata: event: y\n\n"),
        ] {
            assert_eq!(frame(|f| f.text(text)), wire, "{text:?}");
        }
    }

    #[test]
    fn an_event_without_data_still_writes_a_data_line() {
        assert_eq!(frame(|_| ()), "data:\n\n");
    }

    #[test]
    fn a_failed_event_leaves_nothing_behind() {
        let mut out = BytesMut::from(&b"before"[..]);
        let name = EventName::from_literal("x");
        let failed = write_event(&mut out, None, false, |frame| {
            frame.event(&name);
            frame.id("one\ntwo")
        });
        assert!(failed.is_err());
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn raw_json_stays_on_one_line() {
        let raw: Box<serde_json::value::RawValue> =
            serde_json::from_str("{\"a\":\r\n[1,\n2]}").expect("JSON");
        assert_eq!(frame(|f| f.json(&raw).expect("data")), "data: {\"a\":  [1, 2]}\n\n");
    }

    #[test]
    fn taking_line_breaks_out_of_json_is_linear() {
        let text = format!("[{}1]", "1,\n".repeat(500_000));
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&text).expect("JSON");
        let start = std::time::Instant::now();
        let frame = frame(|f| f.json(&raw).expect("data"));
        assert_eq!(frame.matches('\n').count(), 2);
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }

    #[test]
    fn the_name_goes_explicit_then_endpoint_then_default() {
        let name = EventName::from_literal;
        let wire = |endpoint: Option<&EventName>, encode: &dyn Fn(&mut FrameWriter<'_>)| {
            let mut out = BytesMut::new();
            write_event(&mut out, endpoint, false, |f| {
                encode(f);
                Ok(())
            })
            .expect("a frame");
            String::from_utf8(out.to_vec()).expect("UTF-8")
        };
        let endpoint = name("endpoint");
        let explicit = |f: &mut FrameWriter<'_>| f.event(&name("own"));
        let fallback = |f: &mut FrameWriter<'_>| f.event_or(&name("default"));
        assert_eq!(wire(Some(&endpoint), &explicit), "event: own\ndata:\n\n");
        assert_eq!(wire(Some(&endpoint), &fallback), "event: endpoint\ndata:\n\n");
        assert_eq!(wire(None, &fallback), "event: default\ndata:\n\n");
        assert_eq!(wire(Some(&endpoint), &|_| ()), "event: endpoint\ndata:\n\n");
    }

    #[test]
    fn a_frame_tells_its_name() {
        let name = |endpoint: Option<&EventName>, own: Option<&'static str>, data: &str| {
            let mut out = BytesMut::new();
            write_event(&mut out, endpoint, false, |f| {
                own.into_iter().for_each(|own| f.event(&EventName::from_literal(own)));
                f.id(7)?;
                f.text(data);
                Ok(())
            })
            .expect("a frame");
            name_of(&out).map(|name| String::from_utf8_lossy(name).into_owned())
        };
        let endpoint = EventName::from_literal("endpoint");
        assert_eq!(name(None, None, "x\nevent: y\n\nevent: z"), None);
        assert_eq!(name(Some(&endpoint), None, "x").as_deref(), Some("endpoint"));
        assert_eq!(name(Some(&endpoint), Some("own"), "event: y").as_deref(), Some("own"));
    }

    #[test]
    fn frames_tell_what_they_say() {
        let contents = |gaps, events, name: Option<&'static str>| Contents {
            gaps,
            events,
            name: name.map(str::as_bytes),
        };
        let gap = "id: 7\nevent: hero.gap\ndata: {}\n\n";
        for (frames, says) in [
            ("", contents(0, 0, None)),
            ("id: 8\nevent: a\ndata: event: hero.gap\ndata:\n\n", contents(0, 1, Some("a"))),
            ("event: a\ndata: x\n\ndata: event: b\n\n", contents(0, 2, None)),
            ("event: hero.cursor\ndata: {}\n\n", contents(0, 0, None)),
            (gap, contents(1, 0, None)),
            (&format!("{gap}event: a\ndata:\n\n"), contents(1, 1, Some("a"))),
            (&format!("{gap}{gap}event: a\ndata:\n\n{gap}"), contents(3, 1, Some("a"))),
        ] {
            assert_eq!(contents_of(frames.as_bytes()), says, "{frames:?}");
        }
    }

    #[test]
    fn a_write_ends_with_a_frame() {
        for (frames, most, end) in [
            ("a\n\n", 3, 3),
            ("a\n\nb\n\n", 6, 6),
            ("a\n\nb\n\n", 5, 3),
            ("a\n\nb\n\n", 3, 3),
            ("a\n\nb\n\n", 2, 3),
            ("a\n\nb\n\n", 1, 3),
            ("a\nb\n\nc\n\n", 3, 5),
            ("a\nb\n\nc\n\n", 7, 5),
            ("a\nb\n\nc\n\n", 8, 8),
            ("aaa\n\n", 2, 5),
        ] {
            assert_eq!(end_of_write(frames.as_bytes(), most), end, "{frames:?} {most}");
        }
    }

    #[test]
    fn the_last_event_carries_the_end_mark() {
        let wire = |id: Option<&str>| {
            let mut out = BytesMut::new();
            write_event(&mut out, None, true, |f| id.map_or(Ok(()), |id| f.id(id)))
                .expect("a frame");
            String::from_utf8(out.to_vec()).expect("UTF-8")
        };
        assert_eq!(wire(None), "id: hero.end\ndata:\n\n");
        assert_eq!(wire(Some("7")), "id: 7;hero.end\ndata:\n\n");
    }

    #[test]
    fn a_foreign_event_brings_its_name_and_not_its_id() {
        let mut out = BytesMut::from("before");
        write_body(&mut out, None, |f| {
            f.event_or(&EventName::from_literal("note"));
            f.id("no\nid")?;
            f.text("x");
            Ok(())
        })
        .expect("a frame");
        assert_eq!(&out[..], b"beforeevent: note\ndata: x\n\n");
        let too_soon = write_body(&mut out, None, |f| f.retry(Duration::ZERO));
        assert!(too_soon.is_err() && out.ends_with(b"x\n\n"));
    }

    #[test]
    fn names_and_ids_refuse_what_breaks_clients() {
        for bad in ["", "a\nb", "a\rb", "a\0", "\u{7f}", "a\u{85}", "error", "open", "hero.close"] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["usage", "message", "heroic", "ünï", "opened", "a b"] {
            assert!(EventName::new(good).is_ok(), "{good:?}");
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

    fn cursor(header: Option<&[u8]>, uri: &str) -> Result<LastEventId, InvalidField> {
        let mut request = http::Request::get(uri);
        if let Some(header) = header {
            request = request.header("last-event-id", header);
        }
        LastEventId::from_parts(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn the_cursor_is_the_header_then_the_query() {
        let id = |header: Option<&[u8]>, uri| cursor(header, uri).map(|id| id.0);
        assert_eq!(id(None, "/"), Ok(None));
        assert_eq!(id(Some("é7".as_bytes()), "/"), Ok(Some("é7".into())));
        assert_eq!(id(None, "/?a=1&last_event_id=a%20b"), Ok(Some("a b".into())));
        assert_eq!(id(Some(b"1"), "/?last_event_id=2"), Ok(Some("1".into())));
        assert_eq!(id(Some(b""), "/"), Ok(None));
        assert!(cursor(Some(b"hero.end"), "/").is_ok_and(|id| id.is_end()));
        assert!(cursor(Some(b"7;hero.end"), "/").is_ok_and(|id| id.is_end()));
        assert!(cursor(Some(b"\xff"), "/").is_err());
        assert!(cursor(Some(&[b'x'; 257]), "/").is_err());
        assert!(cursor(None, "/?last_event_id=a%0Ab").is_err());
    }
}
