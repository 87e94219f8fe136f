//! `"off"` is a value of every key that can be off.
#![deny(warnings)]

use hero_sse::extend::EndpointMeta;
use hero_sse::prelude::*;

#[sse_endpoint("/off", heartbeat = "off", write_timeout = "off", max_age = "off")]
async fn off() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let shown = format!("{:?}", off::DESCRIPTOR);
    for key in ["heartbeat", "write_timeout", "max_age"] {
        assert!(shown.contains(&format!("{key}: Some(None)")), "{key}: {shown}");
    }
}
