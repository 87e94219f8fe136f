//! Attempts to stay, or to come back, after access has ended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::routing::get;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use hero_sse::auth::{
    Access, AuthError, Authenticator, Authorizer, Decision, Permission, Secret, authenticator_fn,
    authorizer_fn,
};
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, Event, HeroSse, Principal, SseContext, SseOptions};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::ServiceExt;

use crate::access::{Answer, Oracle, read_close, sse_with_authorizer};
use crate::http2;
use crate::support::testing::{self, SlowReader};
use crate::support::{
    Alive, Server, burst, claims, eventually, flood, jwt, now, options, sign, sse_with, token,
    watched,
};

#[tokio::test]
async fn while_nobody_can_be_verified_nobody_gets_in_and_browsers_come_back() {
    let down = authenticator_fn(async |_| Err(AuthError::unavailable("refused by db-7")));
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(down)
        .build()
        .expect("a server");
    let retry = sse.endpoint("/retry").handler(async || burst(3)).expect("a route");
    let refuse = sse.endpoint("/refuse").over_limit(hero_sse::options::OverLimit::Refuse);
    let app: Router = retry.merge(refuse.handler(async || burst(3)).expect("a route"));
    let mut stream = testing::open(&app, "/retry").bearer("t").await.expect("a closing event");
    let events = stream.read_to_end().await.expect("a clean end");
    let [close] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(close.event, "hero.close");
    assert!(close.data.contains(r#""reason":"unverified""#), "{}", close.data);
    assert!(close.data.contains(r#""reconnect":true"#), "{}", close.data);
    assert!(!stream.raw().contains("db-7"));
    let error = testing::open(&app, "/refuse").bearer("t").await.expect_err("503");
    assert_eq!(error.status, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(error.headers.contains_key("retry-after") && !error.body.contains("db-7"), "{error}");
    assert_eq!(sse.connections().closed(CloseReason::Unverified), 2);
    assert!(sse.connections().is_empty());
}

/// An authorizer that tells when it is asked, and answers when it is told to.
struct Held {
    asked: UnboundedSender<()>,
    answers: tokio::sync::Mutex<UnboundedReceiver<bool>>,
}

fn held() -> (Held, UnboundedReceiver<()>, UnboundedSender<bool>) {
    let (asked, questions) = unbounded_channel();
    let (answer, answers) = unbounded_channel();
    (Held { asked, answers: answers.into() }, questions, answer)
}

impl Authorizer for Held {
    fn authorize<'a>(&'a self, _: &'a Access<'a>) -> BoxFuture<'a, Result<Decision, AuthError>> {
        async move {
            self.asked.send(()).expect("somebody who listens");
            let yes = self.answers.lock().await.recv().await.expect("an answer");
            Ok(if yes { Decision::granted() } else { Decision::denied() })
        }
        .boxed()
    }
}

/// Waits until the other side is asked.
async fn question(asked: &mut UnboundedReceiver<()>) {
    let asked = tokio::time::timeout(Duration::from_secs(5), asked.recv()).await;
    asked.expect("asked in time").expect("somebody who asks");
}

fn of(subject: &str) -> ConnectionFilter {
    ConnectionFilter::all().subject(subject)
}

#[tokio::test]
async fn whoever_was_let_in_before_a_disconnect_does_not_slip_in_after_it() {
    let (held, mut asked, answer) = held();
    let sse = sse_with_authorizer(SseOptions::default(), held);
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    let endpoint = sse.endpoint("/s").permission("read");
    let app: Router = endpoint
        .handler(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            burst(1)
        })
        .expect("a route");
    let open = || tokio::spawn(testing::open(&app, "/s").principal("ann").into_future());

    let opening = open();
    question(&mut asked).await;
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 0);
    answer.send(true).expect("an answer of before");
    question(&mut asked).await;
    answer.send(false).expect("an answer of now");
    let error = opening.await.expect("no panic").expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert_eq!((ran.load(Ordering::SeqCst), sse.connections().len()), (0, 0));

    // Who still may is let in, and whoever is not meant is not asked about twice.
    for (name, questions) in [("ann", 2), ("bob", 1)] {
        let opening = open();
        question(&mut asked).await;
        sse.connections().disconnect(&of(name), CloseReason::Revoked);
        answer.send(true).expect("an answer");
        if questions == 2 {
            question(&mut asked).await;
            answer.send(true).expect("an answer");
        }
        opening.await.expect("no panic").expect("a stream");
        assert!(asked.try_recv().is_err(), "{name}: asked once more");
    }
    // What happened too long ago to be remembered might have meant anybody.
    let opening = open();
    question(&mut asked).await;
    for n in 0..300 {
        sse.connections().disconnect(&of(&format!("user {n}")), CloseReason::Revoked);
    }
    answer.send(true).expect("an answer");
    question(&mut asked).await;
    answer.send(true).expect("an answer");
    opening.await.expect("no panic").expect("a stream");
}

/// Accepts `good` until it is told not to.
struct Sessions(Arc<Mutex<Vec<&'static str>>>);

impl Authenticator for Sessions {
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        async {
            let known = self.0.lock().expect("no panic");
            match known.contains(&token.expose().as_str()) {
                true => Ok(Principal::new("ann")),
                false => Err(AuthError::invalid("the session is over")),
            }
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_token_that_is_denied_while_its_request_is_on_the_way_is_looked_at_again() {
    let sessions = Arc::new(Mutex::new(vec!["good"]));
    let (held, mut asked, answer) = held();
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Sessions(sessions.clone()))
        .authorizer(held)
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let opening = tokio::spawn(testing::open(&app, "/s").bearer("good").into_future());
    question(&mut asked).await;
    sessions.lock().expect("no panic").clear();
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::Revoked);
    answer.send(true).expect("an answer");
    let error = opening.await.expect("no panic").expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    assert!(error.body.contains("the session is over"), "{error}");
}

/// Asks nobody, and answers when it is told to.
struct Slow(Held);

impl Authenticator for Slow {
    fn authenticate<'a>(
        &'a self,
        _: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        async {
            self.0.asked.send(()).expect("somebody who listens");
            let good = self.0.answers.lock().await.recv().await.expect("an answer");
            if good { Ok(Principal::new("ann")) } else { Err(AuthError::invalid("denied")) }
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_disconnect_while_the_token_is_looked_at_is_not_missed() {
    let (held, mut asked, answer) = held();
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Slow(held))
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let opening = tokio::spawn(testing::open(&app, "/s").bearer("t").into_future());
    question(&mut asked).await;
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    answer.send(true).expect("an answer of before");
    question(&mut asked).await;
    answer.send(false).expect("an answer of now");
    let error = opening.await.expect("no panic").expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
}

/// Disconnects its caller whenever it is asked about it.
#[derive(Clone, Default)]
struct Restless(Arc<OnceLock<HeroSse>>, Arc<AtomicUsize>);

impl Authorizer for Restless {
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let sse = self.0.get().expect("a server");
        sse.connections().disconnect(&of(access.principal().subject()), CloseReason::Revoked);
        async { Ok(Decision::granted()) }.boxed()
    }
}

#[tokio::test]
async fn a_request_that_is_overtaken_again_and_again_is_turned_away_not_let_in() {
    let restless = Restless::default();
    let sse = sse_with_authorizer(SseOptions::default(), restless.clone());
    let _ = restless.0.set(sse.clone());
    let endpoint: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let old = get(async |sse: SseContext| sse.stream(burst(1)).await);
    let app = endpoint.route("/old", old).layer(axum::Extension(sse.clone()));
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), true));
    assert_eq!(restless.1.load(Ordering::SeqCst), 3);
    // A handler of the application's own has run by then: its client comes back.
    let mut stream = testing::open(&app, "/old").principal("ann").await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), true));
    assert_eq!(restless.1.load(Ordering::SeqCst), 4);
    assert_eq!(sse.connections().closed(CloseReason::Unverified), 2);
    assert!(sse.connections().is_empty());
}

