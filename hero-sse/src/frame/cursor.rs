//! [`LastEventId`]: the last event that a reconnecting client received.

use super::field::{END_MARK, END_SUFFIX, Fault, InvalidField, fault_of_id};

/// The names of the query parameter, in any case. A new `EventSource` object cannot send the header, and the
/// libraries that replace it chose different names: `lastEventId`, `lastEventID`, `Last-Event-ID`.
#[cfg(feature = "server")]
const PARAMETERS: [&str; 3] = ["last_event_id", "last-event-id", "lasteventid"];

/// The id of the last event that a reconnecting client received: an extractor for endpoint functions.
///
/// The id comes from the first of these that is not empty:
///
/// 1. the header `Last-Event-ID`, which a browser sends when it reconnects by itself;
/// 2. the query parameter `last_event_id`, `last-event-id` or `lastEventId`, in any case. Of several, the last one
///    counts: client libraries append theirs to the page's URL.
///
/// Both are read as UTF-8.
///
/// A client can send any id. Look it up; never trust it.
///
/// A cursor that cannot be an id does not fail the request. It is an unknown cursor: [`as_str`](Self::as_str) returns
/// `None`, and [`invalid`](Self::invalid) the reason. A [`Subscription`](crate::Subscription) answers it with a gap.
///
/// ```
/// use hero_sse::futures_core::Stream;
/// use hero_sse::{Event, LastEventId};
///
/// async fn numbers(cursor: LastEventId) -> impl Stream<Item = Event> {
///     let last: u32 = cursor.as_str().and_then(|id| id.parse().ok()).unwrap_or(0);
///     let event = |n: u32| Event::text(n.to_string()).with_id(n).expect("a number is an id");
///     futures_util::stream::iter((last + 1..=10).map(event))
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(alias = "Last-Event-ID")]
#[doc(alias = "resume")]
pub struct LastEventId {
    id: Option<String>,
    /// Why the cursor of the request cannot be an id. Then `id` is `None`.
    invalid: Option<InvalidField>,
}

