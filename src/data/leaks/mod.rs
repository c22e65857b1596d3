//! Test queries among the training texts: word for word, or nearly so.

mod audit;
mod near;
mod overlap;

pub use audit::{LeakAudit, LeakAuditConfig, LeakKind, LeakPair, LeakPolicy};
pub use overlap::{OverlapAudit, audit, words};

#[cfg(test)]
mod tests;