/// The users of a database, and what they may.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<String, Vec<&'static str>>>>);

impl Users {
    fn may(&self, name: &str, permission: &str) -> bool {
        let users = self.0.lock().expect("no panic");
        users.get(name).is_some_and(|held| held.contains(&permission))
    }

    fn authorizer(&self) -> impl Authorizer + use<> {
        let users = self.clone();
        authorizer_fn(move |who: Principal, permission: Permission| {
            let may = users.may(who.subject(), permission.as_str());
            async move { Ok::<_, std::io::Error>(may) }
        })
    }
}

/// The recipe of `Connections::disconnect`: first the database, then the streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_user_who_reconnects_with_a_good_token_gets_403() {
    let users = Users::default();
    for name in ["ann", "bob"] {
        users.0.lock().expect("no panic").insert(name.to_owned(), vec!["read"]);
    }
    let sse = sse_with_authorizer(SseOptions::default(), users.authorizer());
    let endpoint = sse.endpoint("/s").permission("read");
    let server = Server::start(&sse, endpoint.handler(async || burst(1)).expect("a route")).await;
    let open = async |name: &'static str| {
        let token = sign(&claims(|c| c["sub"] = json!(name)));
        testing::connect(server.address, "/s").bearer(&token).await
    };
    let (mut ann, mut bob) =
        (open("ann").await.expect("a stream"), open("bob").await.expect("a stream"));
    for stream in [&mut ann, &mut bob] {
        stream.next().await.expect("in time").expect("an event");
    }
    users.0.lock().expect("no panic").remove("ann");
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    assert_eq!(read_close(&mut ann).await, ("revoked".to_owned(), false));
    let error = open("ann").await.expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert!(error.headers.contains_key("www-authenticate"));
    assert_eq!(sse.connections().count(&of("bob")), 1);
    let patience = Duration::from_millis(300);
    assert!(bob.timeout(patience).next().await.is_err(), "the other one was disturbed");
    server.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_invite_back_whom_a_disconnect_sent_away() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    sse.drain();
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
    assert_eq!(sse.connections().closed(CloseReason::Draining), 0);
}

