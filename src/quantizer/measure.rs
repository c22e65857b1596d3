//! Measuring the health of a quantizer.

use rayon::prelude::*;

use super::{
    Quantizer,
    rows::{check_codes, check_rows},
};
use crate::{
    error::{Error, Result},
    identifier::Codes,
    index::{HealthReport, Tally},
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
