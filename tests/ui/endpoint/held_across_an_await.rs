use std::future::ready;
use std::rc::Rc;

use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage() -> impl Stream<Item = Event> {
    let count = Rc::new(1);
    ready(()).await;
    drop(count);
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
