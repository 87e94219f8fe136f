//! The router under a server without `sse.serve` and `sse.guard`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use futures_util::{StreamExt, stream};
use hero_sse::{CloseReason, Event};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::support::testing::{self, SlowReader};
use crate::support::{options, public, sse_with, watched};

fn flood() -> impl stream::Stream<Item = Event> + Send + 'static {
    stream::repeat_with(|| Event::text("x".repeat(8 * 1024)))
}

/// A server keeps the body of a stalled client without polling it.
#[tokio::test(start_paused = true)]
async fn a_body_that_the_server_does_not_poll_is_revoked() {
    let sse = sse_with(options("WriteTimeout = \"2s\""));
    let (app, alive) = watched(&sse, flood);
    let request = || Request::get("/s").body(Body::empty()).expect("a request");
    let mut kept = app.clone().oneshot(request()).await.expect("an answer").into_body();
    let mut read = app.oneshot(request()).await.expect("an answer").into_body();
    // Only after the first piece: a body that was never polled has no client yet.
    sleep(Duration::from_secs(60)).await;
    assert_eq!((alive.count(), sse.connections().len()), (2, 2));
    assert!(kept.frame().await.is_some());
    let start = Instant::now();
    while alive.count() == 2 {
        assert!(read.frame().await.expect("a frame").is_ok());
        sleep(Duration::from_millis(100)).await;
        assert!(start.elapsed() < Duration::from_secs(3), "never taken back");
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(
        (sse.connections().len(), sse.connections().closed(CloseReason::WriteTimeout)),
        (1, 1)
    );
    assert!(kept.frame().await.expect("a break").is_err(), "to the server it breaks off");
    assert!(read.frame().await.expect("a frame").is_ok());
}

/// Bytes that are kept, for instance by a test that collects a body, count as taken.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_collected_is_not_a_stall() {
    let sse = sse_with(options("WriteTimeout = \"2s\""));
    let app = public(&sse, || {
        stream::iter(0..10).then(|n| async move {
            sleep(Duration::from_secs(1)).await;
            Event::text(format!("number {n}"))
        })
    });
    let request = Request::get("/s").body(Body::empty()).expect("a request");
    let answer = app.oneshot(request).await.expect("an answer");
    let text = answer.into_body().collect().await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("number 9"), "{text:?}");
    assert_eq!(sse.connections().closed(CloseReason::WriteTimeout), 0);
}

#[tokio::test]
async fn under_axums_own_server_a_stalled_client_loses_its_stream_and_slot() {
    let sse = sse_with(options("WriteTimeout = \"500ms\""));
    let (app, alive) = watched(&sse, flood);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let start = Instant::now();
    let mut stalled = SlowReader::connect(address, "/s", &[]).await.expect("a connection");
    let mut healthy = testing::connect(address, "/s").await.expect("a stream");
    while sse.connections().closed(CloseReason::WriteTimeout) == 0 {
        healthy.next().await.expect("in time").expect("an event");
        assert!(start.elapsed() < Duration::from_secs(10), "never dropped");
    }
    println!("dropped after {:?}", start.elapsed());
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!((alive.count(), sse.connections().len()), (1, 1));
    healthy.next().await.expect("in time").expect("an event");
    // If the client reads again it finds that the body is cut, after which a browser reconnects.
    let mut rest = Vec::new();
    loop {
        match stalled.read(64 * 1024).await {
            Ok(more) if !more.is_empty() => rest.extend_from_slice(&more),
            _ => break,
        }
    }
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "a clean end");
    server.abort();
}
