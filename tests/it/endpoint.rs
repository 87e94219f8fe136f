//! Annotated functions and derived events, as a user writes them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::extract::Path;
use axum::extract::State;
use futures_util::stream;
use hero_sse::SseOptions;
use hero_sse::extend::{Descriptor, EndpointMeta};
use hero_sse::prelude::*;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::support::testing;
use crate::support::{burst, public, sse_with};

#[derive(Clone)]
struct App {
    meter: Meter,
}

#[derive(Clone)]
struct Meter(u64);

impl FromRef<App> for Meter {
    fn from_ref(app: &App) -> Self {
        app.meter.clone()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, SseEvent)]
struct Usage {
    #[sse(id)]
    seq: u64,
    used: u64,
}

#[derive(Clone, Serialize, SseEvent)]
#[sse(event = "own")]
struct Named {
    text: String,
}

#[derive(Clone, SseEvent)]
enum Build {
    Queued {
        job: u64,
    },
    #[sse(event = "line")]
    LogLine(String),
    Pair(u8, u8),
    Nothing,
    #[sse(last)]
    Finished {
        #[sse(id)]
        #[serde(skip)]
        at: u64,
        #[serde(rename = "good")]
        ok: bool,
    },
}

/// Live usage of the caller's tenant.
///
/// It has "quotes" in it.
#[sse_endpoint("/usage/{from}", event = "usage", permission = "usage.read", write_timeout = "5s")]
async fn usage(
    State(Meter(used)): State<Meter>,
    Path(from): Path<u64>,
    who: Principal,
) -> Result<impl Stream<Item = Usage>, Refusal> {
    who.require_tenant()?;
    Ok(stream::iter((from..from + 2).map(move |seq| Usage { seq, used })))
}

#[sse_endpoint("/fallible", public)]
async fn fallible(cursor: LastEventId) -> impl Stream<Item = Result<Named, String>> {
    let text = cursor.as_str().unwrap_or("none").to_owned();
    stream::iter([Ok(Named { text }), Err("an internal error".to_owned())])
}

mod inner {
    use super::*;

    #[sse_endpoint("/builds", public)]
    pub(super) async fn feed() -> impl Stream<Item = Build> {
        stream::iter([
            Build::Queued { job: 1 },
            Build::LogLine("a\nb".into()),
            Build::Pair(1, 2),
            Build::Nothing,
            Build::Finished { at: 9, ok: true },
            Build::Queued { job: 2 },
        ])
    }
}

#[sse_endpoint("/builds/named", event = "build", public)]
async fn named_feed() -> impl Stream<Item = Build> {
    stream::iter([Build::Queued { job: 1 }, Build::LogLine("x".into())])
}

type Feed = tokio::sync::broadcast::Sender<Arc<Usage>>;

/// One reading for all streams, without a copy.
#[sse_endpoint("/shared", public, state = Feed)]
async fn shared(State(feed): State<Feed>) -> impl Stream<Item = Result<Arc<Usage>, RecvError>> {
    stream::unfold(feed.subscribe(), |mut feed| async { Some((feed.recv().await, feed)) })
}

/// The shared event has a name of its own.
#[sse_endpoint("/shared/named", event = "own", public)]
async fn shared_named() -> impl Stream<Item = Arc<Named>> {
    stream::iter([Arc::new(Named { text: "x".into() })])
}

#[sse_endpoint("/axum/{ok}", public)]
async fn in_axum(Path(ok): Path<bool>) -> axum::response::Result<impl Stream<Item = Event>> {
    if !ok {
        Err((StatusCode::CONFLICT, [("x-why", "because")]))?;
    }
    Ok(stream::iter([Event::text("ok")]))
}

fn app() -> Router {
    let sse = sse_with(SseOptions::default());
    let endpoints = hero_sse::endpoints![usage, fallible, inner::feed, named_feed];
    let app = App { meter: Meter(7) };
    Router::new().merge(sse.at("/api").routes(endpoints).expect("routes")).with_state(app)
}

async fn read(path: &str) -> Vec<(String, Option<String>, String)> {
    let mut stream = testing::open(&app(), path).await.expect("a stream");
    let events = stream.read_to_end().await.expect("a clean end");
    events.into_iter().map(|event| (event.event, event.id, event.data)).collect()
}

