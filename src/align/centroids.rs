//! Mean texts of the items.

use super::TextVectors;
use crate::kernels::normalise;

/// Sums of the texts of every item, each times its weight.
pub(super) struct Centroids {
    pub(super) dim: usize,
    sums: Vec<f32>,
    /// Of texts that weigh something.
    counts: Vec<u32>,
    means: Vec<f32>,
    /// The largest of every item's texts.
    weights: Vec<f32>,
}

impl Centroids {
    /// Of so many items.
    pub(super) fn new(items: usize, texts: &TextVectors) -> Self {
        let dim = texts.dim();
        let mut sums = vec![0f32; items * dim];
        let mut counts = vec![0u32; items];
        let mut weights = vec![0f32; items];
        for (text, &item) in texts.items.iter().enumerate() {
            let (item, weight) = (item as usize, texts.weight(text));
            if weight == 0.0 {
                continue;
            }
            counts[item] += 1;
            weights[item] = weights[item].max(weight);
            let sum = &mut sums[item * dim..(item + 1) * dim];
            sum.iter_mut().zip(texts.row(text)).for_each(|(sum, v)| *sum += weight * v);
        }
        let mut means = sums.clone();
        means.chunks_exact_mut(dim).for_each(normalise);
        Self { dim, sums, counts, means, weights }
    }

    /// Items that have texts, in order.
    pub(super) fn known(&self) -> impl Iterator<Item = u32> {
        (0..self.counts.len() as u32).filter(|&item| self.counts[item as usize] > 0)
    }

    /// The mean, of length 1.
    pub(super) fn row(&self, item: u32) -> &[f32] {
        &self.means[item as usize * self.dim..(item as usize + 1) * self.dim]
    }

    /// The mean, of length 1; absent without texts.
    pub(super) fn get(&self, item: u32) -> Option<&[f32]> {
        (self.counts.get(item as usize).is_some_and(|&count| count > 0)).then(|| self.row(item))
    }

    /// How much an item's texts count: the largest of their weights.
    pub(super) fn weight(&self, item: u32) -> f32 {
        self.weights.get(item as usize).copied().unwrap_or(0.0)
    }

    /// The mean without one of its texts, of length 1; absent where that was the only one.
    pub(super) fn without(&self, item: u32, texts: &TextVectors, text: usize) -> Option<Vec<f32>> {
        let weight = texts.weight(text);
        if self.counts[item as usize] < if weight == 0.0 { 1 } else { 2 } {
            return None;
        }
        let at = item as usize * self.dim;
        let sum = &self.sums[at..at + self.dim];
        let mut rest: Vec<f32> =
            sum.iter().zip(texts.row(text)).map(|(sum, v)| sum - weight * v).collect();
        normalise(&mut rest);
        Some(rest)
    }

    /// Puts another text in the place of one of the same weight.
    pub(super) fn replace(&mut self, item: u32, weight: f32, old: &[f32], new: &[f32]) {
        let row = item as usize * self.dim..(item as usize + 1) * self.dim;
        let sum = &mut self.sums[row.clone()];
        sum.iter_mut()
            .zip(old.iter().zip(new))
            .for_each(|(sum, (old, new))| *sum += weight * (new - old));
        self.means[row.clone()].copy_from_slice(&self.sums[row.clone()]);
        normalise(&mut self.means[row]);
    }
}
