//! How many streams there may be, and how many there are of each kind.

use std::collections::HashMap;
use std::sync::Arc;

use crate::close::CloseReason;

/// How many streams there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) on_path: Option<usize>,
    pub(crate) of_subject: usize,
}

/// Why a stream was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Draining,
    Total,
    Path,
    Subject,
}

impl NoPlace {
    pub(crate) const fn reason(self) -> CloseReason {
        match self {
            Self::Draining => CloseReason::Draining,
            Self::Total | Self::Path | Self::Subject => CloseReason::OverLimit,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Total => "all connections",
            Self::Path => "this endpoint's connections",
            Self::Subject => "this principal's connections",
        }
    }
}

/// How many streams are open on each path and for each subject. What has none has no entry.
#[derive(Default)]
pub(super) struct Places {
    by_path: HashMap<Arc<str>, usize>,
    by_subject: HashMap<Arc<str>, usize>,
}

impl Places {
    /// Whether one more stream fits beside the `total` there are.
    pub(super) fn check(
        &self,
        total: usize,
        path: &Arc<str>,
        subject: Option<&Arc<str>>,
        limits: Limits,
    ) -> Result<(), NoPlace> {
        let count = |counts: &HashMap<_, usize>, key| counts.get(key).copied().unwrap_or(0);
        if total >= limits.total {
            Err(NoPlace::Total)
        } else if limits.on_path.is_some_and(|limit| count(&self.by_path, path) >= limit) {
            Err(NoPlace::Path)
        } else if subject.is_some_and(|s| count(&self.by_subject, s) >= limits.of_subject) {
            Err(NoPlace::Subject)
        } else {
            Ok(())
        }
    }

    pub(super) fn enter(&mut self, path: &Arc<str>, subject: Option<&Arc<str>>) {
        *self.by_path.entry(path.clone()).or_default() += 1;
        if let Some(subject) = subject {
            *self.by_subject.entry(subject.clone()).or_default() += 1;
        }
    }

    pub(super) fn leave(&mut self, path: &Arc<str>, subject: Option<&Arc<str>>) {
        release(&mut self.by_path, path);
        if let Some(subject) = subject {
            release(&mut self.by_subject, subject);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty() && self.by_subject.is_empty()
    }
}

fn release(counts: &mut HashMap<Arc<str>, usize>, key: &Arc<str>) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
