//! Keys that check signatures: from secrets, PEM and JSON Web Keys (RFC 7517). What a key may be used
//! for is settled when it is read, so that no token can have it used otherwise.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm as Signed, DecodingKey};
use serde_json::Value;

/// How a token is signed (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256: a secret of at least 32 bytes, shared with the issuer.
    HS256,
    /// HMAC with SHA-384: a secret of at least 48 bytes.
    HS384,
    /// HMAC with SHA-512: a secret of at least 64 bytes.
    HS512,
    /// RSA (PKCS #1 1.5) with SHA-256: keys of 2048 to 8192 bits.
    RS256,
    /// RSA (PKCS #1 1.5) with SHA-384.
    RS384,
    /// RSA (PKCS #1 1.5) with SHA-512.
    RS512,
    /// RSA (PSS) with SHA-256: keys of 2048 to 8192 bits.
    PS256,
    /// RSA (PSS) with SHA-384.
    PS384,
    /// RSA (PSS) with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519; tokens may also call it `Ed25519`, as RFC 9864 does.
    EdDSA,
}

impl Algorithm {
    pub(super) const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// By its registered name, to the letter.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDSA);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Kind::Secret,
            Self::RS256 | Self::RS384 | Self::RS512 => Kind::Rsa,
            Self::PS256 | Self::PS384 | Self::PS512 => Kind::Rsa,
            Self::ES256 => Kind::P256,
            Self::ES384 => Kind::P384,
            Self::EdDSA => Kind::Ed25519,
        }
    }

    /// A shorter secret weakens the hash (RFC 7518, section 3.2).
    const fn shortest_secret(self) -> usize {
        match self {
            Self::HS512 => 64,
            Self::HS384 => 48,
            _ => 32,
        }
    }

    const fn signed(self) -> Signed {
        match self {
            Self::HS256 => Signed::HS256,
            Self::HS384 => Signed::HS384,
            Self::HS512 => Signed::HS512,
            Self::RS256 => Signed::RS256,
            Self::RS384 => Signed::RS384,
            Self::RS512 => Signed::RS512,
            Self::PS256 => Signed::PS256,
            Self::PS384 => Signed::PS384,
            Self::PS512 => Signed::PS512,
            Self::ES256 => Signed::ES256,
            Self::ES384 => Signed::ES384,
            Self::EdDSA => Signed::EdDSA,
        }
    }
}

/// What a key is, which says what it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Secret => "a symmetric secret",
            Self::Rsa => "an RSA key",
            Self::P256 => "a key on P-256",
            Self::P384 => "a key on P-384",
            Self::Ed25519 => "an Ed25519 key",
        }
    }

    /// What a public key that does not name its algorithm is for, unless the issuer's list says more.
    const fn usual(self) -> Option<Algorithm> {
        match self {
            Self::Secret => None,
            Self::Rsa => Some(Algorithm::RS256),
            Self::P256 => Some(Algorithm::ES256),
            Self::P384 => Some(Algorithm::ES384),
            Self::Ed25519 => Some(Algorithm::EdDSA),
        }
    }
}

/// One key. It has no `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm it is for, where it was given with one.
    only: Option<Algorithm>,
    kind: Kind,
    verifier: DecodingKey,
}

/// Why a JSON Web Key is not used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is for something else, or of a kind that is not known here: no mistake.
    Foreign,
    /// It ought to be usable and is not.
    Bad(String),
}

