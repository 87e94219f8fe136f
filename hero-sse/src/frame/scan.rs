//! Reads frames that this module wrote: where one ends, its event name, its data.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::field::{END_MARK, END_SUFFIX};
use super::write::GAP;

/// Returns where the next write of these frames ends: after as many whole frames as fit into `max_bytes`,
/// or after one longer frame.
pub(crate) fn end_of_write(frames: &[u8], max_bytes: usize) -> usize {
    /// A blank line. A frame contains none but the one at its end.
    const END: &[u8] = b"\n\n";
    if frames.len() <= max_bytes {
        return frames.len();
    }
    let (within, _) = frames.split_at(max_bytes);
    if let Some(last) = memchr::memmem::rfind(within, END) {
        return last + END.len();
    }
    // The blank line may lie across the bound.
    let from = max_bytes.saturating_sub(1);
    let (_, long) = frames.split_at(from);
    memchr::memmem::find(long, END).map_or(frames.len(), |end| from + end + END.len())
}

/// Returns the event name of a frame.
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

/// Whether a client dispatches a frame: whether it has a data line.
pub(crate) fn has_data(frame: &[u8]) -> bool {
    frame.starts_with(b"data:") || memchr::memmem::find(frame, b"\ndata:").is_some()
}

/// Returns the last reconnection time in these frames.
pub(crate) fn retry_of(frames: &[u8]) -> Option<Duration> {
    let line = b"retry: ";
    // A line of data or of a comment begins with other bytes.
    let at = memchr::memmem::rfind_iter(frames, line).find(|at| match at.checked_sub(1) {
        Some(before) => frames.get(before) == Some(&b'\n'),
        None => true,
    })?;
    let value = frames.get(at + line.len()..)?;
    let value = value.get(..memchr::memchr(b'\n', value)?)?;
    Some(Duration::from_millis(str::from_utf8(value).ok()?.parse().ok()?))
}

/// Returns the text of each comment line in these frames.
#[cfg(feature = "testing")]
pub(crate) fn comments_in(frames: &str) -> impl Iterator<Item = &str> {
    let lines = frames.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let comments = lines.filter_map(|line| line.strip_prefix(':'));
    comments.map(|text| text.strip_prefix(' ').unwrap_or(text))
}

/// What a sequence of frames contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents<'a> {
    /// Number of gap events.
    pub(crate) gaps: u64,
    /// Number of the application's events that have data.
    pub(crate) events: u64,
    /// The name of the last of them.
    pub(crate) name: Option<&'a [u8]>,
}

pub(crate) fn contents_of(mut frames: &[u8]) -> Contents<'_> {
    let mut contents = Contents::default();
    while !frames.is_empty() {
        let one_frame = end_of_write(frames, 1);
        let (frame, rest) = frames.split_at(one_frame);
        match name_of(frame) {
            Some(name) if name == GAP.as_bytes() => contents.gaps += 1,
            Some(name) if name.starts_with(b"hero.") => {}
            name if has_data(frame) => {
                contents.events += 1;
                contents.name = name;
            }
            _ => {}
        }
        frames = rest;
    }
    contents
}

/// Rewrites the frames from `start` on for a plain stream: without the library's own events, and without end marks.
/// Returns whether there was a gap event among them.
pub(crate) fn make_plain(out: &mut BytesMut, start: usize) -> bool {
    let frames = out.get(start..).unwrap_or_default();
    if memchr::memmem::find(frames, b"hero.").is_none() {
        return false;
    }
    let (mut frames, mut has_gap) = (out.split_off(start.min(out.len())), false);
    while !frames.is_empty() {
        let frame = frames.split_to(end_of_write(&frames, 1));
        match name_of(&frame) {
            Some(name) if name == GAP.as_bytes() => has_gap = true,
            Some(name) if name.starts_with(b"hero.") => {}
            _ => copy_without_end_mark(&frame, out),
        }
    }
    has_gap
}

fn copy_without_end_mark(frame: &[u8], out: &mut BytesMut) {
    for line in frame.split_inclusive(|byte| *byte == b'\n') {
        let id = line.strip_prefix(b"id: ").and_then(|id| id.strip_suffix(b"\n"));
        match id.and_then(|id| id.strip_suffix(END_SUFFIX.as_bytes())) {
            Some(own) => [&b"id: "[..], own, b"\n"].iter().for_each(|part| out.put_slice(part)),
            None if id == Some(END_MARK.as_bytes()) => {}
            None => out.put_slice(line),
        }
    }
}

