//! Clients for trials, written by hand so that they can misbehave.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use lexopt::{Arg, ValueExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;

/// A block of a stream: fields up to a blank line.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<u64>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<Duration>,
}

/// Splits the text of a stream into frames.
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

/// Decodes a chunked body.
#[derive(Default)]
struct Chunks {
    /// Remaining bytes of the chunk, with the line break after it.
    left: usize,
    line: Vec<u8>,
    ended: bool,
}

impl Chunks {
    fn take(&mut self, mut bytes: &[u8], frames: &mut Frames) -> io::Result<()> {
        while !bytes.is_empty() && !self.ended {
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
            self.ended = size == 0;
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

/// Connects and sends a request. Reads nothing.
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

    /// Returns the next frame, or `None` at a clean end. Reads at most `max` bytes at a time.
    pub(crate) async fn next(&mut self, max: usize) -> io::Result<Option<Frame>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next() {
                return Ok(Some(frame));
            }
            if self.chunks.ended {
                return Ok(None);
            }
            let max = max.min(bytes.len());
            let read = self.socket.read(&mut bytes[..max]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.chunks.take(&bytes[..read], &mut self.frames)?;
        }
    }
}

/// The position of a client in the feed, and what went wrong, across all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) last: Option<u64>,
    pub(crate) seen: u64,
    pub(crate) missed: u64,
    pub(crate) repeated: u64,
    pub(crate) malformed: u64,
    pub(crate) retry: Duration,
    /// The reason of the last `hero.close`.
    pub(crate) close_reason: Option<String>,
}

impl Cursor {
    pub(crate) fn after(last: u64) -> Self {
        Self { last: Some(last), retry: Duration::from_secs(3), ..Self::default() }
    }

    /// Records a frame. Returns whether it is an event of the feed.
    pub(crate) fn record(&mut self, frame: &Frame) -> bool {
        self.retry = frame.retry.unwrap_or(self.retry);
        let Some(data) = &frame.data else { return false };
        if let Some(name) = &frame.name {
            if name == "hero.close" {
                let close: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
                self.close_reason = close["reason"].as_str().map(str::to_owned);
            }
            return false;
        }
        let Some(id) = frame.id else {
            self.malformed += 1;
            return false;
        };
        let written = data.split(' ').next().and_then(|number| number.parse().ok());
        self.malformed += u64::from(written != Some(id));
        self.seen += 1;
        match self.last {
            Some(last) if id <= last => self.repeated += 1,
            Some(last) => self.missed += id - last - 1,
            None => {}
        }
        self.last = Some(id);
        true
    }

    /// Returns whether every event was received once and in order.
    pub(crate) fn is_flawless(&self) -> bool {
        self.missed == 0 && self.repeated == 0 && self.malformed == 0
    }
}

/// The task of an HTTP/2 connection. Dropping it closes the connection.
pub(crate) struct Driver(tokio::task::JoinHandle<Result<(), h2::Error>>);

impl Driver {
    pub(crate) fn abort(&self) {
        self.0.abort();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Opens an HTTP/2 connection whose streams have this window.
pub(crate) async fn connect_http2(
    address: SocketAddr,
    window: u32,
) -> io::Result<(SendRequest<Bytes>, Driver)> {
    let connect = async {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 24);
        builder.handshake(socket).await.map_err(io::Error::other)
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let (requests, connection) =
        timeout(Duration::from_secs(10), connect).await.map_err(late)??;
    Ok((requests, Driver(tokio::spawn(connection))))
}

/// Requests the feed on an HTTP/2 connection.
pub(crate) async fn open_http2(
    requests: &SendRequest<Bytes>,
    cursor: Option<u64>,
) -> io::Result<h2::RecvStream> {
    let open = async {
        let mut requests = requests.clone().ready().await?;
        let mut request = Request::get("http://localhost/feed");
        if let Some(id) = cursor {
            request = request.header("last-event-id", id);
        }
        let request = request.body(()).map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (answer, _) = requests.send_request(request, true)?;
        answer.await
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = timeout(Duration::from_secs(10), open).await.map_err(late)?;
    let answer = answer.map_err(io::Error::other)?;
    if answer.status() != 200 {
        return Err(io::Error::other(answer.status().to_string()));
    }
    Ok(answer.into_body())
}

const FOLLOW_HELP: &str = "\
Reads a feed and prints each event as a line of JSON.

Usage: trial follow --connect ADDR [OPTIONS]

  --path PATH          [default: /feed]
  --silence-ms N       reconnects with its cursor after so much silence, as the watchdog of a page
                       does [default: never]
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
    let print = |what: serde_json::Value| {
        println!("{}", json!({ "at_ms": start.elapsed().as_millis() as u64, "it": what }));
    };
    loop {
        match H1::open(address, &path, cursor.last, None).await {
            Err(error) => print(json!({ "refused": error.to_string() })),
            Ok(mut stream) => {
                print(json!({ "opened": cursor.last }));
                let end = loop {
                    match timeout(silence, stream.next(4096)).await {
                        Err(_) => break "silence".to_owned(),
                        Ok(Err(error)) => break error.to_string(),
                        Ok(Ok(None)) => break "the end".to_owned(),
                        Ok(Ok(Some(frame))) => {
                            if cursor.record(&frame) {
                                print(json!({ "event": cursor.last }));
                            }
                        }
                    }
                };
                print(json!({ "closed": end, "lost": cursor.missed, "doubled": cursor.repeated }));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}
