//! Positions of events in a topic, and the ids that stand for them on the wire.

use std::fmt;
use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac_sha256::HMAC;
use serde::{Serialize, Serializer};
use siphasher::sip::SipHasher24;

use crate::frame::LastEventId;

/// The id of a merged stream has room for this many topics.
pub(super) const MAX_MERGED_TOPICS: usize = 8;

/// The length of an id, in bytes.
const ID_LENGTH: usize = 22;

/// Separates the ids in that of a merged stream. No id contains it.
const SEPARATOR: char = '.';

/// One epoch of a topic's log: from when it starts until it is lost, mostly with its process.
///
/// Positions of an earlier epoch are invalid in the next one. An offset alone would mean another event there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 16]);

impl Epoch {
    /// Returns a new epoch that nobody can guess.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // The epoch is still a new one. Clients could forge ids, but only of events that they may read anyway.
            fastrand::fill(&mut bytes);
        }
        Self(bytes)
    }

    /// Returns the stored epoch of a log that outlives the process.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes to store with a log. They are the secret that ids are made with.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Epoch(..)")
    }
}

/// The position of an event in its topic.
///
/// Its `Display` is the event's id on the wire, and so is its JSON. The id is opaque: clients can neither forge one nor
/// tell how many events lie between two. It is valid for one topic in one epoch. A client that sends it as
/// `Last-Event-ID`, or as `?last_event_id=`, receives the events after it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    offset: u64,
    id: [u8; ID_LENGTH],
}

impl Position {
    /// Returns the number of the event in its topic. The first is 1, and no number is left out. 0 is the position before
    /// the first event.
    ///
    /// A client that is sent this number learns how many events there are.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the event's id on the wire.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }
}

impl Position {
    /// Joins the position of another topic, for a client that opens both on one stream.
    ///
    /// ```
    /// # use hero_sse::prelude::*;
    /// # use hero_sse::topic::MergedPosition;
    /// # use serde::Serialize;
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Usage { used: u64 }
    /// # #[derive(Serialize, SseEvent)]
    /// # struct Audit { what: String }
    /// fn dashboard(usage: &Topic<Usage>, audit: &Topic<Audit>) -> MergedPosition {
    ///     usage.position().and(audit.position())
    /// }
    /// ```
    pub fn and(self, other: Self) -> MergedPosition {
        MergedPosition { id: self.as_str().to_owned(), positions: 1 }.and(other)
    }
}

/// Serializes the id as a string.
impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({}, {self})", self.offset)
    }
}

/// The positions of several topics, for a [`MergedSubscription`](crate::MergedSubscription): see [`Position::and`].
///
/// Its `Display` and its JSON are one id, as the stream itself sends it. A topic of the stream whose position is missing
/// starts as for a new client.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MergedPosition {
    id: String,
    positions: usize,
}

impl MergedPosition {
    /// Joins the position of another topic. The order does not matter. A ninth is ignored: a stream has at most eight
    /// topics.
    #[must_use]
    pub fn and(mut self, other: Position) -> Self {
        if self.positions < MAX_MERGED_TOPICS {
            self.id.push(SEPARATOR);
            self.id.push_str(other.as_str());
            self.positions += 1;
        }
        self
    }

    /// Returns the id on the wire.
    pub fn as_str(&self) -> &str {
        &self.id
    }
}

/// Serializes the id as a string.
impl Serialize for MergedPosition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.id)
    }
}

impl fmt::Display for MergedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl fmt::Debug for MergedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergedPosition({self})")
    }
}

/// From where a client would resume in one topic.
#[derive(Clone, Copy)]
pub(super) enum ClientCursor {
    /// After this position.
    At(Position),
    /// As a new client.
    New,
    /// After a gap of unknown size.
    Unknown,
}

impl ClientCursor {
    /// The part of this topic in the id of a merged stream; a new client has none.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::At(position) => Some(position.as_str()),
            Self::New => None,
            // The topic it stands for answers it with a gap.
            Self::Unknown => Some(UNKNOWN_ID),
        }
    }
}

/// Makes and reads the ids of one topic in one epoch.
///
/// An id is a tag and the offset, encrypted under that tag: a synthetic initialisation vector, with SipHash-2-4 as the
/// pseudorandom function. It is made for short inputs and a secret key, and takes a third of SHA-256's time with every
/// event that is published. Only an id that was made with the same key can be read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct EpochIds {
    key: [u8; 16],
}

