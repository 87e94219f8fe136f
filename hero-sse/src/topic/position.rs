//! Where an event stands in its topic, and the id that says so on the wire.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::frame::LastEventId;

/// So many topics on one stream have room in one id.
pub(super) const MOST_TOPICS: usize = 8;

/// The offset of no event: who has its id begins as a new client.
pub(super) const NEW: u64 = u64::MAX;

/// The same of who misses something and cannot say what. No log comes so far.
pub(super) const LOST: u64 = u64::MAX - 1;

/// The length of an id, in bytes.
const ID: usize = 22;

/// What stands between the ids of several topics; no id holds it.
const BETWEEN: char = '.';

/// One life of a topic's log. After another has begun, positions of this one mean nothing any more: an
/// offset alone would lie after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 16]);

impl Epoch {
    /// A new one, that nobody can guess.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // It is still another epoch; only that clients could make up ids, of events they may see anyway.
            fastrand::fill(&mut bytes);
        }
        Self(bytes)
    }

    /// That of a log which outlives the process, as it was kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What to keep of it. It is the secret that ids are made with.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Epoch(..)")
    }
}

/// Where an event stands in its topic: which one it is in this life of the topic's log.
///
/// Its `Display` is the id that the event has on the wire. The id is opaque: it says nothing to who has not made
/// it, not even whether there was something between two events, and nobody else can make one. It is good for
/// this topic and this life of its log alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    offset: u64,
    id: [u8; ID],
}

impl Position {
    /// The number of the event in its topic: the first is 1, without holes. Clients that are sent it learn how many
    /// events there are.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
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

/// One of several subscriptions to one topic on one stream, in the order in which they were joined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Twin {
    pub(super) nth: usize,
    pub(super) of: usize,
}

impl Twin {
    /// It is the only one.
    pub(super) const NONE: Self = Self { nth: 0, of: 1 };
}

/// Makes and reads the ids of one topic in one epoch.
///
/// An id is a tag and the offset, hidden by what the tag makes of the key (a synthetic initialisation vector, with
/// SHA-256 as the pseudorandom function): to be read it must have been made here.
#[derive(Clone)]
pub(super) struct Ids {
    key: [u8; 32],
}

impl Ids {
    pub(super) fn new(topic: &str, epoch: Epoch) -> Self {
        let mut hash = Sha256::new();
        hash.update(epoch.0);
        hash.update(topic);
        Self { key: hash.finalize().into() }
    }

    pub(super) fn of(&self, offset: u64) -> Position {
        let tag = self.keyed(b'T', offset);
        let hidden = offset ^ self.keyed(b'M', tag);
        let mut bytes = [0; 16];
        let (front, back) = bytes.split_at_mut(8);
        front.copy_from_slice(&tag.to_be_bytes());
        back.copy_from_slice(&hidden.to_be_bytes());
        let mut id = [0; ID];
        // Sixteen bytes are 22 characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut id);
        Position { offset, id }
    }

