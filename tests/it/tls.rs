//! `sse.serve` over TLS: timeouts, shutdown, slow handshakes, and certificates that change.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::StreamExt;
use hero_sse::options::{SetupError, SetupErrorKind};
use hero_sse::server::Tls;
use hero_sse::{CloseReason, HeroSse, SseOptions};
use rcgen::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::http2::{Client, in_order, numbers, piece, stalled, until, within};
use crate::support::{
    Alive, Log, Server, burst, eventually, flood, options, public, sse_with, watched,
};

/// A self-signed certificate for `localhost`.
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
    chain: String,
    key: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (chain, key) = (cert.pem(), signing_key.serialize_pem());
        Self { der: cert.der().clone(), chain, key }
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::from_pem(&self.chain, &self.key).expect("a certificate and its key")
    }

    fn write(&self, folder: &Path) -> Tls {
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        fs::write(&chain, &self.chain).expect("written");
        fs::write(&key, &self.key).expect("written");
        Tls::from_pem_files(chain, key).expect("a certificate and its key")
    }

    /// Performs the handshake over `socket`, with a client that trusts this certificate only.
    async fn greet(&self, socket: TcpStream, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.try_greet(socket, protocols).await.expect("a handshake")
    }

    async fn try_greet(
        &self,
        socket: TcpStream,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        within(TlsConnector::from(Arc::new(config)).connect(name, socket)).await
    }

    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> TlsStream<TcpStream> {
        self.greet(TcpStream::connect(address).await.expect("a socket"), protocols).await
    }

    async fn trusted_at(&self, address: SocketAddr) -> bool {
        let socket = TcpStream::connect(address).await.expect("a socket");
        self.try_greet(socket, &[]).await.is_ok()
    }

    pub(crate) async fn client(&self, address: SocketAddr) -> Client {
        Client::over(self.connect(address, &["h2"]).await).await
    }

    /// An HTTP/1.1 client of `path` that reads nothing, with the smallest receive buffer.
    pub(crate) async fn stall(&self, address: SocketAddr, path: &str) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option");
        let socket = socket.connect(address).await.expect("a connection");
        let mut stream = self.greet(socket, &["http/1.1"]).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }
}

pub(crate) async fn start(sse: &HeroSse, app: Router, tls: Tls) -> Server {
    Server::start_as(sse, app, |serve| serve.tls(tls)).await
}

