//! JSON Web Tokens (RFC 7519): which issuer, which key, what its claims say. The `jsonwebtoken` crate
//! checks signatures; nothing else of a token is believed before that.

use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use serde_json::{Map, Value};

use super::compact::{Compact, MALFORMED};
#[cfg(doc)]
use super::issuer::ClaimPath;
use super::issuer::{Accepted, ClaimPath as Path, Issuer, Keys};
use super::keys::{Algorithm, Found, Signature};
use super::{AuthError, Authenticator, InvalidToken, Principal};
use crate::secret::Secret;
use crate::telemetry;

/// Accepts JSON Web Tokens, each checked with its issuer's own keys and algorithms.
///
/// `exp` and `sub` are required, `nbf` is honoured; `iat` must be a time and says nothing more. The
/// claims `tenant` (a text) and `permissions` (a list of texts, or one text with spaces) become the
/// principal's, or those named by [`tenant_claim`](Self::tenant_claim) and
/// [`permissions_claim`](Self::permissions_claim).
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
/// The keys that an issuer publishes, with the feature `jwks-url`:
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
/// Several issuers are several [`Issuer`]s: [`issuers`](Self::issuers). A setting made here holds for
/// each of them.
///
/// Mistakes are told by [`build`](crate::server::Builder::build): a secret or a key that is too short, a key
/// that does not fit its algorithm, an issuer or audience that nobody settled, a crypto backend that
/// does not check signatures. What a client is told of its token before the signature held depends on
/// the token's form alone: nothing in it tells whether an issuer or a key exists. Only while an issuer's keys
/// cannot be had is there a difference: who needs them is asked to come back.
#[derive(Clone)]
pub struct JwtAuthenticator {
    issuers: Vec<Issuer>,
    /// Whether it was made of one issuer's keys, and its names come afterwards.
    sole: bool,
    mistakes: Vec<&'static str>,
}

impl JwtAuthenticator {
    /// Tokens of several issuers. A token's `iss` says whose keys check it, and no others.
    pub fn issuers(issuers: impl IntoIterator<Item = Issuer>) -> Self {
        install_crypto();
        Self { issuers: issuers.into_iter().collect(), sole: false, mistakes: Vec::new() }
    }

    fn sole(issuer: Issuer) -> Self {
        Self { sole: true, ..Self::issuers([issuer]) }
    }

