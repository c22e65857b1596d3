//! The nearest rows of a matrix, exactly: a matrix product screens, plain sums decide.

use cart_retrieval::{
    Error, Result,
    features::Features,
    members::{Layout, dots},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Products that a thread holds at a time.
const PRODUCTS: usize = 1 << 23;
/// Most rows of a product.
const ROWS: usize = 256;

/// How candidates are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// By the cosine of their features, whose lengths then do not matter.
    #[default]
    Cosine,
    /// By their distance; the similarity is the distance below 0.
    Euclidean,
}

/// A neighbour: its similarity and its row.
pub(super) type Neighbour = (f64, usize);

/// Rows to look among.
#[derive(Debug, Clone)]
pub(super) struct Neighbours {
    rows: Features,
    metric: Metric,
    norms: Vec<f64>,
    largest: f64,
}

impl Neighbours {
    pub fn new(rows: Features, metric: Metric) -> Result<Self> {
        let norms = norms(&rows, metric)?;
        let largest = norms.iter().copied().fold(0.0, f64::max);
        Ok(Self { rows, metric, norms, largest })
    }

    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    /// The `k` most similar rows of each query, best first, equals by their rows; `own` gives a
    /// query's own row, which is passed over.
    ///
    /// Products in `f32` say which rows can be among the `k`; sums in `f64`, in the order of the
    /// numbers, are their similarities. So the answer is that of the plain double loop.
    pub fn of(
        &self,
        queries: &Features,
        k: usize,
        own: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Result<Vec<Vec<Neighbour>>> {
        let norms = norms(queries, self.metric)?;
        let (count, dim) = (self.rows.len(), self.dim());
        let largest = norms.iter().copied().fold(self.largest, f64::max).max(f64::MIN_POSITIVE);
        // Lengths of 1 at most, so that nothing overflows.
        let scaled = |features: &Features, norms: &[f64]| -> Vec<f32> {
            let rows = features.as_slice().par_chunks_exact(dim).zip(norms);
            let scale = |norm: f64| match self.metric {
                Metric::Cosine => norm.recip(),
                Metric::Euclidean => largest.recip(),
            };
            rows.flat_map_iter(|(row, &norm)| {
                row.iter().map(move |&value| (f64::from(value) * scale(norm)) as f32)
            })
            .collect()
        };
        let (known, asked) = (scaled(&self.rows, &self.norms), scaled(queries, &norms));
        // Half the squared length is what a distance has beside the product.
        let shift: Option<Vec<f32>> = (self.metric == Metric::Euclidean).then(|| {
            self.norms.iter().map(|norm| (0.5 * (norm / largest).powi(2)) as f32).collect()
        });
        // Twice the error of a sum of `dim` products of numbers whose lengths are 1 at most, for
        // each of two scores.
        let slack = 4.0 * (dim + 8) as f32 * f32::EPSILON;
        let rows = (PRODUCTS / count).clamp(1, ROWS);
        let blocks = asked.par_chunks(rows * dim).enumerate();
        Ok(blocks
            .flat_map_iter(|(block, left)| {
                let height = left.len() / dim;
                let mut scores = vec![0f32; height * count];
                dots((height, count, dim), left, &known, Layout::Rows, &mut scores);
                let mut found = Vec::with_capacity(height);
                for (at, scores) in scores.chunks_exact_mut(count).enumerate() {
                    let query = block * rows + at;
                    if let Some(shift) = &shift {
                        scores.iter_mut().zip(shift).for_each(|(score, shift)| *score -= shift);
                    }
                    if let Some(own) = own(query) {
                        scores[own] = f32::NEG_INFINITY;
                    }
                    found.push(self.best((queries.row(query), norms[query]), scores, k, slack));
                }
                found
            })
            .collect())
    }

    /// The `k` most similar rows of a query and its norm, by scores that are `slack` off at most;
    /// rows of a score of minus infinity are passed over.
    fn best(
        &self,
        (query, norm): (&[f32], f64),
        scores: &[f32],
        k: usize,
        slack: f32,
    ) -> Vec<Neighbour> {
        let least = match k < scores.len() {
            true => {
                let mut sorted = scores.to_vec();
                let (_, &mut kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
                kth - slack
            }
            false => f32::MIN,
        };
        let mut found: Vec<Neighbour> = (0..scores.len())
            .filter(|&row| scores[row] >= least.max(f32::MIN))
            .map(|row| {
                let other = self.rows.row(row);
                (similarity(self.metric, query, other, norm, self.norms[row]), row)
            })
            .collect();
        found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.truncate(k);
        found
    }
}

/// The similarity of two rows: their cosine, or their distance below 0.
pub(super) fn similarity(metric: Metric, a: &[f32], b: &[f32], a_norm: f64, b_norm: f64) -> f64 {
    let pairs = a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    match metric {
        Metric::Cosine => pairs.map(|(a, b)| a * b).sum::<f64>() / (a_norm * b_norm),
        Metric::Euclidean => -pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
    }
}

/// Lengths of the rows.
pub(super) fn norms(features: &Features, metric: Metric) -> Result<Vec<f64>> {
    let dim = features.dim();
    let norm = |row: &[f32]| {
        row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
    };
    let norms: Vec<f64> = features.as_slice().par_chunks_exact(dim).map(norm).collect();
    let bad = |norm: &f64| !norm.is_finite() || (metric == Metric::Cosine && *norm == 0.0);
    match norms.iter().position(bad) {
        None => Ok(norms),
        Some(row) => Err(Error::features("features of the retrieval captioner")
            .expected("finite numbers, not all of them zero")
            .found(format!("a row of length {} for `{}`", norms[row], features.id(row)))
            .fix("recompute its features, or leave the item out")),
    }
}
