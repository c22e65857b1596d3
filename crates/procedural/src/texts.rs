//! Captions of a benchmark, split, and what was counted while splitting.

use serde::{Deserialize, Serialize};

/// One text about one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caption {
    /// The item's number.
    pub item: usize,
    /// What it says.
    pub text: String,
    /// Whether its template is one that no training caption uses.
    pub held_out: bool,
}

/// Captions of a benchmark, split; made by [`Benchmark::captions`](super::Benchmark::captions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitCaptions {
    /// Captions to train on, item by item.
    pub training: Vec<Caption>,
    /// One held-out caption of each item, in the order of the items.
    pub queries: Vec<Caption>,
    /// What was counted while splitting.
    pub audit: CaptionAudit,
}

/// Counts about a split.
///
/// A caption identifies its item when no other item agrees with the facts that it states. Relations
/// between the objects of a scene ("above", "to the left of") are not counted as facts, so the true
/// numbers are higher there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaptionAudit {
    /// Number of training captions.
    pub training: usize,
    /// Number of queries.
    pub queries: usize,
    /// Queries whose words are also those of a training caption, of whatever item: always 0,
    /// counted after the split.
    pub shared_texts: usize,
    /// Queries that were worded again because a training caption had their words.
    pub reworded: usize,
    /// Queries from templates that no training caption uses.
    pub held_out_templates: usize,
    /// Training captions that identify their item.
    pub identifying_training: usize,
    /// Queries that identify their item.
    pub identifying_queries: usize,
}