impl Key {
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        let (name, length) = (algorithm.name(), secret.len());
        if algorithm.kind() != Kind::Secret {
            return Err(format!(
                "{name} checks with a public key, not with a secret; use .pem(..)"
            ));
        }
        let shortest = algorithm.shortest_secret();
        if length < shortest {
            return Err(format!(
                "the {name} secret has {length} bytes; give it at least {shortest}, from a random \
                 generator"
            ));
        }
        let verifier = DecodingKey::from_secret(secret);
        Ok(Self { id: None, only: Some(algorithm), kind: Kind::Secret, verifier })
    }

    /// A public key in PEM: `PUBLIC KEY` (RFC 5280) or `RSA PUBLIC KEY` (PKCS #1).
    pub(super) fn pem(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        if algorithm.kind() == Kind::Secret {
            let name = algorithm.name();
            return Err(format!(
                "{name} checks with a secret, and a public key is none: whoever has it could sign"
            ));
        }
        let mut key = match Pem::read(pem)? {
            Pem { label: "PUBLIC KEY", der } => Self::spki(&der),
            Pem { label: "RSA PUBLIC KEY", der } => Self::pkcs1(&der),
            Pem { label, .. } if label.ends_with("PRIVATE KEY") => {
                return Err(
                    "the PEM holds a private key, which only the issuer should have; make the \
                            public one by `openssl pkey -pubout`"
                        .to_owned(),
                );
            }
            Pem { label: "CERTIFICATE", .. } => {
                return Err(
                    "the PEM holds a certificate; take its key by `openssl x509 -pubkey -noout`"
                        .to_owned(),
                );
            }
            _ => return Err(NO_PEM.to_owned()),
        }?;
        if key.kind != algorithm.kind() {
            return Err(misfit(algorithm, key.kind));
        }
        key.only = Some(algorithm);
        Ok(key)
    }

    fn spki(der: &[u8]) -> Result<Self, String> {
        let read = || {
            let (info, end) = tlv(der, SEQUENCE)?;
            let (algorithm, rest) = tlv(info, SEQUENCE)?;
            let (bits, none) = tlv(rest, BIT_STRING)?;
            let (name, parameters) = tlv(algorithm, OBJECT_ID)?;
            let (&unused, bits) = bits.split_first()?;
            (end.is_empty() && none.is_empty() && unused == 0).then_some((name, parameters, bits))
        };
        let (name, parameters, bits) = read().ok_or_else(|| NO_PEM.to_owned())?;
        match (name, tlv(parameters, OBJECT_ID)) {
            (RSA_ENCRYPTION, _) => Self::pkcs1(bits),
            (EC_PUBLIC_KEY, Some((P256, _))) => Self::point(Kind::P256, bits),
            (EC_PUBLIC_KEY, Some((P384, _))) => Self::point(Kind::P384, bits),
            (EC_PUBLIC_KEY, _) => {
                Err("the key is on a curve that no algorithm here uses".to_owned())
            }
            (ED25519, _) => Self::ed25519(bits),
            _ => Err("the key is of a kind that no algorithm here uses".to_owned()),
        }
    }

    fn pkcs1(der: &[u8]) -> Result<Self, String> {
        let read = || {
            let (key, end) = tlv(der, SEQUENCE)?;
            let (modulus, rest) = tlv(key, INTEGER)?;
            let (exponent, none) = tlv(rest, INTEGER)?;
            (end.is_empty() && none.is_empty()).then_some((modulus, exponent))
        };
        let (modulus, exponent) = read().ok_or_else(|| NO_PEM.to_owned())?;
        Self::rsa(modulus, exponent)
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (magnitude(modulus), magnitude(exponent));
        let bits =
            modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if bits < 2048 {
            return Err(format!(
                "the RSA key has {bits} bits; RFC 7518, section 3.3, asks for 2048 at least"
            ));
        }
        if bits > 8192 {
            return Err(format!("the RSA key has {bits} bits; 8192 is the most that is checked"));
        }
        // With 1 every signature would hold; more than 33 bits no backend takes.
        let odd = exponent.last().is_some_and(|last| last % 2 == 1);
        if !odd || exponent == [1] || exponent.len() > 4 {
            return Err("the RSA key's exponent is not one that is used".to_owned());
        }
        let verifier = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Ok(Self { id: None, only: None, kind: Kind::Rsa, verifier })
    }

    /// An uncompressed point of X9.62: 4, x, y.
    fn point(kind: Kind, point: &[u8]) -> Result<Self, String> {
        let length = if kind == Kind::P256 { 65 } else { 97 };
        if point.len() != length || point.first() != Some(&4) {
            return Err(format!("{} must be an uncompressed point of {length} bytes", kind.name()));
        }
        Ok(Self { id: None, only: None, kind, verifier: DecodingKey::from_ec_der(point) })
    }

    fn ed25519(key: &[u8]) -> Result<Self, String> {
        if key.len() != 32 {
            return Err(format!("an Ed25519 key has 32 bytes, this one {}", key.len()));
        }
        Ok(Self {
            id: None,
            only: None,
            kind: Kind::Ed25519,
            verifier: DecodingKey::from_ed_der(key),
        })
    }

    /// One JSON Web Key; a symmetric one where it cannot have come from anywhere but this side.
    pub(super) fn jwk(jwk: &Value, symmetric: bool) -> Result<Self, Unusable> {
        let bad = |why: String| Unusable::Bad(why);
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let value = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            value.ok_or_else(|| bad(format!("the JWK's `{name}` is not base64url")))
        };
        let lists = |name: &str, wanted: &str| match jwk.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.iter().any(|item| item == wanted),
            Some(value) => value == wanted,
        };
        if !lists("use", "sig") || !lists("key_ops", "verify") {
            return Err(Unusable::Foreign);
        }
        let only = match jwk.get("alg") {
            None | Some(Value::Null) => None,
            Some(name) => Some(name.as_str().and_then(Algorithm::named).ok_or(Unusable::Foreign)?),
        };
        let key = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => Self::rsa(&bytes("n")?, &bytes("e")?),
            (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => {
                let kind = if curve == "P-256" { Kind::P256 } else { Kind::P384 };
                let half = if kind == Kind::P256 { 32 } else { 48 };
                let (x, y) = (bytes("x")?, bytes("y")?);
                // RFC 7518, section 6.2.1.2: leading zeros are written.
                if x.len() != half || y.len() != half {
                    return Err(bad(format!(
                        "the coordinates of {} have {half} bytes",
                        kind.name()
                    )));
                }
                Self::point(kind, &[&[4], &*x, &*y].concat())
            }
            (Some("OKP"), Some("Ed25519")) => Self::ed25519(&bytes("x")?),
            (Some("oct"), _) if symmetric => match only {
                Some(algorithm) => Self::secret(algorithm, &bytes("k")?),
                None => Err("a symmetric JWK must name its `alg`".to_owned()),
            },
            // Whoever can write the set, or make it be read from elsewhere, could sign with it.
            (Some("oct"), _) => Err("a set of public keys has a symmetric one".to_owned()),
            _ => return Err(Unusable::Foreign),
        };
        let mut key = key.map_err(bad)?;
        if key.kind != Kind::Secret && jwk.get("d").is_some() {
            return Err(bad(
                "the JWK holds a private key, which only the issuer should have".into()
            ));
        }
        if let Some(algorithm) = only
            && algorithm.kind() != key.kind
        {
            return Err(bad(misfit(algorithm, key.kind)));
        }
        key.only = only;
        key.id = text("kid").map(str::to_owned);
        Ok(key)
    }

    /// Whether it may check this algorithm, at an issuer that is pinned to `allowed`.
    pub(super) fn fits(&self, algorithm: Algorithm, allowed: Option<&[Algorithm]>) -> bool {
        self.kind == algorithm.kind()
            && self.only.is_none_or(|only| only == algorithm)
            && match allowed {
                Some(allowed) => allowed.contains(&algorithm),
                None => self.only.or(self.kind.usual()) == Some(algorithm),
            }
    }

    /// Whether it signed `message`: the two parts of a token as they came, with their dot.
    pub(super) fn signed(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        let message = message.as_bytes();
        let checked =
            jsonwebtoken::crypto::verify(signature, message, &self.verifier, algorithm.signed());
        matches!(checked, Ok(true))
    }
}

