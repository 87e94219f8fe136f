//! Finds subscriptions inside a stream of user code, where the library cannot resume them.

use std::cell::Cell;

thread_local! {
    /// Whether a client's stream is polled on this thread, and whether that polled a subscription.
    static POLL: Cell<Poll> = const { Cell::new(Poll::None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Poll {
    None,
    OfClient,
    Found,
}

/// Polls a client's stream. Returns whether it has polled a subscription that does not resume.
#[cfg(feature = "server")]
pub(crate) fn find_unseen<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    let outer = POLL.replace(Poll::OfClient);
    let polled = poll();
    (polled, POLL.replace(outer) == Poll::Found)
}

/// Reports a subscription that is polled as a stream, and does not resume.
pub(super) fn report() {
    if POLL.get() == Poll::OfClient {
        POLL.set(Poll::Found);
    }
}
