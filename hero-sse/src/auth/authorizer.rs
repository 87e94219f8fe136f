//! Authorization: whether an authenticated caller may open a stream, by the token's claims or by an
//! [`Authorizer`].

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::FutureExt;

use super::{AuthError, Principal};
use crate::permission::{Permission, PermissionRule};
use crate::refusal::Refusal;
use crate::telemetry::VerificationFailures;

/// Decides whether an authenticated caller may open a stream, for example by a database. Implement it for
/// rules that a token cannot hold, or use [`authorizer_fn`]. Without one, the token's claims decide:
/// [`Principal::has`].
///
/// # Contract
///
/// * `authorize` is called once for each request to an endpoint that has a token, before limits are checked
///   and before your handler runs. It is also called for endpoints that need only a valid token, since the user
///   may have been deleted.
/// * With [`reauthorize`](crate::SseOptions::reauthorize_interval) it is called again while the stream is open.
/// * It is called from many tasks at the same time.
/// * An error, a panic and a timeout ([`authorizer_timeout`](crate::SseOptions::authorizer_timeout)) refuse the request.
/// * It may be cancelled at any `.await`, since clients disconnect.
/// * Decisions are not cached.
///
/// ```
/// use hero_sse::futures_core::future::BoxFuture;
/// use hero_sse::auth::{Access, AuthError, Authorizer, Decision};
///
/// struct Members(Database);
///
/// impl Authorizer for Members {
///     fn authorize<'a>(
///         &'a self,
///         access: &'a Access<'a>,
///     ) -> BoxFuture<'a, Result<Decision, AuthError>> {
///         Box::pin(async move {
///             let tenant = access.capture("tenant").unwrap_or_default();
///             let roles = self.0.roles(access.principal().subject(), tenant).await;
///             let roles = roles.map_err(AuthError::unavailable)?;
///             Ok(access.decide(|permission| roles.iter().any(|role| role == permission.as_str())))
///         })
///     }
/// }
/// # struct Database;
/// # impl Database {
/// #     async fn roles(&self, _: &str, _: &str) -> Result<Vec<String>, std::fmt::Error> { Ok(vec![]) }
/// # }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about `access`.
    ///
    /// # Errors
    ///
    /// * [`AuthError::Unavailable`] if it cannot decide at the moment. The caller is asked to try again.
    /// * [`AuthError::InvalidToken`] if the token is no longer valid for anything, such as that of a deleted
    ///   user: `401`.
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>>;
}

/// The access that an [`Authorizer`] decides about: caller, endpoint and permissions.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Access<'a> {
    request: &'a AccessRequest,
    recheck: bool,
}

impl<'a> Access<'a> {
    /// Returns the caller.
    pub fn principal(&self) -> &'a Principal {
        &self.request.principal
    }

    /// Returns the rule of the endpoint. An empty [`PermissionRule::All`] means that any valid token is enough.
    pub fn rule(&self) -> &'a PermissionRule {
        &self.request.rule
    }

    /// Returns each permission in the rule once, in the rule's order.
    pub fn permissions(&self) -> Vec<&'a Permission> {
        let mut named = HashSet::new();
        let mut permissions = self.request.rule.permissions();
        permissions.retain(|permission| named.insert(*permission));
        permissions
    }

    /// Returns the declared path of the endpoint, prefix included. `None` in a call of
    /// [`HeroSse::authorize`](crate::HeroSse::authorize).
    pub fn endpoint(&self) -> Option<&'a str> {
        self.request.target.as_ref().map(|target| &*target.endpoint)
    }

    /// Returns the path of the request without query. Inside `Router::nest` it lacks the nest's prefix.
    pub fn path(&self) -> Option<&'a str> {
        self.request.target.as_ref().map(|target| &*target.path)
    }

    /// Returns the decoded value of a capture of the path: `capture("tenant")` for `/audit/{tenant}`.
    ///
    /// `None`: there is no such capture, or nested routers have two of this name.
    pub fn capture(&self, name: &str) -> Option<&'a str> {
        self.request.target.as_ref().and_then(|target| capture(&target.captures, name))
    }

    /// Returns whether the stream is open already and this call decides whether it may stay open.
    pub fn is_recheck(&self) -> bool {
        self.recheck
    }

    /// Decides by the rule, with `held` to tell whether the caller holds a permission.
    ///
    /// `held` is called once for each permission. A rule without permissions is granted. A denial
    /// tells the client what is missing.
    pub fn decide(&self, mut held: impl FnMut(&Permission) -> bool) -> Decision {
        let answers: HashMap<_, _> = self
            .permissions()
            .into_iter()
            .map(|permission| (permission, held(permission)))
            .collect();
        let held = |permission: &Permission| answers.get(permission).copied().unwrap_or(false);
        match self.request.rule.unmet(&held) {
            None => Decision::granted(),
            unmet => Decision(Verdict::Denied { unmet }),
        }
    }
}

