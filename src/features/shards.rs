//! Features in several files, read range by range.

use std::{
    collections::HashSet,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rayon::prelude::*;

use super::{
    element::Fault, ids::ItemIds, matrix::Features, open::place, placed::Placed, shard_names,
};
use crate::{
    error::{Error, Result},
    storage::{forget, read_limited},
};

/// Rows that one thread converts at a time.
const PIECE: usize = 256;
/// The longest list of shards that is read, in bytes.
const LONGEST_LIST: u64 = 1 << 26;

/// Embeddings of a collection that may be larger than memory: an ordered list of files, read as
/// one `[N, D]` matrix of `f32`, range by range.
///
/// Files are row-major `.npy` or `.safetensors` of `f32`, `f16`, `bf16` or `f64`, of any lengths
/// and mixed types but one width. They are mapped into memory; what [`ShardedFeatures::read`] has
/// converted is let go again, so that the memory in use is that of the rows asked for. Do not
/// change the files in place while they are open: write others and rename them.
///
/// Everything in [`quantizer`](crate::quantizer) that takes a
/// [`RowSource`](crate::quantizer::RowSource) takes this: fitting on a sample, mini-batch and
/// whole K-Means, and the assignment of identifiers.
///
/// Invariants: at least one shard; every shard has at least one row; `dim >= 1`; there are `len`
/// ids.
///
/// # Example
/// ```
/// use cart_retrieval::features::{Features, ShardedFeatures};
/// # let folder = tempfile::tempdir().map_err(|e| cart_retrieval::Error::io("create", "folder", e))?;
/// # let folder = folder.path();
/// let (a, b) = (folder.join("a.npy"), folder.join("b.npy"));
/// Features::from_rows(vec![1.0, 2.0, 3.0, 4.0], 2)?.save_npy(&a)?;
/// Features::from_rows(vec![5.0, 6.0], 2)?.save_npy(&b)?;
///
/// let items = ShardedFeatures::open(&[a, b])?;
/// assert_eq!((items.len(), items.dim(), items.shards()), (3, 2, 2));
/// let mut rows = Vec::new();
/// items.read(1..3, &mut rows)?;
/// assert_eq!(rows, [3.0, 4.0, 5.0, 6.0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Clone)]
pub struct ShardedFeatures {
    shards: Arc<[Placed]>,
    /// First row of each shard, and at the end the number of all rows.
    starts: Arc<[usize]>,
    dim: usize,
    /// Numbered ids are made at their first use.
    ids: OnceLock<Arc<ItemIds>>,
    given_ids: bool,
}

impl ShardedFeatures {
    /// Opens files in the order given, looking at their headers only.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read; [`Error::Features`] when there is none, or when
    /// one is empty, truncated, of another format, shape, number type or width than the first, or
    /// named twice. The file is named.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut shards: Vec<Placed> = Vec::with_capacity(paths.len());
        let mut starts = vec![0_usize];
        let mut seen = HashSet::with_capacity(paths.len());
        for path in paths {
            let path = path.as_ref();
            let shard = place(path)?;
            if let Some(first) = shards.first().filter(|first| first.layout.dim != shard.layout.dim)
            {
                return Err(Error::features(&shard.subject)
                    .expected(format!(
                        "{} numbers in a row, as in {}",
                        first.layout.dim, first.subject
                    ))
                    .found(shard.layout.dim.to_string())
                    .fix("make all shards with one encoder"));
            }
            if !seen.insert(path) {
                return Err(Error::features(&shard.subject)
                    .expected("every shard once")
                    .found("a shard that is listed twice")
                    .fix("list each file once"));
            }
            starts.push(starts[shards.len()] + shard.layout.rows);
            shards.push(shard);
        }
        let rows = starts[shards.len()];
        let Some(dim) = shards.first().map(|shard| shard.layout.dim) else {
            let remedy = "name the files, in the order of the ids";
            return Err(Error::features("shards")
                .expected("at least one file")
                .found("none")
                .fix(remedy));
        };
        if u32::try_from(rows).is_err() {
            return Err(Error::features("shards")
                .expected(format!("at most {} rows in all", u32::MAX))
                .found(rows.to_string())
                .fix("split the candidates over several indexes"));
        }
        Ok(Self {
            shards: shards.into(),
            starts: starts.into(),
            dim,
            ids: OnceLock::new(),
            given_ids: false,
        })
    }

    /// Opens the shards of a folder: `features-00000-of-00008.npy` to
    /// `features-00007-of-00008.npy`, each of them `.npy` or `.safetensors`.
    ///
    /// # Errors
    /// As [`ShardedFeatures::open`], and [`Error::Features`] when there is no such file, one of
    /// them is missing or there twice, or names disagree about how many there are.
    pub fn open_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        match shard_names::find(folder, &shard_names::FEATURES)? {
            Some(paths) => Self::open(&paths),
            None => Err(Error::features(folder.display().to_string())
                .expected("shards named like features-00000-of-00008.npy, counted from 0")
                .found("none")
                .fix("rename the files, or list them in a text file for `open_list`")),
        }
    }

    /// Opens the files that a UTF-8 text file lists, one path a line, relative to the list's
    /// folder. Blank lines are skipped.
    ///
    /// # Errors
    /// As [`ShardedFeatures::open`], and [`Error::Io`] or [`Error::Features`] for a list that
    /// cannot be read.
    pub fn open_list(list: impl AsRef<Path>) -> Result<Self> {
        let list = list.as_ref();
        let bytes = read_limited(list, LONGEST_LIST)?;
        let text = str::from_utf8(&bytes).map_err(|_| {
            Error::features(list.display().to_string())
                .expected("UTF-8 text, a path a line")
                .found("other bytes")
                .fix("name the list, not a shard")
        })?;
        let folder = list.parent().unwrap_or(Path::new(""));
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
        let paths: Vec<PathBuf> = lines
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| folder.join(line))
            .collect();
        Self::open(&paths)
    }

    /// Names the rows of all shards by one UTF-8 text file, an id a line.
    ///
    /// # Errors
    /// As [`ItemIds::open`], and [`Error::Ids`] when there is not one id per row.
    pub fn with_ids(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ids = ItemIds::open(path)?;
        self.named(&path.display().to_string(), ids)
    }

    /// Names the rows by one file of ids for each shard, in the order of the shards.
    ///
    /// # Errors
    /// As [`ItemIds::open`], and [`Error::Ids`] when there is not one file per shard or one id per
    /// row of it, or when an id occurs in two files (both are named).
    pub fn with_id_files<P: AsRef<Path>>(self, paths: &[P]) -> Result<Self> {
        if paths.len() != self.shards.len() {
            return Err(Error::ids("files of ids")
                .expected(format!("one for each of {} shards", self.shards.len()))
                .found(paths.len().to_string())
                .fix("write the ids of each shard next to it, or all ids into one file"));
        }
        let (ids, counts) = ItemIds::open_parts(paths)?;
        for ((path, count), shard) in paths.iter().zip(counts).zip(&*self.shards) {
            if count != shard.layout.rows {
                return Err(Error::ids(path.as_ref().display().to_string())
                    .expected(format!(
                        "one id for each of {} rows of {}",
                        shard.layout.rows, shard.subject
                    ))
                    .found(format!("{count} ids"))
                    .fix("use the ids that were saved with this shard"));
            }
        }
        self.named("files of ids", ids)
    }

    /// Names the rows by ids that were checked before.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is not one id per row.
    pub fn with_item_ids(self, ids: ItemIds) -> Result<Self> {
        self.named("the list of ids", ids)
    }

    fn named(mut self, subject: &str, ids: ItemIds) -> Result<Self> {
        if ids.len() != self.len() {
            return Err(Error::ids(subject)
                .expected(format!(
                    "one id for each of {} rows of {} shards",
                    self.len(),
                    self.shards()
                ))
                .found(format!("{} ids", ids.len()))
                .fix("use the ids that were saved with these features"));
        }
        self.ids = OnceLock::from(Arc::new(ids));
        self.given_ids = true;
        Ok(self)
    }

    /// Number of items in all shards, N.
    pub fn len(&self) -> usize {
        self.starts[self.shards.len()]
    }

    /// Always false: every shard has a row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers per item, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of files.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The id of an item.
    ///
    /// # Panics
    /// When `item` is out of range.
    pub fn id(&self, item: usize) -> &str {
        self.ids().get(item)
    }

    /// The row of an id.
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.ids().index_of(id)
    }

    /// The ids of all rows; numbered ones when none were given.
    pub fn ids(&self) -> &ItemIds {
        self.ids.get_or_init(|| Arc::new(ItemIds::numbered(self.len())))
    }

    /// Whether ids were given, rather than numbered.
    pub fn has_given_ids(&self) -> bool {
        self.given_ids
    }

    /// Replaces the contents of `into` by the rows of `range`, `[range.len(), D]` row-major.
    ///
    /// # Errors
    /// [`Error::Features`] when the range ends behind the last row, or a number in it is NaN,
    /// infinite or beyond `f32`; the file and its row are named.
    pub fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::features("rows of the shards")
                .expected(format!("a range within {} rows", self.len()))
                .found(format!("{range:?}"))
                .fix("read only rows that exist"));
        }
        into.resize(range.len() * self.dim, 0.0);
        let mut rest = into.as_mut_slice();
        let mut row = range.start;
        let mut shard = self.shard_of(row);
        while row < range.end {
            let (start, end) = (self.starts[shard], self.starts[shard + 1].min(range.end));
            let (out, others) = rest.split_at_mut((end - row) * self.dim);
            self.shards[shard].convert(row - start, out)?;
            (rest, row, shard) = (others, end, shard + 1);
        }
        Ok(())
    }

    /// All rows in memory, with the same ids.
    ///
    /// # Errors
    /// As [`ShardedFeatures::read`].
    pub fn in_memory(&self) -> Result<Features> {
        let mut rows = Vec::new();
        self.read(0..self.len(), &mut rows)?;
        let items = Features::from_rows(rows, self.dim)?;
        if self.given_ids { items.with_item_ids(self.ids().clone()) } else { Ok(items) }
    }

    /// The shard that has a row; the last one for rows behind the end.
    fn shard_of(&self, row: usize) -> usize {
        self.starts[1..self.shards.len()].partition_point(|&end| end <= row)
    }

    /// Where a row is, for messages.
    pub(super) fn place_of(&self, row: usize) -> String {
        let shard = self.shard_of(row);
        format!("row {} of {}", row - self.starts[shard], self.shards[shard].subject)
    }
}

