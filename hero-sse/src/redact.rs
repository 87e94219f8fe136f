//! Removes tokens from requests before any layer or handler can log or trace them.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::extract::{FromRequestParts, OriginalUri};
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, REFERER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, Uri};
use tower::{Layer, Service};

use crate::secret::Secret;

/// The query parameter for a token (RFC 6750, section 2.3).
const ACCESS_TOKEN: &str = "access_token";

/// The query parameter for a ticket.
const TICKET: &str = "ticket";

/// The tokens and tickets of a request's query, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryTokens {
    pub(crate) access: Vec<Secret<String>>,
    pub(crate) tickets: Vec<Secret<String>>,
}

impl QueryTokens {
    /// Returns those that [`redact`] has removed from the URI, and those that are still in it.
    pub(crate) fn of(parts: &Parts) -> Self {
        let mut tokens: Self = parts.extensions.get().cloned().unwrap_or_default();
        if let Some(query) = parts.uri.query() {
            tokens.append(split(query, true).0);
        }
        tokens
    }

    fn append(&mut self, others: Self) {
        self.access.extend(others.access);
        self.tickets.extend(others.tickets);
    }
}

/// Extracts the query parameters `access_token` and `ticket`, which are removed from the URI, for applications
/// that use parameters of these names themselves. On a server without tickets, `ticket` also stays in the URI.
///
/// The values are not verified. To authenticate the caller, extract [`Principal`](crate::Principal). If a parameter
/// is repeated, the first value counts.
///
/// ```
/// use hero_sse::server::QueryToken;
///
/// async fn support(query: QueryToken) -> String {
///     let number = query.ticket().map_or("none", |ticket| ticket.expose());
///     format!("your ticket: {number}")
/// }
/// ```
#[derive(Clone, Debug)]
pub struct QueryToken(QueryTokens);

impl QueryToken {
    /// Returns the value of `access_token`.
    pub fn access_token(&self) -> Option<&Secret<String>> {
        self.0.access.first()
    }

    /// Returns the value of `ticket`.
    pub fn ticket(&self) -> Option<&Secret<String>> {
        self.0.tickets.first()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for QueryToken {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(QueryTokens::of(parts)))
    }
}

/// A layer that removes tokens from requests, for servers other than [`HeroSse::serve`](crate::HeroSse::serve).
/// Created by [`HeroSse::redact_layer`](crate::HeroSse::redact_layer).
#[derive(Clone, Copy, Debug)]
pub struct RedactLayer {
    pub(crate) removed: Removed,
}

/// Which parameters leave the URI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed {
    /// Any at all.
    pub(crate) tokens: bool,
    /// `ticket` as well. On a server without tickets it is the application's: help desks and CAS use the name.
    pub(crate) tickets: bool,
}

impl<S> Layer<S> for RedactLayer {
    type Service = Redact<S>;

    fn layer(&self, inner: S) -> Redact<S> {
        Redact { inner, removed: self.removed }
    }
}

/// The service that a [`RedactLayer`] creates.
#[derive(Clone, Copy, Debug)]
pub struct Redact<S> {
    inner: S,
    removed: Removed,
}

impl<S, B> Service<Request<B>> for Redact<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        redact(&mut request, self.removed);
        self.inner.call(request)
    }
}

/// Marks credential headers as sensitive, so that `Debug` hides them. Moves tokens from the URI to a private
/// extension, if they are to be removed, and leaves the rest of the URI unchanged. A second call changes nothing.
pub(crate) fn redact<B>(request: &mut Request<B>, removed: Removed) {
    mark_sensitive(request.headers_mut());
    if !removed.tokens {
        return;
    }
    let taken = take(request.uri_mut(), removed);
    // Inside a router there is a second copy of the URI.
    if let Some(OriginalUri(uri)) = request.extensions_mut().get_mut() {
        take(uri, removed);
    }
    let mut tokens: QueryTokens = request.extensions_mut().remove().unwrap_or_default();
    tokens.append(taken);
    request.extensions_mut().insert(tokens);
}

fn take(uri: &mut Uri, removed: Removed) -> QueryTokens {
    let (tokens, kept) = split(uri.query().unwrap_or_default(), removed.tickets);
    if let Some(kept) = kept {
        *uri = with_query(uri, &kept);
    }
    tokens
}

