//! Honest baselines: what a search has to beat before its claims are worth reading.
//!
//! | baseline | reads |
//! |---|---|
//! | [`Bm25`] | words of the candidates' training texts |
//! | [`NearestText`] | vectors of those texts by an untouched sentence encoder |
//! | [`TfIdfRidge`] | a regression from words to the candidates' features |
//! | [`DualTower`] | a text encoder trained to meet the features in one space |
//! | [`ScoreFusion`] | the scores of any of them, weighted on validation queries |

mod bm25;
mod dual_tower;
mod fusion;
mod nearest;
mod tfidf_ridge;

pub use bm25::{Bm25, Bm25Config, Bm25Grid, Bm25Tuning};
pub use dual_tower::{DualTower, DualTowerConfig, DualTowerNetwork, TowerData};
pub use fusion::{FusionTuning, ScoreFusion};
pub use nearest::{NearestText, TextPool};
pub use tfidf_ridge::{TfIdfRidge, TfIdfRidgeConfig};

use super::Ranking;
use crate::error::Result;

/// The `k` highest scores, ties by item.
fn best(scores: &[f32], k: usize) -> Result<Ranking> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let by = |&a: &u32, &b: &u32| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b));
    let k = k.min(order.len());
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, by);
    }
    order.truncate(k);
    order.sort_unstable_by(by);
    let values = order.iter().map(|&item| scores[item as usize]).collect();
    Ranking::new(order, values)
}
