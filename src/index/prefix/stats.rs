//! Sums of the candidates' vectors for every node of the trie.

use std::{ops::Range, sync::OnceLock};

use rayon::prelude::*;

use super::{
    level::{ITEM, Level},
    walk,
};
use crate::{
    error::{Error, Result},
    features::Features,
    kernels::{dot, squared_norm},
    trie::{Node, Trie},
};

/// The largest number of a vector: sums of products of such do not leave `f32`.
const LARGEST: f32 = 1e15;
/// Most nodes two steps below the root that are looked at to score the nodes one step below it.
const MOST_BELOW_ROOT: usize = 65_536;
/// The same for any other prefix.
const MOST_BELOW: usize = 4_096;

/// The candidates' vectors summed up for every node of the trie: number, mean, spread.
///
/// For a query vector x and a scale s, the sum over the candidates z below a node of
/// `exp(s <x, z>)` is what a softmax over all candidates would give the node. With mean `mu`,
/// number `n` and a Gaussian around the mean, its logarithm is
/// `ln n + s <x, mu> + s^2 / 2 * <x, S x> * t`, with `S` the level's covariance within nodes,
/// scaled to trace 1, and `t` the node's own mean squared distance from its mean. [`PrefixStats`]
/// keeps what this takes; a node of one candidate has that candidate's vector as its mean and no
/// spread, so the last step of an identifier is exact.
///
/// That is closer the smaller a node is. So the children of a prefix are scored by the sums over
/// their own children ([`PrefixStats::looks_ahead`]), as long as those are few enough to look at:
/// 65,536 below the root, 4096 below any other prefix.
///
/// # Memory
/// The vectors, `4 N D` bytes; a mean for every node of at least two candidates; 24 bytes a node.
#[derive(Debug, Clone)]
pub struct PrefixStats {
    vectors: Features,
    pub(super) levels: Vec<Level>,
    /// Length of the longest vector, once somebody asks.
    longest: OnceLock<f32>,
}

