//! Prefix statistics of a batch.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::level::{GuideLevel, Taken};
use crate::{
    identifier::Codes,
    index::{LeaveOneOut, PrefixStats},
    trie::Trie,
};

/// The candidates that a [`GuideBatch`] is gathered from.
#[derive(Debug, Clone, Copy)]
pub struct GuideSource<'a> {
    /// Identifiers of all items.
    pub identifiers: &'a Codes,
    /// The trie of these identifiers.
    pub trie: &'a Trie,
    /// Prefix statistics of the items' vectors.
    pub geometry: &'a PrefixStats,
}

/// Prefix statistics along the identifiers of a batch's targets.
#[derive(Debug, Clone)]
pub struct GuideBatch<B: Backend> {
    /// Per level; absent where no target has a choice.
    pub(super) levels: Vec<Option<GuideLevel<B>>>,
    /// The targets' vectors as they would be without the text at hand, `[batch, D]`.
    pub(super) own: Tensor<B, 2>,
    /// The same less the vectors they have, `[batch, D]`.
    pub(super) change: Tensor<B, 2>,
    /// The targets' items.
    pub(super) items: Vec<u32>,
}

impl<B: Backend> GuideBatch<B> {
    /// Gathers the prefix statistics of items.
    ///
    /// # Shapes
    /// - `texts`: for each item, the training text that describes it here, if it is one; its
    ///   held-out vector then stands for the item's
    ///
    /// # Panics
    /// When an item is not in the table or a text has no held-out vector.
    pub fn new(
        items: &[u32],
        texts: Option<(&[u32], &LeaveOneOut)>,
        source: &GuideSource<'_>,
        device: &B::Device,
    ) -> Self {
        let GuideSource { identifiers, trie, geometry } = *source;
        let (rows, dim) = (items.len(), geometry.dim());
        let mut own = Vec::with_capacity(rows * dim);
        let mut change = Vec::with_capacity(rows * dim);
        for (at, &item) in items.iter().enumerate() {
            let vector = geometry.vectors().row(item as usize);
            let held_out = texts.map_or(vector, |(texts, held)| held.row(texts[at] as usize));
            own.extend_from_slice(held_out);
            change.extend(held_out.iter().zip(vector).map(|(held, v)| held - v));
        }
        let matrix = |values| Tensor::from_data(TensorData::new(values, [rows, dim]), device);
        let mut nodes = vec![trie.root(); rows];
        let levels = (0..trie.levels())
            .map(|level| {
                let rest: Vec<&[u16]> =
                    items.iter().map(|&item| &identifiers.row(item as usize)[level..]).collect();
                GuideLevel::new(level, &mut nodes, &rest, trie, geometry, device)
            })
            .collect();
        Self { levels, own: matrix(own), change: matrix(change), items: items.to_vec() }
    }

    /// Names the items that the batch's rows describe, where they are named otherwise than by their
    /// identifiers: rows of one item are no negatives of each other.
    ///
    /// # Panics
    /// When there is not one item a row.
    pub fn of_items(self, items: Vec<u32>) -> Self {
        assert_eq!(items.len(), self.items.len(), "an item for every row");
        Self { items, ..self }
    }

    /// Some rows of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        self.taken(Taken::Rows(rows.start, rows.len()), self.items[rows].to_vec())
    }

    /// The batch twice, for two passes of different dropout.
    pub fn repeated(&self) -> Self {
        self.taken(Taken::Twice, self.items.repeat(2))
    }

    fn taken(&self, taken: Taken, items: Vec<u32>) -> Self {
        let level = |level: &GuideLevel<B>| level.taken(taken);
        let levels = self.levels.iter().map(|guide| guide.as_ref().map(level)).collect();
        Self { levels, own: taken.of(&self.own), change: taken.of(&self.change), items }
    }
}
