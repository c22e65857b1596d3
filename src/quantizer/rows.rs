//! Embeddings as the quantizers take them: flat rows, checked once, or read in pieces.

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{Hash, Hasher},
    ops::Range,
};

use rand::{Rng, SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    cancel::Monitor,
    error::{Error, Result},
    features::{Features, ItemIds, ShardedFeatures},
    identifier::Codes,
};

/// Largest magnitude of a value: squared distances of up to a million dimensions stay finite.
const LARGEST: f32 = 1e15;

/// Rows that are read piece by piece: a file larger than memory, a memory map, a generator.
///
/// # Example
/// ```
/// use cart_retrieval::quantizer::RowSource;
/// let source = ([0.0_f32, 1.0, 2.0, 3.0].as_slice(), 2);
/// let mut rows = Vec::new();
/// source.read(1..2, &mut rows)?;
/// assert_eq!(rows, [2.0, 3.0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub trait RowSource {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a row.
    fn dim(&self) -> usize;

    /// Replaces the contents of `into` by the rows of `range`, `[range.len(), dim]`.
    ///
    /// # Errors
    /// When the rows cannot be read or `range` ends behind the last one.
    fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()>;

    /// All rows, `[len, dim]`, where they lie in memory anyway; they are not copied then.
    fn as_slice(&self) -> Option<&[f32]> {
        None
    }

    /// The ids of the rows, if they have any; otherwise they are numbered.
    fn ids(&self) -> Option<&ItemIds> {
        None
    }
}

impl RowSource for Features {
    fn len(&self) -> usize {
        Features::len(self)
    }

    fn dim(&self) -> usize {
        Features::dim(self)
    }

    fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        (Features::as_slice(self), self.dim()).read(range, into)
    }

    fn as_slice(&self) -> Option<&[f32]> {
        Some(Features::as_slice(self))
    }

    fn ids(&self) -> Option<&ItemIds> {
        Some(Features::ids(self))
    }
}

impl RowSource for ShardedFeatures {
    fn len(&self) -> usize {
        ShardedFeatures::len(self)
    }

    fn dim(&self) -> usize {
        ShardedFeatures::dim(self)
    }

    fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        ShardedFeatures::read(self, range, into)
    }

    fn ids(&self) -> Option<&ItemIds> {
        Some(ShardedFeatures::ids(self))
    }
}

impl RowSource for (&[f32], usize) {
    fn len(&self) -> usize {
        self.0.len().checked_div(self.1).unwrap_or(0)
    }

    fn dim(&self) -> usize {
        self.1
    }

    fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        let rows = self
            .0
            .get(range.start.saturating_mul(self.1)..range.end.saturating_mul(self.1))
            .ok_or_else(|| {
                Error::quantizer("row source")
                    .expected(format!("a range within {} rows", self.len()))
                    .found(format!("{range:?}"))
                    .fix("read only rows that exist")
            })?;
        into.clear();
        into.extend_from_slice(rows);
        Ok(())
    }

    fn as_slice(&self) -> Option<&[f32]> {
        Some(self.0)
    }
}

/// At most `most` rows drawn evenly, in their order, `[at most most, dim]`.
///
/// For fitting a quantizer to a collection larger than memory. The same seed draws the same rows.
///
/// # Errors
/// [`Error::Quantizer`] for values that are not finite, and whatever the source returns.
///
/// # Example
/// ```
/// use cart_retrieval::{quantizer::RqKMeansConfig, expert::sample_rows};
/// let rows: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
/// let sample = sample_rows(&(rows.as_slice(), 2), 100, 7)?;
/// assert_eq!(sample.len(), 100 * 2);
/// let quantizer = RqKMeansConfig::new(vec![8, 8]).fit(&sample, 2)?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn sample_rows(source: &dyn RowSource, most: usize, seed: u64) -> Result<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Ok(draw_rows(source, most, &mut rng)?.into_owned())
}

