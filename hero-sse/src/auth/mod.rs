//! Authentication and authorization: the [`Authenticator`] turns a token into a [`Principal`], the
//! [`Authorizer`] decides what that principal may open.
//!
//! | to do this | use |
//! |---|---|
//! | accept JSON Web Tokens | [`JwtAuthenticator`], with an `Issuer` each for several issuers (feature `jwt`) |
//! | accept other tokens, such as session ids | [`authenticator_fn`], or an [`Authenticator`] of your own |
//! | let the token's claims decide | a [`PermissionRule`] at the endpoint; nothing else is needed |
//! | let a database decide | [`authorizer_fn`], or an [`Authorizer`] of your own |
//! | authenticate an `EventSource`, which cannot send headers | [`Tickets`] |

#[cfg(feature = "jwt")]
mod algorithm;
mod attempts;
mod authorizer;
#[cfg(feature = "jwt")]
mod backend_test;
#[cfg(feature = "jwt")]
mod claim_path;
#[cfg(feature = "jwt")]
mod claims;
#[cfg(feature = "jwt")]
mod compact;
mod gate;
#[cfg(feature = "jwt")]
mod issuer;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(feature = "jwks-url")]
mod jwks_url;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(feature = "jwt")]
mod keys;
mod principal;
#[cfg(feature = "jwt")]
mod public_key;
mod site_policy;
mod ticket;
mod ticket_memory;
mod token;

use std::fmt;

use futures_core::future::BoxFuture;

#[cfg(feature = "jwt")]
pub use self::algorithm::Algorithm;
pub(crate) use self::attempts::Attempts;
pub use self::authorizer::{Access, Authorizer, Decision, authorizer_fn};
pub(crate) use self::authorizer::{
    AccessControl, AccessRequest, AccessTarget, PendingDecision, capture,
};
#[cfg(feature = "jwt")]
pub use self::claim_path::ClaimPath;
pub(crate) use self::gate::{CallerResolved, Gate, StreamCaller};
#[cfg(feature = "jwt")]
pub use self::issuer::Issuer;
#[cfg(feature = "jwt")]
pub use self::jwt::JwtAuthenticator;
pub use self::principal::Principal;
#[cfg(feature = "testing")]
pub(crate) use self::principal::TestPrincipal;
pub(crate) use self::site_policy::{OverTls, SitePolicy};
pub(crate) use self::ticket::CheckedAt;
pub use self::ticket::{TicketGrant, TicketStore, Tickets};
pub use crate::permission::{IntoPermission, InvalidPermission, Permission, PermissionRule};
pub use crate::secret::Secret;
use crate::setup::SetupError;

/// Turns a token into a [`Principal`], or refuses it. Implement it for tokens that are not JSON Web
/// Tokens, or use [`authenticator_fn`].
///
/// # Contract
///
/// * `authenticate` is called once for each request that has a token, before your handler runs.
/// * It is called from many tasks at the same time.
/// * It may be cancelled at any `.await`, since clients disconnect.
/// * Every error refuses the request, and so does a panic.
///
/// ```
/// use hero_sse::Principal;
/// use hero_sse::auth::{AuthError, Authenticator, Secret};
/// use hero_sse::futures_core::future::BoxFuture;
///
/// struct Sessions(Database);
///
/// impl Authenticator for Sessions {
///     fn authenticate<'a>(&'a self, token: &'a Secret<String>) -> BoxFuture<'a, Result<Principal, AuthError>> {
///         Box::pin(async move {
///             let user = self.0.user_of(token.expose()).await.map_err(AuthError::unavailable)?;
///             user.map(Principal::new).ok_or(AuthError::invalid("the session has expired"))
///         })
///     }
/// }
/// # struct Database;
/// # impl Database {
/// #     async fn user_of(&self, _: &str) -> Result<Option<String>, std::fmt::Error> { Ok(None) }
/// # }
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// Returns the mistakes in its settings, which [`build`](crate::server::Builder::build) reports. Default:
    /// none.
    ///
    /// An authenticator that wraps another must pass on the mistakes of that one.
    ///
    /// ```
    /// # use hero_sse::Principal;
    /// # use hero_sse::auth::{AuthError, Authenticator, Secret};
    /// # use hero_sse::futures_core::future::BoxFuture;
    /// use hero_sse::options::SetupError;
    ///
    /// struct Sessions { url: String }
    ///
    /// impl Authenticator for Sessions {
    ///     fn mistakes(&self) -> Vec<SetupError> {
    ///         match self.url.starts_with("redis://") {
    ///             true => Vec::new(),
    ///             false => vec![SetupError::auth("Sessions: the URL must begin with `redis://`")],
    ///         }
    ///     }
    /// #   fn authenticate<'a>(&'a self, _: &'a Secret<String>) -> BoxFuture<'a, Result<Principal, AuthError>> {
    /// #       Box::pin(async { Err(AuthError::invalid("the session has expired")) })
    /// #   }
    ///     // ..
    /// }
    /// # let sessions = Sessions { url: String::new() };
    /// # let errors = hero_sse::HeroSse::builder().authenticator(sessions).build().unwrap_err();
    /// # assert!(errors.to_string().contains("must begin with"));
    /// ```
    fn mistakes(&self) -> Vec<SetupError> {
        Vec::new()
    }

    /// Returns the caller who holds `token`.
    ///
    /// # Errors
    ///
    /// * [`AuthError::InvalidToken`] if the token is not accepted: `401`.
    /// * [`AuthError::Unavailable`] if it cannot be verified at the moment. The caller is asked to try again.
    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>>;
}

