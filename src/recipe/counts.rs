//! What is counted in the data, as far as settings follow from it.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
};

/// How many rows differ from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows.
    pub items: usize,
    /// Numbers of a row.
    pub dim: usize,
    /// Different rows.
    pub distinct: usize,
    /// Rows that another row equals.
    pub repeated: usize,
    /// Size of the largest group of equal rows.
    pub largest: usize,
}

/// A row by its bits.
struct Bits<'a>(&'a [f32]);

impl Hash for Bits<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|value| value.to_bits().hash(state));
    }
}

impl PartialEq for Bits<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl Eq for Bits<'_> {}

impl Rows {
    /// Counts rows of width `dim`. Rows with different `labels` differ whatever their numbers are.
    pub fn of(rows: &[f32], dim: usize, labels: Option<&[u64]>) -> Self {
        let mut counts: HashMap<(Bits<'_>, u64), usize> = HashMap::new();
        for (item, row) in rows.chunks_exact(dim).enumerate() {
            let label = labels.map_or(0, |labels| labels[item]);
            *counts.entry((Bits(row), label)).or_default() += 1;
        }
        Self {
            items: rows.len() / dim,
            dim,
            distinct: counts.len(),
            repeated: counts.values().filter(|&&count| count > 1).sum(),
            largest: counts.values().copied().max().unwrap_or(0),
        }
    }

    /// Share of the rows that another row equals.
    pub fn repeated_share(&self) -> f64 {
        self.repeated as f64 / self.items.max(1) as f64
    }
}

/// Facts about the data that determine the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The rows of the candidates that are trained on.
    pub rows: Rows,
    /// Captions that are trained on.
    pub pairs: usize,
    /// Candidates that have a training caption.
    pub described: usize,
    /// Candidates that keep a caption for queries, where the choice decides that.
    pub held_out: usize,
    /// Number of words of the longest training caption.
    pub words: usize,
    /// Whether there are captions to query with.
    pub asks: bool,
    /// Whether the candidates to find are not trained on.
    pub unseen: bool,
    /// Whether a pretrained text encoder reads the captions.
    pub pretrained: bool,
}
