//! From queries to candidates: beam search over the trie, exact search, filters, and exhaustive scoring as
//! the yardstick.
//!
//! An [`Engine`] runs them all; [`Retriever::query`](crate::retrieve::Retriever::query) is the short way.

mod beam;
mod config;
mod encoded;
mod engine;
mod exact;
mod exhaustive;
mod explain;
mod space;
mod trace;

pub use crate::trie::{Filter, Filters};
pub use beam::{ScoredItem, SearchTimes};
pub use config::{BeamConfig, SearchPrecision};
pub use encoded::{EncodedQueries, QueryVectors};
pub use engine::Engine;
pub use exact::{ExactLimits, ExactResult};
pub use explain::{Explanation, LevelScore};
pub use space::{Scorer, SearchSpace};
pub use trace::{Trace, TraceLevel};
