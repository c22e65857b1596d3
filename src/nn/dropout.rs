//! Dropout with one multiplication.

use std::cell::Cell;

use burn::{
    module::Module,
    tensor::{Distribution, Tensor, TensorData, backend::Backend},
};

use super::init::as_dtype;
use crate::kernels::on_cpu;

/// Zeroes entries with probability `p` and scales the others by `1 / (1 - p)`, while training.
///
/// Active on autodiff backends only, as burn's own; `valid()` of a module is its inference form.
/// The mask carries the scale, so forward and backward cost one product each.
#[derive(Module, Clone, Debug)]
pub struct Dropout {
    p: f64,
}

impl Dropout {
    /// Dropout with probability `p`, which must be in `[0, 1)`.
    pub fn new(p: f64) -> Self {
        Self { p }
    }

    /// Whether it drops anything on this backend.
    pub(super) fn is_active<B: Backend>(&self, device: &B::Device) -> bool {
        self.p > 0.0 && B::ad_enabled(device)
    }

    /// Applies dropout.
    ///
    /// # Shapes
    /// - input and output: any
    pub fn forward<B: Backend, const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        if !self.is_active::<B>(&input.device()) {
            return input;
        }
        let keep = 1.0 - self.p;
        let (shape, device) = (input.shape(), input.device());
        if on_cpu::<B>(&device) {
            let count = shape.num_elements();
            let mask = TensorData::new(host_mask::<B>(count, keep, &device), shape);
            let mask = as_dtype(Tensor::from_data(mask, &device), input.dtype());
            return input * mask;
        }
        let mask = Tensor::<B, D>::random(shape, Distribution::Bernoulli(keep), &device);
        let mask = as_dtype(mask, input.dtype());
        input * mask.mul_scalar(1.0 / keep)
    }
}

thread_local! {
    /// The generator of [`with_noise`], while it runs.
    static NOISE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `f` with the masks of backends in the host's memory drawn from a generator of its own: the
/// backend's is shared by all threads, whose order is not fixed.
pub(crate) fn with_noise<T>(seed: u64, f: impl FnOnce() -> T) -> T {
    let before = NOISE.replace(Some(seed));
    let result = f();
    NOISE.set(before);
    result
}

/// A scaled mask from a counter-based generator: burn's own draws of a distribution cost ten times
/// as much as the product they are for.
fn host_mask<B: Backend>(count: usize, keep: f64, device: &B::Device) -> Vec<f32> {
    let seed = match NOISE.get() {
        Some(state) => {
            NOISE.set(Some(mix(state)));
            mix(state ^ 0xA5A5)
        }
        None => {
            let uniform = Distribution::Uniform(0.0, 1.0);
            let draw = Tensor::<B, 1>::random([2], uniform, device).into_data();
            draw.iter::<f32>().fold(0, |seed, value| seed << 32 | u64::from(value.to_bits()))
        }
    };
    let limit = (keep * f64::from(1u32 << 31) * 2.0) as u64;
    let scale = (1.0 / keep) as f32;
    (0..count as u64)
        .map(|index| {
            let bits = mix(seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            if bits >> 32 < limit { scale } else { 0.0 }
        })
        .collect()
}

/// The output function of SplitMix64.
fn mix(state: u64) -> u64 {
    let mut bits = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use super::*;

    #[test]
    fn keeps_the_mean_while_training_and_the_input_otherwise() {
        let device = Default::default();
        let dropped =
            Dropout::new(0.25).forward(Tensor::<Autodiff<Flex>, 2>::ones([100, 100], &device));
        let values: Vec<f32> = dropped.into_data().to_vec().unwrap();
        let kept = values.iter().filter(|&&v| v > 0.0).count();
        assert!(values.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
        assert!((7200..7800).contains(&kept), "{kept}");
        let seeded = |seed| {
            let input = Tensor::<Autodiff<Flex>, 2>::ones([10, 100], &device);
            with_noise(seed, || {
                let first = Dropout::new(0.5).forward(input.clone()).into_data();
                (first, Dropout::new(0.5).forward(input).into_data())
            })
        };
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        assert_ne!(seeded(1).0, seeded(1).1);
        let input = Tensor::<Flex, 1>::ones([8], &device);
        assert_eq!(Dropout::new(0.9).forward(input.clone()).to_data(), input.to_data());
    }
}
