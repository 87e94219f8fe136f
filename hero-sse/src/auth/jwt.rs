//! Authentication by JSON Web Token: finds the issuer, verifies the signature, then reads the claims.
//!
//! The crate `jsonwebtoken` verifies signatures. Before that, nothing in a token is trusted.

use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::claim_path::ClaimPath;
use super::compact::{Compact, MALFORMED};
use super::issuer::{Accepted, Issuer, KeySource};
use super::keys::{SignedMessage, Verification};
use super::{AuthError, Authenticator, Principal};
use crate::secret::Secret;
use crate::setup::SetupError;
use crate::telemetry;

/// Accepts JSON Web Tokens (RFC 7519). Each issuer has its own keys and algorithms.
///
/// | claim | rule |
/// |---|---|
/// | `exp` | required |
/// | `sub` | required, or the claim of [`subject_claim`](Self::subject_claim) |
/// | `iss`, `aud` | required, unless [`any_issuer`](Self::any_issuer) or [`any_audience`](Self::any_audience) is set |
/// | `nbf` | checked if present |
/// | `iat` | must be a time if present, otherwise not used |
/// | `tenant` | a string, becomes the principal's tenant; see [`tenant_claim`](Self::tenant_claim) |
/// | `permissions` | a list of strings, or one string with spaces; see [`permissions_claim`](Self::permissions_claim) |
///
/// ```
/// use hero_sse::JwtAuthenticator;
/// use hero_sse::auth::Algorithm;
///
/// let jwt = JwtAuthenticator::hs256("a secret of at least thirty-two bytes")
///     .issuer("https://id.example.com")
///     .audience("usage");
///
/// let jwt = JwtAuthenticator::jwks_file("/etc/app/keys.json")
///     .algorithms([Algorithm::ES256, Algorithm::EdDSA])
///     .issuer("https://id.example.com")
///     .audience("usage")
///     .token_type("at+jwt")
///     .permissions_claim("scope");
/// ```
///
/// With the feature `jwks-url`, keys can come from the URL where the issuer publishes them:
///
#[cfg_attr(feature = "jwks-url", doc = "```")]
#[cfg_attr(not(feature = "jwks-url"), doc = "```ignore")]
/// use hero_sse::JwtAuthenticator;
///
/// let jwt = JwtAuthenticator::jwks_url("https://id.example.com/.well-known/jwks.json")
///     .issuer("https://id.example.com")
///     .audience("usage");
/// ```
///
/// For several issuers, use [`issuers`](Self::issuers) with one [`Issuer`] each. A setting of the
/// authenticator then applies to all of them.
///
/// [`build`](crate::server::Builder::build) reports mistakes: a secret or key that is too short, a key that does
/// not fit its algorithm, a missing issuer or audience, a crypto backend that does not work.
///
/// Before the signature is verified, the error for the client depends on the form of the token alone. It does
/// not reveal whether an issuer or a key exists, with one exception: while the keys of an issuer cannot be
/// fetched, its callers are asked to try again later.
#[derive(Clone)]
pub struct JwtAuthenticator {
    issuers: Vec<Issuer>,
    /// Whether a constructor other than [`issuers`](Self::issuers) made it: then its one issuer is named afterwards.
    single: bool,
    mistakes: Vec<&'static str>,
}

impl JwtAuthenticator {
    /// Accepts tokens of several issuers. A token is verified with the keys of the issuer that its `iss`
    /// names.
    pub fn issuers(issuers: impl IntoIterator<Item = Issuer>) -> Self {
        install_crypto();
        Self { issuers: issuers.into_iter().collect(), single: false, mistakes: Vec::new() }
    }

    fn single(issuer: Issuer) -> Self {
        Self { single: true, ..Self::issuers([issuer]) }
    }

