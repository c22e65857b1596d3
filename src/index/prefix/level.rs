//! The nodes of one level.

/// Marks a slot that is an item's own vector.
pub(super) const ITEM: u32 = 1 << 31;

/// The nodes that are reached by the token of one level, in order of their rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Level {
    /// First row of every node.
    pub(super) starts: Vec<u32>,
    /// Number of every node's first child at the next level, and the number of nodes there; empty
    /// at the last level.
    pub(super) first_child: Vec<u32>,
    /// Whether nodes of this level are scored by their children.
    pub(super) looks_ahead: bool,
    /// Mean of every node: a row of `means`, or an item's vector where [`ITEM`] is set.
    pub(super) slots: Vec<u32>,
    pub(super) means: Vec<f32>,
    /// ln of the number of candidates.
    pub(super) log_count: Vec<f32>,
    /// Mean squared distance from the mean.
    pub(super) spread: Vec<f32>,
    /// Covariance within nodes, of trace 1 (or zero), `[D, D]`.
    pub(super) covariance: Vec<f32>,
}

impl Level {
    /// Adds a node without any spread; returns its number.
    pub(super) fn enter(&mut self, start: u32, slot: u32, count: usize) -> usize {
        self.starts.push(start);
        self.slots.push(slot);
        self.log_count.push((count as f32).ln());
        self.spread.push(0.0);
        self.starts.len() - 1
    }

    /// Rows behind the last one of a node, of `n` rows.
    pub(super) fn end(&self, node: usize, n: usize) -> usize {
        self.starts.get(node + 1).map_or(n, |&start| start as usize)
    }
}
