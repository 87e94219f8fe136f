//! One tenant never receives, replays, counts or lists data of another: the recipe of the guide `tenancy`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use hero_sse::{Event, HeroSse, LastEventId, Principal, Refusal, SseOptions};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tower::ServiceExt;

use crate::support::sse_with;
use crate::support::testing::{self, EventReader, OpenError};

/// The key of a channel: a type with the tenant as a separate field, and not a concatenated string.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Channel {
    tenant: String,
    topic: String,
}

/// Channels with their history. A cursor is a position in one channel's history, and has no meaning in others.
#[derive(Clone, Default)]
struct Hub(Arc<Mutex<HashMap<Channel, History>>>);

struct History {
    past: Vec<String>,
    live: broadcast::Sender<(usize, String)>,
}

impl Default for History {
    fn default() -> Self {
        Self { past: Vec::new(), live: broadcast::channel(64).0 }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<Channel, History>> {
        self.0.lock().expect("no panic")
    }

    fn channel(tenant: &str, topic: &str) -> Channel {
        Channel { tenant: tenant.to_owned(), topic: topic.to_owned() }
    }

    fn publish(&self, tenant: &str, topic: &str, text: &str) {
        let mut channels = self.lock();
        let history = channels.entry(Self::channel(tenant, topic)).or_default();
        history.past.push(text.to_owned());
        let _ = history.live.send((history.past.len(), text.to_owned()));
    }

    /// The tenant comes from the token, or was compared with it; never from the cursor.
    fn subscribe(
        &self,
        tenant: &str,
        topic: &str,
        cursor: &LastEventId,
    ) -> Result<impl Stream<Item = Event> + Send + use<>, Refusal> {
        let mut channels = self.lock();
        let history = channels.entry(Self::channel(tenant, topic)).or_default();
        let from = match cursor.as_str() {
            None => history.past.len(),
            Some(cursor) => {
                cursor.parse().map_err(|_| Refusal::bad_request("no id of this stream"))?
            }
        };
        let numbered = |(n, text): (usize, String)| {
            Event::text(text).with_id(n).unwrap_or_else(|_| Event::text(""))
        };
        let past: Vec<_> = (1..).zip(history.past.clone()).skip(from).collect();
        let live = stream::unfold(history.live.subscribe(), async |mut live| {
            Some((live.recv().await.ok()?, live))
        });
        Ok(stream::iter(past).chain(live).map(numbered))
    }
}

#[derive(Clone)]
struct App {
    hub: Hub,
    sse: HeroSse,
}

async fn own(
    State(app): State<App>,
    who: Principal,
    axum::extract::Path(topic): axum::extract::Path<String>,
    cursor: LastEventId,
) -> Result<impl Stream<Item = Event>, Refusal> {
    app.hub.subscribe(who.require_tenant()?, &topic, &cursor)
}

async fn by_path(
    State(app): State<App>,
    who: Principal,
    axum::extract::Path((tenant, topic)): axum::extract::Path<(String, String)>,
    cursor: LastEventId,
) -> Result<impl Stream<Item = Event>, Refusal> {
    who.require_tenant_is(&tenant)?;
    app.hub.subscribe(&tenant, &topic, &cursor)
}

/// Lists the connected callers of the caller's tenant.
async fn status(State(app): State<App>, who: Principal) -> Result<Json<Value>, Refusal> {
    let tenant = who.require_tenant()?;
    let all = app.sse.connections().snapshot();
    let of_tenant = all.iter().filter(|one| one.tenant.as_deref() == Some(tenant));
    let people: Vec<_> = of_tenant.filter_map(|one| one.subject.clone()).collect();
    Ok(Json(json!({ "count": people.len(), "people": people })))
}

fn app(sse: &HeroSse, hub: &Hub) -> Router {
    let state = App { hub: hub.clone(), sse: sse.clone() };
    Router::new()
        .merge(sse.endpoint("/mine/{topic}").handler(own).expect("a route"))
        .merge(sse.endpoint("/of/{tenant}/{topic}").handler(by_path).expect("a route"))
        .route("/status", get(status))
        .with_state(state)
}

/// Tenants that a careless comparison, concatenation or normalization could confuse.
const LOOKALIKES: [&str; 22] = [
    "t",
    "T",
    "t ",
    " t",
    "t/",
    "/t",
    "t/orders",
    "t:orders",
    "t\u{0}",
    "t\u{0}orders",
    "t.orders",
    "t|",
    "t*",
    "*",
    "t%2F",
    "..",
    "t\u{301}",
    "\u{163}",
    "\u{ff54}",
    "t\u{200b}",
    "\u{212a}",
    "k",
];

fn of(tenant: &str) -> Principal {
    Principal::test(format!("ann of {tenant}")).with_tenant(tenant)
}

async fn open(
    app: &Router,
    path: &str,
    who: Principal,
    cursor: Option<&str>,
) -> Result<EventReader, OpenError> {
    let mut request = testing::open(app, path).principal(who);
    if let Some(cursor) = cursor {
        request = request.last_event_id(cursor);
    }
    request.await
}

async fn first(stream: &mut EventReader) -> String {
    stream.next().await.expect("in time").expect("an event").data
}

/// One segment of a path.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(start_paused = true)]
async fn each_of_many_lookalikes_receives_its_own_and_nothing_else() {
    let (hub, sse) = (Hub::default(), sse_with(SseOptions::default()));
    let app = app(&sse, &hub);
    let mut streams = Vec::new();
    for tenant in LOOKALIKES {
        streams
            .push((tenant, open(&app, "/mine/orders", of(tenant), None).await.expect("a stream")));
        let path = format!("/of/{}/orders", escaped(tenant));
        streams.push((tenant, open(&app, &path, of(tenant), None).await.expect(tenant)));
    }
    for tenant in LOOKALIKES {
        hub.publish(tenant, "orders", &format!("for {tenant:?}"));
        // With concatenated keys, one of these would be another tenant's channel.
        hub.publish(tenant, "", "no topic");
        hub.publish("", &format!("{tenant}orders"), "no tenant");
    }
    for (tenant, stream) in &mut streams {
        assert_eq!(first(stream).await, format!("for {tenant:?}"));
        assert!(stream.next().await.is_err(), "nothing else for {tenant:?}: {}", stream.raw());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_tenant_replays_nothing_of_it() {
    let (hub, sse) = (Hub::default(), sse_with(SseOptions::default()));
    let app = app(&sse, &hub);
    for n in 1..=5 {
        hub.publish("t1", "orders", &format!("t1's {n}"));
    }
    hub.publish("t2", "orders", "t2's 1");
    let mut theirs = open(&app, "/mine/orders", of("t1"), Some("0")).await.expect("a stream");
    let stolen = theirs.next().await.expect("in time").expect("an event").id.expect("an id");
    for cursor in ["0", stolen.as_str(), "5", "-1", "t1:0", "1 or 1=1"] {
        match open(&app, "/mine/orders", of("t2"), Some(cursor)).await {
            Ok(mut stream) => {
                while let Ok(Some(event)) = stream.next().await {
                    assert_eq!(event.data, "t2's 1", "{cursor}");
                }
            }
            Err(error) => assert_eq!(error.status, Some(StatusCode::BAD_REQUEST), "{cursor}"),
        }
    }
}

#[tokio::test]
async fn the_path_of_another_tenant_is_refused_whether_there_is_one_or_not() {
    let (hub, sse) = (Hub::default(), sse_with(SseOptions::default()));
    let app = app(&sse, &hub);
    hub.publish("t1", "orders", "secret");
    let mut answers = Vec::new();
    let none = Principal::test("nobody");
    for (who, tenant) in [
        (of("t2"), "t1"),
        (of("t2"), "never-was"),
        (of("T1"), "t1"),
        (of("t1 "), "t1"),
        (of("t1%00"), "t1"),
        (none.clone(), "t1"),
        (none.clone().with_tenant(""), "t1"),
        (Principal::test("t1"), "t1"),
        (none.clone().with_claim("tenant", "t1"), "t1"),
        (none.permission("t1"), "t1"),
    ] {
        let error =
            open(&app, &format!("/of/{tenant}/orders"), who, Some("0")).await.expect_err(tenant);
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
        answers.push((format!("{:?}", error.headers), error.body));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // A slash in the path does not change that.
    for path in [
        "/of/t2%2F..%2Ft1/orders",
        "/of/t2/..%2F..%2Ft1%2Forders",
        "/of/t2/../t1/orders",
        "/of//orders",
    ] {
        match open(&app, path, of("t2"), Some("0")).await {
            Ok(mut stream) => {
                let own =
                    tokio::time::timeout(std::time::Duration::from_millis(50), stream.next()).await;
                assert!(own.is_err(), "{path}: {own:?}");
            }
            Err(error) => {
                let refused = [Some(StatusCode::FORBIDDEN), Some(StatusCode::NOT_FOUND)];
                assert!(refused.contains(&error.status), "{path}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_status_page_lists_and_counts_the_callers_own_alone() {
    let (hub, sse) = (Hub::default(), sse_with(SseOptions::default()));
    let app = app(&sse, &hub);
    let mut held = Vec::new();
    for (n, tenant) in LOOKALIKES.iter().enumerate() {
        for _ in 0..=n % 3 {
            held.push(open(&app, "/mine/orders", of(tenant), None).await.expect("a stream"));
        }
    }
    held.push(testing::open(&app, "/of/t/orders").principal(of("t")).await.expect("a stream"));
    for (n, tenant) in LOOKALIKES.iter().enumerate() {
        let mut request =
            Request::get("/status").body(axum::body::Body::empty()).expect("a request");
        request.extensions_mut().insert(of(tenant));
        let answer = app.clone().oneshot(request).await.expect("an answer");
        let body = axum::body::to_bytes(answer.into_body(), 9999).await.expect("a body");
        let status: Value = serde_json::from_slice(&body).expect("JSON");
        let count = n % 3 + 1 + usize::from(n == 0);
        let people = vec![format!("ann of {tenant}"); count];
        assert_eq!(status, json!({ "count": count, "people": people }), "{tenant:?}");
    }
    drop(held);
}

#[tokio::test]
async fn an_empty_tenant_is_none() {
    let (hub, sse) = (Hub::default(), sse_with(SseOptions::default()));
    let app = app(&sse, &hub);
    for who in
        [Principal::test("ann"), Principal::test("ann").with_tenant(""), of("t").with_tenant("")]
    {
        let error = open(&app, "/mine/orders", who, None).await.expect_err("403");
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    }
}
