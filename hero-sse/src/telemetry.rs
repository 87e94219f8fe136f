//! All log messages and metrics. No token and no query string reaches them.

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

/// The metrics, with the feature `metrics`: name, labels, meaning. `path` is the declared path, so there is one label
/// value per endpoint.
macro_rules! metrics {
    ($($metric:ident = $name:literal, $describe:ident, $labels:literal, $text:literal;)*) => {
        $(const $metric: &str = $name;)*

        #[cfg(test)]
        const METRICS: &[(&str, &str, &str)] = &[$(($name, $labels, $text)),*];

        /// Describes the metrics to the recorder, if there is one.
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
    REJECTED = "hero_sse_turned_away_total", describe_counter, "path, limit",
        "Requests that were rejected over a limit.";
    REFUSED = "hero_sse_refused_total", describe_counter, "path, status",
        "Requests that were refused, by status.";
    GAPS = "hero_sse_gaps_total", describe_counter, "path",
        "Gaps: times that a client missed events and received `hero.gap`.";
    BLOCKING = "hero_sse_blocking_total", describe_counter, "path",
        "Times that user code blocked a worker thread.";
    HOOK_CALLS_DROPPED = "hero_sse_hook_calls_dropped_total", describe_counter, "hook, cause",
        "Calls of `on_open` and `on_close` that were dropped: `queue_full`, `timeout`, or `unfinished` at a shutdown.";
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

/// Counts a slot that was taken (`1.0`) or released (`-1.0`).
pub(crate) fn slots(path: &str, change: f64) {
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

/// Logs that an endpoint declares another name than the events of its topic have. Once per path, since each of its
/// streams finds the same.
pub(crate) fn event_name_ignored(path: &str, declared: &dyn Display, name: &str) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if LOGGED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into()) {
        tracing::warn!(
            target: TARGET,
            path,
            %declared,
            name,
            "the endpoint's `event` is ignored, because a topic names its events itself: set the name with \
             `Topic::builder(..).event(..)` or on the event's type, and remove it from the endpoint"
        );
    }
}

/// Logs that user code polls a subscription inside a stream of its own, which the library cannot resume. Once per path.
#[cfg(feature = "server")]
pub(crate) fn unseen_subscription(path: &str) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if LOGGED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into()) {
        tracing::warn!(
            target: TARGET,
            path,
            "the endpoint reads a subscription inside another stream: reconnecting clients miss events, and `Overflow`, \
             `begin_with` and `on_gap` do not apply to it. Return the subscription itself (it has `map`, `filter`, \
             `take` and `and`), or take a `LastEventId` as argument and call `resume(&cursor)` before the adaptor"
        );
    }
}

/// Counts a client that missed events. A native one was sent `hero.gap`.
pub(crate) fn gap(path: &str, connection: u64) {
    count(GAPS, &[("path", path)]);
    tracing::debug!(target: TARGET, path, connection, "a client missed events");
}

/// Counts a rejected request. It also counts as a stream that ended.
pub(crate) fn rejected(path: &str, reason: CloseReason, limit: &str) {
    count(REJECTED, &[("path", path), ("limit", limit)]);
    count(CLOSED, &[("path", path), ("reason", reason.as_str())]);
}

/// Logs a limit that was reached. `suppressed` lines like this were not logged since the last one.
pub(crate) fn over_limit(path: &str, limit: &str, suppressed: u64) {
    tracing::warn!(target: TARGET, path, limit, suppressed, "connection limit reached");
}

pub(crate) fn rejected_late(path: &str, why: &str) {
    tracing::debug!(target: TARGET, path, why, "request rejected");
}

pub(crate) fn unknown_variable(variable: &str) {
    tracing::warn!(target: TARGET, variable, "unknown environment variable, ignored");
}

pub(crate) fn not_tcp() {
    tracing::warn!(
        target: TARGET,
        "the listener's sockets are not plain TCP: the write timeout holds, but the listener must set the \
         kernel's buffers and peer timeout"
    );
}

/// Creates a tracing span for a request, without its token: method, path without the query, and version.
///
/// Pass it to `tower-http`: `TraceLayer::new_for_http().make_span_with(request_span)`. The layer's default span shows
/// the whole URI. That includes the token, unless [`redact_layer`](crate::HeroSse::redact_layer) has removed it.
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

/// Logs that a caller could not be verified. At most once a second per source, such as the authorizer, because an
/// outage affects every caller.
#[derive(Default)]
pub(crate) struct VerificationFailures(Mutex<LogThrottle<&'static str>>);

impl VerificationFailures {
    pub(crate) fn log(&self, path: &str, source: &'static str, why: &dyn Display) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = log.allow(source, Instant::now()) else { return };
        tracing::error!(
            target: TARGET,
            path,
            source,
            %why,
            suppressed,
            "a caller could not be verified and is refused"
        );
    }
}

/// Logs that `KeyedTopics` has reached its limit: at most once a second for each.
#[derive(Default)]
pub(crate) struct TopicLimitLog(Mutex<LogThrottle<()>>);

impl TopicLimitLog {
    pub(crate) fn log(&self, topics: &str, max_topics: usize) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = log.allow((), Instant::now()) else { return };
        tracing::warn!(
            target: TARGET,
            topics,
            max_topics,
            suppressed,
            "`max_topics` is reached: every topic has an owner, a subscriber or retained events"
        );
    }
}

