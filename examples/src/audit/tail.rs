//! Follows a file of lines as `tail -F` does, and says behind each line where to resume.
//!
//! All of it blocks for as long as the disk does: call it off the async threads.

use std::{
    collections::VecDeque,
    fmt::{self, Display},
    fs::{File, Metadata},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    mem,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// How many lines a reader without a position is shown first.
const LAST_LINES: usize = 50;
/// Longer lines are cut, so that a file without a line end cannot fill the memory.
const LONGEST_LINE: usize = 64 * 1024;
/// How much is read at once.
const CHUNK: u64 = 64 * 1024;
/// How many chunks without any line end are read before somebody else has a turn.
const MOST_CHUNKS: usize = 64;
/// How far back the last few lines are looked for.
const FARTHEST: u64 = LAST_LINES as u64 * CHUNK;
/// How much of what was read last is compared at the next read.
const REMEMBERED: usize = 64;

const CUT_SHORT: &str = "the log was cut short or written anew";
const NOT_THERE: &str = "the log no longer holds what came next";
const TWICE: &str = "the log was rotated more than once since it was read last";

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// A whole line, and the position behind it.
    Line { position: String, text: String },
    /// Lines may be missing before `position`.
    Gap { position: String, reason: &'static str },
}

/// A reader of the file at one path, whichever that is, and of the ones rotated away meanwhile.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    start: Start,
    /// The files to read, in this order. The last is the one at `path`, as far as we know.
    files: VecDeque<Place>,
    /// The beginning of a line whose end is not there yet.
    line: Line,
    /// The number of the rotated file when we last looked.
    rotated: Option<u64>,
    failing: bool,
}

#[derive(Debug)]
enum Start {
    LastLines,
    Beginning,
    /// `None` is a position that says nothing.
    Behind(Option<Position>),
}

impl Tail {
    /// A reader that goes on behind the position `from`, or begins with the last few lines.
    pub(super) fn new(path: PathBuf, from: Option<&str>) -> Self {
        let start = from.map_or(Start::LastLines, |from| Start::Behind(Position::parse(from)));
        let (files, line) = Default::default();
        Self { path, start, files, line, rotated: None, failing: false }
    }

    /// What is new. If that is nothing, wait a little before the next read: a writer which still
    /// has a rotated file open is given this time to finish it.
    pub(super) fn read(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut left = MOST_CHUNKS;
        let result = loop {
            match self.step(&mut pieces) {
                Ok(true) if pieces.is_empty() && left > 0 => left -= 1,
                result => break result,
            }
        };
        if let Err(error) = &result
            && !self.failing
        {
            tracing::warn!(%error, path = %self.path.display(), "the log cannot be read; trying on");
        }
        self.failing = result.is_err();
        pieces
    }

    /// Says whether there is more to do.
    fn step(&mut self, out: &mut Vec<Piece>) -> io::Result<bool> {
        if self.files.is_empty() {
            self.begin()?;
        }
        let is_last = self.files.len() == 1;
        let Some(place) = self.files.front_mut() else {
            return Ok(false);
        };
        if let Some(reason) = place.gap.take() {
            out.push(Piece::Gap { position: place.position().to_string(), reason });
        }
        match place.read()? {
            Bytes::New(bytes) => self.line.split(&bytes, place.position(), out),
            Bytes::None if is_last => {
                self.look_for_rotation()?;
                return Ok(false);
            }
            Bytes::None => self.turn_over(out),
            Bytes::Rewritten => {
                self.line = Line::default();
                if is_last {
                    place.go_to(0);
                } else {
                    self.files.pop_front();
                }
                if let Some(place) = self.files.front_mut() {
                    place.gap = Some(CUT_SHORT);
                }
            }
        }
        Ok(true)
    }

    /// Finds the file to start with, or none as long as there is none.
    fn begin(&mut self) -> io::Result<()> {
        let mut current = Place::open(&self.path)?;
        let older = Place::open(&super::rotated(&self.path))?;
        self.rotated = older.as_ref().map(|place| place.number);
        let mut older =
            older.filter(|older| current.as_ref().is_none_or(|c| c.number != older.number));

        match &self.start {
            Start::LastLines => {
                let Some(current) = &mut current else {
                    // A file that begins while we wait for it is read from its first line.
                    self.start = Start::Beginning;
                    return Ok(());
                };
                let found = current.go_to_last_lines(LAST_LINES)?;
                if let Some(mut older) = older
                    && older.go_to_last_lines(LAST_LINES.saturating_sub(found))? > 0
                {
                    self.files.push_back(older);
                }
            }
            Start::Beginning => {}
            Start::Behind(position) => {
                let is_in = |place: &mut Place| position.is_some_and(|to| place.go_behind(to));
                if !current.as_mut().is_some_and(is_in) {
                    if older.as_mut().is_some_and(is_in) {
                        self.files.extend(older);
                    } else if let Some(current) = &mut current {
                        current.gap = Some(NOT_THERE);
                    }
                }
            }
        }
        self.files.extend(current);
        Ok(())
    }