    /// Tokens signed with HMAC-SHA-256 and this secret, of at least 32 bytes.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Self {
        Self::sole(Issuer::unnamed().secret(Algorithm::HS256, secret))
    }

    /// Tokens signed with HMAC-SHA-384 and this secret, of at least 48 bytes.
    pub fn hs384(secret: impl AsRef<[u8]>) -> Self {
        Self::sole(Issuer::unnamed().secret(Algorithm::HS384, secret))
    }

    /// Tokens signed with HMAC-SHA-512 and this secret, of at least 64 bytes.
    pub fn hs512(secret: impl AsRef<[u8]>) -> Self {
        Self::sole(Issuer::unnamed().secret(Algorithm::HS512, secret))
    }

    /// Tokens of this algorithm and public key; see [`Issuer::pem`].
    pub fn pem(algorithm: Algorithm, pem: impl AsRef<str>) -> Self {
        Self::sole(Issuer::unnamed().pem(algorithm, pem))
    }

    /// Tokens signed with the key of this JSON Web Key; see [`Issuer::jwk`].
    pub fn jwk(jwk: impl AsRef<str>) -> Self {
        Self::sole(Issuer::unnamed().jwk(jwk))
    }

    /// Tokens signed with a key of this JWK Set; see [`Issuer::jwks`].
    pub fn jwks(jwks: impl AsRef<str>) -> Self {
        Self::sole(Issuer::unnamed().jwks(jwks))
    }

    /// Tokens signed with a key of the JWK Set in this file, which may change; see
    /// [`Issuer::jwks_file`].
    pub fn jwks_file(path: impl Into<std::path::PathBuf>) -> Self {
        Self::sole(Issuer::unnamed().jwks_file(path))
    }

    /// Tokens signed with a key that the issuer publishes at this URL; see [`Issuer::jwks_url`].
    #[cfg(feature = "jwks-url")]
    pub fn jwks_url(url: impl AsRef<str>) -> Self {
        Self::sole(Issuer::unnamed().jwks_url(url))
    }

    /// Tokens signed with a key that this closure fetches; see [`Issuer::jwks_from`].
    pub fn jwks_from<F, T, E>(fetch: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        Self::sole(Issuer::unnamed().jwks_from(fetch))
    }

    /// Accepts tokens of this issuer (`iss`), besides those named before.
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        let issuer = issuer.into();
        self.of_the_sole(|sole| sole.issuer(issuer))
    }

    /// Accepts tokens of whatever issuer, as long as the signature holds.
    #[must_use]
    pub fn any_issuer(self) -> Self {
        self.of_the_sole(Issuer::any_issuer)
    }

    /// Accepts tokens for this audience (`aud`), besides those named before.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.each(|issuer| issuer.audience(audience.clone()))
    }

    /// Accepts tokens for whatever audience: then a token meant for another service opens this one.
    #[must_use]
    pub fn any_audience(self) -> Self {
        self.each(Issuer::any_audience)
    }

    /// Only these algorithms, whatever a key allows.
    #[must_use]
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let algorithms: Vec<_> = algorithms.into_iter().collect();
        self.each(|issuer| issuer.algorithms(algorithms.clone()))
    }

    /// How far the clocks of issuer and server may differ, a day at most. Default 30 s.
    #[must_use]
    pub fn leeway(self, leeway: Duration) -> Self {
        self.each(|issuer| issuer.leeway(leeway))
    }

    /// Only tokens of this `typ`; see [`Issuer::token_type`].
    #[must_use]
    pub fn token_type(self, typ: impl Into<String>) -> Self {
        let typ = typ.into();
        self.each(|issuer| issuer.token_type(typ.clone()))
    }

    /// The claim that holds the permissions; see [`Issuer::permissions_claim`] and [`ClaimPath`].
    #[must_use]
    pub fn permissions_claim(self, claim: impl Into<Path>) -> Self {
        self.permissions_claims([claim])
    }

    /// As [`permissions_claim`](Self::permissions_claim), from several claims together.
    #[must_use]
    pub fn permissions_claims<C: Into<Path>>(self, claims: impl IntoIterator<Item = C>) -> Self {
        let claims: Vec<Path> = claims.into_iter().map(Into::into).collect();
        self.each(|issuer| issuer.permissions_claims(claims.clone()))
    }

    /// A permission in a token may end in `*`; see [`Issuer::wildcards`].
    #[must_use]
    pub fn wildcards(self) -> Self {
        self.each(Issuer::wildcards)
    }

    /// The claim that holds the tenant; see [`Issuer::tenant_claim`].
    #[must_use]
    pub fn tenant_claim(self, claim: impl Into<Path>) -> Self {
        let claim = claim.into();
        self.each(|issuer| issuer.tenant_claim(claim.clone()))
    }

    /// The claim that says who it is; see [`Issuer::subject_claim`].
    #[must_use]
    pub fn subject_claim(self, claim: impl Into<Path>) -> Self {
        let claim = claim.into();
        self.each(|issuer| issuer.subject_claim(claim.clone()))
    }

    fn each(mut self, change: impl FnMut(Issuer) -> Issuer) -> Self {
        self.issuers = self.issuers.into_iter().map(change).collect();
        self
    }

    fn of_the_sole(mut self, change: impl FnOnce(Issuer) -> Issuer) -> Self {
        match self.issuers.pop() {
            Some(issuer) if self.sole => self.issuers.push(change(issuer)),
            issuer => {
                self.issuers.extend(issuer);
                self.mistakes
                    .push("the names of several issuers are given to each: Issuer::new(\"..\")");
            }
        }
        self
    }

    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<_> = self.mistakes.iter().map(|fault| (*fault).to_owned()).collect();
        if self.issuers.is_empty() {
            faults.push("there are no issuers: then no token is accepted".to_owned());
        }
        let mut names: Vec<&str> = Vec::new();
        for issuer in &self.issuers {
            faults.extend(self.naming(issuer, issuer.faults()));
            let Accepted::These(more) = &issuer.names else { continue };
            for name in more {
                if names.contains(&name.as_str()) {
                    faults.push(format!("the issuer \"{name}\" is named twice"));
                }
                names.push(name);
            }
        }
        faults
    }

    /// Says which issuer is meant, where there are several.
    fn naming(&self, issuer: &Issuer, faults: Vec<String>) -> Vec<String> {
        match &issuer.names {
            Accepted::These(names) if !self.sole => {
                let name = names.join(", ");
                faults.into_iter().map(|fault| format!("issuer \"{name}\": {fault}")).collect()
            }
            _ => faults,
        }
    }

    async fn check(&self, token: &str) -> Result<Principal, AuthError> {
        // Told at the start already, unless it is wrapped in another that passes nothing on.
        if !self.faults().is_empty() {
            return Err(AuthError::invalid("the server accepts no tokens: it is not set up"));
        }
        let Compact { header, claims, message, signature } = Compact::read(token)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(MALFORMED),
        };
        let (algorithm, key, typ) = (text("alg")?.ok_or(MALFORMED)?, text("kid")?, text("typ")?);
        let Some(algorithm) = Algorithm::named(algorithm) else {
            return Err(unsigned("its algorithm is not known"));
        };
        let signed = Signature { algorithm, key, message, signature };
        // Nobody has vouched for it yet: it says whose keys to try, and nothing else.
        let hint = claims.get("iss").and_then(Value::as_str);
        let issuer = self.issuers.iter().find(|issuer| match (hint, &issuer.names) {
            (Some(hint), names) => names.takes(hint),
            (None, names) => *names == Accepted::Any,
        });
        // With one issuer its keys can be tried, so that a slip in `iss` can be told to who has a key;
        // it is not asked for others.
        let (issuer, may_ask) = match (issuer, &*self.issuers) {
            (Some(issuer), _) => (issuer, true),
            (None, [sole]) => (sole, false),
            (None, _) => return Err(unsigned("its issuer is not known")),
        };
        match find(issuer, &signed, may_ask).await? {
            Found::Signed => Ok(issuer.principal(claims, typ, SystemTime::now())?),
            Found::Forged => Err(unsigned("the key that it names did not sign it")),
            Found::Unknown => Err(unsigned("no key of its issuer signed it")),
        }
    }
}

