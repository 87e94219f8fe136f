//! A stream's events on their way to its writer: directly from the application's stream, at the client's
//! pace; through a buffer that a task fills; or from a topic.

mod follow;
mod queue;
mod user_stream;

use std::task::Context;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::follow::Following;
use self::queue::Buffer;
use self::user_stream::UserStream;
use crate::close::CloseReason;
use crate::connections::Slot;
use crate::endpoint::{EventStream, Kind};
use crate::frame::EventName;
use crate::policy::Policy;

/// Where a writer takes its events from. Dropping it drops the application's stream.
pub(crate) enum Events {
    /// Polled only when the client can take more.
    Direct(UserStream),
    /// Polled by a task of its own.
    Buffered(Buffer),
    /// From a topic, whose log is the buffer.
    Followed(Following),
}

impl Events {
    /// Must be called on a Tokio runtime, since a buffer starts its task. `name` is the event name that the
    /// endpoint declares.
    pub(crate) fn new(
        stream: EventStream,
        name: Option<EventName>,
        policy: &Policy,
        slot: &Slot,
    ) -> Self {
        let stream = match stream.kind {
            Kind::Items(stream) => stream,
            Kind::Topic(feed) => {
                return Self::Followed(Following::new(feed, name, policy, slot.attribution()));
            }
        };
        let stream = UserStream::new(stream, name, policy.profile, slot.attribution());
        match policy.buffer {
            None => Self::Direct(stream),
            Some(max_events) => Self::Buffered(Buffer::new(stream, max_events, policy.overflow)),
        }
    }

    /// Whether the stream pauses: what it has made must leave before anything else is gathered.
    pub(crate) fn is_pausing(&self) -> bool {
        matches!(self, Self::Direct(stream) if stream.is_pausing())
    }

    /// Appends the events that are ready, until `out` holds a batch, and at least one. Returns why the stream is
    /// over, if it is. If `out` is empty, bytes that other streams send as well go into `shared` instead.
    pub(crate) fn gather(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        shared: &mut Bytes,
    ) -> Option<CloseReason> {
        match self {
            Self::Buffered(buffer) => buffer.gather(cx, out),
            Self::Direct(stream) => stream.gather(cx, out),
            Self::Followed(following) => following.gather(cx, out, shared),
        }
    }

    /// Returns the last reconnection time of the application in what was gathered since the last call.
    pub(crate) fn take_retry(&mut self) -> Option<Duration> {
        match self {
            Self::Direct(stream) => stream.take_retry(),
            Self::Buffered(buffer) => buffer.take_retry(),
            Self::Followed(following) => following.take_retry(),
        }
    }

    /// Appends the client's position in the topic, unless the client has it from its last event.
    pub(crate) fn write_cursor(&mut self, out: &mut BytesMut) {
        if let Self::Followed(following) = self {
            following.write_cursor(out);
        }
    }
}
