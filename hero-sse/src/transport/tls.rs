//! HTTPS: rustls between hyper and the guarded socket.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

use crate::setup::SetupErrors;
use crate::telemetry;

/// Maximum number of bytes that rustls buffers beyond the kernel's: the longest record.
const BUFFER: usize = 16 * 1024;

/// How often the files are checked. Certificates are renewed weeks before they expire.
const CHECK: Duration = Duration::from_secs(60);
const SHORTEST_CHECK: Duration = Duration::from_millis(10);

/// A certificate and its key, for HTTPS under [`HeroSse::serve`](crate::HeroSse::serve):
/// [`Serve::tls`](crate::server::Serve::tls).
///
/// It offers TLS 1.2 and 1.3 through rustls, HTTP/2 for clients that ask for it (ALPN), and HTTP/1.1. Everything that
/// `serve` does works over TLS. A handshake does not delay other connections. The handshake and the head of the
/// first request must arrive within 10 s.
///
/// While a server runs, the files are checked once a minute. If one has changed, both are read again, and new
/// connections use the new certificate; open streams continue. If that fails, the old certificate stays in use, and
/// the reason is logged once for each change. [`reload`](Self::reload) reads the files at once. Clones share one
/// certificate.
///
/// ```no_run
/// # async fn run(sse: hero_sse::HeroSse, app: hero_sse::axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// use hero_sse::server::Tls;
///
/// let tls = Tls::from_pem_files("/etc/app/fullchain.pem", "/etc/app/key.pem")?;
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:443").await?;
/// sse.serve(listener, app).tls(tls).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
    check: Option<Duration>,
}

struct Shared {
    files: Option<Files>,
    config: Mutex<Arc<ServerConfig>>,
    /// The state of the files when they were last read, even if that failed.
    seen: Mutex<Stamp>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// When each file was written, and its length. A change of either means that the file is new.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads a certificate and its key from PEM files, which may be the same file. Blocks while it reads.
    ///
    /// The certificate is followed by its chain. The key is PKCS#8, PKCS#1 or SEC1, and not encrypted.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is empty or has other contents; a key that does not belong to the certificate.
    pub fn from_pem_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, SetupErrors> {
        let files = Files { certificate: certificate.into(), key: key.into() };
        let seen = files.stamp();
        let config = files.config()?;
        Ok(Self::new(Some(files), config, seen))
    }

    /// Reads a certificate and its key from PEM texts, as [`from_pem_files`](Self::from_pem_files) does from files.
    /// Such a certificate is never reloaded.
    ///
    /// # Errors
    ///
    /// The same as [`from_pem_files`](Self::from_pem_files).
    pub fn from_pem(
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, SetupErrors> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let config =
            config(&Pem::new("the certificate chain", certificate), &Pem::new("the key", key))?;
        Ok(Self::new(None, config, [None; 2]))
    }

    fn new(files: Option<Files>, config: ServerConfig, seen: Stamp) -> Self {
        let shared = Shared { files, config: Mutex::new(Arc::new(config)), seen: Mutex::new(seen) };
        Self { shared: Arc::new(shared), check: Some(CHECK) }
    }

