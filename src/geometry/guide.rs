//! What the geometry of the candidates says about the children of a prefix, on the host.

use rayon::prelude::*;

use super::Geometry;
use crate::{
    error::{Error, Result},
    kernels::dot,
};

/// Nodes whose means stay in the cache while all queries pass over them.
const TILE: usize = 64;

/// Queries in the space of the candidates, ready to score nodes.
///
/// A node's score is the logarithm of what a softmax over all candidates, `exp(s <x, z>)`, gives the
/// candidates below it, from their [`Geometry`]; with scores of this kind as logits, probabilities
/// over the children of a prefix are those of the candidates summed up.
#[derive(Debug, Clone)]
pub struct Guide<'a> {
    geometry: &'a Geometry,
    queries: Vec<f32>,
    scales: Vec<f32>,
    /// `<x, S x>`, `[queries, levels]`.
    along: Vec<f32>,
    /// Scores of the root's children, `[queries, children]`.
    root: Vec<f32>,
}

impl<'a> Guide<'a> {
    /// Prepares queries.
    ///
    /// # Shapes
    /// - `queries`: `[queries, D]`
    /// - `scales`: `[levels]`
    ///
    /// # Errors
    /// [`Error::Model`] when widths or levels are not those of the geometry, or a number is not
    /// finite.
    pub fn new(geometry: &'a Geometry, queries: Vec<f32>, scales: Vec<f32>) -> Result<Self> {
        let (dim, levels) = (geometry.dim(), geometry.levels());
        if !queries.len().is_multiple_of(dim) || scales.len() != levels {
            return Err(Error::model("alignment of query and candidates")
                .expected(format!("queries of width {dim} and {levels} scales"))
                .found(format!("{} numbers and {} scales", queries.len(), scales.len()))
                .fix("use the network that was trained with these candidates"));
        }
        if let Some(bad) = queries.iter().chain(&scales).find(|value| !value.is_finite()) {
            return Err(Error::model("alignment of query and candidates")
                .expected("finite numbers")
                .found(bad.to_string())
                .fix("train again with a lower learning rate, or load other weights"));
        }
        let along = queries
            .par_chunks_exact(dim)
            .flat_map_iter(|x| (0..levels).map(move |level| geometry.along(level, x)))
            .collect();
        let mut guide = Self { geometry, queries, scales, along, root: Vec::new() };
        guide.root = guide.scored_root();
        Ok(guide)
    }

