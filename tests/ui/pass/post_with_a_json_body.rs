//! Under `method = "post"` the last argument may be the body. The arguments before it are extractors as always.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::Json;
use axum::extract::Path;
use axum::extract::State;

#[derive(serde::Deserialize)]
struct Question<T> {
    words: T,
}

#[sse_endpoint("/ask/{who}", method = "post", public)]
async fn ask(
    Path(who): Path<String>,
    State(end): State<char>,
    Json(question): Json<Question<Vec<String>>>,
) -> Result<impl Stream<Item = Event>, Refusal> {
    let words = question.words.into_iter();
    Ok(futures_util::stream::iter(
        words.map(move |word| Event::text(format!("{who}: {word}{end}"))),
    ))
}

#[sse_endpoint("/maybe", method = "post", public)]
async fn maybe(body: Option<Json<u8>>) -> impl Stream<Item = Event> {
    let body = body.map_or("none".to_owned(), |Json(n)| n.to_string());
    futures_util::stream::iter([Event::text(body)])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sse = HeroSse::builder().environment([] as [(String, String); 0]).build().unwrap();
    let routes = sse.routes(endpoints![ask, maybe]).unwrap();
    let app = hero_sse::axum::Router::new().merge(routes).with_state('!');
    let question = serde_json::json!({"words": ["well"]});
    let mut stream = hero_sse::testing::open(&app, "/ask/ann").json(&question).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().data, "ann: well!");
    for (body, answer) in [(Some(7), "7"), (None, "none")] {
        let open = hero_sse::testing::open(&app, "/maybe");
        let open = if let Some(body) = body { open.json(&body) } else { open.body("") };
        assert_eq!(open.await.unwrap().next().await.unwrap().unwrap().data, answer);
    }
}
