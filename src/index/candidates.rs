//! Candidates with their identifiers.

use std::sync::Arc;

use super::{HealthReport, HealthThresholds, IdentifierMap, PrefixStats, TokenStates};
use crate::{
    error::{Error, Result},
    features::{Features, ItemIds},
    identifier::{Identifier, LevelSizes},
    metadata::{Condition, ItemMetadata},
    trie::{Filter, Trie},
};

/// The candidates of a collection: ids, identifiers both ways, and the health of the quantizer that
/// made them. Made by [`CoarseToFine::assign`](crate::quantizer::CoarseToFine::assign).
///
/// A candidate may have several identifiers
/// ([`Assignment::several`](crate::quantizer::Assignment::several)). Then the trie's items
/// are identifier rows, and [`CandidateIndex::identifier_map`] says which candidate each
/// belongs to; everything else here speaks of candidates.
#[derive(Debug, Clone)]
pub struct CandidateIndex {
    ids: ItemIds,
    trie: Trie,
    identifier_map: IdentifierMap,
    health: HealthReport,
    prefix_stats: Option<Arc<PrefixStats>>,
    /// Names of the groups that the first token tells apart.
    groups: Option<Vec<String>>,
    metadata: Option<Arc<ItemMetadata>>,
    token_states: Option<Arc<TokenStates>>,
}

impl CandidateIndex {
    /// Combines ids and identifiers.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is not one id per identifier.
    pub fn new(ids: ItemIds, trie: Trie, health: HealthReport) -> Result<Self> {
        let identifier_map = IdentifierMap::single(trie.len());
        Self::of_rows(ids, trie, identifier_map, health)
    }

    /// The same with several identifiers for some candidates: `identifier_map` says which candidate
    /// each row of the trie belongs to.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is not one id per candidate; [`Error::Identifier`] when there is
    /// not one candidate per identifier.
    pub fn of_rows(
        ids: ItemIds,
        trie: Trie,
        identifier_map: IdentifierMap,
        health: HealthReport,
    ) -> Result<Self> {
        let remedy = "use the map and the identifiers of one collection";
        Error::identifier("owners of the identifiers")
            .expected(format!("one for each of {} identifiers", trie.len()))
            .found(identifier_map.len().to_string())
            .fix_if(identifier_map.len() != trie.len(), remedy)?;
        let remedy = "use ids and identifiers of one collection";
        Error::ids("candidates")
            .expected(format!("one id for each of {} candidates", identifier_map.items()))
            .found(ids.len().to_string())
            .fix_if(ids.len() != identifier_map.items(), remedy)?;
        Ok(Self {
            ids,
            trie,
            identifier_map,
            health,
            prefix_stats: None,
            groups: None,
            metadata: None,
            token_states: None,
        })
    }

    /// Declares that the first token of the identifiers is a group, and names the groups.
    ///
    /// # Errors
    /// [`Error::Identifier`] when there is not one name for each token of the first level.
    pub fn with_groups(self, names: Vec<String>) -> Result<Self> {
        let size = self.vocabulary().size(0);
        Error::identifier("groups")
            .expected(format!("a name for each of {size} first tokens"))
            .found(names.len().to_string())
            .fix_if(names.len() != size, "use names and identifiers of one collection")?;
        Ok(Self { groups: Some(names), ..self })
    }

    /// Names of the groups that the first token tells apart, if it does.
    pub fn groups(&self) -> Option<&[String]> {
        self.groups.as_deref()
    }

    /// The group of a candidate, if there are groups.
    ///
    /// # Errors
    /// [`Error::Identifier`] when there is no such candidate.
    pub fn group_of(&self, item: u32) -> Result<Option<&str>> {
        let Some(names) = &self.groups else { return Ok(None) };
        let identifier = self.trie.identifier_of(item)?;
        Ok(Some(&names[usize::from(identifier.tokens()[0])]))
    }

