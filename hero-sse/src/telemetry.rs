//! Every word the kit logs and every metric it counts, in one place. Nothing here ever sees a token
//! or a query string.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::close::CloseReason;
use crate::throttle::LogThrottle;

const TARGET: &str = "hero_sse";

/// The kit's metrics, with the feature `metrics`: name, labels, what it counts. `path` is the path as
/// it was declared, so there are as many as there are endpoints.
macro_rules! metrics {
    ($($metric:ident = $name:literal, $describe:ident, $labels:literal, $text:literal;)*) => {
        $(const $metric: &str = $name;)*

        #[cfg(test)]
        const METRICS: &[(&str, &str, &str)] = &[$(($name, $labels, $text)),*];

        /// Tells the recorder, where there is one, what the metrics mean.
        pub(crate) fn describe_metrics() {
            #[cfg(feature = "metrics")]
            {
                $(metrics::$describe!($name, $text);)*
            }
        }
    };
}

metrics! {
    STREAMS = "hero_sse_streams", describe_gauge, "path", "Slots in use: streams that are open, and those that are opening.";
    OPENED = "hero_sse_streams_opened_total", describe_counter, "path", "Streams that opened.";
    CLOSED = "hero_sse_streams_closed_total", describe_counter, "path, reason",
        "Streams that ended and requests that were rejected, by `CloseReason`.";
    SECONDS = "hero_sse_stream_seconds", describe_histogram, "path, reason",
        "Duration of streams from their admission to their end.";
    TURNED_AWAY = "hero_sse_turned_away_total", describe_counter, "path, limit",
        "Requests that were rejected over a limit.";
    REFUSED = "hero_sse_refused_total", describe_counter, "path, status",
        "Requests that were refused, by status.";
    GAPS = "hero_sse_gaps_total", describe_counter, "path",
        "Gaps: times that a client missed events and received `hero.gap`.";
    BLOCKING = "hero_sse_blocking_total", describe_counter, "path",
        "Times that user code blocked a worker thread.";
    SENT = "hero_sse_sent_total", describe_counter, "outcome",
        "Streams that `Connections::send` selected: `accepted`, or `full` if the client was too far behind.";
}

type Labels<'a> = &'a [(&'static str, &'a str)];

/// Adds one to a counter.
fn count(name: &'static str, labels: Labels<'_>) {
    add(name, labels, 1);
}

fn add(name: &'static str, labels: Labels<'_>, number: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name, owned(labels)).increment(number as u64);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, labels, number);
}

#[cfg(feature = "metrics")]
fn owned(labels: Labels<'_>) -> Vec<metrics::Label> {
    labels.iter().map(|(key, value)| metrics::Label::new(*key, (*value).to_owned())).collect()
}

/// A place was taken, or (`-1.0`) given back.
pub(crate) fn places(path: &str, change: f64) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(STREAMS, owned(&[("path", path)])).increment(change);
    #[cfg(not(feature = "metrics"))]
    let _ = (STREAMS, path, change);
}

pub(crate) fn opened(path: &str, connection: u64, subject: Option<&str>) {
    count(OPENED, &[("path", path)]);
    tracing::debug!(target: TARGET, path, connection, subject, "stream opened");
}

pub(crate) fn closed(path: &str, connection: u64, reason: CloseReason, age: Duration) {
    let (reason, age_ms) = (reason.as_str(), age.as_millis());
    let labels = [("path", path), ("reason", reason)];
    count(CLOSED, &labels);
    #[cfg(feature = "metrics")]
    metrics::histogram!(SECONDS, owned(&labels)).record(age);
    #[cfg(not(feature = "metrics"))]
    let _ = SECONDS;
    tracing::debug!(target: TARGET, path, connection, reason, age_ms, "stream closed");
}

/// An endpoint declares another name than the events of its topic have. Once a path, since each stream finds it.
pub(crate) fn other_name(path: &str, declared: &dyn Display, name: &str) {
    static TOLD: Mutex<BTreeSet<Box<str>>> = Mutex::new(BTreeSet::new());
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into()) {
        tracing::warn!(
            target: TARGET,
            path,
            %declared,
            name,
            "the endpoint declares an `event` that the events of its topic do not have, since a topic names them \
             itself: give the name to `Topic::builder(..).event(..)` or to the event's type, and leave it out here"
        );
    }
}