impl LastEventId {
    /// Returns the id. `None` for a new client, and for an [invalid](Self::invalid) cursor.
    pub fn as_str(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns why the request's cursor cannot be an id: it is too long, has control characters, is not UTF-8, or the
    /// header is repeated with another value. `None` for a new client, and for an id.
    ///
    /// Such a client has received events before, but nobody knows which. Treat it as a client that missed some:
    ///
    /// ```
    /// # use hero_sse::LastEventId;
    /// fn plan(cursor: &LastEventId) -> &'static str {
    ///     match (cursor.as_str(), cursor.invalid()) {
    ///         (Some(_), _) => "resume after the id",
    ///         (None, Some(_)) => "send the whole state",
    ///         (None, None) => "start as for a new client",
    ///     }
    /// }
    /// # assert_eq!(plan(&LastEventId::default()), "start as for a new client");
    /// ```
    pub fn invalid(&self) -> Option<&InvalidField> {
        self.invalid.as_ref()
    }

    /// Whether the client has received the last event of this stream.
    pub(crate) fn is_end(&self) -> bool {
        self.as_str().is_some_and(|id| id == END_MARK || id.ends_with(END_SUFFIX))
    }

    /// Whether the client sent a cursor, of whatever form.
    pub(crate) fn is_sent(&self) -> bool {
        self.id.is_some() || self.invalid.is_some()
    }

    /// The id without the end mark.
    pub(crate) fn own(&self) -> Option<&str> {
        let id = self.as_str()?;
        Some(id.strip_suffix(END_SUFFIX).unwrap_or(id))
    }

    /// Reads the header, or else the query.
    #[cfg(feature = "server")]
    pub(crate) fn from_parts(parts: &http::request::Parts) -> Self {
        let of_query = || Self::in_query(parts.uri.query().unwrap_or_default());
        Self::in_headers(&parts.headers).or_else(of_query).unwrap_or_default()
    }

    #[cfg(feature = "server")]
    fn in_headers(headers: &http::HeaderMap) -> Option<Self> {
        let sent = |value: &&http::HeaderValue| !value.is_empty();
        let mut values = headers.get_all("last-event-id").iter().filter(sent);
        let first = values.next()?;
        if values.any(|other| other != first) {
            return Some(Self::unusable(Fault::Repeated));
        }
        Some(match str::from_utf8(first.as_bytes()) {
            Ok(id) => Self::checked(id),
            Err(_) => Self::unusable(Fault::NotUtf8),
        })
    }

    #[cfg(feature = "server")]
    fn in_query(query: &str) -> Option<Self> {
        query.rsplit('&').find_map(|pair| {
            let (key, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            let named = PARAMETERS.iter().any(|name| key.eq_ignore_ascii_case(name));
            // The decoder replaces what is not UTF-8.
            match value.contains(char::REPLACEMENT_CHARACTER) {
                _ if !named || value.is_empty() => None,
                true => Some(Self::unusable(Fault::NotUtf8)),
                false => Some(Self::checked(&value)),
            }
        })
    }

    /// Checks an id as a client sent it.
    #[cfg(feature = "server")]
    fn checked(id: &str) -> Self {
        let own = id.strip_suffix(END_SUFFIX).unwrap_or(id);
        match fault_of_id(own).filter(|_| own != END_MARK) {
            None => Self { id: Some(id.to_owned()), invalid: None },
            Some(fault) => Self::unusable(fault),
        }
    }

    #[cfg(feature = "server")]
    fn unusable(fault: Fault) -> Self {
        Self { id: None, invalid: Some(InvalidField::new("Last-Event-ID", fault)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(headers: &[&[u8]], uri: &str) -> LastEventId {
        let mut request = http::Request::get(uri);
        for header in headers {
            request = request.header("last-event-id", *header);
        }
        LastEventId::from_parts(&request.body(()).expect("a request").into_parts().0)
    }

    fn id(headers: &[&[u8]], uri: &str) -> Option<String> {
        let cursor = cursor(headers, uri);
        assert_eq!(cursor.invalid(), None, "{headers:?} {uri}");
        cursor.id
    }

    #[test]
    fn the_cursor_comes_from_the_header_and_else_from_the_query() {
        let some = |id: &str| Some(id.to_owned());
        assert_eq!(id(&[], "/"), None);
        assert_eq!(id(&["é7".as_bytes()], "/"), some("é7"));
        assert_eq!(id(&[b"1"], "/?last_event_id=2"), some("1"));
        assert_eq!(id(&[b""], "/"), None);
        assert_eq!(id(&[b""], "/?lastEventId=2"), some("2"), "an empty header is none");
        assert_eq!(id(&[b"1", b"1", b""], "/"), some("1"));
        for name in [
            "last_event_id",
            "lastEventId",
            "lastEventID",
            "Last-Event-ID",
            "last-event-id",
            "LAST_EVENT_ID",
            "last%5Fevent_id",
        ] {
            assert_eq!(id(&[], &format!("/?a=1&{name}=a%20b&c")), some("a b"), "{name}");
            assert_eq!(id(&[], &format!("/?{name}=")), None, "{name}");
        }
        for name in ["last_event_ids", "xlastEventId", "lastEvent", "last_event_id[]", "id"] {
            assert_eq!(id(&[], &format!("/?{name}=1")), None, "{name}");
        }
        // event-source-polyfill appends its cursor to a URL in which the page wrote another one.
        assert_eq!(id(&[], "/?last_event_id=1&lastEventId=2"), some("2"));
        assert_eq!(id(&[], "/?lastEventId=1&last_event_id=2&lastEventId="), some("2"));
        // Escapes that are none stay as they are.
        assert_eq!(id(&[], "/?lastEventId=a%zz%2"), some("a%zz%2"));
        assert_eq!(id(&[], "/?lastEventId=a+b%2Bc"), some("a b+c"));
    }

    #[test]
    fn a_cursor_that_cannot_be_an_id_is_unknown_and_says_why() {
        let long = [b'x'; 257];
        let longer = format!("/?lastEventId={}", "%41".repeat(10_000));
        for (headers, uri, why) in [
            (&[&b"\xff"[..]][..], "/", "is not UTF-8"),
            (&[&long], "/", "is longer than 256 bytes"),
            (&[b"a\tb"], "/", "contains a control character"),
            (&[b"1", b"2"], "/", "is repeated with another value"),
            (&[b"\xff"], "/?last_event_id=1", "is not UTF-8"),
            (&[], "/?last_event_id=a%0Ab", "contains a control character"),
            (&[], "/?lastEventId=%ff", "is not UTF-8"),
            (&[], "/?lastEventId=1&lastEventId=%00", "contains a control character"),
            (&[], "/?lastEventId=%20a", "starts or ends with white space, which browsers cut off"),
            (&[], longer.as_str(), "is longer than 256 bytes"),
        ] {
            let cursor = cursor(headers, uri);
            assert_eq!(cursor.as_str(), None, "{headers:?} {uri}");
            let invalid = cursor.invalid().expect("a reason").to_string();
            assert_eq!(invalid, format!("the Last-Event-ID {why}"), "{headers:?} {uri}");
            assert!(!cursor.is_end() && cursor.own().is_none());
        }
    }

    #[test]
    fn the_end_mark_is_read_from_everywhere() {
        for (headers, uri) in [
            (&[&b"hero.end"[..]][..], "/"),
            (&[b"7;hero.end"], "/"),
            (&[], "/?lastEventId=7%3Bhero.end"),
            (&[], "/?last-event-id=hero.end"),
        ] {
            assert!(cursor(headers, uri).is_end(), "{headers:?} {uri}");
        }
        for uri in ["/?lastEventId=hero.end7", "/?lastEventId=%0A;hero.end", "/?a=hero.end"] {
            assert!(!cursor(&[], uri).is_end(), "{uri}");
        }
    }
}
