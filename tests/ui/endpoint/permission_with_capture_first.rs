use hero_sse::prelude::*;

#[sse_endpoint("/builds/{build}/log", permission = "{build}.read")]
async fn build() -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<()> = hero_sse::endpoints![build];
}
