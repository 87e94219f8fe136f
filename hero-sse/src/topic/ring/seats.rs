//! Who waits at a ring, and how they are woken: without the lock on the list of them, and each whoever comes and goes
//! meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::sync::{AT_A_TIME, AtomicWaker, Mutex, MutexGuard};

/// The seats of those who are there, and no others: waking costs as much as there are.
pub(super) struct Seats(Mutex<Vec<Arc<Seat>>>);

/// One reader's.
pub(super) struct Seat {
    waker: AtomicWaker,
    /// Where it stands in the list. It changes under the lock alone.
    at: AtomicUsize,
}

impl Seat {
    /// Wakes this when there is something new.
    pub(super) fn wait(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl Seats {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(super) fn len(&self) -> usize {
        self.list().len()
    }

    pub(super) fn take(&self) -> Arc<Seat> {
        let mut list = self.list();
        let seat = Arc::new(Seat { waker: AtomicWaker::new(), at: AtomicUsize::new(list.len()) });
        list.push(seat.clone());
        seat
    }

    /// Gives a seat back. The last one takes its place.
    pub(super) fn leave(&self, seat: &Seat) {
        let mut list = self.list();
        let at = seat.at.load(Ordering::Relaxed);
        if at < list.len() {
            // What it holds is dropped with the reader, without the lock.
            list.swap_remove(at);
        }
        if let Some(moved) = list.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
        if list.len() < list.capacity() / 4 {
            let twice = 2 * list.len();
            list.shrink_to(twice);
        }
    }

    /// Wakes all who wait, from the last to the first: who takes the place of one who leaves meanwhile comes from
    /// the end, and has been woken. Who comes meanwhile sees what is new without that.
    pub(super) fn wake(&self) {
        let (mut some, mut left) = (Vec::new(), usize::MAX);
        while left > 0 {
            {
                let list = self.list();
                let end = left.min(list.len());
                left = end.saturating_sub(AT_A_TIME);
                some.extend(list.get(left..end).into_iter().flatten().cloned());
            }
            some.drain(..).for_each(|seat| seat.waker.wake());
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.0.try_lock().is_err()
    }

    /// Holds the lock while this lives.
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

    /// Everybody who has been there, and who is there now.
    struct Room {
        seats: Seats,
        there: std::sync::Mutex<Vec<Option<Arc<Seat>>>>,
        woken: std::sync::Mutex<Vec<usize>>,
        /// What happens when somebody is woken: these leave, and one comes.
        leaving: Vec<(usize, usize, bool)>,
    }

    struct Guest(std::sync::Weak<Room>, usize);

    impl Room {
        fn come(self: &Arc<Self>) {
            let seat = self.seats.take();
            let mut there = self.there.lock().expect("sound");
            seat.wait(&waker(Arc::new(Guest(Arc::downgrade(self), there.len()))));
            there.push(Some(seat));
            self.woken.lock().expect("sound").push(0);
        }

        fn go(&self, number: usize) {
            let mut there = self.there.lock().expect("sound");
            let seat = there.get_mut(number).and_then(Option::take);
            drop(there);
            seat.into_iter().for_each(|seat| self.seats.leave(&seat));
        }
    }

    impl ArcWake for Guest {
        fn wake_by_ref(guest: &Arc<Self>) {
            let Some(room) = guest.0.upgrade() else { return };
            room.woken.lock().expect("sound")[guest.1] += 1;
            for (_, number, comes) in room.leaving.iter().filter(|(by, ..)| *by == guest.1) {
                room.go(*number);
                if *comes {
                    room.come();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn each_who_stays_is_woken_once_whoever_comes_and_goes(
            count in 0..300_usize,
            before in vec(0..300_usize, 0..200),
            leaving in vec((0..300_usize, 0..300_usize, any::<bool>()), 0..300),
        ) {
            let room = Arc::new(Room {
                seats: Seats::new(),
                there: std::sync::Mutex::default(),
                woken: std::sync::Mutex::default(),
                leaving,
            });
            (0..count).for_each(|_| room.come());
            before.iter().for_each(|number| room.go(*number));
            let waited: Vec<_> = room.there.lock().expect("sound").iter().map(Option::is_some).collect();
            room.seats.wake();
            let (there, woken) = (room.there.lock().expect("sound"), room.woken.lock().expect("sound"));
            for (number, waited) in waited.iter().enumerate() {
                prop_assert!(woken[number] <= usize::from(*waited));
                if *waited && there[number].is_some() {
                    prop_assert_eq!(woken[number], 1, "{}", number);
                }
            }
            let list = room.seats.list();
            prop_assert_eq!(list.len(), there.iter().flatten().count());
            for (at, seat) in list.iter().enumerate() {
                prop_assert_eq!(seat.at.load(Ordering::Relaxed), at);
            }
        }
    }

    #[test]
    fn those_who_have_left_cost_nothing() {
        let seats = Seats::new();
        let mut taken: Vec<_> = (0..10_000).map(|_| seats.take()).collect();
        taken.drain(..9_999).for_each(|seat| seats.leave(&seat));
        assert!(seats.len() == 1 && seats.list().capacity() < 10);
        taken.iter().for_each(|seat| seats.leave(seat));
        assert!(seats.len() == 0 && seats.list().capacity() == 0);
    }
}
