//! The authenticated caller: subject, tenant, permissions, claims.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::permission::{Permission, PermissionRule};
use crate::refusal::Refusal;

/// The authenticated caller. An extractor that is cheap to clone.
///
/// | where | extractor |
/// |---|---|
/// | endpoint | `Principal` |
/// | public endpoint | `Option<Principal>`: `None` without a token |
/// | your own routes under [`HeroSse::serve`](crate::HeroSse::serve) | either; errors as in [`HeroSse::authenticate`](crate::HeroSse::authenticate) |
///
/// An [`Authenticator`](crate::auth::Authenticator) creates it, and so can a test:
///
/// ```
/// use hero_sse::Principal;
///
/// let who = Principal::new("ann").with_tenant("t1").permission("usage.read").with_claim("plan", "pro");
/// assert_eq!((who.subject(), who.require_tenant()?), ("ann", "t1"));
/// assert_eq!(who.claim::<String>("plan").as_deref(), Some("pro"));
/// # Ok::<(), hero_sse::Refusal>(())
/// ```
#[derive(Clone)]
pub struct Principal(Arc<Inner>);

/// Also serialized into the grant of a ticket.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Inner {
    subject: String,
    issuer: Option<String>,
    tenant: Option<String>,
    permissions: BTreeSet<String>,
    /// Whether a permission that ends in `*` is a wildcard.
    wildcards: bool,
    valid_until: Option<SystemTime>,
    claims: Map<String, Value>,
}

impl Principal {
    /// Creates a caller without tenant and permissions, whose credential does not expire.
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

    /// Creates a caller for tests, to call a handler directly or to open a stream with
    /// [`testing::open`](crate::testing::open).
    #[cfg(feature = "testing")]
    pub fn test(subject: impl Into<String>) -> Self {
        Self::new(subject)
    }

    /// Sets the issuer. Callers with the same subject and different issuers are different callers.
    #[must_use]
    pub fn issued_by(self, issuer: impl Into<String>) -> Self {
        self.with(|inner| inner.issuer = Some(issuer.into()))
    }

    /// Sets the tenant. An empty string means no tenant.
    #[must_use]
    pub fn with_tenant(self, tenant: impl Into<String>) -> Self {
        self.with(|inner| inner.tenant = Some(tenant.into()).filter(|tenant| !tenant.is_empty()))
    }

    /// Adds a permission.
    #[must_use]
    pub fn permission(self, permission: impl Into<String>) -> Self {
        self.with(|inner| {
            inner.permissions.insert(permission.into());
        })
    }

    /// Sets when the credential expires, leeway included. The caller's streams end then.
    #[must_use]
    pub fn valid_until(self, time: SystemTime) -> Self {
        self.with(|inner| inner.valid_until = Some(time))
    }

    /// Adds or replaces a claim, for [`claim`](Self::claim). A value that cannot be JSON is ignored.
    #[must_use]
    pub fn with_claim(self, name: impl Into<String>, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => self.with(|inner| {
                inner.claims.insert(name.into(), value);
            }),
            Err(_) => self,
        }
    }

    #[cfg(feature = "jwt")]
    pub(crate) fn with_wildcards(self) -> Self {
        self.with(|inner| inner.wildcards = true)
    }

    #[cfg(feature = "jwt")]
    pub(crate) fn claims(self, claims: Map<String, Value>) -> Self {
        self.with(|inner| inner.claims = claims)
    }

    /// Returns the subject: the token's `sub`. It is unique within the [issuer](Self::issuer).
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Returns the issuer: the token's `iss`, if it has one.
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// Returns the tenant that the caller acts for, if any.
    pub fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// Returns the tenant that the caller acts for.
    ///
    /// # Errors
    ///
    /// `403` if the caller has no tenant.
    pub fn require_tenant(&self) -> Result<&str, Refusal> {
        self.tenant().ok_or_else(|| Refusal::forbidden("the token names no tenant"))
    }

    /// Checks that the caller acts for this tenant, for example the one in the path. The comparison is
    /// exact.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::axum::extract::Path;
    /// #[sse_endpoint("/tenants/{tenant}/orders", permission = "orders.read")]
    /// async fn orders(who: Principal, Path(tenant): Path<String>) -> Result<impl Stream<Item = Event>, Refusal> {
    ///     who.require_tenant_is(&tenant)?;
    ///     Ok(futures_util::stream::iter([Event::text(tenant)]))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// `403` if the caller acts for another tenant or none. The response is the same in both cases, so it does
    /// not reveal whether the tenant exists.
    pub fn require_tenant_is(&self, tenant: &str) -> Result<(), Refusal> {
        match self.tenant() {
            Some(own) if own == tenant => Ok(()),
            _ => Err(Refusal::forbidden("the token does not act for this tenant")),
        }
    }

    /// Returns the permissions in alphabetical order.
    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        self.0.permissions.iter().map(String::as_str)
    }

    /// Returns when the credential expires, leeway included. The caller's streams end then. `None`: never.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.valid_until
    }

    /// Returns whether the caller holds this permission, by the token's claims alone.
    pub fn has(&self, permission: &str) -> bool {
        let Inner { permissions, wildcards, .. } = &*self.0;
        permissions.contains(permission)
            || *wildcards && permissions.iter().any(|granted| covers(granted, permission))
    }

    /// Checks that the caller holds this permission, by the token's claims alone. For your own routes.
    ///
    /// With an [`Authorizer`](crate::auth::Authorizer), use [`HeroSse::authorize`](crate::HeroSse::authorize).
    ///
    /// # Errors
    ///
    /// `403` with the challenge of RFC 6750 if it does not. `500` if `permission` is not a valid name.
    pub fn require(&self, permission: &str) -> Result<(), Refusal> {
        match Permission::new(permission.to_owned()) {
            Ok(permission) => self.meets(&PermissionRule::One(permission)),
            Err(_) => Err(Refusal::internal()),
        }
    }

    /// Returns a claim of the token. `None`: it is missing or of another type.
    ///
    /// A name that begins with `/` is a path to a claim inside others (JSON pointer, RFC 6901), unless the token
    /// has a claim of that name.
    ///
    /// ```
    /// # use hero_sse::Principal;
    /// # let who = Principal::new("ann").with_claim("realm_access", std::collections::BTreeMap::from([("roles", ["auditor"])]));
    /// let roles: Option<Vec<String>> = who.claim("/realm_access/roles");
    /// assert_eq!(roles, Some(vec!["auditor".to_owned()]));
    /// ```
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let claims = &self.0.claims;
        let found = claims.get(name).or_else(|| {
            let path = name.strip_prefix('/')?;
            let (first, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
            claims.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
        });
        found.and_then(|claim| T::deserialize(claim).ok())
    }

    pub(crate) fn meets(&self, rule: &PermissionRule) -> Result<(), Refusal> {
        match rule.unmet(&|permission| self.has(permission.as_str())) {
            None => Ok(()),
            Some(unmet) => Err(Refusal::insufficient_scope(rule, &unmet)),
        }
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// Returns whether a permission that ends in `*` grants `permission`. `*` stands for one or more whole segments,
/// which are separated by `.` or `:`.
fn covers(granted: &str, permission: &str) -> bool {
    let Some(prefix) = granted.strip_suffix('*') else { return false };
    let whole = prefix.is_empty() || prefix.ends_with(['.', ':']);
    whole && permission.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty())
}