/// A client was told of events that it cannot have any more.
pub(crate) fn gap(path: &str, connection: u64) {
    count(GAPS, &[("path", path)]);
    tracing::debug!(target: TARGET, path, connection, "a client was told of a gap");
}

/// There was no place for a request; its end counts as that of a stream which never began.
pub(crate) fn turned_away(path: &str, reason: CloseReason, limit: &str) {
    count(TURNED_AWAY, &[("path", path), ("limit", limit)]);
    count(CLOSED, &[("path", path), ("reason", reason.as_str())]);
}

/// `kept_back` lines like it were not said since the last one.
pub(crate) fn over_limit(path: &str, limit: &str, kept_back: u64) {
    tracing::warn!(target: TARGET, path, limit, kept_back, "connection limit reached");
}

pub(crate) fn late(path: &str, why: &str) {
    tracing::debug!(target: TARGET, path, why, "turned away");
}

pub(crate) fn unknown_variable(variable: &str) {
    tracing::warn!(target: TARGET, variable, "this environment variable is no option; ignored");
}

pub(crate) fn not_tcp() {
    tracing::warn!(
        target: TARGET,
        "the listener's sockets are not plain TCP: the write timeout holds, but the kernel's \
         buffers and its peer timeout are as the listener sets them"
    );
}

/// A span for a request, which no token is in: method, path without the query, version.
///
/// It is what `TraceLayer` of `tower-http` takes: `TraceLayer::new_for_http().make_span_with(request_span)`.
/// Its own default shows the whole URI, and so the token where nothing [takes it
/// out](crate::HeroSse::redact_layer).
///
/// ```
/// let request = hero_sse::axum::http::Request::get("/usage?access_token=secret").body(()).unwrap();
/// let _entered = hero_sse::server::request_span(&request).entered();
/// ```
#[cfg(feature = "server")]
pub fn request_span<B>(request: &http::Request<B>) -> tracing::Span {
    tracing::info_span!(
        target: TARGET,
        "request",
        method = %request.method(),
        path = request.uri().path(),
        version = ?request.version(),
    )
}

pub(crate) fn deprecated(path: &str) {
    tracing::info!(target: TARGET, path, "an endpoint that is marked as deprecated is still in use");
}

pub(crate) fn refused(path: &str, status: u16, detail: &str) {
    count(REFUSED, &[("path", path), ("status", &status.to_string())]);
    tracing::debug!(target: TARGET, path, status, detail, "request refused");
}

/// Whether callers may have a stream could not be found out, so they may not. While a database is down
/// that is so of everybody who comes: each who could not tell is named once a second at most.
#[derive(Default)]
pub(crate) struct VerificationFailures(Mutex<LogThrottle<&'static str>>);

impl VerificationFailures {
    pub(crate) fn log(&self, path: &str, who: &'static str, why: &dyn Display) {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner).allow(who, Instant::now());
        let Some(kept_back) = said else { return };
        tracing::error!(
            target: TARGET,
            path,
            who,
            %why,
            kept_back,
            "a caller could not be verified, and is refused"
        );
    }
}

/// There was no room for another topic. Each family says so once a second at most.
#[derive(Default)]
pub(crate) struct Full(Mutex<LogThrottle<()>>);

impl Full {
    pub(crate) fn tell(&self, family: &str, most: usize) {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner).allow((), Instant::now());
        let Some(kept_back) = said else { return };
        tracing::warn!(
            target: TARGET,
            family,
            most,
            kept_back,
            "there is no room for another topic: each is held, followed or keeps events"
        );
    }
}

/// Once with the cure, since behind a proxy this is how a missing option shows; a stranger must not
/// fill the log.
pub(crate) fn foreign_page(path: &str, origin: Option<String>, host: Option<String>) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    tracing::debug!(target: TARGET, path, origin, host, "a cookie came from a page of another site");
    TOLD.call_once(|| {
        tracing::warn!(
            target: TARGET,
            path,
            origin,
            host,
            "a token came by cookie from a page that is not known to be this application's, and was \
             refused. If it is yours, name its origin in `PublicOrigins` (or in `CorsOrigins`, with \
             `CorsCredentials`); said once, further ones at DEBUG"
        );
    });
}

