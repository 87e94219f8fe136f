//! What is on the wire of a plain stream, over real sockets.

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::prelude::*;
use hero_sse::{CloseReason, HeroSse};

use super::{Answer, End, guarded, post, post_http2, sse, unguarded};
use crate::support::{Server, eventually};

#[sse_endpoint("/answer", method = "post", public)]
async fn answer() -> impl Stream<Item = Event> {
    stream::iter([Event::text("{\"n\":1}"), Event::text("[DONE]").last()])
}

#[sse_endpoint("/ended", method = "post", public)]
async fn ended() -> impl Stream<Item = Event> {
    stream::iter([Event::text("1"), Event::text("2")])
}

#[sse_endpoint("/fails", method = "post", public)]
async fn fails() -> impl Stream<Item = Result<Event, &'static str>> {
    stream::iter([Ok(Event::text("1")), Ok(Event::text("2")), Err("the model is gone")])
}

#[sse_endpoint("/fails-later", method = "post", public)]
async fn fails_later() -> impl Stream<Item = Result<Event, &'static str>> {
    let fail = stream::once(async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Err("the model is gone")
    });
    stream::iter([Ok(Event::text("1")), Ok(Event::text("2"))]).chain(fail)
}

#[sse_endpoint("/panics", method = "post", public)]
async fn panics() -> impl Stream<Item = Event> {
    stream::iter(1..).map(|n| if n < 3 { Event::text(n.to_string()) } else { panic!("a bug") })
}

/// Longer than the windows of HTTP/2 and the buffers of hyper.
#[sse_endpoint("/long-fails", method = "post", public)]
async fn long_fails() -> impl Stream<Item = Result<Event, &'static str>> {
    stream::iter([Ok(Event::text("x".repeat(1 << 20))), Ok(Event::text("end")), Err("gone")])
}

fn app(sse: &HeroSse) -> Router {
    sse.routes(endpoints![answer, ended, fails, fails_later, panics, long_fails]).expect("routes")
}

/// A way to serve, and a protocol.
#[derive(Clone, Copy, Debug)]
enum Way {
    Serve,
    Guard,
    Axum,
}

/// Asks the same of each server, over HTTP/1.1 and HTTP/2. Returns the servers of both.
async fn each_way(path: &str, reason: CloseReason, check: impl Fn(&Answer)) {
    for way in [Way::Serve, Way::Guard, Way::Axum] {
        let sse = sse("");
        let app = app(&sse);
        let (address, _server) = match way {
            Way::Serve => {
                let server = Server::start(&sse, app).await;
                (server.address, Some(server))
            }
            Way::Guard => (guarded(&sse, app).await, None),
            Way::Axum => (unguarded(app).await, None),
        };
        for answer in [post(address, path).await, post_http2(address, path).await] {
            println!("{way:?}: {} {:?}", answer.body.len(), answer.end);
            check(&answer);
        }
        eventually("counted", || sse.connections().closed(reason) == 2).await;
        assert!(sse.connections().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_the_applications_own_events_alone() {
    each_way("/answer", CloseReason::LastEvent, |Answer { head, body, end }| {
        assert!(head.contains("200"), "{head}");
        assert_eq!((body.as_str(), end), ("data: {\"n\":1}\n\ndata: [DONE]\n\n", &End::Clean));
    })
    .await;
    each_way("/ended", CloseReason::Ended, |Answer { body, end, .. }| {
        assert_eq!((body.as_str(), end), ("data: 1\n\ndata: 2\n\n", &End::Clean));
    })
    .await;
}

/// What was sent before arrives, then the client sees that the answer is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_in_the_stream_breaks_the_body() {
    for (path, reason) in [
        ("/fails", CloseReason::StreamError),
        ("/fails-later", CloseReason::StreamError),
        ("/panics", CloseReason::StreamPanic),
    ] {
        each_way(path, reason, |answer| {
            let sent = answer.body.trim_end_matches(":\n");
            assert_eq!(sent, "data: 1\n\ndata: 2\n\n", "{path}");
            assert_ne!(answer.end, End::Clean, "{path}");
        })
        .await;
    }
    each_way("/long-fails", CloseReason::StreamError, |answer| {
        let len = answer.body.len();
        assert!(answer.body.trim_end_matches(":\n").ends_with("\n\ndata: end\n\n"), "{len}");
        assert_ne!(answer.end, End::Clean);
    })
    .await;
}
