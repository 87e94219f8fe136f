//! The parts of the ring, as the model checker knows them.

use std::sync::{Arc, Mutex as Plain, PoisonError};
use std::task::Waker;

use loom::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Whoever leaves between two of them is not missed either.
pub(crate) const WAKE_CHUNK: usize = 1;

/// One pointer that is read without a lock: what was stored is numbered, and the number is what the checker
/// sees. It promises no more than the real one, so a reader may find an older one unless something orders the two.
pub(crate) struct ArcSwap<T> {
    current: AtomicUsize,
    stored: Plain<Vec<Arc<T>>>,
}

impl<T> ArcSwap<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self { current: AtomicUsize::new(0), stored: Plain::new(vec![value]) }
    }

    pub(crate) fn load(&self) -> Arc<T> {
        let current = self.current.load(Ordering::Acquire);
        self.numbered(|stored| stored[current].clone())
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        let number = self.numbered(|stored| {
            stored.push(value);
            stored.len() - 1
        });
        let before = self.current.swap(number, Ordering::AcqRel);
        self.numbered(|stored| stored[before].clone())
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        self.swap(value);
    }

    fn numbered<R>(&self, with: impl FnOnce(&mut Vec<Arc<T>>) -> R) -> R {
        with(&mut self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}
