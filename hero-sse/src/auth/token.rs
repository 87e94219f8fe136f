//! Finds the bearer token of a request: in the header `Authorization`, a cookie or the query.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;

use crate::policy::{TokenSource, TokenSources};
use crate::redact::QueryTokens;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// Maximum length of a token. Real tokens are far shorter.
const MAX_TOKEN: usize = 8 * 1024;

/// A request's token, and where it was located.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) token: Secret<String>,
    /// The first source that holds it. With a token in a header, the page's origin does not matter.
    pub(crate) source: TokenSource,
}

/// Returns the request's bearer token from one of `sources`, or `None`. `cookie` is the name of the cookie.
///
/// A header of another scheme is ignored. An empty cookie or query parameter is not a token, since pages
/// that are not signed in send such.
pub(crate) fn bearer_token(
    parts: &Parts,
    sources: TokenSources,
    cookie: Option<&str>,
) -> Result<Option<Credential>, Refusal> {
    let mut found = Vec::new();
    if sources.has(TokenSource::Header) {
        found.extend(from_header(parts)?.map(|token| (TokenSource::Header, token)));
    }
    if let Some(name) = cookie.filter(|_| sources.has(TokenSource::Cookie)) {
        found.extend(from_cookie(parts, name)?.map(|token| (TokenSource::Cookie, token)));
    }
    if sources.has(TokenSource::Query) {
        let query = QueryTokens::of(parts).access;
        if query.len() > 1 {
            return Err(Refusal::invalid_request("the parameter access_token is repeated"));
        }
        let token = query.into_iter().find(|token| !token.expose().is_empty());
        found.extend(token.map(|token| (TokenSource::Query, token)));
    }
    let mut found = found.into_iter();
    let Some((source, token)) = found.next() else { return Ok(None) };
    if found.any(|(_, other)| other != token) {
        return Err(Refusal::invalid_request("two different tokens came with the request"));
    }
    if token.expose().len() > MAX_TOKEN {
        return Err(Refusal::invalid_token("the token is too long"));
    }
    Ok(Some(Credential { token, source }))
}

fn from_header(parts: &Parts) -> Result<Option<Secret<String>>, Refusal> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::invalid_request("the Authorization header is repeated"));
    }
    let malformed = || Refusal::invalid_request("the Authorization header is malformed");
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim_matches(' ');
    // RFC 6750, section 2.1: b64token.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(legal) {
        return Err(malformed());
    }
    Ok(Some(Secret::new(token.to_owned())))
}

