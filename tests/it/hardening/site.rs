//! The application under attack, shared by the attacks on cookies, hosts and CORS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use hero_sse::{HeroSse, Principal};
use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::testing;
use crate::support::{burst, options, sse_with, token};

const COOKIE: &str = "TokenCookie = \"__Host-t\"\n";
/// The `Host` of the application's own pages.
pub(super) const SITE: (&str, &str) = ("host", "app.example.com");

/// An application, and how often its handlers ran.
pub(super) struct Site {
    pub(super) app: Router,
    pub(super) sse: HeroSse,
    pub(super) runs: Arc<AtomicUsize>,
}

impl Site {
    /// `/s` and `/post` need a token, `/public` does not, `/own` is a route that is not an endpoint.
    pub(super) fn new(toml: &str) -> Self {
        let sse = sse_with(options(&format!("{COOKIE}{toml}")));
        let runs = Arc::new(AtomicUsize::new(0));
        let run = {
            let runs = runs.clone();
            move || {
                runs.fetch_add(1, Ordering::SeqCst);
                burst(1)
            }
        };
        let route = |path: &str, public: bool| {
            let endpoint = sse.endpoint(path);
            let endpoint = if public { endpoint.public() } else { endpoint };
            let run = run.clone();
            endpoint.handler(async move || run()).expect("a route")
        };
        let posted = run.clone();
        let posted = sse.endpoint("/post").post_handler(async move || posted()).expect("a route");
        let run = run.clone();
        let own = async move |_: Principal| drop(run());
        let app = Router::new()
            .merge(route("/s", false))
            .merge(route("/public", true))
            .merge(posted)
            .route("/own", get(own.clone()).merge(post(own)))
            .layer(axum::Extension(sse.clone()));
        Self { app, sse, runs }
    }

    /// Sends a request to the application.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut open = testing::open(&self.app, path).method(method);
        for (name, value) in headers {
            open = open.header(name, *value);
        }
        match open.await {
            Ok(stream) => Answer {
                status: stream.status(),
                headers: stream.headers().clone(),
                body: String::new(),
            },
            Err(error) => Answer {
                status: error.status.expect("an answer"),
                headers: error.headers,
                body: error.body,
            },
        }
    }

    /// Sends a `GET` with a valid cookie and returns the status.
    pub(super) async fn with_cookie(&self, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let cookie = format!("__Host-t={}", token());
        let mut all = vec![("cookie", cookie.as_str())];
        all.extend(headers);
        self.request(Method::GET, path, &all).await.status
    }

    #[track_caller]
    pub(super) fn assert_runs(&self, expected: usize) {
        assert_eq!(self.runs.load(Ordering::SeqCst), expected, "runs of handlers");
    }
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// Checks that there is no CORS header except `Vary`.
    #[track_caller]
    pub(super) fn assert_no_cors(&self) {
        let cors = self.headers.keys().filter(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors.collect::<Vec<_>>(), Vec::<&http::HeaderName>::new());
    }
}

/// Sends these bytes and returns the response up to the end of its head or of the connection.
pub(super) async fn raw(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("a socket");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let reading = async {
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match socket.read(&mut piece).await {
                Ok(read) if read > 0 => answer.extend_from_slice(&piece[..read]),
                _ => break,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}