impl PrefixStats {
    /// Sums candidates up along a trie.
    ///
    /// # Shapes
    /// - `vectors`: `[N, D]`, one for each item of the trie
    ///
    /// # Errors
    /// [`Error::Index`] when there is not one vector per item, [`Error::Features`] for NaN and numbers beyond 1e15.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::{features::Features, expert::{Codes, PrefixStats, Trie},
    ///     identifier::LevelSizes};
    /// let codes = Codes::from_rows(2, &[[0, 0], [0, 1], [1, 0]])?;
    /// let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 2])?)?;
    /// let vectors = Features::from_rows(vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0], 2)?;
    /// let stats = PrefixStats::new(vectors, &trie)?;
    /// assert_eq!(stats.mean(0, 0), [0.5, 0.5]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn new(vectors: Features, trie: &Trie) -> Result<Self> {
        one_each(&vectors, trie)?;
        let bad = vectors
            .as_slice()
            .par_iter()
            .position_any(|value| value.is_nan() || value.abs() > LARGEST);
        if let Some(at) = bad {
            return Err(Error::features(format!("vector of candidate {}", at / vectors.dim()))
                .expected(format!("numbers of at most {LARGEST:e}"))
                .found(vectors.as_slice()[at].to_string())
                .fix("check the features with Features::check"));
        }
        let levels = walk::levels(&vectors, trie);
        Ok(Self::linked(vectors, levels))
    }

    pub(super) fn linked(vectors: Features, levels: Vec<Level>) -> Self {
        let mut stats = Self { vectors, levels, longest: OnceLock::new() };
        stats.link();
        stats
    }

    /// Length of the longest vector: no product with a vector of length 1 is larger.
    pub fn longest(&self) -> f32 {
        let squares = || self.vectors.as_slice().par_chunks(self.vectors.dim()).map(squared_norm);
        *self.longest.get_or_init(|| squares().reduce(|| 0.0, f32::max).sqrt())
    }

    /// Finds the children of every node, and the levels that have few enough of them.
    fn link(&mut self) {
        for level in 1..self.levels.len() {
            let (above, below) = self.levels.split_at_mut(level);
            let (parents, starts) = (&mut above[level - 1], &below[0].starts);
            let first = |&row: &u32| starts.partition_point(|&start| start < row) as u32;
            parents.first_child = parents.starts.par_iter().map(first).collect();
            parents.first_child.push(starts.len() as u32);
        }
        for level in 0..self.levels.len().saturating_sub(1) {
            let below = &self.levels[level].first_child;
            let most = match level {
                0 => below[below.len() - 1],
                _ => {
                    let siblings = self.levels[level - 1].first_child.windows(2);
                    let below = |pair: &[u32]| below[pair[1] as usize] - below[pair[0] as usize];
                    siblings.map(below).max().unwrap_or(0)
                }
            };
            let limit = if level == 0 { MOST_BELOW_ROOT } else { MOST_BELOW };
            self.levels[level].looks_ahead = most as usize <= limit;
        }
    }

    /// The candidates' vectors, `[N, D]`.
    pub fn vectors(&self) -> &Features {
        &self.vectors
    }

    /// Width D of the vectors.
    pub fn dim(&self) -> usize {
        self.vectors.dim()
    }

    /// Number of levels L.
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Numbers of a node's children among the nodes of their level, in token order.
    ///
    /// # Panics
    /// For a whole identifier, which has no children.
    pub fn children(&self, node: Node) -> Range<usize> {
        let starts = &self.levels[node.depth()].starts;
        let (lo, hi) = (node.first_row(), node.first_row() + node.count());
        let first = starts.partition_point(|&start| (start as usize) < lo);
        first..first + starts[first..].partition_point(|&start| (start as usize) < hi)
    }

    /// Number of nodes that the tokens of a level lead to.
    ///
    /// # Panics
    /// When there is no such level.
    pub fn nodes(&self, level: usize) -> usize {
        self.levels[level].starts.len()
    }

    /// Numbers of the children, at the next level, of a node that a level's token leads to.
    ///
    /// # Panics
    /// When there is no such level or node, or no next level.
    pub fn below(&self, level: usize, node: usize) -> Range<usize> {
        let first = &self.levels[level].first_child;
        first[node] as usize..first[node + 1] as usize
    }

    /// Whether nodes of a level are scored by the sum over their children rather than by their own
    /// mean and spread.
    ///
    /// # Panics
    /// When there is no such level.
    pub fn looks_ahead(&self, level: usize) -> bool {
        self.levels[level].looks_ahead
    }

    /// Mean of the candidates below a node, `[D]`.
    ///
    /// # Panics
    /// When there is no such level or node.
    pub fn mean(&self, level: usize, node: usize) -> &[f32] {
        let level = &self.levels[level];
        let slot = level.slots[node];
        let at = (slot & !ITEM) as usize;
        match slot & ITEM {
            0 => &level.means[at * self.dim()..(at + 1) * self.dim()],
            _ => self.vectors.row(at),
        }
    }

    /// Natural logarithm of the number of candidates below a node.
    pub fn log_count(&self, level: usize, node: usize) -> f32 {
        self.levels[level].log_count[node]
    }

    /// Mean squared distance of the candidates below a node from their mean.
    pub fn spread(&self, level: usize, node: usize) -> f32 {
        self.levels[level].spread[node]
    }

    /// Covariance within the nodes of a level, scaled to trace 1, `[D, D]`; zeros where every node
    /// has one candidate.
    pub fn covariance(&self, level: usize) -> &[f32] {
        &self.levels[level].covariance
    }

    /// `<x, S x>` with the level's covariance.
    pub(crate) fn along(&self, level: usize, x: &[f32]) -> f32 {
        let rows = self.levels[level].covariance.chunks_exact(x.len());
        rows.zip(x).map(|(row, &value)| value * dot(row, x)).sum()
    }

    /// Bytes in memory, the vectors included.
    pub fn memory(&self) -> usize {
        let level = |level: &Level| {
            16 * level.starts.len()
                + 4 * (level.first_child.len() + level.means.len() + level.covariance.len())
        };
        4 * self.vectors.as_slice().len() + self.levels.iter().map(level).sum::<usize>()
    }
}