    /// A filter that allows the candidates of one group only.
    ///
    /// # Errors
    /// [`Error::Query`] when there are no groups, or none of that name.
    pub fn group_filter(&self, name: &str) -> Result<Filter> {
        let names = self.groups.as_deref().unwrap_or_default();
        let token = names.iter().position(|group| group == name).ok_or_else(|| {
            Error::query("group")
                .expected(match names {
                    [] => "an index with groups".to_string(),
                    names => format!("one of {}", names.join(", ")),
                })
                .found(format!("{name:?}"))
                .fix("search without a group, or in one of these")
        })?;
        Ok(Filter::by_prefix(&self.trie, |prefix| usize::from(prefix[0]) == token))
    }

    /// Number of levels before those of the quantizer: 1 with groups, otherwise 0.
    pub(crate) fn leading_levels(&self) -> usize {
        usize::from(self.groups.is_some())
    }

    /// Sets the minimum capacity for unique tokens, so that a network trained with these candidates
    /// can serve others of which more share their semantic tokens.
    ///
    /// # Errors
    /// [`Error::Identifier`] for more than 65,536.
    pub fn with_unique_capacity(self, capacity: usize) -> Result<Self> {
        let mut sizes = self.vocabulary().sizes().to_vec();
        if let Some(last) = sizes.last_mut() {
            *last = capacity.max(*last);
        }
        self.within(&LevelSizes::new(sizes)?)
    }

    /// The same candidates under a vocabulary with a larger last level.
    ///
    /// # Errors
    /// As [`Trie::within`].
    pub fn within(self, vocabulary: &LevelSizes) -> Result<Self> {
        Ok(Self { trie: self.trie.within(vocabulary)?, ..self })
    }

    /// Attaches the candidates' vectors and their statistics along the trie. They guide a network
    /// with an alignment, and a rerank compares them with the query.
    ///
    /// # Shapes
    /// - `vectors`: `[N, D]`, in the order of the ids; kept once for every identifier
    ///
    /// # Errors
    /// As [`PrefixStats::new`]; [`Error::Ids`] when the vectors are named otherwise.
    pub fn with_vectors(mut self, vectors: Features) -> Result<Self> {
        let same = !vectors.has_given_ids() || vectors.ids().iter().eq(self.ids.iter());
        let remedy = "use vectors and identifiers of one collection";
        Error::ids("vectors of the candidates")
            .expected("the ids of the candidates, in their order")
            .found("other ids or another order")
            .fix_if(vectors.len() == self.ids.len() && !same, remedy)?;
        // Every identifier of a candidate lies where the candidate does.
        let vectors = match self.identifier_map.are_single() || vectors.len() != self.ids.len() {
            true => vectors,
            false => {
                let aliases = self.identifier_map.aliases().iter();
                let rows = aliases.flat_map(|&item| vectors.row(item as usize));
                let rows = vectors.as_slice().iter().chain(rows).copied().collect();
                Features::from_rows(rows, vectors.dim())?
            }
        };
        self.prefix_stats = Some(Arc::new(PrefixStats::new(vectors, &self.trie)?));
        Ok(self)
    }

    /// Attaches statistics that were made before.
    pub(crate) fn with_prefix_stats(self, prefix_stats: PrefixStats) -> Self {
        Self { prefix_stats: Some(Arc::new(prefix_stats)), ..self }
    }

    /// Attaches metadata for filtering and display.
    ///
    /// # Errors
    /// [`Error::Metadata`] when there is not one object for each candidate.
    pub fn with_metadata(self, metadata: ItemMetadata) -> Result<Self> {
        let remedy = "read it with the ids of these candidates (ItemMetadata::from_jsonl)";
        Error::metadata("metadata of the candidates")
            .expected(format!("an object for each of {} candidates", self.ids.len()))
            .found(metadata.len().to_string())
            .fix_if(metadata.len() != self.ids.len(), remedy)?;
        Ok(Self { metadata: Some(Arc::new(metadata)), ..self })
    }

