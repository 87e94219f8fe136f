//! What `#[derive(SseEvent)]` calls.

use core::fmt::Display;
use core::time::Duration;

pub use serde::{self, Serialize, Serializer};

pub use crate::event::{SseEvent, TrapNames};
pub use crate::frame::{EventName, FrameWriter, InvalidEvent};

/// A name that the macro has checked; the compiler checks it again.
pub const fn event_name(name: &'static str) -> EventName {
    EventName::from_literal(name)
}

/// Sets the name that the event's declaration writes out.
pub fn explicit_name(frame: &mut FrameWriter<'_>, name: &EventName) {
    frame.event(name);
}

/// Sets the name made of the type's or variant's own, unless the endpoint has one.
pub fn default_name(frame: &mut FrameWriter<'_>, name: &EventName) {
    frame.event_or(name);
}

/// Leaves the event without a name, whatever the endpoint declares.
pub fn unnamed(frame: &mut FrameWriter<'_>) {
    frame.unnamed();
}

/// The names of a type that only some endpoints can send.
pub const fn trap_names(own: Option<&'static str>, default: Option<&'static str>) -> TrapNames {
    TrapNames { own, default }
}

/// A field that is the event's id.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the id of an event",
    label = "does not implement `Display`",
    note = "an id is any type that implements `Display`, such as a number or a `String`"
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

/// A field that is the event's key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of an event",
    label = "does not implement `Display`",
    note = "a key is any type that implements `Display`, such as a number or a `String`"
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
    note = "text is any type that implements `Display`; leave out `data = \"text\"` to send JSON"
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

/// A field that is a comment.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a comment",
    label = "does not implement `Display`",
    note = "a comment is any type that implements `Display`, such as a number or a `String`"
)]
pub trait Comment {
    /// Writes the comment.
    fn write(&self, frame: &mut FrameWriter<'_>);
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> Comment for T {
    fn write(&self, frame: &mut FrameWriter<'_>) {
        frame.comment(&self.to_string());
    }
}

/// Leaves the event without data.
pub fn without_data(frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
    frame.without_data();
    Ok(())
}

/// A reconnection time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a reconnection time",
    label = "neither a `Duration` nor an `Option` of one",
    note = "write `Duration`, or `Option<Duration>` if some events do not change it"
)]
pub trait Retry {
    /// Writes the field `retry`.
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

/// Data that is sent as JSON: a struct, or a field of an enum's variant.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as JSON",
    label = "does not implement `Serialize`",
    note = "put `#[derive(Serialize)]` on it; for a type of another crate, look for its feature `serde`"
)]
pub trait Json {
    /// Gives the event its data.
    fn write(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;

    /// Serializes it as a part of the event's data.
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

/// Stands in for serde's implementation for an enum whose attributes serde rejects, so that serde's error
/// is the only one.
pub trait Unserialized {
    /// Never called: such an enum does not compile.
    fn serialize<E: ?Sized, S: Serializer>(_: &E, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this enum did not compile"))
    }
}

impl<T> Unserialized for T {}

/// The body of `encode` for an event whose declaration does not compile.
pub fn unreachable_event() -> Result<(), InvalidEvent> {
    Ok(())
}
