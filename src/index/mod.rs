//! The candidates of a collection with their identifiers, vectors and metadata.
//!
//! A [`CandidateIndex`] holds ids, the trie of identifiers, and optionally vectors and metadata. A
//! quantizer makes it ([`CoarseToFine::assign`](crate::quantizer::CoarseToFine::assign)) and adds
//! its [`HealthReport`].

mod candidates;
mod health;

pub use candidates::CandidateIndex;
pub(crate) use health::Tally;
pub use health::{HealthReport, HealthThresholds, LevelHealth};