/// Omits the captures, which may hold personal data.
impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("principal", self.principal())
            .field("endpoint", &self.endpoint())
            .field("rule", self.rule())
            .field("is_recheck", &self.recheck)
            .finish_non_exhaustive()
    }
}

/// The decision of an [`Authorizer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision(Verdict);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    /// With the missing permissions, if they are known.
    Denied {
        unmet: Option<PermissionRule>,
    },
}

impl Decision {
    /// Grants the access.
    pub const fn granted() -> Self {
        Self(Verdict::Granted)
    }

    /// Denies the access: `403`. [`Access::decide`] also tells the client what is missing.
    pub const fn denied() -> Self {
        Self(Verdict::Denied { unmet: None })
    }

    /// Returns whether the access is granted.
    pub fn is_granted(&self) -> bool {
        self.0 == Verdict::Granted
    }

    fn into_result(self, rule: &PermissionRule) -> Result<(), Refusal> {
        match self.0 {
            Verdict::Granted => Ok(()),
            Verdict::Denied { unmet } => {
                Err(Refusal::insufficient_scope(rule, unmet.as_ref().unwrap_or(rule)))
            }
        }
    }
}

/// Creates an [`Authorizer`] from a closure that returns whether a caller holds a permission.
///
/// The closure is called once for each permission in the endpoint's rule, one after another. It is not called
/// for endpoints that need only a valid token. An error is logged and refuses the request, as
/// [`AuthError::Unavailable`] does.
///
/// ```
/// use hero_sse::{HeroSse, Principal};
/// use hero_sse::auth::{Permission, authorizer_fn};
///
/// # async fn holds(_: &str, _: &str) -> Result<bool, std::fmt::Error> { Ok(true) }
/// let sse = HeroSse::builder()
///     .authorizer(authorizer_fn(|who: Principal, permission: Permission| async move {
///         holds(who.subject(), permission.as_str()).await
///     }))
///     .build()?;
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
pub fn authorizer_fn<F, Fut, E>(holds: F) -> impl Authorizer
where
    F: Fn(Principal, Permission) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<bool, E>> + Send + 'static,
    E: Display + Send,
{
    AuthorizerFn(holds)
}

struct AuthorizerFn<F>(F);

impl<F, Fut, E> Authorizer for AuthorizerFn<F>
where
    F: Fn(Principal, Permission) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<bool, E>> + Send + 'static,
    E: Display + Send,
{
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>> {
        Box::pin(async move {
            let mut held = HashSet::new();
            for permission in access.permissions() {
                let answer = (self.0)(access.principal().clone(), permission.clone()).await;
                if answer.map_err(AuthError::unavailable)? {
                    held.insert(permission);
                }
            }
            Ok(access.decide(|permission| held.contains(permission)))
        })
    }
}

/// A request for access: who, what for, and at which endpoint.
pub(crate) struct AccessRequest {
    pub(crate) principal: Principal,
    pub(crate) rule: PermissionRule,
    /// `None`: in a call of `HeroSse::authorize`.
    pub(crate) target: Option<AccessTarget>,
}

/// The endpoint that access is requested to, and the request's path.
pub(crate) struct AccessTarget {
    pub(crate) endpoint: Arc<str>,
    pub(crate) path: Box<str>,
    pub(crate) captures: Box<[(Box<str>, Box<str>)]>,
}

/// Returns the value of a capture, unless there are two of this name.
pub(crate) fn capture<'a>(captures: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let mut named = captures.iter().filter(|(key, _)| **key == *name);
    let (_, value) = named.next()?;
    named.next().is_none().then_some(value)
}

impl AccessRequest {
    /// Returns the path for the log.
    fn path(&self) -> &str {
        self.target.as_ref().map_or("a route of the application", |target| &target.endpoint)
    }
}

/// Authorizes requests, by claims or with the application's authorizer.
#[derive(Clone)]
pub(crate) struct AccessControl {
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) failures: Arc<VerificationFailures>,
}

impl AccessControl {
    /// Returns whether a decision may change while a stream is open. The claims of a token cannot change.
    pub(crate) fn has_authorizer(&self) -> bool {
        self.authorizer.is_some()
    }