/// Before a signature holds the client is told no more; the log knows why.
fn unsigned(why: &'static str) -> AuthError {
    telemetry::token_refused(why);
    AuthError::invalid("the token's signature is not accepted")
}

/// Looks for the key that signed a token, among newer ones too.
async fn find(issuer: &Issuer, signed: &Signature<'_>, may_ask: bool) -> Result<Found, AuthError> {
    let allowed = issuer.algorithms.as_deref();
    let changing = match &issuer.keys {
        Keys::None => return Ok(Found::Unknown),
        Keys::Given(set) => return Ok(set.find(signed, allowed)),
        Keys::Changing(changing) => changing,
    };
    let keys = changing.cache.keys(changing.pace).await.map_err(AuthError::unavailable)?;
    let found = keys.find(signed, allowed);
    // What the issuer is not pinned to no key of it will ever do.
    let published = allowed.is_none_or(|allowed| allowed.contains(&signed.algorithm));
    if found != Found::Unknown || !may_ask || !published {
        return Ok(found);
    }
    let newer = changing.cache.newer(&keys, changing.pace).await;
    let newer = newer.map_err(AuthError::unavailable)?;
    Ok(newer.map_or(found, |keys| keys.find(signed, allowed)))
}

const LACKING: InvalidToken = InvalidToken::new("the token lacks a required claim");
const CLAIMS: InvalidToken = InvalidToken::new("the token's claims are malformed");

/// The last second of the year 9999. What is beyond it is a slip of units.
const LAST_SECOND: f64 = 253_402_300_799.0;

