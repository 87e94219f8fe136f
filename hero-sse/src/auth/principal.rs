//! The caller: who it is, for whom it acts, what it may do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Gate;
use crate::permission::{Permission, PermissionRule};
use crate::refusal::Refusal;

/// The authenticated caller: an extractor, cheap to clone.
///
/// In an endpoint's function it is always there, but for a public endpoint, where it is
/// `Option<Principal>`. Under [`HeroSse::serve`](crate::HeroSse::serve), and only there, it works on
/// routes of your own as well: `401` without a token or with one that is not accepted, `400` for
/// doubled or malformed credentials.
#[derive(Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    subject: String,
    issuer: Option<String>,
    tenant: Option<String>,
    permissions: BTreeSet<String>,
    /// Whether a permission may end in `*`.
    wildcards: bool,
    valid_until: Option<SystemTime>,
    claims: Map<String, Value>,
}

impl Principal {
    /// A caller without tenant and permissions, whose credential does not expire.
    pub fn new(subject: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            subject: subject.into(),
            issuer: None,
            tenant: None,
            permissions: BTreeSet::new(),
            wildcards: false,
            valid_until: None,
            claims: Map::new(),
        }))
    }

    /// A caller for tests: of a function, called as the plain function it is, or of a whole
    /// request through [`testing::open`](crate::testing::open).
    #[cfg(feature = "testing")]
    pub fn test(subject: impl Into<String>) -> Self {
        Self::new(subject)
    }

    /// The same caller, acting for this tenant.
    #[must_use]
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.with(|inner| inner.tenant = Some(tenant.into()))
    }

    /// The same caller with one more permission.
    #[must_use]
    pub fn permission(self, permission: impl Into<String>) -> Self {
        self.with(|inner| {
            inner.permissions.insert(permission.into());
        })
    }

    /// The same caller with a credential that is accepted up to this time, any leeway included. The
    /// caller's streams end by then.
    #[must_use]
    pub fn valid_until(self, time: SystemTime) -> Self {
        self.with(|inner| inner.valid_until = Some(time))
    }

    #[cfg(feature = "jwt")]
    pub(crate) fn issued_by(self, issuer: impl Into<String>) -> Self {
        self.with(|inner| inner.issuer = Some(issuer.into()))
    }

    #[cfg(feature = "jwt")]
    pub(crate) fn with_wildcards(self) -> Self {
        self.with(|inner| inner.wildcards = true)
    }

    #[cfg(feature = "jwt")]
    pub(crate) fn claims(self, claims: Map<String, Value>) -> Self {
        self.with(|inner| inner.claims = claims)
    }

    /// Who it is: the token's `sub`.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Who vouches for it: the token's `iss`, if it has one. A subject is unique within its issuer.
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// The tenant it acts for, if any.
    pub fn tenant_id(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// The tenant it acts for.
    ///
    /// # Errors
    ///
    /// `403` for a caller without one.
    pub fn require_tenant(&self) -> Result<&str, Refusal> {
        self.tenant_id().ok_or_else(|| Refusal::forbidden("the token names no tenant"))
    }

    /// Whether it holds this permission.
    pub fn has(&self, permission: &str) -> bool {
        let Inner { permissions, wildcards, .. } = &*self.0;
        permissions.contains(permission)
            || *wildcards && permissions.iter().any(|granted| covers(granted, permission))
    }

    /// Makes sure that it holds this permission, for routes of your own: by the token's claims alone.
    /// Where an [`Authorizer`](crate::Authorizer) decides, ask [`HeroSse::authorize`](crate::HeroSse::authorize).
    ///
    /// # Errors
    ///
    /// `403` with the challenge of RFC 6750, or `500` when `permission` cannot be one.
    pub fn require(&self, permission: &str) -> Result<(), Refusal> {
        match Permission::new(permission.to_owned()) {
            Ok(permission) => self.meets(&PermissionRule::One(permission)),
            Err(_) => Err(Refusal::internal()),
        }
    }

    /// Another claim of the token, `None` when it is absent or of another type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.0.claims.get(name).and_then(|claim| T::deserialize(claim).ok())
    }

    pub(crate) fn meets(&self, rule: &PermissionRule) -> Result<(), Refusal> {
        match rule.unmet(&|permission| self.has(permission.as_str())) {
            None => Ok(()),
            Some(unmet) => Err(Refusal::insufficient_scope(rule, &unmet)),
        }
    }

    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        self.0.valid_until
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// Whether a grant with `*` as its last segment holds this permission. Segments stand between `.` or
/// `:`, and `*` is for one or more whole ones.
fn covers(granted: &str, permission: &str) -> bool {
    let Some(family) = granted.strip_suffix('*') else { return false };
    let whole = family.is_empty() || family.ends_with(['.', ':']);
    whole && permission.strip_prefix(family).is_some_and(|rest| !rest.is_empty())
}

/// Who and for whom, without the claims: they may hold personal data.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { subject, tenant, permissions, .. } = &*self.0;
        f.debug_struct("Principal")
            .field("subject", subject)
            .field("tenant", tenant)
            .field("permissions", permissions)
            .finish_non_exhaustive()
    }
}

/// A caller that a test put into a request; there is no way to send one.
#[cfg(feature = "testing")]
#[derive(Clone)]
pub(crate) struct TestPrincipal(pub(crate) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        caller(parts).await?.ok_or_else(Refusal::no_token)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refusal> {
        caller(parts).await
    }
}

/// Whom an endpoint has found already, or whom the kit's gate finds now.
async fn caller(parts: &mut Parts) -> Result<Option<Principal>, Refusal> {
    if let Some(principal) = parts.extensions.get::<Principal>() {
        return Ok(Some(principal.clone()));
    }
    let Some(gate) = parts.extensions.get::<Gate>().cloned() else {
        // An endpoint's caller without token, or a route of the application's own elsewhere.
        return Ok(None);
    };
    let principal = gate.principal(parts, gate.sources).await?;
    if let Some(principal) = &principal {
        parts.extensions.insert(principal.clone());
    }
    Ok(principal)
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_star_is_for_whole_segments_at_the_end() {
        for (granted, permission, expected) in [
            ("usage.*", "usage.read", true),
            ("usage.*", "usage.read.all", true),
            ("usage:*", "usage:read", true),
            ("*", "usage.read", true),
            ("usage.*", "usage", false),
            ("usage.*", "usage.", false),
            ("usage.*", "usages.read", false),
            ("usage.*", "usage:read", false),
            ("usage*", "usage.read", false),
            ("usage.r*", "usage.read", false),
            ("*.read", "usage.read", false),
            ("usage.*.all", "usage.read.all", false),
            ("usage.**", "usage.read", false),
            ("usage.read", "usage.read.all", false),
            ("", "usage.read", false),
        ] {
            assert_eq!(covers(granted, permission), expected, "{granted} {permission}");
        }
    }
}