impl EpochIds {
    pub(super) fn new(topic: &str, epoch: Epoch) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&HMAC::mac(topic, epoch.0)[..16]);
        Self { key }
    }

    pub(super) fn position(&self, offset: u64) -> Position {
        let tag = self.keyed(b'T', offset);
        let hidden = offset ^ self.keyed(b'M', tag);
        let mut bytes = [0; 16];
        let (front, back) = bytes.split_at_mut(8);
        front.copy_from_slice(&tag.to_be_bytes());
        back.copy_from_slice(&hidden.to_be_bytes());
        let mut id = [0; ID_LENGTH];
        // Sixteen bytes are 22 characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut id);
        Position { offset, id }
    }

    /// Returns the offset of an id that was made here.
    pub(super) fn offset_of(&self, id: &str) -> Option<u64> {
        let mut bytes = [0; 18];
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut bytes).ok()?;
        let (tag, hidden) = bytes.get(..length)?.split_at_checked(8)?;
        let tag = u64::from_be_bytes(tag.try_into().ok()?);
        let offset = u64::from_be_bytes(hidden.try_into().ok()?) ^ self.keyed(b'M', tag);
        (self.keyed(b'T', offset) == tag).then_some(offset)
    }

    /// Returns the offset that a client's cursor has in this topic. Of several, which no server sends, the lowest
    /// counts: a replayed event is better than a missed one.
    pub(super) fn resume_offset(&self, cursor: &LastEventId) -> Option<u64> {
        ids_in(cursor).filter_map(|id| self.offset_of(id)).min()
    }

    fn keyed(&self, domain: u8, input: u64) -> u64 {
        let mut hash = SipHasher24::new_with_key(&self.key);
        hash.write(&[domain]);
        hash.write(&input.to_be_bytes());
        hash.finish()
    }
}

/// What no topic makes as an id.
pub(super) const UNKNOWN_ID: &str = "-";

/// Returns the ids of the topics in a client's cursor. An invalid cursor has an unknown one.
pub(super) fn ids_in(cursor: &LastEventId) -> impl Iterator<Item = &str> {
    let unknown = cursor.invalid().map(|_| UNKNOWN_ID);
    cursor
        .own()
        .or(unknown)
        .into_iter()
        .flat_map(|ids| ids.split(SEPARATOR).take(MAX_MERGED_TOPICS))
}

/// Joins the ids of several topics into one.
pub(super) fn join_ids<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut joined = String::with_capacity(MAX_MERGED_TOPICS * (ID_LENGTH + 1));
    for id in ids {
        if !joined.is_empty() {
            joined.push(SEPARATOR);
        }
        joined.push_str(id);
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(topic: &str, epoch: u8) -> EpochIds {
        EpochIds::new(topic, Epoch([epoch; 16]))
    }

    proptest! {
        #[test]
        fn an_id_is_valid_for_its_topic_and_epoch_alone(offset: u64, other: u64) {
            let position = ids("audit", 1).position(offset);
            prop_assert_eq!(position.as_str().len(), ID_LENGTH);
            prop_assert_eq!(position.offset(), offset);
            prop_assert_eq!(ids("audit", 1).offset_of(position.as_str()), Some(offset));
            prop_assert_eq!(ids("audit", 2).offset_of(position.as_str()), None);
            prop_assert_eq!(ids("audits", 1).offset_of(position.as_str()), None);
            prop_assert_eq!(ids("audit", 1).position(other) == position, other == offset);
        }

        #[test]
        fn a_changed_id_is_invalid(offset: u64, at in 0..ID_LENGTH, to in "[A-Za-z0-9_-]") {
            let id = ids("audit", 1).position(offset).to_string();
            let mut changed = id.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(ids("audit", 1).offset_of(&changed), (changed == id).then_some(offset));
        }

        #[test]
        fn arbitrary_text_is_invalid_and_does_not_panic(text in ".{0,300}") {
            prop_assert_eq!(ids("audit", 1).offset_of(&text), None);
        }
    }

    #[test]
    fn a_cursor_with_several_ids_resumes_at_the_lowest_and_reads_eight() {
        let (ids, other) = (ids("audit", 1), ids("other", 1));
        let resume_offset = |parts: &[Position]| {
            let id = join_ids(parts.iter().map(Position::as_str));
            let request = http::Request::builder().header("last-event-id", id);
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            ids.resume_offset(&LastEventId::from_parts(&parts))
        };
        let three = [other.position(1), ids.position(5), ids.position(3), ids.position(4)];
        assert_eq!(resume_offset(&three), Some(3));
        let mut many = vec![other.position(1); MAX_MERGED_TOPICS];
        assert_eq!(resume_offset(&many), None);
        many.push(ids.position(1));
        assert_eq!(resume_offset(&many), None);
        assert_eq!(resume_offset(&many[1..]), Some(1));
    }

    /// Ids of neighbours share no more characters than any two, so that nobody counts the events between them.
    #[test]
    fn an_id_does_not_reveal_its_offset() {
        let ids = ids("audit", 1);
        let (one, two) = (ids.position(1), ids.position(2));
        let same = one.as_str().bytes().zip(two.as_str().bytes()).filter(|(a, b)| a == b).count();
        assert!(same < 5, "{one} {two}");
    }
}