fn mark_sensitive(headers: &mut HeaderMap) {
    // The referrer may be the URL of a page with a token. A proxy may forward the URL in a header.
    const FORWARDED_URI: [HeaderName; 4] = [
        HeaderName::from_static("x-forwarded-uri"),
        HeaderName::from_static("x-original-uri"),
        HeaderName::from_static("x-original-url"),
        HeaderName::from_static("x-rewrite-url"),
    ];
    let own = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, REFERER];
    for name in own.into_iter().chain(FORWARDED_URI) {
        if let http::header::Entry::Occupied(mut entry) = headers.entry(name) {
            entry.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

/// Characters that separate parameters, or that clients use as separators by mistake.
const SEPARATORS: [char; 3] = ['&', ';', '?'];

/// Returns the tokens of `query`, and the query without them if that is different.
///
/// Only a parameter of the exact name is a token. Misspelled names (another case, `[]`, after `;`) are not, but
/// are removed as well: their values are secrets all the same. Without `tickets`, a ticket is an ordinary parameter.
fn split(query: &str, tickets: bool) -> (QueryTokens, Option<String>) {
    let mut tokens = QueryTokens::default();
    let mut kept = String::new();
    let mut changed = false;
    // A second `?` is a common mistake, and a token after it is a secret as well.
    for piece in query.split_inclusive(SEPARATORS) {
        let pair = piece.trim_end_matches(SEPARATORS);
        let Some((key, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
            kept.push_str(piece);
            continue;
        };
        let intended = key.trim().trim_end_matches("[]");
        let (name, found) = if intended.eq_ignore_ascii_case(ACCESS_TOKEN) {
            (ACCESS_TOKEN, &mut tokens.access)
        } else if tickets && intended.eq_ignore_ascii_case(TICKET) {
            (TICKET, &mut tokens.tickets)
        } else {
            kept.push_str(piece);
            continue;
        };
        changed = true;
        if key == name {
            found.push(Secret::new(value.into_owned()));
        }
    }
    if changed && !query.ends_with(SEPARATORS) {
        kept.truncate(kept.trim_end_matches(SEPARATORS).len());
    }
    (tokens, changed.then_some(kept))
}

fn with_query(uri: &Uri, query: &str) -> Uri {
    let path = uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = uri.clone().into_parts();
    // A part of a valid URI is valid. If it were not, a URI without query and token is safe.
    parts.path_and_query = target.parse().ok().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Removed = Removed { tokens: true, tickets: true };

    fn redacted(uri: &str) -> (String, Vec<String>) {
        let mut request = Request::get(uri).body(()).expect("a request");
        redact(&mut request, ALL);
        redact(&mut request, ALL);
        let (parts, ()) = request.into_parts();
        let QueryTokens { access, tickets } = QueryTokens::of(&parts);
        let tickets = tickets.iter().map(|ticket| format!("ticket {}", ticket.expose()));
        let tokens = access.iter().map(|token| token.expose().clone()).chain(tickets).collect();
        (parts.uri.to_string(), tokens)
    }

    #[test]
    fn tokens_are_removed_from_the_uri_and_nothing_else_changes() {
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
            ("/a?x=1?access_token=t", "/a?x=1", vec!["t"]),
            ("/a?x=1?y?z=??", "/a?x=1?y?z=??", vec![]),
            ("/a??access_token=t&b=?", "/a??b=?", vec!["t"]),
            ("/a?ticket=t", "/a", vec!["ticket t"]),
            (
                "/a?ticket=1&x=1&access_token=2&ticket=3",
                "/a?x=1",
                vec!["2", "ticket 1", "ticket 3"],
            ),
            ("/a?%74icket=t&TICKET=u&ticket[]=v&+ticket=w", "/a", vec!["ticket t"]),
            ("/a?tickets=t&my_ticket=u", "/a?tickets=t&my_ticket=u", vec![]),
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
    fn without_tickets_a_parameter_of_that_name_stays() {
        let uri = "/login?ticket=ST-1&access_token=t&TICKET=u";
        let mut request = Request::get(uri).body(()).expect("a request");
        redact(&mut request, Removed { tickets: false, ..ALL });
        assert_eq!(request.uri(), "/login?ticket=ST-1&TICKET=u");
        // A server with tickets inside of one without them still finds it, once.
        let tickets = |request: Request<()>| {
            let QueryTokens { access, tickets } = QueryTokens::of(&request.into_parts().0);
            assert_eq!(access, [Secret::new("t".to_owned())]);
            tickets
        };
        assert_eq!(tickets(request.clone()), [Secret::new("ST-1".to_owned())]);
        redact(&mut request, ALL);
        assert_eq!(request.uri(), "/login");
        assert_eq!(tickets(request), [Secret::new("ST-1".to_owned())]);
    }

    #[test]
    fn tokens_of_a_request_that_was_not_redacted_are_found_in_the_uri() {
        let request = Request::get("/a?access_token=t").body(()).expect("a request");
        let tokens = QueryTokens::of(&request.into_parts().0);
        assert_eq!(tokens.access, vec![Secret::new("t".to_owned())]);
    }

    #[test]
    fn without_query_only_headers_are_hidden() {
        let uri = "/a?access_token=t&ticket=u";
        let mut request = Request::get(uri).header(AUTHORIZATION, "Bearer x").body(()).expect("it");
        redact(&mut request, Removed { tokens: false, ..ALL });
        assert_eq!(request.uri(), uri);
        let (parts, ()) = request.into_parts();
        assert!(parts.headers[AUTHORIZATION].is_sensitive());
        let QueryTokens { access, tickets } = QueryTokens::of(&parts);
        assert_eq!((access.len(), tickets.len()), (1, 1));
    }

    #[test]
    fn credentials_do_not_show_in_debug() {
        let mut request = Request::get("/?access_token=canary&ticket=canary")
            .header(AUTHORIZATION, "Bearer canary")
            .header(COOKIE, "session=canary")
            .header(REFERER, "https://app.example.com/?access_token=canary")
            .header("x-original-uri", "/s?access_token=canary")
            .body(())
            .expect("a request");
        redact(&mut request, ALL);
        let shown = format!("{request:?} {:?}", request.extensions().get::<QueryTokens>());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