    /// Decides within the timeout.
    pub(crate) async fn check(&self, request: Arc<AccessRequest>) -> Result<(), Refusal> {
        if self.authorizer.is_none() {
            return request.principal.meets(&request.rule);
        }
        let decision = self.decide(request.clone(), false);
        match self.timeout {
            Some(timeout) => {
                let answer = tokio::time::timeout(timeout, decision).await;
                answer.unwrap_or_else(|_| Err(self.timed_out(&request)))
            }
            None => decision.await,
        }
    }

    /// Decides without a timeout, which the caller has to apply. Catches panics.
    pub(crate) fn decide(&self, request: Arc<AccessRequest>, recheck: bool) -> PendingDecision {
        let (authorizer, failures) = (self.authorizer.clone(), self.failures.clone());
        PendingDecision(Some(Box::pin(async move {
            let Some(authorizer) = authorizer else {
                return request.principal.meets(&request.rule);
            };
            let access = Access { request: &request, recheck };
            // Called inside the async block, so that a panic before its first await is caught as well.
            let decided = async { authorizer.authorize(&access).await };
            let why = match AssertUnwindSafe(decided).catch_unwind().await {
                Ok(Ok(decision)) => return decision.into_result(&request.rule),
                Ok(Err(AuthError::InvalidToken(invalid))) => {
                    return Err(Refusal::invalid_token(invalid.reason()));
                }
                Ok(Err(AuthError::Unavailable(why))) => why,
                Err(_) => "it panicked".to_owned(),
            };
            failures.log(request.path(), "authorizer", &why);
            Err(Refusal::unavailable())
        })))
    }

    /// Logs that there was no decision in time, and returns the refusal.
    pub(crate) fn timed_out(&self, request: &AccessRequest) -> Refusal {
        let why = format_args!("no answer within {:?}", self.timeout.unwrap_or_default());
        self.failures.log(request.path(), "authorizer", &why);
        Refusal::unavailable()
    }
}

/// A running call of the authorizer. Dropping it runs user code, too, so that catches panics.
pub(crate) struct PendingDecision(Option<BoxFuture<'static, Result<(), Refusal>>>);

#[cfg(test)]
impl PendingDecision {
    pub(crate) fn new(
        decision: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) -> Self {
        Self(Some(Box::pin(decision)))
    }
}

impl Future for PendingDecision {
    type Output = Result<(), Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // It is not polled after its end. If it were, the access would not be granted.
        let Some(decision) = &mut self.0 else { return Poll::Ready(Err(Refusal::unavailable())) };
        let answer = ready!(decision.as_mut().poll(cx));
        Poll::Ready(answer)
    }
}

impl Drop for PendingDecision {
    fn drop(&mut self) {
        let decision = self.0.take();
        // The panic hook has printed the panic. A decision that was made stays valid.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(decision)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &'static str) -> PermissionRule {
        PermissionRule::One(Permission::from_static(name))
    }

    fn request(rule: PermissionRule) -> AccessRequest {
        AccessRequest { principal: Principal::new("ann"), rule, target: None }
    }

    #[test]
    fn every_combination_of_all_and_any_is_decided_with_one_call_per_permission() {
        use PermissionRule::{All, Any};
        let rule = All(vec![
            one("a"),
            Any(vec![one("b"), All(vec![one("c"), one("a")])]),
            Any(vec![one("c"), one("d")]),
        ]);
        let request = request(rule);
        let access = Access { request: &request, recheck: false };
        let names: Vec<_> =
            access.permissions().iter().map(|permission| permission.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        for held in 0..16u8 {
            let [a, b, c, d] = [1, 2, 4, 8].map(|bit| held & bit != 0);
            let mut asked_for = Vec::new();
            let decision = access.decide(|permission| {
                asked_for.push(permission.as_str().to_owned());
                match permission.as_str() {
                    "a" => a,
                    "b" => b,
                    "c" => c,
                    _ => d,
                }
            });
            assert_eq!(decision.is_granted(), a && (b || c) && (c || d), "{held:04b}");
            assert_eq!(asked_for, ["a", "b", "c", "d"]);
        }
    }

    #[test]
    fn an_empty_all_is_granted_and_an_empty_any_denied() {
        let decide = |rule, held| {
            Access { request: &request(rule), recheck: false }.decide(|_| held).is_granted()
        };
        assert!(decide(PermissionRule::All(vec![]), false));
        assert!(!decide(PermissionRule::Any(vec![]), true));
        assert!(!Decision::denied().is_granted() && Decision::granted().is_granted());
    }
}
