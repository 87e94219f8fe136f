//! A stream that misbehaves must not affect other streams.

use std::task::Poll;
use std::time::Duration;

use axum::Router;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use hero_sse::{CloseReason, Event, HeroSse};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::support::testing::{self, EventReader};
use crate::support::{Log, Server, burst, options, sse_with};

/// An event every 50 ms.
fn ticks() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(interval(Duration::from_millis(50)), |mut interval| async move {
        interval.tick().await;
        Some((Event::text("tick"), interval))
    })
}

/// `/ticks`, `/silent` with a heartbeat every 100 ms, and `/bad`, whose stream misbehaves.
fn with_neighbours<T>(sse: &HeroSse, bad: fn() -> T) -> Router
where
    T: Stream<Item = Event> + Send + 'static,
{
    let public = |path: &str| sse.endpoint(path).public();
    let silent = public("/silent").heartbeat(Duration::from_millis(100));
    Router::new()
        .merge(public("/ticks").handler(async || ticks()).expect("a route"))
        .merge(silent.handler(async || burst(0)).expect("a route"))
        .merge(public("/bad").handler(async move || bad()).expect("a route"))
}

/// The longest time between two pieces of a stream, over the next second and a half.
async fn longest_gap(mut stream: EventReader) -> Duration {
    let (start, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while start.elapsed() < Duration::from_millis(1500) {
        let before = stream.raw().len();
        // A read returns only at an event. Heartbeats show in the raw bytes.
        let _ = timeout(Duration::from_millis(10), stream.next()).await;
        if stream.raw().len() > before {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    }
    longest.max(last.elapsed())
}

async fn neighbours_of<T>(sse: &HeroSse, bad: fn() -> T) -> (Duration, Duration)
where
    T: Stream<Item = Event> + Send + 'static,
{
    let server = Server::start(sse, with_neighbours(sse, bad)).await;
    let open = |path| testing::connect(server.address, path);
    let (ticks, silent) = (open("/ticks").await.expect("one"), open("/silent").await.expect("two"));
    let bad = tokio::spawn({
        let bad = open("/bad");
        async move {
            let mut bad = bad.await.expect("three");
            while let Ok(Some(_)) = bad.next().await {}
        }
    });
    sleep(Duration::from_millis(200)).await;
    let gaps = tokio::join!(longest_gap(ticks), longest_gap(silent));
    bad.abort();
    server.stop().await;
    gaps
}

#[tokio::test]
async fn a_stream_that_is_always_ready_lets_others_run_on_its_thread() {
    // One thread for server and clients.
    let sse = sse_with(options(""));
    let gaps = neighbours_of(&sse, || stream::repeat_with(|| Event::text("x"))).await;
    println!("longest gaps: {gaps:?}");
    assert!(gaps.0 < Duration::from_secs(1) && gaps.1 < Duration::from_secs(1), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_blocks_its_thread_is_counted_and_others_continue() {
    let sse = sse_with(options(""));
    let blocks = || {
        stream::poll_fn(|_| {
            std::thread::sleep(Duration::from_millis(300));
            Poll::Ready(Some(Event::text("x")))
        })
    };
    let gaps = neighbours_of(&sse, blocks).await;
    println!("longest gaps: {gaps:?}");
    assert!(gaps.0 < Duration::from_secs(1) && gaps.1 < Duration::from_secs(1), "{gaps:?}");
    assert!(sse.connections().blocking_polls() > 0);
}

#[tokio::test]
async fn a_slow_stream_sends_each_event_as_it_is_made() {
    let slow = || {
        stream::iter(0..40).map(|n| {
            std::thread::sleep(Duration::from_millis(50));
            Event::text(n.to_string())
        })
    };
    let sse = sse_with(options(""));
    let direct = sse.endpoint("/direct").public().handler(async move || slow());
    let buffered = sse.endpoint("/buffered").public().buffer(64).handler(async move || slow());
    let app = Router::new().merge(direct.expect("a route")).merge(buffered.expect("a route"));
    let server = Server::start(&sse, app).await;
    for path in ["/direct", "/buffered"] {
        let start = Instant::now();
        let mut stream = testing::connect(server.address, path).await.expect("a stream");
        assert_eq!(stream.next().await.expect("in time").expect("an event").data, "0");
        // All of them take two seconds.
        assert!(start.elapsed() < Duration::from_secs(1), "{path}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn blocking_is_counted_in_the_function_the_stream_its_buffer_and_its_drop() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            // Moves the paused clock without yielding.
            tokio::time::advance(Duration::from_millis(100)).now_or_never();
        }
    }
    fn block() {
        drop(Slow);
    }
    let (log, _guard) = Log::everything();
    let sse = sse_with(options(""));
    let event = || Event::text("x");
    let function = sse.endpoint("/function").public().handler(async move || {
        block();
        stream::iter([event()])
    });
    let polls = move || {
        stream::iter([()]).map(move |()| {
            block();
            event()
        })
    };
    let buffered = sse.endpoint("/buffer").public().buffer(4).handler(async move || polls());
    let drops = sse.endpoint("/drop").public().handler(async move || {
        let slow = Slow;
        stream::iter([event()]).map(move |event| {
            let _held = &slow;
            event
        })
    });
    let app = Router::new()
        .merge(function.expect("a route"))
        .merge(sse.endpoint("/stream").public().handler(async move || polls()).expect("a route"))
        .merge(buffered.expect("a route"))
        .merge(drops.expect("a route"));
    for (count, path) in (1..).zip(["/function", "/stream", "/buffer", "/drop"]) {
        let mut stream = testing::open(&app, path).await.expect("a stream");
        while stream.next().await.expect("in time").is_some() {}
        assert_eq!(sse.connections().blocking_polls(), count, "{path}");
        assert_eq!(log.text().matches("blocked a worker thread").count() as u64, count, "{path}");
        assert!(log.text().contains(&format!("path=\"{path}\"")), "{}", log.text());
    }
}

#[tokio::test]
async fn a_stream_that_panics_ends_alone() {
    let sse = sse_with(options(""));
    let gaps = neighbours_of(&sse, || {
        stream::iter(0..3).map(|n| if n < 2 { Event::text("x") } else { panic!("as planned") })
    })
    .await;
    assert!(gaps.0 < Duration::from_secs(1) && gaps.1 < Duration::from_secs(1), "{gaps:?}");
    assert_eq!(sse.connections().closed(CloseReason::StreamPanic), 1);
}
