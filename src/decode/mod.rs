//! From queries to candidates: beam search over the trie, exact search, filters, and exhaustive
//! scoring as the yardstick.
//!
//! An [`Engine`] runs them all; [`Retriever::query`](crate::retrieve::Retriever::query) is the
//! short way.

pub(crate) mod beam;
mod config;
pub(crate) mod encoded;
pub(crate) mod engine;
pub(crate) mod exact;
mod exhaustive;
pub(crate) mod explain;
pub(crate) mod space;
pub(crate) mod trace;

pub use crate::trie::{Filter, Filters};
pub(crate) use beam::{ScoredItem, SearchTimes};
pub use config::{BeamConfig, SearchPrecision};
pub(crate) use encoded::EncodedQueries;
pub(crate) use engine::Engine;
pub(crate) use exact::{ExactLimits, ExactResult};
pub use explain::Explanation;
pub(crate) use space::{Scorer, SearchSpace};
pub(crate) use trace::{Trace, TraceLevel};
