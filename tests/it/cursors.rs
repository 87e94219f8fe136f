//! Cursors of other people's clients, as they come over sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use futures_util::stream;
use hero_sse::prelude::*;
use hero_sse::{SseContext, SseOptions};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Server, sse_with};

#[derive(Serialize, SseEvent)]
struct Order {
    number: u64,
}

#[sse_endpoint("/orders", public)]
async fn orders(State(topic): State<Topic<Order>>) -> Subscription<Order> {
    topic.subscribe()
}

/// Sends the cursor as the endpoint's function sees it.
#[sse_endpoint("/echo", public)]
async fn echo(cursor: LastEventId) -> impl Stream<Item = Event> {
    stream::iter([Event::text(shown(&cursor))])
}

fn shown(cursor: &LastEventId) -> String {
    match (cursor.as_str(), cursor.invalid()) {
        (Some(id), None) => format!("after {id}"),
        (None, Some(why)) => format!("unknown: {why}"),
        (None, None) => "new".to_owned(),
        both => panic!("{both:?}"),
    }
}

async fn by_context(sse: SseContext) -> Response {
    assert_eq!(sse.last_event_id(), sse.cursor().as_str());
    let event = Event::text(shown(sse.cursor()));
    sse.public().stream(stream::iter([event])).await
}

/// Sends a `GET`, and reads until 200 ms of silence.
async fn ask(address: SocketAddr, path: &str, headers: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let mut head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n").into_bytes();
    head.extend_from_slice(headers);
    head.extend_from_slice(b"\r\n");
    // The server may refuse a head before it has read all of it.
    let _ = socket.write_all(&head).await;
    let mut answer = Vec::new();
    let silence = Duration::from_millis(200);
    while let Ok(Ok(1..)) = tokio::time::timeout(silence, socket.read_buf(&mut answer)).await {}
    String::from_utf8_lossy(&answer).into_owned()
}

async fn start(topic: &Topic<Order>) -> Server {
    let sse = sse_with(SseOptions::default());
    let app: Router<Topic<Order>> = sse.routes(endpoints![orders]).expect("a route");
    let app = app.with_state(topic.clone());
    let app = app.merge(sse.routes(endpoints![echo]).expect("a route"));
    Server::start(&sse, app.route("/context", get(by_context))).await
}

/// `event-source-polyfill` and `reconnecting-eventsource` send `lastEventId` in the query, and never the header.
#[tokio::test]
async fn the_cursor_of_a_polyfill_resumes() {
    let topic = Topic::new("orders");
    let server = start(&topic).await;
    let first = ask(server.address, "/orders", b"").await;
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).expect("hero.cursor");
    topic.publish(Order { number: 1 }).await.expect("published");
    for name in ["lastEventId", "last_event_id", "lastEventID", "Last-Event-ID", "last-event-id"] {
        let got = ask(server.address, &format!("/orders?{name}={id}"), b"").await;
        assert!(got.contains("{\"number\":1}") && !got.contains("hero.gap"), "{name}: {got}");
    }
    let by_header = format!("last-event-id: {id}\r\n");
    let got = ask(server.address, "/orders?lastEventId=other", by_header.as_bytes()).await;
    assert!(got.contains("{\"number\":1}") && !got.contains("hero.gap"), "{got}");
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_that_cannot_be_an_id_is_a_gap_and_a_function_learns_why() {
    let topic = Topic::new("orders");
    let server = start(&topic).await;
    let long = "x".repeat(300);
    let escaped = "%41".repeat(300);
    let in_header = |id: &[u8]| [b"last-event-id: ", id, b"\r\n"].concat();
    for (query, headers, why) in [
        ("", in_header(long.as_bytes()), "is longer than 256 bytes"),
        ("", in_header(b"a\tb"), "contains a control character"),
        ("", in_header(b"\xff\xfe"), "is not UTF-8"),
        ("", [in_header(b"1"), in_header(b"2")].concat(), "is repeated with another value"),
        ("?lastEventId=%ff", Vec::new(), "is not UTF-8"),
        ("?lastEventId=a%00", Vec::new(), "contains a control character"),
        (&format!("?lastEventId={long}"), Vec::new(), "is longer than 256 bytes"),
        (&format!("?lastEventId={escaped}"), Vec::new(), "is longer than 256 bytes"),
    ] {
        for path in ["/echo", "/context"] {
            let got = ask(server.address, &format!("{path}{query}"), &headers).await;
            assert!(got.starts_with("HTTP/1.1 200"), "{path} {why}: {got}");
            let shown = format!("data: unknown: the Last-Event-ID {why}\n");
            assert!(got.contains(&shown), "{path} {why}: {got}");
        }
        let got = ask(server.address, &format!("/orders{query}"), &headers).await;
        assert!(got.contains("event: hero.gap") && got.contains("\"missed\":null"), "{why}: {got}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_function_and_a_context_read_every_spelling() {
    let topic = Topic::new("orders");
    let server = start(&topic).await;
    for path in ["/echo", "/context"] {
        for (query, header, shown) in [
            ("", "", "new"),
            ("?lastEventId=", "last-event-id:\r\n", "new"),
            ("?lastEventId=a%20%25b", "", "after a %b"),
            ("?lastEventId=a%zz%4", "", "after a%zz%4"),
            ("?last_event_id=1&lastEventId=2", "", "after 2"),
            ("?lastEventId=2", "last-event-id: 1\r\n", "after 1"),
            ("?lastEventId=2", "last-event-id: \r\n", "after 2"),
        ] {
            let got = ask(server.address, &format!("{path}{query}"), header.as_bytes()).await;
            assert!(got.contains(&format!("data: {shown}\n")), "{path}{query} {header}: {got}");
        }
        for query in ["?lastEventId=7%3Bhero.end", "?last-event-id=hero.end"] {
            let got = ask(server.address, &format!("{path}{query}"), b"").await;
            assert!(got.starts_with("HTTP/1.1 204"), "{path}{query}: {got}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_megabyte_of_query_is_refused_and_the_server_goes_on() {
    let topic = Topic::new("orders");
    let server = start(&topic).await;
    for query in ["lastEventId=1&".repeat(4_000), format!("lastEventId={}", "x".repeat(60_000))] {
        let got = ask(server.address, &format!("/echo?{query}"), b"").await;
        assert!(got.starts_with("HTTP/1.1 200"), "{}", &got[..got.len().min(200)]);
    }
    for query in ["lastEventId=%31&".repeat(70_000), format!("lastEventId={}", "x".repeat(1 << 20))]
    {
        let got = ask(server.address, &format!("/echo?{query}"), b"").await;
        let refused = ["HTTP/1.1 414", "HTTP/1.1 431", "HTTP/1.1 400"];
        let is_refused = refused.iter().any(|head| got.starts_with(head));
        assert!(got.is_empty() || is_refused, "{}", &got[..got.len().min(200)]);
    }
    let got = ask(server.address, "/echo", b"").await;
    assert!(got.contains("data: new\n"), "{got}");
    server.stop().await;
}
