//! Parses the compact serialization of a token (RFC 7515, section 7.1). Refuses everything that two parsers
//! could read differently.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::InvalidToken;

/// Maximum length of a token, whatever its source.
const MAX_TOKEN: usize = 8 * 1024;

pub(super) const MALFORMED: InvalidToken = InvalidToken::new("the token is malformed");
const EXTENSIONS: InvalidToken =
    InvalidToken::new("the token needs extensions that are not supported");

/// The parts of a token. None is trusted before the signature is verified.
pub(super) struct Compact<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    /// The signed text: the first two parts with the dot between them.
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
}

impl<'a> Compact<'a> {
    /// Parses a token. Its errors depend on the token alone, so they reveal no keys or issuers.
    pub(super) fn read(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > MAX_TOKEN {
            return Err(InvalidToken::new("the token is too long"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = message.split_once('.').ok_or(MALFORMED)?;
        // Another dot, as in an encrypted token, is not base64url.
        if URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(MALFORMED);
        }
        let (header, claims) = (object(header)?, object(claims)?);
        // An extension that is not supported must not be ignored (RFC 7515, section 4.1.11). `b64` (RFC 7797)
        // is one even without `crit`.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(EXTENSIONS);
        }
        Ok(Self { header, claims, message, signature })
    }
}

fn object(part: &str) -> Result<Map<String, Value>, InvalidToken> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    // Of two members with one name, serde_json keeps the last and other parsers the first.
    serde_json::from_slice::<Unambiguous>(&json).map_err(|_| MALFORMED)?;
    serde_json::from_slice(&json).map_err(|_| MALFORMED)
}

/// JSON in which the members of every object have different names.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Unambiguous;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name is repeated"));
            }
            map.next_value::<Unambiguous>()?;
        }
        Ok(Unambiguous)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unambiguous, A::Error> {
        while seq.next_element::<Unambiguous>()?.is_some() {}
        Ok(Unambiguous)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_unit<E>(self) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn tokens_that_parsers_could_read_differently_are_refused() {
        let good =
            token(r#"{"alg": "HS256"}"#, r#"{"sub": "ann", "a": [1, {"b": 2.5, "sub": null}]}"#);
        let read = Compact::read(&good).expect("a token");
        assert_eq!(read.claims["sub"], "ann");
        assert_eq!((read.message, read.signature), good.rsplit_once('.').expect("a dot"));
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200));
        for (header, claims) in [
            ("{}", r#"{"sub": "ann", "sub": "root"}"#),
            ("{}", r#"{"sub": "ann", "s\u0075b": "root"}"#),
            ("{}", r#"{"a": [{"b": {"c": 1, "c": 1}}]}"#),
            (r#"{"alg": "none", "alg": "HS256"}"#, "{}"),
            ("{}", "[]"),
            ("[]", "{}"),
            ("{}", "{} {}"),
            ("{}", "{\"a\": NaN}"),
            ("{}", "{\"a\": 1e999}"),
            ("{}", "\u{feff}{}"),
            ("{}", &deep),
            ("", "{}"),
            ("{}", ""),
        ] {
            assert_eq!(
                Compact::read(&token(header, claims)).err(),
                Some(MALFORMED),
                "{header} {claims}"
            );
        }
        for header in
            [r#"{"crit": []}"#, r#"{"crit": ["exp"]}"#, r#"{"b64": false}"#, r#"{"b64": true}"#]
        {
            assert_eq!(Compact::read(&token(header, "{}")).err(), Some(EXTENSIONS), "{header}");
        }
        // `e30` is `{}`. The last character of `e31` has bits that are not part of the value.
        for token in [
            "",
            ".",
            "..",
            "e30.e30",
            "e30.e30.A",
            "e31.e30.AAAA",
            "e30.e31.AAAA",
            "e30.e30.AB",
            "e30=.e30.AAAA",
            "e30.e30.AAAA=",
            "e30.e30.AAAA.AAAA",
            "e30.e30.AAAA.AAAA.AAAA",
            " e30.e30.AAAA",
            "e30.e30.AAAA\n",
            "e3 0.e30.AAAA",
            "e30.e30.AA+/",
        ] {
            assert_eq!(Compact::read(token).err(), Some(MALFORMED), "{token:?}");
        }
        assert!(Compact::read(&format!("e30.e30.{}", "A".repeat(MAX_TOKEN))).is_err());
    }
}
