//! Keys of issuers, and tokens signed with them: valid ones, and malformed ones that no library would create.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hero_sse::JwtAuthenticator;
use hero_sse::auth::Algorithm;
use jsonwebtoken::{Algorithm as Signed, EncodingKey, jwk::Jwk};
use rcgen::{KeyPair, RsaKeySize};
use serde_json::{Value, json};

/// A key pair of an issuer.
pub(crate) struct Signer {
    pair: KeyPair,
    key: EncodingKey,
    algorithm: Signed,
}

impl Signer {
    /// On P-256, which is generated quickly.
    pub(crate) fn new() -> Self {
        Self::of(Algorithm::ES256)
    }

    pub(crate) fn of(algorithm: Algorithm) -> Self {
        // Selects the crypto backend, in case the build has several.
        drop(JwtAuthenticator::hs256(""));
        let make = |kind| KeyPair::generate_for(kind).expect("a key pair");
        let pair = match algorithm {
            Algorithm::ES256 => make(&rcgen::PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => make(&rcgen::PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => make(&rcgen::PKCS_ED25519),
            _ => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
                .expect("a key pair"),
        };
        let pem = pair.serialize_pem();
        let pem = pem.as_bytes();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
            _ => EncodingKey::from_rsa_pem(pem),
        };
        Self { pair, key: key.expect("a key"), algorithm: signed(algorithm) }
    }

    /// Returns the public key in PEM.
    pub(crate) fn pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// Returns the private key in PEM.
    pub(crate) fn private_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// Returns the bytes of the public key inside its PEM: a point, or PKCS #1.
    pub(crate) fn raw(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self.algorithm {
            Signed::EdDSA => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.raw()) })
            }
            algorithm => {
                let jwk = Jwk::from_encoding_key(&self.key, algorithm).expect("a JWK");
                serde_json::to_value(jwk).expect("JSON")
            }
        };
        jwk["kid"] = json!(kid);
        jwk
    }

    pub(crate) fn token(&self, kid: &str, claims: &Value) -> String {
        let algorithm = format!("{:?}", self.algorithm);
        let header = json!({ "alg": algorithm, "typ": "JWT", "kid": kid });
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// Signs with another algorithm of the same kind of key.
    pub(crate) fn token_as(&self, algorithm: Algorithm, claims: &Value) -> String {
        let header = json!({ "alg": format!("{algorithm:?}") });
        let message = message(&header.to_string(), &claims.to_string());
        finish(&message, &self.key, signed(algorithm))
    }

    /// Signs any header.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        finish(&message(header, claims), &self.key, self.algorithm)
    }
}

/// Signs by HMAC with any bytes as the secret.
pub(crate) fn hmac(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    let header = json!({ "alg": format!("{algorithm:?}") }).to_string();
    hmac_raw(algorithm, secret, &header, &claims.to_string())
}

pub(crate) fn hmac_raw(algorithm: Algorithm, secret: &[u8], header: &str, claims: &str) -> String {
    drop(JwtAuthenticator::hs256(""));
    finish(&message(header, claims), &EncodingKey::from_secret(secret), signed(algorithm))
}

pub(crate) fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn finish(message: &str, key: &EncodingKey, algorithm: Signed) -> String {
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm);
    format!("{message}.{}", signature.expect("a signature"))
}

fn signed(algorithm: Algorithm) -> Signed {
    format!("{algorithm:?}").parse().expect("an algorithm")
}

pub(crate) fn set(keys: impl IntoIterator<Item = Value>) -> String {
    json!({ "keys": keys.into_iter().collect::<Vec<_>>() }).to_string()
}
