//! The signal to shut down, and the answer to health checks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;

/// Answers the health check of a load balancer: `200` while the server accepts requests, otherwise `503`.
///
/// Under [`serve`](crate::HeroSse::serve), it is ready while the server runs. A shutdown ends that before it does
/// anything else. Under another server, it is ready from [`HeroSse::guard`](crate::HeroSse::guard) until
/// [`HeroSse::drain`](crate::HeroSse::drain). Without either call it is never ready.
///
/// Clones are cheap and share the state. As a response it has the state of the moment:
///
/// ```
/// use hero_sse::axum::{Router, routing::get};
///
/// let sse = hero_sse::HeroSse::builder().build()?;
/// let app: Router = Router::new().route("/readyz", get(sse.readiness()));
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
///
/// | state | status | body |
/// |---|---|---|
/// | ready | `200` | `ready` |
/// | shutting down, or shut down | `503` | `draining` |
/// | no server runs yet | `503` | `starting` |
///
/// A load balancer needs some time to notice that the server is not ready. During `DrainDelay` the server still accepts
/// connections and opens streams. After that the listener is closed, and the health check fails to connect.
#[doc(alias = "health check")]
#[doc(alias = "load balancer")]
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Returns whether the server accepts new requests.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == READY
    }

    fn as_str(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            READY => "ready",
            DRAINING => "draining",
            _ => "starting",
        }
    }

    /// Marks the server as shutting down. This is final.
    pub(crate) fn drain(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    /// Marks the server as running until the returned guard is dropped.
    pub(crate) fn begin(&self) -> Serving {
        self.start();
        Serving(self.clone())
    }

    /// Marks the server as running, unless it is shutting down already.
    pub(crate) fn start(&self) {
        let _ = self.0.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.as_str()).finish()
    }
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let state = self.as_str();
        let status = match state {
            "ready" => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, [(CACHE_CONTROL, "no-store")], state).into_response()
    }
}

/// Marks the server as shutting down when it is dropped.
pub(crate) struct Serving(Readiness);

impl Serving {
    /// Marks the server as shutting down now.
    pub(crate) fn ends(&self) {
        self.0.drain();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ends();
    }
}

/// Resolves when the process is asked to end: by Ctrl-C, or on Unix by `SIGTERM`, which service managers send.
///
/// If a signal handler cannot be installed, the future never resolves, and the signal ends the process at once.
/// Dropping the future does not restore the default action of these signals.
pub async fn shutdown_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
