//! GELU of numbers in the host's memory, many at a time.
//!
//! With u = x^2 / 2 and t = 1 / (1 + p |x| / sqrt 2), the distribution function is
//! `Phi(-|x|) = poly(t) exp(-u) / 2` within 1e-7 (Abramowitz and Stegun, 7.1.26), and the density
//! is `exp(-u) / sqrt(2 pi)`: one exponential serves the value and its derivative. There is no
//! branch and no call, so the loop runs in vectors ([`lanes`](super::lanes)).

use rayon::prelude::*;

use super::lanes::{exp_neg, widest};

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 15;

/// `x Phi(x)` in place of every number.
pub(crate) fn values(numbers: &mut [f32]) {
    let kernel = |numbers: &mut [f32]| widest!(values_of(numbers: &mut [f32]));
    if numbers.len() <= CHUNK {
        kernel(numbers)
    } else {
        numbers.par_chunks_mut(CHUNK).for_each(kernel)
    }
}

/// In place of every number, the slope of the GELU there, `s = Phi(x) + x phi(x)`; returns the
/// offset `x Phi(x) - s x` of every number.
pub(crate) fn slopes(numbers: &mut [f32]) -> Vec<f32> {
    let mut offsets = vec![0.0; numbers.len()];
    let kernel = |(numbers, offsets): (&mut [f32], &mut [f32])| {
        widest!(slopes_of(numbers: &mut [f32], offsets: &mut [f32]));
    };
    if numbers.len() <= CHUNK {
        kernel((numbers, &mut offsets))
    } else {
        let chunks = numbers.par_chunks_mut(CHUNK).zip(offsets.par_chunks_mut(CHUNK));
        chunks.for_each(kernel);
    }
    offsets
}

/// `Phi(x)` and `phi(x)`.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    const INV_SQRT_2_PI: f32 = 0.398_942_3;
    let bell = exp_neg(0.5 * x * x);
    let t = 1.0 / (1.0 + P * x.abs());
    let mut poly = 1.061_405_4;
    for factor in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        poly = poly * t + factor;
    }
    let tail = 0.5 * poly * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell * INV_SQRT_2_PI)
}

#[inline(always)]
fn values_of(numbers: &mut [f32]) {
    for x in numbers {
        *x *= normal(*x).0;
    }
}

#[inline(always)]
fn slopes_of(numbers: &mut [f32], offsets: &mut [f32]) {
    for (x, offset) in numbers.iter_mut().zip(offsets) {
        let (below, density) = normal(*x);
        *offset = -(*x * density) * *x;
        *x = below + *x * density;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Phi` and `phi` by the trapezoid rule in f64.
    fn twin(x: f64) -> (f64, f64) {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (steps, from) = (20_000, -12.0f64);
        let width = (x - from) / f64::from(steps);
        let inner: f64 = (1..steps).map(|i| density(from + f64::from(i) * width)).sum();
        (width * (inner + 0.5 * (density(from) + density(x))), density(x))
    }

    #[test]
    fn values_slopes_and_offsets_are_those_of_the_integral() {
        let numbers: Vec<f32> = (-260..=260).map(|i| i as f32 * 0.0431).collect();
        let mut found = numbers.clone();
        values(&mut found);
        let mut slopes_found = numbers.clone();
        let offsets = slopes(&mut slopes_found);
        for (i, &x) in numbers.iter().enumerate() {
            let (below, density) = twin(f64::from(x));
            let value = f64::from(x) * below;
            let slope = below + f64::from(x) * density;
            approx::assert_abs_diff_eq!(f64::from(found[i]), value, epsilon = 1e-6);
            approx::assert_abs_diff_eq!(f64::from(slopes_found[i]), slope, epsilon = 1e-6);
            let sum = slopes_found[i] * x + offsets[i];
            approx::assert_abs_diff_eq!(f64::from(sum), value, epsilon = 2e-6);
        }
    }

    #[test]
    fn far_numbers_and_none_are_what_they_must_be() {
        let mut far = [0.0, -0.0, 14.0, -14.0, 1e30, -1e30, f32::NAN];
        values(&mut far);
        assert_eq!(far[..3], [0.0, -0.0, 14.0]);
        assert_eq!(far[4], 1e30);
        assert!(far[3].abs() < 1e-30 && far[5] == 0.0 && far[6].is_nan());
        let mut steep = [1e30, -1e30, 14.0, f32::NAN];
        let offsets = slopes(&mut steep);
        assert_eq!((steep[0], steep[1]), (1.0, 0.0));
        assert_eq!(offsets[..2], [0.0, 0.0]);
        assert!(steep[3].is_nan());
    }

    /// Many numbers go in several chunks, the same as one by one.
    #[test]
    fn chunks_do_not_show() {
        let numbers: Vec<f32> =
            (0..CHUNK * 2 + 77).map(|i| (i as f32 * 0.71).sin() * 5.0).collect();
        let mut together = numbers.clone();
        values(&mut together);
        for (i, &x) in numbers.iter().enumerate().step_by(997) {
            let mut alone = [x];
            values_of(&mut alone);
            assert_eq!(alone[0].to_bits(), together[i].to_bits());
        }
    }
}
