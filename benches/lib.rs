//! Benchmarks: `cargo bench -p hero-sse-benches` prints ratios against named peers.
//!
//! What they share: the event that is sent, and how slices are compared.

use hero_sse::prelude::*;
use serde::Serialize;

/// What one reading of a gauge carries.
#[derive(Clone, Serialize, SseEvent)]
pub struct Usage {
    /// Its number.
    #[sse(id)]
    pub seq: u64,
    tenant: &'static str,
    used: u64,
    limit: u64,
    share: f64,
    note: &'static str,
}

impl Usage {
    /// The reading of this number.
    pub fn new(seq: u64) -> Self {
        Self {
            seq,
            tenant: "a-tenant-with-a-name",
            used: seq * 12_345,
            limit: 1_000_000_000,
            share: 0.123_456,
            note: "what one reading of a gauge carries",
        }
    }
}

/// The numbers below three in random order: what runs first or twice in a row must not gain by it.
pub fn shuffled() -> [usize; 3] {
    let mut order = [0, 1, 2];
    for at in (1..order.len()).rev() {
        order.swap(at, fastrand::usize(0..=at));
    }
    order
}

/// A quarter of the values is below the first, half of them below the second, three quarters below the third.
pub fn quartiles(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
    (at(0.25), at(0.5), at(0.75))
}