    /// The offset of an id that was made here.
    pub(super) fn read(&self, id: &str) -> Option<u64> {
        let mut bytes = [0; 18];
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut bytes).ok()?;
        let (tag, hidden) = bytes.get(..length)?.split_at_checked(8)?;
        let tag = u64::from_be_bytes(tag.try_into().ok()?);
        let offset = u64::from_be_bytes(hidden.try_into().ok()?) ^ self.keyed(b'M', tag);
        (self.keyed(b'T', offset) == tag).then_some(offset)
    }

    /// What the offset of one of these ids is, of which each may be of another topic. Of several it is that of the
    /// twin, or the first if they are not as many as there are twins; before all others, that something is missing.
    pub(super) fn find(&self, cursor: &LastEventId, twin: Twin) -> Option<u64> {
        let offsets: Vec<_> = parts(cursor).filter_map(|id| self.read(id)).collect();
        if offsets.len() == twin.of {
            return offsets.get(twin.nth).copied();
        }
        offsets.into_iter().min_by_key(|offset| (*offset != LOST, *offset))
    }

    /// Whether these are of the same topic, in the same epoch.
    pub(super) fn are(&self, other: &Self) -> bool {
        self.key == other.key
    }

    fn keyed(&self, domain: u8, input: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update([domain]);
        hash.update(input.to_be_bytes());
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The ids that a client's is made of.
pub(super) fn parts(cursor: &LastEventId) -> impl Iterator<Item = &str> {
    cursor.own().into_iter().flat_map(|ids| ids.split(BETWEEN).take(MOST_TOPICS))
}

/// One id of several.
pub(super) fn join<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut joined = String::with_capacity(MOST_TOPICS * (ID + 1));
    for id in ids {
        if !joined.is_empty() {
            joined.push(BETWEEN);
        }
        joined.push_str(id);
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(topic: &str, epoch: u8) -> Ids {
        Ids::new(topic, Epoch([epoch; 16]))
    }

    proptest! {
        #[test]
        fn an_id_is_read_where_it_was_made_and_nowhere_else(offset: u64, other: u64) {
            let position = ids("audit", 1).of(offset);
            prop_assert_eq!(position.as_str().len(), ID);
            prop_assert_eq!(position.offset(), offset);
            prop_assert_eq!(ids("audit", 1).read(position.as_str()), Some(offset));
            prop_assert_eq!(ids("audit", 2).read(position.as_str()), None);
            prop_assert_eq!(ids("audits", 1).read(position.as_str()), None);
            prop_assert_eq!(ids("audit", 1).of(other) == position, other == offset);
        }

        #[test]
        fn an_id_that_was_touched_is_none(offset: u64, at in 0..ID, to in "[A-Za-z0-9_-]") {
            let id = ids("audit", 1).of(offset).to_string();
            let mut touched = id.clone();
            touched.replace_range(at..=at, &to);
            prop_assert_eq!(ids("audit", 1).read(&touched), (touched == id).then_some(offset));
        }

        #[test]
        fn no_text_is_read_by_accident_or_panics(text in ".{0,300}") {
            prop_assert_eq!(ids("audit", 1).read(&text), None);
        }
    }

    /// Each of several subscriptions to one topic has its own; nothing is lost to who has more places or fewer than
    /// there are subscriptions. A client cannot make one read its id for long.
    #[test]
    fn of_several_places_in_one_topic_each_has_its_own_or_the_first_counts() {
        let (ids, other) = (ids("audit", 1), ids("other", 1));
        let find_as = |twin: Twin, parts: &[Position]| {
            let id = join(parts.iter().map(Position::as_str));
            let request = http::Request::builder().header("last-event-id", id);
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            ids.find(&LastEventId::from_parts(&parts).expect("an id"), twin)
        };
        let find = |parts: &[Position]| find_as(Twin::NONE, parts);
        let three = [other.of(1), ids.of(5), ids.of(3), ids.of(4)];
        assert_eq!(find(&three), Some(3));
        let twins = |of| (0..of).map(move |nth| Twin { nth, of });
        let each = |of| twins(of).map(|twin| find_as(twin, &three)).collect::<Vec<_>>();
        assert_eq!(each(3), [Some(5), Some(3), Some(4)]);
        assert_eq!((each(2), each(4)), (vec![Some(3); 2], vec![Some(3); 4]));
        assert_eq!(find(&[ids.of(5), ids.of(LOST), ids.of(0)]), Some(LOST));
        assert_eq!(find(&[ids.of(NEW), ids.of(5)]), Some(5));
        let mut many = vec![other.of(1); MOST_TOPICS];
        assert_eq!(find(&many), None);
        many.push(ids.of(1));
        assert_eq!(find(&many), None);
        assert_eq!(find(&many[1..]), Some(1));
    }

    /// Neighbours differ everywhere, so that nobody counts what is between two events.
    #[test]
    fn an_id_tells_nothing_of_its_offset() {
        let ids = ids("audit", 1);
        let (one, two) = (ids.of(1), ids.of(2));
        let same = one.as_str().bytes().zip(two.as_str().bytes()).filter(|(a, b)| a == b).count();
        assert!(same < 5, "{one} {two}");
    }
}