/// What the client is not told: whose token it claims to be, and which keys there are.
#[cfg(feature = "jwt")]
pub(crate) fn token_refused(why: &'static str) {
    tracing::debug!(target: TARGET, why, "a token's signature is not accepted");
}

#[cfg(feature = "jwt")]
pub(crate) fn keys_changed(source: &str, keys: usize, left_out: &[String]) {
    tracing::info!(target: TARGET, source, keys, "tokens are checked with new keys");
    for why in left_out {
        tracing::warn!(target: TARGET, source, why, "a key of an issuer is left out");
    }
}

#[cfg(feature = "jwt")]
pub(crate) fn keys_back(source: &str) {
    tracing::info!(target: TARGET, source, "the keys of an issuer can be had again");
}

/// Once a minute at most for each source.
#[cfg(feature = "jwt")]
pub(crate) fn keys_missing(source: &str, why: &str, old_ones: bool) {
    let meanwhile = match old_ones {
        true => "the old ones serve on, for a day at most",
        false => "nobody is let in who needs them",
    };
    tracing::error!(target: TARGET, source, why, meanwhile, "the keys of an issuer cannot be had");
}

pub(crate) fn refused_with_success(path: &str, status: u16) {
    tracing::error!(
        target: TARGET,
        path,
        status,
        "the endpoint's `Err` has the status of a success, as a `String` and `()` do; answered 500: \
         give it a status of its own, such as by a `Refusal`"
    );
}

pub(crate) fn unusable_stream(path: &str, fault: &str) {
    tracing::error!(target: TARGET, path, %fault, "the endpoint's stream cannot be sent; answered 500");
}

pub(crate) fn stream_error(path: &str, connection: u64, error: &dyn Display) {
    tracing::error!(target: TARGET, path, connection, %error, "the application's stream failed");
}

/// Whoever sent it is told no more than that. While a broker is down that is so of every event: each kind of error is
/// said once a second at most.
pub(crate) fn not_published(what: &'static str, error: &dyn Display) {
    static SAID: LazyLock<Mutex<LogThrottle<&'static str>>> = LazyLock::new(Mutex::default);
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).allow(what, Instant::now());
    let Some(kept_back) = said else { return };
    tracing::warn!(target: TARGET, %error, kept_back, "an event was not published");
}

/// Whoever asked for it is told no more than that.
pub(crate) fn not_written(error: &dyn Display) {
    tracing::error!(target: TARGET, %error, "an event of the application's cannot be written");
}

pub(crate) fn panicked(path: &str, what: &str) {
    tracing::error!(target: TARGET, path, what, "the application's code panicked");
}

pub(crate) fn unreadable(topic: &str) {
    tracing::error!(
        target: TARGET,
        topic,
        "events of another node cannot be read here: filters leave them out, and states lack them; say how with `decode`"
    );
}

/// Before a stream is opened there is no connection to name.
pub(crate) fn blocking(path: &str, connection: Option<u64>, took: Duration) {
    count(BLOCKING, &[("path", path)]);
    let took_ms = took.as_millis();
    tracing::warn!(
        target: TARGET,
        path,
        connection,
        took_ms,
        "the application's code blocked a worker thread: await, or use `spawn_blocking`"
    );
}

pub(crate) fn no_transport() {
    tracing::warn!(
        target: TARGET,
        "this router runs neither under `sse.serve` nor behind `sse.guard`: a stalled client is noticed when \
         the kernel's buffers are full, which is megabytes, and keeps its connection; there is no peer \
         timeout, tokens stay in the URI for your own layers to see (unless `sse.redact_layer()` is the \
         outermost), and streams do not end at shutdown. \
         Serve it by `sse.serve(listener, app)`; under another server `sse.guard` and \
         `sse.guard_connection` bring all but the last, and `sse.drain()` that"
    );
}

pub(crate) fn guarded() {
    tracing::info!(
        target: TARGET,
        "guarding the connections of another server than `sse.serve`: streams do not end at its \
         shutdown, and a stalled HTTP/2 stream is ended, not reset"
    );
}

