//! Issuers whose keys come over a socket or from a file, and change while streams are open.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::{StreamExt as _, stream};
use hero_sse::auth::{Algorithm, Issuer};
use hero_sse::server::Tls;
use hero_sse::{Event, HeroSse, JwtAuthenticator, SseOptions};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::signing::{Signer, hmac, set};
use crate::support::testing::{self, OpenError};
use crate::support::{Log, Server, claims, eventually, options};

const SECOND: Duration = Duration::from_secs(1);

/// The response of an issuer to a request for its keys.
#[derive(Clone)]
enum Answer {
    Keys(String),
    Slowly(Duration, String),
    Status(StatusCode),
    Page,
    Bytes(Vec<u8>),
    Endless,
    See(String),
}

/// A small issuer on loopback.
struct Id {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Id {
    async fn start(answer: Answer) -> Self {
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, server) = Self::serve(any, &answer, &asked).await;
        Self { address, answer, asked, server }
    }

    async fn serve(
        address: SocketAddr,
        answer: &Arc<Mutex<Answer>>,
        asked: &Arc<AtomicUsize>,
    ) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (answer, asked) = (answer.clone(), asked.clone());
        let keys = axum::routing::any(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = answer.lock().expect("no panic").clone();
            answer.send()
        });
        let app = Router::new().route("/keys", keys);
        let server =
            tokio::spawn(async move { axum::serve(listener, app).await.expect("no error") });
        (address, server)
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn set_answer(&self, answer: Answer) {
        *self.answer.lock().expect("no panic") = answer;
    }

    fn requests(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Stops the issuer.
    async fn stop(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    async fn restart(&mut self) {
        self.server = Self::serve(self.address, &self.answer, &self.asked).await.1;
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Answer {
    fn of(keys: &[(&Signer, &str)]) -> Self {
        Self::Keys(set(keys.iter().map(|(signer, kid)| signer.jwk(kid))))
    }

    async fn send(self) -> Response {
        match self {
            Self::Keys(keys) => keys.into_response(),
            Self::Slowly(delay, keys) => {
                tokio::time::sleep(delay).await;
                keys.into_response()
            }
            Self::Status(status) => (status, set([])).into_response(),
            Self::Page => axum::response::Html("<p>sign in").into_response(),
            Self::Bytes(bytes) => bytes.into_response(),
            Self::Endless => {
                let start = stream::iter([Ok::<_, std::io::Error>("{\"keys\": [".to_owned())]);
                let spaces = stream::repeat_with(|| Ok(" ".repeat(1024)));
                Body::from_stream(start.chain(spaces)).into_response()
            }
            Self::See(other) => Redirect::temporary(&other).into_response(),
        }
    }
}

fn sse_with_options(options: SseOptions, jwt: JwtAuthenticator) -> HeroSse {
    let builder = HeroSse::builder().environment(Vec::<(String, String)>::new());
    builder.options(options).authenticator(jwt).build().expect("a server")
}

/// Answers `503` if it cannot verify a caller.
fn sse_with(jwt: JwtAuthenticator) -> HeroSse {
    sse_with_options(options("OverLimit = \"refuse\""), jwt)
}

/// An endpoint `/s` with an event every 20 ms.
fn app(sse: &HeroSse) -> Router {
    let ticks = || {
        stream::unfold(0u64, |n| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Event::text(n.to_string()), n + 1))
        })
    };
    sse.endpoint("/s").permission("usage.read").handler(async move || ticks()).expect("a route")
}

async fn status(app: &Router, token: &str) -> StatusCode {
    match testing::open(app, "/s").bearer(token).await {
        Ok(stream) => stream.status(),
        Err(error) => error.status.expect("an answer"),
    }
}

/// The same, without the timeout of `testing::open`.
async fn status_without_timeout(app: &Router, token: &str) -> StatusCode {
    let request = http::Request::get("/s").header("authorization", format!("Bearer {token}"));
    let request = request.body(Body::empty()).expect("a request");
    app.clone().oneshot(request).await.expect("an answer").status()
}

