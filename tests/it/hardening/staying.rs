//! Attempts to stay, or to come back, after access has ended.

use axum::Router;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hero_sse::testing;
use hero_sse::{AuthError, Authenticator, CloseReason, HeroSse, Principal, Secret};
use http::StatusCode;

use crate::support::burst;

/// An authenticator whose database is down.
struct Down;

impl Authenticator for Down {
    fn authenticate<'a>(
        &'a self,
        _: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        async { Err(AuthError::unavailable("connection refused by db-7")) }.boxed()
    }
}

#[tokio::test]
async fn while_nobody_can_be_verified_nobody_gets_in_and_browsers_come_back() {
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(Down)
        .build()
        .expect("a kit");
    let retry = sse.endpoint("/retry").handler(async || burst(3)).expect("a route");
    let refuse = sse.endpoint("/refuse").over_limit(hero_sse::OverLimit::Refuse);
    let app: Router = retry.merge(refuse.handler(async || burst(3)).expect("a route"));
    let mut stream = testing::open(&app, "/retry").bearer("t").await.expect("a farewell");
    let events = stream.rest().await.expect("a clean end");
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
