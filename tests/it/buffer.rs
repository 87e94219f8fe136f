//! Slow clients: back-pressure, or a buffer and its overflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::options::Overflow;
use hero_sse::{CloseReason, Event, LastEventId, SseOptions};
use serde_json::Value;

use crate::support::testing::{self, EventReader, Received, SlowReader};
use crate::support::{
    Alive, Log, Server, burst, eventually, flood, options, public, sse_with, watched,
};

const ALL: [Overflow; 3] = [Overflow::Disconnect, Overflow::DropOldest, Overflow::Latest];

/// Lets the other tasks run until all of them wait. The clock is paused, so this takes no time.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn numbered(n: u64) -> Event {
    Event::text(format!("{n} {}", "x".repeat(1000))).with_id(n).expect("an id")
}

/// Events of a kilobyte, all ready, numbered from 1.
fn torrent(count: u64) -> impl Stream<Item = Event> + Send + 'static {
    stream::iter((1..=count).map(numbered))
}

async fn next(stream: &mut EventReader) -> Received {
    stream.next().await.expect("in time").expect("an event")
}

fn data(events: &[Received]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

fn missed(gap: &Received) -> u64 {
    assert_eq!((gap.event.as_str(), &gap.id), ("hero.gap", &None));
    gap.json::<Value>().expect("JSON")["missed"].as_u64().expect("a count")
}

fn reason(close: &Received) -> String {
    assert_eq!(close.event, "hero.close");
    close.json::<Value>().expect("JSON")["reason"].as_str().expect("a reason").to_owned()
}

/// Reads to the end, slowly: 64 KiB, then a pause, and so on.
async fn read_slowly(slow: &mut SlowReader) -> String {
    let mut text = Vec::new();
    loop {
        let piece = slow.read(64 * 1024).await.expect("a healthy socket");
        text.extend_from_slice(&piece);
        if piece.is_empty() || text.ends_with(b"0\r\n\r\n") {
            return String::from_utf8(text).expect("UTF-8");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_buffer_a_slow_client_slows_its_stream_down() {
    let sse = sse_with(SseOptions::default());
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let app = public(&sse, move || {
        let count = count.clone();
        torrent(u64::MAX - 1).inspect(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
    });
    let server = Server::start(&sse, app).await;
    let mut slow = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = made.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!((1..1000).contains(&before), "{before} kilobytes for a client that reads nothing");
    assert_eq!(made.load(Ordering::SeqCst), before);
    let mut read = 0;
    while read < 2_000_000 {
        read += slow.read(64 * 1024).await.expect("a healthy socket").len();
    }
    assert!(made.load(Ordering::SeqCst) >= 1900, "it did not go on");
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnect_delivers_the_waiting_events_and_the_client_resumes_without_a_gap() {
    let sse = sse_with(options("Buffer = 8"));
    let (alive, opened) = (Alive::default(), Arc::new(AtomicUsize::new(0)));
    let (watch, count) = (alive.clone(), opened.clone());
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async move |cursor: LastEventId| {
            count.fetch_add(1, Ordering::SeqCst);
            let after: u64 = cursor.as_str().map_or(0, |id| id.parse().expect("a number"));
            watch.watch(stream::iter((after + 1..).map(numbered)))
        })
        .expect("a route");
    let server = Server::start(&sse, app).await;
    let mut last = 0;
    for round in 1..=3 {
        let cursor = last.to_string();
        let headers: &[_] = if last == 0 { &[] } else { &[("last-event-id", cursor.as_str())] };
        let mut slow = SlowReader::connect(server.address, "/s", headers).await.expect("a socket");
        eventually("opened", || opened.load(Ordering::SeqCst) == round).await;
        // The client has read nothing, so the events still wait in the writer.
        eventually("the stream is dropped at once", || alive.count() == 0).await;
        let text = read_slowly(&mut slow).await;
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
        for id in ids {
            last += 1;
            assert_eq!(id.parse(), Ok(last), "a gap or a duplicate");
        }
        assert!(last >= 8 * round as u64, "{last} events after {round} rounds");
        let (_, close_event) = text.split_once("event: hero.close\n").expect("a closing event");
        assert!(
            close_event.contains("\"reason\":\"overflow\",\"reconnect\":true"),
            "{close_event}"
        );
        let closed = || sse.connections().closed(CloseReason::Overflow);
        eventually("counted", || closed() == round as u64).await;
    }
    assert!(sse.connections().is_empty());
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_reports_the_number_of_missed_events_in_their_place() {
    let sse = sse_with(options("Overflow = \"drop_oldest\"\nBuffer = 4"));
    let app = public(&sse, || {
        let later = stream::once(tokio::time::sleep(Duration::from_secs(1))).map(|()| 11);
        stream::iter(1..=10)
            .chain(later)
            .chain(stream::iter(12..=20))
            .map(|n: u32| Event::text(n.to_string()))
    });
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    settle().await;
    assert_eq!(missed(&next(&mut stream).await), 6);
    for n in 7..=10 {
        assert_eq!(next(&mut stream).await.data, n.to_string());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rest = stream.read_to_end().await.expect("a clean end");
    assert_eq!(missed(&rest[0]), 6);
    assert_eq!(data(&rest[1..5]), ["17", "18", "19", "20"]);
    assert_eq!((rest.len(), reason(&rest[5]).as_str()), (6, "ended"));
    assert_eq!(sse.connections().gaps(), 2);
}

/// Events beyond one write stay in the buffer, where newer ones replace them. A client that resumes reading therefore
/// receives the newest events, not the oldest.
#[tokio::test(start_paused = true)]
async fn a_write_takes_no_more_from_a_buffer_than_it_sends() {
    let sse = sse_with(options("Overflow = \"drop_oldest\"\nBuffer = 100"));
    let app = public(&sse, || {
        let later = stream::once(tokio::time::sleep(Duration::from_secs(1))).map(|()| 101);
        stream::iter(1..=100).chain(later).chain(stream::iter(102..=200)).map(numbered)
    });
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    settle().await;
    assert!(next(&mut stream).await.data.starts_with("1 "));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rest = stream.read_to_end().await.expect("a clean end");
    let gap = rest.iter().find(|event| event.event == "hero.gap").expect("a gap");
    assert!(missed(gap) > 80, "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_real_socket_drop_oldest_counts_every_missed_event() {
    const PRODUCED: u64 = 20_000;
    let sse = sse_with(options("Overflow = \"drop_oldest\"\nBuffer = 16"));
    // With pauses, so that there are gaps in many places.
    let app = public(&sse, || {
        torrent(PRODUCED).enumerate().then(async |(at, event)| {
            if at % 500 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            event
        })
    });
    let server = Server::start(&sse, app).await;
    let mut slow = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    let text = read_slowly(&mut slow).await;
    let (mut next, mut received, mut gaps) = (1, 0, 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "event: hero.gap" {
            let gap = lines.next().and_then(|line| line.strip_prefix("data: ")).expect("data");
            let gap: Value = serde_json::from_str(gap).expect("JSON");
            next += gap["missed"].as_u64().expect("a count");
            gaps += 1;
        } else if let Some(id) = line.strip_prefix("id: ") {
            assert_eq!(id.parse(), Ok(next), "after {received} events and {gaps} gaps");
            next += 1;
            received += 1;
        }
    }
    assert_eq!(next, PRODUCED + 1, "received and missed are what was produced");
    assert!(gaps > 3 && received > 16, "{received} events, {gaps} gaps");
    assert!(text.contains("\"reason\":\"ended\""));
    server.stop().await;
}

/// Returns name and data of the events that a client reads once all of them are buffered.
async fn read_late(sse: &hero_sse::HeroSse, events: Vec<Event>) -> Vec<(String, String)> {
    let path = format!("/{}", events.len());
    let app: Router = sse
        .endpoint(path.as_str())
        .public()
        .handler(async move || stream::iter(events.clone()))
        .expect("a route");
    let mut stream = testing::open(&app, &path).await.expect("a stream");
    settle().await;
    let mut events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(reason(&events.pop().expect("a closing event")), "ended");
    events.into_iter().map(|event| (event.event, event.data)).collect()
}

#[tokio::test(start_paused = true)]
async fn latest_keeps_the_newest_event_of_each_name_and_key_in_order() {
    let sse = sse_with(options("Overflow = \"latest\"\nBuffer = 16"));
    let event = |name: Option<&str>, key: Option<&str>, n: u32| {
        let event = Event::text(n.to_string());
        let event = name.map_or(Ok(event.clone()), |name| event.named(name)).expect("a name");
        key.map_or(event.clone(), |key| event.with_key(key))
    };
    let mut events = Vec::new();
    for n in 0..100 {
        for (name, key) in [
            (Some("load"), Some("c")),
            (Some("load"), Some("a")),
            (Some("disk"), Some("a")),
            (Some("disk"), None),
            (None, None),
        ] {
            events.push(event(name, key, n));
        }
    }
    events.push(event(Some("load"), Some("c"), 100));
    let found = read_late(&sse, events).await;
    let pair = |name: &str, data: &str| (name.to_owned(), data.to_owned());
    let expected = [
        pair("load", "99"),
        pair("disk", "99"),
        pair("disk", "99"),
        pair("message", "99"),
        pair("load", "100"),
    ];
    assert_eq!(found, expected);

    // More keys than the buffer holds: the oldest are dropped, and counted.
    let keys = (1..=100u32).map(|n| Event::text(n.to_string()).with_key(n)).collect();
    let found = read_late(&sse, keys).await;
    assert_eq!(found[0], pair("hero.gap", "{\"missed\":84}"));
    let rest: Vec<_> = found[1..].iter().map(|(_, data)| data.parse::<u32>()).collect();
    assert_eq!(rest, (85..=100).map(Ok).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_up_misses_nothing_however_small_the_buffer() {
    for overflow in ALL {
        let sse = sse_with(SseOptions::default().buffer(1).overflow(overflow));
        let app = public(&sse, || torrent(1000).map(|event| event.with_key("k")));
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        let events = stream.read_to_end().await.expect("a clean end");
        let (close, events) = events.split_last().expect("a closing event");
        let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
        let all: Vec<_> = (1..=1000).map(|n: u64| Some(n.to_string())).collect();
        if overflow == Overflow::Latest {
            assert_eq!(ids.last(), all.last());
        } else {
            assert_eq!(ids, all, "{overflow:?}");
        }
        assert_eq!(reason(close), "ended", "{overflow:?}");
    }
}

#[test]
fn a_buffered_stream_that_is_always_ready_lets_others_run_on_its_thread() {
    let (done, finished) = std::sync::mpsc::channel();
    // On a thread, since a starved runtime would not even notice a timeout.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let sse = sse_with(options("Buffer = 4\nOverflow = \"drop_oldest\""));
            let busy: Router = sse
                .endpoint("/busy")
                .public()
                .handler(async || stream::repeat_with(|| Event::text("x")))
                .expect("a route");
            let app = public(&sse, || {
                let ticks = tokio::time::interval(Duration::from_millis(10));
                stream::unfold(ticks, async |mut ticks| {
                    ticks.tick().await;
                    Some((Event::text("tick"), ticks))
                })
            });
            let server = Server::start(&sse, app.merge(busy)).await;
            let stalled = SlowReader::connect(server.address, "/busy", &[]).await;
            let mut healthy = testing::connect(server.address, "/s").await.expect("a stream");
            let (start, mut longest) = (Instant::now(), Duration::ZERO);
            for _ in 0..100 {
                let before = Instant::now();
                assert_eq!(next(&mut healthy).await.data, "tick");
                longest = longest.max(before.elapsed());
            }
            drop(stalled);
            let _ = done.send((start.elapsed(), longest));
        });
    });
    let (took, longest) = finished.recv_timeout(Duration::from_secs(10)).expect("starved");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn every_end_follows_the_waiting_events_with_its_reason_and_its_log_line() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(options("Buffer = 4"));
    let alive = Alive::default();
    let watch = alive.clone();
    let app: Router = sse
        .endpoint("/{end}")
        .public()
        .handler(async move |axum::extract::Path(end): axum::extract::Path<String>| {
            watch.watch(stream::iter(0..5).map(move |n| match (n, end.as_str()) {
                (0 | 1, _) => Ok(Event::text(n.to_string())),
                (_, "panic") => panic!("the application's stream panics on purpose"),
                (_, "error") => Err("a secret reason"),
                _ => Ok(Event::text("last").last()),
            }))
        })
        .expect("a route");
    for (end, expected, count) in [
        ("panic", CloseReason::StreamPanic, 2),
        ("error", CloseReason::StreamError, 2),
        ("last", CloseReason::LastEvent, 3),
    ] {
        let mut stream = testing::open(&app, &format!("/{end}")).await.expect("a stream");
        settle().await;
        assert_eq!((alive.count(), sse.connections().len()), (0, 1), "{end}");
        let events = stream.read_to_end().await.expect("a clean end");
        assert_eq!(data(&events[..2]), ["0", "1"], "{end}");
        assert_eq!((events.len(), reason(&events[count])), (count + 1, expected.to_string()));
        assert!(!stream.raw().contains("secret"), "{}", stream.raw());
        assert_eq!((sse.connections().len(), sse.connections().closed(expected)), (0, 1));
    }
    let text = log.text();
    assert_eq!(text.matches("user code panicked").count(), 1, "{text}");
    assert_eq!(text.matches("the application's stream failed").count(), 1, "{text}");
    assert!(text.contains("what=\"stream\"") && text.contains("error=a secret reason"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_client_receives_the_end_at_once() {
    for overflow in ALL {
        let sse = sse_with(SseOptions::default().overflow(overflow));
        let app = public(&sse, || {
            let wait = stream::once(tokio::time::sleep(Duration::from_secs(1)));
            stream::iter([Event::text("x")]).chain(wait.filter_map(async |()| None))
        });
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        let events = stream.read_to_end().await.expect("an end in time");
        assert_eq!((events.len(), reason(&events[1]).as_str()), (2, "ended"), "{overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_the_task_is_bounded_in_bytes() {
    let sse = sse_with(options("Buffer = 1000"));
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let app = public(&sse, move || {
        let count = count.clone();
        stream::repeat_with(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Event::text("x".repeat(20_000))
        })
    });
    let _stream = testing::open(&app, "/s").await.expect("a stream");
    tokio::task::yield_now().await;
    let made = made.load(Ordering::SeqCst);
    assert!((1..10).contains(&made), "{made} events in a turn");
}

/// Counts its drop, then panics.
struct Explosive(Arc<AtomicUsize>);

impl Drop for Explosive {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert!(std::thread::panicking(), "the stream's drop panics on purpose");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drop_that_panics_is_caught_and_happens_once() {
    for overflow in ALL {
        for ends in [true, false] {
            let (log, _guard) = Log::everything();
            let sse = sse_with(SseOptions::default().overflow(overflow));
            let drops = Arc::new(AtomicUsize::new(0));
            let count = drops.clone();
            let app = public(&sse, move || {
                let explosive = Explosive(count.clone());
                let tail = if ends { stream::empty().boxed() } else { stream::pending().boxed() };
                stream::iter([Event::text("x")]).chain(tail).inspect(move |_| {
                    let _held = &explosive;
                })
            });
            let mut stream = testing::open(&app, "/s").await.expect("a stream");
            assert_eq!(next(&mut stream).await.data, "x");
            settle().await;
            drop(stream);
            let counts = (drops.load(Ordering::SeqCst), sse.connections().len());
            assert_eq!(counts, (1, 0), "{overflow:?} {ends}");
            settle().await;
            assert_eq!(drops.load(Ordering::SeqCst), 1, "{overflow:?} {ends}");
            let said = log.text().matches("what=\"stream's drop\"").count();
            assert_eq!(said, 1, "{overflow:?} {ends}: {}", log.text());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_body_drops_the_stream_on_the_spot() {
    for overflow in ALL {
        let sse = sse_with(SseOptions::default().overflow(overflow));
        let (app, alive) = watched(&sse, || burst(3));
        let unread = testing::open(&app, "/s").await.expect("a stream");
        let mut read = testing::open(&app, "/s").await.expect("a stream");
        next(&mut read).await;
        assert_eq!((alive.count(), sse.connections().len()), (2, 2), "{overflow:?}");
        drop(unread);
        assert_eq!((alive.count(), sse.connections().len()), (1, 1), "{overflow:?}");
        drop(read);
        assert_eq!((alive.count(), sse.connections().len()), (0, 0), "{overflow:?}");
        // No task remains either.
        settle().await;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks, 0, "{overflow:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_disconnect_leave_nothing_behind() {
    for overflow in ALL {
        // Dropped while idle, and while always busy, when the task may run on the other thread.
        for busy in [false, true] {
            let sse = sse_with(SseOptions::default().overflow(overflow).buffer(4));
            let (app, alive) = watched(&sse, move || {
                let tail = stream::repeat_with(|| numbered(1));
                if busy { tail.boxed() } else { flood().boxed() }
            });
            let server = Server::start(&sse, app).await;
            for _ in 0..20 {
                let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
                next(&mut stream).await;
            }
            let connections = sse.connections();
            eventually("all are gone", || alive.count() == 0 && connections.is_empty()).await;
            server.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_is_reset_in_time_while_its_stream_continues() {
    let sse = sse_with(options("WriteTimeout = \"1s\"\nOverflow = \"drop_oldest\"\nBuffer = 4"));
    let (app, alive) = watched(&sse, flood);
    let server = Server::start(&sse, app).await;
    let stalled = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    let reset = stalled.reset_within(Duration::from_secs(4)).await.expect("a reset");
    assert!((0.9..=2.1).contains(&reset.as_secs_f64()), "{reset:?}");
    let connections = sse.connections();
    eventually("dropped", || alive.count() == 0 && connections.is_empty()).await;
    assert_eq!(connections.closed(CloseReason::WriteTimeout), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_buffered_streams_too() {
    let sse = sse_with(options("Overflow = \"latest\""));
    let (app, alive) = watched(&sse, || stream::repeat_with(|| numbered(1)));
    let server = Server::start(&sse, app).await;
    let mut stream = testing::connect(server.address, "/s").await.expect("a stream");
    next(&mut stream).await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(reason(events.last().expect("a closing event")), "draining");
    assert_eq!(sse.connections().len(), 0);
    // A stream that is being polled is dropped when that poll returns.
    eventually("dropped", || alive.count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_maximum_age_ends_a_stream_with_waiting_events() {
    let sse = sse_with(options("Overflow = \"drop_oldest\"\nMaxAge = \"20s\""));
    let (app, alive) = watched(&sse, flood);
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    next(&mut stream).await;
    tokio::time::sleep(Duration::from_secs(21)).await;
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(reason(events.last().expect("a closing event")), "max_age");
    assert_eq!((alive.count(), sse.connections().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_event_is_accepted_by_a_full_buffer() {
    for overflow in ALL {
        let sse = sse_with(SseOptions::default().overflow(overflow).buffer(3));
        let app = public(&sse, || {
            let event = |n: u32| Event::text(n.to_string()).with_key(n);
            stream::iter((1..=3).map(event)).chain(stream::iter([Event::text("last").last()]))
        });
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        settle().await;
        let events = stream.read_to_end().await.expect("a clean end");
        assert_eq!(data(&events[..4]), ["1", "2", "3", "last"], "{overflow:?}");
        assert_eq!((events.len(), reason(&events[4]).as_str()), (5, "last_event"));
    }
}

fn heavy(n: u64, size: usize) -> Event {
    Event::text(format!("{n} {}", "x".repeat(size))).with_key(n % 3)
}

fn number(event: &Received) -> u64 {
    event.data.split_once(' ').expect("a number").0.parse().expect("a number")
}

/// A client that keeps up receives events of any length. A slow one costs a megabyte and one event.
#[tokio::test(start_paused = true)]
async fn a_buffer_is_bounded_in_bytes_too() {
    const MIB: usize = 1 << 20;
    // Of twelve events these are kept.
    for (overflow, size, kept) in [
        (Overflow::Disconnect, MIB / 4, 0..4),
        (Overflow::Disconnect, MIB / 4 + MIB / 16, 0..4),
        (Overflow::Disconnect, 3 * MIB, 0..1),
        (Overflow::DropOldest, MIB / 4, 8..12),
        (Overflow::DropOldest, 3 * MIB, 11..12),
        // The newest of each of the three keys, or of two keys if there is no room for more.
        (Overflow::Latest, MIB / 4, 9..12),
        (Overflow::Latest, MIB * 3 / 5, 10..12),
    ] {
        let sse = sse_with(SseOptions::default().overflow(overflow));
        let app = public(&sse, move || {
            stream::iter((0..12).map(move |n| heavy(n, size))).chain(stream::pending())
        });
        let mut late = testing::open(&app, "/s").await.expect("a stream");
        settle().await;
        let mut first = next(&mut late).await;
        if first.event == "hero.gap" {
            assert_eq!(missed(&first), kept.start);
            first = next(&mut late).await;
        } else {
            assert!(kept.start == 0 || (overflow == Overflow::Latest && size == MIB / 4));
        }
        let mut found = vec![number(&first)];
        for _ in 1..kept.end - kept.start {
            found.push(number(&next(&mut late).await));
        }
        assert_eq!(found, kept.clone().collect::<Vec<_>>(), "{overflow:?} {size}");
        if overflow == Overflow::Disconnect {
            assert_eq!(reason(&next(&mut late).await), "overflow");
        }
        drop(late);

        let sse = sse_with(SseOptions::default().overflow(overflow));
        let app = public(&sse, move || stream::iter((0..12).map(move |n| heavy(n, size))));
        let mut brisk = testing::open(&app, "/s").await.expect("a stream");
        if overflow != Overflow::Latest {
            for n in 0..12 {
                assert_eq!(number(&next(&mut brisk).await), n, "{overflow:?} {size}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_options_table_takes_precedence_over_the_declaration() {
    let sse = sse_with(options(
        "Buffer = 9\n[SseOptions.Endpoints.\"/b\"]\nBuffer = 2\nOverflow = \"drop_oldest\"",
    ));
    let route = |path: &str| {
        let endpoint = sse.endpoint(path).public().buffer(4).overflow(Overflow::Disconnect);
        endpoint.handler(async || burst(10)).expect("a route")
    };
    let app = Router::new().merge(route("/a")).merge(route("/b"));
    let mut declared = testing::open(&app, "/a").await.expect("a stream");
    let mut operated = testing::open(&app, "/b").await.expect("a stream");
    settle().await;
    let events = declared.read_to_end().await.expect("a clean end");
    assert_eq!(data(&events[..4]), ["1", "2", "3", "4"]);
    assert_eq!((events.len(), reason(&events[4]).as_str()), (5, "overflow"));
    assert_eq!(missed(&next(&mut operated).await), 8);
    assert_eq!(next(&mut operated).await.data, "9");
}
