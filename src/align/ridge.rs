//! Ridge regression in closed form, linear or with a kernel.

use nalgebra::{Cholesky, DMatrix, Dyn};
use rayon::prelude::*;

use crate::{
    error::{Error, Result, ensure_in},
    kernels::{dot, normalise},
};

/// Rows that are multiplied at once.
const BLOCK: usize = 2048;
/// Rows that one thread maps at once.
const ROWS: usize = 256;
/// What keeps the landmarks' matrix from being singular.
const JITTER: f64 = 1e-4;

/// A map fitted by ridge regression: rows of one space to rows of another.
///
/// Inputs are centred on their mean and scaled to length 1 first, so that a penalty means the same
/// whatever the encoder; outputs are centred on their mean. With a kernel, what is mapped is how
/// close a row is to each of some landmarks, `exp(gamma (<x, l> - 1))` (the Gaussian kernel of rows
/// of length 1; Nystroem's approximation where there are more rows than landmarks).
#[derive(Debug, Clone, PartialEq)]
pub struct Ridge {
    pub(super) lift: Lift,
    /// `[lifted width, d]`
    pub(super) weight: Vec<f32>,
    /// `[d]`
    pub(super) bias: Vec<f32>,
}

/// What is done to a row before it is multiplied.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lift {
    /// `[D]`
    pub(super) mean: Vec<f32>,
    /// Nothing for a linear map.
    pub(super) kernel: Option<Kernel>,
}

/// Closeness to landmarks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kernel {
    pub(super) gamma: f32,
    /// `[landmarks, D]`, centred and of length 1.
    pub(super) landmarks: Vec<f32>,
}

impl Lift {
    /// A lift for rows, linear where `gamma` is 0; the first rows are the landmarks.
    pub(super) fn new<'a>(
        d_input: usize,
        gamma: f64,
        landmarks: usize,
        rows: impl Iterator<Item = &'a [f32]> + Clone,
    ) -> Self {
        let n = rows.clone().count();
        let mut mean = vec![0f64; d_input];
        for row in rows.clone() {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / n as f64);
        }
        let mean: Vec<f32> = mean.into_iter().map(|v| v as f32).collect();
        let kernel = (gamma > 0.0).then(|| Kernel {
            gamma: gamma as f32,
            landmarks: rows.take(landmarks).flat_map(|row| prepare(row, &mean)).collect(),
        });
        Self { mean, kernel }
    }

    /// Width of lifted rows.
    fn width(&self) -> usize {
        match &self.kernel {
            Some(kernel) => kernel.landmarks.len() / self.mean.len(),
            None => self.mean.len(),
        }
    }

    fn apply(&self, row: &[f32]) -> Vec<f32> {
        let row = prepare(row, &self.mean);
        match &self.kernel {
            Some(kernel) => kernel.apply(&row),
            None => row,
        }
    }

    /// The triangular factor L of the landmarks' own closeness `L L'`; nothing for a linear map.
    fn factor(&self) -> Result<Option<DMatrix<f64>>> {
        let Some(kernel) = &self.kernel else {
            return Ok(None);
        };
        let width = self.width();
        let rows = kernel.landmarks.chunks_exact(self.mean.len());
        let values = rows.flat_map(|row| kernel.apply(row)).map(f64::from);
        let mut close = DMatrix::from_iterator(width, width, values);
        (0..width).for_each(|at| close[(at, at)] += JITTER);
        Ok(Some(factored(close, JITTER)?.unpack()))
    }
}

impl Kernel {
    fn apply(&self, row: &[f32]) -> Vec<f32> {
        let landmarks = self.landmarks.chunks_exact(row.len());
        landmarks.map(|landmark| (self.gamma * (dot(row, landmark) - 1.0)).exp()).collect()
    }
}

/// What all penalties share. Rows are whitened by the landmarks' factor L: `L^-1 k(x)`, in which a
/// plain penalty on the weights is that of the kernel.
pub(super) struct RidgeProblem {
    lift: Lift,
    factor: Option<DMatrix<f64>>,
    gram: DMatrix<f64>,
    product: DMatrix<f64>,
    bias: Vec<f32>,
}

