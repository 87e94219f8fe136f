//! Reads event streams that other servers wrote, by WHATWG HTML 9.2.6, and with a bound on their memory.

use std::time::Duration;

use bytes::{Buf, Bytes};

use super::field::{END_MARK, END_SUFFIX};

/// A larger buffer for a line is given back after its line.
const KEPT_LINE: usize = 4 * 1024;

/// One block of an event stream: the fields between two blank lines, without comments and unknown fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// `None` also for an empty name, which means the same.
    pub(crate) name: Option<String>,
    /// An empty id resets the client's cursor.
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<Duration>,
    /// The lines of data, joined by LF. `Some("")` is an event with empty data, `None` is no event for a browser.
    pub(crate) data: Option<String>,
    /// The id had the end mark, with which hero-sse marks the last event of a stream. It is not in `id`.
    pub(crate) last: bool,
}

/// A block is longer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts an event stream into blocks. The pieces of input may end anywhere: in a line, a character or a line ending.
#[derive(Debug)]
pub(crate) struct BlockParser {
    max_block: usize,
    /// The next line is the stream's first. It may start with a byte order mark.
    first_line: bool,
    /// The last piece ended with a CR, so that an LF that follows ends no further line.
    after_cr: bool,
    /// The start of a line whose end has not arrived.
    line: Vec<u8>,
    block: Block,
    /// The length of the block so far, without the unfinished line and without comments.
    length: usize,
}

impl BlockParser {
    /// `max_block` limits the length of a block, and of each line in it, in bytes.
    pub(crate) fn new(max_block: usize) -> Self {
        Self {
            max_block,
            first_line: true,
            after_cr: false,
            line: Vec::new(),
            block: Block::default(),
            length: 0,
        }
    }

    pub(crate) fn set_max_block(&mut self, max_block: usize) {
        self.max_block = max_block;
    }

    /// Takes bytes from `input` until a block is complete, or all of them. Blocks without any known field are
    /// skipped.
    pub(crate) fn next_block(&mut self, input: &mut Bytes) -> Result<Option<Block>, TooLong> {
        while let Some(&first) = input.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                input.advance(1);
                continue;
            }
            let end = memchr::memchr2(b'\r', b'\n', input);
            let (part, ending) = input.split_at(end.unwrap_or(input.len()));
            let complete = if end.is_none() || !self.line.is_empty() {
                self.keep(part)?;
                None
            } else {
                Some(part)
            };
            let Some(&ending) = ending.first() else {
                input.clear();
                return Ok(None);
            };
            let is_blank = match complete {
                Some(line) => self.end_line(line)?,
                None => self.end_kept_line()?,
            };
            self.after_cr = ending == b'\r';
            let taken = part.len() + 1;
            input.advance(taken);
            if is_blank && let Some(block) = self.end_block() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Returns whether the stream would be torn if it ended here: in a line, or in a block without the blank line
    /// that would end it. A reconnection time is not lost, since it counts from the end of its line.
    pub(crate) fn is_torn(&self) -> bool {
        let line = strip_mark(&self.line, self.first_line);
        let Block { name, id, data, .. } = &self.block;
        let in_line = !line.is_empty() && !line.starts_with(b":");
        in_line || name.is_some() || id.is_some() || data.is_some()
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), TooLong> {
        if self.length + self.line.len() + part.len() > self.max_block {
            return Err(TooLong);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_kept_line(&mut self) -> Result<bool, TooLong> {
        let mut line = std::mem::take(&mut self.line);
        let is_blank = self.end_line(&line);
        if line.capacity() <= KEPT_LINE {
            line.clear();
            self.line = line;
        }
        is_blank
    }

    /// Takes a whole line without its ending. Returns whether it is blank.
    fn end_line(&mut self, line: &[u8]) -> Result<bool, TooLong> {
        let line = strip_mark(line, std::mem::take(&mut self.first_line));
        if line.is_empty() {
            return Ok(true);
        }
        let colon = memchr::memchr(b':', line);
        // Without a colon, the whole line is the field's name.
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        if field.is_empty() {
            return Ok(false);
        }
        // Comments do not count: a stream without events may have many of them in one block.
        self.length += line.len();
        if self.length > self.max_block {
            return Err(TooLong);
        }
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        self.field(field, value);
        Ok(false)
    }

    fn field(&mut self, field: &[u8], value: &[u8]) {
        let text = || String::from_utf8_lossy(value);
        match field {
            b"data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&text());
                }
                data => *data = Some(text().into_owned()),
            },
            b"event" => self.block.name = (!value.is_empty()).then(|| text().into_owned()),
            b"id" if !value.contains(&0) => self.block.id = Some(text().into_owned()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                // Only digits: what does not parse is too large.
                let millis = text().parse().unwrap_or(u64::MAX);
                self.block.retry = Some(Duration::from_millis(millis));
            }
            _ => {}
        }
    }