async fn refused(app: &Router, token: &str) -> OpenError {
    testing::open(app, "/s").bearer(token).await.expect_err("a refusal")
}

/// Waits until the token is accepted, for at most ten seconds.
async fn assert_accepted(app: &Router, token: &str) {
    let start = Instant::now();
    while status(app, token).await != StatusCode::OK {
        assert!(start.elapsed() < 10 * SECOND, "not accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn good() -> Value {
    claims(|_| ())
}

fn from(issuer: &str) -> Value {
    claims(|claims| claims["iss"] = json!(issuer))
}

fn one(url: &str) -> JwtAuthenticator {
    JwtAuthenticator::jwks_url(url).issuer("tests").audience("streams")
}

const OK: StatusCode = StatusCode::OK;
const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

#[tokio::test]
async fn keys_rotate_while_streams_run() {
    let [a, b, c, d] = std::array::from_fn(|_| Signer::new());
    let mut id = Id::start(Answer::of(&[(&a, "a")])).await;
    // The maximum age is an hour, so that every fetch here is on demand.
    let issuer = Issuer::new("tests").jwks_url(id.url()).audience("streams");
    let issuer = issuer.refresh_every(3600 * SECOND, SECOND);
    let sse = sse_with(JwtAuthenticator::issuers([issuer]));
    let app = app(&sse);
    assert_eq!(id.requests(), 0, "nothing is fetched before the first token");

    let server = Server::start(&sse, app.clone()).await;
    let old = testing::connect(server.address, "/s").bearer(&a.token("a", &good())).await;
    let mut old = old.expect("a stream");
    assert!(old.next().await.expect("in time").is_some());
    assert_eq!(id.requests(), 1);

    id.set_answer(Answer::of(&[(&a, "a"), (&b, "b")]));
    let demanded = Instant::now();
    assert_eq!(
        status(&app, &b.token("b", &good())).await,
        OK,
        "an unknown key is asked for at once"
    );
    assert_eq!(id.requests(), 2);

    id.set_answer(Answer::of(&[(&b, "b"), (&c, "c")]));
    assert_accepted(&app, &c.token("c", &good())).await;
    assert!(demanded.elapsed() >= SECOND, "the next one after the interval");
    assert_eq!(id.requests(), 3);
    assert_eq!(status(&app, &a.token("a", &good())).await, UNAUTHORIZED, "its key is withdrawn");
    assert_eq!(status(&app, &b.token("b", &good())).await, OK);
    for _ in 0..5 {
        assert!(old.next().await.expect("in time").is_some(), "the stream goes on");
    }

    id.stop().await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(status(&app, &d.token("d", &good())).await, UNAVAILABLE);
    assert_eq!(status(&app, &d.token("d", &good())).await, UNAVAILABLE);
    assert_eq!(status(&app, &b.token("b", &good())).await, OK, "known keys stay in use");
    let forged = d.token("b", &good());
    assert_eq!(status(&app, &forged).await, UNAUTHORIZED, "a wrong signature is refused");

    id.set_answer(Answer::of(&[(&d, "d")]));
    id.restart().await;
    assert_accepted(&app, &d.token("d", &good())).await;
    assert_eq!(status(&app, &b.token("b", &good())).await, UNAUTHORIZED);
    for _ in 0..5 {
        assert!(old.next().await.expect("in time").is_some(), "the stream goes on");
    }
    server.stop().await;
}

#[tokio::test]
async fn keys_are_fetched_again_by_age_while_the_old_ones_stay_in_use() {
    let (a, b) = (Signer::new(), Signer::new());
    let id = Id::start(Answer::of(&[(&a, "a")])).await;
    let issuer = Issuer::new("tests").jwks_url(id.url()).audience("streams");
    let sse = sse_with(JwtAuthenticator::issuers([issuer.refresh_every(SECOND, 3600 * SECOND)]));
    let app = app(&sse);
    let token = a.token("a", &good());
    assert_eq!(status(&app, &token).await, OK);
    id.set_answer(Answer::Slowly(SECOND / 2, set([b.jwk("b")])));
    // A withdrawn key stops working even if no token names another key.
    let start = Instant::now();
    while status(&app, &token).await == OK {
        assert!(start.elapsed() < 20 * SECOND, "the keys were never fetched again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() >= SECOND, "{:?}", start.elapsed());
    assert_eq!(status(&app, &token).await, UNAUTHORIZED);
}

#[tokio::test]
async fn many_tokens_with_invented_keys_do_not_start_many_fetches() {
    let (signer, attacker) = (Signer::new(), Signer::new());
    let id = Id::start(Answer::of(&[(&signer, "k")])).await;
    let app = app(&sse_with(one(&id.url())));
    let token = signer.token("k", &good());
    let made_up: Vec<_> =
        (0..300).map(|n| attacker.token(&format!("made up {n}"), &good())).collect();
    let all = made_up.iter().map(|token| status(&app, token));
    let (all, started) = (futures_util::future::join_all(all), Instant::now());
    assert!(all.await.iter().all(|status| *status == UNAUTHORIZED));
    for token in &made_up {
        assert_eq!(status(&app, token).await, UNAUTHORIZED);
    }
    // The same for tokens of unknown issuers.
    for n in 0..20 {
        let stranger = attacker.token("other", &from(&format!("issuer {n}")));
        assert_eq!(status(&app, &stranger).await, UNAUTHORIZED);
    }
    assert_eq!(status(&app, &token).await, OK);
    if started.elapsed() < 30 * SECOND {
        assert_eq!(id.requests(), 2, "the first, and one for the first unknown key");
    }
}

/// No key of the issuer can have signed such a token.
#[tokio::test]
async fn a_token_of_another_issuer_or_algorithm_starts_no_fetch() {
    let (signer, attacker) = (Signer::new(), Signer::new());
    let id = Id::start(Answer::of(&[(&signer, "k")])).await;
    let app = app(&sse_with(one(&id.url()).algorithms([Algorithm::ES256])));
    assert_eq!(status(&app, &signer.token("k", &good())).await, OK);
    let other = Signer::of(Algorithm::RS256);
    for token in [
        attacker.token("unknown", &from("somebody else")),
        other.token("unknown", &good()),
        hmac(Algorithm::HS256, b"a secret of at least thirty-two bytes", &good()),
    ] {
        assert_eq!(status(&app, &token).await, UNAUTHORIZED);
    }
    assert_eq!(id.requests(), 1);
    assert_eq!(status(&app, &attacker.token("unknown", &good())).await, UNAUTHORIZED);
    assert_eq!(id.requests(), 2, "a token that a new key may have signed");
}

/// The only information about a token whose signature is not verified.
#[tokio::test]
async fn while_an_issuer_is_down_only_tokens_that_need_new_keys_get_503() {
    let (signer, attacker) = (Signer::new(), Signer::new());
    let mut id = Id::start(Answer::of(&[(&signer, "k")])).await;
    let app = app(&sse_with(one(&id.url())));
    assert_eq!(status(&app, &signer.token("k", &good())).await, OK);
    id.stop().await;
    assert_eq!(status(&app, &signer.token("k", &good())).await, OK);
    assert_eq!(status(&app, &attacker.token("unknown", &good())).await, UNAVAILABLE);
    assert_eq!(status(&app, &attacker.token("k", &good())).await, UNAUTHORIZED);
    assert_eq!(status(&app, &attacker.token("unknown", &from("nobody"))).await, UNAUTHORIZED);
}

#[tokio::test]
async fn with_invalid_keys_no_token_is_accepted() {
    let signer = Signer::new();
    let good_keys = set([signer.jwk("k")]);
    let elsewhere = Id::start(Answer::Keys(good_keys.clone())).await;
    let huge = format!("{good_keys}{}", " ".repeat(256 * 1024)).into_bytes();
    for (answer, why) in [
        (Answer::See(elsewhere.url()), "redirects are not followed"),
        (Answer::Endless, "more than 262144 bytes"),
        (Answer::Bytes(huge), "more than 262144 bytes"),
        (Answer::Bytes(vec![0xff, 0xfe]), "not UTF-8"),
        (Answer::Bytes(vec![]), "not JSON"),
        (Answer::Page, "not JSON"),
        (Answer::Keys("{\"keys\": 7}".to_owned()), "no list"),
        (Answer::Status(StatusCode::INTERNAL_SERVER_ERROR), "answered 500"),
        (Answer::Status(StatusCode::NO_CONTENT), "answered 204"),
    ] {
        let id = Id::start(answer).await;
        let (log, _guard) = Log::everything();
        let url = id.url().replace("http://", "http://ann:pw@") + "?code=sesame";
        let app = app(&sse_with(one(&url)));
        let error = refused(&app, &signer.token("k", &good())).await;
        assert_eq!(error.status, Some(UNAVAILABLE), "{why}: {error}");
        assert!(error.headers.contains_key("retry-after"), "{why}");
        assert!(!error.body.contains("keys"), "the client learns nothing of it: {}", error.body);
        let text = log.text();
        let told: Vec<_> = text.lines().filter(|line| line.contains("hero_sse")).collect();
        assert!(told.iter().any(|line| line.contains(why)), "{why} is not in {told:#?}");
        let secret = |line: &&&str| line.contains("ann:pw") || line.contains("sesame");
        assert!(!told.iter().any(|line| secret(&line)), "{told:#?}");
        assert_eq!(id.requests(), 1);
    }
    assert_eq!(elsewhere.requests(), 0);

    // A browser gets no stream either, and is asked to reconnect.
    let id = Id::start(Answer::Page).await;
    let app = app(&sse_with_options(SseOptions::default(), one(&id.url())));
    let open = testing::open(&app, "/s").bearer(&signer.token("k", &good()));
    let events = open.await.expect("a closing event").read_to_end().await.expect("an end");
    assert_eq!(events.len(), 1);
    let close: Value = events[0].json().expect("JSON");
    assert_eq!((&close["reason"], &close["reconnect"]), (&json!("unverified"), &json!(true)));
}

#[tokio::test]
async fn a_fetch_times_out_and_the_next_request_does_not_wait() {
    let signer = Signer::new();
    let id = Id::start(Answer::Slowly(60 * SECOND, set([signer.jwk("k")]))).await;
    let app = app(&sse_with(one(&id.url())));
    let token = signer.token("k", &good());
    let start = Instant::now();
    let many = (0..20).map(|_| status_without_timeout(&app, &token));
    let many = futures_util::future::join_all(many).await;
    assert!(many.iter().all(|status| *status == UNAVAILABLE));
    let took = start.elapsed();
    assert!(took >= 4 * SECOND && took < 15 * SECOND, "{took:?}");
    let start = Instant::now();
    assert_eq!(status(&app, &token).await, UNAVAILABLE);
    assert!(start.elapsed() < 3 * SECOND, "the next one does not wait");
    assert_eq!(id.requests(), 1);
}

#[tokio::test]
async fn a_fetch_goes_on_when_its_client_disconnects() {
    let signer = Signer::new();
    let id = Id::start(Answer::Slowly(SECOND, set([signer.jwk("k")]))).await;
    let app = app(&sse_with(one(&id.url())));
    let token = signer.token("k", &good());
    let left = tokio::time::timeout(SECOND / 5, status(&app, &token)).await;
    assert!(left.is_err(), "the request waits for the fetch");
    assert_eq!(status(&app, &token).await, OK);
    assert_eq!(id.requests(), 1);
}

#[tokio::test]
async fn two_issuers_never_accept_each_others_keys() {
    let (a, b) = (Signer::new(), Signer::of(Algorithm::EdDSA));
    let (ida, idb) =
        (Id::start(Answer::of(&[(&a, "k")])).await, Id::start(Answer::of(&[(&b, "k")])).await);
    let issuer = |name: &str, id: &Id| Issuer::new(name).jwks_url(id.url()).audience("streams");
    let app = app(&sse_with(JwtAuthenticator::issuers([issuer("a", &ida), issuer("b", &idb)])));
    for (token, expected) in [
        (a.token("k", &from("a")), OK),
        (b.token("k", &from("b")), OK),
        (a.token("k", &from("b")), UNAUTHORIZED),
        (b.token("k", &from("a")), UNAUTHORIZED),
    ] {
        assert_eq!(status(&app, &token).await, expected);
    }
    assert_eq!((ida.requests(), idb.requests()), (1, 1));
    let unknown = a.token("unknown", &from("a"));
    assert_eq!(status(&app, &unknown).await, UNAUTHORIZED);
    assert_eq!((ida.requests(), idb.requests()), (2, 1), "the other issuer gets no request");
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    let signer = Signer::new();
    let tls = crate::tls::Certificate::new().tls();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let keys = set([signer.jwk("k")]);
    let published = Router::new().route(
        "/keys",
        axum::routing::get(move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::ready(keys)
        }),
    );
    let own = sse_with(one("https://localhost/keys"));
    let server = Server::start_as(&own, published, |serve| serve.tls(tls)).await;
    let url = format!("https://localhost:{}/keys", server.address.port());
    let (log, _guard) = Log::everything();
    let app = app(&sse_with(one(&url)));
    assert_eq!(status(&app, &signer.token("k", &good())).await, UNAVAILABLE);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert!(log.text().contains("certificate"), "{}", log.text());
    server.stop().await;
}

/// The client is a second process, since an environment variable names the system's certificates.
#[tokio::test]
async fn keys_come_over_https_from_hosts_that_the_system_trusts() {
    let signer = Signer::new();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let tls = Tls::from_pem(pair.cert.pem(), pair.signing_key.serialize_pem()).expect("TLS");
    let root = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(root.path(), pair.cert.pem()).expect("written");
    let keys = set([signer.jwk("k")]);
    let published = Router::new().route("/keys", axum::routing::get(|| std::future::ready(keys)));
    let own = sse_with(one("https://localhost/keys"));
    let server = Server::start_as(&own, published, |serve| serve.tls(tls)).await;
    let client = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "issuer::a_client_over_https", "--nocapture"])
        .env("SSL_CERT_FILE", root.path())
        .env_remove("SSL_CERT_DIR")
        .env("TRIAL_ISSUER", format!("https://localhost:{}/keys", server.address.port()))
        .env("TRIAL_TOKEN", signer.token("k", &good()))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(60 * SECOND, client).await.expect("in time").expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("let in"), "{said}");
    server.stop().await;
}

