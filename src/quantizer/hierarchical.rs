//! Hierarchical K-Means: the rows of each cluster are clustered again.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Quantizer,
    kmeans::{Init, KMeansConfig, MOST_CODES, Search, check_lloyd, check_sizes, group},
    rows::{bad_token, check_codes, check_rows, distinct_rows},
};
use crate::{
    error::{Error, Result},
    identifier::Codes,
};

/// Settings of hierarchical K-Means.
///
/// # Example
/// ```
/// use cart_retrieval::quantizer::HierarchicalConfig;
/// HierarchicalConfig { seed: 1, ..HierarchicalConfig::new(vec![32, 8, 8]) }.validate()?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "HierarchicalConfig::without_sizes", deny_unknown_fields)]
pub struct HierarchicalConfig {
    /// Maximum number of children of a node of each level, 2 to 65536.
    pub sizes: Vec<usize>,
    /// Random seed.
    pub seed: u64,
    /// Number of fits of each node; the best is kept.
    pub restarts: usize,
    /// Maximum number of updates of a node's centres.
    pub max_iterations: usize,
    /// Relative gain of inertia below which the fit of a node ends.
    pub tolerance: f64,
    /// How the first centres are chosen.
    pub init: Init,
}

impl HierarchicalConfig {
    /// What a file that leaves settings out starts from; [`validate`](Self::validate) misses the
    /// sizes.
    fn without_sizes() -> Self {
        Self::new(Vec::new())
    }

    /// Defaults for levels with at most these numbers of children for each node.
    pub fn new(sizes: Vec<usize>) -> Self {
        let KMeansConfig { seed, restarts, max_iterations, tolerance, init, .. } =
            KMeansConfig::new(2);
        Self { sizes, seed, restarts, max_iterations, tolerance, init }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.sizes)?;
        check_lloyd(self.restarts, self.max_iterations, self.tolerance)
    }

    /// Fits the tree to rows in memory.
    ///
    /// A node with fewer distinct rows than its level's size gets one child for each of them.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major, n > 0
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range; [`Error::Quantizer`] for no row, a wrong shape
    /// or a value that is not finite.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::{HierarchicalConfig, Quantizer};
    /// let rows = [0.0, 1.0, 10.0, 11.0, 12.0];
    /// let tree = HierarchicalConfig::new(vec![2, 4]).fit(&rows, 1)?;
    /// assert_eq!(tree.decode(&tree.encode(&rows)?)?, rows);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit(&self, rows: &[f32], dim: usize) -> Result<Hierarchical> {
        self.validate()?;
        let n = check_rows(rows, dim, 0)?;
        Error::quantizer("rows to cluster")
            .expected("at least one row")
            .found("none")
            .fix_if(n == 0, "pass the embeddings of the candidates")?;
        let mut nodes: Vec<Vec<u32>> = vec![(0..n as u32).collect()];
        let (mut centres, mut first_children) = (Vec::new(), Vec::new());
        for (level, &size) in self.sizes.iter().enumerate() {
            let split: Vec<(Vec<f32>, Vec<Vec<u32>>)> = nodes
                .par_iter()
                .enumerate()
                .map(|(node, members)| self.split(rows, dim, members, size, level, node))
                .collect::<Result<_>>()?;
            let (mut level_centres, mut first_child) = (Vec::new(), vec![0]);
            nodes = Vec::new();
            for (children, groups) in split {
                level_centres.extend(children);
                nodes.extend(groups);
                first_child.push(nodes.len() as u32);
            }
            centres.push(level_centres);
            first_children.push(first_child);
        }
        Hierarchical::from_parts(self.sizes.clone(), centres, first_children, dim)
    }

    /// Clusters the members of one node: centres of its children, and their members.
    fn split(
        &self,
        rows: &[f32],
        dim: usize,
        members: &[u32],
        size: usize,
        level: usize,
        node: usize,
    ) -> Result<(Vec<f32>, Vec<Vec<u32>>)> {
        let own = gather(rows, dim, members);
        let k = distinct_rows(&own, dim, size);
        if k < 2 {
            return Ok((own[..dim].to_vec(), vec![members.to_vec()]));
        }
        // Any mixing will do: a node's seed depends on its place alone, not on who fits it.
        let place = ((level as u64) << 32) ^ node as u64;
        let fitted = KMeansConfig {
            seed: self.seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            restarts: self.restarts,
            max_iterations: self.max_iterations,
            tolerance: self.tolerance,
            init: self.init,
            ..KMeansConfig::new(k)
        }
        .fit(&own, dim)?;
        let (order, starts) = group(&Search::new(fitted.centres(), dim).indices(&own), k);
        let (mut centres, mut groups) = (Vec::new(), Vec::new());
        for (child, range) in starts.windows(2).enumerate() {
            // A fit that stops early may leave a cluster empty: it gets no child.
            if range[0] < range[1] {
                centres.extend_from_slice(&fitted.centres()[child * dim..][..dim]);
                let own = &order[range[0]..range[1]];
                groups.push(own.iter().map(|&i| members[i as usize]).collect());
            }
        }
        Ok((centres, groups))
    }
}

