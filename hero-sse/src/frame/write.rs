//! Writes frames: [`FrameWriter`] for events, and the library's own events, comments and blocks.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::field::{
    END_MARK, END_SUFFIX, EventName, Fault, InvalidField, MAX_LENGTH, RETRY, fault_of_id,
};

/// The heartbeat: an empty comment. Every client ignores it, and every proxy counts it as traffic.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// The name of the event that reports missed events to a client.
pub(crate) const GAP: &str = "hero.gap";

/// The error for an event that could not be written: an illegal id, or data that failed to serialize.
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

/// Writes the fields of one event. [`SseEvent::encode`](crate::SseEvent::encode) receives it.
///
/// Call each method at most once, in this order: the name, the id, the reconnection time, the data.
///
/// The fields are written directly into the connection's buffer. If `encode` returns an error, nothing of
/// the event remains there.
///
/// ```
/// use hero_sse::SseEvent;
/// use hero_sse::event::{EventName, FrameWriter, InvalidEvent};
///
/// struct Reading {
///     seq: u64,
///     text: String,
/// }
///
/// impl SseEvent for Reading {
///     fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
///         frame.event(&EventName::new("reading")?);
///         frame.id(self.seq)?;
///         frame.text(&self.text);
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut BytesMut,
    endpoint: Option<&'a EventName>,
    last: bool,
    /// The event's id does not belong to the stream that carries the event.
    omit_id: bool,
    named: bool,
    has_id: bool,
    has_data: bool,
    pre_encoded: PreEncoded,
}

impl<'a> FrameWriter<'a> {
    fn new(out: &'a mut BytesMut) -> Self {
        let (last, omit_id, named, has_id, has_data, pre_encoded) = Default::default();
        Self { out, endpoint: None, last, omit_id, named, has_id, has_data, pre_encoded }
    }

    /// Writes the event's own name. It takes precedence over the name that the endpoint declares.
    pub fn event(&mut self, name: &EventName) {
        self.named = true;
        field(self.out, "event: ", name.as_str());
    }

    /// Writes a default name. The endpoint's `event`, where declared, takes precedence over it.
    pub fn event_or(&mut self, name: &EventName) {
        self.event(self.endpoint.unwrap_or(name));
    }

    /// Writes the event's id, as its `Display` prints it.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the text is not a valid [`EventId`](crate::event::EventId).
    pub fn id(&mut self, id: impl Display) -> Result<(), InvalidEvent> {
        if self.omit_id {
            return Ok(());
        }
        self.out.put_slice(b"id: ");
        let start = self.out.len();
        let written = write!(Bounded { out: self.out, remaining: MAX_LENGTH }, "{id}");
        let text = self.out.get(start..).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let fault = match (written, text) {
            (Ok(()), Some(text)) => fault_of_id(text),
            _ => Some(Fault::TooLong),
        };
        if let Some(fault) = fault {
            return Err(InvalidField::new("event id", fault).into());
        }
        if self.last {
            self.out.put_slice(END_SUFFIX.as_bytes());
        }
        self.out.put_u8(b'\n');
        self.has_id = true;
        Ok(())
    }

    /// Writes a new reconnection time: a browser waits that long before it reconnects, from now on.
    ///
    /// The server spreads its own reconnection times at random, but not this one. All clients that receive
    /// the event would reconnect at the same time.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when it is shorter than 500 ms or longer than 24 h.
    pub fn retry(&mut self, retry: Duration) -> Result<(), InvalidEvent> {
        if !RETRY.contains(&retry) {
            return Err(InvalidField::new("reconnection time", Fault::OutOfBounds).into());
        }
        field(self.out, "retry: ", &retry.as_millis().to_string());
        Ok(())
    }

