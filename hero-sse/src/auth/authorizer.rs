//! Who may have what: the [`Authorizer`] decides, by the token's claims or by the application's database.

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

/// Decides whether a caller whose token was accepted may have a stream. Without one the token's claims
/// decide: [`Principal::has`].
///
/// # Contract
///
/// `authorize` is called once for each request to an endpoint that carries a token, from many tasks at a
/// time, before a place is taken and before the endpoint's function runs; also where a valid token is all
/// that is asked for, since the user may be gone. Under [`reauthorize`](crate::SseOptions::reauthorize_interval) it is called again while
/// a stream is open. Nothing of its answer is kept beyond that stream and that interval.
///
/// Whatever goes wrong is a no: an error, a panic, and no answer within
/// [`authorizer_timeout`](crate::SseOptions::authorizer_timeout). It may be dropped at any await point,
/// since clients leave.
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
    /// Whether `access` is granted.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unavailable`] where that cannot be told now: the caller is refused and asked to come
    /// back. [`AuthError::InvalidToken`] where the token is good for nothing any more, such as that of a
    /// user who is gone: `401`.
    fn authorize<'a>(
        &'a self,
        access: &'a Access<'a>,
    ) -> BoxFuture<'a, Result<Decision, AuthError>>;
}

/// What an [`Authorizer`] decides about.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Access<'a> {
    asked: &'a AccessRequest,
    again: bool,
}

impl<'a> Access<'a> {
    /// Who asks.
    pub fn principal(&self) -> &'a Principal {
        &self.asked.principal
    }

    /// What is asked for. [`PermissionRule::All`] of none is any valid token.
    pub fn rule(&self) -> &'a PermissionRule {
        &self.asked.rule
    }

    /// Each permission that the rule names, once, in its order.
    pub fn permissions(&self) -> Vec<&'a Permission> {
        let mut named = HashSet::new();
        let mut permissions = self.asked.rule.permissions();
        permissions.retain(|permission| named.insert(*permission));
        permissions
    }

    /// The endpoint's path as declared, prefix included; `None` on a route of the application's own
    /// ([`HeroSse::authorize`](crate::HeroSse::authorize)).
    pub fn endpoint(&self) -> Option<&'a str> {
        self.asked.target.as_ref().map(|target| &*target.endpoint)
    }

    /// The path of the request, without its query; within `Router::nest`, what the nested router sees.
    pub fn path(&self) -> Option<&'a str> {
        self.asked.target.as_ref().map(|target| &*target.path)
    }

    /// What a capture of the path holds, decoded: `capture("tenant")` for `/audit/{tenant}`. `None` also
    /// where a router that is nested in another has the name twice.
    pub fn capture(&self, name: &str) -> Option<&'a str> {
        self.asked.target.as_ref().and_then(|target| capture(&target.captures, name))
    }

    /// Whether the stream is open already, and this is a look at whether it may stay.
    pub fn is_recheck(&self) -> bool {
        self.again
    }

    /// The decision for a caller who holds the permissions that `held` says, `all` and `any` weighed. A
    /// rule that names none is met.
    pub fn decide(&self, mut held: impl FnMut(&Permission) -> bool) -> Decision {
        let answers: HashMap<_, _> =
            self.permissions().into_iter().map(|asked| (asked, held(asked))).collect();
        let held = |asked: &Permission| answers.get(asked).copied().unwrap_or(false);
        match self.asked.rule.unmet(&held) {
            None => Decision::granted(),
            unmet => Decision(Verdict::Denied { unmet }),
        }
    }
}

/// Whom and for what, without the captures: they may hold personal data.
impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("principal", self.principal())
            .field("endpoint", &self.endpoint())
            .field("rule", self.rule())
            .field("is_recheck", &self.again)
            .finish_non_exhaustive()
    }
}

/// What an [`Authorizer`] has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision(Verdict);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    /// With what is missing, where that is known.
    Denied {
        unmet: Option<PermissionRule>,
    },
}

impl Decision {
    /// Yes.
    pub const fn granted() -> Self {
        Self(Verdict::Granted)
    }

    /// No: `403`. [`Access::decide`] also tells the client what is missing.
    pub const fn denied() -> Self {
        Self(Verdict::Denied { unmet: None })
    }

    /// Whether it is a yes.
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

/// An [`Authorizer`] of a closure that says whether a caller holds one permission. It is asked for each
/// permission that the rule names, once and one after another; where a valid token is enough it is not asked.
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
///
/// An error is logged, and denied as [`AuthError::Unavailable`] is.
pub fn authorizer_fn<F, Fut, E>(holds: F) -> impl Authorizer
where
    F: Fn(Principal, Permission) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<bool, E>> + Send + 'static,
    E: Display + Send,
{
    OneByOne(holds)
}

struct OneByOne<F>(F);

impl<F, Fut, E> Authorizer for OneByOne<F>
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

/// Who asks for what, and where.
pub(crate) struct AccessRequest {
    pub(crate) principal: Principal,
    pub(crate) rule: PermissionRule,
    /// `None` on a route of the application's own.
    pub(crate) target: Option<AccessTarget>,
}

/// An endpoint, and what was asked of it.
pub(crate) struct AccessTarget {
    pub(crate) endpoint: Arc<str>,
    pub(crate) path: Box<str>,
    pub(crate) captures: Box<[(Box<str>, Box<str>)]>,
}

/// What a capture holds; of two with this name nobody can say which is meant.
pub(crate) fn capture<'a>(captures: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let mut named = captures.iter().filter(|(key, _)| **key == *name);
    let (_, value) = named.next()?;
    named.next().is_none().then_some(value)
}

