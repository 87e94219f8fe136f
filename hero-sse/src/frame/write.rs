//! Writes frames: [`FrameWriter`] for events, and the library's own events, comments and blocks.

use std::fmt::{self, Display, Write as _};
use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::field::{
    END_MARK, END_SUFFIX, EventName, Fault, InvalidField, MAX_LENGTH, checked_retry, fault_of_id,
    is_trap,
};

/// The heartbeat: an empty comment. Every client ignores it, and every proxy counts it as traffic. It is no block of its
/// own: once an id was sent, some clients make an event of every block.
pub(crate) const HEARTBEAT: &[u8] = b":\n";

/// The name of the event that reports missed events to a client.
pub(crate) const GAP: &str = "hero.gap";

/// The name of the event that carries an id and nothing else.
pub(crate) const CURSOR: &str = "hero.cursor";

/// The error for an event that could not be written: an illegal id, or data that failed to serialize.
#[derive(Debug)]
pub struct InvalidEvent(Box<dyn std::error::Error + Send + Sync>);

impl InvalidEvent {
    pub(crate) fn data(error: serde_json::Error) -> Self {
        Self(Box::new(error))
    }

    /// An event after a gap that the stream cannot report.
    pub(crate) fn after_gap() -> Self {
        Self("events were missed before this one, and a plain stream cannot say so: answer `Published::gap` with the \
              state, and send the event itself".into())
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
/// Call each method at most once, in this order: the comment, the name, the id, the reconnection time, the data.
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
    /// Where the event begins in `out`.
    start: usize,
    rules: FrameRules<'a>,
    /// The event's id does not belong to the stream that carries the event.
    omit_id: bool,
    name: NameField,
    /// The text of the id in `out`, the end mark included.
    id: Option<Range<usize>>,
    /// An empty id was written.
    clears_id: bool,
    without_data: bool,
    written: Written,
}

/// What a stream demands of its events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameRules<'a> {
    /// The name that the endpoint declares. It names the events that have no name of their own.
    pub(crate) endpoint: Option<&'a EventName>,
    /// The event is the stream's last, and its id gets the end mark.
    pub(crate) end_mark: bool,
    /// An `EventSource` may read the stream, so that [`is_trap`](super::is_trap) names are an error.
    pub(crate) refuse_traps: bool,
    /// The stream carries the application's events alone. An event after a gap cannot say so, and is an error.
    pub(crate) refuse_gaps: bool,
}

/// What an event has decided about its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NameField {
    /// Nothing: the endpoint's name applies.
    #[default]
    Open,
    Unnamed,
    Written,
    /// Written, and an `EventSource` would pass it to a handler of its own.
    Trap,
}

/// What [`write_event`] has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) pre_encoded: PreEncoded,
    /// Whether a client dispatches the event. Unknown for a pre-encoded one.
    pub(crate) has_data: bool,
    /// The event's own reconnection time. Unknown for a pre-encoded one: see [`retry_of`](super::retry_of).
    pub(crate) retry: Option<Duration>,
}

impl<'a> FrameWriter<'a> {
    fn new(out: &'a mut BytesMut, rules: FrameRules<'a>) -> Self {
        let start = out.len();
        let (omit_id, name, id, clears_id, without_data, written) = Default::default();
        Self { out, start, rules, omit_id, name, id, clears_id, without_data, written }
    }

    /// Writes a comment, which clients skip: one line for each line of the text. Any text is legal.
    ///
    /// A comment alone needs [`without_data`](Self::without_data) as well. It then is no block of its own.
    #[doc(alias = "padding")]
    pub fn comment(&mut self, text: &str) {
        write_lines(self.out, ":", text);
    }

    /// Writes the event's own name. It takes precedence over the name that the endpoint declares.
    pub fn event(&mut self, name: &EventName) {
        self.name = if name.is_trap() { NameField::Trap } else { NameField::Written };
        field(self.out, "event: ", name.as_str());
    }

    /// Writes a default name. The endpoint's `event`, where declared, takes precedence over it.
    pub fn event_or(&mut self, name: &EventName) {
        self.event(self.rules.endpoint.unwrap_or(name));
    }

