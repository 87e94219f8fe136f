//! The feed server of the trials.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{RawQuery, Request};
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::auth::{AuthError, Secret, authenticator_fn};
use hero_sse::server::Tls;
use hero_sse::{CloseReason, Event, HeroSse, LastEventId, Principal, Refusal, SseOptions, Topic};
use lexopt::{Arg, ValueExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::Outcome;

const HELP: &str = "\
A feed server for trials.

Usage: trial serve [OPTIONS]

  --listen ADDR        address to listen on [default: 127.0.0.1:0]; port 0 takes any free one
  --epoch-ms N         when event 0 is due, in milliseconds after 1970 [default: now]
  --interval-ms N      time between events [default: 200]
  --payload BYTES      length of an event's data [default: 100]
  --set KEY=VALUE      an option, as in the section SseOptions; may be repeated
  --cert FILE          speak HTTPS with this certificate (PEM), and this key
  --key FILE
  --self-signed        speak HTTPS with a generated certificate
  --axum               serve the feed with axum's own Sse under axum::serve, for comparison
  --topic EVENTS       publish the feed to a topic that retains so many events; ids are the topic's

  /feed     event n has the id n and is due at epoch + n * interval; resumes after Last-Event-ID or
            ?last_event_id=, and begins with the next event that is due otherwise
  /idle     sends no events; its heartbeat is 60 s
  /private  the same feed, for the token `ann`
  /posted   the same feed for the token `ann`, by POST
  /login    sets the cookie `t` to this token; the query has the cookie's attributes
  /stats    what the server holds, as JSON
  /         an empty page

Prints a line of JSON when it listens, and another when it has ended. SIGTERM ends it.
";

struct Arguments {
    listen: String,
    epoch_ms: Option<u64>,
    interval_ms: u64,
    payload: usize,
    settings: Vec<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    self_signed: bool,
    axum: bool,
    topic: Option<usize>,
}

impl Arguments {
    fn tls(&self) -> Outcome<Option<Tls>> {
        if self.self_signed {
            let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            return Ok(Some(Tls::from_pem(own.cert.pem(), own.signing_key.serialize_pem())?));
        }
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(Tls::from_pem_files(cert, key)?)),
            _ => Err("--cert and --key go together".into()),
        }
    }
}

fn read(mut parser: lexopt::Parser) -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments {
        listen: "127.0.0.1:0".to_owned(),
        epoch_ms: None,
        interval_ms: 200,
        payload: 100,
        settings: Vec::new(),
        cert: None,
        key: None,
        self_signed: false,
        axum: false,
        topic: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("listen") => arguments.listen = parser.value()?.string()?,
            Arg::Long("epoch-ms") => arguments.epoch_ms = Some(parser.value()?.parse()?),
            Arg::Long("interval-ms") => arguments.interval_ms = parser.value()?.parse()?,
            Arg::Long("payload") => arguments.payload = parser.value()?.parse()?,
            Arg::Long("set") => arguments.settings.push(parser.value()?.string()?),
            Arg::Long("cert") => arguments.cert = Some(parser.value()?.into()),
            Arg::Long("key") => arguments.key = Some(parser.value()?.into()),
            Arg::Long("self-signed") => arguments.self_signed = true,
            Arg::Long("axum") => arguments.axum = true,
            Arg::Long("topic") => arguments.topic = Some(parser.value()?.parse()?),
            Arg::Long("help") => return Ok(None),
            other => return Err(format!("{}; see --help", other.unexpected()).into()),
        }
    }
    Ok(Some(arguments))
}

pub(crate) async fn run(parser: lexopt::Parser) -> Outcome {
    let Some(arguments) = read(parser)? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let feed = Feed::new(arguments.epoch_ms, arguments.interval_ms, arguments.payload);
    let census = Census::default();
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?;
    let address = listener.local_addr()?;
    println!("{}", json!({ "listening": address.to_string() }));
    if arguments.axum {
        axum::serve(listener, peer(feed, census)).await?;
        return Ok(ExitCode::SUCCESS);
    }

    let options = options(&arguments.settings)?;
    let only_ann = authenticator_fn(async |token: Secret<String>| match token.expose().as_str() {
        "ann" => Ok(Principal::new("ann")),
        _ => Err(AuthError::invalid("not the token of ann")),
    });
    let sse = HeroSse::builder().options(options).authenticator(only_ann).build()?;
    let app = match arguments.topic {
        Some(keep) => topic(&sse, feed, keep)?,
        None => app(&sse, feed, census.clone())?,
    };
    let mut serve = sse.serve(listener, app).with_graceful_shutdown(hero_sse::shutdown_signal());
    if let Some(tls) = arguments.tls()? {
        serve = serve.tls(tls);
    }
    serve.await?;
    println!("{}", json!({ "stopped": census.stats(Some(&sse)) }));
    Ok(ExitCode::SUCCESS)
}

