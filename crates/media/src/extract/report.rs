//! Settings of an extraction, and what it tells.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of an extraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractConfig {
    /// Items a part: what is extracted at once, kept when a run is interrupted, and a file of
    /// features in the end.
    pub part: usize,
}

impl Default for ExtractConfig {
    /// Parts of 1,024 items.
    fn default() -> Self {
        Self { part: 1024 }
    }
}

/// An item without features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its id.
    pub id: String,
    /// Why.
    pub message: String,
}

/// How far an extraction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractProgress {
    /// Items that are done, those of an earlier run included.
    pub done: usize,
    /// Of them, those without features.
    pub failed: usize,
    /// All items.
    pub total: usize,
}

/// What an extraction made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Items with features.
    pub items: usize,
    /// Items that an earlier run had done.
    pub resumed: usize,
    /// Items without features; `left-out.jsonl` lists them.
    pub failed: Vec<Failure>,
    /// Captions that were not written, as their items have no features.
    pub captions_left_out: usize,
    /// Whether an earlier run had finished already, and nothing was changed.
    pub unchanged: bool,
}

/// Ids that a file names and no item has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIds {
    /// The file.
    pub file: PathBuf,
    /// Captions, entries of splits or lines that name such an id.
    pub entries: usize,
    /// The ids, each once, in the order of the file.
    pub ids: Vec<String>,
}
