//! No item of the user shadows a name that the expansion uses.
#![allow(dead_code, non_camel_case_types, unused_macros)]

use hero_sse::prelude::{sse_endpoint, SseEvent, Stream};
use hero_sse::prelude::Principal as Caller;
use hero_sse::axum::extract::State as Shared;
use ::serde::Serialize as Ser;

mod std {}
mod core {}
mod serde {}
struct Result;
struct Option;
struct String;
struct Some;
struct Ok;
struct Err;
struct Data;
struct Body;
struct Descriptor;
struct Endpoint;
struct EndpointMeta;
struct FromRequestParts;
struct AppState;
struct Parts;
struct Opening;
struct EventName;
struct FrameWriter;
struct bool;
struct str;
struct u64;
trait Clone {}
trait Serialize {}
trait Serializer {}
macro_rules! file {
    () => {
        compile_error!("the user's file!")
    };
}
macro_rules! line {
    () => {
        compile_error!("the user's line!")
    };
}

#[derive(Ser, SseEvent)]
pub struct Usage {
    #[sse(id)]
    frame: i8,
}

#[derive(SseEvent)]
pub enum Build {
    Data { serializer: i8 },
    Body(i8),
    #[sse(last)]
    Finished,
}

#[sse_endpoint("/usage", event = "usage", permission = "usage.read", retry = "3s")]
pub async fn usage(state: Shared<i8>, parts: Caller) -> impl Stream<Item = Usage> {
    let _ = (state, parts);
    futures_util::stream::iter([Usage { frame: 1 }])
}

fn main() {}
