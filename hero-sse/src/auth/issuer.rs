//! An issuer of tokens: its keys and algorithms, the audiences it may address, and where its claims are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::algorithm::{Algorithm, KeyKind};
use super::backend_test;
use super::claim_path::ClaimPath;
use super::jwks::{self, KeyCache, RefreshSchedule};
#[cfg(feature = "jwks-url")]
use super::jwks_url::KeysUrl;
use super::keys::{JwkError, Key, KeySet};

const MAX_LEEWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An issuer of tokens, with its own keys, algorithms and audiences. Several of them make a
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
    pub(super) keys: KeySource,
    pub(super) leeway: Duration,
    pub(super) token_type: Option<String>,
    pub(super) subject: ClaimPath,
    pub(super) tenant: ClaimPath,
    pub(super) permissions: Vec<ClaimPath>,
    pub(super) wildcards: bool,
    mistakes: Vec<String>,
}

/// Names that are accepted in a claim.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Not configured, which is a mistake.
    Unset,
    Any,
    Only(Vec<String>),
}

impl Accepted {
    fn add(&mut self, name: String) {
        match self {
            Self::Only(names) => names.push(name),
            _ => *self = Self::Only(vec![name]),
        }
    }

    pub(super) fn accept(&self, name: &str) -> bool {
        match self {
            Self::Unset => false,
            Self::Any => true,
            Self::Only(names) => names.iter().any(|accepted| accepted == name),
        }
    }
}

/// Where the keys come from.
#[derive(Clone)]
pub(super) enum KeySource {
    Unset,
    /// Keys in the configuration.
    Fixed(Arc<KeySet>),
    /// Keys that are fetched again and again.
    Refreshed(RefreshedKeys),
}

#[derive(Clone)]
pub(super) struct RefreshedKeys {
    pub(super) cache: Arc<KeyCache>,
    pub(super) schedule: RefreshSchedule,
    origin: KeysOrigin,
}

#[derive(Clone)]
enum KeysOrigin {
    Closure,
    File(PathBuf),
    #[cfg(feature = "jwks-url")]
    Url {
        url: KeysUrl,
        allow_http: bool,
    },
}

