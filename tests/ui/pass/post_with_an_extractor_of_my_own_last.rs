//! The last argument under `method = "post"` is any `FromRequest`, or any `FromRequestParts`.
#![deny(warnings)]

use hero_sse::axum::body::{Bytes, to_bytes};
use hero_sse::axum::extract::{FromRequest, FromRequestParts, Request};
use hero_sse::axum::http::request::Parts;
use hero_sse::prelude::*;

struct Length(usize);

impl<S: Send + Sync> FromRequest<S> for Length {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = to_bytes(request.into_body(), 1000).await;
        body.map(|body| Self(body.len())).map_err(|_| Refusal::bad_request("too long"))
    }
}

struct Verb(String);

impl<S: Sync> FromRequestParts<S> for Verb {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(parts.method.to_string()))
    }
}

#[sse_endpoint("/length", method = "post", public, state = ())]
async fn length(Verb(verb): Verb, Length(length): Length) -> impl Stream<Item = Event> {
    futures_util::stream::iter([Event::text(format!("{verb} {length}"))])
}

#[sse_endpoint("/verb", method = "post", public)]
async fn verb(Verb(verb): Verb) -> impl Stream<Item = Event> {
    futures_util::stream::iter([Event::text(verb)])
}

#[sse_endpoint("/bytes", method = "post", public)]
async fn bytes(bytes: Bytes) -> impl Stream<Item = Event> {
    futures_util::stream::iter([Event::text(format!("{bytes:?}"))])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sse = HeroSse::builder().environment([] as [(String, String); 0]).build().unwrap();
    let app =
        hero_sse::axum::Router::new().merge(sse.routes(endpoints![length, verb, bytes]).unwrap());
    for (path, data) in [("/length", "POST 4"), ("/verb", "POST"), ("/bytes", "b\"four\"")] {
        let mut stream = hero_sse::testing::open(&app, path).body("four").await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().data, data);
    }
}
