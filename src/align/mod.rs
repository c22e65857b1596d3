//! Candidates as vectors in the space of the text encoder (ours; the paper has identifiers only).
//!
//! Codes are arbitrary names: a decoder has to learn for every one of them what it stands for. The
//! candidates themselves are not arbitrary. [`TextSpaceMap`] maps their embeddings, and the texts
//! that describe them, to where the text encoder puts such texts; identifiers are made from those
//! vectors; and [`PrefixStats`](crate::expert::PrefixStats) knows, for every prefix of the trie,
//! where the candidates below it lie. With that, the probability of a child starts from how many
//! candidates near the query lie below it, and the decoder learns the rest.

mod centroids;
pub(crate) mod late;
pub(crate) mod ridge;
pub(crate) mod space;
pub(crate) mod texts;
pub(crate) mod tune;
pub(crate) mod words;

pub(crate) use crate::index::LeaveOneOut;
pub use late::LateInteractionConfig;
pub(crate) use late::{FittedTokenStates, LateInteractionData, TokenReducer};
pub(crate) use ridge::Ridge;
pub use space::TextSpaceConfig;
pub(crate) use space::{FittedTextSpace, TextSpaceMap};
pub(crate) use texts::{TextEmbedder, TextVectors};
pub use tune::EncoderTuning;
pub(crate) use tune::{TunedEncoder, TuningData};
pub(crate) use words::IdfWeights;
