//! `on_open` and `on_close`: each stream that opened is closed once, whatever the hooks do.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{Stream, StreamExt, stream};
use hero_sse::connections::{ClosedConnection, Connection, ConnectionFilter};
use hero_sse::server::Builder;
use hero_sse::{CloseReason, Event, HeroSse, Principal, SseOptions, Topic, prelude::*};
use http::{Method, StatusCode};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::support::testing::{self, SlowReader};
use crate::support::{Log, Server, burst, eventually, flood, jwt, options, public};

/// What the hooks were called with.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Call>>>);

#[derive(Clone, Debug)]
enum Call {
    Open(Connection),
    Close(ClosedConnection),
}

impl Calls {
    fn push(&self, call: Call) {
        self.0.lock().expect("no panic").push(call);
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }

    fn reasons(&self) -> Vec<CloseReason> {
        let calls = self.0.lock().expect("no panic");
        calls
            .iter()
            .filter_map(|call| if let Call::Close(it) = call { Some(it.reason) } else { None })
            .collect()
    }

    /// Checks that each stream was opened and closed once, in this order, and returns their number.
    fn check(&self) -> usize {
        let mut open = HashMap::new();
        for call in self.take() {
            match call {
                Call::Open(it) => assert!(open.insert(it.id(), false).is_none(), "opened twice"),
                Call::Close(it) => {
                    let was = open.insert(it.connection.id(), true);
                    assert_eq!(was, Some(false), "{it:?}");
                }
            }
        }
        assert!(open.values().all(|closed| *closed), "not closed");
        open.len()
    }

    fn record(&self, builder: Builder) -> Builder {
        let (opens, closes) = (self.clone(), self.clone());
        builder
            .on_open(async move |opened| opens.push(Call::Open(opened)))
            .on_close(async move |closed| closes.push(Call::Close(closed)))
    }
}

fn build(options: SseOptions, hooks: impl FnOnce(Builder) -> Builder) -> HeroSse {
    let builder = HeroSse::builder().options(options).authenticator(jwt());
    hooks(builder.environment(Vec::<(String, String)>::new())).build().expect("a server")
}

fn recording(options: SseOptions) -> (HeroSse, Calls) {
    let calls = Calls::default();
    (build(options, |builder| calls.record(builder)), calls)
}

async fn finished(sse: &HeroSse) {
    let finished = timeout(Duration::from_secs(1_000), sse.connections().hooks_finished());
    finished.await.expect("the hooks finish");
}

fn silence() -> impl Stream<Item = Event> + Send + 'static {
    stream::pending()
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_and_closed_with_its_id_reason_and_duration() {
    let (sse, calls) = recording(SseOptions::default());
    let handler = async |_: Connection| burst(1);
    let app: Router = sse.at("/api").endpoint("/s/{id}").handler(handler).expect("a route");
    let stream = testing::open(&app, "/api/s/7").principal("ann").await.expect("a stream");
    let info = sse.connections().snapshot().remove(0);
    sleep(Duration::from_secs(7)).await;
    let opened = calls.take();
    let [Call::Open(opened)] = &opened[..] else { panic!("{opened:?}") };
    assert_eq!((opened.id(), opened.endpoint()), (info.id, "/api/s/{id}"));
    assert_eq!(opened.principal().map(Principal::subject), Some("ann"));
    drop(stream);
    finished(&sse).await;
    let closed = calls.take();
    let [Call::Close(closed)] = &closed[..] else { panic!("{closed:?}") };
    assert_eq!((closed.connection.id(), closed.reason), (info.id, CloseReason::ClientGone));
    assert_eq!((closed.duration, closed.gaps), (Duration::from_secs(7), 0));
    assert_eq!(closed.connection.principal().map(Principal::subject), Some("ann"));
    // By then it is no longer in the registry.
    assert!(closed.connection.connections().is_empty());
}

type Items = stream::BoxStream<'static, Result<Event, std::io::Error>>;