/// Waits until the socket is reset, without reading, and returns how long that took.
pub(crate) async fn reset(stream: &TlsStream<TcpStream>) -> Duration {
    let start = Instant::now();
    while stream.get_ref().0.take_error().expect("an option").is_none() {
        assert!(start.elapsed() < Duration::from_secs(8), "never reset");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// Reads an HTTP/1.1 stream until `end` arrives.
async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.contains(end) {
        let read = within(stream.read(&mut piece)).await.expect("a read");
        assert_ne!(read, 0, "ended after {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    text
}

#[tokio::test]
async fn the_client_chooses_between_http1_and_http2() {
    let (sse, certificate) = (sse_with(SseOptions::default()), Certificate::new());
    let server = start(&sse, public(&sse, || burst(2)), certificate.tls()).await;
    for (offered, spoken) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = certificate.connect(server.address, offered).await;
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, spoken.map(str::as_bytes), "{offered:?}");
    }
    let mut client = certificate.client(server.address).await;
    let mut body = client.get("/s").await.into_body();
    assert!(until(&mut body, "data: 2\n\n").await.starts_with("retry: "));
    let mut stream = certificate.connect(server.address, &[]).await;
    stream.write_all(b"GET /s HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    assert!(read_until(&mut stream, "data: 2\n\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(sse.connections().len(), 2);
    drop((client, body, stream));
    server.stop().await;
}

/// `/s` for a stalled client, watched, and `/n` for a healthy one.
fn flood_and_numbers(sse: &HeroSse) -> (Router, Alive) {
    let (stalling, alive) = watched(sse, flood);
    let healthy = sse.endpoint("/n").public().handler(async || numbers()).expect("a route");
    (stalling.merge(healthy), alive)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_is_dropped_in_time_and_others_are_unaffected() {
    let (sse, certificate) = (sse_with(options("WriteTimeout = \"1s\"")), Certificate::new());
    let (app, alive) = flood_and_numbers(&sse);
    let server = start(&sse, app, certificate.tls()).await;
    let mut client = certificate.client(server.address).await;
    let mut sibling = client.get("/n").await.into_body();
    let reading = tokio::spawn(async move { in_order(&mut sibling, Duration::from_secs(4)).await });
    let stream = certificate.stall(server.address, "/s").await;
    let took = reset(&stream).await;
    println!("HTTP/1.1 over TLS: reset after {took:?}");
    // The kernel's few kilobytes and rustls' sixteen are full at once.
    assert!((0.9..=2.5).contains(&took.as_secs_f64()), "{took:?}");
    eventually("the stalled stream is dropped", || alive.count() == 0).await;
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 1);
    let read = reading.await.expect("an undisturbed reader");
    assert!(read > 200, "{read}");
    drop((client, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_stream_of_http2_is_reset_alone_and_in_time() {
    let (sse, certificate) = (sse_with(options("WriteTimeout = \"1s\"")), Certificate::new());
    let (app, alive) = flood_and_numbers(&sse);
    let server = start(&sse, app, certificate.tls()).await;
    let mut client = certificate.client(server.address).await;
    let mut sibling = client.get("/n").await.into_body();
    let body = client.get("/s").await.into_body();
    let stall = tokio::spawn(stalled(body));
    let next = in_order(&mut sibling, Duration::from_secs(3)).await;
    assert!(next > 200, "{next}");
    let (took, reason) = stall.await.expect("no panic");
    println!("HTTP/2 over TLS: reset after {took:?}");
    assert_eq!(reason, Some(h2::Reason::CANCEL));
    assert!((1.0..=2.5).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!((alive.count(), sse.connections().len()), (0, 1));
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 1);
    drop((client, sibling));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_sends_hero_close_over_tls() {
    let (sse, certificate) = (sse_with(options("Retry = \"2s\"")), Certificate::new());
    let server = start(&sse, public(&sse, || burst(1)), certificate.tls()).await;
    let mut client = certificate.client(server.address).await;
    let mut body = client.get("/s").await.into_body();
    until(&mut body, "data: 1\n\n").await;
    let mut stream = certificate.connect(server.address, &[]).await;
    stream.write_all(b"GET /s HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    read_until(&mut stream, "data: 1\n\n").await;
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        while let Some(bytes) = piece(&mut body).await {
            text.push_str(&String::from_utf8_lossy(&bytes.expect("a clean end")));
        }
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.expect("`close_notify` before the end");
        [text, String::from_utf8_lossy(&rest).into_owned()]
    });
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    for text in reading.await.expect("no panic") {
        assert!(text.contains("hero.close") && text.contains("draining"), "{text}");
    }
}

/// The head timeout is for the handshake and the head together.
#[tokio::test]
async fn a_late_handshake_without_a_request_is_closed_within_the_head_timeout() {
    let (sse, certificate) = (sse_with(SseOptions::default()), Certificate::new());
    let server = start(&sse, public(&sse, || burst(1)), certificate.tls()).await;
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut stream = certificate.greet(socket, &[]).await;
    let end = tokio::time::timeout(Duration::from_secs(15), stream.read_u8()).await;
    assert!(end.expect("an end").is_err());
    assert!((9.0..13.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    server.stop().await;
}

/// Nothing; a ClientHello that never ends; another protocol; random bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handshake_delays_no_other_and_ends_with_the_head_timeout() {
    let (sse, certificate) = (sse_with(SseOptions::default()), Certificate::new());
    let server = start(&sse, public(&sse, || burst(1)), certificate.tls()).await;
    let address = server.address;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let cases = [
        ("silent", &b""[..], 9.0..13.0),
        ("a byte a second", hello, 9.0..13.0),
        ("plain HTTP", b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n", 0.0..5.0),
        ("noise", b"\x00\xff\x16\x03", 0.0..13.0),
    ];
    let mut closed = tokio::task::JoinSet::new();
    for (name, bytes, bounds) in cases {
        closed.spawn(async move {
            let socket = TcpStream::connect(address).await.expect("a socket");
            let (mut reading, mut writing) = socket.into_split();
            let start = Instant::now();
            let send = tokio::spawn(async move {
                let slowly = name == "a byte a second";
                for piece in bytes.chunks(if slowly { 1 } else { 64 }) {
                    let _ = writing.write_all(piece).await;
                    tokio::time::sleep(Duration::from_secs(slowly.into())).await;
                }
                std::future::pending::<()>().await;
            });
            let mut answer = Vec::new();
            let end = reading.read_to_end(&mut answer);
            let end = tokio::time::timeout(Duration::from_secs(15), end).await;
            assert!(end.is_ok(), "{name}: still open");
            let took = start.elapsed().as_secs_f64();
            assert!(bounds.contains(&took), "{name}: {took}");
            send.abort();
        });
    }
    // Meanwhile other connections are served at once.
    while !closed.is_empty() {
        let start = Instant::now();
        let mut stream = certificate.connect(address, &[]).await;
        stream.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        read_until(&mut stream, "data: 1\n\n").await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
        while let Some(case) = closed.try_join_next() {
            case.expect("no panic");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reloaded_certificate_is_used_for_new_connections_and_open_streams_continue() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Certificate::new(), Certificate::new());
    let sse = sse_with(options("HeartbeatInterval = \"100ms\""));
    let tls = old.write(folder.path()).check_files_every(None);
    let server = start(&sse, public(&sse, || burst(1)), tls.clone()).await;
    let mut open = old.connect(server.address, &[]).await;
    open.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    read_until(&mut open, "data: 1\n\n").await;

    fs::write(folder.path().join("chain.pem"), &new.chain).expect("written");
    let error = tls.reload().expect_err("the key is the old one's").to_string();
    assert!(error.contains("key.pem does not belong to"), "{error}");
    assert!(old.trusted_at(server.address).await, "the old one was given up");
    fs::write(folder.path().join("key.pem"), &new.key).expect("written");
    assert!(old.trusted_at(server.address).await, "it was read without being told");
    tls.reload().expect("a certificate and its key");
    assert!(new.trusted_at(server.address).await && !old.trusted_at(server.address).await);
    read_until(&mut open, "\n:\n").await;
    assert_eq!(sse.connections().len(), 1);
    drop(open);
    server.stop().await;
}

#[tokio::test]
async fn changed_files_are_reloaded_and_a_bad_one_is_logged_once_per_change() {
    let (log, _guard) = Log::everything();
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Certificate::new(), Certificate::new());
    let sse = sse_with(SseOptions::default());
    let tls = old.write(folder.path()).check_files_every(Duration::from_millis(100));
    let server = start(&sse, public(&sse, || burst(1)), tls).await;
    let told = || log.text().matches("the old one stays in use").count();
    fs::write(folder.path().join("chain.pem"), "").expect("written");
    eventually("it is logged", || told() == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(told(), 1, "logged repeatedly");
    assert!(log.text().contains("chain.pem is empty"), "{}", log.text());
    assert!(old.trusted_at(server.address).await);
    fs::write(folder.path().join("key.pem"), &new.key).expect("written");
    fs::write(folder.path().join("chain.pem"), &new.chain).expect("written");
    eventually("it is read", || log.text().contains("new connections use the new one")).await;
    assert!(new.trusted_at(server.address).await && !old.trusted_at(server.address).await);
    server.stop().await;
}

/// Each message names the file, what is wrong with it, and the cure.
#[test]
fn mistakes_in_certificate_and_key_are_reported_at_the_start() {
    let (one, other) = (Certificate::new(), Certificate::new());
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let (chain, key) = (file("chain.pem", &one.chain), file("key.pem", &one.key));
    let (empty, noise) = (file("empty.pem", " \n"), file("noise.pem", "a certificate, honest"));
    let broken =
        file("broken.pem", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
    let nonsense =
        file("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = file("locked.pem", locked);
    let both = file("both.pem", &format!("{}{}", one.key, one.chain));
    let missing = folder.path().join("missing.pem");
    let cases = [
        (
            &chain,
            &file("other.pem", &other.key),
            vec![
                "other.pem does not belong to the first certificate in",
                "chain.pem; the server's own must come first",
            ],
        ),
        (
            &key,
            &chain,
            vec![
                "key.pem holds a private key and no certificate; are the two swapped?",
                "chain.pem holds a certificate and no private key; are the two swapped?",
            ],
        ),
        (
            &empty,
            &empty,
            vec![
                "certificate file",
                "empty.pem is empty; it must hold the server's certificate",
                "key file",
            ],
        ),
        (
            &noise,
            &noise,
            vec![
                "`-----BEGIN CERTIFICATE-----`",
                "`-----BEGIN PRIVATE KEY-----`",
                "openssl pkey -inform der",
            ],
        ),
        (&chain, &locked, vec!["locked.pem is encrypted; decrypt it with `openssl pkey`"]),
        (&broken, &key, vec!["broken.pem: not PEM: "]),
        (&nonsense, &key, vec!["nonsense.pem: its first certificate is not usable"]),
        (&missing, &missing, vec!["certificate file", "missing.pem: No such file", "key file"]),
    ];
    for (chain, key, words) in cases {
        let error = Tls::from_pem_files(chain, key).expect_err("a mistake").to_string();
        println!("{error}\n");
        for word in words {
            assert!(error.contains(word), "{error}\nlacks: {word}");
        }
    }
    Tls::from_pem_files(&both, &both).expect("one file for both");
    let error = Tls::from_pem(&one.chain, &other.key).expect_err("a mistake").to_string();
    assert!(
        error.starts_with(
            "the key does not belong to the first certificate in the certificate chain"
        ),
        "{error}"
    );
    let error = one.tls().reload().expect_err("no files");
    assert!(error.to_string().contains("`Tls::from_pem_files`"), "{error}");
    let kinds: Vec<_> = error.iter().map(SetupError::kind).collect();
    assert_eq!(kinds, [SetupErrorKind::Tls]);
}

/// Chain and key are replaced one after the other, with a check of the files in between; and a chain is half written.
/// In either order the new pair is in use in the end, and never a wrong one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_replaced_one_by_one_are_used_in_the_end() {
    for key_first in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (Certificate::new(), Certificate::new());
        let tls = old.write(folder.path()).check_files_every(Duration::from_millis(50));
        let sse = sse_with(SseOptions::default());
        let server = start(&sse, public(&sse, || burst(1)), tls).await;
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let write_key = || fs::write(&key, &new.key).expect("written");
        if key_first {
            write_key();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for cut in [0, 30, new.chain.len() / 2, new.chain.len() - 10] {
            fs::write(&chain, &new.chain[..cut]).expect("written");
            tokio::time::sleep(Duration::from_millis(120)).await;
            assert!(old.trusted_at(server.address).await, "{cut}");
        }
        fs::write(&chain, &new.chain).expect("written");
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !key_first {
            assert!(old.trusted_at(server.address).await);
            write_key();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(new.trusted_at(server.address).await, "key first: {key_first}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_is_disconnected_when_access_is_revoked() {
    let (sse, certificate) = (sse_with(options("WriteTimeout = \"60s\"")), Certificate::new());
    let large = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        hero_sse::Event::text("x".repeat(50_000))
    };
    let once = move || {
        let later = futures_util::stream::once(large());
        let first = futures_util::stream::iter([hero_sse::Event::text("1")]);
        first.chain(later).chain(futures_util::stream::pending())
    };
    let (app, alive) = watched(&sse, flood);
    let quiet = sse.endpoint("/quiet").public().handler(async move || once()).expect("a route");
    let server = start(&sse, app.merge(quiet), certificate.tls()).await;
    for path in ["/s", "/quiet"] {
        let stream = certificate.stall(server.address, path).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(sse.connections().len(), 1);
        let all = hero_sse::connections::ConnectionFilter::all();
        sse.connections().disconnect(&all, CloseReason::Revoked);
        let took = reset(&stream).await;
        assert!((0.4..1.5).contains(&took.as_secs_f64()), "{path}: {took:?}");
        eventually("its slot is released", || sse.connections().is_empty() && alive.count() == 0)
            .await;
    }
    eventually("both are counted", || sse.connections().closed(CloseReason::Revoked) == 2).await;
    server.stop().await;
}
