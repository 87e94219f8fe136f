//! Who is asking: the [`Principal`], and the [`Authenticator`] that makes one of a token.

mod attempts;
mod authorizer;
#[cfg(feature = "jwt")]
mod compact;
#[cfg(feature = "jwt")]
pub(crate) mod issuer;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(feature = "jwt")]
pub(crate) mod jwt;
#[cfg(feature = "jwt")]
pub(crate) mod keys;
mod principal;
#[cfg(feature = "jwt")]
mod proof;
pub(crate) mod ticket;
pub(crate) mod token;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use http::request::Parts;

pub(crate) use self::attempts::Attempts;
pub use self::authorizer::{Access, Authorizer, Decision, authorizer_fn};
pub(crate) use self::authorizer::{
    AccessControl, AccessRequest, AccessTarget, PendingDecision, capture,
};
#[cfg(feature = "jwt")]
pub use self::issuer::{ClaimPath, Issuer};
#[cfg(feature = "jwt")]
pub use self::jwt::JwtAuthenticator;
#[cfg(feature = "jwt")]
pub use self::keys::Algorithm;
pub(crate) use self::principal::CallerResolved;
pub use self::principal::Principal;
#[cfg(feature = "testing")]
pub(crate) use self::principal::TestPrincipal;
pub(crate) use self::ticket::CheckedAt;
pub use self::ticket::{TicketGrant, TicketStore, Tickets};
use self::token::Credential;
use crate::origin::SitePolicy;
pub use crate::permission::{IntoPermission, InvalidPermission, Permission, PermissionRule};
use crate::policy::{TokenSource, TokenSources};
use crate::redact::QueryTokens;
use crate::refusal::Refusal;
pub use crate::secret::Secret;
use crate::telemetry::{self, VerificationFailures};

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
    /// [`AuthError`]: the token is not accepted, or that cannot be told now.
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>>;
}

/// An [`Authenticator`] of a closure, for tokens that are no JWT, such as keys of a session store:
///
/// ```
/// use hero_sse::{HeroSse, Principal};
/// use hero_sse::auth::{AuthError, Secret, authenticator_fn};
///
/// # async fn user_of(_: &str) -> Result<Option<String>, std::fmt::Error> { Ok(None) }
/// let sse = HeroSse::builder()
///     .authenticator(authenticator_fn(|session: Secret<String>| async move {
///         let user = user_of(session.expose()).await.map_err(AuthError::unavailable)?;
///         user.map(Principal::new).ok_or(AuthError::invalid("the session is over"))
///     }))
///     .build()?;
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
pub fn authenticator_fn<F, Fut>(who: F) -> impl Authenticator
where
    F: Fn(Secret<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Principal, AuthError>> + Send + 'static,
{
    ByClosure(who)
}

struct ByClosure<F>(F);

impl<F, Fut> Authenticator for ByClosure<F>
where
    F: Fn(Secret<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Principal, AuthError>> + Send + 'static,
{
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin((self.0)(token.clone()))
    }
}

/// Why there is no [`Principal`] for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The token is not accepted: `401`.
    InvalidToken(InvalidToken),
    /// Whether it is good cannot be told now, such as while the issuer of keys does not answer. The
    /// text goes to the log, so keep the token out of it; the client is refused all the same, and asked to come back.
    Unavailable(String),
}

impl AuthError {
    /// The token is not accepted, for this reason; see [`InvalidToken::new`].
    pub const fn invalid(reason: &'static str) -> Self {
        Self::InvalidToken(InvalidToken::new(reason))
    }

    /// Whether the token is good cannot be told now; `why` goes to the log.
    pub fn unavailable(why: impl fmt::Display) -> Self {
        Self::Unavailable(why.to_string())
    }
}

impl From<InvalidToken> for AuthError {
    fn from(invalid: InvalidToken) -> Self {
        Self::InvalidToken(invalid)
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidToken(invalid) => invalid.fmt(f),
            Self::Unavailable(why) => write!(f, "cannot be told now: {why}"),
        }
    }
}

impl std::error::Error for AuthError {}

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
    /// Where tokens may stand on routes that are no endpoints.
    pub(crate) sources: TokenSources,
    /// The cookie that holds them.
    pub(crate) cookie: Option<Arc<str>>,
    pub(crate) site_policy: Arc<SitePolicy>,
    pub(crate) tickets: Option<Arc<Tickets>>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) failures: Arc<VerificationFailures>,
    /// Which kit it is, among those that share tickets.
    pub(crate) instance: u64,
}

