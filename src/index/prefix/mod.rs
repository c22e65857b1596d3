//! Statistics of the candidates below every prefix of the trie, and the prior over a prefix's
//! children that follows from them and a query.

mod level;
mod prior;
mod saved;
mod stats;
mod walk;

pub use prior::PrefixPrior;
pub use stats::PrefixStats;
