//! What one event of a private stream costs, from the application's item to the bytes of the body:
//! hero-sse against axum's own `Sse`, in one run, as a ratio.
//!
//! Both send the same thousand JSON events, all ready, with a heartbeat configured. Slices alternate
//! in random order and are compared pair by pair, so that a machine whose speed drifts does not
//! matter; hero-sse against itself shows what the method can tell apart.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::response::sse::{Event as AxumEvent, KeepAlive, Sse};
use axum::{Router, routing::get};
use futures_util::{StreamExt, stream};
use hero_sse::prelude::*;
use hero_sse_benches::{Usage, quartiles, shuffled};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

const EVENTS: u64 = 1000;
const PAIRS: usize = 60;
const WARM_UP: usize = 5;

fn items() -> impl Stream<Item = Usage> + Send + 'static {
    stream::iter((0..EVENTS).map(Usage::new))
}

#[sse_endpoint("/hero", event = "usage", public)]
async fn hero() -> impl Stream<Item = Usage> {
    items()
}

async fn peer() -> Sse<impl Stream<Item = Result<AxumEvent, axum::Error>>> {
    let events = items().map(|usage| {
        AxumEvent::default().event("usage").id(usage.seq.to_string()).json_data(&usage)
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Nanoseconds an event, over ten streams.
fn slice(runtime: &Runtime, app: &Router, path: &str) -> f64 {
    const STREAMS: u32 = 10;
    let start = Instant::now();
    for _ in 0..STREAMS {
        runtime.block_on(async {
            let request = Request::get(path).body(Body::empty()).unwrap_or_default();
            let Ok(response): Result<Response, Infallible> = app.clone().oneshot(request).await;
            let mut body = response.into_body();
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, |data| data.len());
            }
            assert!(bytes > 100_000, "{path} sent only {bytes} bytes");
        });
    }
    start.elapsed().as_nanos() as f64 / f64::from(STREAMS) / EVENTS as f64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let options = hero_sse::SseOptions::default().heartbeat_interval(Duration::from_secs(15));
    let sse = HeroSse::builder().options(options).build()?;
    let app = Router::new().merge(sse.routes(endpoints![hero])?).route("/axum", get(peer));

    let (mut against_axum, mut against_itself, mut absolute) = (vec![], vec![], vec![]);
    for pair in 0..PAIRS + WARM_UP {
        let mut costs = [0.0; 3];
        for place in shuffled() {
            costs[place] = slice(&runtime, &app, ["/hero", "/axum", "/hero"][place]);
        }
        if pair >= WARM_UP {
            against_axum.push(costs[0] / costs[1]);
            against_itself.push(costs[0] / costs[2]);
            absolute.push(costs[0]);
        }
    }
    println!(
        "private stream, {EVENTS} ready events, {PAIRS} pairs: time an event, median (quartiles)"
    );
    for (name, ratios) in
        [("hero-sse / axum 0.8 Sse", against_axum), ("hero-sse / hero-sse", against_itself)]
    {
        let (low, median, high) = quartiles(ratios);
        println!("{name:<26} {median:.2} ({low:.2} to {high:.2})");
    }
    let (_, nanos, _) = quartiles(absolute);
    println!("(hero-sse took {nanos:.0} ns an event here; only the ratios mean anything)");
    Ok(())
}