    /// The candidates' geometry.
    pub fn geometry(&self) -> &'a Geometry {
        self.geometry
    }

    /// Score of a node that a level's token leads to.
    ///
    /// # Panics
    /// When there is no such query, level or node.
    pub fn score(&self, query: usize, level: usize, node: usize) -> f32 {
        if level == 0 {
            return self.root[query * self.geometry.nodes(0) + node];
        }
        if !self.geometry.looks_ahead(level) {
            return self.gaussian(query, level, level, node);
        }
        let below = self.geometry.below(level, node);
        log_sum_exp(below.map(|child| self.gaussian(query, level, level + 1, child)))
    }

    /// Cosine of a query and an item.
    ///
    /// # Panics
    /// When there is no such query or item.
    pub fn cosine(&self, query: usize, item: u32) -> f32 {
        dot(self.query(query), self.geometry.vectors().row(item as usize))
    }

    /// Scores of all children of the root, for all queries: means are read once, not once a query.
    fn scored_root(&self) -> Vec<f32> {
        let geometry = self.geometry;
        let level = usize::from(geometry.looks_ahead(0));
        let (queries, nodes) = (self.queries.len() / geometry.dim(), geometry.nodes(level));
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
                let below = geometry.below(0, node);
                log_sum_exp(below.map(|child| by_node[child * queries + query]))
            }
        };
        (0..queries)
            .flat_map(|q| (0..geometry.nodes(0)).map(move |n| (q, n)))
            .map(|(query, node)| score(query, node))
            .collect()
    }

    /// Score of a node by its own mean and spread, with the scale of level `scale`.
    fn gaussian(&self, query: usize, scale: usize, level: usize, node: usize) -> f32 {
        let (geometry, s) = (self.geometry, self.scales[scale]);
        let near = s * dot(self.query(query), geometry.mean(level, node));
        let along = 0.5 * s * s * self.along[query * self.scales.len() + level];
        geometry.log_count(level, node) + near + along * geometry.spread(level, node)
    }

    fn query(&self, query: usize) -> &[f32] {
        let dim = self.geometry.dim();
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
        identifier::{Codes, Vocabulary},
        trie::Trie,
    };

    fn geometry(rows: &[[u16; 2]], vectors: Vec<f32>) -> Geometry {
        let codes = Codes::from_rows(2, rows).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![4, 4]).unwrap()).unwrap();
        Geometry::new(Features::from_rows(vectors, 2).unwrap(), &trie).unwrap()
    }

    /// At the last level every node is a candidate, and scores are those of a flat softmax.
    #[test]
    fn leaves_score_as_in_a_flat_softmax() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0];
        let geometry = geometry(&[[0, 0], [0, 1], [0, 2]], vectors);
        let guide = Guide::new(&geometry, vec![0.8, 0.6], vec![5.0, 7.0]).unwrap();
        for (leaf, cosine) in [(0, 0.8), (1, 0.96), (2, 0.6)] {
            assert_abs_diff_eq!(guide.score(0, 1, leaf), 7.0 * cosine, epsilon = 1e-5);
            assert_abs_diff_eq!(guide.cosine(0, leaf as u32), cosine, epsilon = 1e-6);
        }
    }

    /// Where candidates are one step below, a node's score is the sum over them, at any scale.
    #[test]
    fn a_node_looks_at_its_children() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0, -1.0, 0.0];
        let geometry = geometry(&[[0, 0], [0, 1], [2, 2], [2, 0]], vectors.clone());
        let scale = 9.0f32;
        let queries = vec![0.8, 0.6, -0.6, 0.8];
        let guide = Guide::new(&geometry, queries.clone(), vec![scale; 2]).unwrap();
        for (query, x) in queries.chunks(2).enumerate() {
            for (node, below) in vectors.chunks(4).enumerate() {
                let sum = |sum: f32, z: &[f32]| sum + (scale * (x[0] * z[0] + x[1] * z[1])).exp();
                let exact = below.chunks(2).fold(0.0, sum).ln();
                assert_abs_diff_eq!(guide.score(query, 0, node), exact, epsilon = 1e-5);
            }
        }
    }

    /// For small scales the Gaussian is the sum over the candidates up to third order.
    #[test]
    fn a_node_scores_close_to_the_sum_over_its_candidates() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0, -1.0, 0.0];
        let geometry = geometry(&[[0, 0], [0, 1], [0, 2], [1, 0]], vectors.clone());
        let scale = 0.5f32;
        let guide = Guide::new(&geometry, vec![0.8, 0.6], vec![scale; 2]).unwrap();
        let below = vectors[..6].chunks(2);
        let exact: f32 = below.map(|z| (scale * (0.8 * z[0] + 0.6 * z[1])).exp()).sum();
        assert_abs_diff_eq!(guide.gaussian(0, 0, 0, 0), exact.ln(), epsilon = 2e-3);
    }

    #[test]
    fn other_widths_and_numbers_that_are_none_are_refused() {
        let geometry = geometry(&[[0, 0], [0, 1]], vec![1.0, 0.0, 0.6, 0.8]);
        assert!(Guide::new(&geometry, vec![1.0; 3], vec![1.0; 2]).is_err());
        assert!(Guide::new(&geometry, vec![1.0; 2], vec![1.0; 3]).is_err());
        assert!(Guide::new(&geometry, vec![f32::NAN; 2], vec![1.0; 2]).is_err());
    }
}
