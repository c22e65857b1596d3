//! Measuring the health of a quantizer.

use rayon::prelude::*;

use super::{
    Quantizer, RowSource,
    rows::{check_codes, check_rows, sample_rows},
};
use crate::{
    error::{Error, Result},
    identifier::Codes,
    index::{HealthReport, Tally},
    kernels::squared_distance,
};

/// Rows that are encoded and measured together. Sums run within blocks and then over blocks, so
/// that they do not depend on who measured which block.
pub(crate) const BLOCK: usize = 1 << 13;
/// Rows that one thread sums.
const PIECE: usize = 512;

impl HealthReport {
    /// Measures a quantizer on rows and their codes.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, n > 0
    /// - `codes`: `[n, levels]`, usually `quantizer.encode(rows)`
    ///
    /// # Errors
    /// [`Error::Quantizer`] when there is no row, the shapes contradict each other, a value is not
    /// finite, or a token is outside its level.
    pub fn new(quantizer: &dyn Quantizer, rows: &[f32], codes: &Codes) -> Result<Self> {
        let dim = quantizer.dim();
        let n = check_rows(rows, dim, 0)?;
        let sizes = quantizer.level_sizes();
        let remedy = "pass the rows and the codes that the quantizer gave them";
        Error::quantizer("health")
            .expected(format!("at least one item, and for each row {} tokens", sizes.len()))
            .found(format!("{n} rows and {} x {} tokens", codes.len(), codes.levels()))
            .fix_if(n == 0 || codes.len() != n || codes.levels() != sizes.len(), remedy)?;
        check_codes(codes, sizes.len(), &sizes)?;
        let tallies = rows
            .chunks(BLOCK * dim)
            .zip(codes.as_flat().chunks(BLOCK * codes.levels()))
            .map(|(rows, tokens)| {
                let codes = Codes::from_flat(codes.levels(), tokens.to_vec())?;
                Ok(Tally::of(quantizer, rows, &codes)?.0)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::of_tallies(&sizes, codes, &tallies))
    }
}

/// Rows that neighbours are measured on.
const SAMPLE: usize = 1000;
/// Neighbours of a row.
const NEAREST: usize = 10;

impl HealthReport {
    /// Measures how well codes keep neighbours, on a sample of at most 1,000 rows: a decoder that
    /// takes a wrong code then still ends near the right item.
    ///
    /// # Errors
    /// As [`Quantizer::encode`], and whatever the source returns.
    pub fn with_neighbours(
        self,
        quantizer: &dyn Quantizer,
        source: &dyn RowSource,
    ) -> Result<Self> {
        let rows = sample_rows(source, SAMPLE, 0)?;
        let (recall, correlation) = neighbours(quantizer, &rows)?.unzip();
        Ok(Self { neighbour_recall: recall, distance_correlation: correlation, ..self })
    }
}

/// Share of the nearest rows that are nearest by codes too, and the correlation of distances;
/// `None` for fewer than three rows.
fn neighbours(quantizer: &dyn Quantizer, rows: &[f32]) -> Result<Option<(f64, f64)>> {
    let dim = quantizer.dim();
    let n = rows.len() / dim;
    if n < 3 {
        return Ok(None);
    }
    let decoded = quantizer.decode(&quantizer.encode(rows)?)?;
    let nearest = NEAREST.min(n - 2);
    let distances = |rows: &[f32], at: usize| -> Vec<f32> {
        let own = &rows[at * dim..(at + 1) * dim];
        rows.chunks_exact(dim).map(|row| squared_distance(own, row)).collect()
    };
    let near = |distances: &[f32], at: usize| -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).filter(|&other| other != at).collect();
        order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(a.cmp(&b)));
        order.truncate(nearest);
        order
    };
    let each = (0..n).into_par_iter().map(|at| {
        let (true_ones, by_codes) = (distances(rows, at), distances(&decoded, at));
        let (wanted, found) = (near(&true_ones, at), near(&by_codes, at));
        let kept = found.iter().filter(|other| wanted.contains(other)).count();
        let mut sums = [0.0; 5];
        for (x, y) in true_ones[..at].iter().zip(&by_codes[..at]) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            sums.iter_mut().zip([x, y, x * x, y * y, x * y]).for_each(|(sum, v)| *sum += v);
        }
        (kept, sums)
    });
    let each: Vec<(usize, [f64; 5])> = each.collect();
    let kept: usize = each.iter().map(|(kept, _)| kept).sum();
    let sum = |at: usize| each.iter().map(|(_, sums)| sums[at]).sum::<f64>();
    let pairs = (n * (n - 1) / 2) as f64;
    let (x, y) = (sum(0) / pairs, sum(1) / pairs);
    let covariance = sum(4) / pairs - x * y;
    let spread = ((sum(2) / pairs - x * x) * (sum(3) / pairs - y * y)).max(0.0).sqrt();
    // Equal distances say nothing.
    let correlation = if spread > 0.0 { covariance / spread } else { 0.0 };
    Ok(Some((kept as f64 / (n * nearest) as f64, correlation)))
}

impl Tally {
    /// Measures a block; also returns the squared distance of each row to what its tokens stand
    /// for.
    pub(crate) fn of(
        quantizer: &dyn Quantizer,
        rows: &[f32],
        codes: &Codes,
    ) -> Result<(Self, Vec<f32>)> {
        let (n, dim) = (codes.len(), quantizer.dim());
        let pieces: Vec<Vec<f64>> = rows
            .par_chunks(PIECE * dim)
            .map(|rows| {
                let mut sum = vec![0.0; dim];
                for row in rows.chunks_exact(dim) {
                    sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
                }
                sum
            })
            .collect();
        let mut mean = vec![0.0; dim];
        for piece in pieces {
            mean.iter_mut().zip(piece).for_each(|(sum, part)| *sum += part);
        }
        mean.iter_mut().for_each(|sum| *sum /= n as f64);

        let spreads: Vec<f64> = rows
            .par_chunks(PIECE * dim)
            .map(|rows| rows.chunks_exact(dim).map(|row| squares(row, &mean, |&value| value)).sum())
            .collect();
        let mut distance = vec![0.0_f32; n];
        let mut errors = Vec::with_capacity(codes.levels());
        for level in 1..=codes.levels() {
            let decoded = quantizer.decode_prefix(codes, level)?;
            let parts: Vec<f64> = rows
                .par_chunks(PIECE * dim)
                .zip(decoded.par_chunks(PIECE * dim))
                .zip(distance.par_chunks_mut(PIECE))
                .map(|((rows, decoded), distance)| {
                    let pairs = rows.chunks_exact(dim).zip(decoded.chunks_exact(dim));
                    let error = |((row, decoded), distance): ((&[f32], &[f32]), &mut f32)| {
                        let error = squares(row, decoded, |&value| f64::from(value));
                        *distance = error as f32;
                        error
                    };
                    pairs.zip(distance).map(error).sum()
                })
                .collect();
            errors.push(parts.iter().sum());
        }
        Ok((Self { rows: n, mean, spread: spreads.iter().sum(), errors }, distance))
    }
}

/// Sum of squared differences, in eight running sums in a fixed order.
fn squares<T>(row: &[f32], other: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    for (row, other) in row.chunks(8).zip(other.chunks(8)) {
        for ((sum, &a), b) in sums.iter_mut().zip(row).zip(other) {
            let difference = f64::from(a) - value(b);
            *sum += difference * difference;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