    /// Leaves the event without a name, even if the endpoint declares one. A browser passes it to `onmessage`.
    pub fn unnamed(&mut self) {
        if self.name == NameField::Open {
            self.name = NameField::Unnamed;
        }
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
        if self.rules.end_mark {
            self.out.put_slice(END_SUFFIX.as_bytes());
        }
        self.id = Some(start..self.out.len());
        self.out.put_u8(b'\n');
        Ok(())
    }

    /// Clears the client's cursor with an empty id, so that it reconnects as a new client.
    pub fn clear_id(&mut self) {
        if !self.omit_id {
            self.out.put_slice(b"id:\n");
            self.clears_id = true;
        }
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
        let retry = checked_retry(retry)?;
        field(self.out, "retry: ", &retry.as_millis().to_string());
        self.written.retry = Some(retry);
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
        self.written.has_data = true;
        Ok(())
    }

    /// Writes the data as plain text: one `data` line for each line, which may end in LF, CR or CRLF.
    ///
    /// A client receives the lines joined by LF. A lone CR therefore arrives as LF.
    pub fn text(&mut self, text: &str) {
        write_lines(self.out, "data:", text);
        self.written.has_data = true;
    }

    /// Writes frames that were encoded once for many clients, after what precedes them for this client.
    pub(crate) fn pre_encoded(&mut self, kind: PreEncoded, before: &[u8], frames: &[u8]) {
        self.out.put_slice(before);
        self.out.put_slice(frames);
        self.written.pre_encoded = kind;
    }

    /// Checks the name that a pre-encoded event has in its frame.
    pub(crate) fn check_name(&mut self, name: Option<&[u8]>) {
        if name.is_some_and(is_trap) {
            self.name = NameField::Trap;
        }
    }

    pub(crate) fn rules(&self) -> FrameRules<'a> {
        self.rules
    }

    /// Leaves the event without data. Without this call, an event without data gets an empty `data` line, since a client
    /// discards an event that has none.
    ///
    /// A comment or a reconnection time alone is then no block of its own: the next event's block begins with it.
    pub fn without_data(&mut self) {
        self.without_data = true;
    }

    fn finish(&mut self) -> Result<Written, InvalidEvent> {
        let Self { start, rules, name, clears_id, without_data, written, .. } = *self;
        let (out, id) = (&mut *self.out, self.id.take());
        if name == NameField::Trap && rules.refuse_traps {
            return Err(InvalidField::trap().into());
        }
        if written.pre_encoded != PreEncoded::No {
            return Ok(written);
        }
        if without_data && !written.has_data {
            let is_named = matches!(name, NameField::Written | NameField::Trap);
            if rules.end_mark {
                finish_last_without_data(out, is_named, id);
            } else if is_named || id.is_some() || clears_id {
                // The next event must not get them.
                out.put_u8(b'\n');
            } else if out.len() == start {
                // So that every event writes something.
                out.put_slice(b":\n");
            }
            return Ok(written);
        }
        if name == NameField::Open
            && let Some(name) = rules.endpoint
        {
            if name.is_trap() && rules.refuse_traps {
                return Err(InvalidField::trap().into());
            }
            field(out, "event: ", name.as_str());
        }
        if rules.end_mark && id.is_none() {
            field(out, "id: ", END_MARK);
        }
        if !written.has_data {
            out.put_slice(b"data:\n");
        }
        out.put_u8(b'\n');
        Ok(Written { has_data: true, ..written })
    }
}