impl Placed {
    /// Converts rows from `first` on into `out`, and lets go of the pages of the file.
    fn convert(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let dim = self.layout.dim;
        let width = dim * self.layout.element.width();
        let start = self.start + first * width;
        let end = start + out.len() / dim * width;
        // `Layout::new` has held the number of rows against the length of the payload.
        let bytes = &self.map[start..end];
        let result = out
            .par_chunks_mut(PIECE * dim)
            .zip(bytes.par_chunks(PIECE * width))
            .enumerate()
            .map(|(piece, (out, bytes))| {
                let first = first + piece * PIECE;
                let refuse = |index: usize, value: f64, expected: &str, remedy: &str| {
                    Err(Error::features(&self.subject)
                        .expected(expected)
                        .found(format!(
                            "{value:e} in row {}, column {}",
                            first + index / dim,
                            index % dim
                        ))
                        .fix(remedy))
                };
                match self.layout.element.convert(bytes, out) {
                    Err(Fault::TooLarge { index, value }) => {
                        let expected = "numbers within the range of f32";
                        return refuse(index, value, expected, "scale or clip the features");
                    }
                    Err(Fault::Io(source)) => return Err(Error::io("read", &self.subject, source)),
                    Ok(()) => {}
                }
                if out.iter().fold(true, |fine, value| fine & value.is_finite()) {
                    return Ok(());
                }
                let index = out.iter().position(|value| !value.is_finite()).unwrap_or(0);
                let remedy = "recompute the features of that item, or leave it out";
                refuse(index, f64::from(out[index]), "finite numbers", remedy)
            })
            .collect::<Vec<Result<()>>>();
        forget(&self.map, start..end);
        // In order, so that the message does not depend on the threads.
        result.into_iter().collect()
    }
}

impl fmt::Debug for ShardedFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedFeatures")
            .field("len", &self.len())
            .field("dim", &self.dim)
            .field("shards", &self.shards.len())
            .field("given_ids", &self.given_ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
