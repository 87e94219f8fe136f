//! Keys that verify signatures: from secrets, PEM and JSON Web Keys (RFC 7517).
//!
//! Which algorithms a key is for is decided when the key is read. A token cannot change that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::Value;

use super::algorithm::{Algorithm, KeyKind};
use super::public_key::PublicKey;

/// One key. It has no `Debug`, since it may be a secret.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if it came with one.
    algorithm: Option<Algorithm>,
    kind: KeyKind,
    verifier: DecodingKey,
}

/// Why a JSON Web Key is not used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JwkError {
    /// It is for another use, or of a kind that is not supported. Sets may hold such keys.
    NotApplicable,
    /// It should be usable and is not.
    Invalid(String),
}

impl Key {
    fn new(kind: KeyKind, verifier: DecodingKey) -> Self {
        Self { id: None, algorithm: None, kind, verifier }
    }

    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        let (name, length) = (algorithm.name(), secret.len());
        if algorithm.key_kind() != KeyKind::Secret {
            return Err(format!(
                "{name} verifies with a public key, not with a secret; use .pem(..)"
            ));
        }
        let min = algorithm.min_secret_bytes();
        if length < min {
            return Err(format!(
                "the {name} secret has {length} bytes; give it at least {min}, from a random \
                 generator"
            ));
        }
        let key = Self::new(KeyKind::Secret, DecodingKey::from_secret(secret));
        Ok(Self { algorithm: Some(algorithm), ..key })
    }

    /// Reads a public key in PEM, for this algorithm only.
    pub(super) fn pem(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        if algorithm.key_kind() == KeyKind::Secret {
            let name = algorithm.name();
            return Err(format!(
                "{name} verifies with a secret; a public key is not secret, so anyone who has it \
                 could sign"
            ));
        }
        let key = match PublicKey::from_pem(pem)? {
            PublicKey::Rsa { modulus, exponent } => Self::rsa(&modulus, &exponent),
            PublicKey::Point(curve, point) => Self::point(curve, &point),
            PublicKey::Ed25519(key) => Self::ed25519(&key),
        }?;
        if key.kind != algorithm.key_kind() {
            return Err(wrong_kind(algorithm, key.kind));
        }
        Ok(Self { algorithm: Some(algorithm), ..key })
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (magnitude(modulus), magnitude(exponent));
        let bits =
            modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if bits < 2048 {
            return Err(format!(
                "the RSA key has {bits} bits; RFC 7518, section 3.3, requires at least 2048"
            ));
        }
        if bits > 8192 {
            return Err(format!("the RSA key has {bits} bits; at most 8192 are supported"));
        }
        // With an exponent of 1, every signature is valid. No backend takes more than 33 bits.
        let odd = exponent.last().is_some_and(|last| last % 2 == 1);
        if !odd || exponent == [1] || exponent.len() > 4 {
            return Err("the exponent of the RSA key is not supported; use 65537".to_owned());
        }
        let verifier = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Ok(Self::new(KeyKind::Rsa, verifier))
    }

    /// Reads an uncompressed point (X9.62): 4, x, y.
    fn point(curve: KeyKind, point: &[u8]) -> Result<Self, String> {
        let length = if curve == KeyKind::P256 { 65 } else { 97 };
        if point.len() != length || point.first() != Some(&4) {
            return Err(format!(
                "{} must be an uncompressed point of {length} bytes",
                curve.name()
            ));
        }
        Ok(Self::new(curve, DecodingKey::from_ec_der(point)))
    }

    fn ed25519(key: &[u8]) -> Result<Self, String> {
        if key.len() != 32 {
            return Err(format!("an Ed25519 key has 32 bytes, this one {}", key.len()));
        }
        Ok(Self::new(KeyKind::Ed25519, DecodingKey::from_ed_der(key)))
    }

    /// Reads a JSON Web Key. `symmetric`: whether it may be a secret, which a set from elsewhere must not hold.
    pub(super) fn jwk(jwk: &Value, symmetric: bool) -> Result<Self, JwkError> {
        let invalid = |why: String| JwkError::Invalid(why);
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let value = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            value.ok_or_else(|| invalid(format!("the JWK's `{name}` is not base64url")))
        };
        let allows = |name: &str, wanted: &str| match jwk.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.iter().any(|item| item == wanted),
            Some(value) => value == wanted,
        };
        if !allows("use", "sig") || !allows("key_ops", "verify") {
            return Err(JwkError::NotApplicable);
        }
        let algorithm = match jwk.get("alg") {
            None | Some(Value::Null) => None,
            Some(name) => {
                let known = name.as_str().and_then(Algorithm::by_name);
                Some(known.ok_or(JwkError::NotApplicable)?)
            }
        };
        let key = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => Self::rsa(&bytes("n")?, &bytes("e")?),
            (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => {
                let curve = if curve == "P-256" { KeyKind::P256 } else { KeyKind::P384 };
                let length = if curve == KeyKind::P256 { 32 } else { 48 };
                let (x, y) = (bytes("x")?, bytes("y")?);
                // Leading zeros are required (RFC 7518, section 6.2.1.2).
                if x.len() != length || y.len() != length {
                    return Err(invalid(format!(
                        "the coordinates of {} have {length} bytes",
                        curve.name()
                    )));
                }
                Self::point(curve, &[&[4], &*x, &*y].concat())
            }
            (Some("OKP"), Some("Ed25519")) => Self::ed25519(&bytes("x")?),
            (Some("oct"), _) if symmetric => match algorithm {
                Some(algorithm) => Self::secret(algorithm, &bytes("k")?),
                None => Err("a symmetric JWK must name its `alg`".to_owned()),
            },
            // Anyone who can write the set, or redirect the request for it, could sign tokens with it.
            (Some("oct"), _) => Err("a set of public keys holds a symmetric key".to_owned()),
            _ => return Err(JwkError::NotApplicable),
        };
        let key = key.map_err(invalid)?;
        if key.kind != KeyKind::Secret && jwk.get("d").is_some() {
            return Err(invalid(
                "the JWK holds a private key, which only the issuer should have".into(),
            ));
        }
        if let Some(algorithm) = algorithm
            && algorithm.key_kind() != key.kind
        {
            return Err(invalid(wrong_kind(algorithm, key.kind)));
        }
        Ok(Self { id: text("kid").map(str::to_owned), algorithm, ..key })
    }

    /// Returns whether the key may verify this algorithm. `allowed` is the issuer's list, if it has one.
    pub(super) fn is_for(&self, algorithm: Algorithm, allowed: Option<&[Algorithm]>) -> bool {
        self.kind == algorithm.key_kind()
            && self.algorithm.is_none_or(|only| only == algorithm)
            && match allowed {
                Some(allowed) => allowed.contains(&algorithm),
                None => self.algorithm.or(self.kind.default_algorithm()) == Some(algorithm),
            }
    }

    /// Returns whether `signature` (base64url) is this key's signature of `message`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        let (message, algorithm) = (message.as_bytes(), algorithm.backend());
        let verified = jsonwebtoken::crypto::verify(signature, message, &self.verifier, algorithm);
        matches!(verified, Ok(true))
    }
}