/// Ends the last event of a stream, which no client dispatches, with an event for the end mark: not every browser takes
/// an id from a block without data.
fn finish_last_without_data(out: &mut BytesMut, is_named: bool, id: Option<Range<usize>>) {
    let id = id.and_then(|id| out.get(id)).map(BytesMut::from);
    match id {
        Some(id) if is_named => {
            out.put_slice(b"\nid: ");
            out.put_slice(&id);
            out.put_u8(b'\n');
        }
        Some(_) => {}
        None => {
            out.put_slice(if is_named { b"\n" } else { b"" });
            field(out, "id: ", END_MARK);
        }
    }
    write_control(out, CURSOR, &serde_json::Value::Object(serde_json::Map::new()));
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

/// Appends one complete frame. If `encode` fails, or the event breaks a rule, `out` stays as it was.
pub(crate) fn write_event(
    out: &mut BytesMut,
    rules: FrameRules<'_>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<Written, InvalidEvent> {
    write_atomically(FrameWriter::new(out, rules), encode)
}

/// Appends one complete frame without the event's own id. Topics number events themselves, and the id of
/// a directly sent event is not a position in the stream that carries it.
pub(crate) fn write_body(
    out: &mut BytesMut,
    name: Option<&EventName>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<Written, InvalidEvent> {
    let rules = FrameRules { endpoint: name, ..FrameRules::default() };
    let frame = FrameWriter { omit_id: true, ..FrameWriter::new(out, rules) };
    write_atomically(frame, encode)
}

fn write_atomically(
    mut frame: FrameWriter<'_>,
    encode: impl FnOnce(&mut FrameWriter<'_>) -> Result<(), InvalidEvent>,
) -> Result<Written, InvalidEvent> {
    let written = encode(&mut frame).and_then(|()| frame.finish());
    if written.is_err() {
        frame.out.truncate(frame.start);
    }
    written
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

/// Appends one of the library's own events, with a reconnection time in its block: some clients apply it only there.
pub(crate) fn write_control_with_retry(
    out: &mut BytesMut,
    name: &str,
    retry: Duration,
    data: &serde_json::Value,
) {
    field(out, "event: ", name);
    write_retry(out, retry);
    field(out, "data: ", &data.to_string());
    out.put_u8(b'\n');
}

/// Appends the reconnection time as a line. The next block carries it.
pub(crate) fn write_retry(out: &mut BytesMut, retry: Duration) {
    field(out, "retry: ", &retry.as_millis().to_string());
}

fn field(out: &mut BytesMut, name: &str, value: &str) {
    out.reserve(name.len() + value.len() + 1);
    out.put_slice(name.as_bytes());
    out.put_slice(value.as_bytes());
    out.put_u8(b'\n');
}

/// Writes a line for each line of the text, which may end in LF, CR or CRLF.
fn write_lines(out: &mut BytesMut, name: &str, text: &str) {
    let mut remaining = text.as_bytes();
    while let Some(at) = memchr::memchr2(b'\r', b'\n', remaining) {
        let (line, tail) = remaining.split_at(at);
        write_line(out, name, line);
        remaining = match tail {
            [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
            [] => tail,
        };
    }
    write_line(out, name, remaining);
}

fn write_line(out: &mut BytesMut, name: &str, line: &[u8]) {
    out.put_slice(name.as_bytes());
    // An empty line is `data:` without a space, as the specification writes it.
    out.put_slice(if line.is_empty() { b"" } else { b" " });
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
        write_event(&mut out, FrameRules::default(), |frame| {
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
    fn a_comment_is_a_line_for_each_line_of_its_text() {
        for (text, wire) in [
            ("", ":\n"),
            ("a", ": a\n"),
            (" a", ":  a\n"),
            ("\0:\u{feff}\u{2028}", ": \0:\u{feff}\u{2028}\n"),
            ("a\n\ndata: x\r\rid: 7\r\n", ": a\n:\n: data: x\n:\n: id: 7\n:\n"),
        ] {
            let comment = |f: &mut FrameWriter<'_>| f.comment(text);
            assert_eq!(frame(comment), format!("{wire}data:\n\n"), "{text:?}");
            let alone = |f: &mut FrameWriter<'_>| {
                f.comment(text);
                f.without_data();
            };
            assert_eq!(frame(alone), wire, "{text:?}");
        }
    }

    #[test]
    fn an_event_without_data_keeps_its_name_and_id_from_the_next_event() {
        let without_data = |encode: &dyn Fn(&mut FrameWriter<'_>)| {
            frame(|f| {
                encode(f);
                f.without_data();
            })
        };
        let name = EventName::from_literal("x");
        assert_eq!(without_data(&|f| f.event(&name)), "event: x\n\n");
        assert_eq!(without_data(&|f| f.id(7).expect("an id")), "id: 7\n\n");
        let retry = Duration::from_secs(1);
        assert_eq!(without_data(&|f| f.retry(retry).expect("a time")), "retry: 1000\n");
        assert_eq!(without_data(&|f| f.clear_id()), "id:\n\n");
        assert_eq!(without_data(&|f| f.unnamed()), ":\n", "something, so that a loop ends");
        assert_eq!(without_data(&|f| f.text("x")), "data: x\n\n");
        let mut out = BytesMut::new();
        let rules = FrameRules { endpoint: Some(&name), ..FrameRules::default() };
        let comment = |f: &mut FrameWriter<'_>| {
            f.comment("c");
            f.without_data();
            Ok(())
        };
        let written = write_event(&mut out, rules, comment).expect("a comment");
        assert_eq!((&out[..], written.has_data), (&b": c\n"[..], false));
    }

    #[test]
    fn a_last_event_without_data_has_its_end_mark_on_an_event_with_data() {
        let wire = |encode: &dyn Fn(&mut FrameWriter<'_>)| {
            let mut out = BytesMut::new();
            let rules = FrameRules { end_mark: true, ..FrameRules::default() };
            write_event(&mut out, rules, |f| {
                encode(f);
                f.without_data();
                Ok(())
            })
            .expect("a frame");
            String::from_utf8(out.to_vec()).expect("UTF-8")
        };
        let cursor = "event: hero.cursor\ndata: {}\n\n";
        let name = EventName::from_literal("x");
        assert_eq!(wire(&|f| f.comment("c")), format!(": c\nid: hero.end\n{cursor}"));
        assert_eq!(wire(&|f| f.id(7).expect("id")), format!("id: 7;hero.end\n{cursor}"));
        assert_eq!(wire(&|f| f.clear_id()), format!("id:\nid: hero.end\n{cursor}"));
        assert_eq!(wire(&|f| f.event(&name)), format!("event: x\n\nid: hero.end\n{cursor}"));
        let both = wire(&|f| {
            f.event(&name);
            f.id(7).expect("id");
        });
        let mark = "id: 7;hero.end\n";
        assert_eq!(both, format!("event: x\n{mark}\n{mark}{cursor}"));
    }

    #[test]
    fn names_of_an_event_source_are_refused_where_the_stream_demands_it() {
        let name = EventName::new("error").expect("a legal name");
        let write = |endpoint, own: bool, refuse_traps| {
            let mut out = BytesMut::from("before");
            let rules = FrameRules { endpoint, refuse_traps, ..FrameRules::default() };
            let written = write_event(&mut out, rules, |f| {
                if own {
                    f.event(&name);
                }
                Ok(())
            });
            assert_eq!(written.is_err(), &out[..] == b"before", "{out:?}");
            written.is_ok()
        };
        assert!(write(None, true, false) && write(Some(&name), false, false));
        assert!(!write(None, true, true) && !write(Some(&name), false, true));
        assert!(write(None, false, true));
    }

    #[test]
    fn a_failed_event_leaves_nothing_behind() {
        let mut out = BytesMut::from(&b"before"[..]);
        let name = EventName::from_literal("x");
        let failed = write_event(&mut out, FrameRules::default(), |frame| {
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
            write_event(&mut out, FrameRules { endpoint, ..FrameRules::default() }, |f| {
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
        assert_eq!(wire(Some(&endpoint), &|f| f.unnamed()), "data:\n\n");
    }

    #[test]
    fn the_last_event_carries_the_end_mark() {
        let wire = |id: Option<&str>| {
            let mut out = BytesMut::new();
            let rules = FrameRules { end_mark: true, ..FrameRules::default() };
            write_event(&mut out, rules, |f| id.map_or(Ok(()), |id| f.id(id))).expect("a frame");
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
