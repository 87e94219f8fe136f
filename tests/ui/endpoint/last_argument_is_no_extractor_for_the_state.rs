use hero_sse::prelude::*;

#[derive(Clone)]
struct App;

struct Meter;

#[sse_endpoint("/usage", method = "post", state = App)]
async fn usage(_: Meter) -> impl Stream<Item = Event> {
    futures_util::stream::empty()
}

fn main() {
    let _: hero_sse::extend::Endpoints<App> = hero_sse::endpoints![usage];
}
