//! A position in an open file, and the lines from there on.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::mem;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Longer lines are cut, so that a file without line ends cannot fill the memory.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;
/// Bytes that one read returns at most.
const CHUNK_BYTES: u64 = 64 * 1024;
/// How far from the end the last lines are searched.
const MAX_LOOKBACK_BYTES: u64 = 50 * CHUNK_BYTES;
/// Bytes before the position that are compared at the next read.
const FINGERPRINT_BYTES: usize = 64;

/// An open file and the position of the next read.
#[derive(Debug)]
pub(super) struct FileCursor {
    file: File,
    id: u64,
    offset: u64,
    /// The bytes just before `offset`. If they change, the file was rewritten.
    fingerprint: Vec<u8>,
}

/// The result of one read.
pub(super) enum Chunk {
    New(Vec<u8>),
    /// Nothing new. More may be appended later.
    End,
    /// The file was truncated or rewritten: the position means nothing any more.
    Rewritten,
}

impl FileCursor {
    /// Opens the file at its start. Returns `None` if there is no file.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        // Checked first: opening a pipe blocks until a writer opens it too.
        let file = match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => return Err(io::Error::other("not a regular file")),
            _ => File::open(path),
        };
        let file = match file {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let id = file_id(&file.metadata()?);
        Ok(Some(Self { file, id, offset: 0, fingerprint: Vec::new() }))
    }

    /// Returns a number that no other file has.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Moves to the start of a line. The next read checks that a line really starts there.
    pub(super) fn go_to(&mut self, offset: u64) {
        self.offset = offset;
        self.fingerprint = if offset > 0 { b"\n".to_vec() } else { Vec::new() };
    }

    /// Moves to the start of the last `wanted` whole lines. Returns how many there are.
    pub(super) fn go_to_last_lines(&mut self, wanted: usize) -> io::Result<usize> {
        let end = self.file.metadata()?.len();
        let (mut from, mut found) = (end, 0);
        self.offset = end;
        while from > end.saturating_sub(MAX_LOOKBACK_BYTES) {
            let length = from.min(CHUNK_BYTES);
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

    /// Reads the next bytes and moves behind them.
    pub(super) fn read(&mut self) -> io::Result<Chunk> {
        let known = self.fingerprint.len();
        self.file.seek(SeekFrom::Start(self.offset.saturating_sub(known as u64)))?;
        let mut bytes = Vec::new();
        (&self.file).take(known as u64 + CHUNK_BYTES).read_to_end(&mut bytes)?;
        if !bytes.starts_with(&self.fingerprint) {
            return Ok(Chunk::Rewritten);
        }
        let new = bytes.split_off(known);
        if new.is_empty() {
            return Ok(Chunk::End);
        }
        self.offset += new.len() as u64;
        self.fingerprint.extend_from_slice(&new);
        let surplus = self.fingerprint.len().saturating_sub(FINGERPRINT_BYTES);
        self.fingerprint.drain(..surplus);
        Ok(Chunk::New(new))
    }
}

/// An inode alone does not identify a file: file systems reuse it, often for the very next file. The time of creation is
/// mixed in where the file system has one.
fn file_id(meta: &Metadata) -> u64 {
    let created = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let created = created.map_or(0, |time| time.as_nanos() as u64);
    #[cfg(unix)]
    let created = created ^ std::os::unix::fs::MetadataExt::ino(meta);
    created
}

/// The start of a line, until its end is read.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// Bytes that were cut off because the line is too long.
    cut: usize,
}

impl LineBuffer {
    /// Adds bytes that end at the offset `end`. Returns the lines that are whole now, each with the offset of its end.
    pub(super) fn split(&mut self, bytes: &[u8], end: u64) -> impl Iterator<Item = (u64, String)> {
        let mut offset = end.saturating_sub(bytes.len() as u64);
        bytes.split_inclusive(|byte| *byte == b'\n').filter_map(move |part| {
            offset += part.len() as u64;
            self.add(part.strip_suffix(b"\n").unwrap_or(part));
            part.ends_with(b"\n").then(|| (offset, self.take().unwrap_or_default()))
        })
    }

    fn add(&mut self, part: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.bytes.len()).min(part.len());
        let (kept, cut) = part.split_at(room);
        self.bytes.extend_from_slice(kept);
        self.cut += cut.len();
    }

    /// Returns the text so far, unless it is empty, and starts the next line.
    pub(super) fn take(&mut self) -> Option<String> {
        let Self { bytes, cut } = mem::take(self);
        let mut text =
            String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(&bytes)).into_owned();
        if cut > 0 {
            text.push_str(&format!(" [{cut} more bytes]"));
        }
        (!bytes.is_empty()).then_some(text)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}