/// That there is one vector for each item.
pub(super) fn one_each(vectors: &Features, trie: &Trie) -> Result<()> {
    let remedy = "use vectors and identifiers of one collection";
    Error::index("vectors of the candidates")
        .expected(format!("one for each of {} identifiers", trie.len()))
        .found(vectors.len().to_string())
        .fix_if(vectors.len() != trie.len(), remedy)
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::identifier::{Codes, LevelSizes};

    fn fixture() -> (Features, Trie, Vec<[u16; 3]>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut rows: Vec<[u16; 3]> =
            (0..60u16).map(|i| [rng.random_range(0..3), rng.random_range(0..4), i]).collect();
        rows.sort_by_key(|row| row[2] % 7);
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![3, 4, 60]).unwrap()).unwrap();
        let values = (0..60 * 5).map(|_| rng.random::<f32>() - 0.3).collect();
        (Features::from_rows(values, 5).unwrap(), trie, rows)
    }

    /// Twin: every statistic from a filter over all items.
    #[test]
    fn sums_up_the_items_below_every_node() {
        let (vectors, trie, rows) = fixture();
        let stats = PrefixStats::new(vectors.clone(), &trie).unwrap();
        let mut nodes = vec![(trie.root(), Vec::<u16>::new())];
        for level in 0..3 {
            let mut total = vec![0f64; 25];
            let mut next = Vec::new();
            for (node, prefix) in &nodes {
                let children = stats.children(*node);
                assert_eq!(children.len(), trie.children(*node).count());
                for ((token, child), number) in trie.children(*node).zip(children) {
                    if level < 2 {
                        assert_eq!(stats.below(level, number), stats.children(child));
                    }
                    let prefix: Vec<u16> = [prefix.as_slice(), &[token]].concat();
                    let below: Vec<usize> =
                        (0..60).filter(|&i| rows[i].starts_with(&prefix)).collect();
                    let n = below.len() as f64;
                    let mean: Vec<f64> = (0..5)
                        .map(|d| {
                            below.iter().map(|&i| f64::from(vectors.row(i)[d])).sum::<f64>() / n
                        })
                        .collect();
                    let mut spread = 0.0;
                    for &i in &below {
                        let r: Vec<f64> =
                            (0..5).map(|d| f64::from(vectors.row(i)[d]) - mean[d]).collect();
                        spread += r.iter().map(|v| v * v).sum::<f64>() / n;
                        for (at, total) in total.iter_mut().enumerate() {
                            *total += r[at / 5] * r[at % 5];
                        }
                    }
                    for (a, b) in stats.mean(level, number).iter().zip(&mean) {
                        assert_abs_diff_eq!(f64::from(*a), b, epsilon = 1e-6);
                    }
                    let got = f64::from(stats.spread(level, number));
                    assert_abs_diff_eq!(got, spread, epsilon = 1e-6);
                    let got = f64::from(stats.log_count(level, number));
                    assert_abs_diff_eq!(got, n.ln(), epsilon = 1e-6);
                    next.push((child, prefix));
                }
            }
            let trace: f64 = (0..5).map(|d| total[d * 6]).sum();
            for (got, total) in stats.covariance(level).iter().zip(&total) {
                let expected = if trace > 0.0 { total / trace } else { 0.0 };
                assert_abs_diff_eq!(f64::from(*got), expected, epsilon = 1e-6);
            }
            nodes = next;
        }
    }

    #[test]
    fn looks_ahead_unless_that_would_be_far() {
        let (vectors, trie, _) = fixture();
        let stats = PrefixStats::new(vectors, &trie).unwrap();
        assert_eq!([0, 1, 2].map(|level| stats.looks_ahead(level)), [true, true, false]);
        assert_eq!([0, 1, 2].map(|level| stats.nodes(level)), [3, 12, 60]);
        // 5000 candidates two steps below one node.
        let rows: Vec<[u16; 3]> = (0..5000).map(|i| [0, i / 2500, i]).collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![1, 2, 5000]).unwrap()).unwrap();
        let stats = PrefixStats::new(Features::from_rows(vec![1.0; 5000], 1).unwrap(), &trie);
        let stats = stats.unwrap();
        assert_eq!([0, 1, 2].map(|level| stats.looks_ahead(level)), [true, false, false]);
    }

    #[test]
    fn a_node_of_one_candidate_is_that_candidate() {
        let (vectors, trie, _) = fixture();
        let stats = PrefixStats::new(vectors.clone(), &trie).unwrap();
        for item in 0..60 {
            let identifier = trie.identifier_of(item).unwrap();
            let parent = trie.find(&identifier.tokens()[..2]).unwrap();
            let at = trie.children(parent).position(|(t, _)| t == identifier.tokens()[2]).unwrap();
            let number = stats.children(parent).nth(at).unwrap();
            assert_eq!(stats.mean(2, number), vectors.row(item as usize));
            assert_eq!(stats.spread(2, number), 0.0);
        }
    }

    #[test]
    fn one_vector_per_item_is_asked_for() {
        let (vectors, trie, _) = fixture();
        let short = vectors.select(&[0, 1]);
        let error = PrefixStats::new(short, &trie).unwrap_err().to_string();
        assert!(error.contains("60") && error.contains('2'), "{error}");
    }
}
