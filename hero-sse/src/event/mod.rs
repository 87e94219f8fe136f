//! Events: the trait [`SseEvent`], the dynamic [`Event`], and [`stream`] to send them from an async block.

pub(crate) mod emit;

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use self::emit::{Emitter, EmitterStream, stream};
use crate::frame::checked_retry;
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
/// [`encode`](Self::encode) writes the parts of one event in [the order of `FrameWriter`](FrameWriter), each at most once.
/// It is called each time the event is sent, and must not depend on the connection. An error ends the stream with
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

    /// The names of its values that an `EventSource` passes to handlers of its own. Not public API.
    #[doc(hidden)]
    const TRAPS: TrapNames = TrapNames::NONE;

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

/// The first of a type's names that is `error` or `open`: see [`EventName`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapNames {
    /// A name that is written out.
    pub own: Option<&'static str>,
    /// A name that is made of the type's or a variant's own. An endpoint's `event` overrides it.
    pub default: Option<&'static str>,
}

impl TrapNames {
    pub(crate) const NONE: Self = Self { own: None, default: None };

    /// These, or else the others.
    pub(crate) const fn or(self, others: Self) -> Self {
        let own = if self.own.is_some() { self.own } else { others.own };
        let default = if self.default.is_some() { self.default } else { others.default };
        Self { own, default }
    }
}

