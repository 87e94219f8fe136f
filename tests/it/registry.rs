//! Every stream is counted once, however it ends.

use axum::Router;
use futures_util::stream;
use hero_sse::connections::Connections;
use hero_sse::{CloseReason, Event, Principal, SseOptions};
use http::StatusCode;
use serde_json::Value;

use crate::support::testing;
use crate::support::{
    Alive, Log, Server, burst, eventually, options, public, sse_with, token, watched,
};

fn counts(connections: &Connections) -> Vec<(CloseReason, u64)> {
    let all = CloseReason::ALL.iter().map(|reason| (*reason, connections.closed(*reason)));
    all.filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn a_client_that_disconnects_is_counted_and_its_stream_dropped() {
    let sse = sse_with(SseOptions::default());
    let (app, alive) = watched(&sse, || burst(1));
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    stream.next().await.expect("in time");
    assert_eq!((sse.connections().len(), alive.count()), (1, 1));
    drop(stream);
    assert_eq!((sse.connections().len(), alive.count()), (0, 0));
    assert_eq!(counts(sse.connections()), [(CloseReason::ClientGone, 1)]);
}

#[tokio::test]
async fn a_body_that_is_never_polled_releases_its_slot() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, || burst(1));
    let stream = testing::open(&app, "/s").await.expect("a stream");
    assert_eq!(sse.connections().len(), 1);
    drop(stream);
    assert_eq!(sse.connections().len(), 0);
    assert_eq!(counts(sse.connections()), [(CloseReason::ClientGone, 1)]);
}

#[tokio::test]
async fn a_request_dropped_while_the_function_runs_releases_its_slot() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .public()
        .handler(async || {
            std::future::pending::<()>().await;
            burst(1)
        })
        .expect("a route");
    let open = tokio::spawn(testing::open(&app, "/s").into_future());
    let connections = sse.connections().clone();
    eventually("admitted", || connections.len() == 1).await;
    open.abort();
    eventually("released", || connections.is_empty()).await;
    assert_eq!(counts(sse.connections()), [(CloseReason::ClientGone, 1)]);
}

#[tokio::test]
async fn a_refusal_by_the_function_is_not_counted_as_an_end() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s/{n}")
        .public()
        .handler(async |axum::extract::Path(n): axum::extract::Path<u32>| {
            assert!(n < 10, "the function panics on purpose");
            if n < 5 { Err(hero_sse::Refusal::not_found("no such thing")) } else { Ok(burst(n)) }
        })
        .expect("a route");
    for (path, status) in [("/s/1", 404), ("/s/x", 400), ("/s/10", 500)] {
        let error = testing::open(&app, path).await.expect_err(path);
        assert_eq!(error.status.map(|s| s.as_u16()), Some(status), "{path}");
    }
    assert_eq!((sse.connections().len(), counts(sse.connections())), (0, vec![]));
}

#[tokio::test]
async fn a_refusal_with_the_status_of_a_success_is_a_mistake_of_the_function() {
    use axum::response::IntoResponse;
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s/{n}")
        .public()
        .handler(async |axum::extract::Path(n): axum::extract::Path<u16>| match n {
            0 => Err("no such thing".into_response()),
            1 => Err(().into_response()),
            2 => Ok(burst(1)),
            _ => Err(StatusCode::from_u16(n).expect("a status").into_response()),
        })
        .expect("a route");
    for (path, answered) in
        [("0", 500), ("1", 500), ("201", 500), ("299", 500), ("204", 204), ("307", 307)]
    {
        let before = log.text().len();
        let error = testing::open(&app, &format!("/s/{path}")).await.expect_err(path);
        assert_eq!(error.status.map(|s| s.as_u16()), Some(answered), "{path}");
        assert!(!error.to_string().contains("no such thing"), "{error}");
        let said = log.text()[before..].matches("ERROR").count();
        assert_eq!(said, usize::from(answered == 500), "{path}: {}", log.text());
    }
    assert!(log.text().contains("path=\"/s/{n}\" status=201"), "{}", log.text());
    assert_eq!((sse.connections().len(), counts(sse.connections())), (0, vec![]));
}

#[tokio::test]
async fn a_future_that_is_never_polled_takes_no_slot() {
    let sse = sse_with(SseOptions::default());
    let app = public(&sse, || burst(1));
    drop(testing::open(&app, "/s").into_future());
    assert!(sse.connections().is_empty());
    assert_eq!(counts(sse.connections()), []);
}

