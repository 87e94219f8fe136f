//! The format of refusals.

use axum::extract::{FromRequestParts, Path};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::stream;
use hero_sse::prelude::*;
use hero_sse::server::RefusalInfo;
use hero_sse::testing::OpenError;
use serde_json::{Value, json};

use crate::support::testing;
use crate::support::{Log, jwt};

fn openai(refusal: &RefusalInfo<'_>) -> Json<Value> {
    let code = refusal.status().as_u16();
    Json(json!({"error": {"message": refusal.detail(), "code": code, "at": refusal.endpoint()}}))
}

/// A format that decides everything itself.
fn own(_: &RefusalInfo<'_>) -> Response {
    (StatusCode::IM_A_TEAPOT, [("www-authenticate", "Own")], "own").into_response()
}

fn panics(_: &RefusalInfo<'_>) -> StatusCode {
    panic!("the format panics on purpose")
}

/// Has an answer with a format of its own, or one without.
struct Picky;

impl<S: Sync> FromRequestParts<S> for Picky {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        Err(match parts.headers.get("x-how").map(HeaderValue::as_bytes) {
            Some(b"json") => (StatusCode::CONFLICT, Json(json!({"mine": true}))).into_response(),
            Some(b"status") => (StatusCode::CONFLICT, [("x-mine", "1")]).into_response(),
            Some(b"long") => (StatusCode::CONFLICT, "x".repeat(100_000)).into_response(),
            Some(b"never") => {
                let body = axum::body::Body::from_stream(stream::pending::<Result<&str, String>>());
                (StatusCode::CONFLICT, body).into_response()
            }
            _ => (StatusCode::FOUND, [("location", "/login")]).into_response(),
        })
    }
}

#[sse_endpoint("/posted", method = "post", public)]
async fn posted(Json(n): Json<u64>) -> Result<stream::Pending<Event>, Response> {
    Err(match n {
        0 => Refusal::not_found("there is no such answer").into_response(),
        _ => (StatusCode::CONFLICT, "mine").into_response(),
    })
}

#[sse_endpoint("/token/{id}")]
async fn token(_: Path<u64>) -> stream::Pending<Event> {
    stream::pending()
}

#[sse_endpoint("/picky", public)]
async fn picky(_: Picky) -> stream::Pending<Event> {
    stream::pending()
}

#[sse_endpoint("/own", refusals = own)]
async fn its_own() -> stream::Pending<Event> {
    stream::pending()
}

#[sse_endpoint("/panics", refusals = panics)]
async fn panicking() -> stream::Pending<Event> {
    stream::pending()
}

#[sse_endpoint("/full", public, max_connections = 1, over_limit = "refuse")]
async fn full() -> stream::Pending<Event> {
    stream::pending()
}

fn app(with_format: bool) -> Router {
    let mut sse = HeroSse::builder().environment([] as [(String, String); 0]).authenticator(jwt());
    if with_format {
        sse = sse.refusals(openai);
    }
    let sse = sse.build().expect("a server");
    let old = async |sse: SseContext| sse.stream(stream::pending::<Event>()).await;
    let built = sse.endpoint("/built").refusals(own).handler(async || stream::pending::<Event>());
    let endpoints = endpoints![posted, token, picky, its_own, panicking, full];
    let app = sse.routes(endpoints).expect("routes").merge(built.expect("a route"));
    app.route("/old", axum::routing::get(old)).layer(axum::Extension(sse))
}

async fn refused(app: &Router, path: &str) -> OpenError {
    testing::open(app, path).await.expect_err("refused")
}

fn code(error: &OpenError) -> Option<u16> {
    error.status.map(|status| status.as_u16())
}

