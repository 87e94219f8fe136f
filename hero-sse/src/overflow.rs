//! [`Overflow`], which topics need without the server's settings.

/// The rule for one more event when a slow client's buffer is full.
///
/// A stream has a buffer if its endpoint or the options set `buffer` or `overflow`. Without one it is polled at
/// its client's pace, so nothing waits and nothing is dropped. The [`Subscription`](crate::Subscription) of a
/// topic needs no buffer, because the topic keeps the events: there the rule is for a client that is too far
/// behind. See the guide on [topics](crate::guide::topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Ends the stream. Your stream is dropped at once. The client receives the waiting events, then
    /// `hero.close` with [`CloseReason::Overflow`](crate::CloseReason::Overflow). It reconnects and resumes
    /// after the last id it received. For streams without gaps.
    Disconnect,
    /// Drops the oldest waiting event. In its place the client receives `hero.gap` with the number of dropped
    /// events: `{"missed": 3}`.
    DropOldest,
    /// Replaces the waiting event of the same name and [`key`](crate::SseEvent::key). The newer event goes to the
    /// end of the queue, and the client receives no `hero.gap`. If the buffer is full and no waiting event has that key, drops the
    /// oldest as [`DropOldest`](Self::DropOldest) does. For gauges.
    Latest,
}
