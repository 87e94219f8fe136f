//! The locks and atomics of a topic's ring. The model in `tests/model` replaces them with those of a model checker,
//! which tries every order in which threads can run.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use futures_util::task::AtomicWaker;

/// Number of readers that are woken between two times that the lock on their list is taken. The model sets 1.
pub(crate) const WAKE_CHUNK: usize = 64;