    /// Accepts tokens signed with HMAC-SHA-256 and this secret, which needs at least 32 bytes.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Self {
        Self::single(Issuer::unnamed().secret(Algorithm::HS256, secret))
    }

    /// Accepts tokens signed with HMAC-SHA-384 and this secret, which needs at least 48 bytes.
    pub fn hs384(secret: impl AsRef<[u8]>) -> Self {
        Self::single(Issuer::unnamed().secret(Algorithm::HS384, secret))
    }

    /// Accepts tokens signed with HMAC-SHA-512 and this secret, which needs at least 64 bytes.
    pub fn hs512(secret: impl AsRef<[u8]>) -> Self {
        Self::single(Issuer::unnamed().secret(Algorithm::HS512, secret))
    }

    /// Accepts tokens of this algorithm, verified with a public key in PEM. See [`Issuer::pem`].
    pub fn pem(algorithm: Algorithm, pem: impl AsRef<str>) -> Self {
        Self::single(Issuer::unnamed().pem(algorithm, pem))
    }

    /// Accepts tokens verified with this JSON Web Key. See [`Issuer::jwk`].
    pub fn jwk(jwk: impl AsRef<str>) -> Self {
        Self::single(Issuer::unnamed().jwk(jwk))
    }

    /// Accepts tokens verified with a key of this JWK Set. See [`Issuer::jwks`].
    pub fn jwks(jwks: impl AsRef<str>) -> Self {
        Self::single(Issuer::unnamed().jwks(jwks))
    }

    /// Accepts tokens verified with a key of the JWK Set in this file, which may change. See
    /// [`Issuer::jwks_file`].
    pub fn jwks_file(path: impl Into<std::path::PathBuf>) -> Self {
        Self::single(Issuer::unnamed().jwks_file(path))
    }

    /// Accepts tokens verified with a key that the issuer publishes at this URL. See [`Issuer::jwks_url`].
    #[cfg(feature = "jwks-url")]
    pub fn jwks_url(url: impl AsRef<str>) -> Self {
        Self::single(Issuer::unnamed().jwks_url(url))
    }

    /// Accepts tokens verified with a key that this closure fetches. See [`Issuer::jwks_from`].
    pub fn jwks_from<F, T, E>(fetch: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        Self::single(Issuer::unnamed().jwks_from(fetch))
    }

    /// Accepts tokens of this issuer (`iss`), in addition to earlier ones.
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        let issuer = issuer.into();
        self.with_single(|single| single.issuer(issuer))
    }

    /// Accepts tokens of any issuer whose signature is valid.
    #[must_use]
    pub fn any_issuer(self) -> Self {
        self.with_single(Issuer::any_issuer)
    }

    /// Accepts tokens for this audience (`aud`), in addition to earlier ones.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.each(|issuer| issuer.audience(audience.clone()))
    }

    /// Accepts tokens for any audience. Then a token for another service works here.
    #[must_use]
    pub fn any_audience(self) -> Self {
        self.each(Issuer::any_audience)
    }

    /// Accepts these algorithms only, whatever the keys allow.
    #[must_use]
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let algorithms: Vec<_> = algorithms.into_iter().collect();
        self.each(|issuer| issuer.algorithms(algorithms.clone()))
    }

    /// Sets how far the clocks of issuer and server may differ. Default: 30 s. Maximum: a day.
    #[must_use]
    pub fn leeway(self, leeway: Duration) -> Self {
        self.each(|issuer| issuer.leeway(leeway))
    }

    /// Accepts tokens with this `typ` only. See [`Issuer::token_type`].
    #[must_use]
    pub fn token_type(self, typ: impl Into<String>) -> Self {
        let typ = typ.into();
        self.each(|issuer| issuer.token_type(typ.clone()))
    }

    /// Sets the claim that holds the permissions. Default: `permissions`. See [`Issuer::permissions_claim`].
    #[must_use]
    pub fn permissions_claim(self, claim: impl Into<ClaimPath>) -> Self {
        self.permissions_claims([claim])
    }

    /// Sets several claims that hold permissions, which add up. See [`Issuer::permissions_claims`].
    #[must_use]
    pub fn permissions_claims<C: Into<ClaimPath>>(
        self,
        claims: impl IntoIterator<Item = C>,
    ) -> Self {
        let claims: Vec<ClaimPath> = claims.into_iter().map(Into::into).collect();
        self.each(|issuer| issuer.permissions_claims(claims.clone()))
    }

    /// Lets a permission in a token end in `*`. See [`Issuer::wildcards`].
    #[must_use]
    pub fn wildcards(self) -> Self {
        self.each(Issuer::wildcards)
    }

    /// Sets the claim that holds the tenant. Default: `tenant`. See [`Issuer::tenant_claim`].
    #[must_use]
    pub fn tenant_claim(self, claim: impl Into<ClaimPath>) -> Self {
        let claim = claim.into();
        self.each(|issuer| issuer.tenant_claim(claim.clone()))
    }

    /// Sets the claim that identifies the caller. Default: `sub`. See [`Issuer::subject_claim`].
    #[must_use]
    pub fn subject_claim(self, claim: impl Into<ClaimPath>) -> Self {
        let claim = claim.into();
        self.each(|issuer| issuer.subject_claim(claim.clone()))
    }

    fn each(mut self, change: impl FnMut(Issuer) -> Issuer) -> Self {
        self.issuers = self.issuers.into_iter().map(change).collect();
        self
    }

    fn with_single(mut self, change: impl FnOnce(Issuer) -> Issuer) -> Self {
        match self.issuers.pop() {
            Some(issuer) if self.single => self.issuers.push(change(issuer)),
            issuer => {
                self.issuers.extend(issuer);
                self.mistakes.push("the several issuers are named one by one: Issuer::new(\"..\")");
            }
        }
        self
    }

    /// Returns the mistakes in the settings. Cheap, since it is also called for each token.
    fn setting_mistakes(&self) -> Vec<String> {
        let mut mistakes: Vec<_> = self.mistakes.iter().map(|text| (*text).to_owned()).collect();
        if self.issuers.is_empty() {
            mistakes.push("there are no issuers, so no token is accepted".to_owned());
        }
        let mut names: Vec<&str> = Vec::new();
        for issuer in &self.issuers {
            mistakes.extend(self.name_issuer(issuer, issuer.setting_mistakes()));
            let Accepted::Only(more) = &issuer.names else { continue };
            for name in more {
                if names.contains(&name.as_str()) {
                    mistakes.push(format!("the issuer \"{name}\" is named twice"));
                }
                names.push(name);
            }
        }
        mistakes
    }

    /// Puts the issuer's name before its mistakes, if there are several issuers.
    fn name_issuer(&self, issuer: &Issuer, mistakes: Vec<String>) -> Vec<String> {
        match &issuer.names {
            Accepted::Only(names) if !self.single => {
                let name = names.join(", ");
                mistakes.into_iter().map(|text| format!("issuer \"{name}\": {text}")).collect()
            }
            _ => mistakes,
        }
    }

    async fn check(&self, token: &str) -> Result<Principal, AuthError> {
        // `build` has reported these, unless an authenticator wraps this one and does not pass them on.
        if !self.setting_mistakes().is_empty() {
            return Err(AuthError::invalid("the server accepts no tokens: it is not set up"));
        }
        let Compact { header, claims, message, signature } = Compact::read(token)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(MALFORMED),
        };
        let (algorithm, key_id) = (text("alg")?.ok_or(MALFORMED)?, text("kid")?);
        let token_type = text("typ")?;
        let Some(algorithm) = Algorithm::by_name(algorithm) else {
            return Err(not_verified("its algorithm is not supported"));
        };
        let signed = SignedMessage { algorithm, key_id, message, signature };
        // Not verified yet: it selects the keys to try, and nothing else.
        let claimed = claims.get("iss").and_then(Value::as_str);
        let issuer = self.issuers.iter().find(|issuer| match (claimed, &issuer.names) {
            (Some(claimed), names) => names.accept(claimed),
            (None, names) => *names == Accepted::Any,
        });
        // The keys of a single issuer are tried whatever `iss` says: then a wrong `iss` gets a precise
        // error, which only a holder of a key can see. Such a token does not start a fetch of keys.
        let (issuer, may_fetch) = match (issuer, &*self.issuers) {
            (Some(issuer), _) => (issuer, true),
            (None, [single]) => (single, false),
            (None, _) => return Err(not_verified("its issuer is not known")),
        };
        match verify(issuer, &signed, may_fetch).await? {
            Verification::Verified => {
                Ok(issuer.principal(claims, token_type, SystemTime::now())?)
            }
            Verification::WrongSignature => {
                Err(not_verified("the key that it names did not sign it"))
            }
            Verification::NoKey => Err(not_verified("no key of its issuer signed it")),
        }
    }
}

