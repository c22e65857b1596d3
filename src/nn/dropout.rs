//! Dropout with one multiplication.

use burn::{
    module::Module,
    tensor::{Distribution, Tensor, backend::Backend},
};

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

    /// Applies dropout.
    ///
    /// # Shapes
    /// - input and output: any
    pub fn forward<B: Backend, const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        if self.p == 0.0 || !B::ad_enabled(&input.device()) {
            return input;
        }
        let keep = 1.0 - self.p;
        let mask =
            Tensor::<B, D>::random(input.shape(), Distribution::Bernoulli(keep), &input.device());
        input * mask.mul_scalar(1.0 / keep)
    }
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
        let input = Tensor::<Flex, 1>::ones([8], &device);
        assert_eq!(Dropout::new(0.9).forward(input.clone()).to_data(), input.to_data());
    }
}
