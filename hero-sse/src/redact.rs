//! Takes tokens out of requests before anybody can see, log or trace them.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, REFERER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};

use crate::secret::Secret;

/// The query parameter that RFC 6750, section 2.3, gives a token.
const PARAMETER: &str = "access_token";

/// The one that a ticket stands in.
const TICKET: &str = "ticket";

/// The tokens and tickets of a request's query, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryTokens {
    pub(crate) access: Vec<Secret<String>>,
    pub(crate) tickets: Vec<Secret<String>>,
}

impl QueryTokens {
    /// What [`redact`] put aside, or what the URI still carries where it never ran.
    pub(crate) fn of(parts: &Parts) -> Self {
        match parts.extensions.get::<Self>() {
            Some(tokens) => tokens.clone(),
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
    request.extensions_mut().insert(tokens);
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
/// Only `access_token` and `ticket` themselves are. What looks like a misspelling (another case, `[]`, a `;` before
/// it) is none, but goes as well: it is a token to whoever sent it.
fn split(query: &str) -> (QueryTokens, Option<String>) {
    let mut found = QueryTokens::default();
    let mut kept = String::new();
    let mut changed = false;
    for piece in query.split_inclusive(['&', ';']) {
        let pair = piece.trim_end_matches(['&', ';']);
        let Some((key, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
            kept.push_str(piece);
            continue;
        };
        let name = key.trim().trim_end_matches("[]");
        if ![PARAMETER, TICKET].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            kept.push_str(piece);
            continue;
        }
        changed = true;
        if key == PARAMETER {
            found.access.push(Secret::new(value.into_owned()));
        } else if key == TICKET {
            found.tickets.push(Secret::new(value.into_owned()));
        }
    }
    if changed && !query.ends_with(['&', ';']) {
        kept.truncate(kept.trim_end_matches(['&', ';']).len());
    }
    (found, changed.then_some(kept))
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
        let tokens = QueryTokens::of(&parts).access.iter().map(|t| t.expose().clone()).collect();
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
            ("/a?ticket=t&b=1", "/a?b=1", vec![]),
            ("/a?access_token=t&Ticket=t&tickets=2", "/a?tickets=2", vec!["t"]),
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
        let tokens = QueryTokens::of(&request.into_parts().0).access;
        assert_eq!(tokens, vec![Secret::new("t".to_owned())]);
        let mut request = Request::get("/a?ticket=1&ticket=2").body(()).expect("a request");
        let two = ["1", "2"].map(|text| Secret::new(text.to_owned())).to_vec();
        assert_eq!(QueryTokens::of(&request.clone().into_parts().0).tickets, two);
        redact(&mut request);
        assert_eq!(QueryTokens::of(&request.into_parts().0).tickets, two);
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