/// Started by the test above. Without its variables it does nothing.
#[tokio::test]
async fn a_client_over_https() {
    let variable = |name| std::env::var(name).ok();
    let (Some(url), Some(token)) = (variable("TRIAL_ISSUER"), variable("TRIAL_TOKEN")) else {
        return;
    };
    assert_eq!(status_without_timeout(&app(&sse_with(one(&url))), &token).await, OK);
    println!("let in");
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let put = |text: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, &path).expect("renamed");
    };
    let (a, b) = (Signer::new(), Signer::new());
    put(&set([a.jwk("a")]));
    let jwt = JwtAuthenticator::jwks_file(&path).issuer("tests").audience("streams");
    let app = app(&sse_with(jwt));
    assert_eq!(status(&app, &a.token("a", &good())).await, OK);
    put(&set([b.jwk("b")]));
    assert_eq!(
        status(&app, &b.token("b", &good())).await,
        OK,
        "an unknown key has it read at once"
    );
    assert_eq!(status(&app, &a.token("a", &good())).await, UNAUTHORIZED);
    // An unusable file changes nothing.
    put("{");
    tokio::time::sleep(SECOND).await;
    assert_eq!(
        status(&app, &a.token("a", &good())).await,
        UNAVAILABLE,
        "it may be in the new file"
    );
    assert_eq!(status(&app, &b.token("b", &good())).await, OK);
    put(&set([a.jwk("a")]));
    assert_accepted(&app, &a.token("a", &good())).await;
    assert_eq!(status(&app, &b.token("b", &good())).await, UNAUTHORIZED);
}

