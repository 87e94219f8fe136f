//! Why an open stream ended: one enum for logs, counts, the wire and tests.

use std::fmt;

macro_rules! reasons {
    ($(
        $(#[$doc:meta])* $variant:ident = $name:literal, reconnect: $reconnect:literal,
        sees: $sees:literal, next: $next:literal, operator: $operator:literal;
    )*) => {
        /// Why an open stream ended.
        ///
        /// Before the head is sent a failure is a refusal, an ordinary HTTP answer; after it, one of
        /// these. Where the server ends the stream the client reads the reason in `hero.close`.
        ///
        #[doc = concat!(
            "| reason | what the client sees | what it does next | what the operator does |\n|---|---|---|---|\n",
            $("| `", $name, "` | ", $sees, " | ", $next, " | ", $operator, " |\n",)*
        )]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseReason { $($(#[$doc])* $variant,)* }

        impl CloseReason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason as logs, counts and `hero.close` spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether a client that comes back just as it is can hope for the stream.
            pub const fn reconnect(self) -> bool {
                match self { $(Self::$variant => $reconnect,)* }
            }
        }
    };
}

reasons! {
    /// The client closed the connection, or it broke.
    ClientGone = "client_gone", reconnect: true,
    sees: "it left by itself, or a broken connection",
    next: "a browser whose connection broke reconnects after its `retry`",
    operator: "nothing; a rise of these is the network, or a proxy that cuts idle connections: compare its timeout \
               with `HeartbeatInterval`";
    /// The client did not take a write within the write timeout.
    WriteTimeout = "write_timeout", reconnect: true,
    sees: "a reset connection",
    next: "when it runs again it reconnects, and resumes from its cursor",
    operator: "nothing for a few; for many, a longer `WriteTimeout`, or smaller and fewer events";
    /// The client's machine acknowledged nothing for the peer timeout.
    PeerTimeout = "peer_timeout", reconnect: true,
    sees: "nothing: it was not reachable, and learns of it by its own watchdog",
    next: "with a watchdog (`HeartbeatEvent`) it reconnects, without one it waits for ever",
    operator: "nothing; shorter cuts clients in tunnels";
    /// The stream reached its maximum age.
    MaxAge = "max_age", reconnect: true,
    sees: "`hero.close`, a clean end",
    next: "it reconnects and resumes, perhaps on another node",
    operator: "nothing; `MaxAge` sets the pace";
    /// The token expired; come back with a new one.
    TokenExpired = "token_expired", reconnect: false,
    sees: "`hero.close`, a clean end",
    next: "a page renews its token and opens a new `EventSource`; one that only reconnects gets a final `401`",
    operator: "nothing; for many a minute, longer tokens";
    /// Access was withdrawn: somebody said so, or a check did.
    Revoked = "revoked", reconnect: false,
    sees: "`hero.close`, a clean end; a stalled client a reset",
    next: "one that only reconnects is refused, where the token is no longer accepted or the permission gone",
    operator: "makes sure of that first: whoever is let in again is in again";
    /// Whether the caller may have the stream could not be found out, so it may not.
    Unverified = "unverified", reconnect: true,
    sees: "`hero.close`, a clean end; who comes meanwhile gets that alone, under `OverLimit = \"refuse\"` a `503`",
    next: "it tries again after its `retry`; after a refusal a browser never does",
    operator: "reads the ERROR line: the issuer, or the database behind the authorizer, does not answer";
    /// The client read too slowly: the buffer of its stream overflowed, or it fell too far behind in a topic
    /// ([`Overflow::Disconnect`](crate::options::Overflow::Disconnect)).
    Overflow = "overflow", reconnect: true,
    sees: "what waited, then `hero.close` and a clean end",
    next: "it reconnects and resumes from its last id, without a hole where the application keeps one",
    operator: "a larger `Buffer`, a topic that keeps more, or another `Overflow`";
    /// The server is shutting down, the endpoint is closed, or an operator asked the stream to go
    /// ([`Connections::drain`](crate::connections::Connections::drain)).
    Draining = "draining", reconnect: true,
    sees: "`hero.close` with a `retry` spread over `DrainJitter`, a clean end; who comes meanwhile gets that alone, \
           under `OverLimit = \"refuse\"` a `503`",
    next: "it reconnects, to another node or the next process; after a refusal a browser never does",
    operator: "nothing: a deploy";
    /// A connection limit was reached, or the caller comes too often, so the stream never began.
    OverLimit = "over_limit", reconnect: true,
    sees: "`200`, `retry`, `hero.close`, a clean end; under `OverLimit = \"refuse\"` a `503` or `429`",
    next: "it tries again after its `retry`; after a refusal a browser never does",
    operator: "reads the WARN line, which names the limit; then a higher one, more nodes, or a look at who holds the \
               streams";
    /// The application's stream came to its end.
    Ended = "ended", reconnect: true,
    sees: "`hero.close`, a clean end",
    next: "it reconnects, so that the application's function runs again",
    operator: "if that was not meant: a last event, which says that there is no more";
    /// The stream's last event was sent: there is nothing more to come, ever.
    LastEvent = "last_event", reconnect: false,
    sees: "the event with the end mark in its id, `hero.close`, a clean end",
    next: "it reconnects once, is answered `204` and stays away",
    operator: "nothing";
    /// The application's stream yielded an error, or an event that could not be written.
    StreamError = "stream_error", reconnect: true,
    sees: "`hero.close`, a clean end; never the error",
    next: "it reconnects",
    operator: "reads the ERROR line, which has the error";
    /// The application's stream panicked.
    StreamPanic = "stream_panic", reconnect: true,
    sees: "`hero.close`, a clean end",
    next: "it reconnects",
    operator: "reads the ERROR line and the panic's own, and mends the application";
}

impl CloseReason {
    /// Its place in [`ALL`](Self::ALL), for tables of counts.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Whether whoever is asked to go for it loses what it has begun, too.
    pub(crate) const fn is_withdrawal(self) -> bool {
        matches!(self, Self::Revoked | Self::TokenExpired | Self::Unverified)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