#[tokio::test]
async fn the_annotated_function_is_still_a_function() {
    use futures_util::StreamExt as _;
    let ann = Principal::test("ann").with_tenant("t1");
    let events = usage(State(Meter(7)), Path(3), ann).await.expect("a stream");
    let events: Vec<_> = events.collect().await;
    assert_eq!(events, [Usage { seq: 3, used: 7 }, Usage { seq: 4, used: 7 }]);
    let refused = usage(State(Meter(7)), Path(3), Principal::test("bob")).await.err();
    assert_eq!(refused.map(|refusal| refusal.status()), Some(StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn it_is_a_route_with_its_permission_path_state_and_refusal() {
    let app = app();
    let open = |path: &str, who: Principal| testing::open(&app, path).principal(who);
    let ann = || Principal::test("ann").permission("usage.read");
    let mut stream = open("/api/usage/5", ann().with_tenant("t1")).await.expect("a stream");
    let first = stream.next().await.expect("in time").expect("an event");
    assert_eq!((first.event.as_str(), first.id.as_deref()), ("usage", Some("5")));
    assert_eq!(first.json::<Value>().expect("JSON"), json!({"seq": 5, "used": 7}));
    let status = async |open: testing::Open<Router>| open.await.expect_err("refused").status;
    assert_eq!(status(open("/api/usage/5", ann())).await, Some(StatusCode::FORBIDDEN));
    assert_eq!(status(open("/api/usage/x", ann())).await, Some(StatusCode::BAD_REQUEST));
    assert_eq!(
        status(open("/api/usage/5", Principal::test("bob"))).await,
        Some(StatusCode::FORBIDDEN)
    );
    assert_eq!(status(testing::open(&app, "/api/usage/5")).await, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(status(testing::open(&app, "/usage/5")).await, Some(StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn results_end_the_stream_at_the_first_error() {
    let events = read("/api/fallible?last_event_id=8").await;
    assert_eq!(events[0], ("own".to_owned(), None, r#"{"text":"8"}"#.to_owned()));
    assert!(events[1].2.contains("stream_error"), "{events:?}");
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn each_variant_is_an_event_with_its_fields_as_data() {
    let events = read("/api/builds").await;
    let expected = [
        ("queued", None, r#"{"job":1}"#),
        ("line", None, r#""a\nb""#),
        ("pair", None, "[1,2]"),
        ("nothing", None, "null"),
        ("finished", Some("9;hero.end"), r#"{"good":true}"#),
    ];
    for (got, (name, id, data)) in events.iter().zip(expected) {
        assert_eq!((got.0.as_str(), got.1.as_deref(), got.2.as_str()), (name, id, data));
    }
    assert_eq!(events.len(), 6, "after the last event comes only the closing event");
    assert!(events[5].2.contains("last_event"), "{events:?}");
}

#[tokio::test]
async fn an_explicit_name_overrides_the_endpoints_which_overrides_the_types() {
    let events = read("/api/builds/named").await;
    let names: Vec<_> = events.iter().map(|event| event.0.as_str()).collect();
    assert_eq!(names, ["build", "line", "hero.close"]);
}

#[tokio::test]
async fn one_event_is_shared_by_all_its_streams() {
    let feed = Feed::new(1);
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.routes(endpoints![shared]).expect("a route").with_state(feed.clone());
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(testing::open(&app, "/shared").await.expect("a stream"));
    }
    assert_eq!(feed.send(Arc::new(Usage { seq: 4, used: 9 })).expect("listeners"), 2);
    for mut stream in streams {
        let event = stream.next().await.expect("in time").expect("an event");
        assert_eq!((event.event.as_str(), event.id.as_deref()), ("usage", Some("4")));
        assert_eq!(event.data, r#"{"seq":4,"used":9}"#);
    }
    let app: Router = sse.routes(endpoints![shared_named]).expect("a route");
    let mut stream = testing::open(&app, "/shared/named").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").event, "own");
}

#[test]
fn an_event_behind_a_pointer_is_the_event() {
    fn parts<E: SseEvent>(event: E) -> (Option<&'static str>, String, bool, Option<String>) {
        (E::NAME, testing::frame(&event).expect("a frame"), event.is_last(), event.key())
    }
    let last = || Event::text("x").with_id(3).expect("an id").with_key("k").last();
    let expected = (None, "id: 3;hero.end\ndata: x\n\n".to_owned(), true, Some("k".to_owned()));
    let (borrowed, borrowed_twice) = (&last(), &&last());
    let all =
        [parts(Arc::new(last())), parts(Box::new(last())), parts(borrowed), parts(borrowed_twice)];
    assert!(all.iter().all(|parts| *parts == expected), "{all:?}");
    let named = || Named { text: "x".into() };
    let borrowed = &named();
    for (name, ..) in [parts(Arc::new(named())), parts(Box::new(named())), parts(borrowed)] {
        assert_eq!(name, Some("own"));
    }
}

#[tokio::test]
async fn the_error_of_axums_result_is_the_answer() {
    let app: Router = sse_with(SseOptions::default()).routes(endpoints![in_axum]).expect("a route");
    let mut stream = testing::open(&app, "/axum/true").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "ok");
    let error = testing::open(&app, "/axum/false").await.expect_err("refused");
    assert_eq!(error.status, Some(StatusCode::CONFLICT));
    assert_eq!(error.headers["x-why"], "because");
}

#[test]
fn the_descriptor_has_the_declarations_values() {
    const USAGE: Descriptor = <usage as EndpointMeta>::DESCRIPTOR;
    assert_eq!((USAGE.name(), USAGE.path()), ("usage", "/usage/{from}"));
    let docs = "Live usage of the caller's tenant.\n\nIt has \"quotes\" in it.";
    assert_eq!(USAGE.documentation(), docs);
}

#[test]
fn a_mistake_found_at_mapping_names_the_line_of_the_declaration() {
    let sse =
        HeroSse::builder().environment(Vec::<(String, String)>::new()).build().expect("a server");
    let endpoints = hero_sse::endpoints![usage, inner::feed];
    let error = sse.routes::<App>(endpoints).expect_err("no authenticator").to_string();
    assert!(error.contains(&format!("{}:", file!())) && error.contains("/usage/{from}"), "{error}");
    // A failed call maps nothing.
    let feed = || sse.routes::<App>(hero_sse::endpoints![inner::feed]);
    let _: Router<App> = feed().expect("a free path");
    let error = feed().expect_err("a taken path");
    assert!(error.to_string().contains("the path is taken by /builds"), "{error}");
}

/// Nothing would read it, and unread bytes hide that the client has left.
#[tokio::test]
async fn a_get_with_a_body_is_refused() {
    let app = public(&sse_with(SseOptions::default()), || burst(1));
    let ask = |body| testing::open(&app, "/s").body(body).method(http::Method::GET);
    let error = ask("hello").await.expect_err("400");
    assert_eq!(error.status, Some(StatusCode::BAD_REQUEST));
    assert!(error.to_string().contains("no body"), "{error}");
    ask("").await.expect("an empty body is none");
}

/// A block that sends events is a stream as any other. It can end, fail and panic, and is dropped with its client.
#[tokio::test(start_paused = true)]
async fn a_block_that_sends_is_a_stream() {
    let (sse, alive) = (sse_with(SseOptions::default()), Arc::new(()));
    let held = alive.clone();
    let app: Router = sse
        .endpoint("/s/{end}")
        .public()
        .handler(async move |Path(end): Path<String>| {
            hero_sse::stream(|mut tx| async move {
                let _held = held;
                for n in 0..3 {
                    tx.send(Event::text(n.to_string())).await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                match end.as_str() {
                    "waits" => std::future::pending().await,
                    "fails" => return Err("a secret reason"),
                    "panics" => panic!("the block panics on purpose"),
                    _ => tx.send(Event::text("3")).await,
                }
                Ok(())
            })
        })
        .expect("a route");
    for (end, events, reason) in
        [("ends", 4, "ended"), ("fails", 3, "stream_error"), ("panics", 3, "stream_panic")]
    {
        let mut stream = testing::open(&app, &format!("/s/{end}")).await.expect("a stream");
        let all = stream.read_to_end().await.expect("a clean end");
        let (close, sent) = all.split_last().expect("a closing event");
        let sent: Vec<_> = sent.iter().map(|event| event.data.as_str()).collect();
        assert_eq!(sent, ["0", "1", "2", "3"][..events], "{end}");
        assert!(close.data.contains(&format!("\"{reason}\"")), "{end}: {}", close.data);
        assert!(!stream.raw().contains("secret"));
    }
    let before = Arc::strong_count(&alive);
    let mut stream = testing::open(&app, "/s/waits").await.expect("a stream");
    assert_eq!(stream.next().await.expect("in time").expect("an event").data, "0");
    assert_eq!(Arc::strong_count(&alive), before + 1);
    drop(stream);
    assert_eq!(Arc::strong_count(&alive), before, "the block is dropped with its client");
}

/// What appears in public signatures can be named.
#[test]
fn markers_can_be_named() {
    use hero_sse::extend::{Endpoint, EventItem, Outcome, markers};
    fn item<T: EventItem<M>, M>() {}
    fn endpoint<T: Endpoint<S, K>, S, K>() {}
    fn outcome<T: Outcome<Usage>>() {}
    item::<Usage, markers::Direct>();
    item::<Result<Usage, String>, markers::Fallible>();
    endpoint::<usage, App, markers::FromParts>();
    outcome::<()>();
}
