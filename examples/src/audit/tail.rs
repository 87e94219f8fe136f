//! Follows the file at one path as `tail -F` does, across rotations.
//!
//! All functions here block on the disk: call them outside of async tasks.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use super::file::{Chunk, FileCursor, LineBuffer};

/// Number of existing lines that a new tail starts with.
pub(super) const LAST_LINES: usize = 50;
/// Chunks without a line end that one call reads at most, so that a huge line does not block the caller for long.
const MAX_CHUNKS_PER_READ: usize = 64;

const TRUNCATED: &str = "the log was truncated or rewritten";
const ROTATED_TWICE: &str = "the log was rotated more than once since the last read";

/// One result of reading.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// A whole line.
    Line {
        /// Where the line ends: id of the file in hex, and offset. A rotation or a restart does not change it.
        place: String,
        /// The line without its end.
        text: String,
    },
    /// Lines may be missing here.
    Gap {
        /// The reason.
        reason: &'static str,
    },
}

/// Reads the file at a path, whichever that is at the moment, and the rest of files that were rotated away.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// There was no file at the start. The first one is read from its first line.
    waiting_for_file: bool,
    /// The files to read, in this order. The last one is at `path`, as far as is known.
    files: VecDeque<OpenFile>,
    /// The start of a line whose end is not written yet.
    line: LineBuffer,
    /// Id of the rotated file at the last check.
    rotated: Option<u64>,
    /// Whether the last read failed. Only the first failure in a row is logged.
    failing: bool,
}

#[derive(Debug)]
struct OpenFile {
    cursor: FileCursor,
    /// A gap to report before the next line of this file.
    gap: Option<&'static str>,
}

impl From<FileCursor> for OpenFile {
    fn from(cursor: FileCursor) -> Self {
        Self { cursor, gap: None }
    }
}

impl Tail {
    /// Creates a reader that starts with the last lines of the file.
    pub(super) fn new(path: PathBuf) -> Self {
        let (files, line) = Default::default();
        Self { path, waiting_for_file: false, files, line, rotated: None, failing: false }
    }

