//! Tokens: the example issues them itself, and checks them as it would check those of an identity provider.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hero_sse::JwtAuthenticator;
use hero_sse::auth::Permission;
use hero_sse::options::parse_duration;
use hero_sse::prelude::*;
use http::StatusCode;
use jsonwebtoken::{EncodingKey, Header};
use serde::Deserialize;
use serde_json::json;

const ISSUER: &str = "hero-sse live example";
const AUDIENCE: &str = "hero-sse live example";

/// Returns the authenticator for tokens that [`issue`] signed with this secret.
pub fn authenticator(secret: &str) -> JwtAuthenticator {
    // Leeway is for clocks that differ. Here one program issues the tokens and checks them.
    JwtAuthenticator::hs256(secret).issuer(ISSUER).audience(AUDIENCE).leeway(Duration::ZERO)
}

/// Signs tokens.
#[derive(Clone)]
pub struct TokenIssuer {
    key: EncodingKey,
}

impl TokenIssuer {
    /// Creates an issuer that signs with this secret.
    pub fn new(secret: &str) -> Self {
        Self { key: EncodingKey::from_secret(secret.as_bytes()) }
    }
}

/// The body of `POST /token`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    subject: String,
    #[serde(default)]
    permissions: Vec<String>,
    #[serde(default = "one_minute")]
    ttl: String,
}

fn one_minute() -> String {
    "60s".to_owned()
}

/// `POST /token`: signs a token for any subject with any permissions. This is a demo: a real issuer authenticates the
/// user first, and decides itself which permissions the token gets.
///
/// # Errors
///
/// `400` if the request has no subject, a permission that cannot exist, or a lifetime that is not a duration.
pub async fn issue(State(issuer): State<TokenIssuer>, body: Bytes) -> Result<Response, Refusal> {
    let request: TokenRequest = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!(
            "write {{\"subject\": \"..\", \"permissions\": [\"..\"], \"ttl\": \"60s\"}}: {error}"
        ))
    })?;
    if request.subject.is_empty() || request.subject.contains(char::is_control) {
        return Err(Refusal::bad_request("subject: write a name, without control characters"));
    }
    for permission in &request.permissions {
        Permission::new(permission.clone())
            .map_err(|error| Refusal::bad_request(format!("permissions: {error}")))?;
    }
    let lifetime = parse_duration(&request.ttl)
        .map_err(|error| Refusal::bad_request(format!("ttl: {error}")))?
        .ok_or_else(|| Refusal::bad_request("ttl: write a duration such as \"15m\""))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": request.subject,
        "permissions": request.permissions,
        "exp": now.saturating_add(lifetime).as_secs(),
    });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &issuer.key)
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "signing failed"))?;
    Ok(Json(json!({ "token": token })).into_response())
}
