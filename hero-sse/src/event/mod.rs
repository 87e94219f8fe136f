//! Events: the trait [`SseEvent`], the dynamic [`Event`], and [`stream`] to send them from an async block.

pub(crate) mod emit;

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;

pub use self::emit::{Emitter, EmitterStream, stream};
pub use crate::frame::{EventId, EventName, FrameWriter, InvalidEvent, InvalidField, LastEventId};

/// A type whose values are events. Derive it with `#[derive(SseEvent)]`:
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
/// /// What a build reports. Each variant is an event, and its data is the fields of the variant.
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
/// [`encode`](Self::encode) writes the event's name, then its id, then its data, each at most once. It is called each
/// time the event is sent, and must not depend on the connection. An error ends the stream with
/// [`CloseReason::StreamError`](crate::CloseReason::StreamError), and nothing of the event is sent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "this type does not implement `SseEvent`",
    note = "put `#[derive(serde::Serialize, hero_sse::SseEvent)]` on it, or send a `hero_sse::Event`"
)]
pub trait SseEvent {
    /// The name that `#[sse(event = "..")]` on a struct gives to all its values. An endpoint with another
    /// `event` does not compile.
    const NAME: Option<&'static str> = None;

    /// Writes the event.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the id is illegal, or the data cannot be serialized.
    fn encode(&self, frame: &mut FrameWriter<'_>) -> Result<(), InvalidEvent>;

    /// Returns whether the stream ends for good after this event. Its id then has the end mark, and a client that
    /// reconnects with that id gets `204`.
    fn is_last(&self) -> bool {
        false
    }

    /// Returns the key: the field that `#[sse(key)]` marks, as its `Display` prints it.
    ///
    /// A newer event replaces an older one with the same name and key. That happens to events that wait for a slow
    /// client under [`Overflow::Latest`](crate::options::Overflow::Latest), and to those that a
    /// [`Topic::latest`](crate::Topic::latest) keeps. All events of a name without a key count as one.
    #[doc(alias = "compaction")]
    #[doc(alias = "deduplicate")]
    fn key(&self) -> Option<String> {
        None
    }

    /// Returns the topic behind a stream of these events, if there is one. Not public API.
    #[doc(hidden)]
    fn of_topic(_stream: &mut dyn Any) -> Option<Box<dyn Any + Send>> {
        None
    }
}

/// An event behind a pointer is the same event: shared in an `Arc`, boxed, or borrowed.
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

/// An event whose name and data are chosen at run time.
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
    /// Makes an event with text as its data. A client gets the lines joined by LF, whatever separated them.
    pub fn text(data: impl Into<String>) -> Self {
        Self::new(Data::Text(data.into()))
    }

    /// Makes an event with the value as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the value cannot be serialized.
    pub fn json<T: Serialize + ?Sized>(data: &T) -> Result<Self, InvalidEvent> {
        let data = serde_json::value::to_raw_value(data).map_err(InvalidEvent::data)?;
        Ok(Self::new(Data::Json(data)))
    }

    fn new(data: Data) -> Self {
        Self { name: None, id: None, key: None, data, last: false }
    }

    /// Sets the name. It overrides the endpoint's `event`.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the text cannot be an [`EventName`].
    pub fn named(mut self, name: impl Into<String>) -> Result<Self, InvalidEvent> {
        self.name = Some(EventName::new(name.into())?);
        Ok(self)
    }

    /// Sets the id.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the text cannot be an [`EventId`].
    pub fn with_id(mut self, id: impl Display) -> Result<Self, InvalidEvent> {
        self.id = Some(EventId::new(id.to_string())?);
        Ok(self)
    }

    /// Sets the [key](SseEvent::key). It is not sent.
    #[must_use]
    pub fn with_key(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Makes the event [the last of its stream](SseEvent::is_last).
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
