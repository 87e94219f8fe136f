//! Who signs tokens, with which keys and algorithms, for whom, and what its claims mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

#[cfg(feature = "jwks-url")]
use super::jwks::Location;
use super::jwks::{self, KeyCache, Pace};
use super::keys::{Algorithm, Key, KeySet, Unusable};
use super::proof;

const MAX_LEEWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An issuer of tokens, pinned to its own keys, algorithms and audiences. Several of them make a
/// [`JwtAuthenticator`](crate::JwtAuthenticator::issuers).
///
/// ```
/// use hero_sse::JwtAuthenticator;
/// use hero_sse::auth::{Algorithm, Issuer};
///
/// # let pem = "";
/// let jwt = JwtAuthenticator::issuers([
///     Issuer::new("https://id.example.com")
///         .jwks_file("/etc/app/keys.json")
///         .algorithms([Algorithm::ES256])
///         .audience("usage")
///         .permissions_claim("realm_access.roles"),
///     Issuer::new("https://partner.example.org").pem(Algorithm::RS256, pem).audience("usage"),
/// ]);
/// ```
#[derive(Clone)]
pub struct Issuer {
    pub(super) names: Accepted,
    pub(super) audiences: Accepted,
    pub(super) algorithms: Option<Vec<Algorithm>>,
    pub(super) keys: Keys,
    pub(super) leeway: Duration,
    pub(super) token_type: Option<String>,
    pub(super) subject: ClaimPath,
    pub(super) tenant: ClaimPath,
    pub(super) permissions: Vec<ClaimPath>,
    pub(super) wildcards: bool,
    mistakes: Vec<String>,
}

/// Names that are accepted.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Accepted {
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

    pub(super) fn takes(&self, name: &str) -> bool {
        match self {
            Self::Unsettled => false,
            Self::Any => true,
            Self::These(names) => names.iter().any(|known| known == name),
        }
    }
}

/// Where the keys are.
#[derive(Clone)]
pub(super) enum Keys {
    None,
    Given(Arc<KeySet>),
    Changing(Changing),
}

#[derive(Clone)]
pub(super) struct Changing {
    pub(super) cache: Arc<KeyCache>,
    pub(super) pace: Pace,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Own,
    File(PathBuf),
    #[cfg(feature = "jwks-url")]
    Url {
        location: Location,
        allow_http: bool,
    },
}