/// Reads options from settings such as `WriteTimeout=1s`.
pub(crate) fn options(settings: &[String]) -> Outcome<SseOptions> {
    let mut toml = "[SseOptions]\n".to_owned();
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or("--set: write KEY=VALUE")?;
        let bare = value.parse::<u64>().is_ok() || value.parse::<bool>().is_ok();
        let line = if bare { format!("{key} = {value}\n") } else { format!("{key} = {value:?}\n") };
        toml.push_str(&line);
    }
    Ok(SseOptions::from_toml(&toml)?)
}

fn app(sse: &HeroSse, feed: Feed, census: Census) -> Outcome<Router> {
    let (idle, stats, watch) = (census.clone(), census.clone(), census.clone());
    let own = sse.clone();
    let (ours, private) = (feed.clone(), census.clone());
    let private = move |cursor: LastEventId| {
        let from = ours.after(cursor.as_str()).unwrap_or_default();
        std::future::ready(private.watch(ours.from(from)))
    };
    let posted = sse.endpoint("/posted").post_handler(private.clone())?;
    let private = sse.endpoint("/private").handler(private)?;
    let feed = sse.endpoint("/feed").public().handler(async move |cursor: LastEventId| {
        let from = feed.after(cursor.as_str()).map_err(Refusal::bad_request)?;
        Ok::<_, Refusal>(watch.watch(feed.from(from)))
    })?;
    let idle = sse
        .endpoint("/idle")
        .public()
        .heartbeat(Duration::from_secs(60))
        .max_age(None)
        .handler(async move || idle.watch(stream::pending::<Event>()))?;
    let asked = census.clone();
    let count = move |request: Request, next: Next| {
        asked.0.asked.fetch_add(1, Ordering::SeqCst);
        let one_if = |condition: bool| u64::from(condition);
        let cookie = request.headers().contains_key(header::COOKIE);
        asked.0.cookies.fetch_add(one_if(cookie), Ordering::SeqCst);
        let preflight = request.method() == Method::OPTIONS;
        asked.0.preflights.fetch_add(one_if(preflight), Ordering::SeqCst);
        next.run(request)
    };
    Ok(Router::new()
        .merge(feed)
        .merge(idle)
        .merge(private)
        .merge(posted)
        // Does not count the icon that a browser requests by itself.
        .route_layer(from_fn(count))
        .route("/login", get(login))
        .route("/stats", get(async move || axum::Json(stats.stats(Some(&own)))))
        .route("/", get(async || Html("<!doctype html><title>trial</title>"))))
}

/// The feed as one topic, to which every client subscribes.
fn topic(sse: &HeroSse, feed: Feed, keep: usize) -> Outcome<Router> {
    let topic = Topic::builder("feed").retain_events(keep).retain_bytes(64 << 20).build();
    let (ours, own) = (topic.clone(), sse.clone());
    let endpoint = sse.endpoint("/feed").public().handler(async move || ours.subscribe())?;
    let stats = async move || {
        let connections = own.connections();
        let mut stats = Census::default().stats(Some(&own));
        stats["gaps"] = connections.gaps().into();
        axum::Json(stats)
    };
    tokio::spawn(async move {
        let mut numbers = pin!(feed.numbers(0));
        while let Some(n) = numbers.next().await {
            if let Err(error) = topic.publish(Event::text(feed.data(n))).await {
                return eprintln!("{error}");
            }
        }
    });
    Ok(Router::new().merge(endpoint).route("/stats", get(stats)))
}

async fn login(attributes: RawQuery) -> impl IntoResponse {
    let attributes = attributes.0.unwrap_or_default();
    ([(header::SET_COOKIE, format!("t=ann; Path=/; HttpOnly; {attributes}"))], "hello, ann")
}