fn misfit(algorithm: Algorithm, kind: Kind) -> String {
    format!("{} needs {}, and this is {}", algorithm.name(), algorithm.kind().name(), kind.name())
}

/// The keys of one issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// What was wrong with others of the set.
    pub(super) bad: Vec<String>,
}

/// More keys than this are never tried for one token.
const MOST_TRIED: usize = 4;

/// What a set of keys says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One of them signed it.
    Signed,
    /// The key that it names did not.
    Forged,
    /// None did, and it names none that is here.
    Unknown,
}

impl KeySet {
    /// A JWK Set. Keys of unknown kinds, for other uses, and symmetric ones are left out.
    pub(super) fn jwks(text: &str) -> Result<Self, String> {
        let set: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("it is no JWK Set: there is no list `keys`")?;
        let mut read = Self::default();
        for key in keys {
            match Key::jwk(key, false) {
                Ok(key) => read.keys.push(key),
                Err(Unusable::Bad(why)) => read.bad.push(why),
                Err(Unusable::Foreign) => {}
            }
        }
        Ok(read)
    }

    /// Looks for the key that signed a token. One that names a key is checked with the keys of that
    /// name, or, where there is none, with those that have no name; one that names none with all.
    pub(super) fn find(&self, signed: &Signature<'_>, allowed: Option<&[Algorithm]>) -> Found {
        let named = |key: &&Key| signed.key.is_some() && key.id.as_deref() == signed.key;
        let is_named = self.keys.iter().any(|key| named(&key));
        let fitting: Vec<_> = self
            .keys
            .iter()
            .filter(
                |key| if is_named { named(key) } else { signed.key.is_none() || key.id.is_none() },
            )
            .filter(|key| key.fits(signed.algorithm, allowed))
            .take(MOST_TRIED + 1)
            .collect();
        let tried = fitting.len() <= MOST_TRIED;
        let by = |key: &&Key| key.signed(signed.algorithm, signed.message, signed.signature);
        match (tried && fitting.iter().any(by), is_named) {
            (true, _) => Found::Signed,
            (false, true) => Found::Forged,
            (false, false) => Found::Unknown,
        }
    }
}

