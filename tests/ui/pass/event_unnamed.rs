//! `unnamed` leaves an event without a name, on a struct, an enum or a variant, also where the endpoint declares one.
#![deny(warnings)]

use hero_sse::prelude::*;
use hero_sse::testing::frame;
use serde::Serialize;

#[derive(Serialize, SseEvent)]
#[sse(unnamed)]
struct Usage {
    #[sse(id)]
    used: u64,
}

#[derive(SseEvent)]
#[sse(data = "text", unnamed)]
enum Chunk<'a> {
    Text(&'a str),
    #[sse(event = "error")]
    Failed(&'a str),
    #[sse(unnamed, last)]
    Done(&'static str),
}

#[derive(SseEvent)]
#[sse(rename_all = "snake_case")]
enum Mixed {
    #[sse(unnamed)]
    OfTwoWords,
    HasAName,
}

#[sse_endpoint("/usage", public, event = "declared")]
async fn usage() -> impl Stream<Item = Usage> {
    futures_util::stream::iter([Usage { used: 1 }])
}

fn main() {
    assert_eq!(frame(&Usage { used: 1 }).unwrap(), "id: 1\ndata: {\"used\":1}\n\n");
    assert_eq!(<Usage as SseEvent>::NAME, None);
    assert_eq!(frame(&Chunk::Text("a\nb")).unwrap(), "data: a\ndata: b\n\n");
    assert_eq!(frame(&Chunk::Failed("x")).unwrap(), "event: error\ndata: x\n\n");
    assert_eq!(frame(&Chunk::Done("x")).unwrap(), "data: x\nid: hero.end\n\n");
    assert_eq!(frame(&Mixed::OfTwoWords).unwrap(), "data: null\n\n");
    assert_eq!(frame(&Mixed::HasAName).unwrap(), "event: has_a_name\ndata: null\n\n");
    let _: hero_sse::extend::Endpoints<()> = endpoints![usage];
}
