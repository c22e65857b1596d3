//! From all rows of a collection to its identifiers, block by block.

use std::{fmt, ops::Range};

use burn::tensor::backend::Backend;

use super::{
    CoarseToFine, CodesPart, IdentifierConfig, Quantizer, QuantizerEvent, RowSource,
    measure::BLOCK,
    parts::in_order,
    rows::{check_rows, check_stop, read_block},
    several::Aliases,
};
use crate::{
    cancel::{Monitor, StopFlag},
    error::{Error, Result},
    features::ItemIds,
    identifier::{Codes, Groups, assign_unique},
    index::{CandidateIndex, HealthReport, IdentifierMap, Tally},
    trie::Trie,
};

impl<B: Backend> CoarseToFine<B> {
    /// Prepares identifiers of candidates: tokens, unique tokens where these collide, trie and
    /// health.
    ///
    /// Rows that are not in memory are read block by block. The result is that of the same rows in
    /// memory, bit for bit.
    ///
    /// # Example
    /// ```no_run
    /// # use burn::backend::Flex;
    /// # use cart_retrieval::{features::Features, quantizer::CoarseToFine};
    /// use cart_retrieval::{identifier::Groups, quantizer::IdentifierConfig};
    /// # fn f(quantizer: CoarseToFine<Flex>, items: Features, labels: Vec<&str>) -> cart_retrieval::Result<()> {
    /// let index = quantizer.assign(&items).run()?;
    ///
    /// let groups = Groups::from_labels(labels)?;
    /// let two = IdentifierConfig { clusters: 2, codes: 1 };
    /// let index = quantizer.assign(&items).groups(&groups).several(two).run()?;
    /// let sounds = index.group_filter("audio")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn assign<'a>(&'a self, items: &'a dyn RowSource) -> Assignment<'a, B> {
        Assignment::new(self, Input::Rows(items))
    }

    /// Prepares identifiers from the codes of all parts of a collection, in any order; unique
    /// tokens are assigned over the whole.
    ///
    /// The result is that of [`CoarseToFine::assign`] on all rows, bit for bit, where the processes
    /// ran the same backend.
    pub fn assign_parts(&self, parts: Vec<CodesPart>, ids: ItemIds) -> Assignment<'_, B> {
        Assignment::new(self, Input::Parts(parts)).ids(ids)
    }
}

/// An assignment of identifiers. Made by [`CoarseToFine::assign`] and
/// [`CoarseToFine::assign_parts`]; ended by [`Assignment::run`] or [`Assignment::part`].
#[must_use = "an assignment does nothing before `run` or `part`"]
pub struct Assignment<'a, B: Backend> {
    quantizer: &'a CoarseToFine<B>,
    input: Input<'a>,
    ids: Option<ItemIds>,
    groups: Option<&'a Groups>,
    identifiers: IdentifierConfig,
    monitor: Monitor<'a, QuantizerEvent>,
}

enum Input<'a> {
    Rows(&'a dyn RowSource),
    Parts(Vec<CodesPart>),
}

impl<B: Backend> fmt::Debug for Assignment<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identifiers = &self.identifiers;
        f.debug_struct("Assignment").field("identifiers", identifiers).finish_non_exhaustive()
    }
}

impl<'a, B: Backend> Assignment<'a, B> {
    fn new(quantizer: &'a CoarseToFine<B>, input: Input<'a>) -> Self {
        let (identifiers, monitor) = (IdentifierConfig::default(), Monitor::new());
        Self { quantizer, input, ids: None, groups: None, identifiers, monitor }
    }

    /// Names the candidates. Without this, they have the ids of their source
    /// ([`RowSource::ids`]).
    pub fn ids(self, ids: ItemIds) -> Self {
        Self { ids: Some(ids), ..self }
    }

    /// Puts a group's token before those of the quantizer: [`Groups`].
    pub fn groups(self, groups: &'a Groups) -> Self {
        Self { groups: Some(groups), ..self }
    }

