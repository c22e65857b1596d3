//! What is in a matrix, and what would spoil training.

use std::{
    borrow::Cow,
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash, Hasher},
};

use rayon::prelude::*;
use serde::Serialize;

use super::{matrix::Features, shards::ShardedFeatures};
use crate::{
    error::{Error, Result},
    kernels::norm,
};

/// Rows named in a message.
const NAMED: usize = 5;
/// Pieces a matrix is looked at in; fixed, so that sums do not depend on the machine.
const PIECES: usize = 64;
/// Rows of shards looked at together.
const BLOCK: usize = 1 << 14;

/// What [`Features::check`] found in a sound matrix.
///
/// # Example
/// ```
/// use cart_retrieval::features::Features;
///
/// let summary = Features::from_rows(vec![3.0, 4.0, 6.0, 4.0], 2)?.check()?;
/// assert_eq!((summary.rows, summary.dim), (2, 2));
/// assert_eq!(summary.norm_min, 5.0);
/// assert_eq!(summary.constant_columns, [1]);
/// println!("{summary}");
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FeatureSummary {
    /// Number of items, N.
    pub rows: usize,
    /// Numbers per item, D.
    pub dim: usize,
    /// Smallest L2 norm of a row.
    pub norm_min: f64,
    /// Mean L2 norm of the rows.
    pub norm_mean: f64,
    /// Largest L2 norm of a row.
    pub norm_max: f64,
    /// Rows equal to an earlier row. Such items get the same tokens, up to collision numbering.
    pub duplicate_rows: usize,
    /// The ids of the first row that repeats another one: the earlier item, then the later.
    pub duplicate_example: Option<(String, String)>,
    /// Columns that are the same in every row and so tell no item from another. A warning: they
    /// do no harm, but often come from a mistake. Empty when there is one row.
    pub constant_columns: Vec<usize>,
}

impl fmt::Display for FeatureSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "features    {} items of {} numbers", self.rows, self.dim)?;
        writeln!(
            f,
            "L2 norms    min {:.4}, mean {:.4}, max {:.4}",
            self.norm_min, self.norm_mean, self.norm_max
        )?;
        write!(f, "duplicates  {} rows equal an earlier row", self.duplicate_rows)?;
        if let Some((earlier, later)) = &self.duplicate_example {
            write!(f, " (\"{later}\" equals \"{earlier}\")")?;
        }
        if !self.constant_columns.is_empty() {
            let count = self.constant_columns.len();
            let columns = some_of(&self.constant_columns, |column| column.to_string());
            write!(f, "\nwarning     {count} columns are the same in every row: {columns}")?;
        }
        Ok(())
    }
}

impl Features {
    /// Looks at every number, in parallel, and reports what training should know.
    ///
    /// # Errors
    /// [`Error::Features`] when there is no row, when a number is NaN or infinite (the first
    /// one's row, id and column are named), or when rows are all zero, as these have no direction.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![1.0, f32::NAN], 1)?;
    /// let error = items.check().unwrap_err().to_string();
    /// assert!(error.contains("NaN in row 1 (id \"1\"), column 0"), "{error}");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn check(&self) -> Result<FeatureSummary> {
        if self.is_empty() {
            return Err(Error::features("feature matrix")
                .expected("at least one row")
                .found("none")
                .fix("select at least one item"));
        }
        let pieces = pieces_of(0, self.as_slice(), self.dim(), self.len().div_ceil(PIECES));
        self.refuse_not_finite(&pieces)?;
        summarise(self, (self.len(), self.dim()), &pieces)
    }

    fn refuse_not_finite(&self, pieces: &[Piece]) -> Result<()> {
        let count: usize = pieces.iter().map(|piece| piece.not_finite).sum();
        let Some((row, column)) = pieces.iter().find_map(|piece| piece.first_not_finite) else {
            return Ok(());
        };
        let value = self.row(row)[column];
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        Err(Error::features("feature matrix")
            .expected("finite numbers")
            .found(format!(
                "{value} in row {row} (id \"{}\"), column {column}{others}",
                self.id(row)
            ))
            .fix("recompute these features, or leave the items out with `Features::select`"))
    }
}