impl AccessRequest {
    /// As the log has it.
    fn path(&self) -> &str {
        self.target.as_ref().map_or("a route of the application's own", |target| &target.endpoint)
    }
}

/// How a kit decides: by claims, or by asking the application.
#[derive(Clone)]
pub(crate) struct AccessControl {
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) failures: Arc<VerificationFailures>,
}

impl AccessControl {
    /// Whether somebody may change their mind: the claims of a token never do.
    pub(crate) fn has_authorizer(&self) -> bool {
        self.authorizer.is_some()
    }

    /// Decides, within the time-out.
    pub(crate) async fn check(&self, asked: Arc<AccessRequest>) -> Result<(), Refusal> {
        if self.authorizer.is_none() {
            return asked.principal.meets(&asked.rule);
        }
        let asking = self.decide(asked.clone(), false);
        match self.timeout {
            Some(timeout) => {
                let answer = tokio::time::timeout(timeout, asking).await;
                answer.unwrap_or_else(|_| Err(self.timed_out(&asked)))
            }
            None => asking.await,
        }
    }

    /// Decides, under guard but without end: whoever polls it knows the time.
    pub(crate) fn decide(&self, asked: Arc<AccessRequest>, again: bool) -> PendingDecision {
        let (authorizer, failures) = (self.authorizer.clone(), self.failures.clone());
        PendingDecision(Some(Box::pin(async move {
            let Some(authorizer) = authorizer else { return asked.principal.meets(&asked.rule) };
            let access = Access { asked: &asked, again };
            // Within the future, so that what it does before its first await is contained as well.
            let decided = async { authorizer.authorize(&access).await };
            let why = match AssertUnwindSafe(decided).catch_unwind().await {
                Ok(Ok(decision)) => return decision.into_result(&asked.rule),
                Ok(Err(AuthError::InvalidToken(invalid))) => {
                    return Err(Refusal::invalid_token(invalid.reason()));
                }
                Ok(Err(AuthError::Unavailable(why))) => why,
                Err(_) => "it panicked".to_owned(),
            };
            failures.log(asked.path(), "authorizer", &why);
            Err(Refusal::unavailable())
        })))
    }

    /// There was no answer in time.
    pub(crate) fn timed_out(&self, asked: &AccessRequest) -> Refusal {
        let why = format_args!("no answer within {:?}", self.timeout.unwrap_or_default());
        self.failures.log(asked.path(), "authorizer", &why);
        Refusal::unavailable()
    }
}

/// An authorizer at work. Its drop is the application's code as well.
pub(crate) struct PendingDecision(Option<BoxFuture<'static, Result<(), Refusal>>>);

#[cfg(test)]
impl PendingDecision {
    pub(crate) fn new(asking: impl Future<Output = Result<(), Refusal>> + Send + 'static) -> Self {
        Self(Some(Box::pin(asking)))
    }
}

impl Future for PendingDecision {
    type Output = Result<(), Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Not polled again after its end; if it is, nobody said yes.
        let Some(asking) = &mut self.0 else { return Poll::Ready(Err(Refusal::unavailable())) };
        let answer = ready!(asking.as_mut().poll(cx));
        Poll::Ready(answer)
    }
}

impl Drop for PendingDecision {
    fn drop(&mut self) {
        let asking = self.0.take();
        // What it panics with has been printed; the answer, if there is one, stands.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(asking)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &'static str) -> PermissionRule {
        PermissionRule::One(Permission::from_static(name))
    }

    fn asked(rule: PermissionRule) -> AccessRequest {
        AccessRequest { principal: Principal::new("ann"), rule, target: None }
    }

    #[test]
    fn every_combination_of_all_and_any_is_weighed_and_each_permission_asked_for_once() {
        use PermissionRule::{All, Any};
        let rule = All(vec![
            one("a"),
            Any(vec![one("b"), All(vec![one("c"), one("a")])]),
            Any(vec![one("c"), one("d")]),
        ]);
        let asked = asked(rule);
        let access = Access { asked: &asked, again: false };
        let names: Vec<_> = access.permissions().iter().map(|asked| asked.as_str()).collect();
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
    fn an_empty_all_is_met_and_an_empty_any_never() {
        let decide =
            |rule, held| Access { asked: &asked(rule), again: false }.decide(|_| held).is_granted();
        assert!(decide(PermissionRule::All(vec![]), false));
        assert!(!decide(PermissionRule::Any(vec![]), true));
        assert!(!Decision::denied().is_granted() && Decision::granted().is_granted());
    }
}