impl RidgeProblem {
    /// Sums up rows `x` with what they should map to.
    ///
    /// # Errors
    /// [`Error::Features`] when the landmarks do not make a positive definite system.
    pub(super) fn new<'a>(
        lift: Lift,
        d_output: usize,
        rows: impl Iterator<Item = (&'a [f32], &'a [f32])> + Clone,
    ) -> Result<Self> {
        Self::weighted(lift, d_output, rows, std::iter::repeat(1.0))
    }

    /// The same with a weight above 0 for the squared error of each row.
    ///
    /// # Errors
    /// As [`RidgeProblem::new`].
    pub(super) fn weighted<'a>(
        lift: Lift,
        d_output: usize,
        rows: impl Iterator<Item = (&'a [f32], &'a [f32])> + Clone,
        weights: impl Iterator<Item = f32> + Clone,
    ) -> Result<Self> {
        let rows = rows.zip(weights);
        let n: f64 = rows.clone().map(|(_, weight)| f64::from(weight)).sum();
        let mut bias = vec![0f64; d_output];
        for ((_, y), weight) in rows.clone() {
            let weight = f64::from(weight);
            bias.iter_mut().zip(y).for_each(|(m, v)| *m += weight * f64::from(*v) / n);
        }
        let (width, factor) = (lift.width(), lift.factor()?);
        let mut gram = DMatrix::<f64>::zeros(width, width);
        let mut product = DMatrix::<f64>::zeros(width, d_output);
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let (mut x, mut y, mut count) = (Vec::new(), Vec::new(), 0);
            for ((from, to), weight) in rows.by_ref().take(BLOCK) {
                // Both sides by the root: products then have the weight.
                let root = f64::from(weight).sqrt();
                x.extend(lift.apply(from).into_iter().map(|value| root * f64::from(value)));
                let centred = to.iter().zip(&bias).map(|(value, mean)| f64::from(*value) - mean);
                y.extend(centred.map(|value| root * value));
                count += 1;
            }
            let x = whitened(&factor, DMatrix::from_vec(width, count, x))?;
            let y = DMatrix::from_vec(d_output, count, y).transpose();
            product.gemm(1.0, &x, &y, 1.0);
            gram.gemm(1.0, &x, &x.transpose(), 1.0);
        }
        let bias = bias.into_iter().map(|v| v as f32).collect();
        Ok(Self { lift, factor, gram, product, bias })
    }

    /// The map under a penalty.
    pub(super) fn solve(&self, penalty: f64) -> Result<Ridge> {
        let usual = "0.1 to 100 are usual for rows of length 1";
        ensure_in("ridge penalty", penalty, "(0, inf)", usual)?;
        let mut gram = self.gram.clone();
        for at in 0..gram.nrows() {
            gram[(at, at)] += penalty;
        }
        let mut solution = factored(gram, penalty)?.solve(&self.product);
        if let Some(factor) = &self.factor {
            // From whitened rows back to rows: L'^-1 W.
            let solved = factor.tr_solve_lower_triangular_mut(&mut solution);
            solved.then_some(()).ok_or_else(|| singular(penalty))?;
        }
        let (width, d_output) = solution.shape();
        let weight = (0..width)
            .flat_map(|i| (0..d_output).map(move |j| (i, j)))
            .map(|at| solution[at] as f32)
            .collect();
        Ok(Ridge { lift: self.lift.clone(), weight, bias: self.bias.clone() })
    }
}

fn factored(matrix: DMatrix<f64>, penalty: f64) -> Result<Cholesky<f64, Dyn>> {
    Cholesky::new(matrix).ok_or_else(|| singular(penalty))
}

fn singular(penalty: f64) -> Error {
    Error::features("ridge regression")
        .expected("a positive definite system")
        .found(format!("one that is not, under a penalty of {penalty}"))
        .fix("raise the penalty, or check the features for huge numbers")
}

/// `L^-1 x` for every column x.
fn whitened(factor: &Option<DMatrix<f64>>, mut x: DMatrix<f64>) -> Result<DMatrix<f64>> {
    if let Some(factor) = factor {
        let solved = factor.solve_lower_triangular_mut(&mut x);
        solved.then_some(()).ok_or_else(|| singular(JITTER))?;
    }
    Ok(x)
}

