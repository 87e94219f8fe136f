//! Where a subscription begins, and the events that it misses.

use bytes::BytesMut;
use serde_json::json;

use super::position::Position;
use crate::frame::{GAP, write_control, write_id};

/// How a [`Subscription`](crate::Subscription) begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
    /// It begins as for a new client.
    ///
    /// A topic of the [latest values](crate::Topic::latest) also begins so for an id from another epoch: the client gets
    /// all values, and misses none.
    Live,
    /// It continues after the last event that the client received. The client misses nothing.
    Resumed,
    /// Some events after the client's last one are no longer retained.
    Gap(Gap),
}

/// Events that a subscriber missed and can no longer get.
///
/// A client receives them as `hero.gap`: `{"missed": 3, "from": "..", "to": ".."}`. On a
/// [`MergedSubscription`](crate::MergedSubscription) the data also names the topic: `"part": 0` is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    missed: Option<u64>,
    first: Option<Position>,
    last: Option<Position>,
}

impl Gap {
    pub(super) fn new(
        missed: Option<u64>,
        first: Option<Position>,
        last: Option<Position>,
    ) -> Self {
        Self { missed, first, last }
    }

    /// Returns the number of missed events.
    ///
    /// `None` when the number is unknown: the client's id is from an earlier epoch of the topic, or from another topic.
    pub fn missed(&self) -> Option<u64> {
        self.missed
    }

    /// Returns the position of the first missed event, if it is known.
    pub fn first(&self) -> Option<Position> {
        self.first
    }

    /// Returns the position of the last missed event.
    ///
    /// `None` when the topic still retains every event of its current epoch.
    pub fn last(&self) -> Option<Position> {
        self.last
    }

    /// Writes `hero.gap`. With `id` the client's cursor moves past the gap; `part` is the topic's number on a merged
    /// stream.
    pub(super) fn write(&self, out: &mut BytesMut, part: Option<usize>, id: Option<&str>) {
        let text = |position: Option<Position>| position.map(|position| position.to_string());
        let mut data =
            json!({ "missed": self.missed, "from": text(self.first), "to": text(self.last) });
        if let (Some(part), Some(data)) = (part, data.as_object_mut()) {
            data.insert("part".to_owned(), part.into());
        }
        if let Some(id) = id {
            write_id(out, id, false);
        }
        write_control(out, GAP, &data);
    }

    /// Joins this gap and a later one into one.
    pub(super) fn and(self, later: Self) -> Self {
        let missed = self.missed.zip(later.missed).map(|(one, other)| one + other);
        Self { missed, first: self.first, last: later.last }
    }
}