    fn end_block(&mut self) -> Option<Block> {
        self.length = 0;
        let mut block = std::mem::take(&mut self.block);
        if let Some(id) = block.id.take_if(|id| id == END_MARK || id.ends_with(END_SUFFIX)) {
            block.last = true;
            block.id = id.strip_suffix(END_SUFFIX).map(str::to_owned);
        }
        (block != Block::default()).then_some(block)
    }
}

fn strip_mark(line: &[u8], first_line: bool) -> &[u8] {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    line.strip_prefix(BYTE_ORDER_MARK).filter(|_| first_line).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use proptest::prelude::*;

    use super::*;

    /// The blocks of a stream that arrives in these pieces, and whether its end is torn.
    fn blocks(pieces: &[&[u8]]) -> (Vec<Block>, bool) {
        let mut parser = BlockParser::new(1 << 20);
        let mut blocks = Vec::new();
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(block) = parser.next_block(&mut input).expect("short blocks") {
                blocks.push(block);
            }
            assert!(input.is_empty());
        }
        (blocks, parser.is_torn())
    }

    fn data(text: &str) -> Block {
        Block { data: Some(text.into()), ..Block::default() }
    }

    #[test]
    fn fields_are_read_as_the_specification_says() {
        let named = |name: &str, block| Block { name: Some(name.into()), ..block };
        let with_id = |id: &str, block| Block { id: Some(id.into()), ..block };
        let retry =
            |millis| Block { retry: Some(Duration::from_millis(millis)), ..Block::default() };
        for (text, expected) in [
            ("data: a\n\n", vec![data("a")]),
            ("data:a\r\rdata:  b\r\n\r\n", vec![data("a"), data(" b")]),
            ("data: a\ndata\ndata: b\n\n", vec![data("a\n\nb")]),
            ("data\n\n", vec![data("")]),
            ("data:\n\n", vec![data("")]),
            ("\u{feff}data: a\n\n", vec![data("a")]),
            // Only one mark, and only at the start.
            ("\u{feff}\u{feff}data: a\n\n", vec![]),
            ("\n\u{feff}data: a\n\n", vec![]),
            (": c\ndata: a\n:\n\n", vec![data("a")]),
            (":\n\n:\n\n\n\n", vec![]),
            ("event: x\ndata: a\n\n", vec![named("x", data("a"))]),
            ("event: x\nevent: y\n\n", vec![named("y", Block::default())]),
            ("event: x\nevent:\ndata: a\n\n", vec![data("a")]),
            ("id: 7\ndata: a\n\n", vec![with_id("7", data("a"))]),
            ("id: 7\nid\n\n", vec![with_id("", Block::default())]),
            ("id: 7\nid: a\0b\n\n", vec![with_id("7", Block::default())]),
            ("id: a\0b\n\n", vec![]),
            ("retry: 10\n\n", vec![retry(10)]),
            ("retry: 10s\nretry: -1\nretry\nretry: +1\n\n", vec![]),
            ("retry: 99999999999999999999\n\n", vec![retry(u64::MAX)]),
            ("datum: a\n data: b\nDATA: c\n<html>\n\n", vec![]),
            ("data: a:b: c\n\n", vec![data("a:b: c")]),
            ("id: hero.end\ndata: a\n\n", vec![Block { last: true, ..data("a") }]),
            ("id: 7;hero.end\ndata: a\n\n", vec![with_id("7", Block { last: true, ..data("a") })]),
        ] {
            assert_eq!(blocks(&[text.as_bytes()]), (expected, false), "{text:?}");
        }
        assert_eq!(blocks(&[b"data: \xff\xc3\n\n"]).0, [data("\u{fffd}\u{fffd}")]);
    }

    #[test]
    fn an_end_within_a_block_is_torn() {
        for torn in
            ["d", "data: a", "data: a\n", "event: x\n", "id: 7\r\n", "\u{feff}d", "data: a\n\nx"]
        {
            assert!(blocks(&[torn.as_bytes()]).1, "{torn:?}");
        }
        for whole in
            ["", "\u{feff}", "data: a\n\n", "data: a\r\r", "retry: 1\n", ":", "x: y\n", ":\n"]
        {
            assert!(!blocks(&[whole.as_bytes()]).1, "{whole:?}");
        }
    }

    #[test]
    fn a_block_is_complete_with_its_last_cr() {
        let mut parser = BlockParser::new(99);
        let mut input = Bytes::from("data: a\r\n\r");
        assert_eq!(parser.next_block(&mut input), Ok(Some(data("a"))));
        let mut input = Bytes::from("\ndata: b\r\r\n\n");
        assert_eq!(parser.next_block(&mut input), Ok(Some(data("b"))));
        assert_eq!(parser.next_block(&mut input), Ok(None));
        assert!(!parser.is_torn());
    }

    #[test]
    fn blocks_and_lines_are_bounded_and_comments_add_nothing() {
        let parse = |max, pieces: &[&str]| {
            let mut parser = BlockParser::new(max);
            for piece in pieces {
                let mut input = Bytes::copy_from_slice(piece.as_bytes());
                while parser.next_block(&mut input)?.is_some() {}
            }
            Ok(parser.line.capacity())
        };
        assert!(parse(7, &["data: a\n\n"]).is_ok());
        assert_eq!(parse(6, &["data: a\n\n"]), Err(TooLong));
        assert_eq!(parse(6, &["data: ", "a"]), Err(TooLong));
        assert_eq!(parse(13, &["data: a\n", "data: b\n"]), Err(TooLong));
        assert_eq!(parse(13, &["unknown\n", "unknown\n"]), Err(TooLong));
        assert!(parse(7, &["data: a\n\n", "data: b\n\n"]).is_ok());
        assert!(parse(7, &[": a\n"; 1000]).is_ok());
        assert_eq!(parse(7, &[":"; 8]), Err(TooLong));
        let long = "x".repeat(100_000);
        assert!(parse(1 << 20, &[&long, &long, "\n\n"]).is_ok_and(|kept| kept <= KEPT_LINE));
        let noise = [": comment", "\r\n<p>", "\n\n"].repeat(100_000);
        assert!(parse(100, &noise).is_ok_and(|kept| kept <= 100));
    }

    /// Lines of every kind, and line endings of every kind.
    fn streams() -> impl Strategy<Value = String> {
        let text = "[ -:a-c\u{e9}\u{1f980}]{0,6}";
        let field = prop::sample::select(vec!["data", "event", "id", "retry", "", "other"]);
        let line = prop_oneof![
            3 => (field, prop::sample::select(vec!["", ":", ": "]), text)
                .prop_map(|(field, colon, text)| format!("{field}{colon}{text}")),
            1 => "retry: ?[0-9]{1,5}",
            2 => Just(String::new()),
        ];
        let ending = prop::sample::select(vec!["\n", "\r", "\r\n"]);
        let lines = prop::collection::vec((line, ending), 0..30);
        ("\u{feff}?", lines).prop_map(|(mark, lines)| {
            let line = |(line, ending): (String, &str)| line + ending;
            mark + &lines.into_iter().map(line).collect::<String>()
        })
    }

    /// What another parser reads in the same stream.
    fn by_sse_stream(text: &str) -> Vec<Block> {
        let bytes =
            stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(text.as_bytes()))]);
        let block = |sse: sse_stream::Sse| Block {
            name: sse.event.filter(|name| !name.is_empty()),
            id: sse.id,
            retry: sse.retry.map(Duration::from_millis),
            data: sse.data,
            last: false,
        };
        let events = sse_stream::SseByteStream::new(bytes);
        let events = events.map(|event| block(event.expect("valid input")));
        let events: Vec<_> =
            futures_util::FutureExt::now_or_never(events.collect()).expect("ready");
        events.into_iter().filter(|block| *block != Block::default()).collect()
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_make_the_same_blocks(
            text in streams(), cuts in prop::collection::vec(1usize..9, 1..9),
        ) {
            let whole = blocks(&[text.as_bytes()]);
            let single: Vec<_> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(&blocks(&single), &whole);
            let (mut rest, mut pieces) = (text.as_bytes(), Vec::new());
            for &cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(&blocks(&pieces), &whole);
        }

        #[test]
        fn another_parser_reads_the_same_blocks(text in streams()) {
            prop_assert_eq!(blocks(&[text.as_bytes()]).0, by_sse_stream(&text));
        }

        #[test]
        fn no_bytes_make_it_panic(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let mut parser = BlockParser::new(64);
            'pieces: for piece in pieces {
                let mut input = Bytes::from(piece);
                loop {
                    match parser.next_block(&mut input) {
                        Ok(None) => break,
                        Ok(Some(_)) => {}
                        Err(TooLong) => break 'pieces,
                    }
                }
                prop_assert!(parser.line.len() <= 64);
            }
        }
    }
}
