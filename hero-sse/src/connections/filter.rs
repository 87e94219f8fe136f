//! Which streams somebody means.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::Connection;
use crate::auth::Principal;

/// Which streams: those that meet everything said of them.
///
/// ```
/// use std::time::Duration;
/// use hero_sse::CloseReason;
/// use hero_sse::connections::ConnectionFilter;
///
/// let filter = ConnectionFilter::all().endpoint("/api/usage").subject("ann");
/// let old = ConnectionFilter::all().older_than(Duration::from_secs(3600));
/// let session = ConnectionFilter::all().claim("sid", "8c1f");
/// # let sse = hero_sse::HeroSse::builder().build()?;
/// let asked = sse.connections().drain(&filter);
/// let ended = sse.connections().disconnect(&session, CloseReason::Revoked);
/// # assert_eq!((asked, ended, sse.connections().drain(&old)), (0, 0, 0));
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
///
/// What it says of a caller is compared with the [`Principal`] that the stream was opened by; streams without
/// one are then not meant.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct ConnectionFilter {
    endpoint: Option<String>,
    subject: Option<String>,
    tenant: Option<String>,
    issuer: Option<String>,
    permissions: Vec<String>,
    /// A value that cannot be one is `None`, and nobody's.
    claims: Vec<(String, Option<Value>)>,
    older_than: Option<Duration>,
}

impl ConnectionFilter {
    /// Every stream.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of the endpoint at this path, prefix included and with its captures as declared: as
    /// [`ConnectionInfo::path`](crate::connections::ConnectionInfo::path) has it.
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.endpoint = Some(path.into());
        self
    }

    /// Those of this subject. Where several issuers are accepted, say whose as well: [`issuer`](Self::issuer).
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Those of this tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Those whose tokens this issuer (`iss`) made.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Those of callers whose token grants this permission, and those named before. What an
    /// [`Authorizer`](crate::auth::Authorizer) knows beyond the token is not looked at.
    pub fn permission(mut self, permission: impl Into<String>) -> Self {
        self.permissions.push(permission.into());
        self
    }

    /// Those whose token has this claim with this value, besides those named before: a text, a number or a
    /// flag, such as the session (`sid`). A value that is none of JSON is nobody's.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.claims.push((name.into(), serde_json::to_value(value).ok()));
        self
    }

    /// Those that have been open for at least this long.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    pub(super) fn matches(&self, connection: &Connection, now: Instant) -> bool {
        let age = || now.saturating_duration_since(connection.since);
        self.endpoint.as_deref().is_none_or(|wanted| wanted == &*connection.path)
            && self.matches_caller(connection.principal.as_ref())
            && self.older_than.is_none_or(|wanted| age() >= wanted)
    }

    fn matches_caller(&self, caller: Option<&Principal>) -> bool {
        let Self { subject, tenant, issuer, permissions, claims, .. } = self;
        let anybody = subject.is_none() && tenant.is_none() && issuer.is_none();
        let Some(caller) = caller else {
            return anybody && permissions.is_empty() && claims.is_empty();
        };
        subject.as_deref().is_none_or(|wanted| wanted == caller.subject())
            && tenant.as_deref().is_none_or(|wanted| caller.tenant() == Some(wanted))
            && issuer.as_deref().is_none_or(|wanted| caller.issuer() == Some(wanted))
            && permissions.iter().all(|wanted| caller.has(wanted))
            && claims
                .iter()
                .all(|(name, wanted)| wanted.is_some() && caller.claim::<Value>(name) == *wanted)
    }
}