    /// Everything there is has been read: is there another file at the path by now?
    fn look_for_rotation(&mut self) -> io::Result<()> {
        let Some(read) = self.files.back().map(|place| place.number) else {
            return Ok(());
        };
        let Some(next) = Place::open(&self.path)?.filter(|next| next.number != read) else {
            return Ok(());
        };
        let rotated = Place::open(&super::rotated(&self.path))?;
        let number = rotated.as_ref().map(|place| place.number);
        if number == Some(next.number) {
            return Ok(()); // Rotated again just now: look again.
        }
        // The rotated file should be the one we have read, or, where rotated files get other names,
        // the one that has been there all along. Another one came between.
        if number != Some(read) && number != self.rotated {
            self.files.extend(rotated.map(|between| Place { gap: Some(TWICE), ..between }));
        }
        self.rotated = number;
        self.files.push_back(next);
        Ok(())
    }

    /// Leaves a file that was read to its end for the next one.
    fn turn_over(&mut self, out: &mut Vec<Piece>) {
        self.files.pop_front();
        // Nobody will finish its last line now.
        if let Some(next) = self.files.front()
            && let Some(text) = self.line.take()
        {
            out.push(Piece::Line { position: next.position().to_string(), text });
        }
    }
}

/// A place in an open file.
#[derive(Debug)]
struct Place {
    file: File,
    number: u64,
    offset: u64,
    /// The bytes just before `offset`. Where they have changed, so has the whole file.
    before: Vec<u8>,
    /// What to say before the first line from here.
    gap: Option<&'static str>,
}

enum Bytes {
    New(Vec<u8>),
    None,
    Rewritten,
}

impl Place {
    /// The beginning of the file at `path`, or `None` if there is no such file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        // Asked first: to open a pipe is to wait for its writer.
        let file = match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => return Err(io::Error::other("this is no file")),
            _ => File::open(path),
        };
        let file = match file {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let number = number(&file.metadata()?);
        Ok(Some(Self { file, number, offset: 0, before: Vec::new(), gap: None }))
    }

    fn position(&self) -> Position {
        Position { file: self.number, offset: self.offset }
    }

    /// Goes behind `position`, if it is one of this file.
    fn go_behind(&mut self, position: Position) -> bool {
        let is_long_enough = |meta: Metadata| position.offset <= meta.len();
        let is_here =
            self.number == position.file && self.file.metadata().is_ok_and(is_long_enough);
        if is_here {
            self.go_to(position.offset);
        }
        is_here
    }

    /// Goes to a place behind a line end; whether it is one shows at the next read.
    fn go_to(&mut self, offset: u64) {
        self.offset = offset;
        self.before = if offset > 0 { b"\n".to_vec() } else { Vec::new() };
    }

    /// Goes to the beginning of the last `wanted` whole lines and says how many there are.
    fn go_to_last_lines(&mut self, wanted: usize) -> io::Result<usize> {
        let end = self.file.metadata()?.len();
        let (mut from, mut found) = (end, 0);
        self.offset = end;
        while from > end.saturating_sub(FARTHEST) {
            let length = from.min(CHUNK);
            from -= length;
            self.file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            (&self.file).take(length).read_to_end(&mut bytes)?;
            for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                self.go_to(from + at as u64 + 1);
                if found == wanted {
                    return Ok(found);
                }
                found += 1;
            }
        }
        if from == 0 {
            self.go_to(0);
        }
        Ok(found)
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let known = self.before.len();
        self.file.seek(SeekFrom::Start(self.offset.saturating_sub(known as u64)))?;
        let mut bytes = Vec::new();
        (&self.file).take(known as u64 + CHUNK).read_to_end(&mut bytes)?;
        if !bytes.starts_with(&self.before) {
            return Ok(Bytes::Rewritten);
        }
        let new = bytes.split_off(known);
        if new.is_empty() {
            return Ok(Bytes::None);
        }
        self.offset += new.len() as u64;
        self.before.extend_from_slice(&new);
        let forget = self.before.len().saturating_sub(REMEMBERED);
        self.before.drain(..forget);
        Ok(Bytes::New(new))
    }
}

