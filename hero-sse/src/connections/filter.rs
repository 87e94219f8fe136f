//! [`ConnectionFilter`]: selects open streams.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::connection::Entry;
use crate::auth::Principal;

/// Selects open streams: those that meet all of its conditions. Without conditions it selects every stream.
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
/// let drained = sse.connections().drain(&filter);
/// let ended = sse.connections().disconnect(&session, CloseReason::Revoked);
/// # assert_eq!((drained, ended, sse.connections().drain(&old)), (0, 0, 0));
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
///
/// Conditions on the caller are compared with the [`Principal`] that opened the stream. Streams without a
/// principal never meet them. [`not`](Self::not) leaves streams out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct ConnectionFilter {
    pub(super) id: Option<u64>,
    endpoint: Option<String>,
    subject: Option<String>,
    tenant: Option<String>,
    issuer: Option<String>,
    permissions: Vec<String>,
    /// A value that JSON cannot represent is `None`, and matches no stream.
    claims: Vec<(String, Option<Value>)>,
    older_than: Option<Duration>,
    except: Vec<Self>,
}

impl ConnectionFilter {
    /// Selects every stream. Add conditions to select fewer.
    pub fn all() -> Self {
        Self::default()
    }

    /// Selects the stream with this [id](crate::connections::Connection::id). Ids are no secrets: if a client
    /// names the stream, add a condition on the caller, such as [`subject`](Self::subject).
    pub fn id(mut self, id: u64) -> Self {
        self.id = Some(id);
        self
    }

    /// Selects streams of the endpoint at this path, with its prefix and with captures as declared, as in
    /// [`ConnectionInfo::path`](crate::connections::ConnectionInfo::path).
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.endpoint = Some(path.into());
        self
    }

    /// Selects streams of this subject. If tokens of several issuers are accepted, add
    /// [`issuer`](Self::issuer): the subject alone may then stand for several callers.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Selects streams of this tenant.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Selects streams that were opened with a token of this issuer (`iss`).
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Selects streams whose token grants this permission. Called repeatedly, the token must grant all of them.
    /// An [`Authorizer`](crate::auth::Authorizer) is not asked.
    pub fn permission(mut self, permission: impl Into<String>) -> Self {
        self.permissions.push(permission.into());
        self
    }

    /// Selects streams whose token has this claim with this value, for instance the session (`sid`). The value
    /// is a string, a number or a boolean. Called repeatedly, the token must have all of the claims.
    ///
    /// A value that JSON cannot represent matches no stream.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.claims.push((name.into(), serde_json::to_value(value).ok()));
        self
    }

    /// Selects streams that have been open for at least this long.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Leaves out the streams that match `other`: those that meet all of its conditions. Called repeatedly, it
    /// leaves out the streams that match any of them.
    ///
    /// ```
    /// use hero_sse::connections::ConnectionFilter;
    ///
    /// /// Everyone in the tenant, except one tab.
    /// fn others(tenant: &str, tab: u64) -> ConnectionFilter {
    ///     ConnectionFilter::all().tenant(tenant).not(ConnectionFilter::all().id(tab))
    /// }
    /// # let _ = others("t1", 7);
    /// ```
    #[doc(alias = "except")]
    #[doc(alias = "exclude")]
    pub fn not(mut self, other: Self) -> Self {
        self.except.push(other);
        self
    }

    pub(super) fn matches(&self, entry: &Entry, now: Instant) -> bool {
        let age = || now.saturating_duration_since(entry.since);
        self.id.is_none_or(|wanted| wanted == entry.identity.id)
            && self.endpoint.as_deref().is_none_or(|wanted| wanted == &*entry.identity.endpoint)
            && self.matches_caller(entry.identity.principal.as_ref())
            && self.older_than.is_none_or(|wanted| age() >= wanted)
            && !self.except.iter().any(|other| other.matches(entry, now))
    }

    fn matches_caller(&self, caller: Option<&Principal>) -> bool {
        let Self { subject, tenant, issuer, permissions, claims, .. } = self;
        let any_caller = subject.is_none() && tenant.is_none() && issuer.is_none();
        let Some(caller) = caller else {
            return any_caller && permissions.is_empty() && claims.is_empty();
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
