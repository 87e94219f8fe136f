//! A `POST` needs neither a body nor an argument.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::State;

#[sse_endpoint("/nothing", method = "post", public)]
async fn nothing() -> impl Stream<Item = Event> {
    futures_util::stream::iter([Event::text("nothing")])
}

#[sse_endpoint("/parts", method = "post", public)]
async fn parts(State(n): State<u8>, who: Option<Principal>) -> impl Stream<Item = Event> {
    futures_util::stream::iter([Event::text(format!("{n} {}", who.is_none()))])
}

#[sse_endpoint("/get", method = "get", public)]
async fn get() -> impl Stream<Item = Event> {
    futures_util::stream::iter([Event::text("get")])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sse = HeroSse::builder().environment([] as [(String, String); 0]).build().unwrap();
    let routes = sse.routes(endpoints![nothing, parts, get]).unwrap();
    let app = hero_sse::axum::Router::new().merge(routes).with_state(3);
    for (path, data) in [("/nothing", "nothing"), ("/parts", "3 true")] {
        let mut stream = hero_sse::testing::open(&app, path).body("").await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().data, data);
    }
    let mut stream = hero_sse::testing::open(&app, "/get").await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().data, "get");
}
