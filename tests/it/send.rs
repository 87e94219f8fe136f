//! Sending one event to many open streams: who receives it, what is counted, and which streams accept none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::connections::{ConnectionFilter, SendSummary};
use hero_sse::event::{FrameWriter, InvalidEvent};
use hero_sse::{CloseReason, Event, HeroSse, Principal, SseContext, SseEvent, SseOptions};
use http::Method;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::http2::{self, Client};
use crate::support::testing::{self, EventReader, Received, SlowReader};
use crate::support::{Server, burst, eventually, flood, options, public, sse_with};

fn note(text: impl Into<String>) -> Event {
    Event::text(text).named("note").expect("a name")
}

fn send(sse: &HeroSse, filter: &ConnectionFilter, text: &str) -> (usize, usize) {
    let SendSummary { accepted, full, .. } =
        sse.connections().send(filter, note(text)).expect("a good event");
    (accepted, full)
}

fn all() -> ConnectionFilter {
    ConnectionFilter::all()
}

fn silence() -> impl Stream<Item = Event> + Send + 'static {
    stream::pending()
}

async fn next(stream: &mut EventReader) -> Received {
    stream.next().await.expect("in time").expect("an event")
}

async fn texts(stream: &mut EventReader, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(next(stream).await.data);
    }
    texts
}