    /// Writes the data as JSON, on one line.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the value fails to serialize.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), InvalidEvent> {
        self.out.put_slice(b"data: ");
        let start = self.out.len();
        serde_json::to_writer((&mut *self.out).writer(), value).map_err(InvalidEvent::data)?;
        // Line breaks come from a `RawValue` alone, and only between tokens. A space is equivalent there.
        if let Some(json) = self.out.get_mut(start..)
            && memchr::memchr2(b'\r', b'\n', json).is_some()
        {
            json.iter_mut().filter(|byte| matches!(**byte, b'\r' | b'\n')).for_each(|b| *b = b' ');
        }
        self.out.put_u8(b'\n');
        self.has_data = true;
        Ok(())
    }

    /// Writes the data as plain text: one `data` line for each line, which may end in LF, CR or CRLF.
    ///
    /// A client receives the lines joined by LF. A lone CR therefore arrives as LF.
    pub fn text(&mut self, text: &str) {
        let mut remaining = text.as_bytes();
        while let Some(at) = memchr::memchr2(b'\r', b'\n', remaining) {
            let (line, tail) = remaining.split_at(at);
            data_line(self.out, line);
            remaining = match tail {
                [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
                [] => tail,
            };
        }
        data_line(self.out, remaining);
        self.has_data = true;
    }

    /// Writes frames that were encoded once for many clients, after what precedes them for this client.
    pub(crate) fn pre_encoded(&mut self, kind: PreEncoded, before: &[u8], frames: &[u8]) {
        self.out.put_slice(before);
        self.out.put_slice(frames);
        self.pre_encoded = kind;
    }

    fn finish(self) {
        if self.pre_encoded != PreEncoded::No {
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
        // A browser discards an event without a data line.
        if !self.has_data {
            self.out.put_slice(b"data:\n");
        }
        self.out.put_u8(b'\n');
    }
}

/// Whether an event was encoded before, and what its bytes contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PreEncoded {
    #[default]
    No,
    /// One event, perhaps with a gap event before it.
    Event,
    /// Events, gaps and cursors of several topics. The topic and the key of each event are unknown here.
    Batch,
}

/// Appends one complete frame. If `encode` fails, `out` stays as it was. Returns whether the event was
/// [pre-encoded](FrameWriter::pre_encoded).
pub(crate) fn write_event(
    out: &mut BytesMut,
    endpoint: Option<&EventName>,
    last: bool,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<PreEncoded, InvalidEvent> {
    write_atomically(FrameWriter { endpoint, last, ..FrameWriter::new(out) }, encode)
}

/// Appends one complete frame without the event's own id. Topics number events themselves, and the id of
/// a directly sent event is not a position in the stream that carries it.
pub(crate) fn write_body(
    out: &mut BytesMut,
    name: Option<&EventName>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<(), InvalidEvent> {
    let frame = FrameWriter { endpoint: name, omit_id: true, ..FrameWriter::new(out) };
    write_atomically(frame, encode).map(drop)
}

fn write_atomically(
    mut frame: FrameWriter<'_>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<PreEncoded, InvalidEvent> {
    let start = frame.out.len();
    match encode(&mut frame) {
        Ok(()) => {
            let pre_encoded = frame.pre_encoded;
            frame.finish();
            Ok(pre_encoded)
        }
        Err(error) => {
            frame.out.truncate(start);
            Err(error)
        }
    }
}

/// Starts a frame with an id that the library made. The [body](write_body) must follow.
pub(crate) fn write_id(out: &mut BytesMut, id: &str, last: bool) {
    out.put_slice(b"id: ");
    out.put_slice(id.as_bytes());
    if last {
        out.put_slice(END_SUFFIX.as_bytes());
    }
    out.put_u8(b'\n');
}

/// Appends one of the library's own events. Applications cannot use their names (`hero.*`).
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
    // An empty line is `data:` without a space, as the specification writes it.
    out.put_slice(if line.is_empty() { b"data:" } else { b"data: " });
    out.put_slice(line);
    out.put_u8(b'\n');
}

/// Accepts text up to a bound, so that a `Display` cannot fill the memory.
struct Bounded<'a> {
    out: &'a mut BytesMut,
    remaining: usize,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.remaining = self.remaining.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.out.put_slice(text.as_bytes());
        Ok(())
    }
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
    fn removing_line_breaks_from_json_takes_linear_time() {
        let text = format!("[{}1]", "1,\n".repeat(500_000));
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&text).expect("JSON");
        let start = std::time::Instant::now();
        let frame = frame(|f| f.json(&raw).expect("data"));
        assert_eq!(frame.matches('\n').count(), 2);
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }

    #[test]
    fn an_events_own_name_precedes_the_endpoints_and_that_a_default() {
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
    fn write_body_keeps_the_name_and_omits_the_id() {
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
}
