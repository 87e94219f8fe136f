//! What was sent to a stream from elsewhere, until its writer takes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// So many events wait for one stream at most: a client that is further behind has stopped reading, or
/// is sent more than it can take.
const MOST: usize = 64;

/// So many bytes wait for one stream, beyond which only a single event does: four writes. The events
/// are shared by all whom they were sent to; this is for those that only one is sent.
const BYTES: usize = 64 * 1024;

/// A write takes so much of the mail, or a single event: half a batch, so that neither the mail nor the
/// stream's own events keep the other waiting.
const SHARE: usize = 8 * 1024;

/// Where the events wait that were sent to one stream.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Whether there is any: a writer without mail takes no lock.
    waiting: AtomicBool,
    mail: Mutex<Mail>,
}

#[derive(Default)]
struct Mail {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

/// What became of an event that was to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    Accepted,
    Full,
    Closed,
}

impl Mailbox {
    pub(super) fn post(&self, frame: &Bytes) -> Posted {
        let mut mail = self.lock();
        if mail.closed {
            return Posted::Closed;
        }
        let over = mail.bytes.saturating_add(frame.len()) > BYTES;
        if mail.frames.len() >= MOST || (over && !mail.frames.is_empty()) {
            return Posted::Full;
        }
        mail.bytes += frame.len();
        mail.frames.push_back(frame.clone());
        self.waiting.store(true, Ordering::Release);
        Posted::Accepted
    }

    /// Appends what a write takes of it, in order. The task that is woken for mail must be known before.
    pub(super) fn collect(&self, out: &mut BytesMut) {
        if !self.waiting.load(Ordering::Acquire) {
            return;
        }
        let mut mail = self.lock();
        let mut taken = 0;
        while let Some(frame) = mail.frames.pop_front_if(|next| fits(taken, next)) {
            taken += frame.len();
            mail.bytes -= frame.len();
            out.extend_from_slice(&frame);
        }
        if mail.frames.is_empty() {
            // An idle stream keeps nothing of it.
            mail.frames = VecDeque::new();
            self.waiting.store(false, Ordering::Release);
        }
    }

    /// Drops what waits, and takes nothing more.
    pub(super) fn close(&self) {
        let mut mail = self.lock();
        mail.closed = true;
        let dropped = std::mem::take(&mut mail.frames);
        drop(mail);
        drop(dropped);
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn collect(mailbox: &Mailbox) -> BytesMut {
        let mut out = BytesMut::new();
        mailbox.collect(&mut out);
        out
    }

    #[test]
    fn a_mailbox_is_bounded_in_events_and_in_bytes_and_always_takes_one() {
        let mailbox = Mailbox::default();
        for n in 0..MOST {
            assert_eq!(mailbox.post(&frame(b'x', 3)), Posted::Accepted, "{n}");
        }
        assert_eq!(mailbox.post(&frame(b'x', 3)), Posted::Full);
        assert_eq!(collect(&mailbox).len(), MOST * 3);
        for n in 0..4 {
            assert_eq!(mailbox.post(&frame(b'x', BYTES / 4)), Posted::Accepted, "{n}");
        }
        assert_eq!(mailbox.post(&frame(b'x', 1)), Posted::Full);
        assert_eq!(collect(&mailbox).len(), BYTES / 4);
        assert_eq!(mailbox.post(&frame(b'x', BYTES / 4 + 1)), Posted::Full);
        assert_eq!(mailbox.post(&frame(b'x', BYTES / 4)), Posted::Accepted);
        while !collect(&mailbox).is_empty() {}
        assert_eq!(mailbox.post(&frame(b'x', 10 * BYTES)), Posted::Accepted);
        assert_eq!(mailbox.post(&frame(b'x', 1)), Posted::Full);
        assert_eq!(collect(&mailbox).len(), 10 * BYTES);
        assert_eq!(mailbox.lock().frames.capacity(), 0, "an idle stream keeps nothing");
        mailbox.post(&frame(b'x', 1));
        mailbox.close();
        assert_eq!((mailbox.post(&frame(b'x', 1)), collect(&mailbox).len()), (Posted::Closed, 0));
    }

    #[test]
    fn a_write_takes_half_a_batch_in_order() {
        let mailbox = Mailbox::default();
        for byte in 0..10 {
            mailbox.post(&frame(byte, SHARE / 4 + 1));
        }
        let mut all = Vec::new();
        loop {
            let out = collect(&mailbox);
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
