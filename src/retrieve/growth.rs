//! What became of a collection since its quantizer was fitted.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What became of a collection since its quantizer was fitted: running sums, kept with the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Growth {
    /// Candidates that were added, including those removed later.
    pub added: u64,
    /// Candidates that were removed.
    pub removed: u64,
    /// Sum of the squared reconstruction errors of added candidates.
    pub error: f64,
    /// Added candidates whose semantic tokens were already in use.
    pub shared: u64,
    /// Added candidates that found no free unique token there and have the nearest codes with one.
    pub spilled: u64,
}

impl AddAssign for Growth {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.removed += other.removed;
        self.error += other.error;
        self.shared += other.shared;
        self.spilled += other.spilled;
    }
}
