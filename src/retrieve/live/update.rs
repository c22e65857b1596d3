//! A candidate index with changes, before it is put together.

use std::collections::HashMap;

use super::change::{Change, ChangeStats};
use crate::{
    error::{Error, Result},
    features::{Features, advice},
    identifier::Codes,
    index::{CandidateIndex, IdentifierMap, ItemTokens},
    metadata::{Fields, ItemMetadata},
    trie::Trie,
};

/// An index and what has changed. Any number of changes cost one new trie.
pub(in crate::retrieve) struct IndexUpdate<'a> {
    base: &'a CandidateIndex,
    /// By row of the base.
    removed: Vec<bool>,
    left: usize,
    added: Vec<Added>,
    /// Where an added candidate is.
    places: HashMap<String, usize>,
    /// Fields of rows of the base.
    described: HashMap<usize, Fields>,
    stats: ChangeStats,
}

struct Added {
    id: String,
    codes: Vec<u16>,
    vector: Vec<f32>,
    tokens: ItemTokens,
    fields: Fields,
    removed: bool,
}

impl<'a> IndexUpdate<'a> {
    pub(super) fn new(base: &'a CandidateIndex) -> Self {
        let n = base.ids().len();
        Self {
            base,
            removed: vec![false; n],
            left: n,
            added: Vec::new(),
            places: HashMap::new(),
            described: HashMap::new(),
            stats: ChangeStats::default(),
        }
    }

    /// An index with changes, and their statistics; `None` without changes.
    pub(in crate::retrieve) fn with_changes(
        base: &CandidateIndex,
        changes: Vec<Change>,
    ) -> Result<(Option<CandidateIndex>, ChangeStats)> {
        if changes.is_empty() {
            return Ok((None, ChangeStats::default()));
        }
        let mut update = IndexUpdate::new(base);
        changes.into_iter().try_for_each(|change| update.apply(change))?;
        let stats = update.stats;
        Ok((Some(update.finish()?), stats))
    }

    /// Where a candidate is now.
    fn find(&self, id: &str) -> Option<Place> {
        if let Some(&at) = self.places.get(id) {
            return Some(Place::Added(at));
        }
        self.base.ids().index_of(id).filter(|&row| !self.removed[row]).map(Place::Base)
    }

    fn unknown(&self, id: &str) -> Error {
        let near = self.base.ids().near(id).map(|near| advice(id, near));
        let remedy = near.unwrap_or("check the spelling".into());
        Error::ids("candidates to change")
            .expected("ids of the index")
            .found(format!("{id:?}, which does not exist"))
            .fix(format!("{remedy}; nothing was changed"))
    }

    /// # Errors
    /// [`Error::Ids`] for a candidate that is not there, or comes a second time; [`Error::Index`]
    /// for a change of another kind of index.
    pub(super) fn apply(&mut self, change: Change) -> Result<()> {
        for id in &change.removed {
            match self.find(id).ok_or_else(|| self.unknown(id))? {
                Place::Base(row) => self.removed[row] = true,
                Place::Added(at) => {
                    self.added[at].removed = true;
                    self.places.remove(id);
                }
            }
            self.left -= 1;
        }
        let width = self.base.prefix_stats().map_or(0, |geometry| geometry.dim());
        let levels = self.base.trie().levels();
        let (found, numbers) = (change.identifiers.levels(), change.vectors.len());
        let wrong = found != levels || numbers != width * change.ids.len();
        Error::index("change")
            .expected(format!("identifiers of {levels} levels, vectors of width {width}"))
            .found(format!("{found} levels, {numbers} numbers"))
            .fix_if(wrong, "restore the index from a copy")?;
        let own = self.base.token_states().map_or(0, |states| states.space().dim());
        let token_width = change.token_width();
        Error::index("change")
            .expected(format!("token states of width {own}"))
            .found(format!("width {token_width}"))
            .fix_if(token_width != 0 && token_width != own, "restore the index from a copy")?;
        let mut metadata = change.metadata.into_iter();
        let mut states = change.tokens.into_iter();
        let rows = change.identifiers.rows().enumerate();
        for (id, (at, tokens)) in change.ids.into_iter().zip(rows) {
            if self.find(&id).is_some() {
                return Err(Error::ids("candidates to add")
                    .expected("ids that the index does not have, each once")
                    .found(format!("{id:?}, which exists"))
                    .fix("rename the candidate, or update the existing one"));
            }
            let vector = change.vectors[at * width..(at + 1) * width].to_vec();
            self.places.insert(id.clone(), self.added.len());
            let (codes, fields) = (tokens.to_vec(), metadata.next().unwrap_or_default());
            let tokens = states.next().unwrap_or_default();
            self.added.push(Added { id, codes, vector, tokens, fields, removed: false });
            self.left += 1;
        }
        for (id, fields) in change.described {
            match self.find(&id).ok_or_else(|| self.unknown(&id))? {
                Place::Base(row) => {
                    self.described.insert(row, fields);
                }
                Place::Added(at) => self.added[at].fields = fields,
            }
        }
        self.stats += change.stats;
        Ok(())
    }

