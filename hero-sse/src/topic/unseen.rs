//! What a subscription learns while it is polled inside a stream of user code: the profile of the client's stream. In
//! turn, the stream learns that the library cannot resume it.

use std::cell::Cell;

use crate::profile::Profile;

thread_local! {
    /// The client's stream that is polled on this thread.
    static POLL: Cell<Option<Poll>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Poll {
    profile: Profile,
    /// It polled a subscription that does not resume.
    found: bool,
}

/// Polls a client's stream. Returns whether it has polled a subscription that does not resume.
#[cfg(feature = "server")]
pub(crate) fn find_unseen<T>(profile: Profile, poll: impl FnOnce() -> T) -> (T, bool) {
    let outer = POLL.replace(Some(Poll { profile, found: false }));
    let polled = poll();
    (polled, POLL.replace(outer).is_some_and(|poll| poll.found))
}

/// Reports a subscription that is polled as a stream, and does not resume.
pub(super) fn report() {
    if let Some(poll) = POLL.get() {
        POLL.set(Some(Poll { found: true, ..poll }));
    }
}

/// Returns the profile of the client's stream, if one is polled.
pub(super) fn profile() -> Option<Profile> {
    POLL.get().map(|poll| poll.profile)
}
