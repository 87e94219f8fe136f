//! Everything that an endpoint may return.
#![deny(warnings)]

use std::convert::Infallible;
use std::pin::Pin;

use futures_util::stream::{self, BoxStream};
use hero_sse::axum::extract::rejection::JsonRejection;
use hero_sse::axum::http::{HeaderMap, StatusCode};
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

type Headed<T> = (HeaderMap, T);

#[sse_endpoint("/headers", public, event = "usage")]
async fn headers() -> (HeaderMap, [(&'static str, &'static str); 1], impl Stream<Item = Usage<'static>>) {
    (HeaderMap::new(), [("x-mine", "1")], stream::iter([Usage("headers")]))
}

#[sse_endpoint("/headers-or-refusal", public, event = "usage")]
async fn headers_or_refusal() -> Result<(HeaderMap, impl Stream<Item = Usage<'static>>), Refusal> {
    Ok((HeaderMap::new(), stream::iter([Usage("headers-or-refusal")])))
}

#[sse_endpoint("/headers-of-an-alias", public)]
async fn headers_of_an_alias() -> Result<Headed<stream::Once<std::future::Ready<Usage<'static>>>>, Refusal> {
    Ok((HeaderMap::new(), stream::once(std::future::ready(Usage("headers-of-an-alias")))))
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
    let endpoints = endpoints![
        captures, boxed, alias, result, concrete, nothing, body, headers, headers_or_refusal,
        headers_of_an_alias
    ];
    let app = hero_sse::axum::Router::new().merge(sse.routes(endpoints).unwrap());
    for name in ["captures", "boxed", "alias", "result", "concrete", "headers", "headers-or-refusal", "headers-of-an-alias"] {
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