fn wrong_kind(algorithm: Algorithm, kind: KeyKind) -> String {
    let (name, needed) = (algorithm.name(), algorithm.key_kind().name());
    format!("{name} needs {needed}, and this is {}", kind.name())
}

/// Strips the leading zeros of a big-endian number.
fn magnitude(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The keys of one issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// Why other keys of the set are not used.
    pub(super) rejected: Vec<String>,
}

/// A token without key id is tried with at most this many keys. With more it is refused.
const MAX_TRIED: usize = 4;

/// Whether a key of the set has signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verification {
    Verified,
    /// The set has the key that the token names, and that key has not signed it.
    WrongSignature,
    /// No key has signed it, and the set lacks the key that it names. A newer set may have one.
    NoKey,
}

impl KeySet {
    /// Reads a JWK Set. Leaves out keys of unknown kinds, for other uses, and symmetric keys.
    pub(super) fn jwks(text: &str) -> Result<Self, String> {
        let set: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("it is no JWK Set: there is no list `keys`")?;
        let mut read = Self::default();
        for key in keys {
            match Key::jwk(key, false) {
                Ok(key) => read.keys.push(key),
                Err(JwkError::Invalid(why)) => read.rejected.push(why),
                Err(JwkError::NotApplicable) => {}
            }
        }
        Ok(read)
    }

    /// Verifies a signature with the keys that come into question:
    ///
    /// * Keys with the id that the token names.
    /// * If there are none: keys without an id.
    /// * If the token names no key: all keys.
    pub(super) fn verify(
        &self,
        signed: &SignedMessage<'_>,
        allowed: Option<&[Algorithm]>,
    ) -> Verification {
        let SignedMessage { algorithm, key_id, message, signature } = *signed;
        let is_named = |key: &Key| key_id.is_some() && key.id.as_deref() == key_id;
        let has_named = self.keys.iter().any(is_named);
        let candidates: Vec<_> = self
            .keys
            .iter()
            .filter(|key| match has_named {
                true => is_named(key),
                false => key_id.is_none() || key.id.is_none(),
            })
            .filter(|key| key.is_for(algorithm, allowed))
            .take(MAX_TRIED + 1)
            .collect();
        let verified = candidates.len() <= MAX_TRIED
            && candidates.iter().any(|key| key.verifies(algorithm, message, signature));
        match (verified, has_named) {
            (true, _) => Verification::Verified,
            (false, true) => Verification::WrongSignature,
            (false, false) => Verification::NoKey,
        }
    }
}

