//! [`LastEventId`]: the last event that a reconnecting client received.

use super::field::{END_MARK, END_SUFFIX, Fault, InvalidField, fault_of_id};

/// The id of the last event that a reconnecting client received: an extractor for endpoint functions.
///
/// The id comes from the `Last-Event-ID` header, which a browser sends when it reconnects by itself. The
/// header is read as UTF-8, not only ASCII. Without the header, the query parameter `last_event_id` is
/// read, since a new `EventSource` object cannot send the header.
///
/// A client can send any id. Look it up; never trust it.
///
/// A cursor that cannot be an id is answered with `400`.
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
pub struct LastEventId(Option<String>);

impl LastEventId {
    /// Returns the id, or `None` for a new client.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether the client has received the last event of this stream.
    pub(crate) fn is_end(&self) -> bool {
        self.as_str().is_some_and(|id| id == END_MARK || id.ends_with(END_SUFFIX))
    }

    /// The id without the end mark.
    pub(crate) fn own(&self) -> Option<&str> {
        let id = self.as_str()?;
        Some(id.strip_suffix(END_SUFFIX).unwrap_or(id))
    }

    /// Reads the header `Last-Event-ID`, or else the query parameter `last_event_id`.
    #[cfg(feature = "server")]
    pub(crate) fn from_parts(parts: &http::request::Parts) -> Result<Self, InvalidField> {
        match parts.headers.get("last-event-id") {
            Some(value) => match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => Self::parse(text.to_owned()),
                Err(_) => Err(invalid(Fault::NotUtf8)),
            },
            None => form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .find(|(key, _)| key == "last_event_id")
                .map_or(Ok(Self(None)), |(_, value)| Self::parse(value.into_owned())),
        }
    }

    /// Checks an id as a client sent it. An empty id is none.
    pub(crate) fn parse(id: String) -> Result<Self, InvalidField> {
        if id.is_empty() {
            return Ok(Self(None));
        }
        let own = id.strip_suffix(END_SUFFIX).unwrap_or(&id);
        match fault_of_id(own).filter(|_| own != END_MARK) {
            None => Ok(Self(Some(id))),
            Some(fault) => Err(invalid(fault)),
        }
    }
}

fn invalid(fault: Fault) -> InvalidField {
    InvalidField::new("Last-Event-ID", fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(header: Option<&[u8]>, uri: &str) -> Result<LastEventId, InvalidField> {
        let mut request = http::Request::get(uri);
        if let Some(header) = header {
            request = request.header("last-event-id", header);
        }
        LastEventId::from_parts(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn the_cursor_comes_from_the_header_and_else_from_the_query() {
        let id = |header: Option<&[u8]>, uri| cursor(header, uri).map(|id| id.0);
        assert_eq!(id(None, "/"), Ok(None));
        assert_eq!(id(Some("é7".as_bytes()), "/"), Ok(Some("é7".into())));
        assert_eq!(id(None, "/?a=1&last_event_id=a%20b"), Ok(Some("a b".into())));
        assert_eq!(id(Some(b"1"), "/?last_event_id=2"), Ok(Some("1".into())));
        assert_eq!(id(Some(b""), "/"), Ok(None));
        assert!(cursor(Some(b"hero.end"), "/").is_ok_and(|id| id.is_end()));
        assert!(cursor(Some(b"7;hero.end"), "/").is_ok_and(|id| id.is_end()));
        assert!(cursor(Some(b"\xff"), "/").is_err());
        assert!(cursor(Some(&[b'x'; 257]), "/").is_err());
        assert!(cursor(None, "/?last_event_id=a%0Ab").is_err());
    }
}