impl Ridge {
    /// Fits the linear map that takes `inputs` to `outputs`.
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
        let wrong = rows == 0 || rows * d_input != inputs.len() || rows * d_output != outputs.len();
        Error::features("ridge regression")
            .expected(format!("rows of {d_input} numbers with as many rows of {d_output}"))
            .found(format!("{} and {} numbers", inputs.len(), outputs.len()))
            .fix_if(wrong, "pass one output row for every input row")?;
        let inputs = inputs.chunks_exact(d_input);
        let lift = Lift::new(d_input, 0.0, 0, inputs.clone());
        let pairs = inputs.zip(outputs.chunks_exact(d_output));
        RidgeProblem::new(lift, d_output, pairs)?.solve(penalty)
    }

    /// Widths `(D, d)` of inputs and outputs.
    pub fn widths(&self) -> (usize, usize) {
        (self.lift.mean.len(), self.bias.len())
    }

    /// Maps a row.
    ///
    /// # Shapes
    /// - `row`: `[D]`, returns: `[d]`
    pub fn map(&self, row: &[f32]) -> Vec<f32> {
        let mut out: Vec<f64> = self.bias.iter().map(|v| f64::from(*v)).collect();
        let lifted = self.lift.apply(row);
        for (value, weights) in lifted.iter().zip(self.weight.chunks_exact(self.bias.len())) {
            for (out, weight) in out.iter_mut().zip(weights) {
                *out += f64::from(value * weight);
            }
        }
        out.into_iter().map(|v| v as f32).collect()
    }

    /// Maps rows, in the order given.
    ///
    /// # Shapes
    /// - `rows`: `[N, D]`, returns: `[N, d]`
    pub(super) fn map_all(&self, rows: &[&[f32]]) -> Vec<f32> {
        let (width, d_output) = (self.lift.width(), self.bias.len());
        let weight = self.weight.iter().copied().map(f64::from);
        // Row-major as it is, so transposed: [d, width].
        let weight = DMatrix::from_iterator(d_output, width, weight);
        let mapped = |rows: &[&[f32]]| {
            let lifted = rows.iter().flat_map(|row| self.lift.apply(row)).map(f64::from);
            let lifted = DMatrix::from_iterator(width, rows.len(), lifted);
            let mapped = &weight * lifted;
            let bias = self.bias.iter().cycle();
            mapped.iter().zip(bias).map(|(v, b)| (v + f64::from(*b)) as f32).collect::<Vec<f32>>()
        };
        rows.par_chunks(ROWS).flat_map_iter(mapped).collect()
    }

    /// Rows as a linear map multiplies them, `[N, D]`.
    ///
    /// # Panics
    /// Where the map has a kernel.
    pub(super) fn prepared<'a>(&self, rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        assert!(self.lift.kernel.is_none(), "a linear map");
        rows.flat_map(|row| self.lift.apply(row)).collect()
    }

    /// The map with another weight and another bias.
    pub(super) fn with(&self, weight: Vec<f32>, bias: Vec<f32>) -> Self {
        Self { lift: self.lift.clone(), weight, bias }
    }

    /// The map between two of the same lift: `to` at share 1.
    pub(super) fn mixed(&self, to: &Self, share: f32) -> Self {
        let mix = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| a * (1.0 - share) + b * share).collect()
        };
        self.with(mix(&self.weight, &to.weight), mix(&self.bias, &to.bias))
    }
}

