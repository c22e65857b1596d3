//! The candidates of a collection with their identifiers, vectors and metadata.
//!
//! A [`CandidateIndex`] holds ids, the trie of identifiers, and optionally vectors and metadata. A
//! quantizer makes it ([`CoarseToFine::assign`](crate::quantizer::CoarseToFine::assign)) and adds
//! its [`HealthReport`]. An [`IdentifierMap`] says which candidate each identifier belongs to.
//!
//! [`PrefixStats`] sums the candidates' vectors up along the trie; [`PrefixPrior`] scores the
//! children of a prefix with these sums; [`LeaveOneOut`] keeps vectors for a training that must not
//! see the text at hand. [`TokenStates`] keep what late interaction compares.

mod candidates;
mod health;
pub(crate) mod identifier_map;
pub(crate) mod leave_one_out;
pub(crate) mod prefix;
pub(crate) mod tokens;

pub use candidates::CandidateIndex;
pub(crate) use health::Tally;
pub use health::{HealthReport, HealthThresholds, LevelHealth};
pub(crate) use identifier_map::IdentifierMap;
pub(crate) use leave_one_out::LeaveOneOut;
pub(crate) use prefix::{PrefixPrior, PrefixStats};
pub(crate) use tokens::{ItemTokens, TextTokens, TokenSpace, TokenStates};