    /// Gives each candidate several identifiers. The first ones have the semantic tokens that they
    /// have alone; unique tokens tell all identifiers apart. The health is that of the first ones.
    pub fn several(self, identifiers: IdentifierConfig) -> Self {
        Self { identifiers, ..self }
    }

    /// Calls a function for each event.
    pub fn progress(self, callback: impl FnMut(QuantizerEvent) + 'a) -> Self {
        Self { monitor: self.monitor.with_progress(callback), ..self }
    }

    /// Stops after the current block when the flag is raised.
    pub fn stop(self, stop: &StopFlag) -> Self {
        Self { monitor: self.monitor.with_stop(stop), ..self }
    }

    /// Assigns the identifiers. In addition to a block of 8192 rows, memory holds codes, ids and
    /// trie, about 40 bytes a row and the text of the ids.
    ///
    /// # Errors
    /// As [`Quantizer::encode`], [`assign_unique`] and [`IdentifierConfig::validate`], and whatever
    /// the source returns; [`Error::Ids`] when there is not one id per row; [`Error::Identifier`]
    /// when there is not one group per candidate; [`Error::Quantizer`] for more clusters or
    /// sequences than there are, and when a part was made by another quantizer or of another
    /// collection, covers rows that another one covers, or is missing; [`Error::Interrupted`] after
    /// a stop.
    pub fn run(self) -> Result<CandidateIndex> {
        self.identifiers.validate()?;
        let several = self.identifiers.per_candidate() > 1;
        let quantizer = self.quantizer;
        let (parts, aliases, ids) = match self.input {
            Input::Rows(source) => {
                let ids = self.ids.or_else(|| source.ids().cloned());
                let ids = ids.unwrap_or_else(|| ItemIds::numbered(source.len()));
                check_ids(source.len(), &ids)?;
                // One process needs no digest.
                let all = 0..source.len();
                let part = quantizer.encode_range(source, all, String::new(), &self.monitor)?;
                let aliases =
                    several.then(|| quantizer.aliases(source, &self.identifiers, &self.monitor));
                (vec![part], aliases.transpose()?, ids)
            }
            Input::Parts(_) if several => {
                return Err(Error::config("identifiers of a candidate, from parts")
                    .expected("one, because further ones need the rows")
                    .found(self.identifiers.per_candidate().to_string())
                    .fix("assign identifiers in one process, or one identifier per candidate"));
            }
            Input::Parts(parts) => {
                let parts = in_order(parts, &quantizer.digest()?, &quantizer.level_sizes())?;
                let total = parts.first().map_or(0, CodesPart::total);
                let ids = self.ids.unwrap_or_else(|| ItemIds::numbered(total));
                check_ids(total, &ids)?;
                (parts, None, ids)
            }
        };
        quantizer.index(parts, ids, self.groups, aliases)
    }

    /// Codes of one of several parts of a collection, for processes that share the work. Ids,
    /// groups and unique tokens follow with [`CoarseToFine::assign_parts`].
    ///
    /// Parts are consecutive ranges of whole blocks of 8192 rows, whatever the files of the rows.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no such part, or for several identifiers per candidate;
    /// otherwise as [`Assignment::run`].
    pub fn part(self, part: usize, parts: usize) -> Result<CodesPart> {
        Error::config("part")
            .expected(format!("a number below {parts}, the number of parts"))
            .found(part.to_string())
            .fix_if(part >= parts, "count parts from 0")?;
        let source = match self.input {
            Input::Rows(source) if self.identifiers.per_candidate() == 1 => source,
            _ => {
                return Err(Error::config("part of an assignment")
                    .expected("rows, and one identifier per candidate")
                    .found("parts, or several identifiers")
                    .fix("encode parts of rows with one identifier per candidate"));
            }
        };
        let n = source.len();
        let blocks = n.div_ceil(BLOCK) as u128;
        // In 128 bits: both factors may be large.
        let bound = |part: usize| {
            let block = blocks * part as u128 / parts as u128;
            n.min(block as usize * BLOCK)
        };
        let range = bound(part)..bound(part + 1);
        self.quantizer.encode_range(source, range, self.quantizer.digest()?, &self.monitor)
    }
}

