//! The prior over the children of a prefix: what the candidates below them say about a query.

use rayon::prelude::*;

use super::PrefixStats;
use crate::{
    error::{Error, Result},
    kernels::dot,
};

/// Nodes whose means stay in the cache while all queries pass over them.
const TILE: usize = 64;

/// Queries in the space of the candidates, ready to score nodes.
///
/// A node's score is the logarithm of what a softmax over all candidates, `exp(s <x, z>)`, gives
/// the candidates below it, from their [`PrefixStats`]; with scores of this kind as logits,
/// probabilities over the children of a prefix are those of the candidates summed up.
#[derive(Debug, Clone)]
pub struct PrefixPrior<'a> {
    stats: &'a PrefixStats,
    queries: Vec<f32>,
    scales: Vec<f32>,
    /// `<x, S x>`, `[queries, levels]`.
    along: Vec<f32>,
    /// Scores of the root's children, `[queries, children]`.
    root: Vec<f32>,
}

impl<'a> PrefixPrior<'a> {
    /// Prepares queries.
    ///
    /// # Shapes
    /// - `queries`: `[queries, D]`
    /// - `scales`: `[levels]`
    ///
    /// # Errors
    /// [`Error::Model`] when widths or levels are not those of the statistics, or a number is not
    /// finite.
    pub fn new(stats: &'a PrefixStats, queries: Vec<f32>, scales: Vec<f32>) -> Result<Self> {
        let (dim, levels) = (stats.dim(), stats.levels());
        let remedy = "use the network that was trained with these candidates";
        Error::model("alignment of query and candidates")
            .expected(format!("queries of width {dim} and {levels} scales"))
            .found(format!("{} numbers and {} scales", queries.len(), scales.len()))
            .fix_if(!queries.len().is_multiple_of(dim) || scales.len() != levels, remedy)?;
        if let Some(bad) = queries.iter().chain(&scales).find(|value| !value.is_finite()) {
            return Err(Error::model("alignment of query and candidates")
                .expected("finite numbers")
                .found(bad.to_string())
                .fix("train again with a lower learning rate, or load other weights"));
        }
        let along = queries
            .par_chunks_exact(dim)
            .flat_map_iter(|x| (0..levels).map(move |level| stats.along(level, x)))
            .collect();
        let mut prior = Self { stats, queries, scales, along, root: Vec::new() };
        prior.root = prior.scored_root();
        Ok(prior)
    }

    /// Statistics of the candidates.
    pub fn stats(&self) -> &'a PrefixStats {
        self.stats
    }

    /// Score of a node that a level's token leads to.
    ///
    /// # Panics
    /// When there is no such query, level or node.
    pub fn score(&self, query: usize, level: usize, node: usize) -> f32 {
        if level == 0 {
            return self.root[query * self.stats.nodes(0) + node];
        }
        if !self.stats.looks_ahead(level) {
            return self.gaussian(query, level, level, node);
        }
        let below = self.stats.below(level, node);
        log_sum_exp(below.map(|child| self.gaussian(query, level, level + 1, child)))
    }

    /// Cosine of a query and an item.
    ///
    /// # Panics
    /// When there is no such query or item.
    pub fn cosine(&self, query: usize, item: u32) -> f32 {
        dot(self.query(query), self.stats.vectors().row(item as usize))
    }

    /// Scores of all children of the root, for all queries: means are read once, not once a query.
    fn scored_root(&self) -> Vec<f32> {
        let stats = self.stats;
        let level = usize::from(stats.looks_ahead(0));
        let (queries, nodes) = (self.queries.len() / stats.dim(), stats.nodes(level));
        let mut by_node = vec![0f32; queries * nodes];
        by_node.par_chunks_mut(TILE * queries.max(1)).enumerate().for_each(|(tile, out)| {
            let count = out.len() / queries;
            for query in 0..queries {
                for at in 0..count {
                    out[at * queries + query] = self.gaussian(query, 0, level, tile * TILE + at);
                }
            }
        });
        let score = |query: usize, node: usize| match level {
            0 => by_node[node * queries + query],
            _ => {
                let below = stats.below(0, node);
                log_sum_exp(below.map(|child| by_node[child * queries + query]))
            }
        };
        (0..queries)
            .flat_map(|q| (0..stats.nodes(0)).map(move |n| (q, n)))
            .map(|(query, node)| score(query, node))
            .collect()
    }

    /// Score of a node by its own mean and spread, with the scale of level `scale`.
    fn gaussian(&self, query: usize, scale: usize, level: usize, node: usize) -> f32 {
        let (stats, s) = (self.stats, self.scales[scale]);
        let near = s * dot(self.query(query), stats.mean(level, node));
        let along = 0.5 * s * s * self.along[query * self.scales.len() + level];
        stats.log_count(level, node) + near + along * stats.spread(level, node)
    }

    fn query(&self, query: usize) -> &[f32] {
        let dim = self.stats.dim();
        &self.queries[query * dim..(query + 1) * dim]
    }
}

