//! Shared by the tests: servers, tokens, streams that are counted, and a captured log.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use hero_sse::auth::{AuthError, Authenticator, Secret};
use hero_sse::server::Serve;
use hero_sse::{Event, HeroSse, JwtAuthenticator, Principal, SseOptions};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::fmt::MakeWriter;

/// `hero_sse::testing` with readers that yield control events, too: these tests check every event of a stream.
pub(crate) mod testing {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use axum::extract::Request;
    use axum::response::Response;
    pub(crate) use hero_sse::testing::*;
    use tower::Service;

    pub(crate) fn open<A>(app: &A, path: &str) -> Open<A>
    where
        A: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    {
        hero_sse::testing::open(app, path).with_control_events()
    }

    pub(crate) fn connect(address: SocketAddr, path: &str) -> Open<axum::Router> {
        hero_sse::testing::connect(address, path).with_control_events()
    }
}

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes, for tests";

pub(crate) fn jwt() -> JwtAuthenticator {
    JwtAuthenticator::hs256(SECRET).issuer("tests").audience("streams")
}

/// A wrapper that does not pass on the mistakes of the authenticator inside.
pub(crate) struct Wrapped(pub(crate) JwtAuthenticator);

impl Authenticator for Wrapped {
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        self.0.authenticate(token)
    }
}

/// A server with these options and an authenticator, which reads no environment variables.
pub(crate) fn sse_with(options: SseOptions) -> HeroSse {
    HeroSse::builder()
        .options(options)
        .environment(Vec::<(String, String)>::new())
        .authenticator(jwt())
        .build()
        .expect("a server")
}

/// Reads options from TOML without the section's heading.
pub(crate) fn options(toml: &str) -> SseOptions {
    SseOptions::from_toml(&format!("[SseOptions]\n{toml}")).expect("options")
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Valid claims for a minute, changed by `change`.
pub(crate) fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "sub": "ann", "iss": "tests", "aud": "streams", "exp": now() + 60,
        "permissions": ["usage.read"],
    });
    change(&mut claims);
    claims
}

pub(crate) fn sign(claims: &Value) -> String {
    // Selects the crypto backend, in case the build has several.
    drop(jwt());
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
        .expect("a token")
}

pub(crate) fn token() -> String {
    sign(&claims(|_| ()))
}

/// Counts the watched streams that are not dropped yet.
#[derive(Clone, Default)]
pub(crate) struct Alive(Arc<AtomicUsize>);

pub(crate) struct Watched<T>(Pin<Box<T>>, Alive);

impl Alive {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn watch<T: Stream>(&self, stream: T) -> Watched<T> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Watched(Box::pin(stream), self.clone())
    }
}

impl<T: Stream> Stream for Watched<T> {
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An application with one public endpoint, `/s`, whose streams `make` creates.
pub(crate) fn public<F, T>(sse: &HeroSse, make: F) -> Router
where
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Stream<Item = Event> + Send + 'static,
{
    sse.endpoint("/s").public().handler(async move || make()).expect("a route")
}

/// The same, for every type that a handler may return.
pub(crate) fn serving<F, T, N>(sse: &HeroSse, make: F) -> Router
where
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Stream + hero_sse::extend::Events<N> + Send + 'static,
    N: 'static,
{
    sse.endpoint("/s").public().handler(async move || make()).expect("a route")
}

/// The same, with watched streams.
pub(crate) fn watched<F, T>(sse: &HeroSse, make: F) -> (Router, Alive)
where
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Stream<Item = Event> + Send + 'static,
{
    let alive = Alive::default();
    let watch = alive.clone();
    (public(sse, move || watch.watch(make())), alive)
}

/// `count` numbered events at once, then no more.
pub(crate) fn burst(count: u32) -> impl Stream<Item = Event> + Send + 'static {
    let event = |n| Event::text(format!("{n}"));
    stream::iter((1..=count).map(event)).chain(stream::pending())
}

/// A kilobyte every millisecond: more than a small receive window can hold.
pub(crate) fn flood() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some((Event::text(format!("{n} {}", "x".repeat(1000))), n + 1))
    })
}

/// A server on a port that the system chooses.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(sse: &HeroSse, app: Router) -> Self {
        Self::start_as(sse, app, |serve| serve).await
    }

    /// Starts it with changed settings.
    pub(crate) async fn start_as(
        sse: &HeroSse,
        app: Router,
        set: impl FnOnce(Serve<TcpListener, Router>) -> Serve<TcpListener, Router>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let serve = set(sse.serve(listener, app)).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Self { address, stop: Some(stop), task: tokio::spawn(serve.into_future()) }
    }

    /// Shuts down gracefully and returns how long it took.
    pub(crate) async fn stop(mut self) -> Duration {
        let start = std::time::Instant::now();
        drop(self.stop.take());
        self.task.await.expect("no panic").expect("no error");
        start.elapsed()
    }
}

/// A handler that upgrades its connection and echoes all bytes.
pub(crate) async fn echo(mut request: axum::extract::Request) -> impl axum::response::IntoResponse {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(upgraded.await.expect("an upgrade"));
        let (mut reading, mut writing) = tokio::io::split(io);
        tokio::io::copy(&mut reading, &mut writing).await.expect("an echo");
    });
    (http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
}

/// Waits for `condition` for at most two seconds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..400 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not within two seconds");
}

/// Collects everything that is logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures the log of this thread down to `TRACE`, until the guard is dropped.
    pub(crate) fn everything() -> (Self, tracing::subscriber::DefaultGuard) {
        // With a single subscriber, tracing decides by the thread that first reaches a log line whether any
        // thread wants it. With two it asks each thread.
        static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| tracing::Dispatch::new(NoSubscriber::default()));
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false) // else it depends on what other crates of the build ask of the subscriber
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
