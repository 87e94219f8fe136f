//! [`routes`](crate::HeroSse::routes) returns a `Result`: it checks every declaration and returns all mistakes together.
//! Write `?` after it, in a function that returns a `Result`: `.merge(sse.routes(endpoints![usage])?)`. The same holds
//! for `nest` and for [`handler`](crate::server::EndpointBuilder::handler).
use hero_sse::axum::Router;
use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn router(sse: &HeroSse) -> Router {
    Router::new().merge(sse.routes(endpoints![usage]))
}

fn main() {
    let _ = router;
}