impl Issuer {
    /// Creates an issuer whose tokens have exactly this `iss`.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self::unnamed().issuer(issuer)
    }

    pub(super) fn unnamed() -> Self {
        Self {
            names: Accepted::Unset,
            audiences: Accepted::Unset,
            algorithms: None,
            keys: KeySource::Unset,
            leeway: Duration::from_secs(30),
            token_type: None,
            subject: "sub".into(),
            tenant: "tenant".into(),
            permissions: vec!["permissions".into()],
            wildcards: false,
            mistakes: Vec::new(),
        }
    }

    /// Adds a secret that is shared with the issuer, for `HS256`, `HS384` or `HS512`.
    ///
    /// It needs at least 32, 48 or 64 bytes. [`secret`](Self::secret), [`pem`](Self::pem) and
    /// [`jwk`](Self::jwk) can be called several times: then old and new keys are valid together.
    #[must_use]
    pub fn secret(self, algorithm: Algorithm, secret: impl AsRef<[u8]>) -> Self {
        let key = Key::secret(algorithm, secret.as_ref());
        self.add_keys(key.map(|key| vec![key]))
    }

    /// Adds a public key in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`), for this algorithm only.
    ///
    /// An RSA key needs at least 2048 bits.
    #[must_use]
    pub fn pem(self, algorithm: Algorithm, pem: impl AsRef<str>) -> Self {
        let key = Key::pem(algorithm, pem.as_ref());
        self.add_keys(key.map(|key| vec![key]))
    }

    /// Adds a JSON Web Key (RFC 7517).
    ///
    /// If it has `alg`, it is for that algorithm only. A symmetric key must have it.
    #[must_use]
    pub fn jwk(self, jwk: impl AsRef<str>) -> Self {
        let key = match serde_json::from_str::<Value>(jwk.as_ref()) {
            Ok(jwk) => Key::jwk(&jwk, true).map_err(|error| match error {
                JwkError::Invalid(why) => why,
                JwkError::NotApplicable => {
                    "the JWK is not for checking signatures, or its `kty`, `crv` or `alg` is not \
                     supported"
                        .to_owned()
                }
            }),
            Err(error) => Err(format!("the JWK is not JSON: {error}")),
        };
        self.add_keys(key.map(|key| vec![key]))
    }

    /// Adds the keys of a JWK Set (RFC 7517, section 5), which do not change.
    ///
    /// Which keys are used:
    ///
    /// * Keys for other uses and of unknown kinds are skipped.
    /// * A key that has `alg` is for that algorithm only.
    /// * Other keys are for the [`algorithms`](Self::algorithms) of their kind. Without such a list they are for
    ///   RS256, ES256, ES384 or EdDSA, by their kind.
    /// * Symmetric keys, private keys, and RSA keys under 2048 bits are mistakes here. In a set that is
    ///   refreshed they are skipped and logged.
    ///
    /// A token is verified with the key of its `kid`. Without `kid`, at most four keys are tried.
    #[must_use]
    pub fn jwks(self, jwks: impl AsRef<str>) -> Self {
        let keys =
            KeySet::jwks(jwks.as_ref()).and_then(|set| match set.rejected.into_iter().next() {
                Some(why) => Err(why),
                None if set.keys.is_empty() => Err("no key of it can check a signature".to_owned()),
                None => Ok(set.keys),
            });
        self.add_keys(keys.map_err(|why| format!("the JWK Set: {why}")))
    }

    /// Reads the keys from a file with a JWK Set, again and again.
    ///
    /// The file must exist when `HeroSse` is built. It is read again when a token arrives and the last read was
    /// 5 s ago, or 1 s ago if the token names an unknown key ([`refresh_every`](Self::refresh_every)). If
    /// the file cannot be used, this is logged, and the previous keys stay valid for a day.
    #[must_use]
    pub fn jwks_file(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let cache = KeyCache::new(path.display().to_string(), jwks::from_file(path.clone()));
        let (schedule, origin) = (RefreshSchedule::FILE, KeysOrigin::File(path));
        self.refreshed(RefreshedKeys { cache, schedule, origin })
    }

    /// Fetches the keys from a URL where the issuer publishes a JWK Set, again and again.
    ///
    /// * Only `https`, except for addresses of this machine. Redirects are not followed. A response may have
    ///   256 KiB and take 5 s. [`jwks`](Self::jwks) says which keys are used.
    /// * The first token starts the first fetch. After 10 min, the next token starts another, while the previous
    ///   keys stay in use. A token with an unknown key starts one at once, at most every 30 s
    ///   ([`refresh_every`](Self::refresh_every)).
    /// * There is one fetch at a time. All requests that need it wait for it, and it goes on if their
    ///   clients disconnect.
    /// * While the issuer does not answer, the previous keys stay in use for a day. The limit matters: an
    ///   attacker who blocks the issuer must not keep a revoked key alive.
    /// * Without usable keys, callers are refused and asked to try again later. No caller is accepted unverified.
    #[cfg(feature = "jwks-url")]
    #[must_use]
    pub fn jwks_url(self, url: impl AsRef<str>) -> Self {
        match KeysUrl::new(url.as_ref()) {
            Ok(url) => {
                let cache = KeyCache::new(url.display_name(), url.fetcher());
                let origin = KeysOrigin::Url { url, allow_http: false };
                self.refreshed(RefreshedKeys { cache, schedule: RefreshSchedule::URL, origin })
            }
            Err(why) => self.mistake(why),
        }
    }

    /// Lets [`jwks_url`](Self::jwks_url) use `http` to another machine.
    ///
    /// Then anyone on the network path can insert keys and sign tokens with them.
    #[cfg(feature = "jwks-url")]
    #[must_use]
    pub fn allow_http(mut self) -> Self {
        if let KeySource::Refreshed(RefreshedKeys {
            origin: KeysOrigin::Url { allow_http, .. },
            ..
        }) = &mut self.keys
        {
            *allow_http = true;
        }
        self
    }

    /// Fetches the keys with a closure that returns a JWK Set, again and again.
    ///
    /// It is called for the first token, then every 10 min, and for tokens with unknown keys
    /// ([`refresh_every`](Self::refresh_every)). It runs in a task of its own with a timeout of 5 s. Its
    /// error is logged, so it must not hold credentials.
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
            Accepted::Only(names) => names.join(", "),
            _ => "the issuer".to_owned(),
        };
        let cache = KeyCache::new(name, jwks::from_closure(fetch));
        let (schedule, origin) = (RefreshSchedule::URL, KeysOrigin::Closure);
        self.refreshed(RefreshedKeys { cache, schedule, origin })
    }

    /// Sets when keys are fetched again. Call it after [`jwks_from`](Self::jwks_from),
    /// [`jwks_file`](Self::jwks_file) or `jwks_url`.
    ///
    /// * `age`: maximum age of the keys. Default: 10 min, for a file 5 s.
    /// * `on_demand`: minimum time between fetches for tokens with unknown keys. Default: 30 s, for a file 1 s.
    ///
    /// The minimum of both is 1 s.
    #[must_use]
    pub fn refresh_every(mut self, age: Duration, on_demand: Duration) -> Self {
        match &mut self.keys {
            KeySource::Refreshed(RefreshedKeys { schedule, .. }) => {
                const MIN: Duration = Duration::from_secs(1);
                (schedule.max_age, schedule.on_demand) = (age.max(MIN), on_demand.max(MIN));
                self
            }
            _ => self.mistake(
                "`.refresh_every(..)` needs a source of keys that is refreshed; name it first",
            ),
        }
    }

    /// Accepts these algorithms only, whatever the keys allow.
    #[must_use]
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = Some(algorithms.into_iter().collect());
        self
    }

    /// Accepts another value of `iss`.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.names.add(issuer.into());
        self
    }

    pub(super) fn any_issuer(mut self) -> Self {
        self.names = Accepted::Any;
        self
    }

    /// Accepts tokens for this audience (`aud`), in addition to earlier ones.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.add(audience.into());
        self
    }

    /// Accepts tokens for any audience. Then a token for another service works here.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.audiences = Accepted::Any;
        self
    }

    /// Sets how far the clocks of issuer and server may differ. Default: 30 s. Maximum: a day.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(MAX_LEEWAY);
        self
    }

    /// Accepts tokens with this `typ` only, such as `at+jwt` (RFC 9068), so that an ID token is not taken
    /// for an access token.
    ///
    /// Case and a leading `application/` do not matter. Default: any type.
    #[must_use]
    pub fn token_type(mut self, typ: impl Into<String>) -> Self {
        self.token_type = Some(typ.into());
        self
    }

    /// Sets the claim that holds the permissions. Default: `permissions`.
    ///
    /// The claim is a list of strings, or one string with spaces between permissions, as in `scope`.
    /// [`ClaimPath`] tells how to name a claim inside others.
    #[must_use]
    pub fn permissions_claim(self, claim: impl Into<ClaimPath>) -> Self {
        self.permissions_claims([claim])
    }

    /// Sets several claims that hold permissions, which add up. See
    /// [`permissions_claim`](Self::permissions_claim).
    #[must_use]
    pub fn permissions_claims<C: Into<ClaimPath>>(
        mut self,
        claims: impl IntoIterator<Item = C>,
    ) -> Self {
        self.permissions = claims.into_iter().map(Into::into).collect();
        self
    }

    /// Lets a permission in a token end in `*`, which stands for one or more whole segments.
    ///
    /// Segments are separated by `.` or `:`. `usage.*` grants `usage.read` and `usage.read.all`, but not
    /// `usage`. A permission `*` grants everything. Default: `*` has no special meaning.
    #[must_use]
    pub fn wildcards(mut self) -> Self {
        self.wildcards = true;
        self
    }

    /// Sets the claim that holds the tenant, a string. A caller without it has no tenant. Default: `tenant`.
    #[must_use]
    pub fn tenant_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.tenant = claim.into();
        self
    }

    /// Sets the claim that identifies the caller, a string, which every token must have. Default: `sub`.
    #[must_use]
    pub fn subject_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.subject = claim.into();
        self
    }

    fn add_keys(mut self, keys: Result<Vec<Key>, String>) -> Self {
        match (keys, &mut self.keys) {
            (Err(why), _) => return self.mistake(why),
            (Ok(_), KeySource::Refreshed(_)) => return self.mistake(TWO_SOURCES),
            (Ok(keys), KeySource::Fixed(set)) => Arc::make_mut(set).keys.extend(keys),
            (Ok(keys), unset) => {
                *unset = KeySource::Fixed(Arc::new(KeySet { keys, rejected: Vec::new() }));
            }
        }
        self
    }

    fn refreshed(mut self, keys: RefreshedKeys) -> Self {
        match self.keys {
            KeySource::Unset => {
                self.keys = KeySource::Refreshed(keys);
                self
            }
            _ => self.mistake(TWO_SOURCES),
        }
    }

    fn mistake(mut self, why: impl Into<String>) -> Self {
        self.mistakes.push(why.into());
        self
    }

    /// Returns the mistakes in the settings. Cheap, since it is also called for each token.
    pub(super) fn setting_mistakes(&self) -> Vec<String> {
        let mut mistakes = self.mistakes.clone();
        let mut mistake = |text: &str| mistakes.push(text.to_owned());
        match &self.names {
            Accepted::Unset => {
                mistake("no issuer; add .issuer(\"..\"), or .any_issuer() to accept all");
            }
            Accepted::Only(names) if names.iter().any(String::is_empty) => {
                mistake("the issuer's name is empty");
            }
            _ => {}
        }
        if self.audiences == Accepted::Unset {
            mistake("no audience; add .audience(\"..\"), or .any_audience() to accept all");
        }
        if self.permissions.is_empty() {
            mistake("no claim holds the permissions; add .permissions_claim(\"..\")");
        }
        match &self.keys {
            KeySource::Unset if self.mistakes.is_empty() => {
                mistake(
                    "no keys; add .pem(..), .secret(..), .jwks_file(..) or another source of keys",
                );
            }
            #[cfg(feature = "jwks-url")]
            KeySource::Refreshed(RefreshedKeys {
                origin: KeysOrigin::Url { url, allow_http: false },
                ..
            }) if url.is_insecure() => {
                mistake(
                    "the URL of the keys is `http`, so anyone on the network path could insert keys; \
                     use `https`, or add .allow_http()",
                );
            }
            _ => {}
        }
        if let Some(algorithms) = &self.algorithms {
            if algorithms.is_empty() {
                mistake("the list of algorithms is empty, so no token is accepted");
            }
            for algorithm in algorithms {
                let name = algorithm.name();
                let fits = |key: &Key| key.is_for(*algorithm, Some(algorithms));
                match &self.keys {
                    KeySource::Fixed(set) if !set.keys.iter().any(fits) => {
                        mistakes.push(format!("no key fits the algorithm {name}"));
                    }
                    KeySource::Refreshed(_) if algorithm.key_kind() == KeyKind::Secret => {
                        mistakes.push(format!(
                            "{name} verifies with a secret, and a published key is not secret"
                        ));
                    }
                    _ => {}
                }
            }
        }
        mistakes
    }

    /// Tries the crypto backend and the source of the keys, when `HeroSse` is built. Returns what does not work.
    pub(super) fn failed_trials(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| self.accepts(*algorithm)) {
            if !backend_test::passes(algorithm) {
                mistakes.push(format!(
                    "the crypto backend of `jsonwebtoken` cannot verify {}; if the application installs a \
                     `CryptoProvider`, install `jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER`",
                    algorithm.name()
                ));
            }
        }
        let KeySource::Refreshed(RefreshedKeys { origin, .. }) = &self.keys else {
            return mistakes;
        };
        match origin {
            KeysOrigin::Closure => {}
            KeysOrigin::File(path) => {
                let name = path.display();
                match jwks::read_file(path).and_then(|text| KeySet::jwks(&text)) {
                    Err(why) => mistakes.push(format!("the keys in {name}: {why}")),
                    Ok(set) if set.keys.is_empty() => {
                        let why = set.rejected.first().map_or("the set is empty", String::as_str);
                        mistakes
                            .push(format!("the keys in {name}: none can check a signature: {why}"));
                    }
                    Ok(_) => {}
                }
            }
            #[cfg(feature = "jwks-url")]
            KeysOrigin::Url { url, .. } => {
                mistakes.extend(url.client().err().map(|why| {
                    format!("the keys at {}: no HTTPS client: {why}", url.display_name())
                }))
            }
        }
        mistakes
    }

    /// Returns whether a token of this algorithm can be accepted.
    fn accepts(&self, algorithm: Algorithm) -> bool {
        let allowed = self.algorithms.as_deref();
        match &self.keys {
            KeySource::Unset => false,
            KeySource::Fixed(set) => set.keys.iter().any(|key| key.is_for(algorithm, allowed)),
            KeySource::Refreshed(_) => {
                let public = algorithm.key_kind() != KeyKind::Secret;
                public && allowed.is_none_or(|allowed| allowed.contains(&algorithm))
            }
        }
    }
}

const TWO_SOURCES: &str =
    "fixed keys and refreshed keys, or two sources that are refreshed; an issuer has one source";
