//! Codes of one part of a collection, for processes that share the work, and their file.

use std::{collections::HashMap, ops::Range, path::Path};

use serde::{Deserialize, Serialize};

use super::{measure::BLOCK, rows::check_codes};
use crate::{
    error::{Error, Result},
    identifier::Codes,
    index::Tally,
    storage::{NamedTensors, Sha256Writer, hex, read_limited, write_bytes},
};

/// Version of the file format.
const VERSION: u32 = 1;
/// The longest file that is read.
const LONGEST_FILE: u64 = 1 << 38;
/// Where the description is in the metadata.
const KEY: &str = "codes-part";

/// Codes of one part of a collection. Made by [`Assignment::part`](super::Assignment::part);
/// [`CoarseToFine::assign_parts`](super::CoarseToFine::assign_parts) puts parts together.
///
/// On disk this is a safetensors file: `codes` `[rows, levels]` of `u16`, `distance` `[rows]` of
/// `f32`, sums for the health report, and in the metadata, as JSON under `codes-part`, the format's
/// version, the range of rows, the digest of the quantizer and a checksum.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::{features::Features, quantizer::{CoarseToFineConfig, RqKMeansConfig},
///     expert::CodesPart};
/// # let folder = tempfile::tempdir().map_err(|e| cart_retrieval::Error::io("create", "folder", e))?;
/// # let folder = folder.path();
/// let rows: Vec<f32> = (0..400).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
/// let items = Features::from_rows(rows, 4)?;
/// let config = CoarseToFineConfig::new(4, RqKMeansConfig::new(vec![8, 8]));
/// let quantizer = config.fit::<Flex>(&items, &Default::default())?;
///
/// for part in 0..2 {
///     // Each in a process of its own.
///     quantizer.assign(&items).part(part, 2)?.save(folder.join(format!("{part}.safetensors")))?;
/// }
/// let load = |part| CodesPart::load(folder.join(format!("{part}.safetensors")));
/// let parts = vec![load(0)?, load(1)?];
/// let index = quantizer.assign_parts(parts, items.ids().clone()).run()?;
/// assert_eq!(index.trie(), quantizer.assign(&items).run()?.trie());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CodesPart {
    pub(super) rows: Range<usize>,
    pub(super) total: usize,
    pub(super) sizes: Vec<usize>,
    pub(super) quantizer: String,
    pub(super) codes: Codes,
    pub(super) distance: Vec<f32>,
    pub(super) tallies: Vec<Tally>,
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

    /// Digest of the quantizer that made the codes; see
    /// [`CoarseToFine::digest`](super::CoarseToFine::digest).
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

/// Checks that parts cover all rows of one collection, and puts them in order.
///
/// # Errors
/// [`Error::Quantizer`] when a part was made by another quantizer or of another collection, covers
/// rows that another one covers, or is missing.
pub(super) fn in_order(
    mut parts: Vec<CodesPart>,
    digest: &str,
    sizes: &[usize],
) -> Result<Vec<CodesPart>> {
    let total = parts.first().map_or(0, CodesPart::total);
    let check = |part: &CodesPart, expected: String, found: String, wrong: bool, remedy: &str| {
        let subject = format!("codes of rows {:?}", part.rows);
        Error::quantizer(subject).expected(expected).found(found).fix_if(wrong, remedy)
    };
    let missing = |range: Range<usize>| {
        Err(Error::quantizer("parts to merge")
            .expected("every row of the collection in one of them")
            .found(format!("no part with rows {range:?}"))
            .fix("make the missing part, or name its file"))
    };
    for part in &parts {
        let expected = format!("codes of the quantizer {digest:.12}");
        let found = format!("those of {:.12}", part.quantizer);
        let foreign = part.quantizer != digest || part.sizes != sizes;
        check(part, expected, found, foreign, "encode all parts with one saved quantizer")?;
        let (expected, found) =
            (format!("a part of {total} rows"), format!("one of {}", part.total));
        let remedy = "encode all parts of one collection";
        check(part, expected, found, part.total != total, remedy)?;
    }
    parts.retain(|part| !part.rows.is_empty());
    parts.sort_by_key(|part| (part.rows.start, part.rows.end));
    let mut end = 0;
    for part in &parts {
        let (expected, found) = (format!("rows from {end} on"), "rows of another part".into());
        let remedy = "merge each part once, all of one division";
        check(part, expected, found, part.rows.start < end, remedy)?;
        if part.rows.start > end {
            return missing(end..part.rows.start);
        }
        end = part.rows.end;
    }
    if end < total || total == 0 {
        return missing(end..total);
    }
    Ok(parts)
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
