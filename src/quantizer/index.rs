//! Candidates with their identifiers.

use super::{HealthReport, HealthThresholds};
use crate::{
    error::{Error, Result},
    features::ItemIds,
    identifier::{Identifier, Vocabulary},
    trie::Trie,
};

/// The candidates of a collection: ids, identifiers both ways, and the health of the quantizer that
/// made them. Made by [`CoarseToFine::assign`](super::CoarseToFine::assign).
#[derive(Debug, Clone)]
pub struct CandidateIndex {
    ids: ItemIds,
    trie: Trie,
    health: HealthReport,
}

impl CandidateIndex {
    /// Puts ids and identifiers together.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is not one id per identifier.
    pub fn new(ids: ItemIds, trie: Trie, health: HealthReport) -> Result<Self> {
        if ids.len() != trie.len() {
            return Err(Error::ids(
                "candidates",
                format!("one id for each of {} identifiers", trie.len()),
                ids.len().to_string(),
                "use ids and identifiers of one collection",
            ));
        }
        Ok(Self { ids, trie, health })
    }

    /// Ids of the candidates.
    pub fn ids(&self) -> &ItemIds {
        &self.ids
    }

    /// Identifiers of the candidates.
    pub fn trie(&self) -> &Trie {
        &self.trie
    }

    /// Sizes of the identifier's levels.
    pub fn vocabulary(&self) -> &Vocabulary {
        self.trie.vocabulary()
    }

    /// How well the quantizer uses its codes on these candidates.
    pub fn health(&self) -> &HealthReport {
        &self.health
    }

    /// Fails unless the quantizer is healthy enough to train a decoder on.
    ///
    /// # Errors
    /// [`Error::Collapsed`] naming the level and what to change.
    pub fn ensure_healthy(&self, thresholds: &HealthThresholds) -> Result<()> {
        self.health.ensure(thresholds)
    }

    /// The identifier of an id.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is no such candidate.
    pub fn identifier(&self, id: &str) -> Result<Identifier> {
        let item = self.ids.index_of(id).ok_or_else(|| {
            Error::ids(
                format!("id {id:?}"),
                "an id of this index",
                "none of its candidates",
                "check the spelling, or index that item first",
            )
        })?;
        self.trie.identifier_of(item as u32)
    }

    /// The id that an identifier stands for.
    ///
    /// # Errors
    /// As [`Trie::item_of`].
    pub fn id(&self, identifier: &[u16]) -> Result<&str> {
        Ok(self.ids.get(self.trie.item_of(identifier)? as usize))
    }
}