/// Logs why a token is not verified. The client gets the same error for every reason.
fn not_verified(why: &'static str) -> AuthError {
    telemetry::token_refused(why);
    AuthError::invalid("the token's signature is not accepted")
}

/// Verifies a signature with the issuer's keys. Fetches newer keys if these lack the one that is needed.
async fn verify(
    issuer: &Issuer,
    signed: &SignedMessage<'_>,
    may_fetch: bool,
) -> Result<Verification, AuthError> {
    let allowed = issuer.algorithms.as_deref();
    let source = match &issuer.keys {
        KeySource::Unset => return Ok(Verification::NoKey),
        KeySource::Fixed(set) => return Ok(set.verify(signed, allowed)),
        KeySource::Refreshed(source) => source,
    };
    let keys = source.cache.keys(source.schedule).await.map_err(AuthError::unavailable)?;
    let found = keys.verify(signed, allowed);
    // No key will ever verify an algorithm that the issuer's list lacks.
    let possible = allowed.is_none_or(|allowed| allowed.contains(&signed.algorithm));
    if found != Verification::NoKey || !may_fetch || !possible {
        return Ok(found);
    }
    let newer = source.cache.newer(&keys, source.schedule).await;
    let newer = newer.map_err(AuthError::unavailable)?;
    Ok(newer.map_or(found, |keys| keys.verify(signed, allowed)))
}

impl Authenticator for JwtAuthenticator {
    fn mistakes(&self) -> Vec<SetupError> {
        let mut mistakes = self.setting_mistakes();
        for issuer in &self.issuers {
            mistakes.extend(self.name_issuer(issuer, issuer.failed_trials()));
        }
        let error = |text| SetupError::auth(format_args!("JwtAuthenticator: {text}"));
        mistakes.into_iter().map(error).collect()
    }

    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(self.check(token.expose()))
    }
}

/// Selects aws-lc-rs for `jsonwebtoken`, which panics when another crate has enabled a second backend and nobody
/// selected one. A provider that the application has installed stays; [`backend_test`](super::backend_test) checks that it works.
pub(super) fn install_crypto() {
    let _ = jsonwebtoken::crypto::CryptoProvider::install_default(
        &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER,
    );
}
