//! Where the time of a search goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Time per part of the search, summed over the batches that threads process in parallel. A thread
/// that waits within one part may do work of another one, so shares are approximate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchTimes {
    /// Text encoder, keys and values of the queries.
    pub encoding: Duration,
    /// Steps of the decoder.
    pub decoding: Duration,
    /// The constraint: children in the trie, their probabilities, filters, the best prefixes.
    pub constraint: Duration,
}

impl SearchTimes {
    /// The constraint's share in the time of the decoder's steps.
    pub fn constraint_share(&self) -> f64 {
        let (constraint, decoding) = (self.constraint.as_secs_f64(), self.decoding.as_secs_f64());
        constraint / (constraint + decoding).max(f64::MIN_POSITIVE)
    }
}

/// Adds up times of several threads, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    spent: Arc<[AtomicU64; 3]>,
}

impl Clock {
    pub(super) fn encoded(&self, time: Duration) {
        self.add(0, time);
    }

    pub(super) fn decoded(&self, time: Duration) {
        self.add(1, time);
    }

    pub(super) fn constrained(&self, time: Duration) {
        self.add(2, time);
    }

    fn add(&self, at: usize, time: Duration) {
        self.spent[at].fetch_add(time.as_nanos() as u64, Relaxed);
    }

    pub(super) fn times(&self) -> SearchTimes {
        let [encoding, decoding, constraint] =
            [0, 1, 2].map(|at| Duration::from_nanos(self.spent[at].load(Relaxed)));
        SearchTimes { encoding, decoding, constraint }
    }
}