    /// Sets how often the files are checked. Default: once a minute. Minimum: 10 ms. `None`: never.
    ///
    /// A change is detected by a file's modification time and length.
    pub fn check_files_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.check = interval.into();
        self
    }

    /// Reads the files again, for new connections. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// The same as [`from_pem_files`](Self::from_pem_files), and a certificate without files. The old certificate
    /// then stays in use.
    pub fn reload(&self) -> Result<(), SetupErrors> {
        match &self.shared.files {
            Some(files) => self.reload_from(files, &mut lock(&self.shared.seen)),
            None => Err(SetupErrors::tls([
                "this certificate did not come from files: use `Tls::from_pem_files`".to_owned(),
            ])),
        }
    }

    fn reload_from(&self, files: &Files, seen: &mut Stamp) -> Result<(), SetupErrors> {
        // Before the files are read, so that a later change is detected the next time.
        *seen = files.stamp();
        let config = Arc::new(files.config()?);
        *lock(&self.shared.config) = config;
        Ok(())
    }

    /// Returns `None` if nothing has changed.
    fn reload_if_changed(&self) -> Option<Result<PathBuf, SetupErrors>> {
        let files = self.shared.files.as_ref()?;
        let mut seen = lock(&self.shared.seen);
        if *seen == files.stamp() {
            return None;
        }
        Some(self.reload_from(files, &mut seen).map(|()| files.certificate.clone()))
    }

    /// Checks the files, without an end.
    pub(super) async fn watch_files(self) {
        let (Some(_), Some(check)) = (&self.shared.files, self.check) else { return };
        loop {
            tokio::time::sleep(check.max(SHORTEST_CHECK)).await;
            let tls = self.clone();
            match spawn_blocking(move || tls.reload_if_changed()).await {
                Ok(Some(Ok(file))) => telemetry::certificate_reloaded(&file),
                Ok(Some(Err(error))) => telemetry::certificate_kept(&error),
                // No change, or a runtime that is shutting down.
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// Performs the handshake.
    pub(super) async fn accept<I>(&self, io: I) -> io::Result<TlsStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let config = lock(&self.shared.config).clone();
        let small = |session: &mut tokio_rustls::rustls::ServerConnection| {
            session.set_buffer_limit(Some(BUFFER));
        };
        TlsAcceptor::from(config).accept_with(io, small).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.shared.files.as_ref().map(|files| &files.certificate);
        f.debug_struct("Tls").field("certificate", &certificate).finish_non_exhaustive()
    }
}

/// No state is left incomplete under these locks, so a poisoned lock is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        })
    }

    fn config(&self) -> Result<ServerConfig, SetupErrors> {
        let read = |what: &str, path: &Path| {
            let name = format!("{what} file {}", path.display());
            let text = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
            Ok((name, text))
        };
        let ((certificate, chain), (key, secret)) =
            both(read("certificate", &self.certificate), read("key", &self.key))?;
        config(&Pem::new(&certificate, &chain), &Pem::new(&key, &secret))
    }
}

/// Returns both values, or the mistakes of both.
fn both<A, B>(a: Result<A, String>, b: Result<B, String>) -> Result<(A, B), SetupErrors> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(SetupErrors::tls([a.err(), b.err()].into_iter().flatten())),
    }
}

/// A PEM text, and its name in error messages.
struct Pem<'a> {
    name: &'a str,
    text: &'a [u8],
}

impl<'a> Pem<'a> {
    fn new(name: &'a str, text: &'a [u8]) -> Self {
        Self { name, text }
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let name = self.name;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.text).collect();
        match chain.map_err(|error| format!("{name}: not PEM: {error}"))? {
            chain if !chain.is_empty() => Ok(chain),
            _ if self.is_empty() => Err(format!(
                "{name} is empty; it must hold the server's certificate and then its chain, in PEM"
            )),
            _ if PrivateKeyDer::from_pem_slice(self.text).is_ok() => {
                Err(format!("{name} holds a private key and no certificate; are the two swapped?"))
            }
            _ => Err(format!(
                "{name} holds no certificate in PEM, which begins `-----BEGIN CERTIFICATE-----`; from \
                 DER make it by `openssl x509 -inform der`"
            )),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let name = self.name;
        let has = |words: &[u8]| self.text.windows(words.len()).any(|part| part == words);
        match PrivateKeyDer::from_pem_slice(self.text) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) if self.is_empty() => {
                Err(format!("{name} is empty; it must hold the certificate's private key, in PEM"))
            }
            Err(pem::Error::NoItemsFound) if has(b"ENCRYPTED PRIVATE KEY") => {
                Err(format!("{name} is encrypted; decrypt it with `openssl pkey`"))
            }
            Err(pem::Error::NoItemsFound) if has(b"BEGIN CERTIFICATE") => {
                Err(format!("{name} holds a certificate and no private key; are the two swapped?"))
            }
            Err(pem::Error::NoItemsFound) => Err(format!(
                "{name} holds no private key in PEM, which begins `-----BEGIN PRIVATE KEY-----`; from \
                 DER make it by `openssl pkey -inform der`"
            )),
            Err(error) => Err(format!("{name}: not PEM: {error}")),
        }
    }

    fn is_empty(&self) -> bool {
        self.text.trim_ascii().is_empty()
    }
}

fn config(certificate: &Pem<'_>, key: &Pem<'_>) -> Result<ServerConfig, SetupErrors> {
    let (chain, secret) = both(certificate.chain(), key.key())?;
    // Not the process's default, which depends on what else is linked.
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.map_err(|error| {
        SetupErrors::tls([match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "{} does not belong to the first certificate in {}; the server's own must \
                 come first, then its chain",
                key.name, certificate.name
            ),
            Error::InvalidCertificate(error) => {
                format!("{}: its first certificate is not usable: {error:?}", certificate.name)
            }
            error => format!("{}: {error}", key.name),
        }])
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
