//! The events that were sent to one stream directly, until its writer takes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Maximum number of queued events of a stream. A client that is further behind has stopped reading, or is
/// sent more than it can take.
const MAX_EVENTS: usize = 64;

/// Maximum number of queued bytes of a stream, four writes. A single larger event is accepted as well.
/// An event that is sent to many streams is shared by them; this bound is for events of one stream.
const MAX_BYTES: usize = 64 * 1024;

/// One write takes this many bytes of the queue, or a single larger event. It is half a batch, so that
/// neither direct events nor the stream's own events delay the other.
const SHARE: usize = 8 * 1024;

/// The queue of one stream's direct events.
#[derive(Default)]
pub(super) struct DirectQueue {
    /// Whether the queue has events, so that a writer without any takes no lock.
    waiting: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

/// Whether the queue took an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Accepted,
    Full,
    Closed,
}

impl DirectQueue {
    pub(super) fn push(&self, frame: &Bytes) -> Pushed {
        let mut queue = self.lock();
        if queue.closed {
            return Pushed::Closed;
        }
        let over = queue.bytes.saturating_add(frame.len()) > MAX_BYTES;
        if queue.frames.len() >= MAX_EVENTS || (over && !queue.frames.is_empty()) {
            return Pushed::Full;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame.clone());
        self.waiting.store(true, Ordering::Release);
        Pushed::Accepted
    }

    /// Appends one write's share, in order. The task to wake for later events must be registered before.
    pub(super) fn take(&self, out: &mut BytesMut) {
        if !self.waiting.load(Ordering::Acquire) {
            return;
        }
        let mut queue = self.lock();
        let mut taken = 0;
        while let Some(frame) = queue.frames.pop_front_if(|next| fits(taken, next)) {
            taken += frame.len();
            queue.bytes -= frame.len();
            out.extend_from_slice(&frame);
        }
        if queue.frames.is_empty() {
            // Releases the memory: most streams are idle.
            queue.frames = VecDeque::new();
            self.waiting.store(false, Ordering::Release);
        }
    }

    /// Drops the queued events, and accepts no more.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let dropped = std::mem::take(&mut queue.frames);
        drop(queue);
        drop(dropped);
    }

    /// No code that can panic runs under the lock, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fits(taken: usize, next: &Bytes) -> bool {
    taken == 0 || taken + next.len() <= SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, len: usize) -> Bytes {
        vec![byte; len].into()
    }

    fn take(queue: &DirectQueue) -> BytesMut {
        let mut out = BytesMut::new();
        queue.take(&mut out);
        out
    }

    #[test]
    fn the_queue_is_bounded_in_events_and_bytes_and_accepts_one_larger_event() {
        let queue = DirectQueue::default();
        for n in 0..MAX_EVENTS {
            assert_eq!(queue.push(&frame(b'x', 3)), Pushed::Accepted, "{n}");
        }
        assert_eq!(queue.push(&frame(b'x', 3)), Pushed::Full);
        assert_eq!(take(&queue).len(), MAX_EVENTS * 3);
        for n in 0..4 {
            assert_eq!(queue.push(&frame(b'x', MAX_BYTES / 4)), Pushed::Accepted, "{n}");
        }
        assert_eq!(queue.push(&frame(b'x', 1)), Pushed::Full);
        assert_eq!(take(&queue).len(), MAX_BYTES / 4);
        assert_eq!(queue.push(&frame(b'x', MAX_BYTES / 4 + 1)), Pushed::Full);
        assert_eq!(queue.push(&frame(b'x', MAX_BYTES / 4)), Pushed::Accepted);
        while !take(&queue).is_empty() {}
        assert_eq!(queue.push(&frame(b'x', 10 * MAX_BYTES)), Pushed::Accepted);
        assert_eq!(queue.push(&frame(b'x', 1)), Pushed::Full);
        assert_eq!(take(&queue).len(), 10 * MAX_BYTES);
        assert_eq!(queue.lock().frames.capacity(), 0, "an idle stream keeps no memory");
        queue.push(&frame(b'x', 1));
        queue.close();
        assert_eq!((queue.push(&frame(b'x', 1)), take(&queue).len()), (Pushed::Closed, 0));
    }

    #[test]
    fn each_take_returns_half_a_batch_in_order() {
        let queue = DirectQueue::default();
        for byte in 0..10 {
            queue.push(&frame(byte, SHARE / 4 + 1));
        }
        let mut all = Vec::new();
        loop {
            let out = take(&queue);
            if out.is_empty() {
                break;
            }
            assert!(out.len() <= SHARE, "{}", out.len());
            all.extend_from_slice(&out);
        }
        let expected: Vec<_> = (0..10).flat_map(|byte| frame(byte, SHARE / 4 + 1)).collect();
        assert_eq!(all, expected);
    }
}
