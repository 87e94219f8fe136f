//! The extractor `Connection`, and targets by its id: one tab, or everybody else.

use axum::extract::Request;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{Stream, StreamExt, stream};
use hero_sse::connections::{Connection, ConnectionFilter};
use hero_sse::{CloseReason, Event, HeroSse, Principal, SseContext, SseOptions, prelude::*};
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::support::testing::{self, EventReader};
use crate::support::{Log, Server, eventually, options, sse_with};

/// The first event of each stream is its own id.
fn own_id(connection: &Connection) -> impl Stream<Item = Event> + Send + use<> {
    let id = Event::text(connection.id().to_string());
    stream::iter([id]).chain(stream::pending())
}

#[sse_endpoint("/t/{room}")]
async fn room(connection: Connection) -> impl Stream<Item = Event> {
    own_id(&connection)
}

async fn text(stream: &mut EventReader) -> String {
    stream.next().await.expect("in time").expect("an event").data
}

async fn id(stream: &mut EventReader) -> u64 {
    text(stream).await.parse().expect("an id")
}

fn all() -> ConnectionFilter {
    ConnectionFilter::all()
}

fn send(sse: &HeroSse, filter: &ConnectionFilter, text: &str) -> usize {
    sse.connections().send(filter, Event::text(text)).expect("a good event").accepted
}

#[tokio::test]
async fn a_function_gets_the_id_that_snapshot_and_log_have() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = {
        async move |who: Option<Principal>, connection: Connection| {
            assert_eq!(
                who.as_ref().map(Principal::subject),
                connection.principal().map(Principal::subject)
            );
            let stream = own_id(&connection);
            sender.send(connection).expect("the test waits");
            stream
        }
    };
    let app: Router =
        sse.at("/api").endpoint("/s/{id}").public().handler(handler).expect("a route");
    let server = Server::start(&sse, app.clone()).await;
    let mut by_socket = testing::connect(server.address, "/api/s/7").await.expect("a stream");
    let mut ann = testing::open(&app, "/api/s/8").principal("ann").await.expect("a stream");
    for (reader, subject) in [(&mut by_socket, None), (&mut ann, Some("ann"))] {
        let connection = seen.recv().await.expect("a connection");
        let id = id(reader).await;
        assert_eq!((connection.id(), connection.endpoint()), (id, "/api/s/{id}"));
        assert_eq!(connection.principal().map(Principal::subject), subject);
        let infos = sse.connections().matching(&all().id(id));
        assert_eq!(infos.len(), 1, "{infos:?}");
        assert_eq!((infos[0].id, infos[0].subject.as_deref()), (id, subject));
        assert_eq!(infos[0].address, connection.address());
        assert_eq!(connection.address().is_some(), subject.is_none(), "that of the socket");
        let line = format!("connection={id}");
        assert!(log.text().lines().any(|l| l.contains("stream opened") && l.contains(&line)));
        assert!(id < 1 << 53, "exact in JavaScript");
    }
    // It outlives its stream, and keeps nothing open.
    let kept = sse.connections().len();
    drop((by_socket, ann));
    assert_eq!(kept, 2);
    eventually("released", || sse.connections().is_empty()).await;
    server.stop().await;
}

#[tokio::test]
async fn one_tab_or_everybody_else_is_sent_to_counted_listed_and_ended() {
    let sse = sse_with(options("MaxPerPrincipal = 100"));
    let app: Router = sse.routes(endpoints![room]).expect("routes");
    let mut tabs = Vec::new();
    for who in ["ann", "ann", "bob", "eve"] {
        let mut tab = testing::open(&app, "/t/1").principal(who).await.expect("a stream");
        let id = id(&mut tab).await;
        tabs.push((id, tab));
    }
    let ids: Vec<u64> = tabs.iter().map(|(id, _)| *id).collect();
    let me = || all().id(ids[0]);
    let room = || all().endpoint("/t/{room}");
    assert_eq!(send(&sse, &room().not(me()), "to the others"), 3);
    assert_eq!(send(&sse, &me(), "to me"), 1);
    assert_eq!(send(&sse, &all().subject("ann").not(me()), "to my other tab"), 1);
    assert_eq!(send(&sse, &me().subject("bob"), "to a tab that is not his"), 0);
    assert_eq!(send(&sse, &all().id(ids[3] + 1), "to nobody"), 0);
    assert_eq!(text(&mut tabs[0].1).await, "to me");
    assert_eq!(text(&mut tabs[1].1).await, "to the others");
    assert_eq!(text(&mut tabs[1].1).await, "to my other tab");
    assert_eq!(text(&mut tabs[2].1).await, "to the others");
    let connections = sse.connections();
    assert_eq!((connections.count(&me()), connections.count(&room().not(me()))), (1, 3));
    let mut others: Vec<u64> =
        connections.matching(&all().not(me())).iter().map(|i| i.id).collect();
    others.sort_unstable();
    assert_eq!(others, ids[1..]);
    assert_eq!(connections.disconnect(&all().id(ids[3]), CloseReason::Revoked), 1);
    assert_eq!(connections.drain(&all().not(me()).not(all().subject("bob"))), 2);
    for (n, reason) in [(1, CloseReason::Draining), (3, CloseReason::Revoked)] {
        tabs[n].1.read_to_end().await.expect("an end");
        assert_eq!(tabs[n].1.close_reason(), Some(reason));
    }
    assert_eq!(send(&sse, &all(), "still here"), 2);
    assert_eq!(text(&mut tabs[0].1).await, "still here");
    assert_eq!(text(&mut tabs[2].1).await, "still here");
}

