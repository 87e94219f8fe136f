//! Which events of a topic one client gets, and as what: filters, `map` and `take`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::position::Position;
use super::reply::body_of;
use super::ring::{Entry, Value};
use crate::event::SseEvent;
use crate::frame::{has_data, name_of, write_id};

type Accept = Box<dyn FnMut(&Value) -> bool + Send>;

/// What a client sees of its topic.
#[derive(Default)]
pub(super) struct View {
    /// The filters before the first `map`.
    filter: Option<Accept>,
    map: Option<Map>,
    /// The number of events that the client still gets.
    remaining: Option<usize>,
}

/// Makes another event. `true`: the event is the topic's last, which passes every filter.
type Make = Box<dyn FnMut(&Value, bool) -> Option<Value> + Send>;

/// Makes another event of each.
struct Map {
    /// All functions and the filters between them.
    make: Make,
    /// Whether there are filters between them.
    has_filter: bool,
    encode: fn(&Value) -> Result<Bytes, String>,
}

impl View {
    /// Whether the client gets the bytes that all share.
    pub(super) fn is_whole(&self) -> bool {
        self.filter.is_none() && self.map.is_none() && self.remaining.is_none()
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Whether the client has as many events as it is to get.
    pub(super) fn is_done(&self) -> bool {
        self.remaining == Some(0)
    }

    pub(super) fn filter<E: 'static>(
        &mut self,
        mut accept: impl FnMut(&E) -> bool + Send + 'static,
    ) {
        let mut accept = move |value: &Value| value.downcast_ref().is_some_and(&mut accept);
        match &mut self.map {
            Some(map) => {
                let mut make = std::mem::replace(&mut map.make, Box::new(|_, _| None));
                map.has_filter = true;
                map.make = Box::new(move |value, last| {
                    make(value, last).filter(|value| last || accept(value))
                });
            }
            None => {
                let mut earlier = self.filter.take();
                self.filter = Some(Box::new(move |value| {
                    earlier.as_mut().is_none_or(|earlier| earlier(value)) && accept(value)
                }));
            }
        }
    }

    pub(super) fn map<E, O>(&mut self, mut map: impl FnMut(&E) -> O + Send + 'static)
    where
        E: 'static,
        O: SseEvent + Send + Sync + 'static,
    {
        let mut map =
            move |value: &Value| value.downcast_ref().map(|event| Arc::new(map(event)) as Value);
        let (earlier, has_filter) = match self.map.take() {
            Some(earlier) => (Some(earlier.make), earlier.has_filter),
            None => (None, false),
        };
        let make: Make = match earlier {
            Some(mut earlier) => Box::new(move |value, last| map(&earlier(value, last)?)),
            None => Box::new(move |value, _| map(value)),
        };
        self.map = Some(Map { make, has_filter, encode: encode::<O> });
    }

    pub(super) fn take(&mut self, count: usize) {
        self.remaining = Some(self.remaining.map_or(count, |remaining| remaining.min(count)));
    }

    /// Whether the client gets the event. A last event passes every filter.
    pub(super) fn accepts(&mut self, entry: &Entry) -> bool {
        let Some(value) = &entry.value else {
            return self.filter.is_none() && self.map.is_none() || entry.last;
        };
        if let Some(filter) = self.filter.as_mut().filter(|_| !entry.last)
            && !filter(value)
        {
            return false;
        }
        match self.map.as_mut().filter(|map| map.has_filter) {
            Some(map) => (map.make)(value, entry.last).is_some(),
            None => true,
        }
    }

    /// Returns the event as the client gets it. `None`: it does not. `accepted`: it has passed the filters.
    ///
    /// # Errors
    ///
    /// Why it cannot be encoded.
    pub(super) fn apply(
        &mut self,
        entry: &Arc<Entry>,
        accepted: bool,
        position: impl FnOnce() -> Position,
    ) -> Result<Option<Arc<Entry>>, String> {
        if self.is_done() {
            return Ok(None);
        }
        let entry = match &mut self.map {
            None => {
                if !accepted && !self.accepts(entry) {
                    return Ok(None);
                }
                entry.clone()
            }
            Some(map) => {
                // Only an event of another node that cannot be decoded has no value.
                let Some(value) = &entry.value else { return Ok(None) };
                let filter = self.filter.as_mut().filter(|_| !accepted && !entry.last);
                if filter.is_some_and(|filter| !filter(value)) {
                    return Ok(None);
                }
                let Some(made) = (map.make)(value, entry.last) else { return Ok(None) };
                let body = (map.encode)(&made)?;
                Arc::new(mapped(entry, made, &body, &position()))
            }
        };
        if let Some(remaining) = self.remaining.as_mut().filter(|_| entry.has_data) {
            *remaining -= 1;
        }
        if entry.last {
            // It ends the stream as the topic's end does.
            self.remaining = None;
        }
        Ok(Some(entry))
    }
}

fn mapped(entry: &Entry, value: Value, body: &[u8], position: &Position) -> Entry {
    let mut frame = BytesMut::with_capacity(body.len() + 48);
    write_id(&mut frame, position.as_str(), entry.last);
    let start = frame.len();
    frame.extend_from_slice(body);
    Entry {
        offset: entry.offset,
        frame: frame.freeze(),
        body: start,
        has_data: has_data(body),
        name: name_of(body).map(Into::into),
        key: entry.key.clone(),
        last: entry.last,
        value: Some(value),
        at: entry.at,
    }
}

fn encode<O: SseEvent + 'static>(value: &Value) -> Result<Bytes, String> {
    let event: &O = value.downcast_ref().ok_or("the event has another type")?;
    body_of(event).map_err(|error| error.to_string())
}
