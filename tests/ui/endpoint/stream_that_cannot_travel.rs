use std::rc::Rc;

use futures_util::StreamExt;
use hero_sse::prelude::*;

#[sse_endpoint("/usage")]
async fn usage() -> impl Stream<Item = Event> {
    let count = Rc::new(1);
    futures_util::stream::iter([1, 2]).map(move |n| Event::text(format!("{n} of {count}")))
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![usage];
}
