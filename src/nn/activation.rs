//! Activations that are the same on every backend.

use burn::tensor::{DType, Tensor, TensorData, activation, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::{kernels, kernels::on_cpu};

/// The function between the two layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(x, 0)`
    #[default]
    Relu,
    /// `x * Phi(x)`, exact.
    Gelu,
    /// The approximation of GELU by tanh (`gelu_new`).
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, CLIP's.
    QuickGelu,
}

impl Activation {
    /// Applies the function.
    ///
    /// # Shapes
    /// - input and output: any
    pub fn forward<B: Backend, const D: usize>(self, input: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Relu => activation::relu(input),
            Self::Gelu => gelu(input),
            Self::GeluTanh => {
                let cubed = input.clone() * input.clone() * input.clone();
                let inner = (input.clone() + cubed.mul_scalar(0.044_715))
                    .mul_scalar((2.0 / std::f64::consts::PI).sqrt());
                input * inner.tanh().add_scalar(1.0).mul_scalar(0.5)
            }
            Self::QuickGelu => {
                let gate = activation::sigmoid(input.clone().mul_scalar(1.702));
                input * gate
            }
        }
    }
}

/// `x * Phi(x)`, the exact GELU (Hendrycks and Gimpel 2016), with its exact gradient.
///
/// In burn 0.21, backends without a kernel of their own for the gradient (ndarray and those on
/// CubeCL) compute the exact value, but the gradient of the approximation by tanh. There, it is put
/// together from operations whose gradients are exact.
///
/// # Shapes
/// - input and output: any
///
/// # Example
/// ```
/// use burn::{backend::Flex, tensor::Tensor};
/// let x = Tensor::<Flex, 1>::from_floats([1.0], &Default::default());
/// let y: f32 = cart_retrieval::expert::gelu(x).into_scalar();
/// assert!((y - 0.841_345).abs() < 1e-5);
/// ```
pub fn gelu<B: Backend, const D: usize>(input: Tensor<B, D>) -> Tensor<B, D> {
    let device = input.device();
    if input.dtype() == DType::F32 && on_cpu::<B>(&device) {
        return on_slices(input);
    }
    // Without a gradient, burn's value is as good and takes one pass.
    if !B::ad_enabled(&device) || on_cpu::<B>(&device) || B::name(&device).contains("libtorch") {
        return activation::gelu(input);
    }
    let probability = input.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf();
    input * probability.add_scalar(1.0).mul_scalar(0.5)
}

/// The same where numbers can be read in place: `slope * x + offset`, of which the slope is the
/// gradient.
fn on_slices<B: Backend, const D: usize>(input: Tensor<B, D>) -> Tensor<B, D> {
    let device = input.device();
    let shape = input.shape();
    let differentiable = B::ad_enabled(&device);
    let kept = differentiable.then(|| input.clone());
    let mut numbers = into_vec(input.detach());
    let tensor = |numbers| Tensor::from_data(TensorData::new(numbers, shape.clone()), &device);
    match kept {
        None => {
            kernels::gelu::values(&mut numbers);
            tensor(numbers)
        }
        Some(input) => {
            let offsets = kernels::gelu::slopes(&mut numbers);
            input * tensor(numbers) + tensor(offsets)
        }
    }
}

fn into_vec<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data();
    data.into_vec().expect("the caller checked that these are f32")
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    /// Values of PyTorch's functions at -1.5 and 0.7.
    #[test]
    fn values_are_those_of_the_formulas() {
        for (activation, expected) in [
            (Activation::Relu, [0.0, 0.7]),
            (Activation::Gelu, [-0.100_211, 0.530_625]),
            (Activation::GeluTanh, [-0.100_428, 0.530_570]),
            (Activation::QuickGelu, [-0.108_338, 0.536_894]),
        ] {
            let x = Tensor::<Flex, 1>::from_floats([-1.5, 0.7], &Default::default());
            let y: Vec<f32> = activation.forward(x).into_data().to_vec().unwrap();
            for (found, expected) in y.iter().zip(expected) {
                approx::assert_abs_diff_eq!(*found, expected, epsilon = 2e-5);
            }
        }
    }
}
