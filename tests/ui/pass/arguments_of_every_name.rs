//! Arguments may have any name, also one that the expansion might use.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::FromRef;
use axum::extract::State;

type S = State<u8>;

#[sse_endpoint("/plain", public)]
async fn plain(
    State(req): S,
    State(state): S,
    State(self_): S,
    State(request): S,
    State(parts): S,
    State(frame): S,
    State(usage): S,
    State(stream): S,
) -> impl Stream<Item = Event> {
    let sum = req + state + self_ + request + parts + frame + usage + stream;
    futures_util::stream::iter([Event::text(sum.to_string())])
}

#[sse_endpoint("/reserved", public)]
async fn reserved(
    State(__request): S,
    State(__state): S,
    State(__sse): S,
    State(__0): S,
    State(__1): S,
    State(__frame): S,
    State(reserved): S,
) -> impl Stream<Item = Event> {
    let sum = __request + __state + __sse + __0 + __1 + __frame + reserved;
    futures_util::stream::iter([Event::text(sum.to_string())])
}

#[derive(Clone, Copy)]
struct Pair {
    a: u8,
    b: (u8, [u8; 2]),
}

impl FromRef<u8> for Pair {
    fn from_ref(n: &u8) -> Self {
        Self { a: *n, b: (*n, [*n; 2]) }
    }
}

#[sse_endpoint("/patterns", public)]
async fn patterns(
    State(Pair { a, b: (c, [d, ..]) }): State<Pair>,
    State(whole @ Pair { a: mut e, .. }): State<Pair>,
    State(Pair { b: (ref f, _), .. }): State<Pair>,
    _: S,
    State(g): S,
    mut h: S,
) -> impl Stream<Item = Event> {
    e += 1;
    h.0 += 1;
    let sum = a + c + d + e + whole.b.1[1] + f + g + h.0;
    futures_util::stream::iter([Event::text(sum.to_string())])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sse = HeroSse::builder().environment([] as [(String, String); 0]).build().unwrap();
    let routes = sse.routes(endpoints![plain, reserved, patterns]).unwrap();
    let app = hero_sse::axum::Router::new().merge(routes).with_state(2);
    for (path, sum) in [("/plain", "16"), ("/reserved", "14"), ("/patterns", "18")] {
        let mut stream = hero_sse::testing::open(&app, path).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().data, sum);
    }
}
