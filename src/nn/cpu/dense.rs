//! Linear layers and norms on the CPU.

use burn::{
    nn::{LayerNorm, Linear},
    tensor::{Tensor, backend::Backend},
};

use crate::kernels::{Matrix, widest};

/// What burn's layer norm adds to the variance unless told otherwise, which nothing here does.
const EPSILON: f32 = 1e-5;

/// The numbers of a tensor.
pub(super) fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec().expect("numbers of the kind just converted to")
}

/// `x W + b`.
#[derive(Debug, Clone)]
pub(super) struct Dense {
    /// `[inputs, outputs]`
    weight: Matrix,
    bias: Vec<f32>,
}

impl Dense {
    pub(super) fn new<B: Backend>(linear: &Linear<B>) -> Self {
        let [inputs, outputs] = linear.weight.dims();
        let bias = linear.bias.as_ref().map(|bias| values(bias.val()));
        Self {
            weight: Matrix::new(values(linear.weight.val()), inputs),
            bias: bias.unwrap_or_else(|| vec![0.0; outputs]),
        }
    }

    /// The layer with its outputs multiplied.
    pub(super) fn scaled(self, factor: f32) -> Self {
        let bias = self.bias.iter().map(|value| value * factor).collect();
        Self { weight: self.weight.map(|value| value * factor), bias }
    }

    /// Layers with the same inputs as one layer; their outputs are concatenated.
    pub(super) fn beside(parts: &[Self]) -> Self {
        let weights: Vec<&Matrix> = parts.iter().map(|part| &part.weight).collect();
        Self {
            weight: Matrix::beside(&weights),
            bias: parts.iter().flat_map(|part| part.bias.iter().copied()).collect(),
        }
    }

    /// Makes the weights ready, in 16 bits if `half`.
    pub(super) fn pack(&mut self, half: bool) {
        self.weight.pack(half);
    }

    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Puts `[rows, outputs]` into `out`, from `[rows, inputs]`.
    pub(super) fn apply(&self, rows: &[f32], out: &mut Vec<f32>, parallel: bool) {
        let (n, outputs) = (rows.len() / self.weight.depth(), self.outputs());
        out.clear();
        (0..n).for_each(|_| out.extend_from_slice(&self.bias));
        self.weight.add_product(rows, out, (outputs, 0), parallel);
    }
}

/// A layer norm.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Norm {
    pub(super) fn new<B: Backend>(norm: &LayerNorm<B>) -> Self {
        let gamma = values(norm.gamma.val());
        let beta = norm.beta.as_ref().map(|beta| values(beta.val()));
        Self { beta: beta.unwrap_or_else(|| vec![0.0; gamma.len()]), gamma }
    }

    /// Normalises every row of `a + b` into `a`.
    pub(super) fn add_and_apply(&self, a: &mut [f32], b: &[f32]) {
        let norm = self;
        widest!(add_and_normalise(norm: &Norm, a: &mut [f32], b: &[f32]));
    }
}

#[inline(always)]
fn add_and_normalise(norm: &Norm, a: &mut [f32], b: &[f32]) {
    let d = norm.gamma.len();
    for (a, b) in a.chunks_exact_mut(d).zip(b.chunks_exact(d)) {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
        let mean = sum(a, |x| x) / d as f32;
        let variance = sum(a, |x| (x - mean) * (x - mean)) / d as f32;
        let factor = 1.0 / (variance + EPSILON).sqrt();
        for ((a, gamma), beta) in a.iter_mut().zip(&norm.gamma).zip(&norm.beta) {
            *a = (*a - mean) * factor * gamma + beta;
        }
    }
}

/// A sum in 16 strands.
#[inline(always)]
pub(super) fn sum(numbers: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut strands = [0.0f32; 16];
    let chunks = numbers.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|&x| term(x)).sum();
    for chunk in chunks {
        for (strand, &x) in strands.iter_mut().zip(chunk) {
            *strand += term(x);
        }
    }
    strands.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::TensorData};

    use super::*;
    use crate::kernels::bf16_products;
    use crate::nn::WeightInit;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        values(WeightInit::new(seed).normal::<Flex, 1>([n], 1.0, &Default::default()).val())
    }

    #[test]
    fn equals_the_layers_of_burn() {
        let device = Default::default();
        let mut init = WeightInit::new(1);
        let mut linear = init.linear::<Flex>(24, 40, &device);
        linear.bias = Some(init.normal([40], 1.0, &device));
        let mut norm = init.layer_norm::<Flex>(24, &device);
        norm.gamma = init.normal([24], 1.0, &device);
        norm.beta = Some(init.normal([24], 1.0, &device));
        let (a, b) = (random(5 * 24, 2), random(5 * 24, 3));
        let tensor = |rows: &[f32]| {
            Tensor::<Flex, 2>::from_data(TensorData::new(rows.to_vec(), [5, 24]), &device)
        };
        let near = |found: &[f32], expected: Vec<f32>| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                approx::assert_abs_diff_eq!(found, expected, epsilon = 2e-5);
            }
        };
        let mut out = Vec::new();
        let dense = Dense::new(&linear);
        dense.apply(&a, &mut out, false);
        near(&out, values(linear.forward(tensor(&a))));
        let both = Dense::beside(&[dense.clone(), dense.scaled(2.0)]);
        both.apply(&a, &mut out, true);
        let twice = values(linear.forward(tensor(&a)));
        for (found, expected) in out.chunks(80).zip(twice.chunks(40)) {
            near(&found[..40], expected.to_vec());
            near(&found[40..], expected.iter().map(|x| 2.0 * x).collect());
        }
        let mut normed = a.clone();
        Norm::new(&norm).add_and_apply(&mut normed, &b);
        near(&normed, values(norm.forward(tensor(&a) + tensor(&b))));
    }

    /// The result of a row depends neither on the other rows nor on the number of threads.
    #[test]
    fn a_row_is_the_same_to_the_last_bit_in_any_company() {
        for (inputs, outputs) in
            [(384, 384), (384, 1152), (384, 3072), (1536, 384), (384, 64), (768, 64), (40, 3)]
        {
            let plain = Dense {
                weight: Matrix::new(random(inputs * outputs, 4), inputs),
                bias: random(outputs, 5),
            };
            let mut ways = vec![plain; if bf16_products() { 3 } else { 2 }];
            ways[1].pack(false);
            ways.iter_mut().skip(2).for_each(|dense| dense.pack(true));
            let rows = random(700 * inputs, 6);
            let (mut alone, mut expected) = (Vec::new(), Vec::new());
            for (way, dense) in ways.iter().enumerate() {
                dense.apply(&rows, &mut expected, false);
                for (from, n) in
                    [(0, 1), (3, 2), (5, 3), (9, 7), (1, 20), (2, 33), (0, 320), (350, 350)]
                {
                    for parallel in [false, true] {
                        let some = &rows[from * inputs..(from + n) * inputs];
                        dense.apply(some, &mut alone, parallel);
                        let same = alone == expected[from * outputs..(from + n) * outputs];
                        assert!(same, "{inputs} x {outputs}, {n} rows, {parallel}, way {way}");
                    }
                }
            }
        }
    }
}