/// An event behind a pointer is the same event: shared in an `Arc`, boxed, or borrowed.
macro_rules! pointer {
    ($($pointer:ty),*) => {
        $(
            #[diagnostic::do_not_recommend]
            impl<E: SseEvent + ?Sized> SseEvent for $pointer {
                const NAME: Option<&'static str> = E::NAME;
                const TRAPS: TrapNames = E::TRAPS;

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

/// An event whose parts are chosen at run time: everything that the format of event streams can say.
///
/// ```
/// use std::time::Duration;
///
/// use hero_sse::Event;
/// use hero_sse::testing::frame;
///
/// let event = Event::json(&[1, 2, 3])?.named("numbers")?.with_id(7)?;
/// assert_eq!(frame(&event)?, "event: numbers\nid: 7\ndata: [1,2,3]\n\n");
/// assert_eq!(frame(&Event::text("[DONE]").unnamed())?, "data: [DONE]\n\n");
/// assert_eq!(frame(&Event::comment("still here"))?, ": still here\n");
/// assert_eq!(frame(&Event::retry(Duration::from_secs(30))?)?, "retry: 30000\n");
/// # Ok::<(), hero_sse::event::InvalidEvent>(())
/// ```
///
/// # Events without data
///
/// [`comment`](Self::comment), [`retry`](Self::retry), [`id_only`](Self::id_only) and [`empty`](Self::empty) make events
/// that a browser does not dispatch ([WHATWG HTML
/// 9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)). For an event with
/// empty data use `Event::text("")`.
///
/// * A full buffer of a slow client drops them, and they are not reported as missed.
/// * They replace no event with data, whatever their key is.
/// * In a [`Topic`](crate::Topic) they take a position, but they have no id: a client's cursor moves with the next event.
#[derive(Clone, Debug)]
pub struct Event {
    comment: Option<String>,
    name: Name,
    id: Id,
    retry: Option<Duration>,
    key: Option<String>,
    data: Option<Data>,
    last: bool,
}

#[derive(Clone, Debug)]
enum Name {
    /// The endpoint's `event`, if there is one.
    Default,
    Unnamed,
    Own(EventName),
}

#[derive(Clone, Debug)]
enum Id {
    None,
    Own(EventId),
    Clear,
}

#[derive(Clone, Debug)]
enum Data {
    Text(String),
    Json(Box<serde_json::value::RawValue>),
}

impl Event {
    /// Makes an event with text as its data. A client gets the lines joined by LF, whatever separated them.
    pub fn text(data: impl Into<String>) -> Self {
        Self { data: Some(Data::Text(data.into())), ..Self::without_data() }
    }

    /// Makes an event with the value as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the value cannot be serialized.
    pub fn json<T: Serialize + ?Sized>(data: &T) -> Result<Self, InvalidEvent> {
        let data = serde_json::value::to_raw_value(data).map_err(InvalidEvent::data)?;
        Ok(Self { data: Some(Data::Json(data)), ..Self::without_data() })
    }

    /// Makes a comment: clients skip it, proxies count it as traffic.
    ///
    /// Each line of the text becomes a comment line; any text is legal. A comment ends no block, so that clients which
    /// take each block for an event do not notice it. Old proxies hold back the first two KiB:
    /// `Event::comment(" ".repeat(2048))` as the first event opens them.
    ///
    /// Heartbeats need no comments: the server sends its own.
    #[doc(alias = "padding")]
    #[doc(alias = "ping")]
    pub fn comment(text: impl Into<String>) -> Self {
        Self::without_data().with_comment(text)
    }

    /// Makes a new reconnection time without an event: a browser waits that long before it reconnects, from now on.
    ///
    /// It is no block of its own. Browsers apply it at once, and clients that read whole blocks apply it with the next
    /// event. All clients that receive it would reconnect at the same time: the server spreads its own reconnection times
    /// at random, but not this one.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if it is shorter than 500 ms or longer than 24 h.
    pub fn retry(retry: Duration) -> Result<Self, InvalidEvent> {
        Self::without_data().with_retry(retry)
    }

    /// Makes an id without an event: it moves the client's cursor.
    ///
    /// Firefox ignores an id in a block without data. Give the id to an event where you can.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the text cannot be an [`EventId`].
    #[doc(alias = "cursor")]
    pub fn id_only(id: impl Display) -> Result<Self, InvalidEvent> {
        Self::without_data().with_id(id)
    }

    /// Makes a name without data. Browsers discard it; some other clients pass it on.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the text cannot be an [`EventName`].
    pub fn empty(name: impl Into<String>) -> Result<Self, InvalidEvent> {
        Self::without_data().named(name)
    }

    /// An event to which the other methods add.
    pub(crate) fn without_data() -> Self {
        let (comment, retry, key, data, last) = Default::default();
        Self { comment, name: Name::Default, id: Id::None, retry, key, data, last }
    }

    /// Sets the name. It overrides the endpoint's `event`.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the text cannot be an [`EventName`].
    pub fn named(mut self, name: impl Into<String>) -> Result<Self, InvalidEvent> {
        self.name = Name::Own(EventName::new(name.into())?);
        Ok(self)
    }

    /// Leaves the event without a name, even on an endpoint with `event`. A browser passes it to `onmessage`.
    #[must_use]
    pub fn unnamed(mut self) -> Self {
        self.name = Name::Unnamed;
        self
    }

    /// Sets the id.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if the text cannot be an [`EventId`].
    pub fn with_id(mut self, id: impl Display) -> Result<Self, InvalidEvent> {
        self.id = Id::Own(EventId::new(id.to_string())?);
        Ok(self)
    }

    /// Clears the client's cursor with an empty id. A client that reconnects now sends no `Last-Event-ID`.
    #[must_use]
    pub fn clear_id(mut self) -> Self {
        self.id = Id::Clear;
        self
    }

    /// Adds a new reconnection time: see [`retry`](Self::retry).
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] if it is shorter than 500 ms or longer than 24 h.
    pub fn with_retry(mut self, retry: Duration) -> Result<Self, InvalidEvent> {
        self.retry = Some(checked_retry(retry)?);
        Ok(self)
    }

    /// Puts a comment before the event: see [`comment`](Self::comment).
    #[must_use]
    pub fn with_comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }

    /// Sets the [key](SseEvent::key). It is not sent.
    #[must_use]
    pub fn with_key(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Returns the event's own name.
    pub fn name(&self) -> Option<&str> {
        match &self.name {
            Name::Own(name) => Some(name.as_str()),
            Name::Default | Name::Unnamed => None,
        }
    }

    /// Returns the id.
    pub fn id(&self) -> Option<&str> {
        match &self.id {
            Id::Own(id) => Some(id.as_str()),
            Id::None | Id::Clear => None,
        }
    }

    /// Returns the data: the text, or the JSON as text. `None`: the event has no data.
    ///
    /// ```
    /// use hero_sse::Event;
    ///
    /// assert_eq!(Event::json(&[1, 2])?.data(), Some("[1,2]"));
    /// # Ok::<(), hero_sse::event::InvalidEvent>(())
    /// ```
    pub fn data(&self) -> Option<&str> {
        match self.data.as_ref()? {
            Data::Text(text) => Some(text),
            Data::Json(json) => Some(json.get()),
        }
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
        if let Some(comment) = &self.comment {
            frame.comment(comment);
        }
        match &self.name {
            Name::Default => {}
            Name::Unnamed => frame.unnamed(),
            Name::Own(name) => frame.event(name),
        }
        match &self.id {
            Id::None => {}
            Id::Own(id) => frame.id(id)?,
            Id::Clear => frame.clear_id(),
        }
        if let Some(retry) = self.retry {
            frame.retry(retry)?;
        }
        match &self.data {
            Some(Data::Text(text)) => frame.text(text),
            Some(Data::Json(json)) => frame.json(json)?,
            None => frame.without_data(),
        }
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.last
    }

    fn key(&self) -> Option<String> {
        self.key.clone()
    }
}
