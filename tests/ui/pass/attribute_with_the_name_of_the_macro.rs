//! Another attribute macro may have the name of this one. Here it is tokio's, which leaves a function that
//! is not `async` any more: that is why it returns a future.
#![deny(warnings)]

use std::future::{Ready, ready};

use futures_util::stream::{Empty, empty};
use hero_sse::extend::{EndpointMeta, Endpoints};
use hero_sse::prelude::{Event, endpoints, sse_endpoint as endpoint};
use tokio::main as sse_endpoint;

#[endpoint("/usage")]
#[sse_endpoint(flavor = "current_thread")]
async fn usage() -> Ready<Empty<Event>> {
    ready(empty())
}

fn main() {
    let _: Endpoints<()> = endpoints![usage];
    assert_eq!(usage::DESCRIPTOR.path(), "/usage");
}
