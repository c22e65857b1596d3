//! A change of the collection, and its bytes.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    identifier::Codes,
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
}

impl Change {
    /// No change, for an index with so many levels.
    pub(super) fn none(levels: usize) -> Self {
        Self {
            removed: Vec::new(),
            ids: Vec::new(),
            identifiers: Codes::new(levels),
            vectors: Vec::new(),
            metadata: Vec::new(),
            described: Vec::new(),
            stats: ChangeStats::default(),
        }
    }

    /// Head (JSON) and body (tokens, then vectors).
    pub(super) fn to_parts(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let head = Head {
            removed: self.removed.clone(),
            ids: self.ids.clone(),
            levels: self.identifiers.levels(),
            width: self.vectors.len().checked_div(self.ids.len()).unwrap_or(0),
            metadata: self.metadata.clone(),
            described: self.described.clone(),
            stats: self.stats,
        };
        let head = serde_json::to_vec(&head).map_err(|e| {
            Error::index("change").expected("JSON").found(e.to_string()).fix("report this")
        })?;
        let tokens = self.identifiers.as_flat().iter().flat_map(|token| token.to_le_bytes());
        let vectors = self.vectors.iter().flat_map(|value| value.to_le_bytes());
        Ok((head, tokens.chain(vectors).collect()))
    }

    /// Reads what [`Change::to_parts`] wrote; `subject` is what messages call it.
    pub(super) fn from_parts(subject: &str, head: &[u8], body: &[u8]) -> Result<Self> {
        let wrong = |expected: &str, found: String| {
            let remedy = "restore the index from a copy";
            Error::index(subject).expected(expected).found(found).fix(remedy)
        };
        let head: Head = serde_json::from_slice(head)
            .map_err(|e| wrong("the head of a change", e.to_string()))?;
        let Head { removed, ids, levels, width, metadata, described, stats } = head;
        let (n, tokens) = (ids.len(), ids.len().saturating_mul(levels).saturating_mul(2));
        let vectors = n.saturating_mul(width).saturating_mul(4);
        let objects = [0, n].contains(&metadata.len());
        if levels == 0 || tokens.saturating_add(vectors) != body.len() || !objects {
            let found = format!("{} bytes, {} objects", body.len(), metadata.len());
            return Err(wrong("tokens, vectors and metadata of the added candidates", found));
        }
        let (tokens, vectors) = body.split_at(tokens);
        let tokens = tokens.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let vectors = vectors.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let identifiers = Codes::from_flat(levels, tokens)?;
        Ok(Self { removed, ids, identifiers, vectors, metadata, described, stats })
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
