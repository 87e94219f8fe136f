//! A server whose clients choose the lifetime of their tokens, for trials of renewal.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use hero_sse::auth::{AuthError, Secret, Tickets, authenticator_fn};
use hero_sse::{HeroSse, LastEventId, Principal, Refusal};
use lexopt::{Arg, ValueExt};
use serde_json::json;
use tokio::net::TcpListener;

use crate::Outcome;
use crate::serve::{Census, Feed, options};

const HELP: &str = "\
A feed that needs a token, for trials of renewal.

Usage: trial renew [OPTIONS]

  --listen ADDR        address to listen on [default: 127.0.0.1:0]; port 0 takes any free one
  --epoch-ms N         when event 0 is due, in milliseconds after 1970 [default: now]
  --interval-ms N      time between events [default: 200]
  --set KEY=VALUE      an option, as in the section SseOptions; may be repeated

  /feed        event n has the id n and is due at epoch + n * interval
  /tickets     makes tickets for the feed
  /token?N     a token that is valid for N milliseconds
  /tickets.js  the script of the guide on access
  /stream.js   the client of the guide on browsers
  /stats       what the server holds, as JSON
  /            an empty page
";

/// Accepts a token, which is the time when it expires.
fn authenticate(token: &str) -> Result<Principal, AuthError> {
    let millis = token.parse().ok().map(Duration::from_millis);
    let until = millis.and_then(|millis| UNIX_EPOCH.checked_add(millis));
    let valid = until.filter(|until| *until > SystemTime::now());
    let principal = valid.map(|until| Principal::new("ann").valid_until(until));
    principal.ok_or(AuthError::invalid("the token has expired"))
}

async fn token(RawQuery(millis): RawQuery) -> String {
    let lifetime = millis.and_then(|millis| millis.parse().ok()).unwrap_or(60_000);
    let until = SystemTime::now() + Duration::from_millis(lifetime);
    until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().to_string()
}

pub(crate) async fn run(mut parser: lexopt::Parser) -> Outcome {
    let (mut listen, mut settings) = ("127.0.0.1:0".to_owned(), Vec::new());
    let (mut epoch_ms, mut interval_ms) = (None, 200);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("listen") => listen = parser.value()?.string()?,
            Arg::Long("epoch-ms") => epoch_ms = Some(parser.value()?.parse()?),
            Arg::Long("interval-ms") => interval_ms = parser.value()?.parse()?,
            Arg::Long("set") => settings.push(parser.value()?.string()?),
            Arg::Short('h') | Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let (feed, census) = (Feed::new(epoch_ms, interval_ms, 100), Census::default());
    let listener = TcpListener::bind(&listen).await?;
    println!("{}", json!({ "listening": listener.local_addr()?.to_string() }));
    let sse = HeroSse::builder()
        .options(options(&settings)?)
        .authenticator(authenticator_fn(async |token: Secret<String>| authenticate(token.expose())))
        .tickets(Tickets::new().audience("trial"))
        .build()?;
    let (watch, stats, own) = (census.clone(), census, sse.clone());
    let feed = sse.endpoint("/feed").handler(async move |cursor: LastEventId| {
        let from = feed.after(cursor.as_str()).map_err(Refusal::bad_request)?;
        Ok::<_, Refusal>(watch.watch(feed.from(from)))
    })?;
    let script = include_str!("../../hero-sse/docs/tickets.js");
    let guide = include_str!("../../hero-sse/docs/browser.md").split("```js\n");
    let client = guide.filter_map(|rest| rest.split("```").next());
    let client =
        client.filter(|code| code.contains("export function openStream")).collect::<String>();
    let app: Router = Router::new()
        .merge(feed)
        .merge(sse.at("").tickets("/tickets")?)
        .route("/token", get(token))
        .route("/tickets.js", get(async move || ([(CONTENT_TYPE, "text/javascript")], script)))
        .route("/stream.js", get(async move || ([(CONTENT_TYPE, "text/javascript")], client)))
        .route("/stats", get(async move || axum::Json(stats.stats(Some(&own)))))
        .route("/", get(async || Html("<!doctype html><title>trial</title>")));
    sse.serve(listener, app).with_graceful_shutdown(hero_sse::shutdown_signal()).await?;
    Ok(ExitCode::SUCCESS)
}
