//! A change of the collection, and its bytes.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    identifier::Codes,
    index::ItemTokens,
    metadata::Fields,
};

/// Candidates to remove, candidates to add, and candidates with new metadata; applied in this
/// order.
///
/// Added candidates are stored with their identifiers, so that reading a change needs no quantizer
/// and always gives the same result.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::retrieve) struct Change {
    pub(super) removed: Vec<String>,
    pub(super) ids: Vec<String>,
    /// Whole identifiers of `ids`.
    pub(super) identifiers: Codes,
    /// Their vectors, `[ids, width]`; empty where the index keeps none.
    pub(super) vectors: Vec<f32>,
    /// Token states of each added candidate, or none.
    pub(super) tokens: Vec<ItemTokens>,
    /// What is known about them; empty where the index keeps nothing.
    pub(super) metadata: Vec<Fields>,
    pub(super) described: Vec<(String, Fields)>,
    /// What this adds to the statistics of the index.
    pub(super) stats: ChangeStats,
}

/// What is written as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    removed: Vec<String>,
    ids: Vec<String>,
    levels: usize,
    width: usize,
    metadata: Vec<Fields>,
    described: Vec<(String, Fields)>,
    #[serde(rename = "growth")]
    stats: ChangeStats,
    /// Number of token states of each added candidate; empty where the index has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    token_states: Vec<usize>,
    /// Numbers of a token state.
    #[serde(default, skip_serializing_if = "is_zero")]
    token_width: usize,
}

fn is_zero(width: &usize) -> bool {
    *width == 0
}

impl Change {
    /// No change, for an index with so many levels.
    pub(super) fn none(levels: usize) -> Self {
        Self {
            removed: Vec::new(),
            ids: Vec::new(),
            identifiers: Codes::new(levels),
            vectors: Vec::new(),
            tokens: Vec::new(),
            metadata: Vec::new(),
            described: Vec::new(),
            stats: ChangeStats::default(),
        }
    }

    /// Numbers of a token state; 0 where there is none.
    pub(super) fn token_width(&self) -> usize {
        let states: usize = self.tokens.iter().map(|tokens| tokens.states.len()).sum();
        states.checked_div(self.tokens.iter().map(ItemTokens::len).sum()).unwrap_or(0)
    }

    /// Head (JSON) and body: identifiers, vectors, token states and their factors.
    pub(super) fn to_parts(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let head = Head {
            removed: self.removed.clone(),
            ids: self.ids.clone(),
            levels: self.identifiers.levels(),
            width: self.vectors.len().checked_div(self.ids.len()).unwrap_or(0),
            metadata: self.metadata.clone(),
            described: self.described.clone(),
            stats: self.stats,
            token_states: self.tokens.iter().map(ItemTokens::len).collect(),
            token_width: self.token_width(),
        };
        let head = serde_json::to_vec(&head).map_err(|e| {
            Error::index("change").expected("JSON").found(e.to_string()).fix("report this")
        })?;
        let tokens = self.identifiers.as_flat().iter().flat_map(|token| token.to_le_bytes());
        let vectors = self.vectors.iter().flat_map(|value| value.to_le_bytes());
        let states = self.tokens.iter().flat_map(|tokens| bytemuck::cast_slice(&tokens.states));
        let scales = self.tokens.iter().flat_map(|tokens| &tokens.scales);
        let scales = scales.flat_map(|scale| scale.to_le_bytes());
        Ok((head, tokens.chain(vectors).chain(states.copied()).chain(scales).collect()))
    }

    /// Reads what [`Change::to_parts`] wrote; `subject` is what messages call it.
    pub(super) fn from_parts(subject: &str, head: &[u8], body: &[u8]) -> Result<Self> {
        let wrong = |expected: &str, found: String| {
            let remedy = "restore the index from a copy";
            Error::index(subject).expected(expected).found(found).fix(remedy)
        };
        let head: Head = serde_json::from_slice(head)
            .map_err(|e| wrong("the head of a change", e.to_string()))?;
        let Head { removed, ids, levels, width, metadata, described, stats, .. } = head;
        let (counts, token_width) = (head.token_states, head.token_width);
        let (n, tokens) = (ids.len(), ids.len().saturating_mul(levels).saturating_mul(2));
        let vectors = n.saturating_mul(width).saturating_mul(4);
        let count = counts.iter().fold(0usize, |sum, &count| sum.saturating_add(count));
        let states = count.saturating_mul(ItemTokens::bytes_per_token(token_width));
        let whole = tokens.saturating_add(vectors).saturating_add(states) == body.len();
        let objects = [0, n].contains(&metadata.len()) && [0, n].contains(&counts.len());
        let wide = count == 0 || token_width > 0;
        if levels == 0 || !whole || !objects || !wide {
            let found = format!("{} bytes, {} objects", body.len(), metadata.len());
            return Err(wrong("tokens, vectors and metadata of the added candidates", found));
        }
        let (tokens, rest) = body.split_at(tokens);
        let (vectors, rest) = rest.split_at(vectors);
        let (mut states, mut scales) = rest.split_at(count * token_width);
        let mut taken = |count: usize| {
            let (own, factors);
            (own, states) = states.split_at(count * token_width);
            (factors, scales) = scales.split_at(count * size_of::<f32>());
            let states = own.iter().map(|&byte| byte as i8).collect();
            let scales = factors.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            ItemTokens { states, scales }
        };
        let token_states = counts.iter().map(|&count| taken(count)).collect();
        let tokens = tokens.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let vectors = vectors.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let identifiers = Codes::from_flat(levels, tokens)?;
        Ok(Self {
            removed,
            ids,
            identifiers,
            vectors,
            tokens: token_states,
            metadata,
            described,
            stats,
        })
    }
}

/// Statistics of the changes since the quantizer was fitted: running sums, kept with the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeStats {
    /// Candidates that were added, including those removed later.
    pub added: u64,
    /// Candidates that were removed.
    pub removed: u64,
    /// Sum of the squared reconstruction errors of added candidates.
    pub error: f64,
    /// Added candidates whose semantic tokens were already in use.
    pub shared: u64,
    /// Added candidates that found no free unique token there and have the nearest codes with one.
    pub spilled: u64,
}

impl AddAssign for ChangeStats {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.removed += other.removed;
        self.error += other.error;
        self.shared += other.shared;
        self.spilled += other.spilled;
    }
}