/// Centred and scaled to length 1.
fn prepare(row: &[f32], mean: &[f32]) -> Vec<f32> {
    let mut row: Vec<f32> = row.iter().zip(mean).map(|(v, m)| v - m).collect();
    normalise(&mut row);
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
            for (i, x) in prepare(x, &ridge.lift.mean).iter().enumerate() {
                for j in 0..e {
                    gradient[i * e + j] += f64::from(*x) * f64::from(got[j] - y[j]);
                }
            }
        }
        gradient.iter().for_each(|g| assert_abs_diff_eq!(*g, 0.0, epsilon = 1e-4));
    }

    /// Twin: rows that are there as often as their weight says, under the same lift.
    #[test]
    fn a_weight_counts_as_so_many_rows() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let rows: Vec<[f32; 5]> = (0..30).map(|_| std::array::from_fn(|_| rng.random())).collect();
        let pairs: Vec<(&[f32], &[f32])> = rows.iter().map(|row| row.split_at(3)).collect();
        let repeated: Vec<_> =
            pairs.iter().enumerate().flat_map(|(at, &pair)| vec![pair; 1 + at % 3]).collect();
        for gamma in [0.0, 1.0] {
            let lift = Lift::new(3, gamma, 10, pairs.iter().map(|pair| pair.0));
            let weights = (0..30).map(|at| (1 + at % 3) as f32);
            let pairs = pairs.iter().copied();
            let found = RidgeProblem::weighted(lift.clone(), 2, pairs, weights).unwrap();
            let expected = RidgeProblem::new(lift, 2, repeated.iter().copied()).unwrap();
            let (found, expected) = (found.solve(0.5).unwrap(), expected.solve(0.5).unwrap());
            let both = found.weight.iter().zip(&expected.weight);
            for (a, b) in both.chain(found.bias.iter().zip(&expected.bias)) {
                assert_abs_diff_eq!(a, b, epsilon = 1e-4);
            }
        }
    }

    /// Twin: with all rows as landmarks it is kernel ridge regression, `k(x, X) (K + p I)^-1 Y`.
    #[test]
    fn a_kernel_is_the_dual_problem() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (n, d, e, gamma, penalty) = (30, 4, 2, 1.5, 0.2);
        let x: Vec<f32> = (0..n * d).map(|_| rng.random::<f32>()).collect();
        let y: Vec<f32> = (0..n * e).map(|_| rng.random::<f32>()).collect();
        let (rows, outputs) = (x.chunks_exact(d), y.chunks_exact(e));
        let lift = Lift::new(d, gamma, 100, rows.clone());
        let problem = RidgeProblem::new(lift.clone(), e, rows.clone().zip(outputs)).unwrap();
        let ridge = problem.solve(penalty).unwrap();
        let units: Vec<Vec<f32>> = rows.clone().map(|row| prepare(row, &lift.mean)).collect();
        let close = |a: &[f32], b: &[f32]| {
            let cosine: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
            (gamma * (cosine - 1.0)).exp()
        };
        let gram = DMatrix::from_fn(n, n, |i, j| {
            close(&units[i], &units[j]) + if i == j { penalty } else { 0.0 }
        });
        let centred =
            DMatrix::from_fn(n, e, |i, j| f64::from(y[i * e + j]) - f64::from(ridge.bias[j]));
        let dual = gram.cholesky().unwrap().solve(&centred);
        for (at, row) in rows.enumerate() {
            let found = ridge.map(row);
            for j in 0..e {
                let sum: f64 = (0..n).map(|i| close(&units[at], &units[i]) * dual[(i, j)]).sum();
                let expected = sum + f64::from(ridge.bias[j]);
                assert_abs_diff_eq!(f64::from(found[j]), expected, epsilon = 2e-3);
            }
        }
        // Few landmarks are coarser, and still a map.
        let lift = Lift::new(d, gamma, 5, x.chunks_exact(d));
        let pairs = x.chunks_exact(d).zip(y.chunks_exact(e));
        let coarse = RidgeProblem::new(lift, e, pairs).unwrap().solve(penalty).unwrap();
        assert_eq!(coarse.weight.len(), 5 * e);
    }

    #[test]
    fn shapes_and_penalties_that_cannot_be_are_refused() {
        assert!(Ridge::fit((2, 1), &[1.0, 2.0, 3.0], &[1.0], 1.0).is_err());
        assert!(Ridge::fit((2, 1), &[1.0, 2.0], &[1.0, 2.0], 1.0).is_err());
        for penalty in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Ridge::fit((1, 1), &[1.0, 2.0], &[1.0, 2.0], penalty).is_err());
        }
    }

    /// Prepared rows times the weight are what the map gives; half way between two maps lies half
    /// way.
    #[test]
    fn maps_go_on_as_linear_layers_and_mix() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (n, d, e) = (20, 4, 3);
        let x: Vec<f32> = (0..n * d).map(|_| rng.random::<f32>()).collect();
        let y: Vec<f32> = (0..n * e).map(|_| rng.random::<f32>()).collect();
        let ridge = Ridge::fit((d, e), &x, &y, 0.3).unwrap();
        let prepared = ridge.prepared(x.chunks_exact(d));
        let doubled: Vec<f32> = ridge.weight.iter().map(|w| 2.0 * w).collect();
        let half = ridge.mixed(&ridge.with(doubled, ridge.bias.clone()), 0.5);
        for (row, prepared) in x.chunks_exact(d).zip(prepared.chunks_exact(d)) {
            let (found, mixed) = (ridge.map(row), half.map(row));
            for at in 0..e {
                let product: f32 = (0..d).map(|i| prepared[i] * ridge.weight[i * e + at]).sum();
                assert_abs_diff_eq!(found[at], product + ridge.bias[at], epsilon = 1e-5);
                assert_abs_diff_eq!(mixed[at], 1.5 * product + ridge.bias[at], epsilon = 1e-5);
            }
        }
    }
}
