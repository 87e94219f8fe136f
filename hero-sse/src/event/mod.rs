//! What an application sends: the [`SseEvent`] trait and the dynamic [`Event`].

mod emit;

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;

pub use self::emit::{Emitter, EmitterStream, stream};
pub use crate::frame::{EventId, EventName, FrameWriter, InvalidEvent, InvalidField, LastEventId};

/// A type whose values are events. Derive it:
///
/// ```
/// use hero_sse::prelude::*;
/// use serde::Serialize;
///
/// /// One reading of the usage gauge.
/// #[derive(Clone, Serialize, SseEvent)]
/// struct Usage {
///     #[sse(id)]
///     seq: u64,
///     used: u64,
/// }
///
/// /// What a build reports: every variant is an event of its own, its data the fields alone.
/// #[derive(SseEvent)]
/// enum Build {
///     Queued { job: u64 },
///     #[sse(last)]
///     Finished { ok: bool },
/// }
/// ```
///
/// # Contract
///
/// `encode` names the event, then gives its id, then its data, each at most once. It is called once
/// for each time the event is sent and must not depend on the connection. An error ends the stream
/// with [`CloseReason::StreamError`](crate::CloseReason::StreamError); nothing of the event is sent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "this type does not implement `SseEvent`",
    note = "put `#[derive(serde::Serialize, hero_sse::SseEvent)]` on it, or send a `hero_sse::Event`"
)]
pub trait SseEvent {
    /// The name that the declaration writes out, where all values have the same: `#[sse(event)]` on
    /// a struct. An endpoint that writes another does not compile.
    const NAME: Option<&'static str> = None;

    /// Writes this event.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the id is illegal or the data does not serialise.
    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;

    /// Whether the stream has nothing more to say after this event, now or after a reconnect. Its
    /// id then carries the end mark, and a client that comes back with it is answered `204`.
    fn is_last(&self) -> bool {
        false
    }

    /// What this event is the state of: what `#[sse(key)]` marks, as its `Display` prints it. Only
    /// asked for under [`Overflow::Latest`](crate::options::Overflow::Latest), where a newer event of the same
    /// name and key takes the place of one that waits. Events without a key share one place a name.
    fn key(&self) -> Option<String> {
        None
    }

    /// What is behind a stream of these, where that is a topic. Not public API.
    #[doc(hidden)]
    fn of_topic(_stream: &mut dyn Any) -> Option<Box<dyn Any + Send>> {
        None
    }
}

/// An event behind a pointer is the event: one that is shared (`Arc`, from a broadcast), boxed, or
/// lent.
macro_rules! pointer {
    ($($pointer:ty),*) => {
        $(
            #[diagnostic::do_not_recommend]
            impl<E: SseEvent + ?Sized> SseEvent for $pointer {
                const NAME: Option<&'static str> = E::NAME;

                fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
                    E::encode(self, frame)
                }

                fn is_last(&self) -> bool {
                    E::is_last(self)
                }

                fn key(&self) -> Option<String> {
                    E::key(self)
                }
            }
        )*
    };
}

pointer!(Arc<E>, Box<E>, &E);

/// An event made at run time, for names and shapes that no type describes.
///
/// ```
/// use hero_sse::Event;
///
/// let event = Event::json(&[1, 2, 3])?.named("numbers")?.with_id(7)?;
/// # Ok::<(), hero_sse::event::InvalidEvent>(())
/// ```
#[derive(Clone, Debug)]
pub struct Event {
    name: Option<EventName>,
    id: Option<EventId>,
    key: Option<String>,
    data: Data,
    last: bool,
}

#[derive(Clone, Debug)]
enum Data {
    Text(String),
    Json(Box<serde_json::value::RawValue>),
}

impl Event {
    /// An event with plain text; a client reads its lines back joined by LF.
    pub fn text(data: impl Into<String>) -> Self {
        Self::new(Data::Text(data.into()))
    }

    /// An event with the value's JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the value refuses to serialise.
    pub fn json<T: Serialize + ?Sized>(data: &T) -> Result<Self, InvalidEvent> {
        let data = serde_json::value::to_raw_value(data).map_err(InvalidEvent::data)?;
        Ok(Self::new(Data::Json(data)))
    }

    fn new(data: Data) -> Self {
        Self { name: None, id: None, key: None, data, last: false }
    }

    /// The event under this name, which wins over the endpoint's.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the text cannot be an [`EventName`].
    pub fn named(mut self, name: impl Into<String>) -> Result<Self, InvalidEvent> {
        self.name = Some(EventName::new(name.into())?);
        Ok(self)
    }

    /// The event with this id.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] when the text cannot be an [`EventId`].
    pub fn with_id(mut self, id: impl Display) -> Result<Self, InvalidEvent> {
        self.id = Some(EventId::new(id.to_string())?);
        Ok(self)
    }

    /// The event as the state of this; see [`SseEvent::key`]. A client does not see it.
    #[must_use]
    pub fn with_key(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// The event as the last of its stream; see [`SseEvent::is_last`].
    #[must_use]
    pub fn last(mut self) -> Self {
        self.last = true;
        self
    }
}

impl SseEvent for Event {
    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent> {
        if let Some(name) = &self.name {
            frame.event(name);
        }
        if let Some(id) = &self.id {
            frame.id(id)?;
        }
        match &self.data {
            Data::Text(text) => {
                frame.text(text);
                Ok(())
            }
            Data::Json(json) => frame.json(json),
        }
    }

    fn is_last(&self) -> bool {
        self.last
    }

    fn key(&self) -> Option<String> {
        self.key.clone()
    }
}