impl<B: Backend> CoarseToFine<B> {
    /// Encodes and measures a range of rows that starts at a block.
    fn encode_range(
        &self,
        source: &dyn RowSource,
        range: Range<usize>,
        quantizer: String,
        monitor: &Monitor<'_, QuantizerEvent>,
    ) -> Result<CodesPart> {
        let (dim, sizes) = (self.dim(), self.level_sizes());
        Error::quantizer("embeddings")
            .expected(format!("rows of {dim} numbers, as the quantizer was fitted to"))
            .found(source.dim().to_string())
            .fix_if(source.dim() != dim, "use embeddings of the same encoder")?;
        if let Some(rows) = source.as_slice() {
            check_rows(rows, dim, 0)?;
        }
        let mut flat = Vec::with_capacity(range.len() * sizes.len());
        let mut distance = Vec::with_capacity(range.len());
        let mut tallies = Vec::with_capacity(range.len().div_ceil(BLOCK));
        let mut buffer = Vec::new();
        for start in range.clone().step_by(BLOCK) {
            let block = start..range.end.min(start + BLOCK);
            let rows = read_block(source, block.clone(), &mut buffer)?;
            let codes = self.encode(rows)?;
            let (tally, distances) = Tally::of(self, rows, &codes)?;
            flat.extend_from_slice(codes.as_flat());
            distance.extend(distances);
            tallies.push(tally);
            let rows = block.end - range.start;
            monitor.report(QuantizerEvent::Encoded { rows, of: range.len() });
            check_stop(monitor)?;
        }
        let codes = Codes::from_flat(sizes.len(), flat)?;
        let total = source.len();
        Ok(CodesPart { rows: range, total, sizes, quantizer, codes, distance, tallies })
    }

    /// Identifiers, trie and health of parts that cover all rows in order.
    fn index(
        &self,
        mut parts: Vec<CodesPart>,
        ids: ItemIds,
        groups: Option<&Groups>,
        aliases: Option<Aliases>,
    ) -> Result<CandidateIndex> {
        let sizes = self.level_sizes();
        let whole = if parts.len() == 1 {
            parts.remove(0)
        } else {
            let mut flat = Vec::new();
            let (mut distance, mut tallies) = (Vec::new(), Vec::new());
            for part in parts {
                flat.extend_from_slice(part.codes.as_flat());
                distance.extend(part.distance);
                tallies.extend(part.tallies);
            }
            let codes = Codes::from_flat(sizes.len(), flat)?;
            let total = codes.len();
            let quantizer = String::new();
            let sizes = sizes.clone();
            CodesPart { rows: 0..total, total, sizes, quantizer, codes, distance, tallies }
        };
        let CodesPart { mut codes, mut distance, tallies, .. } = whole;
        let health = HealthReport::of_tallies(&sizes, &codes, &tallies);
        let owners = match aliases {
            Some(aliases) => {
                aliases.codes.rows().for_each(|row| codes.push(row));
                distance.extend(aliases.distance);
                aliases.owners
            }
            None => IdentifierMap::single(codes.len()),
        };
        let (codes, sizes) = match groups {
            Some(groups) => {
                groups.of_rows(owners.items(), owners.aliases())?.lead(&codes, &sizes)?
            }
            None => (codes, sizes),
        };
        let unique = assign_unique(&codes, &sizes, &distance)?;
        drop((codes, distance));
        let trie = Trie::build(&unique.identifiers, &unique.vocabulary)?;
        let index = CandidateIndex::of_rows(ids, trie, owners, health)?;
        match groups {
            Some(groups) => index.with_groups(groups.names().to_vec()),
            None => Ok(index),
        }
    }
}

fn check_ids(rows: usize, ids: &ItemIds) -> Result<()> {
    Error::ids("candidates")
        .expected(format!("one id for each of {rows} rows"))
        .found(format!("{} ids", ids.len()))
        .fix_if(ids.len() != rows, "use ids and features of one collection")
}
