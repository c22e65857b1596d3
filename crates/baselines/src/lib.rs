//! Honest baselines for [`cart_retrieval`]: what a search has to beat before its claims are worth
//! reading.
//!
//! | baseline | reads |
//! |---|---|
//! | [`Bm25`] | words of the candidates' training texts |
//! | [`NearestText`] | vectors of those texts by an untouched sentence encoder |
//! | [`TfIdfRidge`] | a regression from words to the candidates' features |
//! | [`DualTower`] | a text encoder trained to meet the features in one space |
//! | [`MaxSim`] | token states of those texts, on top of any other search |
//! | [`ScoreFusion`] | the scores of any of them, weighted on validation queries |
//!
//! All of them answer with [`Ranking`](cart_retrieval::eval::Ranking)s, which
//! [`cart_retrieval::eval`] measures.
//!
//! # Example
//! ```
//! use cart_baselines::{Bm25, Bm25Config};
//! use cart_retrieval::eval::{TruncatedTies, evaluate};
//! let docs = [(0, "two dogs in the snow"), (1, "a cat asleep"), (0, "dogs play")];
//! let bm25 = Bm25::fit(&docs, 2, &Bm25Config::default())?;
//! let rankings = bm25.search_all(&["a dog and dogs", "one cat"], 2);
//! let scores = evaluate(&rankings, &[[0], [1]], 2, TruncatedTies::Listed)?;
//! assert_eq!(scores.metrics().recall_at_1, 1.0);
//! # Ok::<(), cart_retrieval::Error>(())
//! ```

#![warn(missing_docs)]
#![deny(unsafe_code)]

mod bm25;
mod dual_tower;
mod fusion;
mod max_sim;
mod nearest;
mod ranks;
mod tfidf_ridge;

pub use bm25::{Bm25, Bm25Config, Bm25Grid, Bm25Tuning};
pub use dual_tower::{DualTower, DualTowerConfig, TowerData, TowerStart};
pub use fusion::{FusionTuning, ScoreFusion};
pub use max_sim::MaxSim;
pub use nearest::{NearestText, TextPool};
pub use tfidf_ridge::{TfIdfRidge, TfIdfRidgeConfig};
