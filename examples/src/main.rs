//! The live example: a usage gauge, an audit-log tail and a build feed, on real input, with a page
//! that shows them. `cargo run`, then open the printed address.

pub mod audit;
pub mod builds;
mod cli;
pub mod usage;

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{FromRef, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use hero_sse::auth::Permission;
use hero_sse::options::parse_duration;
use hero_sse::prelude::*;
use hero_sse::{JwtAuthenticator, SseOptions};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jsonwebtoken::{EncodingKey, Header};
use serde::Deserialize;
use serde_json::json;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::audit::{AuditLog, Record};
use crate::builds::Builds;
use crate::cli::Cli;
use crate::usage::Meter;

/// Who issues the demo's tokens, and for whom.
const ISSUER: &str = "hero-sse live example";
const AUDIENCE: &str = "hero-sse live example";

#[derive(Clone)]
struct App {
    meter: Meter,
    log: AuditLog,
    builds: Builds,
    key: EncodingKey,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::from_arguments() {
        Ok(Some(cli)) => cli,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return fail(&error),
    };
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_max_level(log_level(std::env::var_os("RUST_LOG").as_deref()))
        .with_writer(std::io::stderr)
        .init();

    let options = match &cli.options {
        Some(file) => SseOptions::from_file(file)
            .map_err(|error| format!("{error}\nmend the file, or choose another with --options"))?,
        None => SseOptions::from_toml(include_str!("../options.toml"))?,
    };
    // Leeway is for clocks that differ; here issuer and server are one program.
    let jwt = JwtAuthenticator::hs256(&cli.secret)
        .issuer(ISSUER)
        .audience(AUDIENCE)
        .leeway(Duration::ZERO);
    let sse = HeroSse::builder().options(options).authenticator(jwt).build()?;
    let log = AuditLog::open(&cli.audit_log, AuditLog::MAX_BYTES).map_err(|error| {
        format!("audit log {}: {error}; choose another with --audit-log", cli.audit_log.display())
    })?;
    let builds = Builds::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sample"));
    let app = App {
        meter: Meter::start(Duration::from_secs(1)),
        log: log.clone(),
        builds: builds.clone(),
        key: EncodingKey::from_secret(cli.secret.as_bytes()),
    };
    let endpoints = endpoints![usage::usage_stream, audit::audit_stream, builds::build_feed];
    let router = Router::new()
        .route("/", get(async || Html(include_str!("../page/index.html"))))
        .route("/style.css", get(async || asset("text/css", include_str!("../page/style.css"))))
        .route("/app.js", get(async || asset("text/javascript", include_str!("../page/app.js"))))
        .route("/readyz", get(sse.readiness()))
        .route("/token", post(mint))
        .route("/api/v1/builds", post(start_build))
        .merge(sse.at("/api/v1").routes(endpoints)?)
        // The usual trace of every request, with its URI: `RUST_LOG=trace` shows that no token is
        // left in it.
        .layer(
            TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().level(Level::TRACE)),
        )
        .layer(from_fn_with_state(log, keep_record))
        .with_state(app);

    let listener = tokio::net::TcpListener::bind(&cli.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another with --listen", cli.listen)
    })?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("audit log: {}", cli.audit_log.display());
    let served =
        sse.serve(listener, router).with_graceful_shutdown(hero_sse::shutdown_signal()).await;
    builds.stop().await;
    Ok(served?)
}

/// How much is logged. Filters for single targets need more than this example brings along.
fn log_level(wanted: Option<&OsStr>) -> LevelFilter {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
        return LevelFilter::INFO;
    };
    wanted.to_str().and_then(|level| level.parse().ok()).unwrap_or_else(|| {
        eprintln!(
            "warning: RUST_LOG={} is ignored; write error, warn, info, debug, trace or off",
            wanted.display()
        );
        LevelFilter::INFO
    })
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// Every request is a record of the audit log, written when its answer's head is ready. The kit
/// leaves the caller in the response, so the log knows who it was.
async fn keep_record(State(log): State<AuditLog>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let subject = response.extensions().get::<Principal>().map(Principal::subject);
    log.append(&Record::now(&method, &path, response.status().as_u16(), subject)).await;
    response
}

/// What the page asks a token for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    subject: String,
    #[serde(default)]
    permissions: Vec<String>,
    #[serde(default = "one_minute")]
    ttl: String,
}

fn one_minute() -> String {
    "60s".to_owned()
}

/// `POST /token`: signs whatever is wished for. A demonstration: a real issuer asks who you are.
async fn mint(State(app): State<App>, body: Bytes) -> Result<Response, Refusal> {
    let wish: Wish = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!(
            "write {{\"subject\": \"..\", \"permissions\": [\"..\"], \"ttl\": \"60s\"}}: {error}"
        ))
    })?;
    if wish.subject.is_empty() || wish.subject.contains(char::is_control) {
        return Err(Refusal::bad_request("subject: write a name, without control characters"));
    }
    for permission in &wish.permissions {
        Permission::new(permission.clone())
            .map_err(|error| Refusal::bad_request(format!("permissions: {error}")))?;
    }
    let life = parse_duration(&wish.ttl)
        .map_err(|error| Refusal::bad_request(format!("ttl: {error}")))?
        .ok_or_else(|| Refusal::bad_request("ttl: write a duration such as \"15m\""))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": wish.subject,
        "permissions": wish.permissions,
        "exp": now.saturating_add(life).as_secs(),
    });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &app.key)
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "signing failed"))?;
    Ok(Json(json!({ "token": token })).into_response())
}

/// What a build is asked for with.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    broken: bool,
}

/// `POST /api/v1/builds`: an ordinary route behind the same tokens and permissions. Either answer
/// carries the caller, for the audit log.
async fn start_build(
    State(app): State<App>,
    who: Principal,
    body: Bytes,
) -> Result<impl IntoResponse, (Extension<Principal>, Refusal)> {
    let start = async {
        who.require("builds.start")?;
        let order = if body.is_empty() {
            Order::default()
        } else {
            serde_json::from_slice(&body).map_err(|error| {
                Refusal::bad_request(format!("write {{\"broken\": false}}, or nothing: {error}"))
            })?
        };
        let started = app.builds.start(order.broken).await;
        started.map_err(|_| Refusal::new(StatusCode::CONFLICT, "a build is running already"))
    };
    match start.await {
        Ok(build) => Ok((StatusCode::ACCEPTED, Extension(who), Json(json!({ "build": build })))),
        Err(refusal) => Err((Extension(who), refusal)),
    }
}

impl FromRef<App> for Meter {
    fn from_ref(app: &App) -> Self {
        app.meter.clone()
    }
}

impl FromRef<App> for AuditLog {
    fn from_ref(app: &App) -> Self {
        app.log.clone()
    }
}

impl FromRef<App> for Builds {
    fn from_ref(app: &App) -> Self {
        app.builds.clone()
    }
}