/// Returns the data of a frame.
pub(crate) fn data_of(frame: &str) -> String {
    let lines = frame.split('\n').filter_map(|line| line.strip_prefix("data:"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::frame::{EventName, FrameRules, write_event};

    #[test]
    fn name_of_returns_the_event_field_and_never_a_data_line() {
        let name = |endpoint: Option<&EventName>, own: Option<&'static str>, data: &str| {
            let mut out = BytesMut::new();
            write_event(&mut out, FrameRules { endpoint, ..FrameRules::default() }, |f| {
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
    fn contents_of_counts_gaps_and_events_and_skips_control_events() {
        let contents = |gaps, events, name: Option<&'static str>| Contents {
            gaps,
            events,
            name: name.map(str::as_bytes),
        };
        let gap = "id: 7\nevent: hero.gap\ndata: {}\n\n";
        for (frames, expected) in [
            ("", contents(0, 0, None)),
            ("id: 8\nevent: a\ndata: event: hero.gap\ndata:\n\n", contents(0, 1, Some("a"))),
            ("event: a\ndata: x\n\ndata: event: b\n\n", contents(0, 2, None)),
            ("event: hero.cursor\ndata: {}\n\n", contents(0, 0, None)),
            (": c\nretry: 500\n", contents(0, 0, None)),
            ("id: 7\n\nevent: a\n\n", contents(0, 0, None)),
            (": data:\nevent: a\ndata:\n\n: c\n", contents(0, 1, Some("a"))),
            (gap, contents(1, 0, None)),
            (&format!("{gap}event: a\ndata:\n\n"), contents(1, 1, Some("a"))),
            (&format!("{gap}{gap}event: a\ndata:\n\n{gap}"), contents(3, 1, Some("a"))),
        ] {
            assert_eq!(contents_of(frames.as_bytes()), expected, "{frames:?}");
        }
    }

    #[test]
    fn make_plain_drops_control_events_and_end_marks_and_finds_gaps() {
        for (frames, plain, gap) in [
            ("id: 7\ndata: hero.gap\n\n", "id: 7\ndata: hero.gap\n\n", false),
            ("id: 7;hero.end\ndata: id: 7;hero.end\n\n", "id: 7\ndata: id: 7;hero.end\n\n", false),
            ("id: hero.end\ndata: x\n\n", "data: x\n\n", false),
            ("data: a\n\nid: 8\nevent: hero.cursor\ndata: {}\n\n", "data: a\n\n", false),
            (
                "id: 7\nevent: hero.gap\ndata: {}\n\nevent: a\ndata:\n\n",
                "event: a\ndata:\n\n",
                true,
            ),
        ] {
            let mut out = BytesMut::from(&b"before: hero.gap\n\n"[..]);
            let start = out.len();
            out.extend_from_slice(frames.as_bytes());
            assert_eq!(make_plain(&mut out, start), gap, "{frames:?}");
            assert_eq!(out, format!("before: hero.gap\n\n{plain}").as_bytes(), "{frames:?}");
        }
    }

    #[test]
    fn retry_of_returns_the_last_field_and_never_a_line_of_data_or_a_comment() {
        for (frames, millis) in [
            ("", None),
            ("data: retry: 500\n\n: retry: 500\n", None),
            ("retry: 500\n", Some(500)),
            ("id: 1\nretry: 500\ndata: x\n\nretry: 700\n", Some(700)),
            ("retry: 500\n: retry: 700\ndata: \\nretry: 900\n\n", Some(500)),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(retry_of(frames.as_bytes()), expected, "{frames:?}");
        }
    }

    #[test]
    fn data_of_returns_every_line_an_empty_one_included() {
        for data in ["", "a", " a", "a\n\nb", "\n", "data: x"] {
            let mut out = BytesMut::new();
            let text = |f: &mut crate::frame::FrameWriter<'_>| {
                f.comment("data: no");
                f.text(data);
                Ok(())
            };
            write_event(&mut out, FrameRules::default(), text).expect("a frame");
            assert_eq!(data_of(&String::from_utf8_lossy(&out)), data, "{data:?}");
            assert!(has_data(&out));
        }
        assert!(!has_data(b": data: x\nid: 7\n\n"));
    }

    #[test]
    fn a_write_ends_with_a_frame() {
        for (frames, max_bytes, end) in [
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
            assert_eq!(end_of_write(frames.as_bytes(), max_bytes), end, "{frames:?} {max_bytes}");
        }
    }
}
