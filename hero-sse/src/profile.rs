//! [`Profile`]: what an endpoint sends besides the application's events.

/// What an endpoint sends besides the application's own events, and how its streams end.
///
/// | | `Native` | `Plain` |
/// |---|---|---|
/// | for | an `EventSource`, and clients that know `hero.*` | clients of another protocol: chat completions, generated clients, gateways |
/// | default for | `GET` | `POST` |
/// | sent besides the events | `retry:`, `hero.*`, heartbeat comments | heartbeat comments |
/// | after the last event | its id has the end mark, then `hero.close` | a clean end |
/// | a failure after the head | `hero.close` and a clean end | the body breaks off |
/// | over a limit, or while draining | `200` and `hero.close` (`OverLimit = "retry"`) | `429` or `503` (`OverLimit = "refuse"`) |
/// | a drain | ends the stream at once | lets the answer finish within `DrainTimeout` |
///
/// A body that breaks off lacks its last chunk over HTTP/1.1. Over HTTP/2, the stream is reset. Every client reports
/// that as an error, so none takes half an answer for a whole one. See the guide on
/// [plain streams](crate::guide::posts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// For browsers: the stream tells its client when to reconnect, and why it ends.
    Native,
    /// Nothing but the application's events, and heartbeat comments.
    Plain,
}

impl Profile {
    pub(crate) const fn is_plain(self) -> bool {
        matches!(self, Self::Plain)
    }
}
