// Declarations that compile wherever they stand; the cases in `pass` put them into odd places.
use ::hero_sse::axum::{Json, extract::State};
use ::hero_sse::prelude::{Principal, Refusal, SseEvent, Stream, sse_endpoint};
use ::serde::Serialize;

#[derive(Serialize, SseEvent)]
pub struct Usage {
    #[sse(id, key)]
    used: u64,
    #[sse(retry)]
    #[serde(skip)]
    retry: ::core::option::Option<::core::time::Duration>,
}

#[derive(SseEvent)]
pub enum Build<T> {
    Queued {
        #[sse(id, key)]
        job: u64,
        of: T,
    },
    #[sse(data = "text")]
    Log(&'static str, #[sse(id)] u8),
    #[sse(last, retry = "1s")]
    Finished,
}

#[sse_endpoint(
    "/usage",
    event = "usage",
    permission = all("a", any("b", SCOPE)),
    heartbeat = "1s",
    write_timeout = "off",
    buffer = 3,
    overflow = "latest"
)]
/// Docs.
pub async fn usage(
    _: Principal,
    State(used): State<u64>,
) -> ::core::result::Result<impl Stream<Item = Usage>, Refusal> {
    ::core::result::Result::Ok(::futures_util::stream::iter([Usage {
        used,
        retry: ::core::option::Option::None,
    }]))
}

#[sse_endpoint("/build", method = "post", public, state = u64)]
pub async fn build(_: Json<u64>) -> impl Stream<Item = Build<u64>> {
    ::futures_util::stream::iter([
        Build::Queued { job: 1, of: 2 },
        Build::Log("x", 1),
        Build::Finished,
    ])
}

const SCOPE: &::core::primitive::str = "c";

fn main() {
    let _: ::hero_sse::extend::Endpoints<u64> = ::hero_sse::endpoints![usage, build];
    ::std::assert_eq!(
        ::hero_sse::testing::frame(&Build::Queued { job: 1, of: 2_u8 }).unwrap(),
        "event: queued\nid: 1\ndata: {\"job\":1,\"of\":2}\n\n",
    );
    let usage = Usage { used: 1, retry: ::core::option::Option::None };
    ::std::assert_eq!(
        ::hero_sse::testing::frame(&usage).unwrap(),
        "event: usage\nid: 1\ndata: {\"used\":1}\n\n"
    );
}