fn message(error: &OpenError) -> String {
    let body: Value = serde_json::from_str(&error.body).expect("JSON");
    assert_eq!(body["error"]["code"].as_u64(), code(error).map(u64::from), "{body}");
    assert_eq!(error.headers[CONTENT_TYPE], "application/json");
    body["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn a_refusal_has_the_format_of_the_server_and_keeps_status_and_headers() {
    let app = app(true);
    let error = refused(&app, "/token/7").await;
    assert_eq!((code(&error), message(&error).as_str()), (Some(401), "a bearer token is required"));
    assert!(error.headers[WWW_AUTHENTICATE].as_bytes().starts_with(b"Bearer"));
    assert_eq!(error.headers["cache-control"], "no-store");
    assert!(error.body.contains("/token/{id}"), "{}", error.body);
    let _open = testing::open(&app, "/full").await.expect("a stream");
    let error = refused(&app, "/full").await;
    assert_eq!(code(&error), Some(503));
    assert!(message(&error).contains("too many") && error.headers.contains_key(RETRY_AFTER));
    // Of the function, and of another kind of handler.
    let error = testing::open(&app, "/posted").json(&0).await.expect_err("refused");
    assert_eq!((code(&error), message(&error).as_str()), (Some(404), "there is no such answer"));
    let error = refused(&app, "/old").await;
    assert_eq!((code(&error), message(&error).as_str()), (Some(401), "a bearer token is required"));
    let error = testing::open(&app, "/old").bearer("a.b.c").await.expect_err("refused");
    assert!(!message(&error).is_empty());
    // What the function formats itself stays.
    let error = testing::open(&app, "/posted").json(&1).await.expect_err("refused");
    assert_eq!((code(&error), error.body.as_str()), (Some(409), "mine"));
}

#[tokio::test]
async fn rejections_of_axums_extractors_have_it_with_their_status() {
    for with_format in [true, false] {
        let app = app(with_format);
        let malformed = testing::open(&app, "/posted").json(&"x").await.expect_err("refused");
        assert_eq!(code(&malformed), Some(422));
        let untyped = testing::open(&app, "/posted").body("7").await.expect_err("refused");
        assert_eq!(code(&untyped), Some(415));
        let detail = |error: &OpenError| match with_format {
            true => message(error),
            false => {
                assert_eq!(error.headers[CONTENT_TYPE], "application/problem+json");
                let problem: Value = serde_json::from_str(&error.body).expect("JSON");
                problem["detail"].as_str().expect("a detail").to_owned()
            }
        };
        assert!(detail(&malformed).contains("expected u64"), "{malformed}");
        assert!(detail(&untyped).contains("Content-Type"), "{untyped}");
        let how = |how| testing::open(&app, "/picky").header("x-how", how);
        let bare = how("status").await.expect_err("refused");
        assert_eq!((code(&bare), detail(&bare).as_str()), (Some(409), "Conflict"));
        assert_eq!(bare.headers["x-mine"], "1");
        // Bodies without an end, or too long to be a sentence, are not waited for.
        for endless in ["long", "never"] {
            let error = how(endless).await.expect_err("refused");
            assert_eq!((code(&error), detail(&error).as_str()), (Some(409), "Conflict"));
        }
        // A format of its own, and an answer that is no error.
        let own = how("json").await.expect_err("refused");
        assert_eq!((code(&own), own.body.as_str()), (Some(409), "{\"mine\":true}"));
        let login = how("redirect").await.expect_err("refused");
        assert_eq!(
            (code(&login), &login.headers["location"]),
            (Some(302), &HeaderValue::from_static("/login"))
        );
    }
}

#[tokio::test]
async fn an_endpoint_has_a_format_of_its_own_which_may_set_everything() {
    for path in ["/own", "/built"] {
        let error = refused(&app(true), path).await;
        assert_eq!((code(&error), error.body.as_str()), (Some(418), "own"), "{path}");
        assert!(error.headers.get_all(WWW_AUTHENTICATE).iter().eq(["Own"]), "{path}");
    }
}

#[tokio::test]
async fn a_format_that_panics_is_replaced_by_problem_details() {
    let (log, _guard) = Log::everything();
    let error = refused(&app(true), "/panics").await;
    assert_eq!(code(&error), Some(401));
    assert_eq!(error.headers[CONTENT_TYPE], "application/problem+json");
    assert!(error.headers.contains_key(WWW_AUTHENTICATE));
    assert!(log.text().contains("refusals hook"), "{}", log.text());
}
