//! Follows a file of lines as `tail -F` does, and says of each line where it stands.
//!
//! All of it blocks for as long as the disk does: call it off the async threads.

use std::{
    collections::VecDeque,
    fs::{File, Metadata},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    mem,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// How many lines that were there before are read first.
pub(super) const LAST_LINES: usize = 50;
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
const TWICE: &str = "the log was rotated more than once since it was read last";

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// A whole line, and where it ends: the file's number in hex, and an offset. It stays
    /// the same when the file is rotated or the program begins anew.
    Line { place: String, text: String },
    /// Lines may be missing here.
    Gap { reason: &'static str },
}

/// A reader of the file at one path, whichever that is, and of the ones rotated away meanwhile.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// There was no file yet: the first one is read from its first line.
    early: bool,
    /// The files to read, in this order. The last is the one at `path`, as far as we know.
    files: VecDeque<Place>,
    /// The beginning of a line whose end is not there yet.
    line: Line,
    /// The number of the rotated file when we last looked.
    rotated: Option<u64>,
    failing: bool,
}

impl Tail {
    /// A reader that begins with the last few lines.
    pub(super) fn new(path: PathBuf) -> Self {
        let (files, line) = Default::default();
        Self { path, early: false, files, line, rotated: None, failing: false }
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
            out.push(Piece::Gap { reason });
        }
        match place.read()? {
            Bytes::New(bytes) => self.line.split(&bytes, place, out),
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
        let current = Place::open(&self.path)?;
        let older = Place::open(&super::rotated(&self.path))?;
        self.rotated = older.as_ref().map(|older| older.number);
        let Some(mut current) = current else {
            self.early = true;
            return Ok(());
        };
        if !self.early {
            let found = current.go_to_last_lines(LAST_LINES)?;
            if let Some(mut older) = older.filter(|older| older.number != current.number)
                && older.go_to_last_lines(LAST_LINES.saturating_sub(found))? > 0
            {
                self.files.push_back(older);
            }
        }
        self.files.push_back(current);
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
        let done = self.files.pop_front();
        // Nobody will finish its last line now.
        if let Some(done) = done
            && let Some(text) = self.line.take()
        {
            out.push(Piece::Line { place: done.name(), text });
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

    fn name(&self) -> String {
        self.name_of(self.offset)
    }

    fn name_of(&self, offset: u64) -> String {
        format!("{:x}:{offset}", self.number)
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
    /// Adds bytes that end at the place `end`, and hands out the lines which that completes.
    fn split(&mut self, bytes: &[u8], end: &Place, out: &mut Vec<Piece>) {
        let mut offset = end.offset.saturating_sub(bytes.len() as u64);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            offset += part.len() as u64;
            self.add(part.strip_suffix(b"\n").unwrap_or(part));
            if part.ends_with(b"\n") {
                let text = self.take().unwrap_or_default();
                out.push(Piece::Line { place: end.name_of(offset), text });
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

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, io::Write, path::PathBuf};

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

        fn tail(&self) -> Tail {
            Tail::new(self.path())
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
            Piece::Gap { reason } => format!("[{reason}]"),
        };
        pieces.iter().map(text).collect()
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
        let mut tail = log.tail();
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
        assert_eq!(texts(&drain(&mut log.tail())), expected);
    }

    #[test]
    fn the_last_lines_of_a_large_file_are_found() {
        let log = Log::new();
        let long = "x".repeat(3000);
        for n in 0..200 {
            log.add(format!("{n} {long}\n"));
        }
        let pieces = drain(&mut log.tail());
        assert_eq!(pieces.len(), LAST_LINES);
        assert!(texts(&pieces)[0].starts_with("150 x"));
    }

    #[test]
    fn a_missing_file_is_waited_for_and_read_from_its_first_line() {
        let log = Log::new();
        let mut tail = log.tail();
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
        let mut tail = log.tail();
        assert_eq!(texts(&drain(&mut tail)), ["one"]);
        log.add("o\r\n\nthree\n");
        assert_eq!(texts(&drain(&mut tail)), ["two", "", "three"]);
    }

    #[test]
    fn a_rename_loses_and_doubles_nothing() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail();
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
        let mut tail = log.tail();
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
        let mut tail = log.tail();
        drain(&mut tail);
        log.rotate();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["hal", "2"]);
    }

    #[test]
    fn a_rotation_to_another_name_is_no_gap() {
        let log = Log::new();
        log.add("0\n");
        log.rotate();
        log.add("1\n");
        let mut tail = log.tail();
        drain(&mut tail);
        fs::rename(log.path(), log.dir.path().join("audit.log-20260101")).unwrap();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["2"]);
    }

    #[test]
    fn two_rotations_between_reads_are_told() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail();
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
        let mut tail = log.tail();
        drain(&mut tail);
        fs::write(log.path(), "3\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), [&gap(CUT_SHORT), "3"]);
        // As long as before, so that the size tells nothing.
        fs::write(log.path(), "4\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), [&gap(CUT_SHORT), "4"]);
    }

    #[test]
    fn a_line_stands_where_it_stood_after_a_rotation_and_for_another_reader() {
        let log = Log::new();
        log.add("1\n2\nhal");
        let mut tail = log.tail();
        let mut pieces = drain(&mut tail);
        log.rotate();
        log.add("2\n");
        pieces.extend(drain(&mut tail));
        assert_eq!(texts(&pieces), ["1", "2", "hal", "2"]);
        assert_eq!(drain(&mut log.tail()), pieces);
        let places: HashSet<_> = pieces.iter().map(|piece| format!("{piece:?}")).collect();
        assert_eq!(places.len(), 4);
    }

    #[test]
    fn long_lines_are_cut_and_strange_bytes_replaced() {
        let log = Log::new();
        log.add("x".repeat(300_000));
        log.add(b"\n\xff\xfe\nend\n");
        let pieces = drain(&mut log.tail());
        let texts = texts(&pieces);
        assert_eq!(texts[0].len(), LONGEST_LINE + " [234464 more bytes]".len());
        assert!(texts[0].ends_with("x [234464 more bytes]"));
        assert_eq!(texts[1..], ["\u{fffd}\u{fffd}", "end"]);
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let log = Log::new();
        let mut tail = log.tail();
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
        let mut tail = log.tail();
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("1\n");
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
    }

    #[test]
    fn a_directory_in_its_place_is_waited_out() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail();
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
        let mut tail = log.tail();
        assert_eq!(drain(&mut tail), []);
        fs::create_dir(log.path()).unwrap();
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["2"]);
    }
}
