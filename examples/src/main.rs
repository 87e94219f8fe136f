//! The live example: three event streams from real sources, and a page that shows them. `cargo run`, then open the
//! printed address.
//!
//! This file builds the server. Each stream is one file, and each shows another kind of topic:
//!
//! * `usage.rs`: a gauge. Only the newest reading counts, so a new or slow client gets that one.
//! * `audit.rs`: a log. Every line counts, so a reconnecting client resumes after the last line it received.
//! * `builds.rs`: a feed with an end. A new client gets all events of the current build, and the last one ends the stream.

pub mod audit;
pub mod builds;
mod cli;
mod page;
pub mod token;
pub mod usage;

use std::error::Error;
use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hero_sse::prelude::*;
use hero_sse::{SseOptions, shutdown_signal};
use tokio::net::TcpListener;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::audit::AuditLog;
use crate::builds::Builds;
use crate::cli::Cli;
use crate::token::TokenIssuer;
use crate::usage::Meter;

/// The state of the application. Handlers extract its parts, as `State<Meter>` and so on.
#[derive(Clone)]
struct App {
    meter: Meter,
    log: AuditLog,
    builds: Builds,
    issuer: TokenIssuer,
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

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(log_level(std::env::var_os("RUST_LOG").as_deref()))
        .with_writer(std::io::stderr)
        .init();

    // 1. The settings and the authenticator. `build` reports all mistakes in them at once.
    let options = match &cli.options {
        Some(file) => SseOptions::from_file(file)
            .map_err(|error| format!("{error}\nmend the file, or choose another with --options"))?,
        None => SseOptions::from_toml(include_str!("../options.toml"))?,
    };
    let sse = HeroSse::builder()
        .options(options)
        .authenticator(token::authenticator(&cli.secret))
        .build()?;

    // 2. The state: what the streams read from.
    let log = AuditLog::open(&cli.audit_log, AuditLog::MAX_BYTES).map_err(|error| {
        format!("audit log {}: {error}; choose another with --audit-log", cli.audit_log.display())
    })?;
    let builds = Builds::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sample"));
    let app = App {
        meter: Meter::start(Duration::from_secs(1)),
        log: log.clone(),
        builds: builds.clone(),
        issuer: TokenIssuer::new(&cli.secret),
    };

    // 3. The routes: streams beside ordinary handlers, in an ordinary axum router.
    let endpoints = endpoints![usage::usage_stream, audit::audit_stream, builds::build_feed];
    let router = Router::new()
        .merge(page::routes())
        .route("/readyz", get(sse.readiness()))
        .route("/token", post(token::issue))
        .route("/api/v1/builds", post(builds::start_build))
        .merge(sse.at("/api/v1").routes(endpoints)?)
        // Logs every request with its URI. `RUST_LOG=trace` shows that the URI contains no token.
        .layer(
            TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().level(Level::TRACE)),
        )
        .layer(from_fn_with_state(log, audit::record_request))
        .with_state(app);

    // 4. The server. On Ctrl-C every stream receives a closing event and ends.
    let listener = TcpListener::bind(&cli.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another with --listen", cli.listen)
    })?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    println!("audit log: {}", cli.audit_log.display());
    if !address.ip().is_loopback() {
        tracing::warn!("everyone who reaches {address} gets a token for every permission");
    }
    let served = sse.serve(listener, router).with_graceful_shutdown(shutdown_signal()).await;
    builds.stop().await;
    Ok(served?)
}

/// Reads the log level. Filters for single modules need a feature of tracing-subscriber that this example leaves out.
fn log_level(variable: Option<&OsStr>) -> LevelFilter {
    let Some(level) = variable.filter(|level| !level.is_empty()) else {
        return LevelFilter::INFO;
    };
    level.to_str().and_then(|level| level.parse().ok()).unwrap_or_else(|| {
        eprintln!(
            "warning: RUST_LOG={} is ignored; write error, warn, info, debug, trace or off",
            level.display()
        );
        LevelFilter::INFO
    })
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

impl FromRef<App> for TokenIssuer {
    fn from_ref(app: &App) -> Self {
        app.issuer.clone()
    }
}
