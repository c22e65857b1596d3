//! From all rows of a collection to its identifiers: block by block, on one process or several.

use std::{collections::HashMap, ops::ControlFlow, ops::Range, path::Path};

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{
    CoarseToFine, Quantizer, QuantizerEvent, RowSource,
    measure::BLOCK,
    rows::{check_codes, check_rows, read_checked},
    several::Aliases,
};
use crate::{
    error::{Error, Result},
    features::{Features, ItemIds},
    identifier::{Codes, Groups, assign_unique},
    index::{CandidateIndex, HealthReport, IdentifierMap, Tally},
    storage::{NamedTensors, Sha256Writer, hex, read_limited, write_bytes},
    trie::Trie,
};

/// Version of the file format.
const VERSION: u32 = 1;
/// The longest file that is read.
const LONGEST_FILE: u64 = 1 << 38;
/// Where the description is in the metadata.
const KEY: &str = "codes-part";

/// Codes of one part of a collection, made by [`CoarseToFine::encode_part`], with what
/// [`CoarseToFine::merge`] needs to put parts together.
///
/// On disk this is a safetensors file: `codes` `[rows, levels]` of `u16`, `distance` `[rows]` of
/// `f32`, sums for the health report, and in the metadata, as JSON under `codes-part`, the format's
/// version, the range of rows, the digest of the quantizer and a checksum.
///
/// # Example
/// ```
/// use burn::backend::{Autodiff, Flex};
/// use cart_retrieval::{
///     features::Features,
///     quantizer::{CoarseToFineConfig, CodesPart, FineConfig, RqKMeansConfig},
/// };
/// # let folder = tempfile::tempdir().map_err(|e| cart_retrieval::Error::io("create", "folder", e))?;
/// # let folder = folder.path();
/// let rows: Vec<f32> = (0..400).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
/// let items = Features::from_rows(rows, 4)?;
/// let fine = FineConfig::RqKmeans(RqKMeansConfig::new(vec![8, 8]));
/// let config = CoarseToFineConfig::new(4, vec![]).with_fine(fine);
/// let quantizer = config.fit::<Autodiff<Flex>>(&items, &Default::default())?;
///
/// for part in 0..2 {
///     // Each in a process of its own.
///     quantizer.encode_part(&items, part, 2)?.save(folder.join(format!("{part}.safetensors")))?;
/// }
/// let load = |part| CodesPart::load(folder.join(format!("{part}.safetensors")));
/// let index = quantizer.merge(vec![load(0)?, load(1)?], items.ids().clone())?;
/// assert_eq!(index.trie(), quantizer.assign(&items)?.trie());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CodesPart {
    rows: Range<usize>,
    total: usize,
    sizes: Vec<usize>,
    quantizer: String,
    codes: Codes,
    distance: Vec<f32>,
    tallies: Vec<Tally>,
}

/// The description stored with the tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    version: u32,
    start: usize,
    end: usize,
    total: usize,
    sizes: Vec<usize>,
    quantizer: String,
    sha256: String,
}

impl CodesPart {
    /// Rows of the collection that this part covers. Empty when there are more parts than blocks
    /// of 8192 rows.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Rows of the whole collection.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Codes of these rows, `[rows, levels]`, without unique tokens.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// Digest of the quantizer that made the codes; see [`CoarseToFine::digest`].
    pub fn quantizer(&self) -> &str {
        &self.quantizer
    }

