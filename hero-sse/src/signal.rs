//! When to shut down, and what balancers are told.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;

/// Whether a kit's server wants more requests: what a balancer asks before it sends any.
///
/// Ready while [`serve`](crate::HeroSse::serve) runs; no longer from the moment of its shutdown, before
/// anything else is done about that; and not before it runs. Under another server: from
/// [`HeroSse::guard`](crate::HeroSse::guard) until [`HeroSse::drain`](crate::HeroSse::drain); without
/// either, never. Cheap to clone; it answers as it is when it is asked:
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
/// Balancers take a while to notice: `DrainDelay` gives it to them. Connections are then still
/// accepted, and streams opened, as before. Once the listener is closed there is nobody to ask; a
/// balancer must take that for an answer too.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Whether the server wants more requests.
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

    /// The server is about to shut down.
    pub(crate) fn drain(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    /// A server runs until the guard is gone.
    pub(crate) fn begin(&self) -> Serving {
        self.start();
        Serving(self.clone())
    }

    /// A server runs. What is draining stays so.
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

/// A server that runs.
pub(crate) struct Serving(Readiness);

impl Serving {
    /// It is about to shut down.
    pub(crate) fn ends(&self) {
        self.0.drain();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ends();
    }
}

/// Resolves at the first Ctrl-C, or `SIGTERM` on Unix: what a terminal and a service manager send.
///
/// Where no handler can be installed it never resolves, and the signal ends the process as it would
/// without it.
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