#[tokio::test(start_paused = true)]
async fn it_reaches_exactly_the_streams_that_match_the_filter() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").public().handler(async || silence()).expect("a route");
    let of = |name: &str, tenant: &str| Principal::test(name).with_tenant(tenant);
    let open = |who: Principal| testing::open(&app, "/s").principal(who).into_future();
    let mut ann = open(of("ann", "t1")).await.expect("a stream");
    let mut bob = open(of("bob", "t1")).await.expect("a stream");
    let mut eve = open(of("eve", "t2")).await.expect("a stream");
    let mut anybody = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(send(&sse, &all().tenant("t1"), "tenant"), (2, 0));
    assert_eq!(send(&sse, &all().subject("eve"), "user"), (1, 0));
    assert_eq!(send(&sse, &all().subject("mallory"), "nobody"), (0, 0));
    assert_eq!(send(&sse, &all(), "everyone"), (4, 0));
    assert_eq!(texts(&mut ann, 2).await, ["tenant", "everyone"]);
    assert_eq!(texts(&mut bob, 2).await, ["tenant", "everyone"]);
    assert_eq!(texts(&mut eve, 2).await, ["user", "everyone"]);
    assert_eq!(texts(&mut anybody, 1).await, ["everyone"]);
    assert_eq!(send(&sse, &all(), "the end"), (4, 0));
    for stream in [&mut ann, &mut bob, &mut eve, &mut anybody] {
        assert_eq!(texts(stream, 1).await, ["the end"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_is_woken_at_once_buffered_or_not() {
    for toml in ["", "Buffer = 4", "Overflow = \"latest\""] {
        let sse = sse_with(options(toml));
        let app = public(&sse, silence);
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        let reader = tokio::spawn(async move { next(&mut stream).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        assert_eq!(send(&sse, &all(), "x"), (1, 0), "{toml}");
        assert_eq!(reader.await.expect("no panic").data, "x", "{toml}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{toml}");
    }
}

/// The id of a direct event is no position in the stream, and its end mark not the stream's end.
#[tokio::test(start_paused = true)]
async fn it_keeps_its_name_and_omits_its_id_and_end_mark() {
    let sse = sse_with(SseOptions::default());
    let app: Router =
        sse.endpoint("/s").public().event("own").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let own = next(&mut stream).await;
    assert_eq!((own.event.as_str(), own.data.as_str()), ("own", "1"));
    let last = || Event::text("x").with_id(7).expect("an id").last();
    for (event, name) in [(last(), "message"), (last().named("note").expect("a name"), "note")] {
        let sent = sse.connections().send(&all(), &event).expect("a good event");
        assert_eq!(sent.accepted, 1);
        let event = next(&mut stream).await;
        assert_eq!((event.event.as_str(), event.data.as_str(), event.id), (name, "x", None));
    }
    assert!(!stream.raw().contains("id:"), "{}", stream.raw());
    assert_eq!((send(&sse, &all(), "y"), next(&mut stream).await.data.as_str()), ((1, 0), "y"));
}

/// A comment or a reconnection time can be sent to every stream. Of an id alone nothing is left.
#[tokio::test(start_paused = true)]
async fn it_sends_events_without_data() {
    let sse = sse_with(SseOptions::default());
    let app: Router =
        sse.endpoint("/s").public().event("own").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(next(&mut stream).await.data, "1");
    let retry = Event::retry(Duration::from_secs(7)).expect("a time");
    for event in [Event::comment("c"), retry, Event::id_only(7).expect("an id")] {
        assert_eq!(sse.connections().send(&all(), event).expect("a good event").accepted, 1);
    }
    assert_eq!((send(&sse, &all(), "x"), next(&mut stream).await.data.as_str()), ((1, 0), "x"));
    assert!(stream.raw().ends_with("\n: c\nretry: 7000\n:\nevent: note\ndata: x\n\n"));
    assert_eq!((stream.retry(), stream.last_event_id()), (Some(Duration::from_secs(7)), None));
}

#[tokio::test]
async fn events_sent_while_the_function_runs_arrive_when_the_stream_opens() {
    let sse = sse_with(SseOptions::default());
    let (gate, opening) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, begun) = (gate.clone(), opening.clone());
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async move || {
            begun.notify_one();
            wait.notified().await;
            burst(1)
        })
        .expect("a route");
    let open = tokio::spawn(testing::open(&app, "/s").into_future());
    opening.notified().await;
    assert_eq!(send(&sse, &all(), "a"), (1, 0));
    assert_eq!(send(&sse, &all(), "b"), (1, 0));
    gate.notify_one();
    let mut stream = open.await.expect("no panic").expect("a stream");
    assert_eq!(texts(&mut stream, 3).await, ["a", "b", "1"]);
}

#[tokio::test]
async fn requests_without_a_stream_and_streams_that_are_closing_accept_nothing() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .handler(async || stream::once(async { Event::text("bye").last() }))
        .expect("a route");
    let open = || testing::open(&app, "/s").principal("ann");
    open().method(Method::HEAD).await.expect("a head");
    testing::open(&app, "/s").await.expect_err("401");
    open().last_event_id("hero.end").await.expect_err("204");
    assert_eq!(send(&sse, &all(), "x"), (0, 0));

    let mut stream = open().await.expect("a stream");
    assert_eq!(send(&sse, &all(), "first"), (1, 0));
    assert_eq!(texts(&mut stream, 2).await, ["first", "bye"]);
    assert_eq!((sse.connections().len(), send(&sse, &all(), "x")), (1, (0, 0)));
    let events = stream.read_to_end().await.expect("a clean end");
    assert_eq!(events.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(), ["hero.close"]);
}

#[tokio::test]
async fn a_stream_that_is_draining_accepts_nothing_and_drops_its_queued_events() {
    for disconnect in [false, true] {
        let sse = sse_with(SseOptions::default());
        let app = public(&sse, silence);
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        assert_eq!(send(&sse, &all(), "before"), (1, 0));
        let asked = match disconnect {
            true => sse.connections().disconnect(&all(), CloseReason::Revoked),
            false => sse.connections().drain(&all()),
        };
        assert_eq!((asked, send(&sse, &all(), "after")), (1, (0, 0)));
        let events = stream.read_to_end().await.expect("a clean end");
        let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
        assert_eq!(names, ["hero.close"], "disconnect: {disconnect}");
        drop(stream);
        assert_eq!(send(&sse, &all(), "late"), (0, 0));
    }
}

struct Bad {
    panics: bool,
}

impl SseEvent for Bad {
    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.text("half of it");
        assert!(!self.panics, "the event panics on purpose");
        frame.retry(Duration::ZERO)
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_to_encode_affects_the_caller_alone() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, silence);
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    sse.connections().send(&all(), Bad { panics: false }).expect_err("no such reconnection time");
    let panics = || sse.connections().send(&all(), Bad { panics: true });
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(send(&sse, &all(), "good"), (1, 0));
    assert_eq!(next(&mut stream).await.data, "good");
    assert!(!stream.raw().contains("half"), "{}", stream.raw());
}

/// Returns the data of the events of this name, in order.
fn read_off<'a>(text: &'a str, name: &'a str) -> Vec<&'a str> {
    let event = move |frame: &'a str| {
        let rest = frame.split_once(name)?.1;
        rest.split_once("data: ")?.1.split_whitespace().next()
    };
    text.split("\n\n").filter_map(event).collect()
}

