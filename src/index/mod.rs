//! The candidates of a collection under their identifiers, with what else is known about them.
//!
//! A [`CandidateIndex`] holds ids, the trie of identifiers, whose they are, and, where they are
//! kept, vectors and metadata. A quantizer makes one
//! ([`CoarseToFine::assign`](crate::quantizer::CoarseToFine::assign)) and leaves its
//! [`HealthReport`] in it.

mod candidates;
mod health;

pub use candidates::CandidateIndex;
pub(crate) use health::Tally;
pub use health::{HealthReport, HealthThresholds, LevelHealth};
