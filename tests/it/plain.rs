//! Plain streams (`profile = "plain"`): nothing on the wire but the application's events, and an answer that is cut can
//! be seen to be cut.

mod ends;
mod events;
mod wire;

use std::net::SocketAddr;

use axum::Router;
use h2::RecvStream;
use hero_sse::HeroSse;
use http::{Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2::{self, within};

/// How an answer ended, as its client sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the last chunk, or with `END_STREAM`.
    Clean,
    /// Without it: the connection was closed.
    Cut,
    /// The connection or the stream was reset.
    Reset,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    /// Without the framing of chunks.
    pub(crate) body: String,
    pub(crate) end: End,
}

/// Sends a `POST` over HTTP/1.1, and reads to the end.
pub(crate) async fn post(address: SocketAddr, path: &str) -> Answer {
    let socket = TcpStream::connect(address).await.expect("a socket");
    ask(socket, &request("POST", path, "HTTP/1.1")).await
}

pub(crate) fn request(method: &str, path: &str, version: &str) -> String {
    format!("{method} {path} {version}\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}")
}

pub(crate) async fn ask(mut socket: impl Socket, request: &str) -> Answer {
    socket.write_all(request.as_bytes()).await.expect("sent");
    read(socket).await
}

pub(crate) trait Socket: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Socket for T {}

/// Reads an answer over HTTP/1 to its end.
pub(crate) async fn read(mut socket: impl Socket) -> Answer {
    let (mut bytes, mut part, mut reset) = (Vec::new(), [0; 16 * 1024], false);
    loop {
        match within(socket.read(&mut part)).await {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            Err(_) => {
                reset = true;
                break;
            }
        }
        // The connection stays open after a whole answer.
        if bytes.ends_with(b"0\r\n\r\n") {
            break;
        }
    }
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, mut rest) = text.split_once("\r\n\r\n").expect("a head");
    if !head.contains("transfer-encoding: chunked") {
        // Over HTTP/1.0 the end of the connection is that of the body.
        let end = if reset { End::Reset } else { End::Clean };
        return Answer { head: head.to_owned(), body: rest.to_owned(), end };
    }
    let (mut body, mut end) = (String::new(), if reset { End::Reset } else { End::Cut });
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            end = End::Clean;
            break;
        }
        let whole = size.min(chunk.len());
        body.push_str(&chunk[..whole]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    Answer { head: head.to_owned(), body, end }
}

/// The same over HTTP/2.
pub(crate) async fn post_http2(address: SocketAddr, path: &str) -> Answer {
    let mut client = http2::Client::connect(address).await;
    let uri = format!("http://localhost{path}");
    let request = Request::post(uri).version(Version::HTTP_2).body(()).expect("a request");
    let answer = client.send(request).await;
    let head = format!("{} {:?}", answer.status(), answer.headers());
    let (body, end) = read_http2(answer.into_body()).await;
    Answer { head, body, end }
}

pub(crate) async fn read_http2(mut stream: RecvStream) -> (String, End) {
    let mut body = String::new();
    loop {
        match http2::piece(&mut stream).await {
            Some(Ok(bytes)) => body.push_str(std::str::from_utf8(&bytes).expect("UTF-8")),
            Some(Err(_)) => return (body, End::Reset),
            None => return (body, End::Clean),
        }
    }
}

/// Without heartbeats.
pub(crate) fn sse(toml: &str) -> HeroSse {
    let heartbeat = if toml.contains("Heartbeat") { "" } else { "HeartbeatInterval = \"off\"\n" };
    crate::support::sse_with(crate::support::options(&format!("{heartbeat}{toml}")))
}

/// Starts `axum::serve` behind `guard`.
pub(crate) async fn guarded(sse: &HeroSse, app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, app) = sse.guard(listener, app);
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}

/// Starts `axum::serve` without `guard`.
pub(crate) async fn unguarded(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}
