//! Who is asking: the [`Principal`], and the [`Authenticator`] that makes one of a token.

#[cfg(feature = "jwt")]
pub(crate) mod jwt;
pub(crate) mod token;

use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::permission::{Permission, PermissionRule};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::telemetry;

/// Makes a [`Principal`] of a token.
///
/// # Contract
///
/// `authenticate` is called once for each request that carries a token, from many tasks at a time,
/// before any of the application's code runs. What it cannot vouch for it refuses; an error of its
/// own is a refusal too. It may be cancelled at any await point, since clients leave.
pub trait Authenticator: Send + Sync + 'static {
    /// What is wrong with it, found when the kit is built: one sentence for each mistake. One that
    /// wraps another passes the other's mistakes on.
    fn mistakes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Who holds `token`.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] with a reason that the client may read.
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, InvalidToken>>;
}

/// Why a token is not accepted: a sentence for the client, which goes into the challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken(&'static str);

impl InvalidToken {
    /// `reason` must not hold quotes, backslashes or anything outside ASCII (RFC 6750, section 3):
    /// such a reason is left out of the challenge.
    pub const fn new(reason: &'static str) -> Self {
        Self(reason)
    }

    pub(crate) const fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidToken {}

/// A kit's authenticator and where it looks for tokens: every request passes here.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    /// Whether routes that are no endpoints take tokens from the query.
    pub(crate) query_token: bool,
}

impl Gate {
    /// Who sent this request: `None` when it carries no token.
    pub(crate) async fn principal(
        &self,
        parts: &Parts,
        query_token: bool,
    ) -> Result<Option<Principal>, Refusal> {
        #[cfg(feature = "testing")]
        if let Some(test) = parts.extensions.get::<TestPrincipal>() {
            return Ok(Some(test.0.clone()));
        }
        let Some(token) = token::bearer_token(parts, query_token)? else { return Ok(None) };
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        // Within the future, so that what it does before its first await is contained as well.
        let checked = async { authenticator.authenticate(&token).await };
        match AssertUnwindSafe(checked).catch_unwind().await {
            Ok(Ok(principal)) => Ok(Some(principal)),
            Ok(Err(invalid)) => Err(Refusal::invalid_token(invalid.reason())),
            Err(_) => {
                telemetry::panicked(parts.uri.path(), "authenticator");
                Err(Refusal::internal())
            }
        }
    }
}

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
    tenant: Option<String>,
    permissions: BTreeSet<String>,
    valid_until: Option<SystemTime>,
    claims: Map<String, Value>,
}

impl Principal {
    /// A caller without tenant and permissions, whose credential does not expire.
    pub fn new(subject: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            subject: subject.into(),
            tenant: None,
            permissions: BTreeSet::new(),
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
    pub(crate) fn claims(self, claims: Map<String, Value>) -> Self {
        self.with(|inner| inner.claims = claims)
    }

    /// Who it is: the token's `sub`.
    pub fn subject(&self) -> &str {
        &self.0.subject
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
        self.0.permissions.contains(permission)
    }

    /// Makes sure that it holds this permission, for routes of your own.
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
    let principal = gate.principal(parts, gate.query_token).await?;
    if let Some(principal) = &principal {
        parts.extensions.insert(principal.clone());
    }
    Ok(principal)
}