/// Logs what befalls calls of hooks: at most once a second per hook and cause, since it befalls every stream.
#[derive(Default)]
pub(crate) struct HookLog(Mutex<LogThrottle<(&'static str, &'static str)>>);

impl HookLog {
    fn allow(&self, hook: &'static str, cause: &'static str) -> Option<u64> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.allow((hook, cause), Instant::now())
    }

    /// Counts and logs calls that were dropped. `total` were dropped so far.
    pub(crate) fn dropped(&self, hook: &'static str, cause: &'static str, calls: u64, total: u64) {
        add(HOOK_CALLS_DROPPED, &[("hook", hook), ("cause", cause)], calls as usize);
        let Some(suppressed) = self.allow(hook, cause) else { return };
        tracing::warn!(
            target: TARGET,
            hook,
            cause,
            calls,
            total,
            suppressed,
            "calls of a connection hook were dropped: it is too slow, or does not return"
        );
    }

    pub(crate) fn panicked(&self, path: &str, connection: u64, hook: &'static str) {
        let Some(suppressed) = self.allow(hook, "panic") else { return };
        tracing::error!(target: TARGET, path, connection, hook, suppressed, "a connection hook panicked");
    }
}

/// Logs the cure once, because a missing option shows like this behind a proxy. Further cases are logged at DEBUG, so
/// that nobody can fill the log.
pub(crate) fn foreign_page(path: &str, origin: Option<String>, host: Option<String>) {
    static LOGGED: std::sync::Once = std::sync::Once::new();
    tracing::debug!(target: TARGET, path, origin, host, "a page of another site sent a cookie");
    LOGGED.call_once(|| {
        tracing::warn!(
            target: TARGET,
            path,
            origin,
            host,
            "a cookie with a token came from a page of an unknown origin and was refused. If the page is yours, add \
             its origin to `PublicOrigins`, or to `CorsOrigins` with `CorsCredentials`. Further cases are logged \
             at DEBUG"
        );
    });
}

/// Logs why a signature was refused. The client does not receive the reason.
#[cfg(feature = "jwt")]
pub(crate) fn token_refused(why: &'static str) {
    tracing::debug!(target: TARGET, why, "a token's signature was refused");
}

#[cfg(feature = "jwt")]
pub(crate) fn keys_changed(source: &str, keys: usize, left_out: &[String]) {
    tracing::info!(target: TARGET, source, keys, "tokens are checked with new keys");
    for why in left_out {
        tracing::warn!(target: TARGET, source, why, "a key of an issuer is ignored");
    }
}

#[cfg(feature = "jwt")]
pub(crate) fn keys_back(source: &str) {
    tracing::info!(target: TARGET, source, "the keys of an issuer are available again");
}

/// Logs that keys could not be fetched. The caller limits it to once a minute per source.
#[cfg(feature = "jwt")]
pub(crate) fn keys_missing(source: &str, why: &str, known_keys: bool) {
    let meanwhile = match known_keys {
        true => "known keys remain valid for up to a day",
        false => "tokens of this issuer are refused",
    };
    tracing::error!(target: TARGET, source, why, meanwhile, "cannot fetch the keys of an issuer");
}

pub(crate) fn refused_with_success(path: &str, status: u16) {
    tracing::error!(
        target: TARGET,
        path,
        status,
        "the endpoint's `Err` has a success status, as `String` and `()` do, so the answer is 500: \
         return an error with a status, such as a `Refusal`"
    );
}

pub(crate) fn header_dropped(path: &str, header: &dyn Display) {
    tracing::warn!(
        target: TARGET,
        path,
        %header,
        "the endpoint's function sets a header that the library sets itself, so its value is dropped: leave it out"
    );
}

pub(crate) fn head_too_late(path: &str, connection: u64) {
    tracing::error!(
        target: TARGET,
        path,
        connection,
        "the endpoint is `early`, and its function returns headers after the head was sent, so they are dropped: \
         return the stream alone, or leave out `early`"
    );
}

pub(crate) fn unusable_stream(path: &str, fault: &str) {
    tracing::error!(target: TARGET, path, %fault, "the endpoint's stream cannot be sent, so the answer is 500");
}

pub(crate) fn stream_error(path: &str, connection: u64, error: &dyn Display) {
    tracing::error!(target: TARGET, path, connection, %error, "the application's stream failed");
}

/// Logs why an endpoint answers `502`. At most once a second, because an outage of an upstream affects every request.
pub(crate) fn not_adopted(error: &dyn Display) {
    static LOGGED: LazyLock<Mutex<LogThrottle<()>>> = LazyLock::new(Mutex::default);
    let mut log = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(suppressed) = log.allow((), Instant::now()) else { return };
    tracing::warn!(target: TARGET, %error, suppressed, "an upstream's answer cannot be passed on as a stream");
}