impl From<Inner> for Principal {
    fn from(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

/// Omits the claims, which may hold personal data.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { issuer, subject, tenant, permissions, .. } = &*self.0;
        f.debug_struct("Principal")
            .field("issuer", issuer)
            .field("subject", subject)
            .field("tenant", tenant)
            .field("permissions", permissions)
            .finish_non_exhaustive()
    }
}

/// A caller that a test has put into a request. A client cannot send one.
#[cfg(feature = "testing")]
#[derive(Clone)]
pub(crate) struct TestPrincipal(pub(crate) Principal);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_read_by_name_and_by_path() {
        let who = Principal::new("ann")
            .with_claim("plan", "pro")
            .with_claim("realm_access", json!({ "roles": ["a", "b"], "a/b": { "~": 7 } }))
            .with_claim("/odd", 1)
            .with_claim("https://id.example/x", true);
        let json = |name: &str| who.claim::<Value>(name);
        assert_eq!(who.claim::<String>("plan").as_deref(), Some("pro"));
        assert_eq!(who.claim::<u64>("plan"), None, "another type");
        assert_eq!(json("/realm_access/roles/1"), Some(json!("b")));
        assert_eq!(json("/realm_access/a~1b/~0"), Some(json!(7)));
        assert_eq!(
            (json("/odd"), json("https://id.example/x")),
            (Some(json!(1)), Some(json!(true)))
        );
        assert_eq!(json("/plan"), Some(json!("pro")));
        for none in ["", "/", "//", "realm_access/roles", "/realm_access/none", "/plan/x", "Plan"] {
            assert_eq!(json(none), None, "{none}");
        }
        assert_eq!(
            who.clone().with_claim("plan", f64::NAN).claim::<Value>("plan"),
            Some(json!(null))
        );
        assert_eq!(who.with_claim("plan", "free").claim::<String>("plan").as_deref(), Some("free"));
    }

    #[test]
    fn tenants_are_compared_exactly_and_an_empty_one_is_none() {
        let refused = |who: &Principal, tenant: &str| {
            who.require_tenant_is(tenant).expect_err(tenant).to_string()
        };
        let who = Principal::new("ann").with_tenant("t1");
        assert!(who.require_tenant_is("t1").is_ok());
        let of_another = refused(&who, "t2");
        for other in ["", "T1", "t1 ", "t1/", "t1\0", "t\u{ff11}", "t", "t11"] {
            assert_eq!(refused(&who, other), of_another);
        }
        for who in [Principal::new("ann"), who.with_tenant("")] {
            assert_eq!((who.tenant(), refused(&who, "")), (None, of_another.clone()));
            assert!(who.require_tenant().is_err());
        }
    }

    #[test]
    fn permissions_are_returned_in_order() {
        let who = Principal::new("ann").permission("b").permission("a").permission("b");
        assert_eq!(who.permissions().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_wildcard_stands_for_whole_segments_at_the_end() {
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