/// As [`sample_rows`], with a generator; draws nothing when all rows are taken.
pub(crate) fn draw_rows<'a>(
    source: &'a dyn RowSource,
    most: usize,
    rng: &mut impl Rng,
) -> Result<Cow<'a, [f32]>> {
    let (n, dim) = (source.len(), source.dim());
    if n <= most
        && let Some(rows) = source.as_slice()
    {
        check_rows(rows, dim, 0)?;
        return Ok(Cow::Borrowed(rows));
    }
    let mut chosen =
        if n <= most { (0..n).collect() } else { index::sample(rng, n, most).into_vec() };
    chosen.sort_unstable();
    let mut rows = Vec::with_capacity(chosen.len() * dim);
    let mut piece = Vec::new();
    // Neighbours are read at once, in blocks when everything is wanted.
    for run in chosen.chunk_by(|a, b| a + 1 == *b) {
        for run in run.chunks(1 << 14) {
            read_checked(source, run[0]..run[0] + run.len(), &mut piece)?;
            rows.extend_from_slice(&piece);
        }
    }
    Ok(Cow::Owned(rows))
}

/// Reads rows and checks the result.
pub(crate) fn read_checked(
    source: &dyn RowSource,
    range: Range<usize>,
    rows: &mut Vec<f32>,
) -> Result<()> {
    source.read(range.clone(), rows)?;
    let found = check_rows(rows, source.dim(), range.start)?;
    if found != range.len() {
        return Err(Error::quantizer("row source")
            .expected(format!("{} rows for {range:?}", range.len()))
            .found(found.to_string())
            .fix("make `read` fill its buffer with exactly the rows of the range"));
    }
    Ok(())
}

/// Rows of a range: a slice of rows in memory (checked before), or read into `buffer` and checked.
pub(crate) fn read_block<'a>(
    source: &'a dyn RowSource,
    range: Range<usize>,
    buffer: &'a mut Vec<f32>,
) -> Result<&'a [f32]> {
    let dim = source.dim();
    if let Some(rows) = source.as_slice() {
        return Ok(&rows[range.start * dim..range.end * dim]);
    }
    read_checked(source, range, buffer)?;
    Ok(buffer)
}

/// An error if the assignment should stop.
pub(crate) fn check_stop<E>(monitor: &Monitor<'_, E>) -> Result<()> {
    Error::interrupted("assignment of codes")
        .expected("to run to the last row")
        .found("a request to stop")
        .fix_if(monitor.is_stopped(), "start it again; an unfinished part keeps nothing")
}

/// Hands all rows to `visit`, in order: in blocks of at most `size` rows, read into `buffer` and
/// checked, or all at once where they lie in memory (and were checked before).
pub(crate) fn for_blocks(
    source: &dyn RowSource,
    size: usize,
    buffer: &mut Vec<f32>,
    mut visit: impl FnMut(Range<usize>, &[f32]) -> Result<()>,
) -> Result<()> {
    let n = source.len();
    if let Some(rows) = source.as_slice() {
        return visit(0..n, rows);
    }
    for start in (0..n).step_by(size) {
        let range = start..n.min(start + size);
        read_checked(source, range.clone(), buffer)?;
        visit(range, buffer)?;
    }
    Ok(())
}

/// Checks shape and values of rows, counted from `first` in messages; returns their number.
pub(crate) fn check_rows(rows: &[f32], dim: usize, first: usize) -> Result<usize> {
    if dim == 0 || !rows.len().is_multiple_of(dim) {
        return Err(Error::quantizer("embeddings")
            .expected("a whole number of rows of at least one value")
            .found(format!("{} values in rows of {dim}", rows.len()))
            .fix("pass a row-major [n, dim] buffer of the width the quantizer was made for"));
    }
    if u32::try_from(rows.len() / dim).is_err() {
        return Err(Error::quantizer("embeddings")
            .expected(format!("at most {} rows", u32::MAX))
            .found((rows.len() / dim).to_string())
            .fix("pass them in pieces"));
    }
    // NaN compares false, so one test refuses NaN, infinities and values that would overflow.
    let fine = |row: &[f32]| row.iter().fold(true, |fine, v| fine & (v.abs() <= LARGEST));
    let bad = rows.par_chunks_exact(dim).position_first(|row| !fine(row));
    match bad {
        None => Ok(rows.len() / dim),
        Some(row) => {
            let value = rows[row * dim..][..dim].iter().find(|v| v.is_nan() || v.abs() > LARGEST);
            Err(Error::quantizer(format!("embedding of row {}", row + first))
                .expected(format!("finite values of magnitude at most {LARGEST:e}"))
                .found(value.map_or_else(String::new, |value| format!("{value:e}")))
                .fix("drop or recompute that row"))
        }
    }
}

