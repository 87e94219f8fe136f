// Each of these lacks an item that only the library can write.
use std::future::Future;
use std::pin::Pin;

use hero_sse::auth::{IntoPermission, InvalidPermission, Permission};
use hero_sse::axum::body::Body;
use hero_sse::axum::extract::Request;
use hero_sse::axum::http::request::Parts;
use hero_sse::axum::response::Response;
use hero_sse::extend::{
    BodyExtractor, EventHandler, EventItem, EventStream, Events, Extractor, IntoEventStream,
    OpeningStream, Outcome,
};
use hero_sse::Event;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Response>> + Send + 'a>>;

#[derive(Clone)]
struct Mine;

enum Marker {}

impl Extractor<()> for Mine {
    fn extract<'a>(_: &'a mut Parts, _: &'a ()) -> Answer<'a, Self> {
        Box::pin(async { Ok(Mine) })
    }
}

impl BodyExtractor<(), Marker> for Mine {
    fn take<'a>(_: Parts, _: Body, _: &'a ()) -> Answer<'a, Self> {
        Box::pin(async { Ok(Mine) })
    }
}

impl EventHandler<(), (), Marker> for Mine {
    fn open(self, _: Request, _: ()) -> OpeningStream {
        Box::pin(std::future::pending())
    }
}

impl IntoEventStream<Marker> for Mine {
    type Stream = futures_util::stream::Empty<Event>;

    fn into_event_stream(self) -> Result<Self::Stream, Response> {
        Ok(futures_util::stream::empty())
    }
}

impl Events<Marker> for Mine {
    fn into_events(self) -> EventStream {
        loop {}
    }
}

impl EventItem<Marker> for Mine {
    type Event = Event;

    fn into_event(self) -> Result<Event, String> {
        Ok(Event::text(""))
    }
}

impl IntoPermission for Mine {
    fn into_permission(self) -> Result<Permission, InvalidPermission> {
        Permission::new("mine")
    }
}

impl Outcome<Event> for Mine {
    type Item = Event;

    fn item(event: Event) -> Event {
        event
    }

    fn last(self) -> Option<Event> {
        None
    }
}

fn main() {}