/// A number from before a restart, or from another node, means no other stream.
#[tokio::test]
async fn two_servers_have_different_ids() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let sse = sse_with(SseOptions::default());
        let app: Router = sse.routes(endpoints![room]).expect("routes");
        let mut tab = testing::open(&app, "/t/1").principal("ann").await.expect("a stream");
        ids.push(id(&mut tab).await);
    }
    assert!(ids[0].abs_diff(ids[1]) > 1_000_000, "{ids:?}");
}

#[tokio::test]
async fn a_context_knows_the_id_before_its_stream_opens() {
    let sse = sse_with(SseOptions::default());
    let handler = async |context: SseContext, connection: Connection| -> Response {
        assert_eq!(context.connection().id(), connection.id());
        assert_eq!(connection.endpoint(), "/old/{n}");
        context.public().stream(own_id(&connection)).await
    };
    let app: Router = Router::new().route("/old/{n}", get(handler)).layer(Extension(sse.clone()));
    for _ in 0..2 {
        let mut stream = testing::open(&app, "/old/1").await.expect("a stream");
        let id = id(&mut stream).await;
        assert_eq!(sse.connections().count(&all().id(id)), 1);
        assert_eq!(send(&sse, &all().id(id), "x"), 1);
        assert_eq!(text(&mut stream).await, "x");
        drop(stream);
        assert!(sse.connections().is_empty());
    }
}

#[tokio::test]
async fn elsewhere_it_is_refused_with_the_cure_in_the_log() {
    let (log, _guard) = Log::everything();
    let app: Router = Router::new()
        .route("/needs", get(async |_: Connection| "never"))
        .route("/asks", get(async |one: Option<Connection>| one.is_none().to_string()));
    let refused = testing::open(&app, "/needs").await.expect_err("no stream");
    assert_eq!(refused.status.map(|status| status.as_u16()), Some(500));
    assert!(!refused.body.contains("Connection"), "{}", refused.body);
    let log = log.text();
    assert!(log.contains("extracts `Connection`") && log.contains("/needs"), "{log}");
    let asked = Request::get("/asks").body(axum::body::Body::empty()).expect("a request");
    let answer = app.oneshot(asked).await.expect("an answer");
    let body = axum::body::to_bytes(answer.into_body(), 100).await.expect("a body");
    assert_eq!(body, "true");
}

/// The id exists from the admission on, so layers around the endpoint do not have it.
#[tokio::test]
async fn a_rejected_request_has_no_connection() {
    let sse = sse_with(options("MaxPerPrincipal = 1\nOverLimit = \"refuse\""));
    let app: Router = sse.routes(endpoints![room]).expect("routes");
    let app = app.layer(from_fn(async |request: Request, next: axum::middleware::Next| {
        assert!(request.extensions().get::<Connection>().is_none());
        next.run(request).await
    }));
    let open = || testing::open(&app, "/t/1").principal("ann").into_future();
    let first = open().await.expect("a stream");
    assert_eq!(open().await.expect_err("over the limit").status.map(|s| s.as_u16()), Some(429));
    drop(first);
    open().await.expect("a stream");
}

/// A function is still a function: a test may call it.
#[tokio::test]
async fn a_test_may_call_the_function_with_a_connection() {
    let connection = Connection::test("/t/{room}", Principal::test("ann"));
    assert_eq!(connection.principal().map(Principal::subject), Some("ann"));
    let mut events = std::pin::pin!(room(connection.clone()).await);
    assert!(events.next().await.is_some());
    assert!(connection.connections().is_empty());
}
