//! What a topic's ring is made of. The model of the ring puts a model checker's parts in their place,
//! and so tries every order in which threads can take turns.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use futures_util::task::AtomicWaker;

/// So many of those who wait are woken without the lock on the list of them. The model says one.
pub(crate) const AT_A_TIME: usize = 64;
