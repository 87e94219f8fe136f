//! What generated code calls: plain functions, and traits where the compiler shall report a type of the
//! user's in the kit's words. Not public API: it changes without notice.

#[cfg(feature = "server")]
mod endpoint;

use core::fmt::Display;
use core::time::Duration;

pub use core::option::Option;
pub use core::primitive::{bool, str};
pub use core::result::Result;
pub use std::string::String;

pub use serde::{self, Serialize, Serializer};

#[cfg(feature = "server")]
pub use self::endpoint::*;
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

/// A field that is the event's id.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the id of an event",
    label = "does not implement `Display`",
    note = "an id is anything that implements `Display`, such as a number or a `String`"
)]
pub trait Id {
    /// Gives the event its id.
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> Id for T {
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.id(self)
    }
}

/// A field that tells what the event is about.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of an event",
    label = "does not implement `Display`",
    note = "a key is anything that implements `Display`, such as a number or a `String`"
)]
pub trait EventKey {
    /// The key as text.
    fn text(&self) -> Option<String>;
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> EventKey for T {
    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A field that is the event's data, as text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as text",
    label = "does not implement `Display`",
    note = "a text is anything that implements `Display`; leave out `data = \"text\"` to send JSON"
)]
pub trait Text {
    /// Gives the event its data.
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> Text for T {
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.text(&self.to_string());
        Ok(())
    }
}

/// A reconnection time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a reconnection time",
    label = "neither a `Duration` nor an `Option` of one",
    note = "write `Duration`, or `Option<Duration>` where not every event changes it"
)]
pub trait Retry {
    /// Tells the browser.
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;
}

#[diagnostic::do_not_recommend]
impl Retry for Duration {
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.retry(*self)
    }
}

#[diagnostic::do_not_recommend]
impl Retry for Option<Duration> {
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        self.map_or(Ok(()), |retry| frame.retry(retry))
    }
}

/// What is sent as JSON: a struct, or a field of an enum's variant.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as JSON",
    label = "does not implement `Serialize`",
    note = "put `#[derive(Serialize)]` on it; for a type of another crate, look for its feature `serde`"
)]
pub trait Json {
    /// Gives the event its data.
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;

    /// Serialises it within the data of an event.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Json for T {
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        frame.json(self)
    }

    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Serialize::serialize(self, serializer)
    }
}

/// Stands in for what serde makes of an enum whose attributes serde refuses, so that the refusal is
/// the only error.
pub trait Unserialized {
    /// Never called: such an enum does not compile.
    fn serialize<E: ?Sized, S: Serializer>(_: &E, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this enum did not compile"))
    }
}

impl<T> Unserialized for T {}

/// A time.
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Stands in for the body of an event whose declaration does not compile.
pub fn unreachable_event() -> Result<(), InvalidEvent> {
    Ok(())
}
