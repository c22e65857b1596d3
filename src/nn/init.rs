//! Initial weights drawn on the host, so that a seed gives the same model on every backend.

use burn::{
    module::Param,
    nn::{Embedding, LayerNorm, LayerNormConfig, Linear},
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws initial weights from a seeded generator of its own.
///
/// burn's initialisers draw lazily from the backend's global generator: a clone made before first
/// use gets other weights, and so does any run with another random operation in between. Weights
/// drawn here exist at once and depend on the seed and the order of calls only.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::expert::WeightInit;
/// let device = Default::default();
/// let a = WeightInit::new(7).linear::<Flex>(4, 2, &device);
/// let b = WeightInit::new(7).linear::<Flex>(4, 2, &device);
/// assert_eq!(a.weight.val().to_data(), b.weight.val().to_data());
/// ```
#[derive(Debug)]
pub struct WeightInit {
    /// Absent where weights are to be zero.
    rng: Option<ChaCha8Rng>,
}

impl WeightInit {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { rng: Some(ChaCha8Rng::seed_from_u64(seed)) }
    }

    /// Draws nothing: all weights are zero, for a network whose weights are loaded next.
    pub fn zeros() -> Self {
        Self { rng: None }
    }

    /// A linear layer: Glorot-uniform weights (`[d_input, d_output]`), zero bias.
    pub fn linear<B: Backend>(
        &mut self,
        d_input: usize,
        d_output: usize,
        device: &B::Device,
    ) -> Linear<B> {
        let bound = (6.0 / (d_input + d_output) as f64).sqrt();
        Linear {
            weight: self.uniform([d_input, d_output], bound, device),
            bias: Some(Param::from_tensor(Tensor::zeros([d_output], device))),
        }
    }

    /// A linear layer without bias.
    pub fn linear_without_bias<B: Backend>(
        &mut self,
        d_input: usize,
        d_output: usize,
        device: &B::Device,
    ) -> Linear<B> {
        Linear { bias: None, ..self.linear(d_input, d_output, device) }
    }

    /// An embedding table `[count, d_model]` with normal entries of standard deviation 0.02.
    pub fn embedding<B: Backend>(
        &mut self,
        count: usize,
        d_model: usize,
        device: &B::Device,
    ) -> Embedding<B> {
        Embedding { weight: self.normal([count, d_model], 0.02, device) }
    }

    /// A layer norm with unit gain and zero bias.
    pub fn layer_norm<B: Backend>(&mut self, d_model: usize, device: &B::Device) -> LayerNorm<B> {
        LayerNormConfig::new(d_model).init(device)
    }

    /// A parameter uniform in `[-bound, bound]`.
    pub fn uniform<B: Backend, const D: usize>(
        &mut self,
        shape: [usize; D],
        bound: f64,
        device: &B::Device,
    ) -> Param<Tensor<B, D>> {
        let Some(rng) = &mut self.rng else {
            return Param::from_tensor(Tensor::zeros(shape, device));
        };
        let count = shape.iter().product();
        let values: Vec<f32> =
            (0..count).map(|_| ((rng.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
    }

    /// A parameter with normal entries of mean zero (Box-Muller).
    pub fn normal<B: Backend, const D: usize>(
        &mut self,
        shape: [usize; D],
        deviation: f64,
        device: &B::Device,
    ) -> Param<Tensor<B, D>> {
        let Some(rng) = &mut self.rng else {
            return Param::from_tensor(Tensor::zeros(shape, device));
        };
        let count: usize = shape.iter().product();
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
            let (sin, cos) = (rng.random::<f64>() * std::f64::consts::TAU).sin_cos();
            values.extend([(radius * cos) as f32, (radius * sin) as f32]);
        }
        values.truncate(count);
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

/// Applies a linear layer to the last dimension of a 3-d tensor as one matrix product.
///
/// burn's own forward takes the batch as a batch of products; its weight gradient then is one
/// `[d_input, d_output]` matrix per batch element, summed afterwards.
///
/// # Shapes
/// - `input`: `[batch, n, d_input]`
/// - returns: `[batch, n, d_output]`
pub fn apply<B: Backend>(linear: &Linear<B>, input: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, n, d_input] = input.dims();
    let output = linear_2d(linear, input.reshape([batch * n, d_input]));
    let [_, d_output] = output.dims();
    output.reshape([batch, n, d_output])
}

/// Applies a linear layer, in the precision of its weights: `[rows, d_input]` to
/// `[rows, d_output]`.
pub(super) fn linear_2d<B: Backend>(linear: &Linear<B>, input: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = linear.weight.val().dtype();
    linear.forward(as_dtype(input, dtype))
}

/// A tensor in another precision; the tensor itself where it has that already.
pub(crate) fn as_dtype<B: Backend, const D: usize>(
    tensor: Tensor<B, D>,
    dtype: DType,
) -> Tensor<B, D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}

/// A tensor in half precision in single precision; any other as it is. What a softmax or a sum of
/// many terms needs.
pub(crate) fn widened<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(DType::F32),
        _ => tensor,
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn normal_entries_have_the_asked_deviation() {
        let weights = WeightInit::new(1).normal::<Flex, 2>([101, 99], 0.5, &Default::default());
        let values: Vec<f32> = weights.val().into_data().to_vec().unwrap();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance.sqrt() - 0.5).abs() < 0.02, "{variance}");
    }

    #[test]
    fn seeds_and_order_decide_the_weights() {
        let device = Default::default();
        let mut init = WeightInit::new(3);
        let first = init.linear::<Flex>(3, 3, &device).weight.val().to_data();
        let second = init.linear::<Flex>(3, 3, &device).weight.val().to_data();
        assert_ne!(first, second);
        let other = WeightInit::new(4).linear::<Flex>(3, 3, &device).weight.val().to_data();
        assert_ne!(first, other);
    }
}