impl Gate {
    /// Who wants a stream: by a ticket, where the kit has tickets, or by a token; and how many
    /// disconnects there were when the token was looked at, `so_far` where that is now.
    pub(crate) async fn caller(
        &self,
        parts: &Parts,
        sources: TokenSources,
        so_far: u64,
    ) -> Result<(Option<Principal>, u64), Refusal> {
        let Some((tickets, mut found)) = self.ticket(parts) else {
            return Ok((self.principal(parts, sources).await?, so_far));
        };
        self.serves(parts)?;
        let (Some(ticket), true) = (found.pop(), found.is_empty()) else {
            return Err(Refusal::invalid_request("the parameter ticket is repeated"));
        };
        // Not the cookie: a browser sends that with everything.
        let sent = TokenSources::of(&[TokenSource::Header, TokenSource::Query]);
        if !matches!(token::bearer_token(parts, sent, None), Ok(None)) {
            return Err(Refusal::invalid_request("a ticket came with another credential"));
        }
        // It tells nothing, and spends nothing: whatever previews a link must not use it up.
        if parts.method == http::Method::HEAD {
            return Err(Refusal::invalid_request("a ticket is for one GET"));
        }
        let redeemed = async { tickets.redeem(parts, &ticket).await };
        let (principal, looked_at) = self.look(parts, "ticket store", redeemed).await?;
        let here = looked_at.instance == self.instance;
        Ok((Some(principal), if here { looked_at.disconnects } else { so_far }))
    }

    /// Whether the request comes by a ticket, so that the same one cannot open its stream again.
    pub(crate) fn by_ticket(&self, parts: &Parts) -> bool {
        self.ticket(parts).is_some()
    }

    /// The tickets of a request, an empty parameter being none.
    fn ticket(&self, parts: &Parts) -> Option<(&Tickets, Vec<Secret<String>>)> {
        let tickets = self.tickets.as_deref()?;
        // Whoever can send a body can send a header.
        if parts.method != http::Method::GET && parts.method != http::Method::HEAD {
            return None;
        }
        let mut found = QueryTokens::of(parts).tickets;
        found.retain(|ticket| !ticket.expose().is_empty());
        (!found.is_empty()).then_some((tickets, found))
    }

    /// Who sent this request: `None` when it carries no token.
    pub(crate) async fn principal(
        &self,
        parts: &Parts,
        sources: TokenSources,
    ) -> Result<Option<Principal>, Refusal> {
        #[cfg(feature = "testing")]
        if let Some(test) = parts.extensions.get::<TestPrincipal>() {
            return Ok(Some(test.0.clone()));
        }
        self.serves(parts)?;
        let found = match token::bearer_token(parts, sources, self.cookie.as_deref()) {
            Ok(found) => found,
            Err(refusal) => {
                self.attempts.check(parts)?;
                return Err(self.counted(parts, refusal));
            }
        };
        let Some(Credential { token, source }) = found else { return Ok(None) };
        if source == TokenSource::Cookie {
            self.site_policy.check_cookie_origin(parts).map_err(|foreign| {
                telemetry::foreign_page(parts.uri.path(), foreign.origin, foreign.host);
                Refusal::forbidden(foreign.why)
            })?;
        }
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let checked = async { authenticator.authenticate(&token).await };
        self.look(parts, "authenticator", checked).await.map(Some)
    }

    /// Whether the host that the request asks for is one of ours.
    fn serves(&self, parts: &Parts) -> Result<(), Refusal> {
        match self.site_policy.serves_host_of(parts) {
            true => Ok(()),
            false => Err(Refusal::forbidden("this host is not served here")),
        }
    }

    /// Has a credential looked at, unless too many from that address were not accepted.
    async fn look<T>(
        &self,
        parts: &Parts,
        who: &'static str,
        // Lazy, so that what it does before its first await is contained as well.
        looking: impl Future<Output = Result<T, AuthError>>,
    ) -> Result<T, Refusal> {
        self.attempts.check(parts)?;
        match AssertUnwindSafe(looking).catch_unwind().await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(AuthError::InvalidToken(invalid))) => {
                Err(self.counted(parts, Refusal::invalid_token(invalid.reason())))
            }
            Ok(Err(AuthError::Unavailable(why))) => {
                self.failures.log(parts.uri.path(), who, &why);
                Err(Refusal::unavailable())
            }
            Err(_) => {
                telemetry::panicked(parts.uri.path(), who);
                Err(Refusal::internal())
            }
        }
    }

    /// Counts a credential that was not accepted; one that was malformed is no guess.
    fn counted(&self, parts: &Parts, refusal: Refusal) -> Refusal {
        if refusal.status() == http::StatusCode::UNAUTHORIZED {
            self.attempts.failed(parts);
        }
        refusal
    }
}