#[tokio::test]
async fn keys_may_come_from_a_closure() {
    let signer = Arc::new(Signer::new());
    let (asked, keys) = (Arc::new(AtomicUsize::new(0)), signer.clone());
    let count = asked.clone();
    let jwt = JwtAuthenticator::jwks_from(move || {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let keys = set([keys.jwk("k")]);
        async move { if n == 0 { Err("not yet") } else { Ok(keys) } }
    });
    let app = app(&sse_with(jwt.issuer("tests").audience("streams")));
    assert_eq!(status(&app, &signer.token("k", &good())).await, UNAVAILABLE);
    assert_accepted(&app, &signer.token("k", &good())).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn every_algorithm_is_accepted_from_every_source() {
    let named = |jwt: JwtAuthenticator| jwt.issuer("tests").audience("streams");
    let secret = [7; 64];
    for (algorithm, jwt) in [
        (Algorithm::HS256, JwtAuthenticator::hs256(secret)),
        (Algorithm::HS384, JwtAuthenticator::hs384(secret)),
        (Algorithm::HS512, JwtAuthenticator::hs512(secret)),
    ] {
        let token = hmac(algorithm, &secret, &good());
        assert_eq!(status(&app(&sse_with(named(jwt))), &token).await, OK, "{algorithm:?}");
    }
    let [rsa, p256, p384, ed] =
        [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA].map(Signer::of);
    for (algorithm, signer) in [
        (Algorithm::RS256, &rsa),
        (Algorithm::RS384, &rsa),
        (Algorithm::RS512, &rsa),
        (Algorithm::PS256, &rsa),
        (Algorithm::PS384, &rsa),
        (Algorithm::PS512, &rsa),
        (Algorithm::ES256, &p256),
        (Algorithm::ES384, &p384),
        (Algorithm::EdDSA, &ed),
    ] {
        let mut jwk = signer.jwk("k");
        jwk["alg"] = json!(format!("{algorithm:?}"));
        let keys = set([json!({ "kty": "new" }), jwk.clone()]);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &keys).expect("written");
        let id = Id::start(Answer::Keys(keys.clone())).await;
        let token = signer.token_as(algorithm, &good());
        for jwt in [
            JwtAuthenticator::pem(algorithm, signer.pem()),
            JwtAuthenticator::jwk(jwk.to_string()),
            JwtAuthenticator::jwks(&keys),
            JwtAuthenticator::jwks_file(file.path()),
            JwtAuthenticator::jwks_url(id.url()),
        ] {
            assert_eq!(status(&app(&sse_with(named(jwt))), &token).await, OK, "{algorithm:?}");
        }
    }
    // RFC 9864 names it by its curve.
    let token = ed.sign(r#"{"alg": "Ed25519"}"#, &good().to_string());
    let jwt = named(JwtAuthenticator::pem(Algorithm::EdDSA, ed.pem()));
    assert_eq!(status(&app(&sse_with(jwt)), &token).await, OK);
}

#[tokio::test]
async fn it_is_logged_once_that_an_issuer_is_down_and_once_that_it_is_back() {
    let signer = Signer::new();
    let id = Id::start(Answer::of(&[(&signer, "k")])).await;
    let issuer = Issuer::new("tests").jwks_url(id.url()).audience("streams");
    let app = app(&sse_with(JwtAuthenticator::issuers([issuer.refresh_every(SECOND, SECOND)])));
    let (log, _guard) = Log::everything();
    let times = |words: &str| log.text().lines().filter(|line| line.contains(words)).count();
    let token = signer.token("k", &good());
    assert_eq!(status(&app, &token).await, OK);
    assert_eq!(times("checked with new keys"), 1);
    id.set_answer(Answer::Status(StatusCode::BAD_GATEWAY));
    let asked = id.requests();
    while id.requests() < asked + 3 {
        assert_eq!(status(&app, &token).await, OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(times("cannot fetch the keys"), 1, "{}", log.text());
    id.set_answer(Answer::of(&[(&signer, "k")]));
    let asked = id.requests();
    while id.requests() < asked + 1 {
        assert_eq!(status(&app, &token).await, OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the log tells of it", || times("are available again") == 1).await;
    assert_eq!(times("checked with new keys"), 1, "the keys are the same");
}

/// A certified OAuth server, controlled by the test; see `provider.mjs`.
struct Provider {
    issuer: String,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Killed when it is dropped.
    _node: Child,
}

impl Provider {
    async fn start() -> Self {
        let mut node = Command::new("node")
            .arg("provider.mjs")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/browser"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node.js; ./tests/run installs it");
        let orders = node.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(node.stdout.take().expect("a pipe")).lines();
        let issuer = Self::line(&mut answers).await;
        Self { issuer, orders, answers, _node: node }
    }

    async fn line(answers: &mut Lines<BufReader<ChildStdout>>) -> String {
        let line = tokio::time::timeout(30 * SECOND, answers.next_line()).await.expect("in time");
        line.expect("a line").expect("the provider failed; its report is above")
    }

    async fn order(&mut self, order: &str) -> String {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.expect("written");
        Self::line(&mut self.answers).await
    }
}

/// Not part of a plain `cargo test`: it needs Node.js and an npm package, which `./tests/run` installs.
#[tokio::test]
#[ignore = "needs Node.js: ./tests/run installs it and runs it"]
async fn a_certified_provider_rotates_its_keys_while_a_stream_runs() {
    let mut id = Provider::start().await;
    let issuer = Issuer::new(&id.issuer)
        .jwks_url(format!("{}/jwks", id.issuer))
        .refresh_every(3600 * SECOND, SECOND)
        .algorithms([Algorithm::ES256])
        .audience("streams")
        .token_type("at+jwt")
        .permissions_claim("scope");
    let sse = sse_with(JwtAuthenticator::issuers([issuer]));
    let app = app(&sse);
    let server = Server::start(&sse, app.clone()).await;

    let first = id.order("token").await;
    let mut stream = testing::connect(server.address, "/s").bearer(&first).await.expect("a stream");
    assert!(stream.next().await.expect("in time").is_some());
    id.order("rotate").await;
    let second = id.order("token").await;
    assert_eq!(status(&app, &second).await, OK, "its key is new");
    assert_eq!(status(&app, &first).await, OK, "the old key is still published");
    assert_eq!(id.order("fetches").await, "2");
    id.order("rotate").await;
    id.order("withdraw").await;
    let third = id.order("token").await;
    assert_accepted(&app, &third).await;
    assert_eq!(status(&app, &first).await, UNAUTHORIZED);
    assert_eq!(status(&app, &second).await, UNAUTHORIZED);
    assert_eq!(id.order("fetches").await, "3");
    for _ in 0..5 {
        assert!(stream.next().await.expect("in time").is_some(), "the stream goes on");
    }
    server.stop().await;
}
