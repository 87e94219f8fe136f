//! Credentials and permissions that have expired, or cannot be verified.

use std::time::{Duration, SystemTime};

use axum::Router;
use hero_sse::auth::{AuthError, authenticator_fn};
use hero_sse::{CloseReason, HeroSse, Principal};
use http::StatusCode;
use serde_json::json;

use crate::access::{Answer, ScriptedAuthorizer, read_close, sse_with_authorizer};
use crate::support::testing;
use crate::support::{burst, claims, jwt, now, options, sign};

#[tokio::test]
async fn while_no_caller_can_be_verified_none_gets_in_and_browsers_reconnect() {
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

/// The client reconnects at once after every end.
#[tokio::test]
async fn a_token_in_its_leeway_does_not_open_one_stream_after_another() {
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
        assert!(streams < 3, "an endless loop");
    };
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED));
    assert!(error.body.contains("the token has expired"), "{error}");
    assert!(streams <= 1, "{streams}");
}

#[tokio::test]
async fn an_expired_credential_opens_nothing_even_if_the_authenticator_accepts_it() {
    for over in [Duration::ZERO, Duration::from_secs(60)] {
        let careless = authenticator_fn(move |_| async move {
            Ok(Principal::new("ann").valid_until(SystemTime::now() - over))
        });
        let sse = HeroSse::builder()
            .environment(Vec::<(String, String)>::new())
            .authenticator(careless)
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

/// The permission is withdrawn while the stream is open, without a `disconnect`.
#[tokio::test(start_paused = true)]
async fn a_withdrawn_permission_ends_the_stream_at_the_next_recheck() {
    let oracle = ScriptedAuthorizer::new(Answer::Yes);
    let sse = sse_with_authorizer(options("ReauthorizeInterval = \"10s\""), oracle.clone());
    let app: Router =
        sse.endpoint("/s").permission("read").handler(async || burst(1)).expect("a route");
    let mut stream = testing::open(&app, "/s").principal("ann").await.expect("a stream");
    stream.next().await.expect("in time").expect("an event");
    oracle.set_answer(Answer::No);
    let mut stream = stream.timeout(Duration::from_secs(11));
    assert_eq!(read_close(&mut stream).await, ("revoked".to_owned(), false));
    let error = testing::open(&app, "/s").principal("ann").await.expect_err("403");
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN));
}