/// Logs that an event was not published. The client that sent it receives no details. At most once a second per kind
/// of error, because an outage of a broker affects every event.
pub(crate) fn not_published(what: &'static str, error: &dyn Display) {
    static LOGGED: LazyLock<Mutex<LogThrottle<&'static str>>> = LazyLock::new(Mutex::default);
    let mut log = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(suppressed) = log.allow(what, Instant::now()) else { return };
    tracing::warn!(target: TARGET, %error, suppressed, "an event was not published");
}

/// Logs that an event could not be encoded. The client that asked for it receives no details.
pub(crate) fn not_encoded(error: &dyn Display) {
    tracing::error!(target: TARGET, %error, "an event cannot be encoded");
}

pub(crate) fn panicked(path: &str, what: &str) {
    tracing::error!(target: TARGET, path, what, "user code panicked");
}

pub(crate) fn not_decoded(topic: &str) {
    tracing::error!(
        target: TARGET,
        topic,
        "cannot decode events of another node: filters and snapshots ignore them. Set `TopicBuilder::decode`"
    );
}

/// Counts and logs user code that blocked a worker thread. Before a stream is open, it has no connection.
pub(crate) fn blocking(path: &str, connection: Option<u64>, took: Duration) {
    count(BLOCKING, &[("path", path)]);
    let took_ms = took.as_millis();
    tracing::warn!(
        target: TARGET,
        path,
        connection,
        took_ms,
        "user code blocked a worker thread: await, or use `spawn_blocking`"
    );
}

pub(crate) fn unguarded() {
    tracing::warn!(
        target: TARGET,
        "this router runs without `sse.serve` or `sse.guard`. Stalled clients are noticed late and keep their \
         connections, tokens stay in URIs unless `sse.redact_layer()` is the outermost layer, and streams do not end \
         at shutdown. Use `sse.serve(listener, app)`. Under another server use `sse.guard` and \
         `sse.guard_connection`, and call `sse.drain()` at shutdown"
    );
}

pub(crate) fn guarded() {
    tracing::info!(
        target: TARGET,
        "guarding the connections of another server: call `sse.drain()` at its shutdown, or streams do not end; \
         a stalled HTTP/2 stream is ended, not reset"
    );
}

pub(crate) fn misdeclared(mistake: &dyn Display) {
    tracing::error!(target: TARGET, %mistake, "a stream with an invalid declaration is refused");
}

pub(crate) fn no_server() {
    tracing::error!(
        target: TARGET,
        "`SseContext` found no `HeroSse`: serve the app with `sse.serve`, or add `.layer(Extension(sse))`"
    );
}

pub(crate) fn no_connection(path: &str) {
    tracing::error!(
        target: TARGET,
        path,
        "a handler extracts `Connection` where no stream opens, so the answer is 500: take it in an endpoint's \
         function, or after an `SseContext`, or take `Option<Connection>`"
    );
}

pub(crate) fn no_gate() {
    tracing::error!(
        target: TARGET,
        "a handler extracts `Principal` on a route without authentication, so every caller counts as anonymous: \
         serve the app with `sse.serve` or `sse.guard`, or call `sse.authenticate`"
    );
}

/// Logs an address over its limit of invalid tokens. `suppressed` lines like this were not logged since the last one.
pub(crate) fn failed_attempts(address: IpAddr, suppressed: u64) {
    tracing::warn!(
        target: TARGET,
        %address,
        suppressed,
        "too many invalid tokens from this address: further tokens are rejected without a check for a while"
    );
}

pub(crate) fn unnamed_proxy(address: IpAddr) {
    tracing::warn!(
        target: TARGET,
        %address,
        "requests come through a proxy that is not in `TrustedProxies`: failed attempts through it are not limited, \
         and `MaxPerAddress` counts all its clients as one. Add its address to `TrustedProxies`"
    );
}

pub(crate) fn unmapped_options(path: &str) {
    tracing::warn!(
        target: TARGET,
        path,
        "options name a path without an endpoint (a route with `SseContext` may have it): check the spelling and \
         the prefix"
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
    tracing::info!(target: TARGET, connections, "shutting down: ending streams");
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
        "the server ends while user code still blocks threads of its connections"
    );
}

pub(crate) fn handshake_failed(error: &dyn Display) {
    tracing::debug!(target: TARGET, %error, "a TLS handshake failed");
}

#[cfg(feature = "tls")]
pub(crate) fn certificate_reloaded(file: &Path) {
    let file = file.display();
    tracing::info!(target: TARGET, %file, "the certificate has changed: new connections use the new one");
}

#[cfg(feature = "tls")]
pub(crate) fn certificate_kept(error: &dyn Display) {
    tracing::error!(
        target: TARGET,
        %error,
        "the new certificate cannot be used: the old one stays in use"
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
        "the limit of open files is below what `MaxConnections` needs: further clients will wait without an \
         answer. Raise it (`ulimit -n`, `LimitNOFILE=` in a systemd unit), or lower \
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
