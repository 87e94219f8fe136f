//! How a stream's bytes reach its client, and how a client that stops reading is noticed.
//!
//! [`Delivery`] is decided once, from the request. Everything that differs between the ways is in this
//! module:
//!
//! | delivery | a stalled client shows as | the stream is cut off by |
//! |---|---|---|
//! | HTTP/1.1 socket | a blocked write: `GuardedIo` fails it | resetting the socket |
//! | HTTP/2 stream | a piece that is not taken: the sweeper ends the stream | resetting the stream |
//! | another server | a body that is not polled: the sweeper ends the stream | revoking the body |

mod broken;
mod guarded_io;
mod revocable;
mod sweeper;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::task::AtomicWaker;
use http::Version;
use http::request::Parts;
use tokio::time::Instant;

pub(crate) use self::broken::{BrokenBody, BrokenOff, LastBytes};
use self::guarded_io::ArmedTimeout;
pub use self::guarded_io::GuardedIo;
pub(crate) use self::guarded_io::SocketWatch;
use self::revocable::RevocableBody;
pub(crate) use self::sweeper::Sweeper;
use self::sweeper::WatchedStream;
use crate::close::CloseReason;
use crate::connections::Slot;

/// The size of the pieces of a batch where the sweeper enforces the write timeout. Each piece must be taken
/// within the write timeout; a long event may take longer. The pace is that of `GuardedIo`, which asks for
/// four times as much in four timeouts.
pub(crate) const PIECE: usize = 4 * 1024;

/// The way from a stream's writer to its client.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// HTTP/1.1 over a guarded socket, which the stream has for itself.
    Http1Socket { socket: Arc<SocketWatch>, version: Version },
    /// HTTP/2 under `serve`. The socket carries other streams as well.
    Http2Stream { socket: Arc<SocketWatch>, reset: StreamReset },
    /// A server whose handling of bodies is unknown: HTTP/2 behind `guard`, or no guard at all. It may keep a
    /// body without polling it, even forever.
    OtherServer { socket: Option<Arc<SocketWatch>> },
}

/// Resets one HTTP/2 stream. The transport puts it into the request's extensions, and drops the stream's
/// future once a reset is requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamReset(Arc<ResetState>);

#[derive(Debug, Default)]
struct ResetState {
    requested: AtomicBool,
    /// The task of the stream.
    task: AtomicWaker,
}

impl StreamReset {
    pub(crate) fn request(&self) {
        self.0.requested.store(true, Ordering::Release);
        self.0.task.wake();
    }