impl Issuer {
    /// Whom a token names whose signature held.
    fn principal(
        &self,
        claims: Map<String, Value>,
        typ: Option<&str>,
        now: SystemTime,
    ) -> Result<Principal, InvalidToken> {
        if let Some(expected) = &self.token_type
            && typ.is_none_or(|typ| !bare(typ).eq_ignore_ascii_case(bare(expected)))
        {
            return Err(InvalidToken::new("the token is of another type"));
        }
        let valid_until = self.in_time(&claims, now)?;
        let issuer = match claims.get("iss") {
            Some(Value::String(issuer)) if self.names.takes(issuer) => Some(issuer.clone()),
            Some(Value::String(_)) => {
                return Err(InvalidToken::new("the token comes from another issuer"));
            }
            Some(_) => return Err(CLAIMS),
            None if self.names == Accepted::Any => None,
            None => return Err(LACKING),
        };
        let audiences = match claims.get("aud") {
            None if self.audiences == Accepted::Any => vec![],
            None => return Err(LACKING),
            Some(claim) => texts(claim).ok_or(CLAIMS)?,
        };
        if self.audiences != Accepted::Any
            && !audiences.iter().any(|audience| self.audiences.takes(audience))
        {
            return Err(InvalidToken::new("the token is meant for another audience"));
        }
        let subject = one_text(&self.subject, &claims)?.ok_or(LACKING)?;
        let mut principal = Principal::new(subject).valid_until(valid_until);
        if let Some(issuer) = issuer {
            principal = principal.issued_by(issuer);
        }
        if let Some(tenant) = one_text(&self.tenant, &claims)? {
            principal = principal.with_tenant(tenant);
        }
        for claim in self.permissions.iter().filter_map(|path| path.of(&claims)) {
            let permissions = match claim {
                Value::String(scope) => scope.split(' ').collect(),
                claim => texts(claim).ok_or(CLAIMS)?,
            };
            for permission in permissions.into_iter().filter(|permission| !permission.is_empty()) {
                principal = principal.permission(permission);
            }
        }
        if self.wildcards {
            principal = principal.with_wildcards();
        }
        Ok(principal.claims(claims))
    }

    /// Until when it is accepted.
    fn in_time(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<SystemTime, InvalidToken> {
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(claim) => {
                let seconds =
                    claim.as_f64().filter(|seconds| (0.0..=LAST_SECOND).contains(seconds));
                let time = seconds
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
                time.map(Some).ok_or(CLAIMS)
            }
        };
        let (expiry, not_before, _) = (time("exp")?.ok_or(LACKING)?, time("nbf")?, time("iat")?);
        let valid_until = expiry.checked_add(self.leeway).ok_or(CLAIMS)?;
        if valid_until <= now {
            return Err(InvalidToken::new("the token has expired"));
        }
        if not_before.is_some_and(|from| from > now + self.leeway) {
            return Err(InvalidToken::new("the token is not valid yet"));
        }
        Ok(valid_until)
    }
}

/// A media type without the `application/` that may be left out (RFC 7515, section 4.1.9).
fn bare(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => typ,
    }
}

/// A claim that is a text, if it is there.
fn one_text<'a>(
    path: &Path,
    claims: &'a Map<String, Value>,
) -> Result<Option<&'a str>, InvalidToken> {
    match path.of(claims) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(CLAIMS),
    }
}

/// One text, or a list of nothing else.
fn texts(claim: &Value) -> Option<Vec<&str>> {
    match claim {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

impl Authenticator for JwtAuthenticator {
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = self.faults();
        for issuer in &self.issuers {
            mistakes.extend(self.naming(issuer, issuer.trials()));
        }
        for mistake in &mut mistakes {
            mistake.insert_str(0, "JwtAuthenticator: ");
        }
        mistakes
    }

    fn authenticate<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(self.check(token.expose()))
    }
}