/// Checks tokens before decoding: enough columns, and each token within its level.
pub(crate) fn check_codes(codes: &Codes, levels: usize, sizes: &[usize]) -> Result<()> {
    if levels > sizes.len() || codes.levels() < levels {
        return Err(Error::quantizer("tokens to decode")
            .expected(format!("at most {} levels and one column for each", sizes.len()))
            .found(format!("{levels} levels requested of {} columns", codes.levels()))
            .fix("pass tokens of this quantizer and ask for levels it has"));
    }
    for (item, row) in codes.rows().enumerate() {
        for (level, (&token, &size)) in row[..levels].iter().zip(sizes).enumerate() {
            if usize::from(token) >= size {
                return Err(bad_token(item, level, token, &format!("below {size}")));
            }
        }
    }
    Ok(())
}

/// The error for a token that its level does not have.
pub(crate) fn bad_token(item: usize, level: usize, token: u16, expected: &str) -> Error {
    Error::quantizer(format!("token of item {item} at level {level}"))
        .expected(format!("a token {expected}"))
        .found(token.to_string())
        .fix("decode only tokens that this quantizer made")
}

/// Adds some of `rows` to `sums`, in the order given; the result does not depend on the processor.
///
/// # Shapes
/// - `sums`: `[dim]`
/// - `rows`: `[n, dim]`
#[allow(unsafe_code)]
pub(crate) fn add_rows(sums: &mut [f64], rows: &[f32], members: &[u32]) {
    #[inline(always)]
    fn add(sums: &mut [f64], rows: &[f32], members: &[u32]) {
        let dim = sums.len();
        for &row in members {
            for (sum, &value) in sums.iter_mut().zip(&rows[row as usize * dim..][..dim]) {
                *sum += f64::from(value);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn add_avx512(sums: &mut [f64], rows: &[f32], members: &[u32]) {
            add(sums, rows, members);
        }

        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has just been asked.
            return unsafe { add_avx512(sums, rows, members) };
        }
    }
    add(sums, rows, members);
}

/// A row as a key: equal when all values are, with -0 equal to 0.
#[derive(Clone, Copy)]
pub(crate) struct RowKey<'a>(pub &'a [f32]);

impl PartialEq for RowKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// The rows were checked: without NaN, equality of floats is an equivalence.
impl Eq for RowKey<'_> {}

impl Hash for RowKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self.0 {
            // Adding zero turns -0 into 0.
            state.write_u32((value + 0.0).to_bits());
        }
    }
}

/// A row as a key that owns it: equal where [`RowKey`]s are.
pub(crate) fn row_bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| (value + 0.0).to_bits()).collect()
}

/// Appends rows of a source that `found` does not have yet, until it has `limit` distinct ones.
///
/// Reads no further than it must: nearly always one block.
pub(crate) fn find_distinct(
    source: &dyn RowSource,
    mut found: Vec<f32>,
    limit: usize,
) -> Result<Vec<f32>> {
    const BLOCK: usize = 1 << 12;
    let (n, dim) = (source.len(), source.dim());
    let mut distinct = distinct_rows(&found, dim, limit);
    let mut block = Vec::new();
    for start in (0..n).step_by(BLOCK) {
        if distinct >= limit {
            break;
        }
        read_checked(source, start..n.min(start + BLOCK), &mut block)?;
        let mut fresh = Vec::new();
        let mut seen: HashSet<RowKey<'_>> = found.chunks_exact(dim).map(RowKey).collect();
        for row in block.chunks_exact(dim) {
            if distinct < limit && seen.insert(RowKey(row)) {
                fresh.extend_from_slice(row);
                distinct += 1;
            }
        }
        found.extend(fresh);
    }
    Ok(found)
}

