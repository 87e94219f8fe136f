//! The readers that wait for new events. Waking them holds no lock, and readers may come and go meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::sync::{AtomicWaker, Mutex, MutexGuard, WAKE_CHUNK};

/// All readers of a ring: waking costs as much as there are readers.
pub(super) struct Waiters(Mutex<Vec<Arc<Waiter>>>);

/// One reader.
pub(super) struct Waiter {
    waker: AtomicWaker,
    /// Its index in the list. It changes under the lock alone.
    index: AtomicUsize,
}

impl Waiter {
    /// Sets the waker to wake for the next event.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl Waiters {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(super) fn len(&self) -> usize {
        self.list().len()
    }

    pub(super) fn register(&self) -> Arc<Waiter> {
        let mut list = self.list();
        let index = AtomicUsize::new(list.len());
        let waiter = Arc::new(Waiter { waker: AtomicWaker::new(), index });
        list.push(waiter.clone());
        waiter
    }

    /// Removes a reader. The last one of the list takes its index.
    pub(super) fn unregister(&self, waiter: &Waiter) {
        let mut list = self.list();
        let index = waiter.index.load(Ordering::Relaxed);
        if index < list.len() {
            // The caller still holds the waiter, so no waker is dropped under the lock.
            list.swap_remove(index);
        }
        if let Some(moved) = list.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
        if list.len() < list.capacity() / 4 {
            let twice = 2 * list.len();
            list.shrink_to(twice);
        }
    }

    /// Wakes all readers, from the end of the list to its start.
    ///
    /// A reader that takes the index of one that leaves meanwhile comes from the end, and was woken. One that
    /// registers meanwhile sees the new event when it reads.
    pub(super) fn wake(&self) {
        let (mut chunk, mut left) = (Vec::new(), usize::MAX);
        while left > 0 {
            {
                let list = self.list();
                let end = left.min(list.len());
                left = end.saturating_sub(WAKE_CHUNK);
                chunk.extend(list.get(left..end).into_iter().flatten().cloned());
            }
            chunk.drain(..).for_each(|waiter| waiter.waker.wake());
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.0.try_lock().is_err()
    }

    /// Holds the lock until the guard is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.list()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::{ArcWake, waker};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// All readers that ever were, and how often each was woken.
    struct Readers {
        waiters: Waiters,
        registered: std::sync::Mutex<Vec<Option<Arc<Waiter>>>>,
        woken: std::sync::Mutex<Vec<usize>>,
        /// When this reader is woken, that one leaves, and perhaps a new one comes.
        leaving: Vec<(usize, usize, bool)>,
    }

    struct Reader(std::sync::Weak<Readers>, usize);

    impl Readers {
        fn come(self: &Arc<Self>) {
            let waiter = self.waiters.register();
            let mut registered = self.registered.lock().expect("no panic");
            waiter.register(&waker(Arc::new(Reader(Arc::downgrade(self), registered.len()))));
            registered.push(Some(waiter));
            self.woken.lock().expect("no panic").push(0);
        }

        fn leave(&self, number: usize) {
            let mut registered = self.registered.lock().expect("no panic");
            let waiter = registered.get_mut(number).and_then(Option::take);
            drop(registered);
            waiter.into_iter().for_each(|waiter| self.waiters.unregister(&waiter));
        }
    }

    impl ArcWake for Reader {
        fn wake_by_ref(reader: &Arc<Self>) {
            let Some(readers) = reader.0.upgrade() else { return };
            readers.woken.lock().expect("no panic")[reader.1] += 1;
            for (_, number, comes) in readers.leaving.iter().filter(|(by, ..)| *by == reader.1) {
                readers.leave(*number);
                if *comes {
                    readers.come();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn each_reader_that_stays_is_woken_once_whoever_comes_and_leaves(
            count in 0..300_usize,
            before in vec(0..300_usize, 0..200),
            leaving in vec((0..300_usize, 0..300_usize, any::<bool>()), 0..300),
        ) {
            let readers = Arc::new(Readers {
                waiters: Waiters::new(),
                registered: std::sync::Mutex::default(),
                woken: std::sync::Mutex::default(),
                leaving,
            });
            (0..count).for_each(|_| readers.come());
            before.iter().for_each(|number| readers.leave(*number));
            let waited: Vec<_> =
                readers.registered.lock().expect("no panic").iter().map(Option::is_some).collect();
            readers.waiters.wake();
            let registered = readers.registered.lock().expect("no panic");
            let woken = readers.woken.lock().expect("no panic");
            for (number, waited) in waited.iter().enumerate() {
                prop_assert!(woken[number] <= usize::from(*waited));
                if *waited && registered[number].is_some() {
                    prop_assert_eq!(woken[number], 1, "{}", number);
                }
            }
            let list = readers.waiters.list();
            prop_assert_eq!(list.len(), registered.iter().flatten().count());
            for (index, waiter) in list.iter().enumerate() {
                prop_assert_eq!(waiter.index.load(Ordering::Relaxed), index);
            }
        }
    }

    #[test]
    fn readers_that_have_left_take_no_memory() {
        let waiters = Waiters::new();
        let mut registered: Vec<_> = (0..10_000).map(|_| waiters.register()).collect();
        registered.drain(..9_999).for_each(|waiter| waiters.unregister(&waiter));
        assert!(waiters.len() == 1 && waiters.list().capacity() < 10);
        registered.iter().for_each(|waiter| waiters.unregister(waiter));
        assert!(waiters.len() == 0 && waiters.list().capacity() == 0);
    }
}
