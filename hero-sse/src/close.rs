//! Why an open stream ended: one enum for logs, counts, the wire and tests.

use std::fmt;

macro_rules! reasons {
    ($(
        $(#[$doc:meta])* $variant:ident = $name:literal, reconnect: $reconnect:literal,
        sees: $sees:literal, next: $next:literal, operator: $operator:literal;
    )*) => {
        /// Why an open stream ended.
        ///
        /// Before the response's head is sent, a failure is an ordinary HTTP response. After it, a failure is one
        /// of these reasons. If the server ends the stream, the client receives the reason in `hero.close`.
        ///
        /// Under [`Profile::Plain`](crate::options::Profile::Plain) there is no `hero.close`: after `ended` and
        /// `last_event` the body ends cleanly, after every other reason it breaks off.
        ///
        #[doc = concat!(
            "| reason | what the client sees | what it does next | what the operator does |\n|---|---|---|---|\n",
            $("| `", $name, "` | ", $sees, " | ", $next, " | ", $operator, " |\n",)*
        )]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseReason { $($(#[$doc])* $variant,)* }

        impl CloseReason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name of the reason in logs, metrics and `hero.close`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns whether a client can get the stream again if it reconnects with the same request.
            pub const fn reconnect(self) -> bool {
                match self { $(Self::$variant => $reconnect,)* }
            }
        }
    };
}

reasons! {
    /// The client closed the connection, or the connection broke.
    ClientGone = "client_gone", reconnect: true,
    sees: "its own disconnect, or a broken connection",
    next: "after a broken connection a browser reconnects after its `retry`",
    operator: "nothing; a rise comes from the network, or from a proxy that cuts idle connections: compare its timeout \
               with `HeartbeatInterval`";
    /// The client did not take a write within the write timeout.
    WriteTimeout = "write_timeout", reconnect: true,
    sees: "a reset connection",
    next: "once it reads again, it reconnects and resumes from its last id",
    operator: "nothing for a few; for many, a longer `WriteTimeout`, or smaller and fewer events";
    /// The client's machine acknowledged nothing within the peer timeout.
    PeerTimeout = "peer_timeout", reconnect: true,
    sees: "nothing: it was unreachable, and notices only by its own watchdog",
    next: "with a watchdog (`HeartbeatEvent`) it reconnects, without one it waits forever",
    operator: "nothing; a shorter timeout cuts off clients in tunnels";
    /// The stream reached its maximum age.
    MaxAge = "max_age", reconnect: true,
    sees: "`hero.close` and a clean end",
    next: "it reconnects and resumes, perhaps on another node",
    operator: "nothing; `MaxAge` sets the interval";
    /// The caller's token expired. The client needs a new one.
    TokenExpired = "token_expired", reconnect: false,
    sees: "`hero.close` and a clean end",
    next: "a page renews its token and opens a new `EventSource`; a client that only reconnects gets a final `401`",
    operator: "nothing; for many a minute, issue longer tokens";
    /// Access was withdrawn, by [`disconnect`](crate::connections::Connections::disconnect) or by a permission check.
    Revoked = "revoked", reconnect: false,
    sees: "`hero.close` and a clean end; if it has stalled, a reset connection",
    next: "if it reconnects, it is refused, provided that the token or the permission is no longer accepted",
    operator: "makes sure of that first; otherwise the client is admitted again";
    /// The server could not verify whether the caller may have the stream, so it may not.
    Unverified = "unverified", reconnect: true,
    sees: "`hero.close` and a clean end; new clients get only that, or under `OverLimit = \"refuse\"` a `503`",
    next: "it retries after its `retry`; after a refusal a browser never does",
    operator: "reads the ERROR line: the issuer, or the database behind the authorizer, does not answer";
    /// The client read too slowly: the buffer of its stream overflowed, or it fell too far behind in a topic
    /// ([`Overflow::Disconnect`](crate::options::Overflow::Disconnect)).
    Overflow = "overflow", reconnect: true,
    sees: "the waiting events, then `hero.close` and a clean end",
    next: "it reconnects and resumes from its last id, without a gap if the application retains the events",
    operator: "a larger `Buffer`, a topic that retains more, or another `Overflow`";
    /// The client missed events that are no longer available, and its stream is plain
    /// ([`Profile::Plain`](crate::options::Profile::Plain)), so that it cannot be told. A native stream goes on after
    /// `hero.gap`.
    Gap = "gap", reconnect: true,
    sees: "a body that breaks off",
    next: "with its last id it gets a `410`, without one it starts as a new client",
    operator: "a topic that retains more; or `on_gap` or `snapshot`, which make up for missed events";
    /// The server is shutting down, the endpoint is closed, or the stream was drained
    /// ([`Connections::drain`](crate::connections::Connections::drain)).
    Draining = "draining", reconnect: true,
    sees: "`hero.close` with a `retry` spread over `DrainJitter`, and a clean end; new clients get only that, or under \
           `OverLimit = \"refuse\"` a `503`",
    next: "it reconnects to another node or to the next process; after a refusal a browser never does",
    operator: "nothing: a deployment";
    /// A connection limit was reached, or the caller connects too often. The stream never began.
    #[doc(alias = "rate limit")]
    OverLimit = "over_limit", reconnect: true,
    sees: "`200`, `retry`, `hero.close` and a clean end; under `OverLimit = \"refuse\"` a `503` or `429`",
    next: "it retries after its `retry`; after a refusal a browser never does",
    operator: "reads the WARN line, which names the limit; then a higher limit, more nodes, or a check of who holds \
               the streams";
    /// The application's stream ended.
    Ended = "ended", reconnect: true,
    sees: "`hero.close` and a clean end",
    next: "it reconnects, so the endpoint's function runs again",
    operator: "if that was not intended: send a last event, so that clients do not reconnect";
    /// The stream's last event was sent. No event will ever follow.
    LastEvent = "last_event", reconnect: false,
    sees: "the event with the end mark in its id, `hero.close` and a clean end",
    next: "it reconnects once, is answered `204`, and does not reconnect again",
    operator: "nothing";
    /// The application's stream yielded an error, or an event that could not be encoded.
    StreamError = "stream_error", reconnect: true,
    sees: "`hero.close` and a clean end; never the error",
    next: "it reconnects",
    operator: "reads the ERROR line, which has the error";
    /// The application's stream panicked.
    StreamPanic = "stream_panic", reconnect: true,
    sees: "`hero.close` and a clean end",
    next: "it reconnects",
    operator: "reads the ERROR line and the panic message, and fixes the application";
}

impl CloseReason {
    /// Its index in [`ALL`](Self::ALL), for tables of counts.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Whether the caller loses access: even the function of a `POST` must not finish.
    pub(crate) const fn is_withdrawal(self) -> bool {
        matches!(self, Self::Revoked | Self::TokenExpired | Self::Unverified)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
