//! JSON Web Tokens (RFC 7519), checked by the `jsonwebtoken` crate.

use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};

use super::{AuthError, Authenticator, InvalidToken, Principal};
use crate::secret::Secret;

/// HMAC keys shorter than the hash weaken it (RFC 7518, section 3.2).
const MIN_HS256_SECRET: usize = 32;

const MAX_LEEWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Accepts JSON Web Tokens of one algorithm, one key, and the issuers and audiences named here.
///
/// `exp` and `sub` are required, `nbf` is honoured. The claims `tenant` (text) and `permissions`
/// (a list of texts) become the principal's.
///
/// ```
/// use hero_sse::JwtAuthenticator;
///
/// let jwt = JwtAuthenticator::hs256("a secret of at least thirty-two bytes")
///     .issuer("https://id.example.com")
///     .audience("usage");
/// ```
///
/// A secret under 32 bytes, and an issuer or audience that nobody settled, are mistakes which
/// [`build`](crate::Builder::build) reports.
#[derive(Clone)]
pub struct JwtAuthenticator {
    secret: Secret<Vec<u8>>,
    key: DecodingKey,
    validation: Validation,
    issuers: Accepted,
    audiences: Accepted,
    leeway: Duration,
}

#[derive(Clone, PartialEq, Eq)]
enum Accepted {
    Unsettled,
    Any,
    These(Vec<String>),
}

impl Accepted {
    fn add(&mut self, name: String) {
        match self {
            Self::These(names) => names.push(name),
            _ => *self = Self::These(vec![name]),
        }
    }
}

impl JwtAuthenticator {
    /// Tokens signed with HMAC-SHA-256 and this secret, of at least 32 bytes.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Self {
        install_crypto();
        let secret = secret.as_ref();
        let authenticator = Self {
            secret: Secret::new(secret.to_vec()),
            key: DecodingKey::from_secret(secret),
            validation: Validation::new(Algorithm::HS256),
            issuers: Accepted::Unsettled,
            audiences: Accepted::Unsettled,
            leeway: Duration::from_secs(30),
        };
        authenticator.settled()
    }

    /// Accepts tokens of this issuer (`iss`), besides those named before.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuers.add(issuer.into());
        self.settled()
    }

    /// Accepts tokens of whatever issuer, as long as the signature holds.
    #[must_use]
    pub fn any_issuer(mut self) -> Self {
        self.issuers = Accepted::Any;
        self.settled()
    }

    /// Accepts tokens for this audience (`aud`), besides those named before.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.add(audience.into());
        self.settled()
    }

    /// Accepts tokens for whatever audience: then a token meant for another service opens this one.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.audiences = Accepted::Any;
        self.settled()
    }

    /// How far the clocks of issuer and server may differ, in whole seconds, a day at most. Default
    /// 30 s.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(MAX_LEEWAY);
        self.settled()
    }

    /// Brings `validation` in line with the rest.
    fn settled(mut self) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        let mut required = vec!["exp", "sub"];
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = self.audiences != Accepted::Any;
        if let Accepted::These(issuers) = &self.issuers {
            validation.set_issuer(issuers);
            required.push("iss");
        }
        if let Accepted::These(audiences) = &self.audiences {
            validation.set_audience(audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        self.validation = validation;
        self
    }

    fn check(&self, token: &str) -> Result<Principal, InvalidToken> {
        // Told at the start already, unless it is wrapped in another that passes nothing on.
        if !self.faults().is_empty() {
            return Err(InvalidToken::new("the server accepts no tokens: it is not set up"));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|error| InvalidToken::new(reason(error.kind())))?;
        // RFC 7515, section 4.1.11: extensions that are not understood must not be passed over.
        if header.crit.is_some() {
            return Err(InvalidToken::new("the token asks for extensions that are not known"));
        }
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|error| InvalidToken::new(reason(error.kind())))?
            .claims;
        let malformed = InvalidToken::new("the token's claims are malformed");
        let subject = claims.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty());
        let subject = subject.ok_or(malformed)?;
        let mut principal = Principal::new(subject);
        if let Some(tenant) = claims.get("tenant") {
            principal = principal.tenant(tenant.as_str().ok_or(malformed)?);
        }
        if let Some(permissions) = claims.get("permissions") {
            for permission in permissions.as_array().ok_or(malformed)? {
                principal = principal.permission(permission.as_str().ok_or(malformed)?);
            }
        }
        let expiry = claims.get("exp").and_then(Value::as_f64).ok_or(malformed)?;
        // An expiry beyond what the clock can hold is none.
        if let Some(end) = Duration::try_from_secs_f64(expiry)
            .ok()
            .and_then(|expiry| expiry.checked_add(Duration::from_secs(self.leeway.as_secs())))
            .and_then(|expiry| SystemTime::UNIX_EPOCH.checked_add(expiry))
        {
            principal = principal.valid_until(end);
        }
        Ok(principal.claims(claims))
    }

    fn faults(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let length = self.secret.expose().len();
        if length < MIN_HS256_SECRET {
            mistakes.push(format!(
                "JwtAuthenticator: the HS256 secret has {length} bytes; give it at least \
                 {MIN_HS256_SECRET}, from a random generator"
            ));
        }
        if self.issuers == Accepted::Unsettled {
            mistakes.push(
                "JwtAuthenticator: no issuer; add .issuer(\"..\"), or .any_issuer() to accept all"
                    .to_owned(),
            );
        }
        if self.audiences == Accepted::Unsettled {
            mistakes.push(
                "JwtAuthenticator: no audience; add .audience(\"..\"), or .any_audience() to \
                 accept all"
                    .to_owned(),
            );
        }
        mistakes
    }

    /// Signs and reads back a token: without a crypto backend `jsonwebtoken` panics at the first
    /// one, which must not be a visitor's.
    fn prove(&self) -> Option<String> {
        let proof = std::panic::catch_unwind(|| {
            let key = EncodingKey::from_secret(b"a proof that signing works at all");
            let claims = serde_json::json!({});
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).is_ok()
        });
        (proof.ok() != Some(true)).then(|| {
            "JwtAuthenticator: no crypto backend; enable the feature `jwt-aws-lc-rs` (default) or \
             `jwt-rust-crypto` of hero-sse"
                .to_owned()
        })
    }
}

impl Authenticator for JwtAuthenticator {
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = self.faults();
        mistakes.extend(self.prove());
        mistakes
    }

    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(std::future::ready(self.check(token.expose()).map_err(AuthError::from)))
    }
}

/// Both backends may be compiled in, through features that other crates enabled: then
/// `jsonwebtoken` wants to be told which.
fn install_crypto() {
    #[cfg(feature = "jwt-aws-lc-rs")]
    let _ = jsonwebtoken::crypto::CryptoProvider::install_default(
        &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER,
    );
    #[cfg(all(feature = "jwt-rust-crypto", not(feature = "jwt-aws-lc-rs")))]
    let _ = jsonwebtoken::crypto::CryptoProvider::install_default(
        &jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER,
    );
}

const fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token comes from another issuer",
        ErrorKind::InvalidAudience => "the token is meant for another audience",
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => {
            "the token's signature is not accepted"
        }
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a required claim",
        _ => "the token is malformed",
    }
}
