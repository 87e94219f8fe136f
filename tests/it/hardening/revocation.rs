//! Attempts to get in, stay or come back around a `disconnect`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hero_sse::auth::{
    Access, AuthError, Authenticator, Authorizer, Decision, Permission, Secret, authorizer_fn,
};
use hero_sse::connections::ConnectionFilter;
use hero_sse::{CloseReason, HeroSse, Principal, SseContext, SseOptions};
use http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::access::{read_close, sse_with_authorizer};
use crate::support::testing;
use crate::support::{Server, burst, claims, sign, sse_with};

/// Signals each call, and returns when the test sends an answer.
struct Held {
    calls: UnboundedSender<()>,
    answers: tokio::sync::Mutex<UnboundedReceiver<bool>>,
}

fn held() -> (Held, UnboundedReceiver<()>, UnboundedSender<bool>) {
    let (calls, called) = unbounded_channel();
    let (answer, answers) = unbounded_channel();
    (Held { calls, answers: answers.into() }, called, answer)
}

impl Authorizer for Held {
    fn authorize<'a>(&'a self, _: &'a Access<'a>) -> BoxFuture<'a, Result<Decision, AuthError>> {
        async move {
            self.calls.send(()).expect("a receiver");
            let yes = self.answers.lock().await.recv().await.expect("an answer");
            Ok(if yes { Decision::granted() } else { Decision::denied() })
        }
        .boxed()
    }
}

/// Waits for the next call.
pub(super) async fn next_call(called: &mut UnboundedReceiver<()>) {
    let call = tokio::time::timeout(Duration::from_secs(5), called.recv()).await;
    call.expect("in time").expect("a sender");
}

pub(super) fn of(subject: &str) -> ConnectionFilter {
    ConnectionFilter::all().subject(subject)
}

#[tokio::test]
async fn a_decision_from_before_a_disconnect_opens_no_stream_after_it() {
    let (held, mut called, answer) = held();
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
    next_call(&mut called).await;
    assert_eq!(sse.connections().disconnect(&of("ann"), CloseReason::Revoked), 0);
    answer.send(true).expect("the answer from before");
    next_call(&mut called).await;
    answer.send(false).expect("the answer from now");
    let error = opening.await.expect("no panic").expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
    assert_eq!((ran.load(Ordering::SeqCst), sse.connections().len()), (0, 0));

    // A caller who still has access gets in. Another caller's disconnect causes no second call.
    for (name, calls) in [("ann", 2), ("bob", 1)] {
        let opening = open();
        next_call(&mut called).await;
        sse.connections().disconnect(&of(name), CloseReason::Revoked);
        answer.send(true).expect("an answer");
        if calls == 2 {
            next_call(&mut called).await;
            answer.send(true).expect("an answer");
        }
        opening.await.expect("no panic").expect("a stream");
        assert!(called.try_recv().is_err(), "{name}: called once more");
    }
    // Older disconnects are no longer recorded, so any of them may have hit this caller.
    let opening = open();
    next_call(&mut called).await;
    for n in 0..300 {
        sse.connections().disconnect(&of(&format!("user {n}")), CloseReason::Revoked);
    }
    answer.send(true).expect("an answer");
    next_call(&mut called).await;
    answer.send(true).expect("an answer");
    opening.await.expect("no panic").expect("a stream");
}

/// Accepts the tokens in the list.
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
async fn a_token_that_is_revoked_during_its_request_is_checked_again() {
    let sessions = Arc::new(Mutex::new(vec!["good"]));
    let (held, mut called, answer) = held();
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Sessions(sessions.clone()))
        .authorizer(held)
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let opening = tokio::spawn(testing::open(&app, "/s").bearer("good").into_future());
    next_call(&mut called).await;
    sessions.lock().expect("no panic").clear();
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::Revoked);
    answer.send(true).expect("an answer");
    let error = opening.await.expect("no panic").expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    assert!(error.body.contains("the session is over"), "{error}");
}

/// An authenticator that signals each call, and returns when the test sends an answer.
struct Slow(Held);

