//! The README's declarations in a package that renames hero-sse to `sse`, and has neither axum nor futures.
#![deny(warnings)]

use std::future::{Future, IntoFuture as _};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use sse::auth::Permission;
use sse::axum::Json;
use sse::axum::extract::State;
use sse::extend::EndpointMeta;
use sse::futures_core;
use sse::prelude::*;
use sse::{JwtAuthenticator, SseOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Maximum time of each wait.
const LIMIT: Duration = Duration::from_secs(20);

/// One reading of the usage gauge.
#[derive(Clone, Serialize, SseEvent)]
#[sse(crate = sse)]
pub struct Usage {
    used: u64,
}

/// The usage of the caller's tenant.
#[sse_endpoint(
    "/usage/stream",
    permission = "usage.read",
    write_timeout = "5s",
    crate = sse
)]
pub async fn usage_stream(
    State(usage): State<KeyedTopics<String, Usage>>,
    who: Principal,
) -> Result<Subscription<Usage>, Refusal> {
    let tenant = who.require_tenant()?.to_owned(); // answers 403 without a tenant
    Ok(usage.topic(&tenant)?.subscribe())
}

#[derive(Clone)]
struct Meter;

/// What a build reports. The data of each event is the fields of the variant.
#[derive(SseEvent)]
#[sse(crate = sse)]
pub enum Build {
    Queued {
        job: u64,
    },
    Log(String),
    #[sse(last)]
    Finished {
        ok: bool,
    },
}

#[derive(Serialize, SseEvent)]
#[sse(crate = sse)]
pub struct Order {
    number: u64,
    state: String,
}

/// New orders.
#[sse_endpoint("/orders/stream", permission = "orders.read", crate = sse)]
pub async fn order_stream(State(orders): State<Topic<Order>>) -> Subscription<Order> {
    orders.subscribe()
}

async fn place_order(orders: &Topic<Order>, number: u64) -> Result<(), sse::topic::PublishError> {
    orders.publish(Order { number, state: "new".to_owned() }).await?;
    Ok(())
}

#[sse_endpoint("/builds", public, overflow = "latest", crate = sse)]
async fn builds() -> impl Stream<Item = Build> {
    let log = Build::Log("compiling".to_owned());
    Ready([Build::Queued { job: 1 }, log, Build::Finished { ok: true }].into_iter())
}

enum Scope {
    Ask,
}

impl From<Scope> for Permission {
    fn from(Scope::Ask: Scope) -> Self {
        Self::from_static("questions.ask")
    }
}

#[derive(serde::Deserialize)]
struct Question {
    word: String,
}

/// A text that is made by a `Display` of the user's.
#[derive(SseEvent)]
#[sse(data = "text", crate = sse)]
struct Answer<T: std::fmt::Display>(T);

#[sse_endpoint(
    "/questions",
    method = "post",
    permission = any("admin", Scope::Ask),
    state = Meter,
    crate = sse
)]
async fn ask(_: LastEventId, Json(question): Json<Question>) -> impl Stream<Item = Answer<String>> {
    Ready(Some(Answer(question.word)).into_iter())
}

/// A stream that is always ready.
struct Ready<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Ready<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

/// Polls a future that is ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn count(stream: impl Stream) -> usize {
    let mut stream = pin!(stream);
    let mut context = Context::from_waker(Waker::noop());
    let mut count = 0;
    while let Poll::Ready(Some(_)) = stream.as_mut().poll_next(&mut context) {
        count += 1;
    }
    count
}

/// Serves one stream with the default features, over a socket: it starts, and a shutdown ends it with its reason.
/// HTTP/2 is the feature `http2`, so a client that begins with it gets no HTTP/2 frame.
async fn serves() -> Result<(), Box<dyn std::error::Error>> {
    let sse = HeroSse::builder().environment([] as [(String, String); 0]).build()?;
    let app = sse.endpoint("/clock").public().handler(async || {
        sse::stream(|mut tx| async move {
            tx.send(Event::text("tick")).await;
            std::future::pending::<()>().await;
        })
    })?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { stopped.await.unwrap_or_default() };
    let server = tokio::spawn(sse.serve(listener, app).with_graceful_shutdown(shutdown).into_future());

    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /clock HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("data: tick\n") {
        assert!(timeout(LIMIT, stream.read_buf(&mut text)).await?? > 0, "the stream ended early");
    }
    let (mut other, mut answer) = (TcpStream::connect(address).await?, Vec::new());
    other.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    // A reset is an end, too.
    let _ = timeout(LIMIT, other.read_to_end(&mut answer)).await?;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1"), "an HTTP/2 frame: {answer:?}");

    drop(stop);
    timeout(LIMIT, stream.read_to_end(&mut text)).await??;
    timeout(LIMIT, server).await???;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("event: hero.close") && text.contains("\"draining\""), "{text}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serves())?;
    // The feature `toml` is off. This package's own manifest is a TOML file.
    let errors = SseOptions::from_file("Cargo.toml").expect_err("a TOML file");
    assert!(errors.to_string().contains("enable it"), "{errors}");
    let sse = HeroSse::builder()
        .options(SseOptions::default().heartbeat_event(true))
        .environment([] as [(String, String); 0])
        .authenticator(
            JwtAuthenticator::hs256("a random secret of at least thirty-two bytes")
                .issuer("https://id.example.com")
                .audience("usage"),
        )
        .build()?;
    let usage = KeyedTopics::new("usage");
    let routes = sse.at("/api/v1").routes(endpoints![usage_stream])?;
    let _app: sse::axum::Router = sse::axum::Router::new().merge(routes).with_state(usage.clone());
    let routes = sse.at("/api/v1").routes(endpoints![builds, ask])?;
    let _app: sse::axum::Router = sse::axum::Router::new().merge(routes).with_state(Meter);

    let orders = Topic::new("orders");
    let routes = sse.routes(endpoints![order_stream])?;
    let _app: sse::axum::Router = sse::axum::Router::new().merge(routes).with_state(orders.clone());
    let followed = now(order_stream(State(orders.clone())));
    now(place_order(&orders, 7))?;
    drop((orders, _app));
    assert_eq!(count(followed), 1);

    let ann = || Principal::new("ann");
    let followed = now(usage_stream(State(usage.clone()), ann().with_tenant("t1")))?;
    for used in 1..=3 {
        now(usage.topic(&"t1".to_owned())?.publish(Usage { used }))?;
    }
    assert_eq!(count(followed), 3);
    assert!(now(usage_stream(State(usage), ann())).is_err());
    assert_eq!(count(now(builds())), 3);
    let answers = now(ask(LastEventId::default(), Json(Question { word: "why".to_owned() })));
    assert_eq!(count(answers), 1);
    println!(
        "{} {} {}",
        usage_stream::DESCRIPTOR.path(),
        builds::DESCRIPTOR.path(),
        ask::DESCRIPTOR.path()
    );
    Ok(())
}
