//! Attempts to open what a permission with captures keeps for somebody else.

use axum::Router;
use axum::extract::Path;
use axum::http::header::WWW_AUTHENTICATE;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use hero_sse::auth::{Access, AuthError, Authorizer, Decision, Tickets};
use hero_sse::{Event, HeroSse, Principal, SseOptions};
use http::StatusCode;
use serde_json::json;

use crate::access::sse_with_authorizer;
use crate::support::testing::{self, OpenError};
use crate::support::{Log, burst, claims, jwt, sign, sse_with};
use crate::tickets;

/// A server whose tokens may hold grants that end in `*`.
fn with_wildcards() -> HeroSse {
    HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(jwt().wildcards())
        .build()
        .expect("a server")
}

fn token(permissions: &[&str]) -> String {
    sign(&claims(|claims| claims["permissions"] = json!(permissions)))
}

fn route(sse: &HeroSse, path: &str, permission: &'static str) -> Router {
    sse.endpoint(path).permission(permission).handler(async || burst(1)).expect("a route")
}

/// Refused for its form: nothing of the value is sent back.
fn assert_unfit(result: Result<testing::EventReader, OpenError>, path: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{path} was opened"));
    assert_eq!(error.status, Some(StatusCode::FORBIDDEN), "{path}: {error}");
    assert!(!error.headers.contains_key(WWW_AUTHENTICATE), "{path}: {:?}", error.headers);
    let detail = "the path's `build` cannot be part of a permission: that takes 1 to 128 letters, digits, `-`, \
                  `_` or `~`";
    let body =
        json!({ "type": "about:blank", "title": "Forbidden", "status": 403, "detail": detail });
    assert_eq!(error.body.parse::<serde_json::Value>().expect("JSON"), body, "{path}");
}

#[tokio::test]
async fn a_value_in_the_path_reaches_no_other_build() {
    let (log, _guard) = Log::everything();
    let sse = with_wildcards();
    // Which have one form with a part more, and one with a part less.
    let app = route(&sse, "/builds/{build}/stream", "builds.{build}.read").merge(route(
        &sse,
        "/all/{build}",
        "builds.{build}",
    ));
    // Each would be what somebody asks for, if values were taken as they come.
    let held = [
        "builds.1.read",
        "builds.1.read.read",
        "builds.1:2.read",
        "builds.1/2.read",
        "builds.*.read",
        "builds.**.read",
        "builds.{build}.read",
        "builds.%31.read",
        "builds.+1.read",
        "builds..read",
        "builds.1,.read",
        "builds.1",
        "other.*",
    ];
    let token = token(&held);
    let open = async |path: &str| testing::open(&app, path).bearer(&token).await;
    open("/builds/1/stream").await.expect("its own");
    for path in ["/builds/2/stream", "/all/2"] {
        let error = open(path).await.expect_err(path);
        assert!(error.headers.contains_key(WWW_AUTHENTICATE), "{path}: in form, and another's");
    }
    let long = "1".repeat(129);
    for value in [
        "1.read",
        "1%2Eread",
        "1%2eread",
        "1:2",
        "1%2F2",
        "*",
        "%2A",
        "**",
        "%7Bbuild%7D",
        "%2531",
        "+1",
        "1%20builds.2.read",
        "1%20",
        "%20",
        "1%22",
        "1%22,%20error=%22canary",
        "1%5C",
        "1%00",
        "1%0D%0Acanary:%201",
        "%7F",
        "1,",
        "%C3%A9",
        "%EF%BC%91",
        "%FF",
        "1%E2%80%8B",
        long.as_str(),
    ] {
        for path in [format!("/builds/{value}/stream"), format!("/all/{value}")] {
            assert_unfit(open(&path).await, &path);
        }
    }
    let fit = "1".repeat(128);
    let error = open(&format!("/all/{fit}")).await.expect_err("not held");
    assert!(error.headers.contains_key(WWW_AUTHENTICATE), "the longest that fits");
    assert!(!log.text().contains("canary"), "{}", log.text());
    assert_eq!(sse.connections().len(), 0);
}

#[tokio::test]
async fn two_values_cannot_pose_as_two_others() {
    let sse = sse_with(SseOptions::default());
    let app = route(&sse, "/r/{a}/{build}", "r.{a}.{build}");
    let who = Principal::test("ann").permission("r.x.y.z").permission("r.x.y");
    let open = |path: &str| testing::open(&app, path).principal(who.clone());
    open("/r/x/y").await.expect("its own");
    assert_unfit(open("/r/x/y.z").await, "/r/x/y.z");
    assert_eq!(open("/r/x.y/z").await.expect_err("403").status, Some(StatusCode::FORBIDDEN));
    // Where the pieces could be told apart in more than one way, there is no such endpoint.
    for ambiguous in [
        "{a}.{build}",
        "r.{a}{build}",
        "r.{a}-{build}",
        "r.{a}x{build}",
        "r{a}.x",
        "r.{a}x",
        "r.{a}x.{build}",
    ] {
        let endpoint = sse.endpoint("/s/{a}/{build}").permission(ambiguous);
        let mapped = endpoint.handler::<_, _, ()>(async || burst(1));
        let error = mapped.expect_err(ambiguous).to_string();
        assert!(error.contains("next to other text or at its beginning"), "{error}");
    }
}

