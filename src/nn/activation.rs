//! Activations that are the same on every backend.

use burn::tensor::{Tensor, activation, backend::Backend};

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
/// let y: f32 = cart_retrieval::nn::gelu(x).into_scalar();
/// assert!((y - 0.841_345).abs() < 1e-5);
/// ```
pub fn gelu<B: Backend, const D: usize>(input: Tensor<B, D>) -> Tensor<B, D> {
    let device = input.device();
    let name = B::name(&device);
    // Without a gradient, burn's value is as good and takes one pass.
    if !B::ad_enabled(&device) || name.contains("flex") || name.contains("libtorch") {
        return activation::gelu(input);
    }
    let probability = input.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf();
    input * probability.add_scalar(1.0).mul_scalar(0.5)
}