#[tokio::test]
async fn a_stream_whose_drop_panics_is_counted_as_well() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "the stream's drop panics on purpose");
        }
    }
    let sse = sse_with(SseOptions::default());
    let app = sse
        .endpoint("/s")
        .public()
        .handler(async || {
            let bomb = Bomb;
            stream::unfold(bomb, |bomb| async move {
                std::future::pending::<()>().await;
                Some((Event::text(""), bomb))
            })
        })
        .expect("a route");
    drop(testing::open(&app, "/s").await.expect("a stream"));
    assert_eq!(counts(sse.connections()), [(CloseReason::ClientGone, 1)]);
    assert!(sse.connections().is_empty());
}

#[tokio::test]
async fn the_snapshot_lists_path_subject_and_tenant() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.at("/api").endpoint("/s").handler(async || burst(1)).expect("a route");
    let ann = Principal::test("ann").with_tenant("t1");
    let _stream = testing::open(&app, "/api/s").principal(ann).await.expect("a stream");
    let all = sse.connections().snapshot();
    let [one] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((one.path.as_str(), one.subject.as_deref()), ("/api/s", Some("ann")));
    assert_eq!(one.tenant.as_deref(), Some("t1"));
}

#[tokio::test]
async fn over_the_limit_a_browser_is_asked_to_reconnect() {
    let sse = sse_with(options("MaxPerPrincipal = 2\nRetry = \"2s\""));
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let open = || testing::open(&app, "/s").principal("ann");
    let _held = (open().await.expect("one"), open().await.expect("two"));
    let mut third = open().await.expect("a closing event in a 200");
    assert_eq!(third.headers()["content-type"], "text/event-stream");
    let events = third.read_to_end().await.expect("a clean end");
    let [close] = events.as_slice() else { panic!("{events:?}") };
    let data: Value = close.json().expect("JSON");
    assert_eq!((close.event.as_str(), data["reason"].as_str()), ("hero.close", Some("over_limit")));
    assert!(third.retry().is_some_and(|retry| (2000..=3000).contains(&retry.as_millis())));
    testing::open(&app, "/s").principal("bob").await.expect("another principal's limit");
    assert_eq!(sse.connections().closed(CloseReason::OverLimit), 1);
}

#[tokio::test]
async fn an_endpoints_own_limit_applies_to_that_endpoint_alone() {
    let sse = sse_with(options("[SseOptions.Endpoints.\"/s\"]\nMaxConnections = 1"));
    let app = public(&sse, || burst(1));
    let other = sse.endpoint("/t").public().handler(async || burst(1)).expect("a route");
    let app: Router = app.merge(other);
    let _held = testing::open(&app, "/s").await.expect("one");
    let mut second = testing::open(&app, "/s").await.expect("a closing event in a 200");
    assert!(second.read_to_end().await.expect("an end")[0].data.contains("over_limit"));
    let mut other = testing::open(&app, "/t").await.expect("a stream");
    assert_eq!(other.next().await.expect("in time").expect("an event").data, "1");
}

#[tokio::test]
async fn over_the_limit_clients_can_be_refused_instead() {
    let sse = sse_with(options(
        "OverLimit = \"refuse\"\nMaxConnections = 2\nMaxPerPrincipal = 1\nRetry = \"2s\"",
    ));
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let open = |who: &str| testing::open(&app, "/s").principal(who);
    let _ann = open("ann").await.expect("one");
    let own = open("ann").await.expect_err("429");
    assert_eq!(own.status, Some(StatusCode::TOO_MANY_REQUESTS));
    assert!(["2", "3"].contains(&own.headers["retry-after"].to_str().expect("ASCII")));
    let _bob = open("bob").await.expect("two");
    assert_eq!(open("eve").await.expect_err("503").status, Some(StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test]
async fn a_closed_socket_is_noticed_while_nothing_is_due() {
    let sse = sse_with(options("HeartbeatInterval = \"60s\""));
    let alive = Alive::default();
    let watch = alive.clone();
    let app: Router = sse
        .endpoint("/s")
        .permission("usage.read")
        .handler(async move || watch.watch(burst(1)))
        .expect("a route");
    let server = Server::start(&sse, app).await;
    let mut stream =
        testing::connect(server.address, "/s").bearer(&token()).await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    assert_eq!((sse.connections().len(), alive.count()), (1, 1));
    drop(stream);
    let connections = sse.connections().clone();
    eventually("the slot is released", || connections.is_empty()).await;
    assert_eq!(alive.count(), 0);
    assert_eq!(counts(&connections), [(CloseReason::ClientGone, 1)]);
    server.stop().await;
}
