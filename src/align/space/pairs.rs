//! Which regression: kernel and penalty by cross-validation.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{config::TextSpaceConfig, map::TextSpaceMap};
use crate::{
    align::{
        TextVectors,
        centroids::Centroids,
        ridge::{Lift, Ridge, RidgeProblem},
    },
    error::Result,
    features::Features,
    kernels::{dot, normalise},
};

/// Most items that kernel and penalty are chosen by.
const MOST_TO_CHOOSE_BY: usize = 1000;

/// Items with features and texts, to fit a regression to.
pub(super) struct Pairs<'a> {
    pub(super) config: &'a TextSpaceConfig,
    pub(super) items: &'a Features,
    pub(super) centroids: &'a Centroids,
}

impl Pairs<'_> {
    pub(super) fn problem(&self, known: &[u32], gamma: f64) -> Result<RidgeProblem> {
        let inputs = known.iter().map(|&item| self.items.row(item as usize));
        let lift = Lift::new(self.items.dim(), gamma, self.config.landmarks, inputs.clone());
        let outputs = known.iter().map(|&item| self.centroids.row(item));
        let weights = known.iter().map(|&item| self.centroids.weight(item));
        RidgeProblem::weighted(lift, self.centroids.dim, inputs.zip(outputs), weights)
    }

    pub(super) fn space(
        &self,
        tuned: Option<&Ridge>,
        known: &[u32],
        gamma: f64,
        penalty: f64,
    ) -> Result<TextSpaceMap> {
        let ridge = self.problem(known, gamma)?.solve(penalty)?;
        let tuned = tuned.cloned();
        let TextSpaceConfig { features, texts, .. } = *self.config;
        Ok(TextSpaceMap { ridge, tuned, features, texts })
    }

    /// Per fold, its items, and what a regression on the other folds makes of each, per penalty.
    #[allow(clippy::type_complexity)]
    pub(super) fn held_out(
        &self,
        known: &[u32],
        gamma: f64,
        penalties: &[f64],
    ) -> Result<Vec<(Vec<u32>, Vec<Vec<f32>>)>> {
        let folds = self.config.folds.min(known.len());
        (0..folds)
            .into_par_iter()
            .map(|fold| {
                let inside = |rank: usize| rank % folds == fold;
                let part = |wanted: bool| -> Vec<u32> {
                    let ranked = known.iter().enumerate();
                    ranked.filter(|(rank, _)| inside(*rank) == wanted).map(|(_, &i)| i).collect()
                };
                let (out, problem) = (part(true), self.problem(&part(false), gamma)?);
                let rows: Vec<&[f32]> = out.iter().map(|&i| self.items.row(i as usize)).collect();
                let mapped = |&penalty| Ok(problem.solve(penalty)?.map_all(&rows));
                let mapped = penalties.iter().map(mapped).collect::<Result<_>>()?;
                Ok((out, mapped))
            })
            .collect()
    }

    /// Kernel and penalty under which texts find their items best, and the mean reciprocal rank.
    pub(super) fn choose(&self, known: &[u32], texts: &TextVectors) -> Result<(f64, f64, f64)> {
        let known = &known[..known.len().min(MOST_TO_CHOOSE_BY)];
        let mut best: Option<(f64, f64, f64)> = None;
        for &gamma in &self.config.gammas {
            let folds = self.held_out(known, gamma, &self.config.penalties)?;
            for (at, &penalty) in self.config.penalties.iter().enumerate() {
                let ranks = folds.iter().map(|(out, rows)| ranks(out, &rows[at], texts));
                let (sum, count) =
                    ranks.fold((0.0, 0), |(s, c), (sum, count)| (s + sum, c + count));
                let mrr = sum / count as f64;
                if best.is_none_or(|(.., most)| mrr > most) {
                    best = Some((gamma, penalty, mrr));
                }
            }
        }
        Ok(best.expect("there are kernels and penalties"))
    }
}

/// Sum and count of the reciprocal ranks at which the texts of some items find them among those;
/// texts without weight are not asked.
fn ranks(items: &[u32], rows: &[f32], texts: &TextVectors) -> (f64, usize) {
    let mut units = rows.to_vec();
    units.chunks_exact_mut(texts.dim()).for_each(normalise);
    let mut place = HashMap::new();
    place.extend(items.iter().enumerate().map(|(at, &item)| (item, at)));
    let asked = texts.items.iter().enumerate().filter(|&(text, _)| texts.weight(text) > 0.0);
    let owned = asked.filter_map(|(t, item)| Some((t, *place.get(item)?)));
    let owned: Vec<(usize, usize)> = owned.collect();
    let unit = |at: usize| &units[at * texts.dim()..(at + 1) * texts.dim()];
    let rank = |&(text, own): &(usize, usize)| {
        let text = texts.row(text);
        let target = dot(text, unit(own));
        let above = (0..items.len()).filter(|&at| dot(text, unit(at)) > target).count();
        1.0 / (above + 1) as f64
    };
    (owned.iter().map(rank).sum(), owned.len())
}
