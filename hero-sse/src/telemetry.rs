//! Every word the kit logs, in one place. Nothing here ever sees a token or a query string.

use std::fmt::Display;
#[cfg(feature = "tls")]
use std::path::Path;
use std::time::Duration;

use crate::close::CloseReason;

const TARGET: &str = "hero_sse";

pub(crate) fn opened(path: &str, connection: u64, subject: Option<&str>) {
    tracing::debug!(target: TARGET, path, connection, subject, "stream opened");
}

pub(crate) fn closed(path: &str, connection: u64, reason: CloseReason, age: Duration) {
    let (reason, age_ms) = (reason.as_str(), age.as_millis());
    tracing::debug!(target: TARGET, path, connection, reason, age_ms, "stream closed");
}

pub(crate) fn over_limit(path: &str, limit: &str) {
    tracing::warn!(target: TARGET, path, limit, "connection limit reached");
}

pub(crate) fn late(path: &str) {
    tracing::debug!(target: TARGET, path, "turned away: the server is shutting down");
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

pub(crate) fn deprecated(path: &str) {
    tracing::info!(target: TARGET, path, "an endpoint that is marked as deprecated is still in use");
}

pub(crate) fn refused(path: &str, status: u16, detail: &str) {
    tracing::debug!(target: TARGET, path, status, detail, "request refused");
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

pub(crate) fn stream_error(path: &str, connection: u64, error: &dyn Display) {
    tracing::error!(target: TARGET, path, connection, %error, "the application's stream failed");
}

pub(crate) fn panicked(path: &str, what: &str) {
    tracing::error!(target: TARGET, path, what, "the application's code panicked");
}

pub(crate) fn no_transport() {
    tracing::warn!(
        target: TARGET,
        "this router runs neither under `sse.serve` nor behind `sse.guard`: there is no write timeout \
         and no peer timeout, tokens stay in the URI for your own layers to see, streams do not end at \
         shutdown, and a stalled HTTP/2 stream is not reset. Serve it by `sse.serve(listener, app)`; \
         under another server `sse.guard` and `sse.guard_connection` bring the first three"
    );
}

pub(crate) fn guarded() {
    tracing::info!(
        target: TARGET,
        "guarding the connections of another server than `sse.serve`: streams do not end at its \
         shutdown, and a stalled HTTP/2 stream is not reset alone"
    );
}

pub(crate) fn misdeclared(mistake: &str) {
    tracing::error!(target: TARGET, mistake, "a stream was declared wrongly and is refused");
}

pub(crate) fn no_kit() {
    tracing::error!(
        target: TARGET,
        "`SseContext` found no kit: run the app under `sse.serve`, or add `.layer(Extension(sse))`"
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

pub(crate) fn draining(connections: usize) {
    tracing::info!(target: TARGET, connections, "shutting down: saying farewell");
}

pub(crate) fn drain_cut(sockets: usize) {
    tracing::warn!(target: TARGET, sockets, "drain timeout reached: sockets reset");
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