/// The signature of a token, and what its header says of it.
#[derive(Clone, Copy)]
pub(super) struct Signature<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key: Option<&'a str>,
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
}

const NO_PEM: &str =
    "the text holds no public key in PEM, which begins `-----BEGIN PUBLIC KEY-----`";

/// The one block of a PEM text (RFC 7468).
struct Pem<'a> {
    label: &'a str,
    der: Vec<u8>,
}

impl<'a> Pem<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let block = || {
            let (_, rest) = text.split_once("-----BEGIN ")?;
            let (label, rest) = rest.split_once("-----")?;
            let (body, rest) = rest.split_once(&format!("-----END {label}-----"))?;
            Some((label, body, rest))
        };
        let (label, body, rest) = block().ok_or_else(|| NO_PEM.to_owned())?;
        if rest.contains("-----BEGIN ") {
            return Err("the PEM holds several blocks; give each key alone".to_owned());
        }
        let body: String = body.split_ascii_whitespace().collect();
        // Private keys with headers of their own are refused by their label.
        let der = STANDARD.decode(body).unwrap_or_default();
        Ok(Self { label, der })
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The content of a DER value with this tag, and what comes after it.
fn tlv(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = input.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let value = rest.split_at_checked(length)?;
    (first == tag).then_some(value)
}