/// Whoever is asked to go within a drain, and takes nothing, is revoked all the same.
#[tokio::test]
async fn a_disconnect_overtakes_a_drain() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    sse.connections().drain(&of("ann"));
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
}

/// A client that has been sent all its windows and the kernels' buffers take.
async fn stalled(address: SocketAddr, path: &str) -> SlowReader {
    let bearer = format!("Bearer {}", token());
    let headers = [("authorization", bearer.as_str())];
    SlowReader::connect(address, path, &headers).await.expect("a socket")
}

/// `/s` for callers with a token, a flood; watched.
fn flooding(sse: &HeroSse) -> (Router, Alive) {
    let alive = Alive::default();
    let watch = alive.clone();
    let make = move || watch.watch(flood());
    (sse.endpoint("/s").handler(async move || make()).expect("a route"), alive)
}

/// Within a second it is reset, its stream gone and its place free; how long it took.
async fn goes(sse: &HeroSse, alive: &Alive, client: &SlowReader, start: Instant) -> Duration {
    client.reset_within(Duration::from_secs(4)).await.expect("a reset");
    let took = start.elapsed();
    assert!((0.4..1.5).contains(&took.as_secs_f64()), "{took:?}");
    eventually("its stream is gone", || alive.count() == 0).await;
    eventually("its place is free", || sse.connections().is_empty()).await;
    // The count comes a moment after.
    eventually("it is counted", || sse.connections().closed(CloseReason::Revoked) == 1).await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_cannot_sit_a_revocation_out() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = flooding(&sse);
    let server = Server::start(&sse, app).await;
    let client = stalled(server.address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(700)).await, None);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    let took = goes(&sse, &alive, &client, start).await;
    println!("HTTP/1.1, stalled: reset after {took:?}");
    server.stop().await;
}

/// hyper takes the farewell into a buffer of its own while the socket is blocked: to the writer that
/// is an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farewell_that_waits_behind_what_nobody_reads_does_not_keep_the_connection() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let alive = Alive::default();
    let watch = alive.clone();
    let large = || stream::iter([Event::text("x".repeat(50_000))]).chain(stream::pending());
    let make = move || watch.watch(large());
    let app = sse.endpoint("/s").handler(async move || make()).expect("a route");
    let server = Server::start(&sse, app).await;
    let client = stalled(server.address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(700)).await, None);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    // Long before the connection goes.
    eventually("its stream is gone", || alive.count() == 0).await;
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    goes(&sse, &alive, &client, start).await;
    server.stop().await;
}