    /// The changed index: remaining candidates in their order, then the added ones.
    ///
    /// # Errors
    /// [`Error::Index`] when no candidate is left.
    pub(super) fn finish(self) -> Result<CandidateIndex> {
        let Self { base, removed, left, mut added, described, .. } = self;
        Error::index("candidates")
            .expected("at least one remaining candidate")
            .found("none")
            .fix_if(left == 0, "remove fewer, or add others first")?;
        added.retain(|added| !added.removed);
        let keep = |row: usize| !removed[row];
        let ids: Vec<String> =
            added.iter_mut().map(|added| std::mem::take(&mut added.id)).collect();
        let ids = base.ids().changed(keep, &ids)?;

        let levels = base.trie().levels();
        let n = removed.len();
        let mut codes = Vec::with_capacity(left * levels);
        base.trie().write_identifiers(|entry| entry < n && keep(entry), &mut codes);
        codes.extend(added.iter().flat_map(|added| &added.codes));
        // Further identifiers of those that stay; what comes has one.
        let aliases = base.identifier_map().aliases();
        let kept = |entry: usize| entry >= n && keep(aliases[entry - n] as usize);
        base.trie().write_identifiers(kept, &mut codes);
        let owners = moved(&removed, aliases);
        let trie = Trie::build(&Codes::from_flat(levels, codes)?, base.vocabulary())?;

        let owners = IdentifierMap::new(ids.len(), owners)?;
        let mut index = CandidateIndex::of_rows(ids, trie, owners, base.health().clone())?;
        if let Some(groups) = base.groups() {
            index = index.with_groups(groups.to_vec())?;
        }
        let known = base.metadata().is_some() || added.iter().any(|added| !added.fields.is_empty());
        if known || !described.is_empty() {
            let fields: Vec<Fields> =
                added.iter_mut().map(|added| std::mem::take(&mut added.fields)).collect();
            let empty;
            let before = match base.metadata() {
                Some(metadata) => metadata,
                None => {
                    empty = ItemMetadata::empty(removed.len());
                    &empty
                }
            };
            let mut metadata = before.changed(keep, &fields)?;
            let mut described: Vec<(usize, Fields)> = described.into_iter().collect();
            described.sort_unstable_by_key(|(row, _)| *row);
            let (mut row, mut place) = (0, 0);
            described.retain_mut(|(at, _)| {
                place += removed[row..*at].iter().filter(|removed| !**removed).count();
                row = std::mem::replace(at, place);
                keep(row)
            });
            metadata.replace(described)?;
            index = index.with_metadata(metadata)?;
        }
        if let Some(states) = base.token_states() {
            let added: Vec<ItemTokens> =
                added.iter_mut().map(|added| std::mem::take(&mut added.tokens)).collect();
            index = index.with_token_states(states.changed(keep, &added)?)?;
        }
        if let Some(geometry) = base.prefix_stats() {
            let vectors = geometry.vectors();
            let mut rows = Vec::with_capacity(left * vectors.dim());
            let mut row = 0;
            // In runs: most rows stay.
            for run in removed.chunk_by(|a, b| a == b) {
                if !run[0] {
                    rows.extend_from_slice(vectors.rows(row..row + run.len()));
                }
                row += run.len();
            }
            rows.extend(added.iter().flat_map(|added| &added.vector));
            index = index.with_vectors(Features::from_rows(rows, vectors.dim())?)?;
        }
        Ok(index)
    }
}

/// The owners that stay, by their rows among what stays.
fn moved(removed: &[bool], owners: &[u32]) -> Vec<u32> {
    if owners.is_empty() {
        return Vec::new();
    }
    let mut next = 0;
    let rows = removed.iter().map(|&gone| {
        next += u32::from(!gone);
        if gone { None } else { Some(next - 1) }
    });
    let rows: Vec<Option<u32>> = rows.collect();
    owners.iter().filter_map(|&owner| rows[owner as usize]).collect()
}

enum Place {
    Base(usize),
    Added(usize),
}
