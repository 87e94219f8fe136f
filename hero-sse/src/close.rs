//! Why an open stream ended: one enum for logs, counts, the wire and tests.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, reconnect: $reconnect:literal;)*) => {
        /// Why an open stream ended.
        ///
        /// Before the head is sent a failure is a refusal, an ordinary HTTP answer; after it, one of
        /// these. Where the server ends the stream the client reads the reason in `hero.close`.
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
    ClientGone = "client_gone", reconnect: true;
    /// The client did not take a write within the write timeout.
    WriteTimeout = "write_timeout", reconnect: true;
    /// The client's machine acknowledged nothing for the peer timeout.
    PeerTimeout = "peer_timeout", reconnect: true;
    /// The stream reached its maximum age.
    MaxAge = "max_age", reconnect: true;
    /// The token expired; come back with a new one.
    TokenExpired = "token_expired", reconnect: false;
    /// The client read too slowly, and the buffer of its stream overflowed
    /// ([`Overflow::Disconnect`](crate::Overflow::Disconnect)).
    Overflow = "overflow", reconnect: true;
    /// The server is shutting down.
    Draining = "draining", reconnect: true;
    /// A connection limit was reached, so the stream never began.
    OverLimit = "over_limit", reconnect: true;
    /// The application's stream came to its end.
    Ended = "ended", reconnect: true;
    /// The stream's last event was sent: there is nothing more to come, ever.
    LastEvent = "last_event", reconnect: false;
    /// The application's stream yielded an error, or an event that could not be written.
    StreamError = "stream_error", reconnect: true;
    /// The application's stream panicked.
    StreamPanic = "stream_panic", reconnect: true;
}

impl CloseReason {
    /// Its place in [`ALL`](Self::ALL), for tables of counts.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