    /// Attaches token states of the candidates' texts, for late interaction.
    ///
    /// # Errors
    /// [`Error::Captions`] when they are those of another number of candidates.
    pub fn with_token_states(self, token_states: TokenStates) -> Result<Self> {
        let found = token_states.len();
        Error::captions("token states of the candidates")
            .expected(format!("those of {} candidates", self.ids.len()))
            .found(found.to_string())
            .fix_if(found != self.ids.len(), "use token states of the same candidates")?;
        Ok(Self { token_states: Some(Arc::new(token_states)), ..self })
    }

    /// Token states of the candidates' texts, if there are any.
    pub fn token_states(&self) -> Option<&Arc<TokenStates>> {
        self.token_states.as_ref()
    }

    /// Metadata of the candidates, if any.
    pub fn metadata(&self) -> Option<&ItemMetadata> {
        self.metadata.as_deref()
    }

    /// A filter that allows the candidates that meet a condition. The condition is evaluated here,
    /// once for every candidate; the filter can be used for any number of searches.
    ///
    /// # Errors
    /// [`Error::Query`] for an index without metadata; otherwise as [`ItemMetadata::matching`].
    pub fn filter_where(&self, condition: &Condition) -> Result<Filter> {
        let metadata = self.metadata.as_ref().ok_or_else(|| {
            Error::query("condition")
                .expected("an index with metadata")
                .found("one without")
                .fix("attach metadata to the index (CandidateIndex::with_metadata)")
        })?;
        let allowed = metadata.matching(condition)?;
        Ok(self.filter(|item| allowed[item as usize]))
    }

    /// Statistics of the candidates' vectors along the trie, if they have vectors.
    pub fn prefix_stats(&self) -> Option<&Arc<PrefixStats>> {
        self.prefix_stats.as_ref()
    }

    /// Ids of the candidates.
    pub fn ids(&self) -> &ItemIds {
        &self.ids
    }

    /// Identifiers of the candidates. Where some have several, its items are identifier rows
    /// ([`CandidateIndex::identifier_map`]).
    pub fn trie(&self) -> &Trie {
        &self.trie
    }

    /// Which candidate each identifier row of the trie belongs to.
    pub fn identifier_map(&self) -> &IdentifierMap {
        &self.identifier_map
    }

    /// A filter that allows the candidates for which `allowed` is true; it is called once for each
    /// identifier.
    pub fn filter(&self, mut allowed: impl FnMut(u32) -> bool) -> Filter {
        Filter::by_item(&self.trie, |row| allowed(self.identifier_map.of(row)))
    }

    /// Sizes of the identifier's levels.
    pub fn vocabulary(&self) -> &LevelSizes {
        self.trie.vocabulary()
    }

    /// How well the quantizer uses its codes on these candidates.
    pub fn health(&self) -> &HealthReport {
        &self.health
    }

    /// Replaces the health report, for example by one with neighbours measured
    /// ([`HealthReport::with_neighbours`]).
    pub fn with_health(self, health: HealthReport) -> Self {
        Self { health, ..self }
    }

    /// Fails unless the quantizer is healthy enough to train a decoder on.
    ///
    /// # Errors
    /// [`Error::Collapsed`] naming the level, the setting of its size, and what to change.
    pub fn ensure_healthy(&self, thresholds: &HealthThresholds) -> Result<()> {
        self.health.ensure_named(thresholds, &|level| match level.checked_sub(1) {
            None => ("coarse level".to_string(), "k".to_string()),
            Some(fine) => (format!("fine level {level}"), format!("sizes[{fine}]")),
        })
    }

    /// The identifier of an id, the first of several.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is no such candidate.
    pub fn identifier(&self, id: &str) -> Result<Identifier> {
        let item = self.ids.index_of(id).ok_or_else(|| {
            Error::ids(format!("id {id:?}"))
                .expected("an id of this index")
                .found("none of its candidates")
                .fix("check the spelling, or index that item first")
        })?;
        self.trie.identifier_of(item as u32)
    }

    /// The id that an identifier stands for.
    ///
    /// # Errors
    /// As [`Trie::item_of`].
    pub fn id(&self, identifier: &[u16]) -> Result<&str> {
        Ok(self.ids.get(self.identifier_map.of(self.trie.item_of(identifier)?) as usize))
    }
}
