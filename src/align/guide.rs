//! What the geometry of the candidates says about the children of a prefix, on the host.

use super::{Geometry, dot};
use crate::error::{Error, Result};

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
    /// `s^2 / 2 <x, S x>`, `[queries, levels]`.
    along: Vec<f32>,
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
            return Err(Error::model(
                "alignment of query and candidates",
                format!("queries of width {dim} and {levels} scales"),
                format!("{} numbers and {} scales", queries.len(), scales.len()),
                "use the network that was trained with these candidates",
            ));
        }
        if let Some(bad) = queries.iter().chain(&scales).find(|value| !value.is_finite()) {
            return Err(Error::model(
                "alignment of query and candidates",
                "finite numbers",
                bad.to_string(),
                "train again with a lower learning rate, or load other weights",
            ));
        }
        let along = queries
            .chunks_exact(dim)
            .flat_map(|x| {
                let scales = scales.iter().enumerate();
                scales.map(|(level, s)| 0.5 * s * s * geometry.along(level, x)).collect::<Vec<_>>()
            })
            .collect();
        Ok(Self { geometry, queries, scales, along })
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
        let geometry = self.geometry;
        let near = self.scales[level] * dot(self.query(query), geometry.mean(level, node));
        let along = self.along[query * self.scales.len() + level];
        geometry.log_count(level, node) + near + along * geometry.spread(level, node)
    }

    /// Cosine of a query and an item.
    ///
    /// # Panics
    /// When there is no such query or item.
    pub fn cosine(&self, query: usize, item: u32) -> f32 {
        dot(self.query(query), self.geometry.vectors().row(item as usize))
    }

    fn query(&self, query: usize) -> &[f32] {
        let dim = self.geometry.dim();
        &self.queries[query * dim..(query + 1) * dim]
    }
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

    /// For small scales the Gaussian is the sum over the candidates up to third order.
    #[test]
    fn a_node_scores_close_to_the_sum_over_its_candidates() {
        let vectors = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0, -1.0, 0.0];
        let geometry = geometry(&[[0, 0], [0, 1], [0, 2], [1, 0]], vectors.clone());
        let scale = 0.5f32;
        let guide = Guide::new(&geometry, vec![0.8, 0.6], vec![scale; 2]).unwrap();
        let below = vectors[..6].chunks(2);
        let exact: f32 = below.map(|z| (scale * (0.8 * z[0] + 0.6 * z[1])).exp()).sum();
        assert_abs_diff_eq!(guide.score(0, 0, 0), exact.ln(), epsilon = 2e-3);
    }

    #[test]
    fn other_widths_and_numbers_that_are_none_are_refused() {
        let geometry = geometry(&[[0, 0], [0, 1]], vec![1.0, 0.0, 0.6, 0.8]);
        assert!(Guide::new(&geometry, vec![1.0; 3], vec![1.0; 2]).is_err());
        assert!(Guide::new(&geometry, vec![1.0; 2], vec![1.0; 3]).is_err());
        assert!(Guide::new(&geometry, vec![f32::NAN; 2], vec![1.0; 2]).is_err());
    }
}