fn log_sum_exp(values: impl Iterator<Item = f32>) -> f32 {
    let (mut top, mut sum) = (f32::NEG_INFINITY, 0f32);
    for value in values {
        if value > top {
            sum = sum * (top - value).exp() + 1.0;
            top = value;
        } else {
            sum += (value - top).exp();
        }
    }
    top + sum.ln()
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;
    use crate::{
        features::Features,
        identifier::{Codes, LevelSizes},
        trie::Trie,
    };

    fn stats(rows: &[[u16; 2]], vectors: Vec<f32>) -> PrefixStats {
        let codes = Codes::from_rows(2, rows).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![4, 4]).unwrap()).unwrap();
        PrefixStats::new(Features::from_rows(vectors, 2).unwrap(), &trie).unwrap()
    }

    /// At the last level every node is a candidate, and scores are those of a flat softmax.
    #[test]
    fn leaves_score_as_in_a_flat_softmax() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0];
        let stats = stats(&[[0, 0], [0, 1], [0, 2]], vectors);
        let prior = PrefixPrior::new(&stats, vec![0.8, 0.6], vec![5.0, 7.0]).unwrap();
        for (leaf, cosine) in [(0, 0.8), (1, 0.96), (2, 0.6)] {
            assert_abs_diff_eq!(prior.score(0, 1, leaf), 7.0 * cosine, epsilon = 1e-5);
            assert_abs_diff_eq!(prior.cosine(0, leaf as u32), cosine, epsilon = 1e-6);
        }
    }

    /// Where candidates are one step below, a node's score is the sum over them, at any scale.
    #[test]
    fn a_node_looks_at_its_children() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0, -1.0, 0.0];
        let stats = stats(&[[0, 0], [0, 1], [2, 2], [2, 0]], vectors.clone());
        let scale = 9.0f32;
        let queries = vec![0.8, 0.6, -0.6, 0.8];
        let prior = PrefixPrior::new(&stats, queries.clone(), vec![scale; 2]).unwrap();
        for (query, x) in queries.chunks(2).enumerate() {
            for (node, below) in vectors.chunks(4).enumerate() {
                let sum = |sum: f32, z: &[f32]| sum + (scale * (x[0] * z[0] + x[1] * z[1])).exp();
                let exact = below.chunks(2).fold(0.0, sum).ln();
                assert_abs_diff_eq!(prior.score(query, 0, node), exact, epsilon = 1e-5);
            }
        }
    }

    /// For small scales the Gaussian is the sum over the candidates up to third order.
    #[test]
    fn a_node_scores_close_to_the_sum_over_its_candidates() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0, -1.0, 0.0];
        let stats = stats(&[[0, 0], [0, 1], [0, 2], [1, 0]], vectors.clone());
        let scale = 0.5f32;
        let prior = PrefixPrior::new(&stats, vec![0.8, 0.6], vec![scale; 2]).unwrap();
        let below = vectors[..6].chunks(2);
        let exact: f32 = below.map(|z| (scale * (0.8 * z[0] + 0.6 * z[1])).exp()).sum();
        assert_abs_diff_eq!(prior.gaussian(0, 0, 0, 0), exact.ln(), epsilon = 2e-3);
    }

    #[test]
    fn other_widths_and_numbers_that_are_none_are_refused() {
        let stats = stats(&[[0, 0], [0, 1]], vec![1.0, 0.0, 0.6, 0.8]);
        assert!(PrefixPrior::new(&stats, vec![1.0; 3], vec![1.0; 2]).is_err());
        assert!(PrefixPrior::new(&stats, vec![1.0; 2], vec![1.0; 3]).is_err());
        assert!(PrefixPrior::new(&stats, vec![f32::NAN; 2], vec![1.0; 2]).is_err());
    }
}