    /// Ready once a reset is requested. Only the stream's task may call it.
    pub(crate) fn poll_requested(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.task.register(cx.waker());
        match self.0.requested.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Delivery {
    /// Decides it from what `serve` or `guard` put into the request's extensions.
    pub(crate) fn of(parts: &Parts) -> Self {
        let socket = parts.extensions.get::<Arc<SocketWatch>>().cloned();
        let reset = parts.extensions.get::<StreamReset>().cloned();
        match (socket, reset) {
            (Some(socket), Some(reset)) => Self::Http2Stream { socket, reset },
            (Some(socket), None) if parts.version != Version::HTTP_2 => {
                Self::Http1Socket { socket, version: parts.version }
            }
            (socket, _) => Self::OtherServer { socket },
        }
    }

    /// Whether the connection is neither under `serve` nor behind `guard`.
    pub(crate) fn is_unguarded(&self) -> bool {
        matches!(self, Self::OtherServer { socket: None })
    }

    /// Makes the response's body of a stream: applies the write timeout, lets the registry cut the stream
    /// off, and calls `writer` for the stream itself. Must be called on a Tokio runtime.
    pub(crate) fn body<W>(
        self,
        write_timeout: Option<Duration>,
        sweeper: &Sweeper,
        slot: Slot,
        writer: impl FnOnce(Slot, LiveDelivery) -> W,
    ) -> Body
    where
        W: Stream<Item = Result<Bytes, BrokenOff>> + Send + Unpin + 'static,
    {
        match self {
            Self::Http1Socket { socket, version } => {
                let socket = socket.arm(write_timeout);
                let cut = socket.cut_handle();
                slot.on_cut(move |phase| cut.cut(phase));
                let http1 = Some(version);
                Body::from_stream(writer(
                    slot,
                    LiveDelivery { socket: Some(socket), watched: None, http1 },
                ))
            }
            Self::Http2Stream { socket, reset } => {
                let socket = Some(socket.arm(write_timeout));
                let cut = reset.clone();
                slot.on_cut(move |_| cut.request());
                let watched = sweeper.watch(write_timeout, true, move || {
                    reset.request();
                    true
                });
                Body::from_stream(writer(slot, LiveDelivery { socket, watched, http1: None }))
            }
            Self::OtherServer { socket } => {
                let socket = socket.map(|socket| socket.arm(write_timeout));
                let (body, revoker) = RevocableBody::new();
                let cut = revoker.clone();
                slot.on_cut(move |_| _ = cut.revoke());
                let watched = sweeper.watch(write_timeout, false, move || revoker.revoke());
                body.fill(writer(slot, LiveDelivery { socket, watched, http1: None }));
                Body::from_stream(body)
            }
        }
    }
}

/// What enforces a live stream's write timeout. The stream's writer owns it and reports to it.
#[derive(Default)]
pub(crate) struct LiveDelivery {
    socket: Option<ArmedTimeout>,
    /// `None` where the socket alone shows a stall, and without a write timeout.
    watched: Option<WatchedStream>,
    /// The version, if the stream has the socket for itself.
    http1: Option<Version>,
}

impl LiveDelivery {
    /// Call when the writer is polled: the client has taken what was handed over.
    pub(crate) fn polled(&self) {
        if let Some(watched) = &self.watched {
            watched.polled();
        }
    }

    /// Takes the next piece of `batch`, or all of it where the size of a piece does not matter.
    pub(crate) fn next_piece(&self, batch: &mut Bytes, now: Instant) -> Bytes {
        match &self.watched {
            None => std::mem::take(batch),
            Some(watched) => {
                let piece = batch.split_to(PIECE.min(batch.len()));
                watched.hand_over(piece, now)
            }
        }
    }

    /// Waits until the bytes before a break are on their way. Then the body may fail.
    pub(crate) fn poll_break(
        &self,
        cx: &mut Context<'_>,
        last: &mut LastBytes,
        timeout: Option<Duration>,
    ) -> Poll<()> {
        let socket = self.http1.zip(self.socket.as_ref()).map(|(_, socket)| socket.watch());
        ready!(last.poll_sent(cx, socket, timeout));
        // HTTP/1.0 has no chunks: its body ends with the connection, and only a reset is no orderly end.
        if let (Some(Version::HTTP_10), Some(socket)) = (self.http1, socket) {
            socket.reset_on_drop();
        }
        Poll::Ready(())
    }

    /// Returns which timeout ended the stream, if one did.
    pub(crate) fn failure(&self) -> Option<CloseReason> {
        let stalled = self.watched.as_ref().and_then(WatchedStream::failure);
        stalled.or_else(|| self.socket.as_ref().and_then(ArmedTimeout::failure))
    }

    /// As over HTTP/2, without a socket.
    #[cfg(test)]
    pub(crate) fn in_pieces(sweeper: &Sweeper, write_timeout: Duration) -> Self {
        let watched = sweeper.watch(Some(write_timeout), true, || true);
        Self { watched, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn delivery(version: Version, socket: bool, reset: bool) -> Delivery {
        let mut parts = Request::new(()).into_parts().0;
        parts.version = version;
        if socket {
            parts.extensions.insert(Arc::new(SocketWatch::default()));
        }
        if reset {
            parts.extensions.insert(StreamReset::default());
        }
        Delivery::of(&parts)
    }

    #[test]
    fn the_delivery_is_decided_by_protocol_and_server() {
        use Delivery::{Http1Socket, Http2Stream, OtherServer};
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(matches!(delivery(version, true, false), Http1Socket { .. }), "{version:?}");
            assert!(matches!(delivery(version, false, false), OtherServer { socket: None }));
        }
        assert!(matches!(delivery(Version::HTTP_2, true, true), Http2Stream { .. }));
        let guarded = delivery(Version::HTTP_2, true, false);
        assert!(matches!(guarded, OtherServer { socket: Some(_) }) && !guarded.is_unguarded());
        assert!(delivery(Version::HTTP_2, false, false).is_unguarded());
    }
}
