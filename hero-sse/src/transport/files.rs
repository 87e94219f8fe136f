//! Raises the limit of open files to what the connections need.

use crate::telemetry;

/// Open files besides the streams: sockets of other and of rejected requests, database connections, logs. A tenth of
/// the streams is reserved for them, and at least this many.
const RESERVE: u64 = 256;

/// Makes room for `connections` open streams, or logs that there is too little.
pub(super) fn make_room(connections: usize) {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    let need = connections.saturating_add((connections / 10).max(RESERVE));
    #[cfg(unix)]
    {
        use rlimit::{Resource, getrlimit, setrlimit};

        let Ok((soft, hard)) = getrlimit(Resource::NOFILE) else { return };
        let mut limit = soft;
        // Some kernels allow less than their own hard limit.
        if let Some(raised) = target(soft, hard, need)
            && setrlimit(Resource::NOFILE, raised, hard).is_ok()
        {
            telemetry::open_files_raised(soft, raised);
            limit = raised;
        }
        if limit < need {
            telemetry::open_files_short(limit, need, connections);
        }
    }
    #[cfg(not(unix))]
    let _ = need;
}

/// The new soft limit, or `None` if it stays. "No limit" is `rlimit::INFINITY`, the greatest number.
#[cfg(unix)]
fn target(soft: u64, hard: u64, need: u64) -> Option<u64> {
    let target = hard.min(need);
    (target > soft).then_some(target)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_as_far_as_needed_and_allowed() {
        for (soft, hard, need, expected) in [
            (1_024, 524_288, 11_000, Some(11_000)),
            (1_024, 4_096, 11_000, Some(4_096)),
            (1_024, rlimit::INFINITY, 11_000, Some(11_000)),
            (4_096, 4_096, 11_000, None),
            (11_000, 524_288, 11_000, None),
            (rlimit::INFINITY, rlimit::INFINITY, u64::MAX, None),
        ] {
            assert_eq!(target(soft, hard, need), expected, "{soft:?} {hard:?} {need}");
        }
    }
}