impl Issuer {
    /// Tokens whose `iss` is this, to the letter.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self::unnamed().issuer(issuer)
    }

    pub(super) fn unnamed() -> Self {
        Self {
            names: Accepted::Unsettled,
            audiences: Accepted::Unsettled,
            algorithms: None,
            keys: Keys::None,
            leeway: Duration::from_secs(30),
            token_type: None,
            subject: "sub".into(),
            tenant: "tenant".into(),
            permissions: vec!["permissions".into()],
            wildcards: false,
            mistakes: Vec::new(),
        }
    }

    /// A secret that is shared with the issuer, for `HS256`, `HS384` or `HS512`: of at least 32, 48 or
    /// 64 bytes. Given again, by [`pem`](Self::pem) or [`jwk`](Self::jwk), keys add up, so that old
    /// and new ones can overlap.
    #[must_use]
    pub fn secret(self, algorithm: Algorithm, secret: impl AsRef<[u8]>) -> Self {
        let key = Key::secret(algorithm, secret.as_ref());
        self.given(key.map(|key| vec![key]))
    }

    /// A public key in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`), for this algorithm alone. RSA keys need
    /// 2048 bits at least.
    #[must_use]
    pub fn pem(self, algorithm: Algorithm, pem: impl AsRef<str>) -> Self {
        let key = Key::pem(algorithm, pem.as_ref());
        self.given(key.map(|key| vec![key]))
    }

    /// A JSON Web Key (RFC 7517) as JSON. Its `alg` is honoured; a symmetric one must have it.
    #[must_use]
    pub fn jwk(self, jwk: impl AsRef<str>) -> Self {
        let key = match serde_json::from_str::<Value>(jwk.as_ref()) {
            Ok(jwk) => Key::jwk(&jwk, true).map_err(|unusable| match unusable {
                Unusable::Bad(why) => why,
                Unusable::Foreign => {
                    "the JWK is not for checking signatures, or its `kty`, `crv` or \
                                      `alg` is not known here"
                        .to_owned()
                }
            }),
            Err(error) => Err(format!("the JWK is not JSON: {error}")),
        };
        self.given(key.map(|key| vec![key]))
    }

    /// The keys of a JWK Set (RFC 7517, section 5), as JSON, which do not change.
    ///
    /// Keys for other uses or of unknown kinds are passed over. A key that names its `alg` is for that
    /// alone; another is for those of [`algorithms`](Self::algorithms) that fit it, or, where none are
    /// named, for RS256, ES256, ES384 or EdDSA, as its kind is. Symmetric keys, private ones, and RSA
    /// keys under 2048 bits are mistakes here; in a set that changes they are left out, and the log
    /// tells of it. A token is checked with the key of its `kid`; without one with each key that fits,
    /// four at most.
    #[must_use]
    pub fn jwks(self, jwks: impl AsRef<str>) -> Self {
        let keys = KeySet::jwks(jwks.as_ref()).and_then(|set| match set.bad.into_iter().next() {
            Some(why) => Err(why),
            None if set.keys.is_empty() => Err("no key of it can check a signature".to_owned()),
            None => Ok(set.keys),
        });
        self.given(keys.map_err(|why| format!("the JWK Set: {why}")))
    }

    /// The keys of a JWK Set in a file, which must be there when the kit is built. It is read again
    /// when a token comes and the last look is 5 s ago, or 1 s where the token names an unknown key.
    /// A file that cannot be used changes nothing, for a day; the log tells of it.
    #[must_use]
    pub fn jwks_file(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let cache = KeyCache::new(path.display().to_string(), jwks::from_file(path.clone()));
        self.changing(Changing { cache, pace: Pace::FILE, source: Source::File(path) })
    }

    /// The keys that the issuer publishes at this URL, as a JWK Set. `https` only, but for addresses
    /// of this machine; redirects are not followed; at most 256 KiB within 5 s. Which keys are used is
    /// told at [`jwks`](Self::jwks).
    ///
    /// The first token has them fetched. After 10 min they are fetched anew, while the old ones serve;
    /// a token with an unknown key has them fetched at once, but no more often than every 30 s
    /// ([`refresh_every`](Self::refresh_every)). Whoever needs them waits for one fetch, which goes on
    /// when its client leaves. While the issuer is down the keys that were there serve on, for a day
    /// at most: somebody who keeps the issuer from answering must not keep a withdrawn key alive. Who
    /// cannot be verified meanwhile is asked to come back, never let in.
    #[cfg(feature = "jwks-url")]
    #[must_use]
    pub fn jwks_url(self, url: impl AsRef<str>) -> Self {
        match Location::new(url.as_ref()) {
            Ok(location) => {
                let cache = KeyCache::new(location.name(), location.fetch());
                let source = Source::Url { location, allow_http: false };
                self.changing(Changing { cache, pace: Pace::URL, source })
            }
            Err(why) => self.wrong(why),
        }
    }

    /// Lets [`jwks_url`](Self::jwks_url) use `http` to another machine: then whoever is on the way can
    /// put in keys of its own, and sign tokens with them.
    #[cfg(feature = "jwks-url")]
    #[must_use]
    pub fn allow_http(mut self) -> Self {
        if let Keys::Changing(Changing { source: Source::Url { allow_http, .. }, .. }) =
            &mut self.keys
        {
            *allow_http = true;
        }
        self
    }

    /// The keys of a JWK Set that a closure fetches; it is called as `jwks_url` asks an issuer: for the first
    /// token, every 10 min, and for unknown keys ([`refresh_every`](Self::refresh_every)). It runs in a task of its own, and is given up after 5 s. An error goes to the
    /// log, so keep credentials out of it.
    ///
    /// ```
    /// use hero_sse::auth::Issuer;
    ///
    /// # async fn read_from_vault() -> std::io::Result<String> { Ok(String::new()) }
    /// let issuer = Issuer::new("https://id.example.com").jwks_from(|| async { read_from_vault().await });
    /// ```
    #[must_use]
    pub fn jwks_from<F, T, E>(self, fetch: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let name = match &self.names {
            Accepted::These(names) => names.join(", "),
            _ => "the issuer".to_owned(),
        };
        let cache = KeyCache::new(name, jwks::by(fetch));
        self.changing(Changing { cache, pace: Pace::URL, source: Source::Own })
    }

    /// When keys are fetched anew: after `age`, default 10 min, and, for tokens with unknown keys, at
    /// least `on_demand` apart, default 30 s. A second is the shortest. To be called after
    /// [`jwks_from`](Self::jwks_from) and its like.
    #[must_use]
    pub fn refresh_every(mut self, age: Duration, on_demand: Duration) -> Self {
        match &mut self.keys {
            Keys::Changing(Changing { pace, .. }) => {
                let shortest = Duration::from_secs(1);
                (pace.refresh, pace.on_demand) = (age.max(shortest), on_demand.max(shortest));
                self
            }
            _ => self.wrong("`.refresh_every(..)` is for keys that change; name them first"),
        }
    }

    /// Only these algorithms, whatever a key allows.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = Some(algorithms.into_iter().collect());
        self
    }

    /// Also tokens whose `iss` is this.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.names.add(issuer.into());
        self
    }

    pub(super) fn any_issuer(mut self) -> Self {
        self.names = Accepted::Any;
        self
    }

    /// Tokens for this audience (`aud`), besides those named before.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.add(audience.into());
        self
    }

    /// Tokens for whatever audience: then a token meant for another service opens this one.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.audiences = Accepted::Any;
        self
    }

    /// How far the clocks of issuer and server may differ, a day at most. Default 30 s.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(MAX_LEEWAY);
        self
    }

    /// Only tokens of this `typ`, such as `at+jwt` (RFC 9068): then an ID token is no access token.
    /// Upper and lower case, and `application/` before it, are the same. Default: any.
    #[must_use]
    pub fn token_type(mut self, typ: impl Into<String>) -> Self {
        self.token_type = Some(typ.into());
        self
    }

    /// The claim that holds the permissions: a list of texts, or one text with spaces between them,
    /// as `scope` is. Default `permissions`. See [`ClaimPath`] for claims inside others.
    #[must_use]
    pub fn permissions_claim(self, claim: impl Into<ClaimPath>) -> Self {
        self.permissions_claims([claim])
    }

    /// As [`permissions_claim`](Self::permissions_claim), from several claims together.
    #[must_use]
    pub fn permissions_claims<C: Into<ClaimPath>>(
        mut self,
        claims: impl IntoIterator<Item = C>,
    ) -> Self {
        self.permissions = claims.into_iter().map(Into::into).collect();
        self
    }

    /// A permission in a token may end in `*`, which stands for one or more whole segments between `.`
    /// or `:`: `usage.*` holds `usage.read` and `usage.read.all`, not `usage`, and a lone `*` holds
    /// everything. Without this, a `*` is a letter.
    #[must_use]
    pub fn wildcards(mut self) -> Self {
        self.wildcards = true;
        self
    }

    /// The claim that holds the tenant, a text; without it a caller has none. Default `tenant`.
    #[must_use]
    pub fn tenant_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.tenant = claim.into();
        self
    }

    /// The claim that says who it is, a text, which every token must have. Default `sub`.
    #[must_use]
    pub fn subject_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.subject = claim.into();
        self
    }

    fn given(mut self, keys: Result<Vec<Key>, String>) -> Self {
        match (keys, &mut self.keys) {
            (Err(why), _) => return self.wrong(why),
            (Ok(_), Keys::Changing(_)) => return self.wrong(TWO_SOURCES),
            (Ok(keys), Keys::Given(set)) => Arc::make_mut(set).keys.extend(keys),
            (Ok(keys), none) => *none = Keys::Given(Arc::new(KeySet { keys, bad: Vec::new() })),
        }
        self
    }

    fn changing(mut self, changing: Changing) -> Self {
        match self.keys {
            Keys::None => {
                self.keys = Keys::Changing(changing);
                self
            }
            _ => self.wrong(TWO_SOURCES),
        }
    }

    fn wrong(mut self, why: impl Into<String>) -> Self {
        self.mistakes.push(why.into());
        self
    }

    /// What is wrong with what was written, cheap enough to ask for each token.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = self.mistakes.clone();
        let mut wrong = |fault: &str| faults.push(fault.to_owned());
        match &self.names {
            Accepted::Unsettled => {
                wrong("no issuer; add .issuer(\"..\"), or .any_issuer() to accept all");
            }
            Accepted::These(names) if names.iter().any(String::is_empty) => {
                wrong("the issuer's name is empty");
            }
            _ => {}
        }
        if self.audiences == Accepted::Unsettled {
            wrong("no audience; add .audience(\"..\"), or .any_audience() to accept all");
        }
        if self.permissions.is_empty() {
            wrong("no claim holds the permissions; name one by .permissions_claim(\"..\")");
        }
        match &self.keys {
            Keys::None if self.mistakes.is_empty() => {
                wrong(
                    "no keys; add .pem(..), .secret(..), .jwks_file(..) or another source of them",
                );
            }
            #[cfg(feature = "jwks-url")]
            Keys::Changing(Changing {
                source: Source::Url { location, allow_http: false },
                ..
            }) if location.is_open_to_others() => {
                wrong(
                    "the URL of the keys is `http`: whoever is on the way could put in keys of its \
                     own; use `https`, or say .allow_http()",
                );
            }
            _ => {}
        }
        if let Some(algorithms) = &self.algorithms {
            if algorithms.is_empty() {
                wrong("the list of algorithms is empty: then no token is accepted");
            }
            for algorithm in algorithms {
                let name = algorithm.name();
                let fits = |key: &Key| key.fits(*algorithm, Some(algorithms));
                match &self.keys {
                    Keys::Given(set) if !set.keys.iter().any(fits) => {
                        faults.push(format!("no key fits the algorithm {name}"));
                    }
                    Keys::Changing(_) if algorithm.kind() == super::keys::Kind::Secret => {
                        faults.push(format!(
                            "{name} checks with a secret, and a published key is none"
                        ));
                    }
                    _ => {}
                }
            }
        }
        faults
    }

    /// What turns out when it is tried, when the kit is built.
    pub(super) fn trials(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| self.uses(*algorithm)) {
            if !proof::works(algorithm) {
                faults.push(format!(
                    "the crypto backend of `jsonwebtoken` cannot verify {}; if the application installs a \
                     `CryptoProvider`, install `jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER`",
                    algorithm.name()
                ));
            }
        }
        let Keys::Changing(Changing { source, .. }) = &self.keys else { return faults };
        match source {
            Source::Own => {}
            Source::File(path) => {
                let name = path.display();
                match jwks::read_file(path).and_then(|text| KeySet::jwks(&text)) {
                    Err(why) => faults.push(format!("the keys in {name}: {why}")),
                    Ok(set) if set.keys.is_empty() => {
                        let why = set.bad.first().map_or("it has none", String::as_str);
                        faults
                            .push(format!("the keys in {name}: none can check a signature: {why}"));
                    }
                    Ok(_) => {}
                }
            }
            #[cfg(feature = "jwks-url")]
            Source::Url { location, .. } => {
                faults.extend(
                    location.client().err().map(|why| {
                        format!("the keys at {}: no HTTPS client: {why}", location.name())
                    }),
                );
            }
        }
        faults
    }

    /// Whether a token of this algorithm may ever be accepted.
    fn uses(&self, algorithm: Algorithm) -> bool {
        let allowed = self.algorithms.as_deref();
        match &self.keys {
            Keys::None => false,
            Keys::Given(set) => set.keys.iter().any(|key| key.fits(algorithm, allowed)),
            Keys::Changing(_) => {
                let published = algorithm.kind() != super::keys::Kind::Secret;
                published && allowed.is_none_or(|allowed| allowed.contains(&algorithm))
            }
        }
    }
}

