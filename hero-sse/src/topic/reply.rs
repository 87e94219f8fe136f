//! Events that the application sends to one client alone: the state that a new client starts with, or the answer to a
//! gap.

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;

use super::gap::Gap;
use super::position::ClientCursor;
use crate::event::SseEvent;
use crate::frame::{InvalidEvent, write_body};

/// The bodies of the events, once they are there.
pub(super) type Reply = BoxFuture<'static, Result<Vec<Bytes>, String>>;

/// What the application sends to one client, and when.
#[derive(Default)]
pub(super) struct Hooks {
    /// Called once, for a new client.
    pub(super) begin: Option<Box<dyn FnOnce() -> Reply + Send>>,
    /// Called for each gap.
    pub(super) on_gap: Option<Box<dyn FnMut(Gap) -> Reply + Send>>,
    /// The running hook, and from where the client would resume until its events are sent.
    pub(super) running: Option<(Reply, ClientCursor)>,
}

/// Encodes the events of a hook. The topic's ids go with them, and not their own.
pub(super) fn encoded<S: SseEvent>(
    events: impl Future<Output = Result<Vec<S>, Box<dyn std::error::Error + Send + Sync>>>
    + Send
    + 'static,
) -> Reply {
    Box::pin(async move {
        let events = events.await.map_err(|error| error.to_string())?;
        let bodies: Result<_, _> = events.iter().map(body_of).collect();
        bodies.map_err(|error| error.to_string())
    })
}

/// Encodes an event without an id.
pub(super) fn body_of<S: SseEvent>(event: &S) -> Result<Bytes, InvalidEvent> {
    let mut out = BytesMut::new();
    write_body(&mut out, None, |frame| event.encode(frame))?;
    Ok(out.freeze())
}
