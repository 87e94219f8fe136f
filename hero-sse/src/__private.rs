//! What generated code calls: plain functions, and traits where the compiler shall report a type of the
//! user's in the kit's words. Not public API: it changes without notice.

use core::fmt::Display;
use core::marker::PhantomData;
use core::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;

use crate::endpoint::EventStream;
use crate::permission::PermissionRule;

pub use core::option::Option;
pub use core::primitive::{bool, str};
pub use core::result::Result;
pub use core::{concat, file, line};
pub use std::string::String;

pub use axum::extract::Request;
pub use serde::{self, Serialize, Serializer};

pub use crate::descriptor::{Descriptor, Rule};
pub use crate::endpoint::{
    AppState, BodyExtractor, Endpoint, EndpointMeta, Events, Extractor, IntoEventStream,
    OpeningStream,
};
pub use crate::event::SseEvent;
pub use crate::frame::{EventName, FrameWriter, InvalidEvent};
pub use crate::permission::IntoPermission;
pub use crate::policy::{Method, OverLimit, Overflow, TokenSource};

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

/// Opens a stream as generated code says: the arguments one by one, then the function.
pub fn open<S, F, O>(request: Request, state: S, open: F) -> OpeningStream
where
    F: FnOnce(Parts, Body, S) -> O,
    O: Future<Output = Result<EventStream, Response>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    Box::pin(open(parts, body, state))
}

/// What becomes of the stream, if the function did not refuse. No method, so that no lint of the
/// application's sees a path that could be shorter.
pub fn then<T, U>(answer: Result<T, Response>, next: impl FnOnce(T) -> U) -> Result<U, Response> {
    answer.map(next)
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

/// The rule that asks for one permission.
pub fn permission(name: &'static str) -> Rule {
    name.into_rule()
}

/// The rule that asks for all of these.
pub fn all<const N: usize>(rules: [Rule; N]) -> Rule {
    rules.into_iter().collect::<Result<_, _>>().map(PermissionRule::All)
}

/// The rule that asks for one of these.
pub fn any<const N: usize>(rules: [Rule; N]) -> Rule {
    rules.into_iter().collect::<Result<_, _>>().map(PermissionRule::Any)
}

/// A time.
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A time that could be off.
pub const fn every(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

/// What could be on, and is not.
pub const OFF: Option<Duration> = None;

/// Asks a type for the name that its declaration writes out.
#[derive(Debug)]
pub struct Named<T>(PhantomData<T>);

impl<E: SseEvent> Named<E> {
    /// That name.
    pub const NAME: Option<&'static str> = E::NAME;
}

impl<E: SseEvent, X> Named<Result<E, X>> {
    /// That of the event in a `Result`.
    pub const NAME: Option<&'static str> = E::NAME;
}

/// What [`Named`] finds of a type that is no event, which is reported elsewhere.
pub trait Unnamed {
    /// None.
    const NAME: Option<&'static str> = None;
}

impl<T> Unnamed for T {}

/// Does not compile when an endpoint and the type of its events are given different names.
#[track_caller]
pub const fn same_name(endpoint: &str, event: Option<&str>) {
    if let Some(event) = event {
        assert!(
            same(endpoint.as_bytes(), event.as_bytes()),
            "the endpoint's `event` and the `#[sse(event = \"..\")]` of its events' type are two names: \
             write one of them"
        );
    }
}

const fn same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, one_rest @ ..], [b, other_rest @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    one.is_empty() && other.is_empty()
}

/// Stands in for the body of an endpoint whose declaration does not compile.
pub fn unreachable_endpoint() -> OpeningStream {
    Box::pin(core::future::pending())
}

/// Stands in for the body of an event whose declaration does not compile.
pub fn unreachable_event() -> Result<(), InvalidEvent> {
    Ok(())
}