/// A stalled client goes though `disconnect` is called from outside the server's runtime.
fn is_cut_from_elsewhere(disconnect: impl FnOnce(&HeroSse) -> usize) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = flooding(&sse);
    let (client, server) = runtime.block_on(async {
        let server = Server::start(&sse, app).await;
        let client = stalled(server.address, "/s").await;
        assert_eq!(client.reset_within(Duration::from_millis(500)).await, None);
        (client, server)
    });
    let start = Instant::now();
    assert_eq!(disconnect(&sse), 1);
    runtime.block_on(async {
        goes(&sse, &alive, &client, start).await;
        server.stop().await;
    });
}

/// From where nothing asynchronous runs, such as a thread of the application's own.
#[test]
fn a_disconnect_from_a_thread_without_a_runtime_cuts_a_stalled_client_as_well() {
    is_cut_from_elsewhere(|sse| sse.connections().disconnect(&of("ann"), CloseReason::Revoked));
}

/// From a runtime that is gone a moment later, such as that of a command line or of a thread for jobs.
#[test]
fn a_disconnect_from_a_runtime_that_ends_cuts_a_stalled_client_as_well() {
    is_cut_from_elsewhere(|sse| {
        let other = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        other.block_on(async { sse.connections().disconnect(&of("ann"), CloseReason::Revoked) })
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_axum_serve_a_guarded_client_that_takes_nothing_is_reset_too() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = flooding(&sse);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (listener, app) = sse.guard(listener, app);
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    let client = stalled(address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(700)).await, None);
    let start = Instant::now();
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    goes(&sse, &alive, &client, start).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_http2_stream_is_revoked_alone() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let (app, alive) = watched(&sse, flood);
    let calm = sse.endpoint("/n").public().handler(async || http2::numbers()).expect("a route");
    let server = Server::start(&sse, app.merge(calm)).await;
    let socket = TcpStream::connect(server.address).await.expect("a socket");
    let mut client = http2::Client::over(socket).await;
    let mut sibling = client.get("/n").await.into_body();
    let mut body = client.get("/s").await.into_body();
    let reading = tokio::spawn(async move {
        // Takes the window's worth without a word.
        loop {
            match http2::within(body.data()).await {
                Some(Ok(_)) => {}
                end => return (Instant::now(), end.and_then(Result::err)),
            }
        }
    });
    assert!(http2::in_order(&mut sibling, Duration::from_secs(1)).await > 10);
    let start = Instant::now();
    let meant = ConnectionFilter::all().endpoint("/s");
    assert_eq!(sse.connections().disconnect(&meant, CloseReason::Revoked), 1);
    let (at, error) = reading.await.expect("no panic");
    let took = at - start;
    println!("HTTP/2, stalled: reset after {took:?}");
    assert_eq!(error.and_then(|error| error.reason()), Some(h2::Reason::CANCEL));
    assert!((0.4..1.5).contains(&took.as_secs_f64()), "{took:?}");
    eventually("its stream is gone", || alive.count() == 0).await;
    assert_eq!(sse.connections().closed(CloseReason::Revoked), 1);
    assert_eq!(sse.connections().len(), 1);
    drop((client, sibling));
    server.stop().await;
}

/// A connection that took its farewell and goes on with another request is not cut half a second later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_took_the_farewell_keeps_its_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    let ask = "GET /s HTTP/1.1\r\nhost: x\r\n\r\n";
    let until = async |socket: &mut TcpStream, end: &str| {
        let mut text = String::new();
        while !text.contains(end) {
            let mut bytes = [0; 4096];
            let read = socket.read(&mut bytes);
            let read = tokio::time::timeout(Duration::from_secs(5), read).await;
            let read = read.expect("in time").expect("no reset");
            assert!(read > 0, "closed after {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    socket.write_all(ask.as_bytes()).await.expect("a request");
    until(&mut socket, "data: 1").await;
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::MaxAge);
    until(&mut socket, "\r\n0\r\n\r\n").await;
    socket.write_all(ask.as_bytes()).await.expect("a request");
    until(&mut socket, "data: 1").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(sse.connections().len(), 1);
    sse.connections().drain(&ConnectionFilter::all());
    until(&mut socket, "draining").await;
    drop(socket);
    server.stop().await;
}

/// A text every fifty milliseconds.
fn calm() -> impl Stream<Item = Event> + Send + 'static {
    stream::unfold(0u64, |n| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Event::text(n.to_string()), n + 1))
    })
}

