//! The server of the client matrix: it plays the streams that a file describes, to clients that other people wrote.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::Stream;
use hero_sse::auth::{AuthError, Secret, authenticator_fn};
use hero_sse::event::InvalidEvent;
use hero_sse::{Event, HeroSse, LastEventId, Principal, sse_endpoint};
use lexopt::{Arg, ValueExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::Outcome;

const HELP: &str = "\
A server that plays scenes to clients.

Usage: trial scenes --scenes FILE [OPTIONS]

  --listen ADDR        address to listen on [default: 127.0.0.1:0]; port 0 takes any free one
  --scenes FILE        the scenes, as a JSON object by name. A scene has
                         events     an array of {event, id, data}, each optional but the data
                         every_ms   the time before each event [default: 0]
                         end        `last`: the last event is marked as such; `error`: the stream yields an
                                    error after the events; `never`; `clean` [default]
                         status     answers with this status, and `json`, in place of a stream
  --set KEY=VALUE      an option, as in the section SseOptions; may be repeated

  /get/SCENE/..        by GET; resumes after the event with the id in Last-Event-ID
  /get-private/SCENE/..   the same for the token `good`
  /get-limited/SCENE/..   the same, one at a time
  /post/, /post-private/, /post-limited/   the same by POST

Prints a line of JSON when it listens, one for each response (with the time of the request), and one for each stream
that ends. SIGTERM ends it.
";

struct Arguments {
    listen: String,
    scenes: PathBuf,
    settings: Vec<String>,
}

fn read(mut parser: lexopt::Parser) -> Result<Option<Arguments>, lexopt::Error> {
    let (mut listen, mut scenes, mut settings) = ("127.0.0.1:0".to_owned(), None, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("listen") => listen = parser.value()?.string()?,
            Arg::Long("scenes") => scenes = Some(PathBuf::from(parser.value()?)),
            Arg::Long("set") => settings.push(parser.value()?.string()?),
            Arg::Long("help") => return Ok(None),
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    let scenes = scenes.ok_or("--scenes is missing; see --help")?;
    Ok(Some(Arguments { listen, scenes, settings }))
}

pub(crate) async fn run(parser: lexopt::Parser) -> Outcome {
    let Some(arguments) = read(parser)? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let scenes: Scenes = serde_json::from_slice(&std::fs::read(&arguments.scenes)?)?;
    let authenticator =
        authenticator_fn(async |token: Secret<String>| match token.expose().as_str() {
            "good" => Ok(Principal::new("ann")),
            _ => Err(AuthError::invalid("not the token `good`")),
        });
    let options = crate::serve::options(&arguments.settings)?;
    let sse = HeroSse::builder().options(options).authenticator(authenticator).build()?;
    let endpoints = hero_sse::endpoints![
        get_public,
        get_private,
        get_limited,
        post_public,
        post_private,
        post_limited
    ];
    let app: Router = sse.routes(endpoints)?.with_state(Arc::new(scenes)).layer(from_fn(report));
    let listener = TcpListener::bind(&arguments.listen).await?;
    println!("{}", json!({ "listening": listener.local_addr()?.to_string() }));
    sse.serve(listener, app).with_graceful_shutdown(hero_sse::shutdown_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The time of day in milliseconds, which the harness compares with its own.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn report(request: Request, next: Next) -> Response {
    let (at, method, uri) = (now(), request.method().clone(), request.uri().clone());
    let headers = request.headers();
    let header = |name: &str| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let cursor = header("last-event-id").map(|cursor| cursor.into_owned());
    let response = next.run(request).await;
    let (path, status) = (uri.to_string(), response.status().as_u16());
    let line = json!({ "at": at, "method": method.as_str(), "path": path, "cursor": cursor, "status": status });
    println!("{line}");
    response
}

type Scenes = HashMap<String, Value>;
type Stage = State<Arc<Scenes>>;
type Place = Path<(String, String)>;
type Item = Result<Event, Failure>;

/// An error of the application in the middle of its stream.
#[derive(Debug)]
enum Failure {
    Invalid(InvalidEvent),
    Asked,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Asked => f.write_str("the scene ends in an error"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<InvalidEvent> for Failure {
    fn from(error: InvalidEvent) -> Self {
        Self::Invalid(error)
    }
}

/// Reports that a stream was dropped, and whether the client left before its end.
struct Playing {
    scene: String,
    sent: usize,
    whole: bool,
}

impl Drop for Playing {
    fn drop(&mut self) {
        let Self { scene, sent, whole } = self;
        println!("{}", json!({ "at": now(), "scene": scene, "sent": sent, "whole": whole }));
    }
}

fn event(value: &Value) -> Result<Event, InvalidEvent> {
    let text = |key| value.get(key).and_then(Value::as_str);
    let mut event = Event::text(text("data").unwrap_or_default());
    if let Some(name) = text("event") {
        event = event.named(name)?;
    }
    match text("id") {
        Some(id) => event.with_id(id),
        None => Ok(event),
    }
}

fn play(
    State(scenes): Stage,
    Path((name, _)): Place,
    cursor: &LastEventId,
) -> Result<impl Stream<Item = Item> + use<>, Response> {
    let Some(scene) = scenes.get(&name).cloned() else {
        return Err((StatusCode::NOT_FOUND, "there is no such scene").into_response());
    };
    if let Some(status) = scene["status"].as_u64().and_then(|status| u16::try_from(status).ok()) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Err(match scene.get("json") {
            Some(answer) => (status, Json(answer.clone())).into_response(),
            None => status.into_response(),
        });
    }
    let events = scene["events"].as_array().cloned().unwrap_or_default();
    let seen = cursor.as_str().and_then(|id| events.iter().position(|event| event["id"] == id));
    let next = seen.map_or(0, |seen| seen + 1);
    let pause = Duration::from_millis(scene["every_ms"].as_u64().unwrap_or_default());
    let end = scene["end"].as_str().unwrap_or("clean").to_owned();
    Ok(hero_sse::stream(move |mut tx| async move {
        let mut playing = Playing { scene: name, sent: 0, whole: false };
        for (index, value) in events.iter().enumerate().skip(next) {
            sleep(pause).await;
            let last = end == "last" && index + 1 == events.len();
            let event = event(value)?;
            playing.whole = end != "never" && index + 1 == events.len();
            tx.send(if last { event.last() } else { event }).await;
            playing.sent += 1;
        }
        match end.as_str() {
            "error" => Err(Failure::Asked),
            "never" => std::future::pending().await,
            _ => Ok(()),
        }
    }))
}

#[sse_endpoint("/get/{scene}/{*rest}", public)]
async fn get_public(
    stage: Stage,
    place: Place,
    cursor: LastEventId,
) -> Result<impl Stream<Item = Item>, Response> {
    play(stage, place, &cursor)
}

#[sse_endpoint("/get-private/{scene}/{*rest}")]
async fn get_private(
    stage: Stage,
    place: Place,
    cursor: LastEventId,
) -> Result<impl Stream<Item = Item>, Response> {
    play(stage, place, &cursor)
}

#[sse_endpoint("/get-limited/{scene}/{*rest}", public, max_connections = 1)]
async fn get_limited(
    stage: Stage,
    place: Place,
    cursor: LastEventId,
) -> Result<impl Stream<Item = Item>, Response> {
    play(stage, place, &cursor)
}

#[sse_endpoint("/post/{scene}/{*rest}", method = "post", public)]
async fn post_public(
    stage: Stage,
    place: Place,
    cursor: LastEventId,
    _body: String,
) -> Result<impl Stream<Item = Item>, Response> {
    play(stage, place, &cursor)
}

#[sse_endpoint("/post-private/{scene}/{*rest}", method = "post")]
async fn post_private(
    stage: Stage,
    place: Place,
    cursor: LastEventId,
    _body: String,
) -> Result<impl Stream<Item = Item>, Response> {
    play(stage, place, &cursor)
}

#[sse_endpoint("/post-limited/{scene}/{*rest}", method = "post", public, max_connections = 1)]
async fn post_limited(
    stage: Stage,
    place: Place,
    cursor: LastEventId,
    _body: String,
) -> Result<impl Stream<Item = Item>, Response> {
    play(stage, place, &cursor)
}
