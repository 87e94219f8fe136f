//! What the claims of a verified token say: who the caller is, for how long, and what it may do.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::claim_path::ClaimPath;
use super::issuer::{Accepted, Issuer};
use super::{InvalidToken, Principal};

const MISSING: InvalidToken = InvalidToken::new("the token lacks a required claim");
const MALFORMED: InvalidToken = InvalidToken::new("the token's claims are malformed");

/// The last second of the year 9999. A later time is a mistake of units, such as milliseconds.
const LAST_SECOND: f64 = 253_402_300_799.0;

impl Issuer {
    /// Makes the principal of a token whose signature is verified.
    pub(super) fn principal(
        &self,
        claims: Map<String, Value>,
        token_type: Option<&str>,
        now: SystemTime,
    ) -> Result<Principal, InvalidToken> {
        if let Some(expected) = &self.token_type
            && token_type
                .is_none_or(|found| !media_type(found).eq_ignore_ascii_case(media_type(expected)))
        {
            return Err(InvalidToken::new("the token is of another type"));
        }
        let valid_until = self.valid_until(&claims, now)?;
        let issuer = match claims.get("iss") {
            Some(Value::String(issuer)) if self.names.accept(issuer) => Some(issuer.clone()),
            Some(Value::String(_)) => {
                return Err(InvalidToken::new("the token comes from another issuer"));
            }
            Some(_) => return Err(MALFORMED),
            None if self.names == Accepted::Any => None,
            None => return Err(MISSING),
        };
        let audiences = match claims.get("aud") {
            None if self.audiences == Accepted::Any => vec![],
            None => return Err(MISSING),
            Some(claim) => strings(claim).ok_or(MALFORMED)?,
        };
        if self.audiences != Accepted::Any
            && !audiences.iter().any(|audience| self.audiences.accept(audience))
        {
            return Err(InvalidToken::new("the token is meant for another audience"));
        }
        let subject = string_at(&self.subject, &claims)?.ok_or(MISSING)?;
        let mut principal = Principal::new(subject).valid_until(valid_until);
        if let Some(issuer) = issuer {
            principal = principal.issued_by(issuer);
        }
        if let Some(tenant) = string_at(&self.tenant, &claims)? {
            principal = principal.with_tenant(tenant);
        }
        for claim in self.permissions.iter().filter_map(|path| path.find_in(&claims)) {
            let permissions = match claim {
                Value::String(scope) => scope.split(' ').collect(),
                claim => strings(claim).ok_or(MALFORMED)?,
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

    /// Returns until when the token is accepted, leeway included.
    fn valid_until(
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
                time.map(Some).ok_or(MALFORMED)
            }
        };
        let (expiry, not_before, _) = (time("exp")?.ok_or(MISSING)?, time("nbf")?, time("iat")?);
        let valid_until = expiry.checked_add(self.leeway).ok_or(MALFORMED)?;
        if valid_until <= now {
            return Err(InvalidToken::new("the token has expired"));
        }
        if not_before.is_some_and(|from| from > now + self.leeway) {
            return Err(InvalidToken::new("the token is not valid yet"));
        }
        Ok(valid_until)
    }
}

/// Strips `application/` from a media type, where it is optional (RFC 7515, section 4.1.9).
fn media_type(name: &str) -> &str {
    const PREFIX: &str = "application/";
    match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => name,
    }
}

/// Returns a claim that must be a string if it is present.
fn string_at<'a>(
    path: &ClaimPath,
    claims: &'a Map<String, Value>,
) -> Result<Option<&'a str>, InvalidToken> {
    match path.find_in(claims) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(MALFORMED),
    }
}

/// Reads a string, or a list of strings.
fn strings(claim: &Value) -> Option<Vec<&str>> {
    match claim {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
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
    fn times_are_checked_with_leeway_at_both_ends() {
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
    fn issuer_audience_subject_and_type_must_match() {
        let other = |what: &'static str| move |claims: &mut Value| claims[what] = json!("other");
        let error = |claims| read(&issuer(), claims, None).err();
        assert_eq!(error(claims(other("iss"))), Some("the token comes from another issuer"));
        assert_eq!(error(claims(other("aud"))), Some("the token is meant for another audience"));
        assert_eq!(error(claims(|c| c["aud"] = json!(["other", "usage"]))), None);
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
            assert_eq!(error(claims(|c| c[name] = value.clone())), malformed, "{name} {value}");
        }
        for name in ["iss", "aud", "sub"] {
            let without = claims(|c| drop(c.as_object_mut().expect("a map").remove(name)));
            assert_eq!(error(without), Some("the token lacks a required claim"), "{name}");
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
    fn permissions_tenant_and_subject_come_from_the_configured_claims() {
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

    #[test]
    fn a_claim_is_found_by_name_or_path() {
        let claims = json!({
            "scope": "a",
            "https://example.com/roles": "b",
            "realm_access": { "roles": "c" },
            "resource_access": { "my.app": { "roles": "d" } },
            "org.id": "e",
            "org": { "id": "f", "name": "g" },
        });
        let claims = claims.as_object().expect("a map");
        let at = |path: ClaimPath| path.find_in(claims).and_then(Value::as_str);
        assert_eq!(at("scope".into()), Some("a"));
        assert_eq!(at("https://example.com/roles".into()), Some("b"));
        assert_eq!(at("realm_access.roles".into()), Some("c"));
        assert_eq!(at(["resource_access", "my.app", "roles"].into()), Some("d"));
        assert_eq!(at("org.id".into()), Some("e"), "the name takes precedence over the path");
        assert_eq!(at(["org", "id"].into()), Some("f"));
        assert_eq!(at("org.name".to_owned().into()), Some("g"));
        for path in ["", "none", "scope.a", "org", "realm_access.roles.c", "realm_access."] {
            assert_eq!(at(path.into()), None, "{path}");
        }
        assert_eq!(at([].into()), None);
    }
}