const TWO_SOURCES: &str =
    "keys that are given and keys that change, or two sources of them; an issuer has one source";

/// Where a claim stands: a name, or a path through objects.
///
/// A text is first taken as the name itself, so `https://example.com/roles` works; where no claim has
/// that name and it holds dots, they lead into objects: `realm_access.roles`. A list is a path, each
/// of its parts a whole name: `["resource_access", "my.app", "roles"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    name: Option<String>,
    path: Vec<String>,
}

impl From<&str> for ClaimPath {
    fn from(name: &str) -> Self {
        let path = name.split('.').map(str::to_owned).collect();
        Self { name: Some(name.to_owned()), path }
    }
}

impl From<String> for ClaimPath {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl<const N: usize> From<[&str; N]> for ClaimPath {
    fn from(path: [&str; N]) -> Self {
        Self { name: None, path: path.map(str::to_owned).into() }
    }
}

impl ClaimPath {
    pub(super) fn of<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(claim) = self.name.as_ref().and_then(|name| claims.get(name)) {
            return Some(claim);
        }
        let (first, rest) = self.path.split_first()?;
        rest.iter().try_fold(claims.get(first)?, |claim, name| claim.get(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_or_its_path() {
        let claims = json!({
            "scope": "a",
            "https://example.com/roles": "b",
            "realm_access": { "roles": "c" },
            "resource_access": { "my.app": { "roles": "d" } },
            "org.id": "e",
            "org": { "id": "f", "name": "g" },
        });
        let claims = claims.as_object().expect("a map");
        let at = |path: ClaimPath| path.of(claims).and_then(Value::as_str);
        assert_eq!(at("scope".into()), Some("a"));
        assert_eq!(at("https://example.com/roles".into()), Some("b"));
        assert_eq!(at("realm_access.roles".into()), Some("c"));
        assert_eq!(at(["resource_access", "my.app", "roles"].into()), Some("d"));
        assert_eq!(at("org.id".into()), Some("e"), "the name comes before the path");
        assert_eq!(at(["org", "id"].into()), Some("f"));
        assert_eq!(at("org.name".to_owned().into()), Some("g"));
        for path in ["", "none", "scope.a", "org", "realm_access.roles.c", "realm_access."] {
            assert_eq!(at(path.into()), None, "{path}");
        }
        assert_eq!(at([].into()), None);
    }
}
