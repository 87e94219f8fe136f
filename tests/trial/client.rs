//! Clients written by hand, so that they can be as good or as bad as a trial wants them.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, ValueExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;

/// What lies between two blank lines of a stream.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<u64>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<Duration>,
}

/// Takes the text of a stream apart.
#[derive(Default)]
pub(crate) struct Frames {
    text: Vec<u8>,
    read: usize,
}

impl Frames {
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.text.drain(..std::mem::take(&mut self.read));
        self.text.extend_from_slice(text);
    }

    pub(crate) fn next(&mut self) -> Option<Frame> {
        let rest = &self.text[self.read..];
        let end = rest.windows(2).position(|pair| pair == b"\n\n")?;
        let mut frame = Frame::default();
        for line in String::from_utf8_lossy(&rest[..end]).lines() {
            match line.split_once(": ") {
                Some(("event", name)) => frame.name = Some(name.to_owned()),
                Some(("id", id)) => frame.id = id.parse().ok(),
                Some(("data", data)) => frame.data = Some(data.to_owned()),
                Some(("retry", retry)) => {
                    frame.retry = retry.parse().map(Duration::from_millis).ok()
                }
                _ => {}
            }
        }
        self.read += end + 2;
        Some(frame)
    }
}

/// A body in chunks.
#[derive(Default)]
struct Chunks {
    /// Bytes that are left of the chunk, the line break behind it included.
    left: usize,
    line: Vec<u8>,
    over: bool,
}

impl Chunks {
    fn take(&mut self, mut bytes: &[u8], frames: &mut Frames) -> io::Result<()> {
        while !bytes.is_empty() && !self.over {
            if self.left > 0 {
                let some = self.left.min(bytes.len());
                let text = some.min(self.left.saturating_sub(2));
                frames.push(&bytes[..text]);
                self.left -= some;
                bytes = &bytes[some..];
                continue;
            }
            let (byte, rest) = (bytes[0], &bytes[1..]);
            bytes = rest;
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            self.line.clear();
            let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
            self.over = size == 0;
            self.left = size + 2;
        }
        Ok(())
    }
}

/// An open stream over HTTP/1.1.
pub(crate) struct H1 {
    pub(crate) socket: TcpStream,
    chunks: Chunks,
    frames: Frames,
}

/// Sends the request and reads nothing.
pub(crate) async fn request(
    address: SocketAddr,
    path: &str,
    cursor: Option<u64>,
    receive_buffer: Option<u32>,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connect = timeout(Duration::from_secs(5), socket.connect(address));
    let mut socket = connect.await.map_err(late)??;
    socket.set_nodelay(true)?;
    let cursor = cursor.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{cursor}\r\n");
    socket.write_all(request.as_bytes()).await?;
    Ok(socket)
}

impl H1 {
    pub(crate) async fn open(
        address: SocketAddr,
        path: &str,
        cursor: Option<u64>,
        receive_buffer: Option<u32>,
    ) -> io::Result<Self> {
        let mut socket = request(address, path, cursor, receive_buffer).await?;
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await?);
            }
            io::Result::Ok(())
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no head within 10 s");
        timeout(Duration::from_secs(10), reading).await.map_err(late)??;
        if !head.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        Ok(Self { socket, chunks: Chunks::default(), frames: Frames::default() })
    }

    /// The next frame; `None` at a clean end.
    pub(crate) async fn next(&mut self, most: usize) -> io::Result<Option<Frame>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next() {
                return Ok(Some(frame));
            }
            if self.chunks.over {
                return Ok(None);
            }
            let most = most.min(bytes.len());
            let read = self.socket.read(&mut bytes[..most]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.chunks.take(&bytes[..read], &mut self.frames)?;
        }
    }
}

/// What a client knows of the sequence it follows, across all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) last: Option<u64>,
    pub(crate) seen: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) spoilt: u64,
    pub(crate) retry: Duration,
    /// The reason in the farewell that came last.
    pub(crate) farewell: Option<String>,
}

impl Cursor {
    pub(crate) fn after(last: u64) -> Self {
        Self { last: Some(last), retry: Duration::from_secs(3), ..Self::default() }
    }

    /// Takes one frame; whether it was an event of the feed.
    pub(crate) fn take(&mut self, frame: &Frame) -> bool {
        self.retry = frame.retry.unwrap_or(self.retry);
        let Some(data) = &frame.data else { return false };
        if let Some(name) = &frame.name {
            if name == "hero.close" {
                let close: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
                self.farewell = close["reason"].as_str().map(str::to_owned);
            }
            return false;
        }
        let Some(id) = frame.id else {
            self.spoilt += 1;
            return false;
        };
        let written = data.split(' ').next().and_then(|number| number.parse().ok());
        self.spoilt += u64::from(written != Some(id));
        self.seen += 1;
        match self.last {
            Some(last) if id <= last => self.doubled += 1,
            Some(last) => self.lost += id - last - 1,
            None => {}
        }
        self.last = Some(id);
        true
    }

    pub(crate) fn flawless(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.spoilt == 0
    }
}

const FOLLOW_HELP: &str = "\
Follows a feed and prints a line of JSON for whatever happens.

Usage: trial follow --connect ADDR [OPTIONS]

  --path PATH          [default: /feed]
  --silence-ms N       after so much silence it opens the stream anew, with its cursor, as the
                       watchdog of a page would [default: never]
";

pub(crate) async fn follow(mut parser: lexopt::Parser) -> Outcome {
    let (mut address, mut path, mut silence) = (None, "/feed".to_owned(), Duration::MAX);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("connect") => address = Some(parser.value()?.parse::<SocketAddr>()?),
            Arg::Long("path") => path = parser.value()?.string()?,
            Arg::Long("silence-ms") => silence = Duration::from_millis(parser.value()?.parse()?),
            Arg::Long("help") => {
                print!("{FOLLOW_HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    let address = address.ok_or("--connect: the server's address is missing")?;
    let mut cursor = Cursor::default();
    let start = Instant::now();
    let say = |what: serde_json::Value| {
        println!("{}", json!({ "at_ms": start.elapsed().as_millis() as u64, "it": what }));
    };
    loop {
        match H1::open(address, &path, cursor.last, None).await {
            Err(error) => say(json!({ "refused": error.to_string() })),
            Ok(mut stream) => {
                say(json!({ "opened": cursor.last }));
                let end = loop {
                    match timeout(silence, stream.next(4096)).await {
                        Err(_) => break "silence".to_owned(),
                        Ok(Err(error)) => break error.to_string(),
                        Ok(Ok(None)) => break "the end".to_owned(),
                        Ok(Ok(Some(frame))) => {
                            if cursor.take(&frame) {
                                say(json!({ "event": cursor.last }));
                            }
                        }
                    }
                };
                say(json!({ "closed": end, "lost": cursor.lost, "doubled": cursor.doubled }));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}
