//! From tokens to tensors: padded queries, target identifiers, legal children.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use crate::{
    error::{Error, Result},
    identifier::Codes,
    trie::Trie,
};

/// One training or test pair: a tokenised text and the item it describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Tokens of the text, special tokens included.
    pub tokens: Vec<u32>,
    /// Index of the candidate.
    pub item: u32,
}

/// Padded queries on a device.
#[derive(Debug, Clone)]
pub struct QueryBatch<B: Backend> {
    /// `[batch, tokens]`
    pub tokens: Tensor<B, 2, Int>,
    /// True where there is no token, `[batch, tokens]`.
    pub padding: Tensor<B, 2, Bool>,
}

/// What the decoder should generate for a batch of queries.
#[derive(Debug, Clone)]
pub struct TargetBatch<B: Backend> {
    /// `[batch, levels]`
    pub identifiers: Tensor<B, 2, Int>,
    /// Per level, true where the token is a child of the target's prefix: `[batch, size]`.
    pub legal: Vec<Tensor<B, 2, Bool>>,
}

impl<B: Backend> QueryBatch<B> {
    /// Pads token rows to the longest of them.
    ///
    /// # Errors
    /// [`Error::Query`] without rows or with an empty one.
    pub fn new<R: AsRef<[u32]>>(rows: &[R], padding: u32, device: &B::Device) -> Result<Self> {
        let width = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
        if width == 0 || rows.iter().any(|row| row.as_ref().is_empty()) {
            return Err(Error::query("batch of queries")
                .expected("at least one token in each of at least one query")
                .found(format!("{} queries, the longest of {width} tokens", rows.len()))
                .fix("leave blank queries out"));
        }
        let mut tokens = vec![i64::from(padding); rows.len() * width];
        let mut absent = vec![true; rows.len() * width];
        for (index, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            for (at, &token) in row.iter().enumerate() {
                tokens[index * width + at] = i64::from(token);
            }
            absent[index * width..index * width + row.len()].fill(false);
        }
        let shape = [rows.len(), width];
        Ok(Self {
            tokens: Tensor::from_data(TensorData::new(tokens, shape), device),
            padding: Tensor::from_data(TensorData::new(absent, shape), device),
        })
    }

    /// Some rows of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let (start, length) = (rows.start, rows.len());
        Self {
            tokens: self.tokens.clone().narrow(0, start, length),
            padding: self.padding.clone().narrow(0, start, length),
        }
    }

    /// The batch twice, for two passes of different dropout.
    pub fn repeated(&self) -> Self {
        Self {
            tokens: Tensor::cat(vec![self.tokens.clone(); 2], 0),
            padding: Tensor::cat(vec![self.padding.clone(); 2], 0),
        }
    }
}

impl<B: Backend> TargetBatch<B> {
    /// Targets of items, with the children of every prefix of theirs.
    ///
    /// # Panics
    /// When an item is not in the table or not in the trie.
    pub fn new(items: &[u32], identifiers: &Codes, trie: &Trie, device: &B::Device) -> Self {
        let levels = identifiers.levels();
        let mut targets = Vec::with_capacity(items.len() * levels);
        let mut legal: Vec<Vec<bool>> = (0..levels)
            .map(|level| vec![false; items.len() * trie.vocabulary().size(level)])
            .collect();
        for (row, &item) in items.iter().enumerate() {
            let identifier = identifiers.row(item as usize);
            let mut node = trie.root();
            for (level, &token) in identifier.iter().enumerate() {
                let start = row * trie.vocabulary().size(level);
                for (child, _) in trie.children(node) {
                    legal[level][start + usize::from(child)] = true;
                }
                node = trie.child(node, token).expect("identifiers of the trie");
                targets.push(i64::from(token));
            }
        }
        Self {
            identifiers: Tensor::from_data(TensorData::new(targets, [items.len(), levels]), device),
            legal: legal
                .into_iter()
                .map(|mask| {
                    let shape = [items.len(), mask.len() / items.len()];
                    Tensor::from_data(TensorData::new(mask, shape), device)
                })
                .collect(),
        }
    }

    /// Some rows of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let (start, length) = (rows.start, rows.len());
        Self {
            identifiers: self.identifiers.clone().narrow(0, start, length),
            legal: self.legal.iter().map(|m| m.clone().narrow(0, start, length)).collect(),
        }
    }

    /// The batch twice, for two passes of different dropout.
    pub fn repeated(&self) -> Self {
        Self {
            identifiers: Tensor::cat(vec![self.identifiers.clone(); 2], 0),
            legal: self.legal.iter().map(|m| Tensor::cat(vec![m.clone(); 2], 0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::identifier::LevelSizes;

    #[test]
    fn queries_are_padded_to_the_longest() {
        let batch =
            QueryBatch::<Flex>::new(&[vec![5, 6], vec![7]], 9, &Default::default()).unwrap();
        assert_eq!(batch.tokens.to_data().to_vec::<i32>().unwrap(), [5, 6, 7, 9]);
        assert_eq!(batch.repeated().tokens.dims(), [4, 2]);
        assert!(QueryBatch::<Flex>::new::<Vec<u32>>(&[], 0, &Default::default()).is_err());
        assert!(QueryBatch::<Flex>::new(&[vec![1], vec![]], 0, &Default::default()).is_err());
    }

    #[test]
    fn legal_tokens_are_the_children_of_the_targets_prefixes() {
        let codes = Codes::from_rows(2, &[[0u16, 1], [0, 2], [2, 0]]).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![3, 3]).unwrap()).unwrap();
        let batch = TargetBatch::<Flex>::new(&[1, 2], &codes, &trie, &Default::default());
        assert_eq!(batch.identifiers.to_data().to_vec::<i32>().unwrap(), [0, 2, 2, 0]);
        let legal = |level: usize| batch.legal[level].to_data().iter::<bool>().collect::<Vec<_>>();
        assert_eq!(legal(0), [true, false, true, true, false, true]);
        assert_eq!(legal(1), [false, true, true, true, false, false]);
    }
}