fn figures(what: &str, times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{what}: {} clients, {least:?} / {median:?} / {most:?} (least/median/most)",
        times.len()
    );
    (median, most)
}

/// Two hundred streams of five tenants, every fifth of them with a client that takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_client_of_a_tenant_within_a_second_and_no_other() {
    const TENANTS: [&str; 5] = ["t0", "t1", "t2", "t3", "t4"];
    let sse = sse_with(options(
        "WriteTimeout = \"60s\"\nMaxPerPrincipal = 1000\nConnectsPerMinute = \"off\"",
    ));
    let alive = Alive::default();
    let (one, other) = (alive.clone(), alive.clone());
    let healthy = sse.endpoint("/calm").handler(async move || one.watch(calm().boxed()));
    let flooding = sse.endpoint("/flood").handler(async move || other.watch(flood().boxed()));
    let app: Router = healthy.expect("a route").merge(flooding.expect("a route"));
    let server = Server::start(&sse, app).await;
    let mut clients = HashMap::<_, (Vec<_>, Vec<_>)>::new();
    for n in 0..200 {
        let tenant = TENANTS[n % 5];
        let token = sign(&claims(|c| c["tenant"] = json!(tenant)));
        let (calm, still) = clients.entry(tenant).or_default();
        if n / 5 % 5 == 0 {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            let client = SlowReader::connect(server.address, "/flood", &headers).await;
            still.push(client.expect("a socket"));
        } else {
            let stream = testing::connect(server.address, "/calm").bearer(&token);
            let mut stream = stream.await.expect("a stream");
            calm.push(tokio::spawn(async move {
                loop {
                    let event =
                        stream.next().await.expect("in time").expect("a closing event first");
                    if event.event == "hero.close" {
                        let data: Value = event.json().expect("JSON");
                        return (Instant::now(), data["reason"] == "revoked");
                    }
                }
            }));
        }
    }
    eventually("all are there", || alive.count() == 200).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut told, mut reset) = (Vec::new(), Vec::new());
    let mut left = 200;
    for tenant in TENANTS {
        let (calm, still) = clients.remove(tenant).expect("clients");
        assert!(calm.iter().all(|client| !client.is_finished()), "{tenant} was disturbed");
        let start = Instant::now();
        let meant = ConnectionFilter::all().tenant(tenant);
        assert_eq!(sse.connections().disconnect(&meant, CloseReason::Revoked), 40);
        let still: Vec<_> = still
            .into_iter()
            .map(|client| {
                tokio::spawn(async move {
                    client.reset_within(Duration::from_secs(4)).await.expect("a reset");
                    Instant::now()
                })
            })
            .collect();
        for client in calm {
            let (at, revoked) = client.await.expect("no panic");
            assert!(revoked);
            told.push(at - start);
        }
        for client in still {
            reset.push(client.await.expect("no panic") - start);
        }
        left -= 40;
        eventually("their streams are gone", || alive.count() == left).await;
        eventually("their places are free", || sse.connections().len() == left).await;
    }
    assert_eq!(sse.connections().closed(CloseReason::Revoked), 200);
    let (_, most) = figures("told", &mut told);
    assert!(most < Duration::from_secs(1), "{most:?}");
    let (median, most) = figures("reset", &mut reset);
    assert!(
        median < Duration::from_secs(1) && most < Duration::from_secs(2),
        "{median:?} {most:?}"
    );
    server.stop().await;
}

/// Comes back the moment it is sent away, for as long as it is let in.
#[tokio::test]
async fn a_token_in_its_leeway_does_not_open_stream_after_stream() {
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(jwt().leeway(Duration::from_secs(2)))
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let late = sign(&claims(|c| c["exp"] = json!(now() - 1)));
    let mut streams = 0;
    let error = loop {
        match testing::open(&app, "/s").bearer(&late).await {
            Ok(mut stream) => {
                assert_eq!(read_close(&mut stream).await, ("token_expired".to_owned(), false));
                streams += 1;
            }
            Err(error) => break error,
        }
        assert!(streams < 3, "a loop");
    };
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    assert!(error.body.contains("the token has expired"), "{error}");
    assert!(streams <= 1, "{streams}");
}