/// Returns the value of the cookie `name`. HTTP/2 splits cookies over several headers.
///
/// A browser sends two cookies of one name if a sibling domain or a page at another path has set a second
/// one. With two different values the request is refused, since either may be an attacker's.
fn from_cookie(parts: &Parts, name: &str) -> Result<Option<Secret<String>>, Refusal> {
    let lines = parts.headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut found: Option<&[u8]> = None;
    for pair in pairs.map(<[u8]>::trim_ascii) {
        let Some(value) = pair.strip_prefix(name.as_bytes()) else { continue };
        let Some(value) = value.strip_prefix(b"=") else { continue };
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        let value = bare.unwrap_or(value);
        if found.replace(value).is_some_and(|first| first != value) {
            return Err(Refusal::invalid_request("two different cookies hold a token"));
        }
    }
    let Some(value) = found.filter(|value| !value.is_empty()) else { return Ok(None) };
    // RFC 6265, section 4.1.1: cookie-octet.
    let legal =
        |byte: &u8| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E);
    let text = str::from_utf8(value).ok().filter(|text| text.as_bytes().iter().all(legal));
    let token = text.ok_or_else(|| Refusal::invalid_request("the token's cookie is malformed"))?;
    Ok(Some(Secret::new(token.to_owned())))
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};

    use super::*;

    const QUERY: TokenSources = TokenSources::of(&[TokenSource::Header, TokenSource::Query]);
    const HEADER: TokenSources = TokenSources::of(&[TokenSource::Header]);

    type Read = Result<Option<(TokenSource, String)>, StatusCode>;

    fn read(uri: &str, headers: &[(&str, &str)], sources: TokenSources) -> Read {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).expect("a request").into_parts().0;
        bearer_token(&parts, sources, Some("__Host-t"))
            .map(|found| found.map(|found| (found.source, found.token.expose().clone())))
            .map_err(|refusal| refusal.status())
    }

    #[test]
    fn a_token_is_read_from_the_allowed_sources_only() {
        let bad = Err(StatusCode::BAD_REQUEST);
        let header = |token: &str| Ok(Some((TokenSource::Header, token.to_owned())));
        let query = |token: &str| Ok(Some((TokenSource::Query, token.to_owned())));
        for (uri, headers, sources, expected) in [
            ("/", &[][..], QUERY, Ok(None)),
            ("/", &["Bearer a.b-c_d"], QUERY, header("a.b-c_d")),
            ("/", &["bEARER   a"], QUERY, header("a")),
            ("/", &["Basic dTpw"], QUERY, Ok(None)),
            ("/", &["Bearer"], QUERY, bad.clone()),
            ("/", &["Bearer "], QUERY, bad.clone()),
            ("/", &["Bearer a b"], QUERY, bad.clone()),
            ("/", &["Bearer a\"b"], QUERY, bad.clone()),
            ("/", &["Bearer a", "Bearer a"], QUERY, bad.clone()),
            ("/?access_token=q", &[], QUERY, query("q")),
            ("/?access_token=q", &[], HEADER, Ok(None)),
            ("/?access_token=", &[], QUERY, Ok(None)),
            ("/?access_token=q&access_token=q", &[], QUERY, bad.clone()),
            ("/?access_token=q&access_token=r", &[], HEADER, Ok(None)),
            ("/?access_token=q", &["Bearer q"], QUERY, header("q")),
            ("/?access_token=q", &["Bearer h"], QUERY, bad.clone()),
            ("/?access_token=q", &["Bearer h"], HEADER, header("h")),
            ("/?ticket=q", &[], QUERY, Ok(None)),
            ("/", &["Bearer h"], TokenSources::of(&[TokenSource::Query]), Ok(None)),
            ("/", &["Bearer a b"], TokenSources::of(&[TokenSource::Query]), Ok(None)),
        ] {
            let headers: Vec<_> = headers.iter().map(|value| ("authorization", *value)).collect();
            assert_eq!(read(uri, &headers, sources), expected, "{uri} {headers:?} {sources:?}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        assert_eq!(read("/", &[("authorization", &long)], QUERY), Err(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn a_cookie_is_read_by_its_exact_name_from_all_headers() {
        let bad = Err(StatusCode::BAD_REQUEST);
        let some = |token: &str| Ok(Some((TokenSource::Cookie, token.to_owned())));
        for (lines, expected) in [
            (&["__Host-t=a.b"][..], some("a.b")),
            (&["x=1; __Host-t=a; y=2"], some("a")),
            (&["x=1;__Host-t=a;y=2"], some("a")),
            (&["x=1", "__Host-t=a", "y=2"], some("a")),
            (&["__Host-t=\"a\""], some("a")),
            (&["__Host-t=a=="], some("a==")),
            (&["__Host-t="], Ok(None)),
            (&["__Host-t=\"\""], Ok(None)),
            (&["__Host-t"], Ok(None)),
            (&["__host-t=a"], Ok(None)),
            (&["x__Host-t=a; __Host-tx=b; t=c"], Ok(None)),
            (&["x=__Host-t=a"], Ok(None)),
            (&["=__Host-t=a"], Ok(None)),
            (&["__Host-t=a; __Host-t=a"], some("a")),
            (&["__Host-t=a; __Host-t=b"], bad.clone()),
            (&["__Host-t=a", "__Host-t=b"], bad.clone()),
            (&["__Host-t=; __Host-t=b"], bad.clone()),
            (&["__Host-t=\"a"], bad.clone()),
            (&["__Host-t=a b"], bad.clone()),
            (&["__Host-t=a\\b"], bad.clone()),
            (&["__Host-t=\u{e9}"], bad.clone()),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            assert_eq!(read("/", &headers, TokenSources::ALL), expected, "{lines:?}");
            assert_eq!(read("/", &headers, QUERY), Ok(None), "{lines:?}");
        }
        let long = format!("__Host-t={}", "a".repeat(MAX_TOKEN + 1));
        assert_eq!(
            read("/", &[("cookie", &long)], TokenSources::ALL),
            Err(StatusCode::UNAUTHORIZED)
        );
    }

    #[test]
    fn tokens_of_several_sources_must_be_equal() {
        let bad = Err(StatusCode::BAD_REQUEST);
        let some = |source, token: &str| Ok(Some((source, token.to_owned())));
        for (uri, header, cookie, expected) in [
            ("/?access_token=a", "Bearer a", "__Host-t=a", some(TokenSource::Header, "a")),
            ("/?access_token=a", "Basic x", "__Host-t=a", some(TokenSource::Cookie, "a")),
            ("/?access_token=b", "Bearer a", "__Host-t=a", bad.clone()),
            ("/?access_token=b", "Basic x", "__Host-t=a", bad.clone()),
            ("/", "Bearer a", "__Host-t=b", bad.clone()),
        ] {
            let headers = [("authorization", header), ("cookie", cookie)];
            assert_eq!(read(uri, &headers, TokenSources::ALL), expected, "{uri} {headers:?}");
        }
    }
}