/// A big-endian number without leading zeros.
fn magnitude(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::proof;

    fn rsa(bits: usize) -> Value {
        let mut modulus = vec![0xff; bits / 8];
        modulus.insert(0, 0);
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" })
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    fn mistake(key: Result<Key, Unusable>) -> String {
        match key {
            Err(Unusable::Bad(why)) => why,
            Err(Unusable::Foreign) => "foreign".to_owned(),
            Ok(_) => "usable".to_owned(),
        }
    }

    #[test]
    fn a_key_is_what_it_is_and_does_what_its_issuer_allows() {
        let bare = Key::jwk(&rsa(2048), false).ok().expect("a key");
        assert!(bare.fits(Algorithm::RS256, None), "what nobody says is RS256");
        assert!(!bare.fits(Algorithm::PS256, None) && !bare.fits(Algorithm::RS512, None));
        let allowed = [Algorithm::PS256, Algorithm::ES256, Algorithm::HS256];
        assert!(bare.fits(Algorithm::PS256, Some(&allowed)));
        assert!(!bare.fits(Algorithm::RS256, Some(&allowed)));
        assert!(!bare.fits(Algorithm::ES256, Some(&allowed)), "an RSA key is none on a curve");
        assert!(!bare.fits(Algorithm::HS256, Some(&allowed)), "a public key is no secret");
        let named = Key::jwk(&with(rsa(2048), "alg", json!("PS512")), false).ok().expect("a key");
        assert!(named.fits(Algorithm::PS512, None) && !named.fits(Algorithm::RS256, None));
        assert!(!named.fits(Algorithm::RS256, Some(&[Algorithm::RS256])));
    }

    #[test]
    fn what_is_no_key_for_signatures_is_passed_over_and_what_is_wrong_is_told() {
        let foreign = [
            json!({ "kty": "LWE", "x": "AAAA" }),
            json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
            json!({ "kty": "OKP", "crv": "Ed448", "x": "AA" }),
            json!("text"),
            with(rsa(2048), "use", json!("enc")),
            with(rsa(2048), "key_ops", json!(["encrypt", "wrapKey"])),
            with(rsa(2048), "key_ops", json!([])),
            with(rsa(2048), "alg", json!("RSA-OAEP")),
            with(rsa(2048), "alg", json!("none")),
            with(rsa(2048), "alg", json!("rs256")),
            with(rsa(2048), "alg", json!(256)),
        ];
        for jwk in foreign {
            assert_eq!(mistake(Key::jwk(&jwk, true)), "foreign", "{jwk}");
        }
        let secret = URL_SAFE_NO_PAD.encode([7; 32]);
        let oct = json!({ "kty": "oct", "k": secret, "alg": "HS256" });
        for (jwk, symmetric, part) in [
            (rsa(2040), false, "2040 bits"),
            (rsa(8200), false, "8200 bits"),
            (with(rsa(2048), "e", json!("AQ")), false, "exponent"),
            (with(rsa(2048), "e", json!("AQAC")), false, "exponent"),
            (with(rsa(2048), "n", json!("=")), false, "`n` is not base64url"),
            (with(rsa(2048), "alg", json!("ES256")), false, "ES256 needs a key on P-256"),
            (with(rsa(2048), "alg", json!("HS256")), false, "HS256 needs a symmetric secret"),
            (with(rsa(2048), "d", json!("AQAB")), false, "private key"),
            (json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }), false, "32 bytes"),
            (json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" }), false, "32 bytes"),
            (oct.clone(), false, "symmetric"),
            (with(oct.clone(), "alg", json!("HS384")), true, "at least 48"),
            (with(oct.clone(), "alg", Value::Null), true, "name its `alg`"),
            (with(oct.clone(), "alg", json!("RS256")), true, "not with a secret"),
        ] {
            let told = mistake(Key::jwk(&jwk, symmetric));
            assert!(told.contains(part), "{jwk}: {told}");
        }
        assert_eq!(mistake(Key::jwk(&oct, true)), "usable");
        let set = json!({ "keys": [oct, rsa(1024), rsa(2048), { "kty": "new" }] });
        let set = KeySet::jwks(&set.to_string()).ok().expect("a set");
        assert_eq!((set.keys.len(), set.bad.len()), (1, 2));
        for text in ["", "<html>", "{}", "[]", "{\"keys\": {}}"] {
            assert!(KeySet::jwks(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_key_that_a_token_names_is_the_only_one_tried() {
        let (message, signature) = proof::sample(Algorithm::ES256);
        let key = |id: Option<&str>, good: bool| {
            let mut key = proof::key(Algorithm::ES256).expect("a key");
            key.id = id.map(str::to_owned);
            if !good {
                key.verifier = DecodingKey::from_ec_der(&[4; 65]);
            }
            key
        };
        let find = |keys: Vec<Key>, kid: Option<&str>| {
            let algorithm = Algorithm::ES256;
            let signed = Signature { algorithm, key: kid, message, signature };
            KeySet { keys, bad: vec![] }.find(&signed, None)
        };
        assert_eq!(find(vec![key(Some("a"), true)], Some("a")), Found::Signed);
        assert_eq!(find(vec![key(Some("a"), true)], None), Found::Signed);
        assert_eq!(find(vec![key(Some("a"), true)], Some("b")), Found::Unknown);
        assert_eq!(find(vec![key(None, true)], Some("b")), Found::Signed);
        assert_eq!(find(vec![key(Some("a"), false), key(None, true)], Some("a")), Found::Forged);
        assert_eq!(
            find(vec![key(Some("a"), false), key(Some("a"), true)], Some("a")),
            Found::Signed
        );
        assert_eq!(find(vec![], None), Found::Unknown);
        let many = |count| (0..count).map(|_| key(None, false)).chain([key(None, true)]).collect();
        assert_eq!(find(many(3), None), Found::Signed);
        assert_eq!(find(many(4), None), Found::Unknown, "more than a few are not tried");
    }

    #[test]
    fn der_is_read_within_its_bounds() {
        for input in
            [&[][..], &[0x30], &[0x30, 5, 1], &[0x30, 0x82, 1], &[0x30, 0x80], &[0x30, 0x84]]
        {
            assert_eq!(tlv(input, SEQUENCE), None, "{input:?}");
        }
        assert_eq!(tlv(&[0x30, 1, 7, 9], SEQUENCE), Some((&[7][..], &[9][..])));
        assert_eq!(tlv(&[0x30, 1, 7, 9], INTEGER), None);
        assert_eq!(magnitude(&[0, 0, 1, 0]), [1, 0]);
        assert!(magnitude(&[0]).is_empty());
    }
}