/// Checks that a level of a residual quantizer finds as many distinct rows as it has codes.
///
/// `rows` are what the levels before `level` (from 0) left over.
pub(crate) fn check_level(rows: &[f32], dim: usize, level: usize, size: usize) -> Result<()> {
    let found = distinct_rows(rows, dim, size);
    if found >= size {
        return Ok(());
    }
    let setting = format!("sizes[{level}]");
    let remedy = match (found, level) {
        (0 | 1, 0) => "pass rows that differ: equal rows cannot be told apart".to_string(),
        (0 | 1, _) => format!(
            "leave out {setting} and the levels after it: the levels before it tell all rows apart"
        ),
        _ => format!("set {setting} to {found} or less, or pass more data"),
    };
    Err(Error::quantizer(format!("level {}, {setting} = {size}", level + 1))
        .expected(format!("at least {size} distinct residuals"))
        .found(format!("{found} distinct residuals"))
        .fix(remedy))
}

/// Number of distinct rows, counting no further than `limit`.
pub(crate) fn distinct_rows(rows: &[f32], dim: usize, limit: usize) -> usize {
    let mut seen = HashSet::new();
    for row in rows.chunks_exact(dim) {
        if seen.len() >= limit {
            break;
        }
        seen.insert(RowKey(row));
    }
    seen.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_name_their_row() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let message = check_rows(&[0.0, 1.0, 2.0, bad], 2, 10).unwrap_err().to_string();
            assert!(message.contains("row 11"), "{message}");
        }
        assert_eq!(check_rows(&[0.0, 1.0, 2.0, 1e15], 2, 0).unwrap(), 2);
        assert_eq!(check_rows(&[], 2, 0).unwrap(), 0);
        assert!(check_rows(&[1.0; 3], 2, 0).is_err());
        assert!(check_rows(&[], 0, 0).is_err());
    }

    #[test]
    fn distinct_rows_are_counted_up_to_the_limit() {
        let rows = [0.0, 1.0, -0.0, 1.0, 2.0, 1.0, 3.0, 1.0];
        assert_eq!(distinct_rows(&rows, 2, 10), 3);
        assert_eq!(distinct_rows(&rows, 2, 2), 2);
    }

    #[test]
    fn distinct_rows_are_found_across_blocks() {
        let mut rows = vec![1.0_f32; 10_000];
        rows[5000] = 2.0;
        rows[9999] = 3.0;
        let source = (rows.as_slice(), 1);
        assert_eq!(find_distinct(&source, vec![], 2).unwrap(), [1.0, 2.0]);
        assert_eq!(find_distinct(&source, vec![2.0, 7.0], 9).unwrap(), [2.0, 7.0, 1.0, 3.0]);
        assert_eq!(find_distinct(&source, vec![2.0, 7.0], 1).unwrap(), [2.0, 7.0]);
    }

    #[test]
    fn samples_are_drawn_evenly_and_in_order() {
        let rows: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let source = (rows.as_slice(), 2);
        let sample = sample_rows(&source, 100, 3).unwrap();
        assert_eq!(sample, sample_rows(&source, 100, 3).unwrap());
        assert_ne!(sample, sample_rows(&source, 100, 4).unwrap());
        assert!(sample.chunks_exact(2).all(|row| row[0] % 2.0 == 0.0 && row[1] == row[0] + 1.0));
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(sample_rows(&source, 500, 3).unwrap(), rows);
    }

    #[test]
    fn a_source_refuses_rows_it_does_not_have() {
        let source = ([1.0_f32, 2.0].as_slice(), 1);
        assert_eq!((source.len(), source.dim(), source.is_empty()), (2, 1, false));
        assert!(source.read(1..3, &mut Vec::new()).is_err());
    }
}