#[tokio::test]
async fn a_grant_that_holds_the_template_itself_opens_nothing() {
    for sse in [sse_with(SseOptions::default()), with_wildcards()] {
        let app = route(&sse, "/builds/{build}", "builds.{build}.read");
        let token = token(&["builds.{build}.read", "builds.{build}.*", "{build}", "builds.*.read"]);
        for value in ["1", "build"] {
            let path = format!("/builds/{value}");
            let error = testing::open(&app, &path).bearer(&token).await.expect_err("403");
            let asked = error.headers[WWW_AUTHENTICATE].to_str().expect("ASCII");
            assert!(asked.ends_with(&format!("scope=\"builds.{value}.read\"")), "{asked}");
        }
        let path = "/builds/%7Bbuild%7D";
        assert_unfit(testing::open(&app, path).bearer(&token).await, path);
    }
}

#[tokio::test]
async fn a_value_that_is_decoded_is_the_one_that_the_function_gets() {
    let sse = sse_with(SseOptions::default());
    let endpoint = sse.endpoint("/builds/{build}").permission("builds.{build}");
    let app: Router = endpoint
        .handler(async |Path(build): Path<String>| stream::iter([Event::text(build)]))
        .expect("a route");
    let who = Principal::test("ann").permission("builds.a-1");
    for path in ["/builds/a-1", "/builds/%61-1", "/builds/a%2D%31", "/builds/a%2d1?build=2"] {
        let mut stream = testing::open(&app, path).principal(who.clone()).await.expect(path);
        assert_eq!(stream.next().await.expect("in time").expect("an event").data, "a-1", "{path}");
    }
    for path in ["/builds/A-1", "/builds/a-%2531", "/builds/2?build=a-1"] {
        assert!(testing::open(&app, path).principal(who.clone()).await.is_err(), "{path}");
    }
}

#[tokio::test]
async fn an_outer_router_cannot_say_which_build_is_meant() {
    let sse = sse_with(SseOptions::default());
    let inner = route(&sse, "/builds/{build}", "builds.{build}");
    let app = Router::new()
        .nest_service("/of/{build}", inner.clone())
        .nest_service("/other/{other}", inner);
    let who = Principal::test("ann").permission("builds.1");
    let open = |path: &str| testing::open(&app, path).principal(who.clone());
    open("/other/2/builds/1").await.expect("another name");
    for path in ["/of/1/builds/2", "/of/2/builds/1", "/of/1/builds/1"] {
        assert_unfit(open(path).await, path);
    }
    // Nor to an authorizer that looks at captures itself.
    let sse = sse_with_authorizer(SseOptions::default(), Owner);
    let inner = route(&sse, "/builds/{build}", "builds.read");
    let app = Router::new()
        .nest_service("/of/{build}", inner.clone())
        .nest_service("/other/{other}", inner);
    let open = |path: &str| testing::open(&app, path).principal("ann");
    open("/other/2/builds/1").await.expect("another name");
    for path in ["/of/1/builds/2", "/of/2/builds/1", "/other/1/builds/2"] {
        assert!(open(path).await.is_err(), "{path}");
    }
}

/// Build 1 is everybody's.
struct Owner;

impl Authorizer for Owner {
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>> {
        let decision = access.decide(|_| access.capture("build") == Some("1"));
        async move { Ok(decision) }.boxed()
    }
}

#[tokio::test]
async fn a_ticket_for_another_build_is_not_sold() {
    let sse = HeroSse::builder()
        .environment(Vec::<(String, String)>::new())
        .authenticator(jwt())
        .tickets(Tickets::new().audience("builds"))
        .build()
        .expect("a server");
    let app = route(&sse, "/api/builds/{build}", "builds.{build}.read");
    let app = app.merge(sse.at("/api").tickets("/tickets").expect("a route"));
    let token = token(&["builds.1.read", "builds.{build}.read", "builds.*.read"]);
    let ticket = tickets::buy(&app, &token, "/api/builds/1").await;
    tickets::open(&app, "/api/builds/1", &ticket).await.expect("a stream");
    let ticket = tickets::buy(&app, &token, "/api/builds/1").await;
    assert!(tickets::open(&app, "/api/builds/2", &ticket).await.is_err(), "another's ticket");
    for value in ["2", "1.read", "*", "%2A", "%7Bbuild%7D", "1%20"] {
        let path = json!({ "path": format!("/api/builds/{value}") }).to_string();
        let answer = tickets::post(&app, "/api/tickets", &token, path).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{value}");
        assert_eq!(answer.headers().contains_key(WWW_AUTHENTICATE), value == "2", "{value}");
    }
}