/// Tells one file from all others. An inode alone does not: it is used again, often by the very
/// next file. So the moment of its birth is mixed in, where the file system knows it.
fn number(meta: &Metadata) -> u64 {
    let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |born| born.as_nanos() as u64);
    #[cfg(unix)]
    let born = born ^ std::os::unix::fs::MetadataExt::ino(meta);
    born
}

/// A line as far as it is there.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    cut: usize,
}

impl Line {
    /// Adds bytes that end at `end`, and hands out the lines which that completes.
    fn split(&mut self, bytes: &[u8], end: Position, out: &mut Vec<Piece>) {
        let mut offset = end.offset.saturating_sub(bytes.len() as u64);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            offset += part.len() as u64;
            self.add(part.strip_suffix(b"\n").unwrap_or(part));
            if part.ends_with(b"\n") {
                let position = Position { offset, ..end }.to_string();
                out.push(Piece::Line { position, text: self.take().unwrap_or_default() });
            }
        }
    }

    fn add(&mut self, part: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.bytes.len()).min(part.len());
        let (kept, cut) = part.split_at(room);
        self.bytes.extend_from_slice(kept);
        self.cut += cut.len();
    }

    /// The text so far, if there is any; the next line begins.
    fn take(&mut self) -> Option<String> {
        let Self { bytes, cut } = mem::take(self);
        let mut text =
            String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(&bytes)).into_owned();
        if cut > 0 {
            text.push_str(&format!(" [{cut} more bytes]"));
        }
        (!bytes.is_empty()).then_some(text)
    }
}

/// A place in the log as clients know it: the file's number in hex, and an offset.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Position {
    file: u64,
    offset: u64,
}

impl Position {
    /// Reads what a client sent, which may be anything.
    fn parse(text: &str) -> Option<Self> {
        let (file, offset) = text.split_once(':')?;
        Some(Self { file: u64::from_str_radix(file, 16).ok()?, offset: offset.parse().ok()? })
    }
}

