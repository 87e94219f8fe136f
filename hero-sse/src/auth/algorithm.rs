//! Signature algorithms of JSON Web Tokens, and the kind of key that each needs.

use jsonwebtoken::Algorithm as Backend;

/// Signature algorithm of a JSON Web Token (RFC 7518, section 3.1).
///
/// ```
/// use hero_sse::JwtAuthenticator;
/// use hero_sse::auth::Algorithm;
///
/// let jwt = JwtAuthenticator::jwks_file("/etc/app/keys.json")
///     .algorithms([Algorithm::ES256, Algorithm::EdDSA])
///     .issuer("https://id.example.com")
///     .audience("usage");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256. Needs a secret of at least 32 bytes, shared with the issuer.
    HS256,
    /// HMAC with SHA-384. Needs a secret of at least 48 bytes.
    HS384,
    /// HMAC with SHA-512. Needs a secret of at least 64 bytes.
    HS512,
    /// RSA (PKCS #1 v1.5) with SHA-256. Needs a key of 2048 to 8192 bits.
    RS256,
    /// RSA (PKCS #1 v1.5) with SHA-384. Needs a key of 2048 to 8192 bits.
    RS384,
    /// RSA (PKCS #1 v1.5) with SHA-512. Needs a key of 2048 to 8192 bits.
    RS512,
    /// RSA (PSS) with SHA-256. Needs a key of 2048 to 8192 bits.
    PS256,
    /// RSA (PSS) with SHA-384. Needs a key of 2048 to 8192 bits.
    PS384,
    /// RSA (PSS) with SHA-512. Needs a key of 2048 to 8192 bits.
    PS512,
    /// ECDSA on the curve P-256 with SHA-256.
    ES256,
    /// ECDSA on the curve P-384 with SHA-384.
    ES384,
    /// Ed25519. A token's header may also name it `Ed25519` (RFC 9864).
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

    /// Finds an algorithm by its registered name. Names are case-sensitive.
    pub(super) fn by_name(name: &str) -> Option<Self> {
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

    pub(super) const fn key_kind(self) -> KeyKind {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => KeyKind::Secret,
            Self::RS256 | Self::RS384 | Self::RS512 => KeyKind::Rsa,
            Self::PS256 | Self::PS384 | Self::PS512 => KeyKind::Rsa,
            Self::ES256 => KeyKind::P256,
            Self::ES384 => KeyKind::P384,
            Self::EdDSA => KeyKind::Ed25519,
        }
    }

    /// A shorter secret weakens the hash (RFC 7518, section 3.2).
    pub(super) const fn min_secret_bytes(self) -> usize {
        match self {
            Self::HS512 => 64,
            Self::HS384 => 48,
            _ => 32,
        }
    }

    pub(super) const fn backend(self) -> Backend {
        match self {
            Self::HS256 => Backend::HS256,
            Self::HS384 => Backend::HS384,
            Self::HS512 => Backend::HS512,
            Self::RS256 => Backend::RS256,
            Self::RS384 => Backend::RS384,
            Self::RS512 => Backend::RS512,
            Self::PS256 => Backend::PS256,
            Self::PS384 => Backend::PS384,
            Self::PS512 => Backend::PS512,
            Self::ES256 => Backend::ES256,
            Self::ES384 => Backend::ES384,
            Self::EdDSA => Backend::EdDSA,
        }
    }
}

/// What a key is. It limits the algorithms that the key can be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeyKind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Secret => "a symmetric secret",
            Self::Rsa => "an RSA key",
            Self::P256 => "a key on P-256",
            Self::P384 => "a key on P-384",
            Self::Ed25519 => "an Ed25519 key",
        }
    }

    /// The algorithm of a public key that names none, unless the issuer lists algorithms.
    pub(super) const fn default_algorithm(self) -> Option<Algorithm> {
        match self {
            Self::Secret => None,
            Self::Rsa => Some(Algorithm::RS256),
            Self::P256 => Some(Algorithm::ES256),
            Self::P384 => Some(Algorithm::ES384),
            Self::Ed25519 => Some(Algorithm::EdDSA),
        }
    }
}
