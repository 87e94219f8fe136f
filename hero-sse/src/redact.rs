//! Takes tokens out of requests before anybody can see, log or trace them.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, REFERER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};

use crate::secret::Secret;

/// The query parameter that RFC 6750, section 2.3, gives a token.
const PARAMETER: &str = "access_token";

/// The tokens of a request's query, in order.
#[derive(Clone, Debug)]
pub(crate) struct QueryTokens(Vec<Secret<String>>);

impl QueryTokens {
    /// What [`redact`] put aside, or what the URI still carries where it never ran.
    pub(crate) fn of(parts: &Parts) -> Vec<Secret<String>> {
        match parts.extensions.get::<Self>() {
            Some(tokens) => tokens.0.clone(),
            None => split(parts.uri.query().unwrap_or_default()).0,
        }
    }
}

/// Moves the query's tokens from the URI to a private extension, and marks credential headers so
/// that their `Debug` hides them. The rest of the URI stays as it is, to the byte.
pub(crate) fn redact<B>(request: &mut Request<B>) {
    mark_sensitive(request.headers_mut());
    let (tokens, kept) = split(request.uri().query().unwrap_or_default());
    if let Some(kept) = kept {
        *request.uri_mut() = with_query(request.uri(), &kept);
    }
    request.extensions_mut().insert(QueryTokens(tokens));
}

fn mark_sensitive(headers: &mut HeaderMap) {
    // A page whose own address holds a token sends it as the referrer.
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, REFERER] {
        if let http::header::Entry::Occupied(mut entry) = headers.entry(name) {
            entry.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

/// The tokens of `query`, and what is left without them.
///
/// Only `access_token` itself is a token. What looks like a misspelling of it (another case, `[]`, a
/// `;` before it) is none, but goes as well: it is a token to whoever sent it.
fn split(query: &str) -> (Vec<Secret<String>>, Option<String>) {
    let mut tokens = Vec::new();
    let mut kept = String::new();
    let mut changed = false;
    for piece in query.split_inclusive(['&', ';']) {
        let pair = piece.trim_end_matches(['&', ';']);
        let Some((key, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
            kept.push_str(piece);
            continue;
        };
        if !key.trim().trim_end_matches("[]").eq_ignore_ascii_case(PARAMETER) {
            kept.push_str(piece);
            continue;
        }
        changed = true;
        if key == PARAMETER {
            tokens.push(Secret::new(value.into_owned()));
        }
    }
    if changed && !query.ends_with(['&', ';']) {
        kept.truncate(kept.trim_end_matches(['&', ';']).len());
    }
    (tokens, changed.then_some(kept))
}

fn with_query(uri: &Uri, query: &str) -> Uri {
    let path = uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = uri.clone().into_parts();
    // A part of a legal URI is legal; were it not, a URI without query and token is the safe side.
    parts.path_and_query = target.parse().ok().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(uri: &str) -> (String, Vec<String>) {
        let mut request = Request::get(uri).body(()).expect("a request");
        redact(&mut request);
        let (parts, ()) = request.into_parts();
        let tokens = QueryTokens::of(&parts).iter().map(|t| t.expose().clone()).collect();
        (parts.uri.to_string(), tokens)
    }

    #[test]
    fn tokens_leave_the_uri_and_nothing_else_changes() {
        for (uri, left, tokens) in [
            ("/a", "/a", vec![]),
            ("/a?", "/a?", vec![]),
            ("/a?x=%20+1&y", "/a?x=%20+1&y", vec![]),
            ("/a?access_token=t.t", "/a", vec!["t.t"]),
            ("/a?x=1&access_token=t%2Et&y=2", "/a?x=1&y=2", vec!["t.t"]),
            ("/a?access%5Ftoken=t", "/a", vec!["t"]),
            ("/a?access_token=1&access_token=2", "/a", vec!["1", "2"]),
            ("/a?access_token", "/a", vec![""]),
            ("/a?Access_Token=t&b=1", "/a?b=1", vec![]),
            ("/a?access_token[]=t", "/a", vec![]),
            ("/a?+access_token=t", "/a", vec![]),
            ("/a?x=1;access_token=t", "/a?x=1", vec!["t"]),
            ("/a?x=1;y=2&", "/a?x=1;y=2&", vec![]),
            ("/a?not_access_token=t", "/a?not_access_token=t", vec![]),
            ("http://h:1/a?access_token=t&b", "http://h:1/a?b", vec!["t"]),
        ] {
            let (uri_left, tokens_found) = redacted(uri);
            assert_eq!(
                (uri_left.as_str(), tokens_found),
                (left, tokens.iter().map(|t| (*t).into()).collect())
            );
        }
    }

    #[test]
    fn a_request_that_was_never_redacted_gives_its_tokens_too() {
        let request = Request::get("/a?access_token=t").body(()).expect("a request");
        let tokens = QueryTokens::of(&request.into_parts().0);
        assert_eq!(tokens, vec![Secret::new("t".to_owned())]);
    }

    #[test]
    fn credentials_do_not_show_in_debug() {
        let mut request = Request::get("/?access_token=canary")
            .header(AUTHORIZATION, "Bearer canary")
            .header(COOKIE, "session=canary")
            .body(())
            .expect("a request");
        redact(&mut request);
        let shown = format!("{request:?} {:?}", request.extensions().get::<QueryTokens>());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