    /// Reads what is new. After an empty result, wait before the next call: a writer that still has a rotated file
    /// open gets this time to finish it.
    pub(super) fn read(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut chunks_left = MAX_CHUNKS_PER_READ;
        let result = loop {
            match self.step(&mut entries) {
                Ok(true) if entries.is_empty() && chunks_left > 0 => chunks_left -= 1,
                result => break result,
            }
        };
        if let Err(error) = &result
            && !self.failing
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot read the log; trying again");
        }
        self.failing = result.is_err();
        entries
    }

    /// Reads one chunk, or changes to another file. Returns whether there is more to do.
    fn step(&mut self, out: &mut Vec<Entry>) -> io::Result<bool> {
        if self.files.is_empty() {
            self.open_first()?;
        }
        let is_last = self.files.len() == 1;
        let Some(file) = self.files.front_mut() else {
            return Ok(false);
        };
        if let Some(reason) = file.gap.take() {
            out.push(Entry::Gap { reason });
        }
        match file.cursor.read()? {
            Chunk::New(bytes) => {
                let lines = self.line.split(&bytes, file.cursor.offset());
                out.extend(
                    lines.map(|(end, text)| Entry::Line {
                        place: place(file.cursor.id(), end),
                        text,
                    }),
                );
            }
            Chunk::End if is_last => {
                self.check_rotation()?;
                return Ok(false);
            }
            Chunk::End => self.finish_file(out),
            Chunk::Rewritten => {
                self.line = LineBuffer::default();
                if is_last {
                    file.cursor.go_to(0);
                } else {
                    self.files.pop_front();
                }
                if let Some(file) = self.files.front_mut() {
                    file.gap = Some(TRUNCATED);
                }
            }
        }
        Ok(true)
    }

    /// Opens the file to start with, if there is one yet.
    fn open_first(&mut self) -> io::Result<()> {
        let current = FileCursor::open(&self.path)?;
        let older = FileCursor::open(&super::rotated(&self.path))?;
        self.rotated = older.as_ref().map(FileCursor::id);
        let Some(mut current) = current else {
            self.waiting_for_file = true;
            return Ok(());
        };
        if !self.waiting_for_file {
            let found = current.go_to_last_lines(LAST_LINES)?;
            if let Some(mut older) = older.filter(|older| older.id() != current.id())
                && older.go_to_last_lines(LAST_LINES.saturating_sub(found))? > 0
            {
                self.files.push_back(older.into());
            }
        }
        self.files.push_back(current.into());
        Ok(())
    }

    /// Checks whether another file is at the path, after everything in the last one was read.
    fn check_rotation(&mut self) -> io::Result<()> {
        let Some(last) = self.files.back().map(|file| file.cursor.id()) else {
            return Ok(());
        };
        let Some(next) = FileCursor::open(&self.path)?.filter(|next| next.id() != last) else {
            return Ok(());
        };
        let rotated = FileCursor::open(&super::rotated(&self.path))?;
        let rotated_id = rotated.as_ref().map(FileCursor::id);
        if rotated_id == Some(next.id()) {
            return Ok(()); // Rotated between the two calls. The next check finds the newer file.
        }
        // The rotated file should be the last one read. Where rotated files get other names, it is the one that was
        // there before. If it is neither, another file came between.
        if rotated_id != Some(last) && rotated_id != self.rotated {
            self.files.extend(rotated.map(|cursor| OpenFile { cursor, gap: Some(ROTATED_TWICE) }));
        }
        self.rotated = rotated_id;
        self.files.push_back(next.into());
        Ok(())
    }

    /// Closes a file that was read to its end. Its unfinished last line is final now.
    fn finish_file(&mut self, out: &mut Vec<Entry>) {
        if let Some(OpenFile { cursor, .. }) = self.files.pop_front()
            && let Some(text) = self.line.take()
        {
            out.push(Entry::Line { place: place(cursor.id(), cursor.offset()), text });
        }
    }
}

