//! Ridge regression in closed form.

use nalgebra::{Cholesky, DMatrix, Dyn};

use crate::error::{Error, Result};

/// A linear map fitted by ridge regression: rows of one space to rows of another.
///
/// Inputs are centred on their mean and scaled to length 1 first, so that a penalty means the same
/// whatever the encoder; outputs are centred on their mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Ridge {
    pub(super) input_mean: Vec<f32>,
    /// `[D, d]`
    pub(super) weight: Vec<f32>,
    /// `[d]`
    pub(super) bias: Vec<f32>,
}

/// What all penalties share.
pub(super) struct RidgeProblem {
    input_mean: Vec<f32>,
    gram: DMatrix<f64>,
    product: DMatrix<f64>,
    bias: Vec<f32>,
}

impl RidgeProblem {
    /// Sums up rows `x` with what they should map to.
    pub(super) fn new<'a>(
        (d_input, d_output): (usize, usize),
        rows: impl Iterator<Item = (&'a [f32], &'a [f32])> + Clone,
    ) -> Self {
        let n = rows.clone().count();
        let mut input_mean = vec![0f64; d_input];
        let mut bias = vec![0f64; d_output];
        for (x, y) in rows.clone() {
            input_mean.iter_mut().zip(x).for_each(|(m, v)| *m += f64::from(*v) / n as f64);
            bias.iter_mut().zip(y).for_each(|(m, v)| *m += f64::from(*v) / n as f64);
        }
        let input_mean: Vec<f32> = input_mean.into_iter().map(|v| v as f32).collect();
        let mut x = DMatrix::<f64>::zeros(d_input, n);
        let mut y = DMatrix::<f64>::zeros(n, d_output);
        for (at, (from, to)) in rows.enumerate() {
            let prepared = prepare(from, &input_mean);
            x.column_mut(at).iter_mut().zip(&prepared).for_each(|(x, v)| *x = f64::from(*v));
            for (d, (value, mean)) in to.iter().zip(&bias).enumerate() {
                y[(at, d)] = f64::from(*value) - mean;
            }
        }
        let bias = bias.into_iter().map(|v| v as f32).collect();
        Self { input_mean, gram: &x * x.transpose(), product: &x * y, bias }
    }

    /// The map under a penalty.
    pub(super) fn solve(&self, penalty: f64) -> Result<Ridge> {
        if !(penalty > 0.0 && penalty.is_finite()) {
            return Err(Error::config(
                "ridge penalty",
                "a number above 0",
                penalty.to_string(),
                "0.1 to 100 are usual for rows of length 1",
            ));
        }
        let mut gram = self.gram.clone();
        for at in 0..gram.nrows() {
            gram[(at, at)] += penalty;
        }
        let factor: Cholesky<f64, Dyn> = Cholesky::new(gram).ok_or_else(|| {
            Error::features(
                "ridge regression",
                "a positive definite system",
                format!("one that is not, under a penalty of {penalty}"),
                "raise the penalty, or check the features for huge numbers",
            )
        })?;
        let solution = factor.solve(&self.product);
        let (d_input, d_output) = solution.shape();
        let weight = (0..d_input)
            .flat_map(|i| (0..d_output).map(move |j| (i, j)))
            .map(|at| solution[at] as f32)
            .collect();
        Ok(Ridge { input_mean: self.input_mean.clone(), weight, bias: self.bias.clone() })
    }
}

impl Ridge {
    /// Fits the map that takes `inputs` to `outputs`.
    ///
    /// # Shapes
    /// - `inputs`: `[N, D]`, `outputs`: `[N, d]`, row-major, `widths` being `(D, d)`
    ///
    /// # Errors
    /// [`Error::Config`] for a penalty that is not above 0; [`Error::Features`] when the shapes
    /// disagree or the system cannot be solved.
    pub fn fit(
        widths: (usize, usize),
        inputs: &[f32],
        outputs: &[f32],
        penalty: f64,
    ) -> Result<Self> {
        let (d_input, d_output) = widths;
        let rows = inputs.len() / d_input.max(1);
        if rows == 0 || rows * d_input != inputs.len() || rows * d_output != outputs.len() {
            return Err(Error::features(
                "ridge regression",
                format!("rows of {d_input} numbers with as many rows of {d_output}"),
                format!("{} and {} numbers", inputs.len(), outputs.len()),
                "pass one output row for every input row",
            ));
        }
        let pairs = inputs.chunks_exact(d_input).zip(outputs.chunks_exact(d_output));
        RidgeProblem::new(widths, pairs).solve(penalty)
    }

    /// Widths `(D, d)` of inputs and outputs.
    pub fn widths(&self) -> (usize, usize) {
        (self.input_mean.len(), self.bias.len())
    }

    /// Maps a row.
    ///
    /// # Shapes
    /// - `row`: `[D]`, returns: `[d]`
    pub fn map(&self, row: &[f32]) -> Vec<f32> {
        let mut out: Vec<f64> = self.bias.iter().map(|v| f64::from(*v)).collect();
        let prepared = prepare(row, &self.input_mean);
        for (value, weights) in prepared.iter().zip(self.weight.chunks_exact(self.bias.len())) {
            for (out, weight) in out.iter_mut().zip(weights) {
                *out += f64::from(value * weight);
            }
        }
        out.into_iter().map(|v| v as f32).collect()
    }
}

/// Centred and scaled to length 1.
pub(super) fn prepare(row: &[f32], mean: &[f32]) -> Vec<f32> {
    let mut row: Vec<f32> = row.iter().zip(mean).map(|(v, m)| v - m).collect();
    super::normalise(&mut row);
    row
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The gradient of the penalised squares is zero at the solution.
    #[test]
    fn the_solution_is_stationary() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (n, d, e) = (40, 6, 3);
        let x: Vec<f32> = (0..n * d).map(|_| rng.random::<f32>()).collect();
        let y: Vec<f32> = (0..n * e).map(|_| rng.random::<f32>()).collect();
        let ridge = Ridge::fit((d, e), &x, &y, 0.7).unwrap();
        let mut gradient: Vec<f64> = ridge.weight.iter().map(|w| 0.7 * f64::from(*w)).collect();
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact(e)) {
            let got = ridge.map(x);
            for (i, x) in prepare(x, &ridge.input_mean).iter().enumerate() {
                for j in 0..e {
                    gradient[i * e + j] += f64::from(*x) * f64::from(got[j] - y[j]);
                }
            }
        }
        gradient.iter().for_each(|g| assert_abs_diff_eq!(*g, 0.0, epsilon = 1e-4));
    }

    #[test]
    fn shapes_and_penalties_that_cannot_be_are_refused() {
        assert!(Ridge::fit((2, 1), &[1.0, 2.0, 3.0], &[1.0], 1.0).is_err());
        assert!(Ridge::fit((2, 1), &[1.0, 2.0], &[1.0, 2.0], 1.0).is_err());
        for penalty in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Ridge::fit((1, 1), &[1.0, 2.0], &[1.0, 2.0], penalty).is_err());
        }
    }
}