/// Selects aws-lc-rs for `jsonwebtoken`, which panics when another crate has enabled a second backend and nobody
/// selected one. A provider that the application has installed stays; `issuer` tests that it works.
pub(super) fn install_crypto() {
    let _ = jsonwebtoken::crypto::CryptoProvider::install_default(
        &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER,
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 2_000_000_000;

    fn claims(change: impl FnOnce(&mut Value)) -> Value {
        let mut claims = json!({ "sub": "ann", "iss": "id", "aud": "usage", "exp": NOW + 60 });
        change(&mut claims);
        claims
    }

    fn read(issuer: &Issuer, claims: Value, typ: Option<&str>) -> Result<Principal, &'static str> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let Value::Object(claims) = claims else { panic!("claims are a map") };
        issuer.principal(claims, typ, now).map_err(InvalidToken::reason)
    }

    fn issuer() -> Issuer {
        Issuer::new("id").audience("usage")
    }

    #[test]
    fn times_are_times_and_the_leeway_is_for_both_ends() {
        let expired = Err("the token has expired");
        let malformed = Err("the token's claims are malformed");
        let early = Err("the token is not valid yet");
        for (name, value, expected) in [
            ("exp", json!(NOW - 29), Ok(())),
            ("exp", json!(NOW - 30), expired),
            ("exp", json!(NOW as f64 - 29.5), Ok(())),
            ("exp", json!(0), expired),
            ("exp", json!(-1), malformed),
            ("exp", json!(1e300), malformed),
            ("exp", json!(NOW * 1000), malformed),
            ("exp", json!(u64::MAX), malformed),
            ("exp", json!(NOW.to_string()), malformed),
            ("exp", json!([NOW + 60]), malformed),
            ("exp", json!(true), malformed),
            ("exp", Value::Null, malformed),
            ("nbf", json!(NOW + 30), Ok(())),
            ("nbf", json!(NOW + 31), early),
            ("nbf", json!("now"), malformed),
            ("nbf", json!(-1), malformed),
            ("iat", json!(NOW + 3600), Ok(())),
            ("iat", json!("now"), malformed),
        ] {
            let read = read(&issuer(), claims(|claims| claims[name] = value.clone()), None);
            assert_eq!(read.map(drop), expected, "{name} {value}");
        }
        let none = json!({ "sub": "ann", "iss": "id", "aud": "usage" });
        assert_eq!(read(&issuer(), none, None).err(), Some("the token lacks a required claim"));
        let end = read(&issuer(), claims(|_| ()), None).expect("a principal").expires_at();
        assert_eq!(end, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 90)));
    }

    #[test]
    fn issuer_audience_subject_and_type_are_what_was_asked_for() {
        let other = |what: &'static str| move |claims: &mut Value| claims[what] = json!("other");
        let told = |claims| read(&issuer(), claims, None).err();
        assert_eq!(told(claims(other("iss"))), Some("the token comes from another issuer"));
        assert_eq!(told(claims(other("aud"))), Some("the token is meant for another audience"));
        assert_eq!(told(claims(|c| c["aud"] = json!(["other", "usage"]))), None);
        let malformed = Some("the token's claims are malformed");
        for (name, value) in [
            ("aud", json!(["usage", 7])),
            ("aud", json!({ "usage": true })),
            ("iss", json!(["id"])),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", Value::Null),
            ("tenant", json!("")),
            ("tenant", json!(["t1"])),
            ("permissions", json!(7)),
            ("permissions", json!(["a", 7])),
        ] {
            assert_eq!(told(claims(|c| c[name] = value.clone())), malformed, "{name} {value}");
        }
        for name in ["iss", "aud", "sub"] {
            let without = claims(|c| drop(c.as_object_mut().expect("a map").remove(name)));
            assert_eq!(told(without), Some("the token lacks a required claim"), "{name}");
        }
        let typed = issuer().token_type("at+jwt");
        for (typ, accepted) in [
            (Some("at+jwt"), true),
            (Some("AT+JWT"), true),
            (Some("application/at+jwt"), true),
            (Some("Application/AT+jwt"), true),
            (Some("JWT"), false),
            (Some("at+jwt "), false),
            (Some(""), false),
            (None, false),
        ] {
            let read = read(&typed, claims(|_| ()), typ);
            let expected = (!accepted).then_some("the token is of another type");
            assert_eq!(read.err(), expected, "{typ:?}");
        }
        assert!(read(&issuer(), claims(|_| ()), Some("whatever")).is_ok());
    }

    #[test]
    fn permissions_tenant_and_subject_come_from_the_claims_that_hold_them() {
        let all = claims(|claims| {
            claims["permissions"] = json!(["own", "own.*"]);
            claims["scope"] = json!("one  two");
            claims["realm_access"] = json!({ "roles": ["role"] });
            claims["org"] = json!({ "id": "t1" });
            claims["oid"] = json!("bob");
            claims["tenant"] = json!("t0");
        });
        let who = read(&issuer(), all.clone(), None).expect("a principal");
        assert_eq!((who.subject(), who.tenant(), who.issuer()), ("ann", Some("t0"), Some("id")));
        assert!(who.has("own") && who.has("own.*"));
        assert!(!who.has("one") && !who.has("role") && !who.has("own.more") && !who.has(""));
        let set = issuer()
            .permissions_claims(["scope", "realm_access.roles", "not.there"])
            .tenant_claim("org.id")
            .subject_claim("oid");
        let who = read(&set, all.clone(), None).expect("a principal");
        assert_eq!((who.subject(), who.tenant()), ("bob", Some("t1")));
        assert!(who.has("one") && who.has("two") && who.has("role") && !who.has("own"));
        let wild = read(&issuer().wildcards(), all, None).expect("a principal");
        assert!(wild.has("own.more") && !wild.has("other"));
    }
}
