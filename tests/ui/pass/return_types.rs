//! Everything that an endpoint may return.
#![deny(warnings)]

use std::convert::Infallible;
use std::pin::Pin;

use futures_util::stream::{self, BoxStream};
use hero_sse::axum::extract::rejection::JsonRejection;
use hero_sse::axum::http::StatusCode;
use hero_sse::axum::response::IntoResponse;
use hero_sse::prelude::*;
use axum::Json;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(event = "usage")]
struct Usage<'a>(&'a str);

type Feed<T> = Result<BoxStream<'static, T>, Refusal>;
type Nothing = std::result::Result<stream::Empty<Event>, (StatusCode, &'static str)>;

#[sse_endpoint("/captures", public)]
async fn captures() -> impl Stream<Item = Usage<'static>> + Send + Unpin + 'static + use<> {
    stream::iter([Usage("captures")])
}

#[sse_endpoint("/boxed", public, event = "usage")]
async fn boxed() -> Pin<Box<dyn Stream<Item = Usage<'static>> + Send>> {
    Box::pin(stream::iter([Usage("boxed")]))
}

#[sse_endpoint("/alias", public, event = "usage")]
async fn alias() -> Feed<Result<Usage<'static>, std::io::Error>> {
    Ok(Box::pin(stream::iter([Ok(Usage("alias"))])))
}

#[sse_endpoint("/result", public, event = "usage")]
async fn result()
-> Result<impl Stream<Item = Result<Usage<'static>, Infallible>>, impl IntoResponse> {
    if false {
        return Err(StatusCode::IM_A_TEAPOT);
    }
    Ok(stream::iter([Ok(Usage("result"))]))
}

#[sse_endpoint("/concrete", public)]
async fn concrete() -> stream::Once<std::future::Ready<Usage<'static>>> {
    stream::once(std::future::ready(Usage("concrete")))
}

#[sse_endpoint("/nothing", public)]
async fn nothing() -> Nothing {
    Err((StatusCode::IM_A_TEAPOT, "nothing"))
}

#[sse_endpoint("/body", public, method = "post")]
async fn body(
    body: Result<Json<u8>, JsonRejection>,
) -> Result<impl Stream<Item = Event>, JsonRejection>
where
    u8: Copy,
{
    let Json(n) = body?;
    Ok(stream::iter([Event::text(n.to_string())]))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sse = HeroSse::builder().environment([] as [(String, String); 0]).build().unwrap();
    let endpoints = endpoints![captures, boxed, alias, result, concrete, nothing, body];
    let app = hero_sse::axum::Router::new().merge(sse.routes(endpoints).unwrap());
    for name in ["captures", "boxed", "alias", "result", "concrete"] {
        let mut stream = hero_sse::testing::open(&app, &format!("/{name}")).await.unwrap();
        let event = stream.next().await.unwrap().unwrap();
        assert_eq!((event.event.as_str(), event.data), ("usage", format!("\"{name}\"")));
    }
    let refused = hero_sse::testing::open(&app, "/nothing").await.unwrap_err();
    assert_eq!(refused.body, "nothing");
    let mut stream = hero_sse::testing::open(&app, "/body").json(&7).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().data, "7");
    assert!(hero_sse::testing::open(&app, "/body").json(&"x").await.is_err());
}