#[tokio::test]
async fn a_credential_whose_time_is_over_opens_nothing_whatever_the_authenticator_says() {
    for over in [Duration::ZERO, Duration::from_secs(60)] {
        // It forgets nobody.
        let forgetful = authenticator_fn(move |_| async move {
            Ok(Principal::new("ann").valid_until(SystemTime::now() - over))
        });
        let sse = HeroSse::builder()
            .environment(Vec::<(String, String)>::new())
            .authenticator(forgetful)
            .build()
            .expect("a server");
        let private: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
        let public = sse.endpoint("/p").public().handler(async || burst(1)).expect("a route");
        let app = private.merge(public);
        for path in ["/s", "/p"] {
            let error = testing::open(&app, path).bearer("t").await.expect_err("401");
            assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED), "{path}");
        }
    }
}

/// Its permission goes while its stream is open, and nobody disconnects it.
#[tokio::test(start_paused = true)]
async fn a_permission_that_is_gone_ends_the_stream_at_the_next_look() {
    let oracle = Oracle::new(Answer::Yes);
    let sse = sse_with_authorizer(options("ReauthorizeInterval = \"10s\""), oracle.clone());
    let app: Router =
        sse.endpoint("/s").permission("read").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    oracle.says(Answer::No);
    let mut stream = stream.timeout(Duration::from_secs(11));
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
    let error = testing::open(&app, "/s").principal("ann").await.expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
}

/// As above, but the client took what came first: the socket was quiet in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_read_for_a_while_and_then_stops_cannot_sit_a_revocation_out_either() {
    let sse = sse_with(options("WriteTimeout = \"60s\""));
    let alive = Alive::default();
    let watch = alive.clone();
    let large = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Event::text("x".repeat(50_000))
    };
    let make = move || {
        let later = stream::once(large()).chain(stream::pending());
        watch.watch(stream::iter([Event::text("1")]).chain(later))
    };
    let app = sse.endpoint("/s").handler(async move || make()).expect("a route");
    let server = Server::start(&sse, app).await;
    let client = stalled(server.address, "/s").await;
    assert_eq!(client.reset_within(Duration::from_millis(900)).await, None);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    goes(&sse, &alive, &client, start).await;
    server.stop().await;
}

#[tokio::test]
async fn a_later_disconnect_for_another_reason_invites_nobody_back_who_was_revoked() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::MaxAge);
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
}

/// While a stream is cut for what it left unsent, its connection may be at work for another request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_download_after_the_farewell_is_not_cut_with_the_stream_before_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const SIZE: usize = 40 << 20;
    let sse = sse_with(SseOptions::default());
    let endpoint: Router = sse.endpoint("/s").public().handler(async || burst(1)).expect("a route");
    let app = endpoint.route("/file", get(async || vec![b'x'; SIZE]));
    let server = Server::start(&sse, app).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a socket");
    let mut text = String::new();
    socket.write_all(b"GET /s HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    let mut bytes = vec![0; 64 << 10];
    while !text.contains("data: 1") {
        let read = socket.read(&mut bytes).await.expect("bytes");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::Revoked);
    while !text.contains("\r\n0\r\n\r\n") {
        let read = socket.read(&mut bytes).await.expect("bytes");
        assert!(read > 0);
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    socket
        .write_all(b"GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("a request");
    // Blocked while the time for the farewell ends.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut total = 0;
    loop {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut bytes)).await;
        match read.expect("in time").expect("no reset") {
            0 => break,
            read => total += read,
        }
    }
    assert!(total > SIZE, "{total}");
    server.stop().await;
}

/// Panics when it is dropped.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a drop that panics on purpose");
    }
}

/// Keeps a mine, and answers at once, in a while or never.
struct Mined(Arc<Mutex<Option<Duration>>>);

