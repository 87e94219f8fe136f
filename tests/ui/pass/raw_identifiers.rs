//! Keywords as names of endpoints, arguments, types, variants and fields.
#![deny(warnings)]
#![allow(non_camel_case_types)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;
use axum::extract::Path;
use serde::Serialize;
use hero_sse::testing::frame;

#[derive(Serialize, SseEvent)]
struct r#struct {
    #[sse(id)]
    r#type: u64,
    #[sse(key)]
    r#gen: u64,
}

#[derive(SseEvent)]
enum r#enum<'r#mod, r#dyn> {
    r#match {
        #[sse(id)]
        r#as: u64,
    },
    #[sse(data = "text")]
    r#loop {
        #[sse(key)]
        r#in: u8,
        r#ref: &'r#mod str,
    },
    r#Break(Option<r#dyn>),
}

type Of<'a> = r#enum<'a, u8>;

#[sse_endpoint("/{type}", event = "type")]
async fn r#impl(Path(r#type): Path<u64>) -> impl Stream<Item = r#struct> {
    futures_util::stream::iter([r#struct { r#type, r#gen: 1 }])
}

fn main() {
    assert_eq!(r#impl::DESCRIPTOR.name(), "impl");
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![r#impl];
    let event = r#struct { r#type: 1, r#gen: 2 };
    assert_eq!(frame(&event).unwrap(), "event: struct\nid: 1\ndata: {\"type\":1,\"gen\":2}\n\n");
    assert_eq!(event.key().as_deref(), Some("2"));
    for (event, expected) in [
        (Of::r#match { r#as: 1 }, "event: match\nid: 1\ndata: {\"as\":1}\n\n"),
        (Of::r#loop { r#in: 1, r#ref: "r" }, "event: loop\ndata: r\n\n"),
        (Of::r#Break(Some(1)), "event: break\ndata: 1\n\n"),
    ] {
        assert_eq!(frame(&event).unwrap(), expected);
    }
}
