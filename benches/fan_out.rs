//! What it costs to bring one event to each of a thousand subscribers, from publishing to the bytes of each body:
//! a topic against axum's own `Sse` over a `tokio::sync::broadcast`, in one run, as a ratio.
//!
//! Without sockets: the kernel's part is the same for all, and larger than all of this. Lock-step, where each
//! event is read by all before the next one comes, and bursts of sixteen. Slices alternate in random order and are
//! compared pair by pair; the topic against itself shows what the method can tell apart.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::response::sse::{Event as AxumEvent, KeepAlive, Sse};
use axum::{Router, routing::get};
use futures_util::{FutureExt, stream};
use hero_sse::prelude::*;
use hero_sse_benches::{Usage, quartiles, shuffled};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, watch};
use tower::ServiceExt;

const SUBSCRIBERS: usize = 1000;
const PAIRS: usize = 40;
const WARM_UP: usize = 4;

fn peer(
    sender: &broadcast::Sender<Usage>,
) -> Sse<impl Stream<Item = Result<AxumEvent, axum::Error>> + use<>> {
    let events = stream::unfold(sender.subscribe(), |mut receiver| async move {
        let usage = receiver.recv().await.ok()?;
        let event = AxumEvent::default().event("usage").id(usage.seq.to_string());
        Some((event.json_data(&usage), receiver))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// A thousand bodies at one path, each read by a task.
struct Audience {
    runtime: Runtime,
    read: Arc<AtomicUsize>,
    over: watch::Receiver<usize>,
    publish: Box<dyn Fn(u64)>,
    seq: u64,
    expected: usize,
}

impl Audience {
    fn new(app: Router, path: &'static str, publish: Box<dyn Fn(u64)>, runtime: Runtime) -> Self {
        let read = Arc::new(AtomicUsize::new(0));
        let (tell, over) = watch::channel(0);
        let tell = Arc::new(tell);
        runtime.block_on(async {
            for _ in 0..SUBSCRIBERS {
                let request = Request::get(path).body(Body::empty()).unwrap_or_default();
                let Ok(response): Result<Response, Infallible> = app.clone().oneshot(request).await;
                let (read, tell) = (read.clone(), tell.clone());
                tokio::spawn(async move {
                    let mut body = response.into_body();
                    while let Some(Ok(frame)) = body.frame().await {
                        let data = frame.into_data().unwrap_or_default();
                        // Each event is one line of JSON, and there is no other.
                        let events = data.windows(7).filter(|bytes| bytes == b"{\"seq\":").count();
                        let all = read.fetch_add(events, Ordering::Relaxed) + events;
                        if all % SUBSCRIBERS == 0 {
                            tell.send_replace(all);
                        }
                    }
                });
            }
        });
        Self { runtime, read, over, publish, seq: 0, expected: 0 }
    }

    /// Nanoseconds a delivery, over some rounds of so many events at once.
    fn slice(&mut self, window: u64) -> f64 {
        const ROUNDS: usize = 4;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            self.expected += SUBSCRIBERS * window as usize;
            self.runtime.block_on(async {
                for _ in 0..window {
                    self.seq += 1;
                    (self.publish)(self.seq);
                }
                while self.read.load(Ordering::Relaxed) < self.expected {
                    if self.over.changed().await.is_err() {
                        break;
                    }
                }
            });
        }
        start.elapsed().as_nanos() as f64 / (ROUNDS * SUBSCRIBERS) as f64 / window as f64
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn hero() -> Result<Audience, Box<dyn std::error::Error>> {
    let options = hero_sse::SseOptions::default().heartbeat_interval(Duration::from_secs(15));
    let sse = HeroSse::builder().options(options).build()?;
    let topic = Topic::new("usage");
    let ours = topic.clone();
    let app = sse.endpoint("/usage").public().handler(async move || ours.subscribe())?;
    let publish = move |seq| {
        let published = topic.publish(Usage::new(seq)).now_or_never();
        assert!(published.is_some_and(|published| published.is_ok()), "not published");
    };
    Ok(Audience::new(app, "/usage", Box::new(publish), runtime()?))
}

fn axum_and_broadcast() -> Result<Audience, Box<dyn std::error::Error>> {
    let (sender, _) = broadcast::channel(64);
    let ours = sender.clone();
    let app = Router::new().route("/usage", get(async move || peer(&ours)));
    let publish = move |seq| assert!(sender.send(Usage::new(seq)).is_ok(), "not sent");
    Ok(Audience::new(app, "/usage", Box::new(publish), runtime()?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut audiences = [hero()?, axum_and_broadcast()?, hero()?];
    println!(
        "one topic, {SUBSCRIBERS} subscribers, {PAIRS} pairs: time a delivery, median (quartiles)"
    );
    for window in [1, 16] {
        let (mut against_axum, mut against_itself, mut absolute) = (vec![], vec![], vec![]);
        for pair in 0..PAIRS + WARM_UP {
            let mut costs = [0.0; 3];
            for place in shuffled() {
                costs[place] = audiences[place].slice(window);
            }
            if pair >= WARM_UP {
                against_axum.push(costs[0] / costs[1]);
                against_itself.push(costs[0] / costs[2]);
                absolute.push(costs[0]);
            }
        }
        println!("{window} at once");
        for (name, ratios) in [
            ("hero-sse / axum 0.8 Sse, broadcast", against_axum),
            ("hero-sse / hero-sse", against_itself),
        ] {
            let (low, median, high) = quartiles(ratios);
            println!("  {name:<36} {median:.2} ({low:.2} to {high:.2})");
        }
        let (_, nanos, _) = quartiles(absolute);
        println!("  (hero-sse took {nanos:.0} ns a delivery here; only the ratios mean anything)");
    }
    Ok(())
}