    /// Writes the part as a safetensors file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (n, blocks) = (self.rows.len(), self.tallies.len());
        let dim = self.tallies.first().map_or(0, |tally| tally.mean.len());
        let all = |of: fn(&Tally) -> &[f64]| -> Vec<f64> {
            self.tallies.iter().flat_map(of).copied().collect()
        };
        let spreads: Vec<f64> = self.tallies.iter().map(|tally| tally.spread).collect();
        let mut tensors = NamedTensors::new();
        tensors.insert_u16("codes", &[n, self.codes.levels()], self.codes.as_flat());
        tensors.insert_f32("distance", &[n], &self.distance);
        tensors.insert_f64("sums.mean", &[blocks, dim], &all(|tally| &tally.mean));
        tensors.insert_f64("sums.spread", &[blocks], &spreads);
        tensors.insert_f64(
            "sums.errors",
            &[blocks, self.codes.levels()],
            &all(|tally| &tally.errors),
        );
        let meta = Meta {
            version: VERSION,
            start: self.rows.start,
            end: self.rows.end,
            total: self.total,
            sizes: self.sizes.clone(),
            quantizer: self.quantizer.clone(),
            sha256: self.checksum()?,
        };
        let json = serde_json::to_string(&meta).map_err(|e| damaged("codes", &e))?;
        write_bytes(path, &tensors.to_bytes(&[(KEY, &json)])?)
    }

    /// Reads what [`CodesPart::save`] wrote, and checks all of it.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Index`] when it is another file, of
    /// another version, or damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let subject = path.display().to_string();
        let bytes = read_limited(path, LONGEST_FILE)?;
        let (tensors, metadata) =
            NamedTensors::from_bytes(&bytes).map_err(|e| damaged(&subject, &e))?;
        Self::from_tensors(tensors, &metadata).map_err(|e| damaged(&subject, &e))
    }

    fn from_tensors(mut tensors: NamedTensors, metadata: &HashMap<String, String>) -> Result<Self> {
        let json = metadata.get(KEY).map(String::as_str).unwrap_or_default();
        let meta: Meta = serde_json::from_str(json).map_err(|e| damaged("its description", &e))?;
        if meta.version != VERSION {
            let found = format!("version {}", meta.version);
            return Err(damaged("its description", &found));
        }
        let (levels, n) = (meta.sizes.len(), meta.end.saturating_sub(meta.start));
        let blocks = n.div_ceil(BLOCK);
        let (shape, codes) = tensors.take_u16("codes")?;
        let (_, distance) = tensors.take_f32("distance")?;
        let (means_shape, means) = tensors.take_f64("sums.mean")?;
        let (_, spreads) = tensors.take_f64("sums.spread")?;
        let (_, errors) = tensors.take_f64("sums.errors")?;
        tensors.ensure_empty("codes")?;
        let fits = meta.start <= meta.end
            && meta.end <= meta.total
            && levels > 0
            && shape == [n, levels]
            && distance.len() == n
            && means_shape.first() == Some(&blocks)
            && spreads.len() == blocks
            && errors.len() == blocks * levels;
        if !fits {
            let found = format!("rows {}..{} and other shapes", meta.start, meta.end);
            return Err(damaged("its tensors", &found));
        }
        let codes = Codes::from_flat(levels, codes)?;
        check_codes(&codes, levels, &meta.sizes)?;
        let dim = means.len().checked_div(blocks).unwrap_or(0);
        let tallies = (0..blocks)
            .map(|block| Tally {
                rows: BLOCK.min(n - block * BLOCK),
                mean: means[block * dim..][..dim].to_vec(),
                spread: spreads[block],
                errors: errors[block * levels..][..levels].to_vec(),
            })
            .collect();
        let part = Self {
            rows: meta.start..meta.end,
            total: meta.total,
            sizes: meta.sizes,
            quantizer: meta.quantizer,
            codes,
            distance,
            tallies,
        };
        let found = part.checksum()?;
        if found != meta.sha256 {
            return Err(damaged("its tensors", &format!("SHA-256 {found}, not {}", meta.sha256)));
        }
        Ok(part)
    }

    /// SHA-256 of everything but the description's own spelling.
    fn checksum(&self) -> Result<String> {
        use std::io::Write;
        let mut writer = Sha256Writer::new(std::io::sink());
        let head = format!("{:?} {} {:?} {}", self.rows, self.total, self.sizes, self.quantizer);
        let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(|e| damaged("codes", &e));
        put(head.as_bytes())?;
        for piece in self.codes.as_flat().chunks(1 << 15) {
            put(&piece.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        for piece in self.distance.chunks(1 << 14) {
            put(&piece.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        for tally in &self.tallies {
            let values = tally.mean.iter().chain([&tally.spread]).chain(&tally.errors);
            put(&values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(hex(&writer.finish().1))
    }
}

fn damaged(subject: &str, found: &dyn std::fmt::Display) -> Error {
    Error::index(subject)
        .expected(format!("an unchanged part of codes of format {VERSION}"))
        .found(found.to_string())
        .fix("make this part again")
}

impl<B: Backend> CoarseToFine<B> {
    /// Identifiers of candidates: tokens, unique tokens where these collide, trie and health.
    ///
    /// # Errors
    /// As [`Quantizer::encode`] and [`assign_unique`].
    pub fn assign(&self, items: &Features) -> Result<CandidateIndex> {
        self.assign_source(items, items.ids().clone())
    }

    /// Identifiers of candidates that are read block by block.
    ///
    /// The result is that of [`CoarseToFine::assign`] on the same rows, bit for bit. Beside blocks of
    /// 8192 rows, memory holds codes, ids and trie, about 40 bytes a row and the text of the ids.
    ///
    /// # Errors
    /// As [`CoarseToFine::assign`], whatever the source returns, and [`Error::Ids`] when there is
    /// not one id per row.
    pub fn assign_source(&self, source: &dyn RowSource, ids: ItemIds) -> Result<CandidateIndex> {
        let go_on = &mut |_| ControlFlow::Continue(());
        self.assign_source_with_progress(source, ids, go_on)
    }

    /// As [`CoarseToFine::assign_source`], telling of progress; the callback may stop it.
    ///
    /// # Errors
    /// As [`CoarseToFine::assign_source`], and [`Error::Interrupted`] when the callback breaks.
    pub fn assign_source_with_progress(
        &self,
        source: &dyn RowSource,
        ids: ItemIds,
        on_event: &mut dyn FnMut(QuantizerEvent) -> ControlFlow<()>,
    ) -> Result<CandidateIndex> {
        if ids.len() != source.len() {
            return Err(wrong_ids(source.len(), ids.len()));
        }
        // One process needs no digest.
        let part = self.encode_range(source, 0..source.len(), String::new(), on_event)?;
        self.index(vec![part], ids, None, None)
    }

    /// As [`CoarseToFine::assign`], with a group's token before those of the quantizer: [`Groups`].
    ///
    /// # Errors
    /// As [`CoarseToFine::assign`], and [`Error::Identifier`] when there is not one group for each candidate.
    ///
    /// # Example
    /// ```no_run
    /// # use burn::backend::Flex;
    /// # use cart_retrieval::{features::Features, quantizer::CoarseToFine};
    /// use cart_retrieval::identifier::Groups;
    /// # fn f(quantizer: CoarseToFine<Flex>, items: Features, labels: Vec<&str>) -> cart_retrieval::Result<()> {
    /// let index = quantizer.assign_grouped(&items, &Groups::from_labels(labels)?)?;
    /// let sounds = index.group_filter("audio")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn assign_grouped(&self, items: &Features, groups: &Groups) -> Result<CandidateIndex> {
        let go_on = &mut |_| ControlFlow::Continue(());
        let part = self.encode_range(items, 0..items.len(), String::new(), go_on)?;
        self.index(vec![part], items.ids().clone(), Some(groups), None)
    }

    /// Codes of one of several parts of a collection, for processes that share the work.
    ///
    /// Parts are consecutive ranges of whole blocks of 8192 rows, whatever the files of the rows.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no such part; otherwise as [`CoarseToFine::assign_source`].
    pub fn encode_part(
        &self,
        source: &dyn RowSource,
        part: usize,
        parts: usize,
    ) -> Result<CodesPart> {
        let go_on = &mut |_| ControlFlow::Continue(());
        self.encode_part_with_progress(source, part, parts, go_on)
    }

    /// As [`CoarseToFine::encode_part`], telling of progress; the callback may stop it.
    ///
    /// # Errors
    /// As [`CoarseToFine::encode_part`], and [`Error::Interrupted`] when the callback breaks.
    pub fn encode_part_with_progress(
        &self,
        source: &dyn RowSource,
        part: usize,
        parts: usize,
        on_event: &mut dyn FnMut(QuantizerEvent) -> ControlFlow<()>,
    ) -> Result<CodesPart> {
        if part >= parts {
            return Err(Error::config("part")
                .expected(format!("a number below {parts}, the number of parts"))
                .found(part.to_string())
                .fix("count parts from 0"));
        }
        let n = source.len();
        let blocks = n.div_ceil(BLOCK) as u128;
        // In 128 bits: both factors may be large.
        let bound = |part: usize| {
            let block = blocks * part as u128 / parts as u128;
            n.min(block as usize * BLOCK)
        };
        self.encode_range(source, bound(part)..bound(part + 1), self.digest()?, on_event)
    }

    /// Puts the parts of all processes together, in any order, and assigns unique tokens over the
    /// whole.
    ///
    /// The result is that of [`CoarseToFine::assign_source`] on all rows, bit for bit, where the
    /// processes ran the same backend.
    ///
    /// # Errors
    /// [`Error::Quantizer`] when a part was made by another quantizer or of another collection,
    /// covers rows that another one covers, or is missing; [`Error::Ids`] when there is not one id
    /// per row; otherwise as [`assign_unique`].
    pub fn merge(&self, mut parts: Vec<CodesPart>, ids: ItemIds) -> Result<CandidateIndex> {
        let (digest, total) = (self.digest()?, parts.first().map_or(0, CodesPart::total));
        let wrong = |part: &CodesPart, expected: String, found: String, remedy: &str| {
            let subject = format!("codes of rows {:?}", part.rows);
            Err(Error::quantizer(subject).expected(expected).found(found).fix(remedy))
        };
        let missing = |range: Range<usize>| {
            Err(Error::quantizer("parts to merge")
                .expected("every row of the collection in one of them")
                .found(format!("no part with rows {range:?}"))
                .fix("make the missing part, or name its file"))
        };
        for part in &parts {
            if part.quantizer != digest || part.sizes != self.level_sizes() {
                return wrong(
                    part,
                    format!("codes of the quantizer {:.12}", digest),
                    format!("those of {:.12}", part.quantizer),
                    "encode all parts with one saved quantizer",
                );
            }
            if part.total != total {
                return wrong(
                    part,
                    format!("a part of {total} rows"),
                    format!("one of {}", part.total),
                    "encode all parts of one collection",
                );
            }
        }
        parts.retain(|part| !part.rows.is_empty());
        parts.sort_by_key(|part| (part.rows.start, part.rows.end));
        let mut end = 0;
        for part in &parts {
            if part.rows.start < end {
                return wrong(
                    part,
                    format!("rows from {end} on"),
                    "rows of another part".to_string(),
                    "merge each part once, all of one division",
                );
            }
            if part.rows.start > end {
                return missing(end..part.rows.start);
            }
            end = part.rows.end;
        }
        if end < total || total == 0 {
            return missing(end..total);
        }
        if ids.len() != total {
            return Err(wrong_ids(total, ids.len()));
        }
        self.index(parts, ids, None, None)
    }

    /// Encodes and measures a range of rows that starts at a block.
    pub(super) fn encode_range(
        &self,
        source: &dyn RowSource,
        range: Range<usize>,
        quantizer: String,
        on_event: &mut dyn FnMut(QuantizerEvent) -> ControlFlow<()>,
    ) -> Result<CodesPart> {
        let (dim, sizes) = (self.dim(), self.level_sizes());
        if source.dim() != dim {
            return Err(Error::quantizer("embeddings")
                .expected(format!("rows of {dim} numbers, as the quantizer was fitted to"))
                .found(source.dim().to_string())
                .fix("use embeddings of the same encoder"));
        }
        if let Some(rows) = source.as_slice() {
            check_rows(rows, dim, 0)?;
        }
        let mut flat = Vec::with_capacity(range.len() * sizes.len());
        let mut distance = Vec::with_capacity(range.len());
        let mut tallies = Vec::with_capacity(range.len().div_ceil(BLOCK));
        let mut buffer = Vec::new();
        for start in range.clone().step_by(BLOCK) {
            let block = start..range.end.min(start + BLOCK);
            let rows = match source.as_slice() {
                Some(rows) => &rows[block.start * dim..block.end * dim],
                None => {
                    read_checked(source, block.clone(), &mut buffer)?;
                    &buffer
                }
            };
            let codes = self.encode(rows)?;
            let (tally, distances) = Tally::of(self, rows, &codes)?;
            flat.extend_from_slice(codes.as_flat());
            distance.extend(distances);
            tallies.push(tally);
            let event = QuantizerEvent::Encoded { rows: block.end - range.start, of: range.len() };
            if on_event(event).is_break() {
                return Err(Error::interrupted("assignment of codes")
                    .expected("to run to the last row")
                    .found("a request to stop")
                    .fix("start it again; an unfinished part keeps nothing"));
            }
        }
        let codes = Codes::from_flat(sizes.len(), flat)?;
        let total = source.len();
        Ok(CodesPart { rows: range, total, sizes, quantizer, codes, distance, tallies })
    }

    /// Identifiers, trie and health of parts that cover all rows in order.
    pub(super) fn index(
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

fn wrong_ids(rows: usize, ids: usize) -> Error {
    Error::ids("candidates")
        .expected(format!("one id for each of {rows} rows"))
        .found(format!("{ids} ids"))
        .fix("use ids and features of one collection")
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
