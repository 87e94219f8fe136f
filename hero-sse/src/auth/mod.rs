//! Who is asking: the [`Principal`], and the [`Authenticator`] that makes one of a token.

#[cfg(feature = "jwt")]
pub(crate) mod jwt;
mod principal;
pub(crate) mod token;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use http::request::Parts;

pub use self::principal::Principal;
#[cfg(feature = "testing")]
pub(crate) use self::principal::TestPrincipal;
use self::token::Credential;
use crate::origin::Sites;
use crate::policy::{TokenSource, TokenSources};
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
    /// [`AuthError`]: the token is not accepted, or that cannot be told now.
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>>;
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
    pub(crate) sites: Arc<Sites>,
}

impl Gate {
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
        if !self.sites.answers(parts) {
            return Err(Refusal::forbidden("this host is not served here"));
        }
        let found = token::bearer_token(parts, sources, self.cookie.as_deref())?;
        let Some(Credential { token, source }) = found else { return Ok(None) };
        if source == TokenSource::Cookie {
            self.sites.trust_page(parts).map_err(|foreign| {
                telemetry::foreign_page(parts.uri.path(), foreign.origin, foreign.host);
                Refusal::forbidden(foreign.why)
            })?;
        }
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        // Within the future, so that what it does before its first await is contained as well.
        let checked = async { authenticator.authenticate(&token).await };
        match AssertUnwindSafe(checked).catch_unwind().await {
            Ok(Ok(principal)) => Ok(Some(principal)),
            Ok(Err(AuthError::InvalidToken(invalid))) => {
                Err(Refusal::invalid_token(invalid.reason()))
            }
            Ok(Err(AuthError::Unavailable(why))) => {
                telemetry::unverified(parts.uri.path(), "authenticator", &why);
                Err(Refusal::unavailable())
            }
            Err(_) => {
                telemetry::panicked(parts.uri.path(), "authenticator");
                Err(Refusal::internal())
            }
        }
    }
}