/// The signed part of a token, its signature, and what its header says about that.
#[derive(Clone, Copy)]
pub(super) struct SignedMessage<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<&'a str>,
    /// The first two parts of the token, with the dot between them.
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::backend_test;

    fn rsa(bits: usize) -> Value {
        let mut modulus = vec![0xff; bits / 8];
        modulus.insert(0, 0);
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" })
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    fn mistake(key: Result<Key, JwkError>) -> String {
        match key {
            Err(JwkError::Invalid(why)) => why,
            Err(JwkError::NotApplicable) => "not applicable".to_owned(),
            Ok(_) => "usable".to_owned(),
        }
    }

    #[test]
    fn a_key_verifies_only_what_its_kind_and_its_issuer_allow() {
        let bare = Key::jwk(&rsa(2048), false).expect("a key");
        assert!(bare.is_for(Algorithm::RS256, None), "the default of an RSA key");
        assert!(!bare.is_for(Algorithm::PS256, None) && !bare.is_for(Algorithm::RS512, None));
        let allowed = [Algorithm::PS256, Algorithm::ES256, Algorithm::HS256];
        assert!(bare.is_for(Algorithm::PS256, Some(&allowed)));
        assert!(!bare.is_for(Algorithm::RS256, Some(&allowed)));
        assert!(!bare.is_for(Algorithm::ES256, Some(&allowed)), "an RSA key is not on a curve");
        assert!(!bare.is_for(Algorithm::HS256, Some(&allowed)), "a public key is not a secret");
        let named = Key::jwk(&with(rsa(2048), "alg", json!("PS512")), false).expect("a key");
        assert!(named.is_for(Algorithm::PS512, None) && !named.is_for(Algorithm::RS256, None));
        assert!(!named.is_for(Algorithm::RS256, Some(&[Algorithm::RS256])));
    }

    #[test]
    fn keys_for_other_uses_are_skipped_and_invalid_ones_reported() {
        let other_uses = [
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
        for jwk in other_uses {
            assert_eq!(mistake(Key::jwk(&jwk, true)), "not applicable", "{jwk}");
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
        let set = KeySet::jwks(&set.to_string()).expect("a set");
        assert_eq!((set.keys.len(), set.rejected.len()), (1, 2));
        for text in ["", "<html>", "{}", "[]", "{\"keys\": {}}"] {
            assert!(KeySet::jwks(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_key_that_a_token_names_is_tried() {
        let (message, signature) = backend_test::sample(Algorithm::ES256);
        let key = |id: Option<&str>, good: bool| {
            let mut key = backend_test::key(Algorithm::ES256).expect("a key");
            key.id = id.map(str::to_owned);
            if !good {
                key.verifier = DecodingKey::from_ec_der(&[4; 65]);
            }
            key
        };
        let verify = |keys: Vec<Key>, kid: Option<&str>| {
            let algorithm = Algorithm::ES256;
            let signed = SignedMessage { algorithm, key_id: kid, message, signature };
            KeySet { keys, rejected: vec![] }.verify(&signed, None)
        };
        assert_eq!(verify(vec![key(Some("a"), true)], Some("a")), Verification::Verified);
        assert_eq!(verify(vec![key(Some("a"), true)], None), Verification::Verified);
        assert_eq!(verify(vec![key(Some("a"), true)], Some("b")), Verification::NoKey);
        assert_eq!(verify(vec![key(None, true)], Some("b")), Verification::Verified);
        assert_eq!(
            verify(vec![key(Some("a"), false), key(None, true)], Some("a")),
            Verification::WrongSignature
        );
        assert_eq!(
            verify(vec![key(Some("a"), false), key(Some("a"), true)], Some("a")),
            Verification::Verified
        );
        assert_eq!(verify(vec![], None), Verification::NoKey);
        let many = |count| (0..count).map(|_| key(None, false)).chain([key(None, true)]).collect();
        assert_eq!(verify(many(3), None), Verification::Verified);
        assert_eq!(verify(many(4), None), Verification::NoKey, "too many keys: none is tried");
    }

    #[test]
    fn leading_zeros_do_not_count() {
        assert_eq!(magnitude(&[0, 0, 1, 0]), [1, 0]);
        assert!(magnitude(&[0]).is_empty());
    }
}