fn place(file_id: u64, end: u64) -> String {
    format!("{file_id:x}:{end}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::io::Write;

    use tempfile::TempDir;

    use super::super::file::MAX_LINE_BYTES;
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

    /// Reads until three results in a row are empty, which is enough for every change of files.
    fn drain(tail: &mut Tail) -> Vec<Entry> {
        let (mut all, mut quiet) = (Vec::new(), 0);
        while quiet < 3 {
            let entries = tail.read();
            quiet = if entries.is_empty() { quiet + 1 } else { 0 };
            all.extend(entries);
            assert!(all.len() < 10_000, "the tail must come to an end");
        }
        all
    }

    /// Texts of the lines; a gap is its reason in brackets.
    fn texts(entries: &[Entry]) -> Vec<String> {
        let text = |entry: &Entry| match entry {
            Entry::Line { text, .. } => text.clone(),
            Entry::Gap { reason } => format!("[{reason}]"),
        };
        entries.iter().map(text).collect()
    }

    fn gap(reason: &str) -> String {
        format!("[{reason}]")
    }

    #[test]
    fn a_new_tail_starts_with_the_last_lines_then_reads_new_ones() {
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
        let entries = drain(&mut log.tail());
        assert_eq!(entries.len(), LAST_LINES);
        assert!(texts(&entries)[0].starts_with("150 x"));
    }

    #[test]
    fn a_file_that_appears_later_is_read_from_its_first_line() {
        let log = Log::new();
        let mut tail = log.tail();
        assert_eq!(drain(&mut tail), []);
        for n in 0..80 {
            log.add(format!("{n}\n"));
        }
        assert_eq!(drain(&mut tail).len(), 80);
    }

    #[test]
    fn a_line_without_its_end_is_held_back() {
        let log = Log::new();
        log.add("one\ntw");
        let mut tail = log.tail();
        assert_eq!(texts(&drain(&mut tail)), ["one"]);
        log.add("o\r\n\nthree\n");
        assert_eq!(texts(&drain(&mut tail)), ["two", "", "three"]);
    }

    #[test]
    fn a_rotation_neither_drops_nor_repeats_a_line() {
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
    fn a_late_write_to_the_rotated_file_is_read() {
        let log = Log::new();
        log.add("1\n");
        let mut writer = fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let mut tail = log.tail();
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
        log.rotate();
        log.add("3\n");
        assert_eq!(tail.read(), [], "this call notices the rotation");
        writer.write_all(b"2\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), ["2", "3"]);
    }

    #[test]
    fn an_unfinished_line_of_a_rotated_file_is_returned() {
        let log = Log::new();
        log.add("1\nhal");
        let mut tail = log.tail();
        drain(&mut tail);
        log.rotate();
        log.add("2\n");
        assert_eq!(texts(&drain(&mut tail)), ["hal", "2"]);
    }

    #[test]
    fn a_rotation_to_another_name_is_not_a_gap() {
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
    fn two_rotations_between_reads_are_a_gap() {
        let log = Log::new();
        log.add("1\n");
        let mut tail = log.tail();
        drain(&mut tail);
        log.add("2\n");
        log.rotate();
        log.add("3\n");
        log.rotate();
        log.add("4\n");
        assert_eq!(texts(&drain(&mut tail)), ["2", &gap(ROTATED_TWICE), "3", "4"]);
    }

    #[test]
    fn a_truncated_file_is_read_from_its_start_after_a_gap() {
        let log = Log::new();
        log.add("1\n2\n");
        let mut tail = log.tail();
        drain(&mut tail);
        fs::write(log.path(), "3\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), [&gap(TRUNCATED), "3"]);
        // The same length as before: the size alone does not show the change.
        fs::write(log.path(), "4\n").unwrap();
        assert_eq!(texts(&drain(&mut tail)), [&gap(TRUNCATED), "4"]);
    }

    #[test]
    fn the_place_of_a_line_survives_a_rotation_and_is_the_same_for_every_tail() {
        let log = Log::new();
        log.add("1\n2\nhal");
        let mut tail = log.tail();
        let mut entries = drain(&mut tail);
        log.rotate();
        log.add("2\n");
        entries.extend(drain(&mut tail));
        assert_eq!(texts(&entries), ["1", "2", "hal", "2"]);
        assert_eq!(drain(&mut log.tail()), entries);
        let places: HashSet<_> = entries.iter().map(|entry| format!("{entry:?}")).collect();
        assert_eq!(places.len(), 4);
    }

    #[test]
    fn long_lines_are_cut_and_invalid_utf8_is_replaced() {
        let log = Log::new();
        log.add("x".repeat(300_000));
        log.add(b"\n\xff\xfe\nend\n");
        let entries = drain(&mut log.tail());
        let texts = texts(&entries);
        assert_eq!(texts[0].len(), MAX_LINE_BYTES + " [234464 more bytes]".len());
        assert!(texts[0].ends_with("x [234464 more bytes]"));
        assert_eq!(texts[1..], ["\u{fffd}\u{fffd}", "end"]);
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let log = Log::new();
        let mut tail = log.tail();
        for _ in 0..100 {
            log.add("x".repeat(100_000));
            drain(&mut tail);
        }
        assert!(tail.line.len() <= MAX_LINE_BYTES);
    }

    #[test]
    fn a_directory_before_the_first_read_is_retried() {
        let log = Log::new();
        fs::create_dir(log.path()).unwrap();
        let mut tail = log.tail();
        assert_eq!(drain(&mut tail), []);
        fs::remove_dir(log.path()).unwrap();
        log.add("1\n");
        assert_eq!(texts(&drain(&mut tail)), ["1"]);
    }

    #[test]
    fn a_directory_in_place_of_the_file_is_retried() {
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
    fn a_directory_before_the_first_file_is_retried() {
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