/// Creates an [`Authenticator`] from a closure, for tokens that are not JSON Web Tokens, such as session
/// ids.
///
/// ```
/// use hero_sse::{HeroSse, Principal};
/// use hero_sse::auth::{AuthError, Secret, authenticator_fn};
///
/// # async fn user_of(_: &str) -> Result<Option<String>, std::fmt::Error> { Ok(None) }
/// let sse = HeroSse::builder()
///     .authenticator(authenticator_fn(|session: Secret<String>| async move {
///         let user = user_of(session.expose()).await.map_err(AuthError::unavailable)?;
///         user.map(Principal::new).ok_or(AuthError::invalid("the session has expired"))
///     }))
///     .build()?;
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
pub fn authenticator_fn<F, Fut>(authenticate: F) -> impl Authenticator
where
    F: Fn(Secret<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Principal, AuthError>> + Send + 'static,
{
    AuthenticatorFn(authenticate)
}

struct AuthenticatorFn<F>(F);

impl<F, Fut> Authenticator for AuthenticatorFn<F>
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

/// Why a caller is not authenticated or authorized.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The token is not accepted: `401`.
    InvalidToken(InvalidToken),
    /// The caller cannot be verified at the moment, for example because a database does not answer.
    ///
    /// The request is refused, and the client is asked to try again. The text is logged, so it must not hold
    /// the token. The client does not receive it.
    Unavailable(String),
}

impl AuthError {
    /// Creates an [`InvalidToken`](Self::InvalidToken). The client receives `reason`; see [`InvalidToken::new`].
    pub const fn invalid(reason: &'static str) -> Self {
        Self::InvalidToken(InvalidToken::new(reason))
    }

    /// Creates an [`Unavailable`](Self::Unavailable). `why` is logged.
    ///
    /// ```
    /// use hero_sse::auth::AuthError;
    ///
    /// # fn user_of(_: &str) -> Result<String, std::io::Error> { Ok("ann".to_owned()) }
    /// fn find(session: &str) -> Result<String, AuthError> {
    ///     user_of(session).map_err(AuthError::unavailable)
    /// }
    /// # assert!(find("s").is_ok());
    /// ```
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
            Self::Unavailable(why) => {
                write!(f, "the caller cannot be verified at the moment: {why}")
            }
        }
    }
}

impl std::error::Error for AuthError {}

/// Why a token is not accepted. The client receives the reason, in the body and in `WWW-Authenticate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken(&'static str);

impl InvalidToken {
    /// Creates an error with a reason for the client, such as `"the session has expired"`.
    ///
    /// `WWW-Authenticate` cannot hold quotes, backslashes and characters outside ASCII (RFC 6750, section 3). A
    /// reason with one of these is sent in the body only.
    pub const fn new(reason: &'static str) -> Self {
        Self(reason)
    }

    /// Returns the reason.
    pub const fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidToken {}
