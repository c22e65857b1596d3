//! From queries to candidates: beam search over the trie, and exhaustive scoring as its yardstick.

mod beam;
mod exhaustive;
mod score;
mod space;

pub use beam::{Answer, BeamConfig, beam_search};
pub use exhaustive::score_all;
pub use score::Scorer;
pub use space::SearchSpace;
