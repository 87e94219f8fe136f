//! Thousands of connections break, over real sockets, while events are published. Every client ends with the exact
//! sequence.
//!
//! It prints a line `figure {..}`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hero_sse::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::testing;
use crate::support::{Server, options, sse_with};

const CLIENTS: usize = 60;
const EVENTS: u64 = 2_500;
/// Minimum number of connections that the clients break together.
const BREAKS: usize = 3_000;

#[derive(SseEvent)]
enum Story {
    Line {
        n: u64,
        text: String,
    },
    #[sse(last)]
    Over {
        n: u64,
    },
}

/// Publishes in bursts with pauses, events of a few bytes and of some thousands.
async fn tell(story: Topic<Story>) {
    let mut n = 0;
    while n < EVENTS {
        let burst = fastrand::u64(1..=12).min(EVENTS - n);
        let lines = (n..n + burst).map(|n| {
            let size = if fastrand::u8(..) < 8 { 6_000 } else { fastrand::usize(..200) };
            Story::Line { n, text: "x".repeat(size) }
        });
        story.publish_all(lines).await.expect("published");
        n += burst;
        sleep(Duration::from_millis(fastrand::u64(0..=25))).await;
    }
    story.publish(Story::Over { n }).await.expect("published");
}

/// Reads some events of a connection, breaks it, and reconnects with its cursor, until the topic has ended.
async fn listen(address: std::net::SocketAddr, breaks: Arc<AtomicUsize>) -> Vec<u64> {
    let (mut numbers, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut request = testing::connect(address, "/story");
        if let Some(id) = &cursor {
            request = request.last_event_id(id);
        }
        let mut stream = request.await.expect("a stream").timeout(Duration::from_secs(30));
        for _ in 0..fastrand::usize(0..70) {
            // Sometimes between frames, sometimes within one.
            let hurry = Duration::from_millis(if fastrand::bool() { 30_000 } else { 40 });
            let Ok(event) = timeout(hurry, stream.next()).await else { break };
            let event = event.expect("an event").expect("the story is not over");
            cursor = event.id.clone().or(cursor);
            match event.event.as_str() {
                "hero.cursor" => continue,
                "line" | "over" => {}
                other => panic!("{other}: {}", event.data),
            }
            let data: serde_json::Value = event.json().expect("JSON");
            numbers.push(data["n"].as_u64().expect("a number"));
            if event.event == "over" {
                return numbers;
            }
        }
        breaks.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_its_connection_again_and_again_gets_every_event_once() {
    let sse = sse_with(options("WriteTimeout = \"30s\"\nRetry = \"500ms\""));
    let story =
        Topic::builder("story").retain_events(EVENTS as usize + 1).retain_bytes(64 << 20).build();
    let ours = story.clone();
    let endpoint = sse.endpoint("/story").public();
    let app = endpoint.handler(async move || ours.subscribe().from_start()).expect("a route");
    let server = Server::start(&sse, app).await;

    let (start, breaks) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(listen(server.address, breaks.clone()));
    }
    tell(story.clone()).await;
    let wanted: Vec<_> = (0..=EVENTS).collect();
    while let Some(numbers) = clients.join_next().await {
        let numbers = numbers.expect("no panic");
        let wrong = numbers.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
        assert_eq!((wrong, numbers.len()), (None, wanted.len()));
    }
    let breaks = breaks.load(Ordering::Relaxed);
    println!(
        "figure {{\"case\":\"connections that break\",\"clients\":{CLIENTS},\"events\":{EVENTS},\
         \"breaks\":{breaks},\"seconds\":{:.1}}}",
        start.elapsed().as_secs_f64()
    );
    assert!(breaks >= BREAKS, "only {breaks} connections broke");
    assert_eq!(sse.connections().gaps(), 0);
    server.stop().await;
    assert_eq!((story.subscribers(), sse.connections().len()), (0, 0));
}