impl ShardedFeatures {
    /// Looks at every number, block by block, and reports what training should know.
    ///
    /// Beside a block of rows this holds 16 bytes a row, to find repeated ones.
    ///
    /// # Errors
    /// [`Error::Features`] as [`Features::check`], naming the file.
    ///
    /// # Example
    /// ```no_run
    /// use cart_retrieval::features::ShardedFeatures;
    ///
    /// let items = ShardedFeatures::open_folder("my-data")?;
    /// println!("{}", items.check()?);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn check(&self) -> Result<FeatureSummary> {
        let (mut pieces, mut rows) = (Vec::new(), Vec::new());
        for start in (0..self.len()).step_by(BLOCK) {
            self.read(start..self.len().min(start + BLOCK), &mut rows)?;
            pieces.extend(pieces_of(start, &rows, self.dim(), BLOCK / PIECES));
        }
        summarise(self, (self.len(), self.dim()), &pieces)
    }
}

/// Rows of a matrix that may be in files.
trait Rows {
    fn row(&self, row: usize) -> Result<Cow<'_, [f32]>>;
    fn id(&self, row: usize) -> &str;
    /// A row as messages name it.
    fn name(&self, row: usize) -> String;
}

impl Rows for Features {
    fn row(&self, row: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(Features::row(self, row)))
    }

    fn id(&self, row: usize) -> &str {
        Features::id(self, row)
    }

    fn name(&self, row: usize) -> String {
        format!("{row} (id \"{}\")", self.id(row))
    }
}

impl Rows for ShardedFeatures {
    fn row(&self, row: usize) -> Result<Cow<'_, [f32]>> {
        let mut out = Vec::new();
        self.read(row..row + 1, &mut out)?;
        Ok(Cow::Owned(out))
    }

    fn id(&self, row: usize) -> &str {
        ShardedFeatures::id(self, row)
    }

    fn name(&self, row: usize) -> String {
        format!("{row} (id \"{}\", {})", self.id(row), self.place_of(row))
    }
}

/// The summary of pieces that have finite numbers only.
fn summarise(
    matrix: &impl Rows,
    (rows, dim): (usize, usize),
    pieces: &[Piece],
) -> Result<FeatureSummary> {
    refuse_zero(matrix, pieces)?;
    let (duplicate_rows, example) = duplicates(matrix, pieces)?;
    let norms = || pieces.iter().map(|piece| piece.norms);
    Ok(FeatureSummary {
        rows,
        dim,
        norm_min: norms().map(|norms| norms.min).fold(f64::INFINITY, f64::min),
        norm_mean: norms().map(|norms| norms.sum).sum::<f64>() / rows as f64,
        norm_max: norms().map(|norms| norms.max).fold(0.0, f64::max),
        duplicate_rows,
        duplicate_example: example
            .map(|(left, right)| (matrix.id(left).to_string(), matrix.id(right).to_string())),
        constant_columns: if rows > 1 { constant_columns(matrix, pieces)? } else { Vec::new() },
    })
}

fn refuse_zero(matrix: &impl Rows, pieces: &[Piece]) -> Result<()> {
    let zero: Vec<usize> = pieces.iter().flat_map(|piece| piece.zero.iter().copied()).collect();
    if zero.is_empty() {
        return Ok(());
    }
    let named = some_of(&zero, |&row| matrix.name(row));
    Err(Error::features("feature matrix")
        .expected("rows with a number other than zero")
        .found(format!("{} all-zero rows: {named}", zero.len()))
        .fix("recompute these features, or leave the items out with `Features::select`"))
}