/// Removes the sizes of HTTP chunks, which would stand within frames.
fn unchunked(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (_, mut rest) = text.split_once("\r\n\r\n").expect("a head");
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size").min(tail.len());
        let (chunk, tail) = tail.split_at(size);
        body.push_str(chunk);
        rest = tail.strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_clients_queue_fills_up_and_each_accepted_event_arrives_once_in_order() {
    for busy in [false, true] {
        let sse = sse_with(options("WriteTimeout = \"30s\""));
        let app = public(&sse, move || if busy { flood().boxed() } else { silence().boxed() });
        let server = Server::start(&sse, app).await;
        let mut slow = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
        let mut brisk = testing::connect(server.address, "/s").await.expect("a stream");
        eventually("connected", || sse.connections().len() == 2).await;
        if busy {
            // By then the slow client, which connected first, has been sent as many.
            texts(&mut brisk, 5).await;
        }
        let (mut accepted, mut full, mut sent) = (Vec::new(), 0, 0);
        let padding = "x".repeat(3000);
        // The brisk client keeps up: it misses nothing while the other's queue is full.
        while full < 20 {
            let text = format!("{sent} {padding}");
            let (to, left_out) = send(&sse, &all(), &text);
            assert_eq!((to + left_out, to > 0), (2, true));
            if left_out == 0 {
                accepted.push(sent.to_string());
            }
            full += left_out;
            sent += 1;
            assert!(sent < 20_000, "never full");
            loop {
                let event = next(&mut brisk).await;
                if event.event == "note" {
                    assert!(event.data.starts_with(&format!("{} ", sent - 1)), "{}", event.data);
                    break;
                }
            }
        }
        let until = format!("{} x", accepted.last().expect("some"));
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(&format!("note\ndata: {until}")) {
            text.extend_from_slice(&slow.read(256 * 1024).await.expect("a healthy socket"));
        }
        let body = unchunked(&text);
        assert_eq!(read_off(&body, "event: note\n"), accepted);
        if busy {
            // None of its own events is missing either.
            let own: Vec<_> = body
                .split("\n\n")
                .filter(|frame| !frame.contains("event: "))
                .filter_map(|frame| frame.split_once("data: ")?.1.split_once(' ')?.0.parse().ok())
                .collect::<Vec<u64>>();
            let all: Vec<_> = (0..own.len() as u64).collect();
            assert!(own == all && own.len() > 2, "{own:?}");
        }
        drop((slow, brisk));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_reaches_streams_over_http2_of_handlers_and_under_other_servers() {
    let sse = sse_with(SseOptions::default());
    let own = get(async |sse: SseContext| sse.public().stream(silence()).await);
    let app = public(&sse, silence).route("/handler", own);
    let foreign = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = foreign.local_addr().expect("an address");
    let other = app.clone().layer(axum::Extension(sse.clone()));
    let lent = tokio::spawn(async move { axum::serve(foreign, other).await });
    let server = Server::start(&sse, app).await;

    let mut client = Client::connect(server.address).await;
    let mut over_http2 = client.get("/s").await.into_body();
    let mut handler = testing::connect(server.address, "/handler").await.expect("a stream");
    let mut elsewhere = testing::connect(address, "/s").await.expect("a stream");
    assert_eq!(send(&sse, &all(), "x"), (3, 0));
    assert_eq!(next(&mut handler).await.data, "x");
    assert_eq!(next(&mut elsewhere).await.data, "x");
    http2::until(&mut over_http2, "event: note\ndata: x\n\n").await;
    // Longer than a window, so it leaves in pieces. What is sent meanwhile follows it.
    let long = "y".repeat(40_000);
    assert_eq!((send(&sse, &all(), &long), send(&sse, &all(), "z")), ((3, 0), (3, 0)));
    let text = http2::until(&mut over_http2, "event: note\ndata: z\n\n").await;
    assert!(text.contains(&format!("data: {long}\n\nevent: note\ndata: z\n\n")));
    drop((client, over_http2, handler, elsewhere));
    let connections = sse.connections();
    eventually("gone", || connections.is_empty()).await;
    lent.abort();
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_streams_get_one_event_and_share_it() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, silence);
    let mut streams = Vec::new();
    for _ in 0..10_000 {
        streams.push(testing::open(&app, "/s").await.expect("a stream"));
    }
    let start = std::time::Instant::now();
    assert_eq!(send(&sse, &all(), "x"), (10_000, 0));
    println!("10,000 streams: {:?}", start.elapsed());
    for stream in &mut streams {
        assert_eq!(next(stream).await.data, "x");
    }
}