pub(crate) fn misdeclared(mistake: &dyn Display) {
    tracing::error!(target: TARGET, %mistake, "a stream was declared wrongly and is refused");
}

pub(crate) fn no_kit() {
    tracing::error!(
        target: TARGET,
        "`SseContext` found no kit: run the app under `sse.serve`, or add `.layer(Extension(sse))`"
    );
}

pub(crate) fn no_gate() {
    tracing::error!(
        target: TARGET,
        "`Principal` is extracted on a route without authentication, so every caller is without a token. Serve \
         the app by `sse.serve` or behind `sse.guard`, or call `sse.authenticate`"
    );
}

/// `kept_back` lines of this address were not said since the last one.
pub(crate) fn failed_attempts(address: IpAddr, kept_back: u64) {
    tracing::warn!(
        target: TARGET,
        %address,
        kept_back,
        "too many tokens from this address were not accepted: its next ones are not looked at"
    );
}

pub(crate) fn unnamed_proxy(address: IpAddr) {
    tracing::warn!(
        target: TARGET,
        %address,
        "requests come through a proxy that `TrustedProxies` does not name: failed attempts through it are not \
         limited, since everybody would share its address, and `MaxPerAddress` takes them for one client. Name it"
    );
}

pub(crate) fn unmapped_options(path: &str) {
    tracing::warn!(
        target: TARGET,
        path,
        "options name a path that no endpoint is mapped at (a route with `SseContext` may be); check \
         the spelling and the prefix"
    );
}

pub(crate) fn no_kernel_options(error: &dyn Display) {
    tracing::warn!(
        target: TARGET,
        %error,
        "a socket refused its options: stalled clients may be noticed late"
    );
}

pub(crate) fn not_ready(delay: Duration) {
    tracing::info!(target: TARGET, ?delay, "shutting down: no longer ready");
}

pub(crate) fn draining(connections: usize) {
    tracing::info!(target: TARGET, connections, "shutting down: saying farewell");
}

pub(crate) fn disconnected(connections: usize, reason: CloseReason) {
    tracing::info!(target: TARGET, connections, reason = reason.as_str(), "streams were disconnected");
}

pub(crate) fn sent(accepted: usize, full: usize) {
    add(SENT, &[("outcome", "accepted")], accepted);
    add(SENT, &[("outcome", "full")], full);
    tracing::debug!(target: TARGET, accepted, full, "an event was sent to open streams");
}

pub(crate) fn drain_cut(sockets: usize) {
    tracing::warn!(target: TARGET, sockets, "drain timeout reached: sockets reset");
}

pub(crate) fn left_behind(tasks: usize) {
    tracing::warn!(
        target: TARGET,
        tasks,
        "the server ends while the application's code still blocks threads of its connections"
    );
}

pub(crate) fn handshake_failed(error: &dyn Display) {
    tracing::debug!(target: TARGET, %error, "a TLS handshake failed");
}

#[cfg(feature = "tls")]
pub(crate) fn certificate_reloaded(file: &Path) {
    let file = file.display();
    tracing::info!(target: TARGET, %file, "the certificate has changed; new connections get the new one");
}

#[cfg(feature = "tls")]
pub(crate) fn certificate_kept(error: &dyn Display) {
    tracing::error!(
        target: TARGET,
        %error,
        "the certificate has changed and cannot be used; the old one stays in use"
    );
}

pub(crate) fn open_files_raised(from: u64, to: u64) {
    tracing::info!(target: TARGET, from, to, "raised the limit of open files to what `MaxConnections` needs");
}

pub(crate) fn open_files_short(limit: u64, needed: u64, max_connections: u64) {
    tracing::warn!(
        target: TARGET,
        limit,
        needed,
        max_connections,
        "the limit of open files is below what `MaxConnections` needs: clients will wait for a place \
         without an answer. Raise it (`ulimit -n`, `LimitNOFILE=` in a systemd unit), or lower \
         `MaxConnections`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_lists_every_metric() {
        let page = include_str!("../docs/monitoring.md");
        for (name, labels, text) in METRICS {
            let row = format!("| `{name}` | {labels} | {text} |");
            assert!(page.contains(&row), "the guide lacks this row:\n{row}");
        }
    }
}
