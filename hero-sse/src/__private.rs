//! What generated code calls. Not public API: it changes without notice.

pub use core::primitive::bool;
pub use core::result::Result;
pub use core::{file, line};

pub use axum::extract::FromRequestParts;
pub use http::request::Parts;
pub use serde::{self, Serialize, Serializer};

pub use crate::descriptor::Descriptor;
pub use crate::endpoint::{AppState, Endpoint, EndpointMeta, EventHandler, Opening};
pub use crate::event::SseEvent;
pub use crate::frame::{EventName, FrameWriter, InvalidEvent};

/// A name that the macro has checked; the compiler checks it again.
pub const fn event_name(name: &'static str) -> EventName {
    EventName::from_literal(name)
}

/// The name that the event's declaration gives it.
pub fn explicit_name(frame: &mut FrameWriter<'_>, name: &EventName) {
    frame.event(name);
}

/// The name made of the type's or the variant's own.
pub fn default_name(frame: &mut FrameWriter<'_>, name: &EventName) {
    frame.event_or(name);
}

/// The id.
pub fn id<T: core::fmt::Display + ?Sized>(
    frame: &mut FrameWriter<'_>,
    id: &T,
) -> Result<(), InvalidEvent> {
    frame.id(id)
}

/// The data, as JSON.
pub fn json<T: Serialize + ?Sized>(
    frame: &mut FrameWriter<'_>,
    data: &T,
) -> Result<(), InvalidEvent> {
    frame.json(data)
}

/// Extracts the arguments and calls the function.
pub fn open<H, A, S>(handler: H, parts: Parts, state: S) -> Opening
where
    H: EventHandler<A, S>,
{
    handler.open(parts, state)
}

/// Stands in for the body of an endpoint whose declaration does not compile.
pub fn unreachable_endpoint() -> Opening {
    Box::pin(core::future::pending())
}

/// Stands in for the body of an event whose declaration does not compile.
pub fn unreachable_event() -> Result<(), InvalidEvent> {
    Ok(())
}