impl Authorizer for Mined {
    fn authorize<'a>(&'a self, _: &'a Access<'a>) -> BoxFuture<'a, Result<Decision, AuthError>> {
        let wait = *self.0.lock().expect("no panic");
        let mine = (wait != Some(Duration::ZERO)).then(|| Mine);
        async move {
            let _mine = mine;
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
            Ok(Decision::granted())
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn an_authorizer_whose_drop_panics_keeps_nobody_in_and_brings_nothing_down() {
    let mind = Arc::new(Mutex::new(None));
    let says = |answer| *mind.lock().expect("no panic") = answer;
    let second = Duration::from_secs(1);
    let sse = sse_with_authorizer(
        options("ReauthorizeInterval = \"10s\"\nAuthorizerTimeout = \"3s\""),
        Mined(mind.clone()),
    );
    let alive = Alive::default();
    let watch = alive.clone();
    let make = move || watch.watch(calm());
    let app: Router = sse.endpoint("/s").handler(async move || make()).expect("a route");
    let open = async || {
        let stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
        stream.timeout(Duration::from_secs(60))
    };
    // Too late, and at its end: nobody is let in.
    for answer in [None, Some(second)] {
        says(answer);
        assert_eq!(read_close(&mut open().await).await, ("unverified".to_owned(), true));
    }
    // Under way while its stream is sent away, is drained, is dropped; too late; and at its end.
    for step in ["disconnect", "drain", "drop", "late", "end"] {
        says(Some(Duration::ZERO));
        let mut stream = open().await;
        says((step == "end").then_some(second));
        if matches!(step, "disconnect" | "drain" | "drop") {
            let reading = async { while let Ok(Some(_)) = stream.next().await {} };
            let read = tokio::time::timeout(21 * second / 2, reading).await;
            assert!(read.is_err(), "{step}: {}", stream.raw());
        }
        let expected = match step {
            "disconnect" => {
                sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
                ("revoked", false)
            }
            "drain" => {
                sse.connections().drain(&of("ann"));
                ("draining", true)
            }
            _ => ("unverified", true),
        };
        if step == "drop" {
            drop(stream);
        } else {
            let (reason, again) = read_close(&mut stream).await;
            assert_eq!((reason.as_str(), again), expected, "{step}");
        }
        assert_eq!((alive.count(), sse.connections().len()), (0, 0), "{step}");
    }
}

/// What a function holds is the application's as well.
#[tokio::test]
async fn a_function_whose_drop_panics_is_refused_all_the_same() {
    let sse = sse_with(SseOptions::default());
    let (started, mut begun) = unbounded_channel();
    let endpoint = sse.endpoint("/s");
    let app: Router = endpoint
        .handler(async move || {
            let _mine = Mine;
            started.send(()).expect("somebody who listens");
            std::future::pending::<()>().await;
            burst(1)
        })
        .expect("a route");
    let opening = tokio::spawn(testing::open(&app, "/s").principal("ann").into_future());
    question(&mut begun).await;
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 1);
    let error = opening.await.expect("no panic").expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert!(sse.connections().is_empty());
}

/// Takes its time to be dropped, on its thread.
struct Heavy;

impl Drop for Heavy {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Under a server of another's making that keeps bodies without polling them.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn one_stream_whose_drop_blocks_does_not_keep_the_others_that_are_revoked() {
    let sse = sse_with(options("MaxPerPrincipal = 100"));
    let endpoint = sse.endpoint("/s");
    let app: Router = endpoint
        .handler(async || {
            let heavy = Arc::new(Heavy);
            burst(1).inspect(move |_| drop(heavy.clone()))
        })
        .expect("a route");
    let mut kept = Vec::new();
    for _ in 0..12 {
        let request = http::Request::get(format!("/s?access_token={}", token()));
        let request = request.body(axum::body::Body::empty()).expect("a request");
        kept.push(app.clone().oneshot(request).await.expect("an answer").into_body());
    }
    assert_eq!(sse.connections().len(), 12);
    let start = Instant::now();
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 12);
    while !sse.connections().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    eventually("all are counted", || sse.connections().closed(CloseReason::Revoked) == 12).await;
}

/// Its ticket is spent by then: looking again would find nobody.
#[tokio::test]
async fn a_request_by_ticket_that_is_overtaken_is_told_so_and_to_get_another_ticket() {
    let restless = Restless::default();
    let tickets = hero_sse::auth::Tickets::new().audience("usage");
    let builder = crate::tickets::builder("").tickets(tickets).authorizer(restless.clone());
    let sse = builder.build().expect("a server");
    let _ = restless.0.set(sse.clone());
    let app = crate::tickets::app(&sse);
    let ticket = crate::tickets::buy(&app, "ann.may", "/api/usage").await;
    let path = format!("/api/usage?ticket={ticket}");
    let mut stream = testing::open(&app, &path).await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), false));
    assert!(sse.connections().is_empty());
}
