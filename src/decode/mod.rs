//! From queries to candidates: beam search over the trie, exact search, filters, and exhaustive scoring as
//! the yardstick.

mod beam;
mod clock;
mod config;
mod engine;
mod exact;
mod exhaustive;
mod explain;
mod queries;
mod score;
mod space;
mod steps;
mod trace;

pub use crate::trie::{Filter, Filters};
pub use beam::{Answer, beam_search};
pub use clock::SearchTimes;
pub use config::BeamConfig;
pub use engine::{Engine, SearchPrecision};
pub use exact::{Exact, exact_search};
pub use exhaustive::score_all;
pub use explain::{Explanation, LevelScore, explain};
pub use score::Scorer;
pub use space::SearchSpace;
pub use trace::{Trace, TraceLevel, trace};
