//! Embeddings as the quantizers take them: flat rows, checked once, or read in pieces.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    ops::Range,
};

use rayon::prelude::*;

use crate::{
    error::{Error, Result},
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
}

impl RowSource for (&[f32], usize) {
    fn len(&self) -> usize {
        self.0.len().checked_div(self.1).unwrap_or(0)
    }

    fn dim(&self) -> usize {
        self.1
    }

    fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        let rows = self.0.get(range.start * self.1..range.end * self.1).ok_or_else(|| {
            Error::quantizer(
                "row source",
                format!("a range within {} rows", self.len()),
                format!("{range:?}"),
                "read only rows that exist",
            )
        })?;
        into.clear();
        into.extend_from_slice(rows);
        Ok(())
    }
}

/// Checks shape and values of rows, counted from `first` in messages; returns their number.
pub(crate) fn check_rows(rows: &[f32], dim: usize, first: usize) -> Result<usize> {
    if dim == 0 || !rows.len().is_multiple_of(dim) {
        return Err(Error::quantizer(
            "embeddings",
            "a whole number of rows of at least one value",
            format!("{} values in rows of {dim}", rows.len()),
            "pass a row-major [n, dim] buffer of the width the quantizer was made for",
        ));
    }
    if u32::try_from(rows.len() / dim).is_err() {
        return Err(Error::quantizer(
            "embeddings",
            format!("at most {} rows", u32::MAX),
            (rows.len() / dim).to_string(),
            "pass them in pieces",
        ));
    }
    // NaN compares false, so one test refuses NaN, infinities and values that would overflow.
    let fine = |row: &[f32]| row.iter().fold(true, |fine, v| fine & (v.abs() <= LARGEST));
    let bad = rows.par_chunks_exact(dim).position_first(|row| !fine(row));
    match bad {
        None => Ok(rows.len() / dim),
        Some(row) => {
            let value = rows[row * dim..][..dim].iter().find(|v| v.is_nan() || v.abs() > LARGEST);
            Err(Error::quantizer(
                format!("embedding of row {}", row + first),
                format!("finite values of magnitude at most {LARGEST:e}"),
                value.map_or_else(String::new, |value| format!("{value:e}")),
                "drop or recompute that row",
            ))
        }
    }
}

/// Checks tokens before decoding: enough columns, and each token within its level.
pub(crate) fn check_codes(codes: &Codes, levels: usize, sizes: &[usize]) -> Result<()> {
    if levels > sizes.len() || codes.levels() < levels {
        return Err(Error::quantizer(
            "tokens to decode",
            format!("at most {} levels and one column for each", sizes.len()),
            format!("{levels} levels asked of {} columns", codes.levels()),
            "pass tokens of this quantizer and ask for levels it has",
        ));
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
    Error::quantizer(
        format!("token of item {item} at level {level}"),
        format!("a token {expected}"),
        token.to_string(),
        "decode only tokens that this quantizer made",
    )
}

/// Squared Euclidean distance of two rows of equal width.
///
/// Sixteen running sums in a fixed order: the compiler can vectorise them, and the result depends
/// on nothing but the two rows.
pub(crate) fn squared_distance(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (left_body, left_tail) = left.as_chunks::<LANES>();
    let (right_body, right_tail) = right.as_chunks::<LANES>();
    for (a, b) in left_body.iter().zip(right_body) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    let tail: f32 = left_tail.iter().zip(right_tail).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + tail
}

/// Squared Euclidean norm of a row, summed as [`squared_distance`] does.
pub(crate) fn squared_norm(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (body, tail) = row.as_chunks::<LANES>();
    for a in body {
        for lane in 0..LANES {
            sums[lane] += a[lane] * a[lane];
        }
    }
    sums.iter().sum::<f32>() + tail.iter().map(|a| a * a).sum::<f32>()
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
    fn distances_agree_with_the_plain_sum() {
        for dim in [1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..dim).map(|i| (i % 7) as f32).collect();
            let b: Vec<f32> = (0..dim).map(|i| (i % 5) as f32).collect();
            let plain: f32 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
            assert_eq!(squared_distance(&a, &b), plain);
            assert_eq!(squared_norm(&a), a.iter().map(|a| a * a).sum::<f32>());
        }
    }

    #[test]
    fn distinct_rows_are_counted_up_to_the_limit() {
        let rows = [0.0, 1.0, -0.0, 1.0, 2.0, 1.0, 3.0, 1.0];
        assert_eq!(distinct_rows(&rows, 2, 10), 3);
        assert_eq!(distinct_rows(&rows, 2, 2), 2);
    }

    #[test]
    fn a_source_refuses_rows_it_does_not_have() {
        let source = ([1.0_f32, 2.0].as_slice(), 1);
        assert_eq!((source.len(), source.dim(), source.is_empty()), (2, 1, false));
        assert!(source.read(1..3, &mut Vec::new()).is_err());
    }
}
