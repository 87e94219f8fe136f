//! Which streams an operator means.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;

/// Which streams: those that meet everything said of them.
///
/// ```
/// use std::time::Duration;
/// use hero_sse::ConnectionFilter;
///
/// let filter = ConnectionFilter::all().endpoint("/api/usage").subject("ann");
/// let old = ConnectionFilter::all().older_than(Duration::from_secs(3600));
/// # let sse = hero_sse::HeroSse::builder().build()?;
/// let asked = sse.connections().drain(&filter);
/// # assert_eq!((asked, sse.connections().drain(&old)), (0, 0));
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct ConnectionFilter {
    endpoint: Option<String>,
    subject: Option<String>,
    tenant: Option<String>,
    older_than: Option<Duration>,
}

impl ConnectionFilter {
    /// Every stream.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of the endpoint at this path, prefix included and with its captures as declared: as
    /// [`ConnectionInfo::path`](crate::ConnectionInfo::path) has it.
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.endpoint = Some(path.into());
        self
    }

    /// Those of this subject.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Those of this tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Those that have been open for at least this long.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    pub(super) fn matches(&self, connection: &Connection, now: Instant) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        is(&self.endpoint, Some(&connection.path))
            && is(&self.subject, connection.subject.as_deref())
            && is(&self.tenant, connection.tenant.as_deref())
            && self
                .older_than
                .is_none_or(|age| now.saturating_duration_since(connection.since) >= age)
    }
}
