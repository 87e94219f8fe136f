//! Attacks on the stream itself: fields, ids, limits, refusals, the log.

use std::time::Duration;

use axum::Router;
use futures_util::{StreamExt, stream};
use hero_sse::event::{EventId, EventName};
use hero_sse::options::OverLimit;
use hero_sse::{Event, Principal, SseEvent, SseOptions};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::testing::{self, Received};
use crate::support::{Log, Server, burst, claims, public, sign, sse_with, token};

/// Characters that end a line for a browser, or that make its next reconnect fail.
const CONTROLS: [&str; 9] = ["\n", "\r", "\r\n", "\0", "\t", "\u{b}", "\u{7f}", "\u{85}", "\u{1b}"];

/// The field that the attacker wants to forge.
const FORGED: &str = "data: forged";

/// An event whose id comes from a user.
#[derive(Clone, serde::Serialize, SseEvent)]
#[sse(event = "comment")]
struct Comment {
    #[sse(id)]
    by: String,
}

async fn sent(events: Vec<Event>) -> (Vec<Received>, String) {
    let app = public(&sse_with(SseOptions::default()), move || stream::iter(events.clone()));
    let mut stream = testing::open(&app, "/s").await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    (events, stream.raw())
}

#[tokio::test]
async fn line_breaks_and_controls_in_a_name_forge_no_field() {
    for control in CONTROLS {
        let name = format!("news{control}{FORGED}");
        assert!(EventName::new(name.clone()).is_err(), "{name:?}");
        assert!(Event::text("x").named(name.clone()).is_err(), "{name:?}");
        let sse = sse_with(SseOptions::default());
        let mapped = sse.endpoint("/s").public().event(name.clone()).handler(async || burst(1));
        let mistakes: Result<Router, _> = mapped;
        assert!(mistakes.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn line_breaks_and_controls_in_an_id_forge_no_field() {
    for control in CONTROLS {
        let id = format!("7{control}{FORGED}");
        assert!(EventId::new(id.clone()).is_err(), "{id:?}");
        assert!(Event::text("x").with_id(&id).is_err(), "{id:?}");
        let sse = sse_with(SseOptions::default());
        let app: Router = sse
            .endpoint("/s")
            .public()
            .handler(async move || stream::iter([Comment { by: id.clone() }]))
            .expect("a route");
        let mut stream = testing::open(&app, "/s").await.expect("a stream");
        let events = stream.read_to_end().await.expect("a clean end");
        assert!(!stream.raw().contains("forged"), "{}", stream.raw());
        let [close] = events.as_slice() else { panic!("{events:?}") };
        assert!(close.data.contains("stream_error"), "{}", close.data);
    }
}

#[tokio::test]
async fn line_breaks_in_data_forge_no_field_and_no_event() {
    for end in ["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r"] {
        let data =
            format!("one{end}event: hero.close{end}id: forged{end}retry: 1{end}{end}data: x");
        let (events, raw) =
            sent(vec![Event::text(&*data), Event::json(&data).expect("JSON")]).await;
        let [text, json, close] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((text.event.as_str(), text.id.as_ref()), ("message", None), "{raw:?}");
        assert_eq!(text.data, data.replace("\r\n", "\n").replace('\r', "\n"), "{end:?}");
        assert_eq!(json.json::<String>().expect("JSON"), data, "{end:?}");
        assert!(close.data.contains("\"ended\""), "{}", close.data);
        // Some parsers do not treat a bare CR as a line ending, so none is ever sent.
        assert!(!raw.contains('\r') && !raw.contains("\nretry: 1\n"), "{raw:?}");
    }
}

#[tokio::test]
async fn raw_json_with_line_breaks_forges_no_event() {
    let raw = serde_json::value::RawValue::from_string("[1,\n\n2,\r3]".to_owned()).expect("JSON");
    let (events, _) = sent(vec![Event::json(&raw).expect("JSON")]).await;
    let [event, _] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.json::<Vec<u8>>().expect("one event"), [1, 2, 3]);
}

#[test]
fn an_application_cannot_be_made_to_send_control_events() {
    for name in ["hero.close", "hero.gap", "hero.heartbeat", "hero."] {
        assert!(EventName::new(name).is_err() && Event::text("x").named(name).is_err(), "{name}");
    }
    // The same for ids that end the stream of a reconnecting client.
    for id in ["hero.end", "7;hero.end"] {
        assert!(EventId::new(id).is_err() && Event::text("x").with_id(id).is_err(), "{id}");
    }
}

#[tokio::test]
async fn an_end_mark_in_the_cursor_reveals_nothing_to_a_stranger() {
    let sse = sse_with(SseOptions::default());
    let app: Router =
        sse.endpoint("/s").permission("usage.read").handler(async || burst(1)).expect("a route");
    let stranger = testing::open(&app, "/s").last_event_id("7;hero.end").await.expect_err("401");
    assert_eq!(stranger.status, Some(StatusCode::UNAUTHORIZED));
    let lacking = testing::open(&app, "/s").principal("bob").last_event_id("hero.end");
    assert_eq!(lacking.await.expect_err("403").status, Some(StatusCode::FORBIDDEN));
}

/// A request head of any size: the server answers or closes the connection, and goes on.
#[tokio::test]
async fn a_huge_cursor_does_not_stop_the_server() {
    let sse = sse_with(SseOptions::default());
    let server = Server::start(&sse, public(&sse, || burst(1))).await;
    for size in [300, 10_000, 300_000, 3_000_000] {
        let mut socket = tokio::net::TcpStream::connect(server.address).await.expect("a socket");
        let head = format!(
            "GET /s HTTP/1.1\r\nhost: x\r\nconnection: close\r\nlast-event-id: {}\r\n\r\n",
            "x".repeat(size)
        );
        // The server may close the connection before it has read all of it.
        let _ = socket.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        // A stream does not end by itself.
        while let Ok(Ok(1..)) =
            timeout(Duration::from_millis(300), socket.read_buf(&mut answer)).await
        {}
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1);
        match size {
            // Longer than any id: an unknown cursor.
            300 | 10_000 => assert_eq!(status, Some("200"), "{size}: {answer}"),
            _ => assert!(matches!(status, Some("400" | "431") | None), "{size}: {answer}"),
        }
    }
    testing::connect(server.address, "/s").await.expect("a stream");
    assert_eq!(sse.connections().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn no_bytes_in_the_cursor_cause_a_panic() {
    let app = public(&sse_with(SseOptions::default()), || burst(1));
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..500 {
        let length = random.usize(..40);
        let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        let query: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
        let header = testing::open(&app, "/s").header("last-event-id", bytes).await;
        let query = testing::open(&app, &format!("/s?last_event_id={query}")).await;
        header.expect("a stream");
        query.expect("a stream");
    }
}

/// With a challenge other than `Bearer`, a browser opens a password dialog.
#[tokio::test]
async fn no_refusal_makes_a_browser_ask_for_a_password() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse
        .endpoint("/s")
        .permission("usage.read")
        .over_limit(OverLimit::Refuse)
        .max_per_principal(1)
        .handler(async || burst(1))
        .expect("a route");
    let open = || testing::open(&app, "/s");
    let _first = open().bearer(&token()).await.expect("a stream");
    let lacking = sign(&claims(|c| c["permissions"] = json!([])));
    let refused = [
        (401, open().await),
        (401, open().header("authorization", "Basic dTpw").await),
        (401, open().header("authorization", "Negotiate x").await),
        (401, open().bearer("noise").await),
        (400, open().header("authorization", "Bearer").await),
        (400, open().bearer("a").bearer("b").await),
        (403, open().bearer(&lacking).await),
        (429, open().bearer(&token()).await),
        (405, open().method(Method::PUT).await),
    ];
    for (status, refused) in refused {
        let refused = refused.expect_err("a refusal");
        assert_eq!(refused.status.map(|status| status.as_u16()), Some(status), "{refused}");
        for challenge in refused.headers.get_all("www-authenticate") {
            let challenge = challenge.to_str().expect("ASCII");
            assert!(challenge.starts_with("Bearer realm="), "{status}: {challenge}");
        }
        assert!(!refused.headers.contains_key("location"), "{status}: {:?}", refused.headers);
    }
}

#[tokio::test]
async fn a_subject_with_line_breaks_forges_no_line_of_the_log() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let app: Router =
        sse.endpoint("/s").handler(async || stream::empty::<Event>()).expect("a route");
    let forger = sign(&claims(|c| c["sub"] = json!("ann\n2026-01-01T00:00:00Z ERROR forged")));
    testing::open(&app, "/s")
        .bearer(&forger)
        .await
        .expect("a stream")
        .read_to_end()
        .await
        .expect("its end");
    let text = log.text();
    assert!(text.contains("forged"), "the subject is not in the log:\n{text}");
    assert!(!text.lines().any(|line| line.starts_with("2026-01-01")), "{text}");
}

/// One caller cannot take all slots. `hostility` and `admission` test other ways.
#[tokio::test]
async fn one_callers_streams_leave_room_for_the_others() {
    let sse = sse_with(SseOptions::default().max_connections(20).over_limit(OverLimit::Refuse));
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut held = Vec::new();
    for _ in 0..20 {
        held.extend(testing::open(&app, "/s").principal("mallory").await.ok());
    }
    assert_eq!(held.len(), 8);
    let mut ann = testing::open(&app, "/s").principal(Principal::test("ann")).await.expect("room");
    ann.next().await.expect("in time").expect("an event");
}

/// Large events that are never read are not collected in memory.
#[tokio::test]
async fn a_client_that_stops_reading_does_not_fill_the_memory() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let sse = sse_with(SseOptions::default().write_timeout(std::time::Duration::from_secs(1)));
    let app = public(&sse, move || {
        let count = count.clone();
        stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Event::text("x".repeat(10_000))
        })
        .boxed()
    });
    let server = Server::start(&sse, app).await;
    let reader = testing::SlowReader::connect(server.address, "/s", &[]).await.expect("a socket");
    let limit = std::time::Duration::from_secs(20);
    reader.reset_within(limit).await.expect("reset by its write timeout");
    let bytes = made.load(Ordering::Relaxed) * 10_000;
    assert!(bytes < 8_000_000, "{bytes} bytes were made for a client that read none");
    server.stop().await;
}
