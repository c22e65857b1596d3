//! What became of a collection since its quantizer was fitted.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What became of a collection since its quantizer was fitted: running sums, kept with the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Growth {
    /// Candidates that came, those included that went again.
    pub added: u64,
    /// Candidates that went.
    pub removed: u64,
    /// Sum of the squared distances of those that came to what their codes stand for.
    pub error: f64,
    /// Those that came and found their semantic tokens in use.
    pub shared: u64,
    /// Those that found no unique token left there and took the nearest codes where there was one.
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