/// Copies rows next to each other.
fn gather(rows: &[f32], dim: usize, members: &[u32]) -> Vec<f32> {
    members.iter().flat_map(|&i| &rows[i as usize * dim..][..dim]).copied().collect()
}

/// A fitted tree of centres; the tokens of a row are the children on its way down.
///
/// The paper's ablation "hierarchical k-means instead of RQ-VAE" (Fang et al. 2024,
/// arXiv 2406.17507). A token means something only together with the tokens before it.
///
/// Invariants: nodes of a level lie in the order of their parents; the children of node `p` (the
/// root for level 0) are nodes `first_children[level][p]..first_children[level][p + 1]` of the
/// level; every node but those of the last level has a child.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchical {
    sizes: Vec<usize>,
    centres: Vec<Vec<f32>>,
    first_children: Vec<Vec<u32>>,
    dim: usize,
}

impl Hierarchical {
    /// Puts a saved quantizer together again.
    ///
    /// # Shapes
    /// - `sizes`: `[levels]`, the most children of a node of each level
    /// - `centres`: for each level `[nodes, dim]`
    /// - `first_children`: for each level `[parents + 1]`, from 0 to the number of its nodes
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Quantizer`] when the parts break the invariants above.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::{expert::Hierarchical, quantizer::Quantizer};
    /// let centres = vec![vec![0.0, 10.0], vec![0.0, 9.0, 11.0]];
    /// let tree =
    ///     Hierarchical::from_parts(vec![2, 2], centres, vec![vec![0, 2], vec![0, 1, 3]], 1)?;
    /// assert_eq!(tree.encode(&[10.5])?.row(0), [1, 1]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn from_parts(
        sizes: Vec<usize>,
        centres: Vec<Vec<f32>>,
        first_children: Vec<Vec<u32>>,
        dim: usize,
    ) -> Result<Self> {
        check_sizes(&sizes)?;
        let check = |level: usize, expected: String, found: String, wrong: bool| {
            let subject = format!("level {level} of hierarchical K-Means");
            let problem = Error::quantizer(subject).expected(expected).found(found);
            problem.fix_if(wrong, "save the quantizer again")
        };
        let (levels, parts) = (sizes.len(), (centres.len(), first_children.len()));
        let found = format!("{} and {}", parts.0, parts.1);
        check(0, format!("{levels} levels of each part"), found, parts != (levels, levels))?;
        let mut parents = 1;
        for (level, (centres, first_child)) in centres.iter().zip(&first_children).enumerate() {
            let nodes = check_rows(centres, dim, 0)?;
            let ends = (first_child.first().copied(), first_child.last().copied());
            let wrong = first_child.len() != parents + 1 || ends != (Some(0), Some(nodes as u32));
            let expected = format!("{} offsets from 0 to {nodes}", parents + 1);
            let found = format!("{} offsets with ends {ends:?}", first_child.len());
            check(level, expected, found, wrong)?;
            let most = sizes[level].min(MOST_CODES);
            let bad = first_child.windows(2).position(|pair| {
                let count = pair[1].checked_sub(pair[0]);
                !count.is_some_and(|count| (1..=most).contains(&(count as usize)))
            });
            if let Some(parent) = bad {
                let expected = format!("1 to {} children for each node", sizes[level]);
                let pair = &first_child[parent..parent + 2];
                check(level, expected, format!("offsets {pair:?} for node {parent}"), true)?;
            }
            parents = nodes;
        }
        Ok(Self { sizes, centres, first_children, dim })
    }

    /// The centres of the nodes, one table for each level: `[nodes, dim]`, row-major.
    pub fn centres(&self) -> &[Vec<f32>] {
        &self.centres
    }

    /// For each level, where the children of each parent start, and the number of nodes at the end.
    pub fn first_children(&self) -> &[Vec<u32>] {
        &self.first_children
    }

    /// First node of a parent's children, and the node behind the last one.
    fn children(&self, level: usize, parent: usize) -> (usize, usize) {
        let first_child = &self.first_children[level];
        (first_child[parent] as usize, first_child[parent + 1] as usize)
    }
}

impl Quantizer for Hierarchical {
    fn dim(&self) -> usize {
        self.dim
    }

    fn level_sizes(&self) -> Vec<usize> {
        self.sizes.clone()
    }

    fn followers(&self, prefix: &[u16]) -> usize {
        if prefix.len() >= self.sizes.len() {
            return 0;
        }
        let mut node = 0;
        for (level, &token) in prefix.iter().enumerate() {
            let (from, to) = self.children(level, node);
            node = from + usize::from(token);
            if node >= to {
                return 0;
            }
        }
        let (from, to) = self.children(prefix.len(), node);
        to - from
    }

    fn encode(&self, rows: &[f32]) -> Result<Codes> {
        let (n, dim, levels) = (check_rows(rows, self.dim, 0)?, self.dim, self.sizes.len());
        let mut nodes = vec![0_u32; n];
        let mut tokens = vec![0_u16; n * levels];
        let mut parents = 1;
        for level in 0..levels {
            // Rows of one node are searched together, among its children only.
            let (order, starts) = group(&nodes, parents);
            let found: Vec<Vec<u32>> = (0..parents)
                .into_par_iter()
                .map(|parent| {
                    let members = &order[starts[parent]..starts[parent + 1]];
                    let (from, to) = self.children(level, parent);
                    if members.is_empty() || to - from == 1 {
                        return vec![0; members.len()];
                    }
                    let centres = &self.centres[level][from * dim..to * dim];
                    Search::new(centres, dim).indices(&gather(rows, dim, members))
                })
                .collect();
            for (parent, found) in found.iter().enumerate() {
                let first = self.first_children[level][parent];
                for (&row, &child) in order[starts[parent]..].iter().zip(found) {
                    nodes[row as usize] = first + child;
                    // At most 65536 children, so every index fits 16 bits.
                    tokens[row as usize * levels + level] = child as u16;
                }
            }
            parents = self.centres[level].len() / dim;
        }
        Codes::from_flat(levels, tokens)
    }

    fn decode_prefix(&self, codes: &Codes, levels: usize) -> Result<Vec<f32>> {
        check_codes(codes, levels, &self.sizes)?;
        let mut rows = Vec::with_capacity(codes.len() * self.dim);
        for (item, code) in codes.rows().enumerate() {
            let mut node = 0;
            for (level, &token) in code[..levels].iter().enumerate() {
                let (from, to) = self.children(level, node);
                node = from + usize::from(token);
                if node >= to {
                    let expected = format!("below {}, its node's children", to - from);
                    return Err(bad_token(item, level, token, &expected));
                }
            }
            match levels {
                0 => rows.resize(rows.len() + self.dim, 0.0),
                _ => rows.extend(&self.centres[levels - 1][node * self.dim..][..self.dim]),
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[path = "hierarchical_tests.rs"]
mod tests;
