//! How plain streams end, and native ones under `CleanEnd = false`, over real sockets.

use std::time::{Duration, Instant};

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::connections::ConnectionFilter;
use hero_sse::options::Profile;
use hero_sse::{CloseReason, Event, HeroSse};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Answer, End, ask, guarded, post, post_http2, request, sse};
use crate::support::testing::SlowReader;
use crate::support::{Server, eventually, flood};

/// Ten events in a second, then the end.
fn answer() -> impl Stream<Item = Event> + Send {
    stream::iter(1..=10).then(|n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if n == 10 { Event::text("[DONE]").last() } else { Event::text(n.to_string()) }
    })
}

fn endless() -> impl Stream<Item = Event> + Send {
    stream::iter([Event::text("half")]).chain(stream::pending())
}

fn app(sse: &HeroSse) -> Router {
    let answers = sse.endpoint("/answer").public().post_handler(async || answer());
    let endless = sse.endpoint("/endless").public().post_handler(async || self::endless());
    answers.expect("a route").merge(endless.expect("a route"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_answer_finishes_within_the_drain_timeout() {
    let sse = sse("DrainTimeout = \"5s\"");
    let server = Server::start(&sse, app(&sse)).await;
    let address = server.address;
    let one = tokio::spawn(async move { post(address, "/answer").await });
    let two = tokio::spawn(async move { post_http2(address, "/answer").await });
    eventually("both run", || sse.connections().len() == 2).await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    for answer in [one.await.expect("no panic"), two.await.expect("no panic")] {
        assert!(answer.body.ends_with("data: 9\n\ndata: [DONE]\n\n"), "{}", answer.body);
        assert_eq!(answer.end, End::Clean);
    }
    assert_eq!(sse.connections().closed(CloseReason::LastEvent), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drain_does_not_wait_for_is_cut_visibly() {
    let sse = sse("DrainTimeout = \"500ms\"");
    let server = Server::start(&sse, app(&sse)).await;
    let address = server.address;
    let one = tokio::spawn(async move { post(address, "/endless").await });
    let two = tokio::spawn(async move { post_http2(address, "/endless").await });
    eventually("both run", || sse.connections().len() == 2).await;
    let took = server.stop().await;
    assert!((0.4..2.5).contains(&took.as_secs_f64()), "{took:?}");
    for answer in [one.await.expect("no panic"), two.await.expect("no panic")] {
        assert_ne!(answer.end, End::Clean, "{answer:?}");
        assert!(answer.body.starts_with("data: half\n\n"), "{answer:?}");
    }
    assert_eq!(sse.connections().closed(CloseReason::Draining), 2);
}

/// Whatever the application calls it, the answer is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_disconnected_breaks_off_for_any_reason() {
    for reason in [CloseReason::Ended, CloseReason::LastEvent, CloseReason::Revoked] {
        let sse = sse("");
        let server = Server::start(&sse, app(&sse)).await;
        let address = server.address;
        let one = tokio::spawn(async move { post(address, "/endless").await });
        eventually("it runs", || sse.connections().len() == 1).await;
        sse.connections().disconnect(&ConnectionFilter::all(), reason);
        assert_ne!(one.await.expect("no panic").end, End::Clean, "{reason}");
        server.stop().await;
    }
}

/// The writer is not polled while its write is blocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_answer_does_not_outlast_the_drain() {
    let sse = sse("DrainTimeout = \"500ms\"\nWriteTimeout = \"60s\"");
    let app = sse.endpoint("/s").public().profile(Profile::Plain).handler(async || flood());
    let server = Server::start(&sse, app.expect("a route")).await;
    let mut slow = SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    tokio::time::sleep(Duration::from_millis(700)).await;
    let took = server.stop().await;
    assert!((0.4..2.5).contains(&took.as_secs_f64()), "{took:?}");
    assert_eq!(sse.connections().closed(CloseReason::Draining), 1);
    let mut rest = Vec::new();
    while let Ok(more) = slow.read(64 * 1024).await {
        if more.is_empty() {
            break;
        }
        rest.extend_from_slice(&more);
    }
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_another_server_a_drain_lets_answers_finish_and_cuts_the_rest() {
    let sse = sse("DrainTimeout = \"2s\"");
    let address = guarded(&sse, app(&sse)).await;
    let tasks = ["/answer", "/endless"].map(|path| {
        [
            tokio::spawn(async move { post(address, path).await }),
            tokio::spawn(async move { post_http2(address, path).await }),
        ]
    });
    eventually("all run", || sse.connections().len() == 4).await;
    let start = Instant::now();
    assert_eq!(sse.drain(), 4);
    let socket = TcpStream::connect(address).await.expect("a socket");
    let closing =
        "POST /answer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let late = ask(socket, closing).await;
    assert!(late.head.starts_with("HTTP/1.1 503") && late.head.contains("retry-after"), "{late:?}");
    for (task, path) in tasks.into_iter().zip(["/answer", "/endless"]) {
        for task in task {
            let answer: Answer = task.await.expect("no panic");
            assert_eq!(answer.end == End::Clean, path == "/answer", "{path}: {answer:?}");
        }
    }
    // A tenth earlier, so that the break is sent.
    assert!(start.elapsed() >= Duration::from_millis(1_800), "{:?}", start.elapsed());
    let closed = |reason| sse.connections().closed(reason);
    eventually("counted", || closed(CloseReason::Draining) == 3).await;
    assert_eq!(closed(CloseReason::LastEvent), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawn_access_and_a_maximum_age_break_the_body_at_once() {
    let sse = sse("");
    let aged = sse.endpoint("/aged").public().max_age(Duration::from_millis(300));
    let aged = aged.post_handler(async || endless()).expect("a route");
    let server = Server::start(&sse, app(&sse).merge(aged)).await;
    let address = server.address;
    for http2 in [false, true] {
        let path = "/endless";
        let asked = tokio::spawn(async move {
            if http2 { post_http2(address, path).await } else { post(address, path).await }
        });
        eventually("it runs", || sse.connections().len() == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::Revoked);
        let answer = asked.await.expect("no panic");
        assert_eq!(answer.body.trim_end_matches(":\n"), "data: half\n\n");
        assert_ne!(answer.end, End::Clean);
        let aged =
            if http2 { post_http2(address, "/aged").await } else { post(address, "/aged").await };
        assert_eq!(aged.body.trim_end_matches(":\n"), "data: half\n\n");
        assert_ne!(aged.end, End::Clean);
    }
    let closed = |reason| sse.connections().closed(reason);
    assert_eq!((closed(CloseReason::Revoked), closed(CloseReason::MaxAge)), (2, 2));
    server.stop().await;
}

/// HTTP/1.0 has no chunks, so only a reset shows that the answer is not whole.
#[tokio::test]
async fn over_http_1_0_a_cut_answer_ends_with_a_reset() {
    let sse = sse("");
    let fails = sse
        .endpoint("/fails")
        .public()
        .post_handler(async || stream::iter([Ok(Event::text("1")), Err("the model is gone")]));
    let server = Server::start(&sse, fails.expect("a route").merge(app(&sse))).await;
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let answer = ask(socket, &request("POST", "/fails", "HTTP/1.0")).await;
    assert_eq!(answer.end, End::Reset, "{answer:?}");
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let answer = ask(socket, &request("POST", "/answer", "HTTP/1.0")).await;
    assert_eq!(answer.end, End::Clean, "{answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn over_a_limit_a_plain_client_gets_a_status() {
    let sse = sse("");
    let one = sse.endpoint("/one").public().max_connections(1);
    let one = one.post_handler(async || endless()).expect("a route");
    let server = Server::start(&sse, one).await;
    let mut first = TcpStream::connect(server.address).await.expect("a socket");
    first.write_all(request("POST", "/one", "HTTP/1.1").as_bytes()).await.expect("sent");
    eventually("it runs", || sse.connections().len() == 1).await;
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let closing =
        request("POST", "/one", "HTTP/1.1").replace("host: x", "host: x\r\nconnection: close");
    let second = ask(socket, &closing).await;
    assert!(second.head.starts_with("HTTP/1.1 503"), "{second:?}");
    assert!(
        second.head.contains("retry-after: ") && second.head.contains("application/problem+json")
    );
    drop(first);
    server.stop().await;
}

/// For clients that take a clean end for the end of all events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_clean_ends_a_native_client_meets_a_broken_body_where_it_is_to_return() {
    let sse = sse("CleanEnd = false\nRetry = \"2s\"\nDrainJitter = \"off\"");
    let route = |path: &str| sse.endpoint(path).public();
    let aged = route("/aged").max_age(Duration::from_millis(300)).handler(async || endless());
    let full = route("/full").max_connections(1).handler(async || endless());
    let ended = route("/ended").handler(async || stream::iter([Event::text("1")]));
    let last = route("/last").handler(async || stream::iter([Event::text("1").last()]));
    let failed = route("/failed").handler(async || stream::iter([Ok(Event::text("1")), Err("no")]));
    let app = [aged, full, ended, last, failed].into_iter().map(|route| route.expect("a route"));
    let server = Server::start(&sse, app.fold(Router::new(), Router::merge)).await;
    let mut held = TcpStream::connect(server.address).await.expect("a socket");
    held.write_all(b"GET /full HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    eventually("it runs", || sse.connections().len() == 1).await;
    for (path, events, clean) in [
        ("/aged", "data: half\n\n", false),
        ("/full", "", false),
        ("/failed", "data: 1\n\n", false),
        ("/ended", "data: 1\n\n", true),
        ("/last", "data: 1\nid: hero.end\n\n", true),
    ] {
        let socket = TcpStream::connect(server.address).await.expect("a socket");
        let answer = ask(socket, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.head.starts_with("HTTP/1.1 200"), "{path}: {answer:?}");
        assert_eq!(answer.body.contains("hero.close"), clean, "{path}: {answer:?}");
        assert_eq!(answer.end == End::Clean, clean, "{path}: {answer:?}");
        assert!(answer.body.contains(events), "{path}: {answer:?}");
        let (first, last) =
            (answer.body.starts_with("retry: 2"), answer.body.contains("\nretry: 2"));
        assert!(first && (last || path == "/full"), "{path}: {answer:?}");
    }
    drop(held);
    server.stop().await;
}