/// The same feed by axum's own `Sse`.
fn peer(feed: Feed, census: Census) -> Router {
    use axum::http::HeaderMap;
    use axum::response::sse::{Event, KeepAlive, Sse};

    let stats = census.clone();
    let handler = async move |headers: HeaderMap| {
        let cursor = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let from = feed.after(cursor).unwrap_or_default();
        let text = feed.clone();
        let event = move |n: u64| {
            Ok::<_, Infallible>(Event::default().id(n.to_string()).data(text.data(n)))
        };
        Sse::new(census.watch(feed.numbers(from).map(event))).keep_alive(KeepAlive::default())
    };
    Router::new()
        .route("/feed", get(handler))
        .route("/stats", get(async move || axum::Json(stats.stats(None))))
}

/// The feed: event n is due at epoch + n * interval, in every process.
#[derive(Clone)]
pub(crate) struct Feed {
    zero: Instant,
    /// Time from event 0 to `zero`.
    past: Duration,
    interval: Duration,
    filler: Arc<str>,
}

impl Feed {
    pub(crate) fn new(epoch_ms: Option<u64>, interval_ms: u64, payload: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = epoch_ms.map_or(now, Duration::from_millis);
        Self {
            zero: Instant::now() + epoch.saturating_sub(now),
            past: now.saturating_sub(epoch),
            interval: Duration::from_millis(interval_ms.max(1)),
            filler: "x".repeat(payload).into(),
        }
    }

    /// Returns the time from `zero` to event `n`. `None`: it was due before.
    fn due(&self, n: u64) -> Option<Duration> {
        let millis = u64::try_from(self.interval.as_millis()).unwrap_or(1).saturating_mul(n);
        Duration::from_millis(millis).checked_sub(self.past)
    }

    /// Returns the first event for a client with this cursor. Without a cursor: the next that is due.
    pub(crate) fn after(&self, cursor: Option<&str>) -> Result<u64, String> {
        let Some(cursor) = cursor else {
            let since = self.past + self.zero.elapsed();
            let next = since.as_millis() / self.interval.as_millis();
            return Ok(u64::try_from(next).unwrap_or(u64::MAX) + 1);
        };
        let last: u64 = cursor.parse().map_err(|_| format!("{cursor:?} is no number"))?;
        Ok(last + 1)
    }

    fn numbers(&self, from: u64) -> impl Stream<Item = u64> + Send + use<> {
        stream::unfold((self.clone(), from), |(feed, n)| async move {
            if let Some(due) = feed.due(n) {
                let at = feed.zero + due;
                if at > Instant::now() {
                    sleep_until(at).await;
                }
            }
            Some((n, (feed, n + 1)))
        })
    }

    pub(crate) fn from(
        &self,
        from: u64,
    ) -> impl Stream<Item = Result<Event, hero_sse::event::InvalidEvent>> + use<> {
        let feed = self.clone();
        self.numbers(from).map(move |n| Event::text(feed.data(n)).with_id(n))
    }

    /// Returns the number, padded to the length of the payload.
    fn data(&self, n: u64) -> String {
        let mut data = format!("{n} ");
        let rest = self.filler.len().saturating_sub(data.len());
        data.push_str(&self.filler[..rest]);
        data
    }
}

/// Counts user streams and requests.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// Requests for a stream. Each is counted once at its end, with its reason.
    asked: AtomicU64,
    /// Requests with a cookie, and preflights.
    cookies: AtomicU64,
    preflights: AtomicU64,
    opened: AtomicU64,
    alive: AtomicU64,
}

pub(crate) struct Watched<T>(Pin<Box<T>>, Census);

impl Census {
    pub(crate) fn watch<T: Stream>(&self, stream: T) -> Watched<T> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        self.0.alive.fetch_add(1, Ordering::SeqCst);
        Watched(Box::pin(stream), self.clone())
    }

    pub(crate) fn stats(&self, sse: Option<&HeroSse>) -> Value {
        let mut closed = serde_json::Map::new();
        for reason in CloseReason::ALL {
            let count = sse.map_or(0, |sse| sse.connections().closed(*reason));
            if count > 0 {
                closed.insert(reason.as_str().to_owned(), count.into());
            }
        }
        json!({
            "open": sse.map_or(0, |sse| sse.connections().len()),
            "alive": self.0.alive.load(Ordering::SeqCst),
            "asked": self.0.asked.load(Ordering::SeqCst),
            "opened": self.0.opened.load(Ordering::SeqCst),
            "cookies": self.0.cookies.load(Ordering::SeqCst),
            "preflights": self.0.preflights.load(Ordering::SeqCst),
            "closed": closed,
            "tasks": Handle::current().metrics().num_alive_tasks(),
            "fds": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            "rss_kib": resident(),
        })
    }
}

impl<T: Stream> Stream for Watched<T> {
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.1.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns the resident memory of the process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