impl Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.file, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    struct Log {
        dir: TempDir,
    }

    impl Log {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("audit.log")
        }

        fn add(&self, text: impl AsRef<[u8]>) {
            let file = fs::OpenOptions::new().append(true).create(true).open(self.path());
            file.unwrap().write_all(text.as_ref()).unwrap();
        }

        fn rotate(&self) {
            fs::rename(self.path(), super::super::rotated(&self.path())).unwrap();
        }

        fn tail(&self, from: Option<&str>) -> Tail {
            Tail::new(self.path(), from)
        }
    }

    /// Reads until nothing has come three times, which leaves time for every change of files.
    fn drain(tail: &mut Tail) -> Vec<Piece> {
        let (mut all, mut quiet) = (Vec::new(), 0);
        while quiet < 3 {
            let pieces = tail.read();
            quiet = if pieces.is_empty() { quiet + 1 } else { 0 };
            all.extend(pieces);
            assert!(all.len() < 10_000, "a reader must come to the end");
        }
        all
    }

    /// The lines, and a gap as its reason in brackets.
    fn texts(pieces: &[Piece]) -> Vec<String> {
        let text = |piece: &Piece| match piece {
            Piece::Line { text, .. } => text.clone(),
            Piece::Gap { reason, .. } => format!("[{reason}]"),
        };
        pieces.iter().map(text).collect()
    }

    fn position(piece: &Piece) -> &str {
        let (Piece::Line { position, .. } | Piece::Gap { position, .. }) = piece;
        position
    }

    fn gap(reason: &str) -> String {
        format!("[{reason}]")
    }

    #[test]
    fn a_new_reader_gets_the_last_lines_then_what_follows() {
        let log = Log::new();
        for n in 0..80 {
            log.add(format!("{n}\n"));
        }
        let mut tail = log.tail(None);
        let expected: Vec<_> = (30..80).map(|n| n.to_string()).collect();
        assert_eq!(texts(&drain(&mut tail)), expected);
        log.add("80\n");
        assert_eq!(texts(&drain(&mut tail)), ["80"]);
    }

    #[test]
    fn the_last_lines_reach_back_into_the_rotated_file() {
        let log = Log::new();
        for n in 0..80 {
            log.add(format!("{n}\n"));
            if n == 69 {
                log.rotate();
            }
        }
        let expected: Vec<_> = (30..80).map(|n| n.to_string()).collect();
        assert_eq!(texts(&drain(&mut log.tail(None))), expected);
    }

    #[test]
    fn the_last_lines_of_a_large_file_are_found() {
        let log = Log::new();
        let long = "x".repeat(3000);
        for n in 0..200 {
            log.add(format!("{n} {long}\n"));
        }
        let pieces = drain(&mut log.tail(None));
        assert_eq!(pieces.len(), LAST_LINES);
        assert!(texts(&pieces)[0].starts_with("150 x"));
    }

    #[test]
    fn a_missing_file_is_waited_for_and_read_from_its_first_line() {
        let log = Log::new();
        let mut tail = log.tail(None);
        assert_eq!(drain(&mut tail), []);
        for n in 0..80 {
            log.add(format!("{n}\n"));
        }
        assert_eq!(drain(&mut tail).len(), 80);
    }

    #[test]
    fn a_line_waits_for_its_end() {
        let log = Log::new();
        log.add("one\ntw");
        let mut tail = log.tail(None);
        assert_eq!(texts(&drain(&mut tail)), ["one"]);
        log.add("o\r\n\nthree\n");
        assert_eq!(texts(&drain(&mut tail)), ["two", "", "three"]);
    }

    #[test]
    fn a_rename_loses_and_doubles_nothing() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail(None);
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
        log.add("2\n");
        log.rotate();
        assert_eq!(texts(&drain(&mut tail)), ["2"], "no new file yet");
        log.add("3\n");
        assert_eq!(texts(&drain(&mut tail)), ["3"]);
        log.rotate();
        log.add("4\n");
        assert_eq!(texts(&drain(&mut tail)), ["4"]);
    }

    #[test]
    fn a_writer_that_is_late_in_the_rotated_file_is_heard() {
        let log = Log::new();
        log.add("1\n");
        let mut writer = fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let mut tail = log.tail(None);
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
        log.rotate();
        log.add("3\n");
        assert_eq!(tail.read(), [], "the rotation is seen");
        writer.write_all(b"2\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), ["2", "3"]);
    }

    #[test]
    fn an_unfinished_line_of_a_rotated_file_is_handed_out() {
        let log = Log::new();
        log.add("1\nhal");
        let mut tail = log.tail(None);
        drain(&mut tail);
        log.rotate();
        log.add("2\n");
        let pieces = drain(&mut tail);
        assert_eq!(texts(&pieces), ["hal", "2"]);
        assert_eq!(texts(&drain(&mut log.tail(Some(position(&pieces[0]))))), ["2"]);
    }

    #[test]
    fn a_rotation_to_another_name_is_no_gap() {
        let log = Log::new();
        log.add("0\n");
        log.rotate();
        log.add("1\n");
        let mut tail = log.tail(None);
        drain(&mut tail);
        fs::rename(log.path(), log.dir.path().join("audit.log-20260101")).unwrap();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["2"]);
    }

    #[test]
    fn two_rotations_between_reads_are_told() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail(None);
        drain(&mut tail);
        log.add("2\n");
        log.rotate();
        log.add("3\n");
        log.rotate();
        log.add("4\n");
        assert_eq!(texts(&drain(&mut tail)), ["2", &gap(TWICE), "3", "4"]);
    }

    #[test]
    fn a_file_cut_short_in_place_is_read_anew() {
        let log = Log::new();
        log.add("1\n2\n");
        let mut tail = log.tail(None);
        drain(&mut tail);
        fs::write(log.path(), "3\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), [&gap(CUT_SHORT), "3"]);
        // As long as before, so that the size tells nothing.
        fs::write(log.path(), "4\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), [&gap(CUT_SHORT), "4"]);
    }

    #[test]
    fn a_position_goes_on_exactly_behind_its_line() {
        let log = Log::new();
        log.add("1\n2\n3\n");
        let pieces = drain(&mut log.tail(None));
        let mut tail = log.tail(Some(position(&pieces[1])));
        assert_eq!(texts(&drain(&mut tail)), ["3"]);
        assert_eq!(drain(&mut log.tail(Some(position(&pieces[2])))), []);

        log.add("4\n");
        log.rotate();
        assert_eq!(texts(&drain(&mut log.tail(Some(position(&pieces[1]))))), ["3", "4"]);
        log.add("5\n");
        let pieces = drain(&mut log.tail(Some(position(&pieces[1]))));
        assert_eq!(texts(&pieces), ["3", "4", "5"]);
        assert_eq!(texts(&drain(&mut log.tail(Some(position(&pieces[1]))))), ["5"]);
    }

    #[test]
    fn a_position_in_a_file_that_is_gone_is_a_gap() {
        let log = Log::new();
        log.add("1\n");
        let old = drain(&mut log.tail(None));
        for text in ["2\n", "3\n"] {
            log.rotate();
            log.add(text);
        }
        let pieces = drain(&mut log.tail(Some(position(&old[0]))));
        assert_eq!(texts(&pieces), [&gap(NOT_THERE), "3"]);
        let again = drain(&mut log.tail(Some(position(&pieces[0]))));
        assert_eq!(texts(&again), ["3"], "a gap's own position is good");
    }

    #[test]
    fn a_position_beyond_the_end_or_within_a_line_is_a_gap() {
        let log = Log::new();
        log.add("1\n2\n3\n");
        let old = drain(&mut log.tail(None));
        fs::write(log.path(), "four\n").unwrap();
        let pieces = drain(&mut log.tail(Some(position(&old[2]))));
        assert_eq!(texts(&pieces), [&gap(NOT_THERE), "four"]);
        let pieces = drain(&mut log.tail(Some(position(&old[1]))));
        assert_eq!(texts(&pieces), [&gap(CUT_SHORT), "four"]);
    }

    #[test]
    fn a_position_within_a_line_of_the_rotated_file_leads_to_the_current_one() {
        let log = Log::new();
        log.add("one\n");
        let file = drain(&mut log.tail(None));
        let (file, _) = position(&file[0]).split_once(':').unwrap();
        log.rotate();
        log.add("two\n");
        let pieces = drain(&mut log.tail(Some(&format!("{file}:2"))));
        assert_eq!(texts(&pieces), [&gap(CUT_SHORT), "two"]);
    }

    #[test]
    fn a_hostile_position_is_one_that_is_not_there() {
        let log = Log::new();
        log.add("1\n");
        let file = number(&fs::metadata(log.path()).unwrap());
        let (max, long) = (format!("{file:x}:{}", u64::MAX), "9".repeat(100_000));
        for from in ["", ":", "x", "-1:-1", "0:0", "\u{1F980}:1", "../../etc/passwd:0", &max, &long]
        {
            let pieces = drain(&mut log.tail(Some(from)));
            assert_eq!(texts(&pieces), [&gap(NOT_THERE), "1"], "{from:.20}");
        }
    }

    #[test]
    fn a_position_waits_for_a_missing_file() {
        let log = Log::new();
        let mut tail = log.tail(Some("1:2"));
        assert_eq!(drain(&mut tail), []);
        log.add("1\n");
        assert_eq!(texts(&drain(&mut tail)), [&gap(NOT_THERE), "1"]);
    }

    #[test]
    fn long_lines_are_cut_and_strange_bytes_replaced() {
        let log = Log::new();
        log.add("x".repeat(300_000));
        log.add(b"\n\xff\xfe\nend\n");
        let pieces = drain(&mut log.tail(None));
        let texts = texts(&pieces);
        assert_eq!(texts[0].len(), LONGEST_LINE + " [234464 more bytes]".len());
        assert!(texts[0].ends_with("x [234464 more bytes]"));
        assert_eq!(texts[1..], ["\u{fffd}\u{fffd}", "end"]);
        assert_eq!(drain(&mut log.tail(Some(position(&pieces[0])))).len(), 2);
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let log = Log::new();
        let mut tail = log.tail(None);
        for _ in 0..100 {
            log.add("x".repeat(100_000));
            drain(&mut tail);
        }
        assert!(tail.line.bytes.len() <= LONGEST_LINE);
    }

    #[test]
    fn an_error_is_no_end() {
        let log = Log::new();
        fs::create_dir(log.path()).unwrap();
        let mut tail = log.tail(None);
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("1\n");
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
    }

    #[test]
    fn a_directory_in_its_place_is_waited_out() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail(None);
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
        fs::remove_file(log.path()).unwrap();
        fs::create_dir(log.path()).unwrap();
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["2"]);
    }

    #[test]
    fn a_directory_before_the_first_file_is_waited_out() {
        let log = Log::new();
        let mut tail = log.tail(None);
        assert_eq!(drain(&mut tail), []);
        fs::create_dir(log.path()).unwrap();
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["2"]);
    }

    #[test]
    fn a_directory_met_when_resuming_is_waited_out() {
        let log = Log::new();
        log.add("1\n");
        let at = drain(&mut log.tail(None));
        log.rotate();
        fs::create_dir(log.path()).unwrap();
        let mut tail = log.tail(Some(position(&at[0])));
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["2"]);
    }
}