/// Counts rows equal to an earlier one and finds the first such pair.
fn duplicates(matrix: &impl Rows, pieces: &[Piece]) -> Result<(usize, Option<(usize, usize)>)> {
    let mut hashes: Vec<(u64, usize)> =
        pieces.iter().flat_map(|piece| piece.hashes.iter().copied()).collect();
    hashes.par_sort_unstable();
    let mut count = 0;
    let mut first: Option<(usize, usize)> = None;
    for group in hashes.chunk_by(|left, right| left.0 == right.0) {
        if group.len() == 1 {
            continue;
        }
        // Equal hashes mean equal rows but for the rarest of accidents, hence the comparison.
        let mut distinct: Vec<(usize, Cow<'_, [f32]>)> = Vec::new();
        for &(_, row) in group {
            let values = matrix.row(row)?;
            match distinct.iter().find(|(_, other)| *other == values) {
                None => distinct.push((row, values)),
                Some(&(other, _)) => {
                    count += 1;
                    if first.is_none_or(|(_, earliest)| row < earliest) {
                        first = Some((other, row));
                    }
                }
            }
        }
    }
    Ok((count, first))
}

fn constant_columns(matrix: &impl Rows, pieces: &[Piece]) -> Result<Vec<usize>> {
    let first = matrix.row(0)?;
    let mut constant = vec![true; first.len()];
    for piece in pieces {
        let start = matrix.row(piece.start)?;
        for (column, constant) in constant.iter_mut().enumerate() {
            *constant &= piece.constant[column] && start[column] == first[column];
        }
    }
    Ok((0..first.len()).filter(|&column| constant[column]).collect())
}

/// What one run of consecutive rows holds.
struct Piece {
    start: usize,
    not_finite: usize,
    first_not_finite: Option<(usize, usize)>,
    zero: Vec<usize>,
    norms: Norms,
    hashes: Vec<(u64, usize)>,
    /// Per column, whether it is the same in every row of the piece.
    constant: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Norms {
    min: f64,
    max: f64,
    sum: f64,
}

/// Pieces of this many rows each; `start` is the number of the first row.
fn pieces_of(start: usize, data: &[f32], dim: usize, rows: usize) -> Vec<Piece> {
    let pieces = data.par_chunks(rows * dim).enumerate();
    pieces.map(|(piece, data)| Piece::of(start + piece * rows, data, dim)).collect()
}

impl Piece {
    fn of(start: usize, data: &[f32], dim: usize) -> Self {
        let mut piece = Self {
            start,
            not_finite: 0,
            first_not_finite: None,
            zero: Vec::new(),
            norms: Norms { min: f64::INFINITY, max: 0.0, sum: 0.0 },
            hashes: Vec::with_capacity(data.len() / dim),
            constant: vec![true; dim],
        };
        let first = &data[..dim];
        for (offset, values) in data.chunks_exact(dim).enumerate() {
            let row = start + offset;
            for (constant, (value, first)) in
                piece.constant.iter_mut().zip(values.iter().zip(first))
            {
                *constant &= value == first;
            }
            let bad = values.iter().filter(|value| !value.is_finite()).count();
            if bad > 0 {
                piece.not_finite += bad;
                let column = values.iter().position(|value| !value.is_finite());
                piece.first_not_finite =
                    piece.first_not_finite.or(column.map(|column| (row, column)));
                continue;
            }
            let norm = norm(values);
            if norm == 0.0 {
                piece.zero.push(row);
            }
            piece.norms.min = piece.norms.min.min(norm);
            piece.norms.max = piece.norms.max.max(norm);
            piece.norms.sum += norm;
            piece.hashes.push((hash(values), row));
        }
        piece
    }
}

/// A hash that is the same for equal rows; adding zero makes -0.0 and 0.0 one.
fn hash(row: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.iter().for_each(|&value| (value + 0.0).to_bits().hash(&mut hasher));
    hasher.finish()
}

/// The first few of a list, and that there are more.
fn some_of<T>(list: &[T], name: impl Fn(&T) -> String) -> String {
    let named: Vec<String> = list.iter().take(NAMED).map(name).collect();
    let more = if list.len() > NAMED { ", ..." } else { "" };
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn features(data: Vec<f32>, dim: usize) -> Features {
        Features::from_rows(data, dim).unwrap()
    }

    #[test]
    fn not_finite_numbers_are_named_first_first() {
        let mut data = vec![1.0f32; 300 * 3];
        data[200 * 3] = f32::NEG_INFINITY;
        data[100 * 3 + 2] = f32::NAN;
        let ids = (0..300).map(|row| format!("item {row}")).collect();
        let error = features(data, 3).with_id_list(ids).unwrap().check().unwrap_err().to_string();
        assert!(error.contains("NaN in row 100 (id \"item 100\"), column 2 and 1 more"), "{error}");
        let error = features(vec![f32::INFINITY], 1).check().unwrap_err().to_string();
        assert!(error.contains("inf in row 0 (id \"0\"), column 0;"), "{error}");
    }

    #[test]
    fn zero_rows_are_counted_and_the_first_few_named() {
        let data = (0..20).flat_map(|row| [if row < 7 { -0.0 } else { 1.0 }, 0.0]).collect();
        let error = features(data, 2).check().unwrap_err().to_string();
        assert!(error.contains("7 all-zero rows: 0 (id \"0\"), 1 (id"), "{error}");
        assert!(error.contains("4 (id \"4\"), ...;"), "{error}");
        assert!(features(vec![1.0], 1).select(&[]).check().is_err());
    }

    #[test]
    fn a_sound_matrix_is_summarised() {
        let items = features(vec![3.0, 4.0, 0.0, 4.0, 3.0, 4.0, -0.0, 4.0], 2);
        let summary = items.check().unwrap();
        assert_eq!((summary.norm_min, summary.norm_mean, summary.norm_max), (4.0, 4.5, 5.0));
        assert_eq!(summary.duplicate_rows, 2);
        assert_eq!(summary.duplicate_example, Some(("0".to_string(), "2".to_string())));
        assert_eq!(summary.constant_columns, [1]);
        let text = summary.to_string();
        assert!(text.contains("4 items of 2") && text.contains("warning     1 columns"), "{text}");
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["duplicate_rows"], 2);
        assert!(features(vec![1.0, 2.0], 2).check().unwrap().constant_columns.is_empty());
        // Huge and tiny numbers neither overflow nor vanish.
        let summary = features(vec![3e38, 1e-45], 1).check().unwrap();
        assert!(summary.norm_max < 3.1e38 && summary.norm_min > 0.0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_slow_way(
            dim in 1usize..4,
            data in proptest::collection::vec(-1i8..2, 3..700),
        ) {
            let data: Vec<f32> = data.iter().map(|&x| f32::from(x)).collect();
            let rows: Vec<&[f32]> = data.chunks_exact(dim).collect();
            let items = features(data[..rows.len() * dim].to_vec(), dim);
            let zero = rows.iter().filter(|row| row.iter().all(|&x| x == 0.0)).count();
            match items.check() {
                Err(error) => {
                    let expected = format!("{zero} all-zero rows");
                    prop_assert!(error.to_string().contains(&expected));
                }
                Ok(summary) => {
                    prop_assert_eq!(zero, 0);
                    let pairs: Vec<(usize, usize)> = (0..rows.len())
                        .filter_map(|b| (0..b).find(|&a| rows[a] == rows[b]).map(|a| (a, b)))
                        .collect();
                    prop_assert_eq!(summary.duplicate_rows, pairs.len());
                    let example = pairs.first().map(|(a, b)| (a.to_string(), b.to_string()));
                    prop_assert_eq!(summary.duplicate_example, example);
                    let constant: Vec<usize> = (0..dim)
                        .filter(|&c| rows.len() > 1 && rows.iter().all(|row| row[c] == rows[0][c]))
                        .collect();
                    prop_assert_eq!(summary.constant_columns, constant);
                }
            }
        }
    }
}
