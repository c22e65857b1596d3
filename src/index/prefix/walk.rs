//! Summing vectors up along the trie: one walk, from the candidates up.

use rayon::prelude::*;

use super::level::{ITEM, Level};
use crate::{
    features::Features,
    kernels::{Layout, dots},
    trie::{Node, Trie},
};

/// Most candidates that a level's covariance is measured on.
const SAMPLE: usize = 16_384;
/// Rows of a covariance that one thread sums.
const ROWS: usize = 32;

/// All levels, without the links between them.
pub(super) fn levels(vectors: &Features, trie: &Trie) -> Vec<Level> {
    let roots: Vec<Node> = trie.children(trie.root()).map(|(_, node)| node).collect();
    let below = |&node: &Node| {
        let mut walk = Walk::new(vectors, trie);
        walk.visit(node);
        walk.levels
    };
    let parts: Vec<Vec<Level>> = roots.par_iter().map(below).collect();
    let mut levels: Vec<Level> = (0..trie.levels()).map(|_| Level::default()).collect();
    for part in parts {
        for (whole, part) in levels.iter_mut().zip(part) {
            let means = (whole.means.len() / vectors.dim()) as u32;
            let moved = |&slot: &u32| if slot & ITEM == 0 { slot + means } else { slot };
            whole.slots.extend(part.slots.iter().map(moved));
            whole.starts.extend(part.starts);
            whole.means.extend(part.means);
            whole.log_count.extend(part.log_count);
            whole.spread.extend(part.spread);
        }
    }
    for level in &mut levels {
        level.covariance = covariance(level, vectors, trie);
    }
    levels
}

/// What is gathered on the way down and back up.
struct Walk<'a> {
    vectors: &'a Features,
    trie: &'a Trie,
    levels: Vec<Level>,
    /// Sums of the vectors below the nodes on the way, and of their squares, by depth.
    sums: Vec<Vec<f64>>,
    squares: Vec<f64>,
}

impl<'a> Walk<'a> {
    fn new(vectors: &'a Features, trie: &'a Trie) -> Self {
        let depths = trie.levels() + 1;
        Self {
            vectors,
            trie,
            levels: (0..trie.levels()).map(|_| Level::default()).collect(),
            sums: vec![vec![0.0; vectors.dim()]; depths],
            squares: vec![0.0; depths],
        }
    }

    /// Enters a node and all below it, and adds its sums to its parent's.
    fn visit(&mut self, node: Node) {
        let depth = node.depth();
        if node.count() == 1 {
            self.single(node);
            return;
        }
        let level = &mut self.levels[depth - 1];
        let slot = level.means.len() / self.vectors.dim();
        let place = level.means.len()..level.means.len() + self.vectors.dim();
        level.means.resize(place.end, 0.0);
        let number = level.enter(node.first_row() as u32, slot as u32, node.count());
        self.sums[depth].fill(0.0);
        self.squares[depth] = 0.0;
        let trie = self.trie;
        for (_, child) in trie.children(node) {
            self.visit(child);
        }
        let n = node.count() as f64;
        let (above, below) = self.sums.split_at_mut(depth);
        let (above, sum) = (&mut above[depth - 1], &below[0]);
        let level = &mut self.levels[depth - 1];
        let mut of_mean = 0.0;
        for ((mean, above), sum) in level.means[place].iter_mut().zip(above).zip(sum) {
            of_mean += (sum / n).powi(2);
            *mean = (sum / n) as f32;
            *above += sum;
        }
        // The mean square less the square of the mean; 64 bits keep what is left of it.
        level.spread[number] = (self.squares[depth] / n - of_mean).max(0.0) as f32;
        self.squares[depth - 1] += self.squares[depth];
    }

    /// Enters a node of one candidate, and the one node at each level below it.
    fn single(&mut self, node: Node) {
        let (depth, item) = (node.depth(), self.trie.items(node)[0]);
        for level in &mut self.levels[depth - 1..] {
            level.enter(node.first_row() as u32, item | ITEM, 1);
        }
        for (sum, &value) in self.sums[depth - 1].iter_mut().zip(self.vectors.row(item as usize)) {
            *sum += f64::from(value);
            self.squares[depth - 1] += f64::from(value).powi(2);
        }
    }
}

/// Covariance within nodes over an even sample of their candidates, scaled to trace 1.
fn covariance(level: &Level, vectors: &Features, trie: &Trie) -> Vec<f32> {
    let (dim, items) = (vectors.dim(), trie.items(trie.root()));
    let several: Vec<usize> =
        (0..level.starts.len()).filter(|&node| level.slots[node] & ITEM == 0).collect();
    let rows = |node: usize| level.starts[node] as usize..level.end(node, items.len());
    let total: usize = several.iter().map(|&node| rows(node).len()).sum();
    let stride = total.div_ceil(SAMPLE).max(1);
    let mut residuals: Vec<f32> = Vec::new();
    let mut seen = 0usize;
    for (node, mean) in several.into_iter().zip(level.means.chunks_exact(dim)) {
        for &item in &items[rows(node)] {
            if seen.is_multiple_of(stride) {
                let row = vectors.row(item as usize);
                residuals.extend(row.iter().zip(mean).map(|(v, m)| v - m));
            }
            seen += 1;
        }
    }
    let rows = residuals.len() / dim;
    let mut out = vec![0f32; dim * dim];
    if rows == 0 {
        return out;
    }
    // Blocks of a fixed size, so that sums do not depend on the number of threads.
    out.par_chunks_mut(ROWS * dim).enumerate().for_each(|(block, out)| {
        let count = out.len() / dim;
        let mut left = Vec::with_capacity(count * rows);
        for column in block * ROWS..block * ROWS + count {
            left.extend(residuals[column..].iter().step_by(dim));
        }
        dots((count, dim, rows), &left, &residuals, Layout::Columns, out);
    });
    let trace: f64 = (0..dim).map(|i| f64::from(out[i * dim + i])).sum();
    if trace > 0.0 {
        out.iter_mut().for_each(|value| *value = (f64::from(*value) / trace) as f32);
    }
    out
}
