//! User code whose drop panics or blocks: it must not keep a stream alive or stop the server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use hero_sse::auth::{Access, AuthError, Authorizer, Decision};
use hero_sse::{CloseReason, SseOptions};
use http::StatusCode;
use tokio::sync::mpsc::unbounded_channel;
use tower::ServiceExt;

use crate::access::{read_close, sse_with_authorizer};
use crate::support::testing;
use crate::support::{Alive, burst, eventually, options, sse_with, token};

use super::revocation::{next_call, of};
use super::stalled::calm;

/// Panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a drop that panics on purpose");
    }
}

/// Grants at once, after a while or never. Its future panics when it is dropped, except at once.
struct PanicsLater(Arc<Mutex<Option<Duration>>>);

impl Authorizer for PanicsLater {
    fn authorize<'a>(&'a self, _: &'a Access<'a>) -> BoxFuture<'a, Result<Decision, AuthError>> {
        let wait = *self.0.lock().expect("no panic");
        let panics = (wait != Some(Duration::ZERO)).then(|| PanicsOnDrop);
        async move {
            let _panics = panics;
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
            Ok(Decision::granted())
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn an_authorizer_whose_drop_panics_neither_keeps_a_stream_open_nor_stops_the_server() {
    let wait = Arc::new(Mutex::new(None));
    let set_wait = |time| *wait.lock().expect("no panic") = time;
    let second = Duration::from_secs(1);
    let sse = sse_with_authorizer(
        options("ReauthorizeInterval = \"10s\"\nAuthorizerTimeout = \"3s\""),
        PanicsLater(wait.clone()),
    );
    let alive = Alive::default();
    let watch = alive.clone();
    let make = move || watch.watch(calm());
    let app: Router = sse.endpoint("/s").handler(async move || make()).expect("a route");
    let open = async || {
        let stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
        stream.timeout(Duration::from_secs(60))
    };
    // At the timeout, and at its end: no stream opens.
    for answer in [None, Some(second)] {
        set_wait(answer);
        assert_eq!(read_close(&mut open().await).await, ("unverified".to_owned(), true));
    }
    // While a recheck runs: at a disconnect, a drain, a drop; at the timeout; and at its end.
    for step in ["disconnect", "drain", "drop", "late", "end"] {
        set_wait(Some(Duration::ZERO));
        let mut stream = open().await;
        set_wait((step == "end").then_some(second));
        if matches!(step, "disconnect" | "drain" | "drop") {
            let reading = async { while let Ok(Some(_)) = stream.next().await {} };
            let read = tokio::time::timeout(21 * second / 2, reading).await;
            assert!(read.is_err(), "{step}: {}", stream.raw());
        }
        let expected = match step {
            "disconnect" => {
                sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
                ("revoked", false)
            }
            "drain" => {
                sse.connections().drain(&of("ann"));
                ("draining", true)
            }
            _ => ("unverified", true),
        };
        if step == "drop" {
            drop(stream);
        } else {
            let (reason, reconnect) = read_close(&mut stream).await;
            assert_eq!((reason.as_str(), reconnect), expected, "{step}");
        }
        assert_eq!((alive.count(), sse.connections().len()), (0, 0), "{step}");
    }
}

/// What the handler holds is user code as well.
#[tokio::test]
async fn a_request_whose_handler_panics_on_drop_is_refused_all_the_same() {
    let sse = sse_with(SseOptions::default());
    let (started, mut begun) = unbounded_channel();
    let endpoint = sse.endpoint("/s");
    let app: Router = endpoint
        .handler(async move || {
            let _panics = PanicsOnDrop;
            started.send(()).expect("a receiver");
            std::future::pending::<()>().await;
            burst(1)
        })
        .expect("a route");
    let opening = tokio::spawn(testing::open(&app, "/s").principal("ann").into_future());
    next_call(&mut begun).await;
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    let error = opening.await.expect("no panic").expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert!(sse.connections().is_empty());
}

/// Blocks its thread when it is dropped.
struct BlocksOnDrop;

impl Drop for BlocksOnDrop {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Under another server, which keeps bodies without polling them.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_stream_whose_drop_blocks_does_not_delay_the_revocation_of_others() {
    let sse = sse_with(options("MaxPerPrincipal = 100"));
    let endpoint = sse.endpoint("/s");
    let app: Router = endpoint
        .handler(async || {
            let blocks = Arc::new(BlocksOnDrop);
            burst(1).inspect(move |_| drop(blocks.clone()))
        })
        .expect("a route");
    let mut kept = Vec::new();
    for _ in 0..12 {
        let request = http::Request::get(format!("/s?access_token={}", token()));
        let request = request.body(axum::body::Body::empty()).expect("a request");
        kept.push(app.clone().oneshot(request).await.expect("an answer").into_body());
    }
    assert_eq!(sse.connections().len(), 12);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 12);
    while !sse.connections().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    eventually("all are counted", || sse.connections().closed(CloseReason::Revoked) == 12).await;
}