impl Authenticator for Slow {
    fn authenticate<'a>(
        &'a self,
        _: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        async {
            self.0.calls.send(()).expect("a receiver");
            let good = self.0.answers.lock().await.recv().await.expect("an answer");
            if good { Ok(Principal::new("ann")) } else { Err(AuthError::invalid("denied")) }
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_disconnect_while_the_token_is_checked_is_not_missed() {
    let (held, mut called, answer) = held();
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Slow(held))
        .build()
        .expect("a server");
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let opening = tokio::spawn(testing::open(&app, "/s").bearer("t").into_future());
    next_call(&mut called).await;
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    answer.send(true).expect("the answer from before");
    next_call(&mut called).await;
    answer.send(false).expect("the answer from now");
    let error = opening.await.expect("no panic").expect_err("401");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
}

/// Disconnects the caller in every call.
#[derive(Clone, Default)]
struct AlwaysDisconnects(Arc<OnceLock<HeroSse>>, Arc<AtomicUsize>);

impl Authorizer for AlwaysDisconnects {
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
async fn a_request_that_is_disconnected_in_every_check_opens_no_stream() {
    let disconnects = AlwaysDisconnects::default();
    let sse = sse_with_authorizer(SseOptions::default(), disconnects.clone());
    let _ = disconnects.0.set(sse.clone());
    let endpoint: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let old = get(async |sse: SseContext| sse.stream(burst(1)).await);
    let app = endpoint.route("/old", old).layer(axum::Extension(sse.clone()));
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), true));
    assert_eq!(disconnects.1.load(Ordering::SeqCst), 3);
    // The handler of `SseContext` has run by then, so it is not checked again. Its client may reconnect.
    let mut stream = testing::open(&app, "/old").principal("ann").await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), true));
    assert_eq!(disconnects.1.load(Ordering::SeqCst), 4);
    assert_eq!(sse.connections().closed(CloseReason::Unverified), 2);
    assert!(sse.connections().is_empty());
}

/// The ticket is spent, so it cannot be checked again.
#[tokio::test]
async fn a_request_by_ticket_that_is_disconnected_while_it_opens_needs_another_ticket() {
    let disconnects = AlwaysDisconnects::default();
    let tickets = hero_sse::auth::Tickets::new().audience("usage");
    let builder = crate::tickets::builder("").tickets(tickets).authorizer(disconnects.clone());
    let sse = builder.build().expect("a server");
    let _ = disconnects.0.set(sse.clone());
    let app = crate::tickets::app(&sse);
    let ticket = crate::tickets::buy(&app, "ann.may", "/api/usage").await;
    let path = format!("/api/usage?ticket={ticket}");
    let mut stream = testing::open(&app, &path).await.expect("a closing event");
    assert_eq!(read_close(&mut stream).await, ("unverified".to_owned(), false));
    assert!(sse.connections().is_empty());
}

/// A database of users and their permissions.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<String, Vec<&'static str>>>>);

impl Users {
    fn hold(&self, name: &str, permission: &str) -> bool {
        let users = self.0.lock().expect("no panic");
        users.get(name).is_some_and(|held| held.contains(&permission))
    }

    fn authorizer(&self) -> impl Authorizer + use<> {
        let users = self.clone();
        authorizer_fn(move |who: Principal, permission: Permission| {
            let may = users.hold(who.subject(), permission.as_str());
            async move { Ok::<_, std::io::Error>(may) }
        })
    }
}

/// As the documentation of `Connections::disconnect` says: first the database, then the streams.
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
    let timeout = Duration::from_millis(300);
    assert!(bob.timeout(timeout).next().await.is_err(), "the other caller's stream was disturbed");
    server.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_let_a_revoked_client_reconnect() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    sse.drain();
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
    assert_eq!(sse.connections().closed(CloseReason::Draining), 0);
}

/// A stream that is to end within a drain is revoked all the same.
#[tokio::test]
async fn a_disconnect_takes_precedence_over_a_drain() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    sse.connections().drain(&of("ann"));
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
}

#[tokio::test]
async fn a_later_disconnect_for_another_reason_does_not_let_a_revoked_client_reconnect() {
    let sse = sse_with(SseOptions::default());
    let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    sse.connections().disconnect(&of("ann"), CloseReason::Revoked);
    sse.connections().disconnect(&ConnectionFilter::all(), CloseReason::MaxAge);
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
}
