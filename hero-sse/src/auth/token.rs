//! Where a bearer token may stand in a request: the `Authorization` header, then the query.

use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::redact::QueryTokens;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// A token longer than this is not read; real ones stay far below.
const MAX_TOKEN: usize = 8 * 1024;

/// The request's bearer token, if it has one.
///
/// A header of another scheme is none of ours. An empty query parameter is no token: pages that are
/// not signed in send it.
pub(crate) fn bearer_token(
    parts: &Parts,
    accept_query: bool,
) -> Result<Option<Secret<String>>, Refusal> {
    let mut tokens = Vec::new();
    tokens.extend(from_header(parts)?);
    if accept_query {
        let query = QueryTokens::of(parts).access;
        if query.len() > 1 {
            return Err(Refusal::invalid_request("the parameter access_token is repeated"));
        }
        tokens.extend(query.into_iter().filter(|token| !token.expose().is_empty()));
    }
    if let Some((first, rest)) = tokens.split_first()
        && rest.iter().any(|token| token != first)
    {
        return Err(Refusal::invalid_request("two different tokens came with the request"));
    }
    match tokens.into_iter().next() {
        Some(token) if token.expose().len() > MAX_TOKEN => {
            Err(Refusal::invalid_token("the token is too long"))
        }
        token => Ok(token),
    }
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

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};

    use super::*;

    fn read(uri: &str, headers: &[&str], query: bool) -> Result<Option<String>, StatusCode> {
        let mut request = Request::get(uri);
        for header in headers {
            request = request.header(AUTHORIZATION, *header);
        }
        let parts = request.body(()).expect("a request").into_parts().0;
        bearer_token(&parts, query)
            .map(|token| token.map(|token| token.expose().clone()))
            .map_err(|refusal| refusal.status())
    }

    #[test]
    fn a_token_is_read_from_the_header_or_the_query_and_never_guessed() {
        let bad = Err(StatusCode::BAD_REQUEST);
        let some = |token: &str| Ok(Some(token.to_owned()));
        for (uri, headers, query, expected) in [
            ("/", &[][..], true, Ok(None)),
            ("/", &["Bearer a.b-c_d"], true, some("a.b-c_d")),
            ("/", &["bEARER   a"], true, some("a")),
            ("/", &["Basic dTpw"], true, Ok(None)),
            ("/", &["Bearer"], true, bad.clone()),
            ("/", &["Bearer "], true, bad.clone()),
            ("/", &["Bearer a b"], true, bad.clone()),
            ("/", &["Bearer a\"b"], true, bad.clone()),
            ("/", &["Bearer a", "Bearer a"], true, bad.clone()),
            ("/?access_token=q", &[], true, some("q")),
            ("/?access_token=q", &[], false, Ok(None)),
            ("/?access_token=", &[], true, Ok(None)),
            ("/?access_token=q&access_token=q", &[], true, bad.clone()),
            ("/?access_token=q", &["Bearer q"], true, some("q")),
            ("/?access_token=q", &["Bearer h"], true, bad.clone()),
            ("/?access_token=q", &["Bearer h"], false, some("h")),
        ] {
            assert_eq!(read(uri, headers, query), expected, "{uri} {headers:?} {query}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        assert_eq!(read("/", &[&long], true), Err(StatusCode::UNAUTHORIZED));
    }
}
