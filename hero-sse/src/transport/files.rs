//! Room for the connections under the limit of open files.

use crate::telemetry;

/// Files beside the streams: sockets of requests that are no streams or are being turned away, the
/// application's own to its databases, logs. A tenth of the streams, and no fewer than this.
const RESERVE: u64 = 256;

/// Sees to it that `connections` streams can be open at once, or says in the log that they cannot.
pub(super) fn make_room(connections: usize) {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    let need = connections.saturating_add((connections / 10).max(RESERVE));
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let limit = getrlimit(Resource::Nofile);
        let target = target(limit.current, limit.maximum, need);
        let mut now = limit.current;
        if let Some(raised) = target {
            let raise = Rlimit { current: Some(raised), maximum: limit.maximum };
            // Some kernels allow less than their own hard limit says.
            if setrlimit(Resource::Nofile, raise).is_ok() {
                telemetry::open_files_raised(limit.current.unwrap_or(u64::MAX), raised);
                now = target;
            }
        }
        if let Some(now) = now.filter(|now| *now < need) {
            telemetry::open_files_short(now, need, connections);
        }
    }
    #[cfg(not(unix))]
    let _ = need;
}

/// What to set the soft limit to, if anything; `None` among the arguments is no limit.
#[cfg(unix)]
fn target(soft: Option<u64>, hard: Option<u64>, need: u64) -> Option<u64> {
    let soft = soft.filter(|soft| *soft < need)?;
    let target = hard.map_or(need, |hard| hard.min(need));
    (target > soft).then_some(target)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_what_is_needed_as_far_as_the_hard_one_allows() {
        for (soft, hard, need, expected) in [
            (Some(1_024), Some(524_288), 11_000, Some(11_000)),
            (Some(1_024), Some(4_096), 11_000, Some(4_096)),
            (Some(1_024), None, 11_000, Some(11_000)),
            (Some(4_096), Some(4_096), 11_000, None),
            (Some(11_000), Some(524_288), 11_000, None),
            (None, None, u64::MAX, None),
        ] {
            assert_eq!(target(soft, hard, need), expected, "{soft:?} {hard:?} {need}");
        }
    }
}