/// The path of an endpoint, its stream, and how that ends.
type Case = (&'static str, fn() -> Items, CloseReason);

#[tokio::test(start_paused = true)]
async fn every_end_is_one_close() {
    let cases: [Case; 5] = [
        ("ended", || stream::empty().boxed(), CloseReason::Ended),
        ("last", || stream::iter([Ok(Event::text("x").last())]).boxed(), CloseReason::LastEvent),
        (
            "error",
            || stream::iter([Err(std::io::Error::other("x"))]).boxed(),
            CloseReason::StreamError,
        ),
        (
            "panic",
            || stream::once(async { panic!("on purpose") }).boxed(),
            CloseReason::StreamPanic,
        ),
        ("age", || stream::pending().boxed(), CloseReason::MaxAge),
    ];
    let (sse, calls) = recording(options("MaxAge = \"1h\""));
    for (name, make, reason) in cases {
        let app: Router = sse
            .endpoint(format!("/{name}"))
            .public()
            .handler(async move || make())
            .expect("a route");
        let mut stream = testing::open(&app, &format!("/{name}")).await.expect("a stream");
        stream = stream.timeout(Duration::from_secs(7200));
        stream.read_to_end().await.expect("an end");
        drop(stream);
        finished(&sse).await;
        assert_eq!(calls.reasons(), [reason]);
        assert_eq!(calls.check(), 1);
    }
    let app = public(&sse, silence);
    for reason in [CloseReason::Draining, CloseReason::Revoked, CloseReason::ClientGone] {
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        let all = ConnectionFilter::all();
        match reason {
            CloseReason::Draining => sse.connections().drain(&all),
            CloseReason::Revoked => sse.connections().disconnect(&all, reason),
            // The body was never polled.
            _ => 0,
        };
        if reason != CloseReason::ClientGone {
            stream.read_to_end().await.expect("an end");
        }
        drop(stream);
        finished(&sse).await;
        assert_eq!(calls.reasons(), [reason]);
        assert_eq!(calls.check(), 1);
    }
    assert_eq!(sse.connections().dropped_hook_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_opens_no_stream_calls_no_hook() {
    let (sse, calls) = recording(options("MaxPerPrincipal = 1\nOverLimit = \"refuse\""));
    let refusing = async || Err::<stream::Empty<Event>, _>(StatusCode::CONFLICT);
    let pending = async || {
        std::future::pending::<()>().await;
        burst(1)
    };
    let app: Router = Router::new()
        .merge(sse.endpoint("/s").handler(async || silence()).expect("a route"))
        .merge(sse.endpoint("/refusing").handler(refusing).expect("a route"))
        .merge(sse.endpoint("/p").permission("no").handler(async || silence()).expect("a route"))
        .merge(sse.endpoint("/pending").public().handler(pending).expect("a route"));
    let open = |path: &str| testing::open(&app, path).principal("ann");
    let held = open("/s").await.expect("a stream");
    open("/s").await.expect_err("over the limit");
    testing::open(&app, "/s").await.expect_err("no token");
    open("/p").await.expect_err("no permission");
    open("/s").last_event_id("hero.end").await.expect_err("204");
    let head =
        testing::open(&app, "/s").principal("bob").method(Method::HEAD).await.expect("a head");
    testing::open(&app, "/refusing").principal("bob").await.expect_err("409");
    let abandoned = timeout(Duration::from_secs(1), testing::open(&app, "/pending").into_future());
    assert!(abandoned.await.is_err());
    drop((held, head));
    finished(&sse).await;
    assert_eq!(calls.check(), 1);
    assert!(sse.connections().is_empty());
}

/// A stream from an ordinary handler is one like any other.
#[tokio::test(start_paused = true)]
async fn a_context_that_opens_its_stream_calls_the_hooks() {
    let (sse, calls) = recording(SseOptions::default());
    let handler = async |context: SseContext| match context.last_event_id() {
        None => context.public().stream(burst(1)).await,
        Some(_) => StatusCode::CONFLICT.into_response(),
    };
    let app: Router = Router::new().route("/old", get(handler)).layer(Extension(sse.clone()));
    let stream = testing::open(&app, "/old").await.expect("a stream");
    let id = sse.connections().snapshot()[0].id;
    drop(stream);
    testing::open(&app, "/old").last_event_id("7").await.expect_err("409");
    finished(&sse).await;
    let closed = calls.0.lock().expect("no panic").clone();
    assert!(matches!(&closed[1], Call::Close(it) if it.connection.id() == id), "{closed:?}");
    assert_eq!(calls.check(), 1);
}

/// An open that is still running is not overtaken by the close, and holds no stream.
#[tokio::test(start_paused = true)]
async fn the_close_waits_for_the_open_of_its_stream_alone() {
    let calls = Calls::default();
    let (slow, closes) = (calls.clone(), calls.clone());
    let sse = build(SseOptions::default(), |builder| {
        builder
            .on_open(async move |opened: Connection| {
                if opened.principal().is_some() {
                    sleep(Duration::from_secs(10)).await;
                }
                slow.push(Call::Open(opened));
            })
            .on_close(async move |closed| closes.push(Call::Close(closed)))
    });
    let app = public(&sse, silence);
    let start = Instant::now();
    drop(testing::open(&app, "/s").principal("ann").await.expect("a stream"));
    drop(testing::open(&app, "/s").await.expect("a stream"));
    assert!(sse.connections().is_empty() && start.elapsed() == Duration::ZERO);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.check(), 1, "the other stream's");
    finished(&sse).await;
    assert_eq!((calls.check(), start.elapsed()), (1, Duration::from_secs(10)));
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            resume_unwind(Box::new("in the drop"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_that_panic_or_hang_leave_streams_and_other_hooks_alone() {
    let (log, _guard) = Log::everything();
    let calls = Calls::default();
    let sse = build(SseOptions::default(), |builder| {
        let builder = builder
            .on_open(|_| -> std::future::Ready<()> { resume_unwind(Box::new("at the call")) })
            .on_open(async |_| resume_unwind(Box::new("in the future")))
            .on_close(async |_| {
                let _bomb = PanicsInDrop;
                std::future::pending().await
            })
            .on_close(async |_| std::future::pending().await);
        calls.record(builder)
    });
    let app = public(&sse, || burst(1));
    for _ in 0..100 {
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(stream.next().await.expect("in time").expect("an event").data, "1");
    }
    assert!(sse.connections().is_empty());
    let start = Instant::now();
    finished(&sse).await;
    // 64 at a time, two hooks that take 30 s each.
    assert_eq!(start.elapsed().as_secs(), 120);
    assert_eq!(calls.check(), 100);
    assert_eq!(sse.connections().dropped_hook_calls(), 200);
    let log = log.text();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert!(lines("a connection hook panicked") >= 1, "{log}");
    assert!((1..=4).contains(&lines("calls of a connection hook were dropped")), "{log}");
    assert!(log.contains("cause=\"timeout\"") && log.contains("hook=\"close\""), "{log}");
}

/// Hooks that never return cost the calls that do not fit, and nothing else.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_the_queue_is_dropped_in_pairs() {
    let (log, _guard) = Log::everything();
    let calls = Calls::default();
    let (opens, closes) = (calls.clone(), calls.clone());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let closed_gate = gate.clone();
    let sse = build(options("MaxConnections = 2000"), |builder| {
        builder
            .on_open(async move |opened| {
                let _ = closed_gate.acquire().await;
                opens.push(Call::Open(opened));
            })
            .on_close(async move |closed| closes.push(Call::Close(closed)))
    });
    let app = public(&sse, silence);
    let start = Instant::now();
    for n in 0..5_000 {
        drop(testing::open(&app, "/s").await.expect("a stream"));
        assert!(sse.connections().is_empty(), "{n}");
        yield_now().await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    // 64 run and 2,000 wait; of all others neither the open nor the close is called.
    let dropped = sse.connections().dropped_hook_calls();
    assert_eq!(dropped, 2 * (5_000 - 2_064));
    gate.close();
    finished(&sse).await;
    assert_eq!(calls.check(), 2_064);
    assert_eq!(sse.connections().dropped_hook_calls(), dropped);
    let log = log.text();
    let lines = log.lines().filter(|line| line.contains("calls of a connection hook were dropped"));
    assert_eq!(lines.count(), 2, "one a second for each hook");
}

/// Without a hook on opens, the number of waiting closes is what is bounded.
#[tokio::test(start_paused = true)]
async fn closes_alone_are_bounded_as_well() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let sse = build(options("MaxConnections = 1"), |builder| {
        builder.on_close(async move |_| {
            sleep(Duration::from_secs(1)).await;
            count.fetch_add(1, Ordering::SeqCst);
        })
    });
    let app = public(&sse, silence);
    for _ in 0..2_000 {
        drop(testing::open(&app, "/s").await.expect("a stream"));
    }
    finished(&sse).await;
    let (made, dropped) = (made.load(Ordering::SeqCst), sse.connections().dropped_hook_calls());
    assert_eq!(made as u64 + dropped, 2_000);
    assert!((1_024..=1_024 + 64).contains(&made), "{made}");
}

/// Hooks may use everything: topics, the registry, their own stream.
#[tokio::test(start_paused = true)]
async fn a_hook_may_publish_send_to_its_own_stream_and_disconnect() {
    #[derive(Serialize, SseEvent)]
    struct Here(u64);
    let topic = Topic::<Here>::new("presence");
    let (here, gone) = (topic.clone(), topic.clone());
    let calls = Calls::default();
    let sse = build(SseOptions::default(), |builder| {
        calls
            .record(builder.on_open(async move |opened: Connection| {
                let connections = opened.connections();
                let own = ConnectionFilter::all().id(opened.id());
                let sent = connections.send(&own, Event::text("welcome")).expect("an event");
                assert_eq!(sent.accepted, 1);
                here.publish(Here(opened.id())).await.expect("published");
                // Until it is sent: an end drops what waits.
                sleep(Duration::from_secs(1)).await;
                assert_eq!(
                    connections.disconnect(&own.clone().subject("eve"), CloseReason::Revoked),
                    usize::from(opened.principal().is_some_and(|who| who.subject() == "eve"))
                );
            }))
            .on_close(async move |closed: ClosedConnection| {
                let own = ConnectionFilter::all().id(closed.connection.id());
                let connections = closed.connection.connections();
                assert_eq!(connections.send(&own, Event::text("x")).expect("an event").accepted, 0);
                assert_eq!(connections.disconnect(&own, CloseReason::Revoked), 0);
                gone.publish(Here(closed.connection.id())).await.expect("published");
            })
    });
    let feed = topic.clone();
    let app: Router = sse
        .endpoint("/topic")
        .public()
        .handler(async move || feed.subscribe())
        .expect("a route")
        .merge(public(&sse, silence));
    let mut subscriber = testing::open(&app, "/topic").await.expect("a stream");
    let mut read = async || loop {
        let event = subscriber.next().await.expect("in time").expect("an event");
        if event.event == "here" {
            return event.json::<u64>().expect("an id");
        }
    };
    read().await;
    let mut eve = testing::open(&app, "/s").principal("eve").await.expect("a stream");
    let all = eve.read_to_end().await.expect("an end");
    assert_eq!(all[0].data, "welcome");
    assert_eq!(eve.close_reason(), Some(CloseReason::Revoked));
    drop(eve);
    assert_eq!(read().await, read().await);
    drop(subscriber);
    finished(&sse).await;
    assert_eq!(calls.check(), 2);
}

/// 10,000 streams leave nothing: not in the registry, not in the queue, and not in memory once the server is gone.
#[tokio::test]
async fn ten_thousand_streams_leave_nothing() {
    let (sse, calls) = recording(SseOptions::default());
    let held = Arc::downgrade(&calls.0);
    let app = public(&sse, || burst(1));
    for _ in 0..100 {
        let streams: Vec<_> = (0..100).map(|_| testing::open(&app, "/s").into_future()).collect();
        let mut streams = futures_util::future::join_all(streams).await;
        for stream in streams.iter_mut().flatten().step_by(2) {
            stream.next().await.expect("in time").expect("an event");
        }
        drop(streams);
    }
    assert!(sse.connections().is_empty());
    finished(&sse).await;
    assert_eq!((calls.check(), sse.connections().dropped_hook_calls()), (10_000, 0));
    drop((sse, app, calls));
    eventually("the hooks are dropped", || held.upgrade().is_none()).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_hooks_that_are_slow() {
    let calls = Calls::default();
    let (opens, closes) = (calls.clone(), calls.clone());
    let sse = build(SseOptions::default(), |builder| {
        builder.on_open(async move |opened| opens.push(Call::Open(opened))).on_close(
            async move |closed| {
                sleep(Duration::from_millis(200)).await;
                closes.push(Call::Close(closed));
            },
        )
    });
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
        stream.next().await.expect("in time").expect("an event");
        streams.push(tokio::spawn(async move { stream.read_to_end().await.map(|_| ()) }));
    }
    let took = server.stop().await;
    assert_eq!(calls.reasons(), [CloseReason::Draining; 200]);
    assert_eq!((calls.check(), sse.connections().dropped_hook_calls()), (200, 0));
    // Four rounds of 64.
    assert!(took >= Duration::from_millis(800) && took < Duration::from_secs(4), "{took:?}");
}

/// A hook that never returns does not hold the shutdown, nor does it where a client has stalled.
#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_hook_that_hangs() {
    let (log, _guard) = Log::everything();
    let sse = build(options("DrainTimeout = \"1s\""), |builder| {
        builder.on_open(async |_| std::future::pending().await).on_close(async |_| ())
    });
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    for _ in 0..10 {
        let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
        stream.next().await.expect("in time").expect("an event");
    }
    let took = server.stop().await;
    assert!(took >= Duration::from_millis(900) && took < Duration::from_millis(1_800), "{took:?}");
    assert_eq!(sse.connections().dropped_hook_calls(), 20);
    let log = log.text();
    assert!(log.contains("cause=\"unfinished\"") && log.contains("total=20"), "{log}");
    // Nothing is left that could be called later.
    timeout(Duration::from_secs(1), sse.connections().hooks_finished()).await.expect("idle");
}

/// Without a limit for streams, hooks still have one.
#[tokio::test(start_paused = true)]
async fn a_shutdown_without_a_limit_does_not_wait_for_a_hook_that_hangs() {
    let sse = build(options("DrainTimeout = \"off\""), |builder| {
        builder.on_close(async |_| std::future::pending().await)
    });
    let app = public(&sse, || burst(1));
    drop(testing::open(&app, "/s").await.expect("a stream"));
    let start = Instant::now();
    Server::start(&sse, app).await.stop().await;
    assert!(start.elapsed() <= Duration::from_secs(31), "{:?}", start.elapsed());
    assert_eq!(sse.connections().dropped_hook_calls(), 1);
}

#[tokio::test]
async fn streams_that_the_hard_end_cuts_are_closed_as_well() {
    let calls = Calls::default();
    let sse = build(options("WriteTimeout = \"off\"\nDrainTimeout = \"500ms\""), |builder| {
        // Longer than what is left of the timeout: nothing.
        calls.record(builder.on_close(async |_| sleep(Duration::from_millis(300)).await))
    });
    let server = Server::start(&sse, public(&sse, flood)).await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        stalled.push(SlowReader::connect(server.address, "/s", &[]).await.expect("a stream"));
    }
    sleep(Duration::from_millis(500)).await;
    let took = server.stop().await;
    assert_eq!(calls.reasons().len(), 5);
    assert_eq!((calls.check(), sse.connections().dropped_hook_calls()), (5, 0));
    assert!(took < Duration::from_millis(2_000), "{took:?}");
    drop(stalled);
}

/// Real disconnects, under `axum::serve` without and with a guard.
#[tokio::test]
async fn clients_that_leave_are_closed_under_another_server() {
    for guarded in [false, true] {
        let (sse, calls) = recording(options("WriteTimeout = \"1s\""));
        let app = public(&sse, || stream::repeat_with(|| Event::text("x".repeat(8 * 1024))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = if guarded {
            let (listener, app) = sse.guard(listener, app);
            tokio::spawn(axum::serve(listener, app).into_future())
        } else {
            tokio::spawn(axum::serve(listener, app).into_future())
        };
        for _ in 0..20 {
            let mut stream = testing::connect(address, "/s").await.expect("a stream");
            stream.next().await.expect("in time").expect("an event");
        }
        let stalled = SlowReader::connect(address, "/s", &[]).await.expect("a stream");
        let connections = sse.connections().clone();
        for _ in 0..20 {
            if connections.is_empty() {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        drop(stalled);
        finished(&sse).await;
        let gone = calls.reasons();
        assert_eq!(gone.len(), 21, "{gone:?}");
        assert_eq!(
            gone.iter().filter(|it| **it == CloseReason::WriteTimeout).count(),
            1,
            "{gone:?}"
        );
        assert_eq!(calls.check(), 21);
        serving.abort();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Streams of several runtimes, which end before their streams, and streams dropped where there is none.
#[test]
fn the_calls_survive_their_runtimes() {
    let (sse, calls) = recording(SseOptions::default());
    let app = public(&sse, || burst(1));
    let mut orphans = Vec::new();
    for _ in 0..10 {
        let runtime = runtime();
        orphans.push(runtime.block_on(async {
            let lost = testing::open(&app, "/s").await;
            // Dropped by the end of its runtime.
            tokio::spawn(async move {
                let _lost = lost;
                std::future::pending::<()>().await;
            });
            // Their calls are never made here: the runtime ends first.
            let (stream, other) =
                (testing::open(&app, "/s").await, testing::open(&app, "/s").await);
            drop(other);
            stream.expect("a stream")
        }));
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let app = app.clone();
            std::thread::spawn(move || {
                runtime().block_on(async {
                    for _ in 0..100 {
                        testing::open(&app, "/s").await.expect("a stream");
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(sse.connections().len(), 10);
    drop(orphans);
    runtime().block_on(finished(&sse));
    let dropped = sse.connections().dropped_hook_calls();
    assert_eq!((calls.check(), dropped), (430, 0));
}

/// What a runtime takes with it is counted, and the closes of other streams are called.
#[test]
fn a_runtime_that_ends_in_the_middle_of_calls_loses_these_alone() {
    let calls = Calls::default();
    let closes = calls.clone();
    let sse = build(SseOptions::default(), |builder| {
        builder
            .on_open(async |opened: Connection| {
                if opened.principal().is_some() {
                    std::future::pending().await
                }
            })
            .on_close(async move |closed| closes.push(Call::Close(closed)))
    });
    let app = public(&sse, || burst(1));
    let streams = runtime().block_on(async {
        let hung = testing::open(&app, "/s").principal("ann").await.expect("a stream");
        let gone = testing::open(&app, "/s").principal("bob").await.expect("a stream");
        let fine = testing::open(&app, "/s").await.expect("a stream");
        sleep(Duration::from_millis(50)).await;
        drop(gone);
        (hung, fine)
    });
    assert_eq!(sse.connections().dropped_hook_calls(), 2, "the two that hung");
    drop(streams);
    runtime().block_on(finished(&sse));
    assert_eq!((calls.reasons().len(), sse.connections().dropped_hook_calls()), (3, 2));
}

/// A hook that blocks its thread for good delays other hooks only.
#[test]
fn a_hook_that_blocks_its_thread_holds_neither_streams_nor_the_shutdown() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .expect("a runtime");
    // Dropped before the runtime, whose end waits for the thread.
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let begun = Arc::new(OnceLock::new());
    let entered = begun.clone();
    let sse = build(options("DrainTimeout = \"500ms\""), |builder| {
        builder.on_close(async move |_| {
            let _ = entered.set(());
            let _ = blocked.lock().expect("no panic").recv();
        })
    });
    let served = sse.clone();
    let took = runtime.block_on(runtime.spawn(async move {
        let sse = served;
        let server = Server::start(&sse, public(&sse, || burst(1))).await;
        for n in 0..50 {
            let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
            stream.next().await.expect("in time").expect("an event");
            drop(stream);
            if n == 0 {
                eventually("blocked", || begun.get().is_some()).await;
            }
        }
        eventually("released", || sse.connections().is_empty()).await;
        server.stop().await
    }));
    let took = took.expect("no panic");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    assert_eq!(sse.connections().dropped_hook_calls(), 50);
    // The one that was blocked returns, and its worker ends.
    drop(release);
    runtime.block_on(eventually("measured", || sse.connections().blocking_polls() == 1));
    runtime.block_on(finished(&sse));
    assert_eq!(sse.connections().dropped_hook_calls(), 50, "not counted twice");
}

/// A server that is dropped with calls that nobody can make says so.
#[test]
fn calls_that_are_left_when_the_server_is_dropped_are_logged() {
    let (log, _guard) = Log::everything();
    let (sse, calls) = recording(SseOptions::default());
    let app = public(&sse, || burst(1));
    let stream = runtime().block_on(async { testing::open(&app, "/s").await.expect("a stream") });
    drop((stream, app, sse));
    assert!(calls.take().is_empty());
    let log = log.text();
    assert!(log.contains("cause=\"unfinished\""), "{log}");
}
