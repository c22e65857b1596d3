//! Coarse and fine feature fusion: how the decoder reads every layer of the text encoder.
//!
//! Source: paper, section on coarse-to-fine feature fusion; the division by sqrt(S) follows
//! meshed-memory transformers (Cornia et al. 2020), as does sharing the fine cross-attention over
//! experts, with a gate for each.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Tensor, activation::sigmoid, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Attention, AttentionConfig, EncoderOutput, KeyValue, WeightInit,
    absorbed::Absorbed,
    init::{apply, as_dtype},
};

/// Which fusions a decoder layer has: the switches of the paper's ablation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum FusionMode {
    /// Plain cross-attention to the last encoder layer.
    None,
    /// Coarse fusion only.
    Coarse,
    /// Fine fusion only.
    Fine,
    /// Coarse and fine fusion: the method.
    #[default]
    Both,
}

impl FusionMode {
    /// Whether coarse fusion is on.
    pub fn coarse(self) -> bool {
        matches!(self, Self::Coarse | Self::Both)
    }

    /// Whether fine fusion is on.
    pub fn fine(self) -> bool {
        matches!(self, Self::Fine | Self::Both)
    }
}

/// Shape of the fusion blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionConfig {
    /// Width of the decoder.
    pub d_model: usize,
    /// Width of the encoder's layers.
    pub d_context: usize,
    /// Number of encoder layers S.
    pub experts: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Dropout of the attention probabilities.
    pub dropout: f64,
}

/// `Z = W [E_1; ..; E_S] + b`: one memory of all encoder layers, shared by all decoder layers.
#[derive(Module, Debug)]
pub struct CoarseFusion<B: Backend> {
    pub(super) projection: Linear<B>,
}

/// `A' = sigmoid(W_g A + b_g) * A` with `A = CrossAttention(Y, Z)`.
#[derive(Module, Debug)]
pub struct GatedAttention<B: Backend> {
    pub(super) attention: Attention<B>,
    pub(super) gate: Linear<B>,
}

/// `F = sum_i alpha_i * C_i / sqrt(S)` with `C_i = CrossAttention(Y, E_i)` and
/// `alpha_i = sigmoid(W_i [Y; C_i] + b_i)`.
///
/// The S experts are one batch: their keys and values are concatenated (`[S * batch, ..]`), and
/// `W_i [Y; C_i]` is the sum of a product with Y for all experts at once and a batched product with
/// the C_i.
#[derive(Module, Debug)]
pub struct FineFusion<B: Backend> {
    pub(super) attention: Attention<B>,
    /// The halves of all `W_i` that meet Y, and the `b_i`: `[d_model, S * d_model]`.
    pub(super) gate_query: Linear<B>,
    /// The halves of the `W_i` that meet the C_i: `[S, d_model, d_model]`.
    pub(super) gate_context: Param<Tensor<B, 3>>,
}

impl FusionConfig {
    /// Initialises the coarse memory's projection.
    pub fn init_coarse<B: Backend>(
        &self,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> CoarseFusion<B> {
        let projection = init.linear(self.experts * self.d_context, self.d_model, device);
        CoarseFusion { projection }
    }

    /// Initialises a gated cross-attention to the coarse memory.
    pub fn init_gated<B: Backend>(
        &self,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> GatedAttention<B> {
        GatedAttention {
            attention: AttentionConfig::new(self.d_model, self.n_heads, self.dropout)
                .init(init, device),
            gate: init.linear(self.d_model, self.d_model, device),
        }
    }

    /// Initialises a fine fusion.
    pub fn init_fine<B: Backend>(
        &self,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> FineFusion<B> {
        let (d, s) = (self.d_model, self.experts);
        let attention = AttentionConfig {
            d_context: self.d_context,
            ..AttentionConfig::new(d, self.n_heads, self.dropout)
        };
        // Glorot's bound for a [2 d, d] matrix, since each W_i is one.
        let bound = (6.0 / (3 * d) as f64).sqrt();
        FineFusion {
            attention: attention.init(init, device),
            gate_query: Linear {
                weight: init.uniform([d, s * d], bound, device),
                bias: Some(Param::from_tensor(Tensor::zeros([s * d], device))),
            },
            gate_context: init.uniform([s, d, d], bound, device),
        }
    }
}

impl<B: Backend> CoarseFusion<B> {
    /// The coarse memory Z.
    ///
    /// # Shapes
    /// - returns: `[batch, tokens, d_model]`
    pub fn forward(&self, encoded: &EncoderOutput<B>) -> Tensor<B, 3> {
        apply(&self.projection, Tensor::cat(encoded.layers.clone(), 2))
    }
}

impl<B: Backend> GatedAttention<B> {
    /// Keys and values of the coarse memory.
    pub fn key_value(&self, memory: Tensor<B, 3>) -> KeyValue<B> {
        self.attention.key_value(memory)
    }

    /// A' of queries.
    ///
    /// # Shapes
    /// - `y`, output: `[batch, n, d_model]`
    /// - `bias`: `[batch, heads or 1, n or 1, tokens]`
    pub fn forward(
        &self,
        y: Tensor<B, 3>,
        memory: &KeyValue<B>,
        bias: &Tensor<B, 4>,
    ) -> Tensor<B, 3> {
        self.gated(self.attention.forward(y, memory, Some(bias)))
    }

    /// The same without keys and values, to the coarse memory laid out as one expert.
    pub(super) fn forward_absorbed(&self, y: Tensor<B, 3>, memory: &Absorbed<B>) -> Tensor<B, 3> {
        self.gated(self.attention.forward_absorbed(y, memory))
    }

    fn gated(&self, attended: Tensor<B, 3>) -> Tensor<B, 3> {
        let gate = sigmoid(apply(&self.gate, attended.clone()));
        as_dtype(gate, attended.dtype()) * attended
    }
}

impl<B: Backend> FineFusion<B> {
    /// Keys and values of all encoder layers, concatenated over the experts.
    pub fn key_value(&self, encoded: &EncoderOutput<B>) -> KeyValue<B> {
        self.attention.key_value(Tensor::cat(encoded.layers.clone(), 0))
    }

    /// F of queries.
    ///
    /// # Shapes
    /// - `y`, output: `[batch, n, d_model]`
    /// - `bias`: `[S * batch, heads or 1, n or 1, tokens]`
    pub fn forward(
        &self,
        y: Tensor<B, 3>,
        experts: &KeyValue<B>,
        bias: &Tensor<B, 4>,
    ) -> Tensor<B, 3> {
        let [batch, n, d] = y.dims();
        let [s, _, _] = self.gate_context.dims();
        // Not `repeat_dim`: in burn 0.21 its gradient is wrong where the dimension is not 1.
        let queries = Tensor::cat(vec![self.attention.queries(y.clone()); s], 0);
        let attended = self
            .attention
            .attend(queries, experts, Some(bias))
            .swap_dims(1, 2)
            .reshape([s * batch, n, d]);
        self.weighed(y, self.attention.project(attended))
    }

    /// The same without keys and values.
    pub(super) fn forward_absorbed(&self, y: Tensor<B, 3>, experts: &Absorbed<B>) -> Tensor<B, 3> {
        let contexts = self.attention.forward_absorbed(y.clone(), experts);
        self.weighed(y, contexts)
    }

    /// From every expert's context `[S * batch, n, d_model]` to F.
    fn weighed(&self, y: Tensor<B, 3>, contexts: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, n, d] = y.dims();
        let [s, _, _] = self.gate_context.dims();
        let dtype = y.dtype();
        let gates = self.gate_context.val();
        let context = as_dtype(contexts.reshape([s, batch * n, d]), gates.dtype());
        let from_query = apply(&self.gate_query, y).reshape([batch * n, s, d]).swap_dims(0, 1);
        let from_context = context.clone().matmul(gates);
        let alpha = sigmoid(from_query + from_context);
        let sum = as_dtype(alpha * context, dtype).sum_dim(0);
        sum.div_scalar((s as f64).sqrt()).reshape([batch, n, d])
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Autodiff, Flex},
        tensor::{TensorData, Tolerance},
    };

    use super::*;
    use crate::nn::{Pooling, padding_bias};

    type B = Flex;

    fn config(experts: usize) -> FusionConfig {
        FusionConfig { d_model: 6, d_context: 4, experts, n_heads: 2, dropout: 0.0 }
    }

    fn encoded<A: Backend>(experts: usize) -> EncoderOutput<A> {
        let device = Default::default();
        let padding = TensorData::new(vec![false, false, true, false, false, false], [2, 3]);
        EncoderOutput {
            layers: (0..experts)
                .map(|layer| {
                    let values: Vec<f32> =
                        (0..24).map(|i| ((i * 7 + layer * 13) as f32 * 0.37).sin()).collect();
                    Tensor::from_data(TensorData::new(values, [2, 3, 4]), &device)
                })
                .collect(),
            bias: padding_bias(Tensor::from_data(padding, &device)),
            pooling: Pooling::Mean,
        }
    }

    fn random(shape: [usize; 3]) -> Tensor<B, 3> {
        WeightInit::new(shape[1] as u64).normal(shape, 1.0, &Default::default()).val()
    }

    /// Twin: expert by expert, as the formula is written, with `W_i` put together again.
    #[test]
    fn fine_fusion_is_the_sum_over_experts_one_by_one() {
        let device = Default::default();
        let (s, d) = (3, 6);
        let fine: FineFusion<B> = config(s).init_fine(&mut WeightInit::new(1), &device);
        let fine = FineFusion {
            gate_query: Linear {
                bias: Some(WeightInit::new(9).normal([s * d], 1.0, &device)),
                ..fine.gate_query.clone()
            },
            ..fine
        };
        let encoded = encoded::<B>(s);
        let y = random([2, 5, d]);
        let got = fine.forward(
            y.clone(),
            &fine.key_value(&encoded),
            &encoded.bias.clone().repeat_dim(0, s),
        );
        let mut expected = Tensor::<B, 3>::zeros([2, 5, d], &device);
        for (i, layer) in encoded.layers.iter().enumerate() {
            let context = fine.attention.key_value(layer.clone());
            let c = fine.attention.forward(y.clone(), &context, Some(&encoded.bias));
            let columns = i * d..(i + 1) * d;
            let w = Tensor::cat(
                vec![
                    fine.gate_query.weight.val().slice([0..d, columns.clone()]),
                    fine.gate_context.val().narrow(0, i, 1).reshape([d, d]),
                ],
                0,
            );
            let b = fine.gate_query.bias.as_ref().unwrap().val().slice([columns]);
            let alpha = sigmoid(
                Tensor::cat(vec![y.clone(), c.clone()], 2).matmul(w.unsqueeze())
                    + b.reshape([1, 1, d]),
            );
            expected = expected + alpha * c;
        }
        expected = expected.div_scalar((s as f64).sqrt());
        got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn coarse_fusion_is_a_gated_attention_to_one_projection_of_all_layers() {
        let device = Default::default();
        let mut init = WeightInit::new(2);
        let coarse: CoarseFusion<B> = config(2).init_coarse(&mut init, &device);
        let gated: GatedAttention<B> = config(2).init_gated(&mut init, &device);
        let encoded = encoded::<B>(2);
        let y = random([2, 4, 6]);
        let z = coarse.forward(&encoded);
        assert_eq!(z.dims(), [2, 3, 6]);
        let half = |rows: std::ops::Range<usize>, layer: usize| {
            encoded.layers[layer]
                .clone()
                .matmul(coarse.projection.weight.val().slice([rows, 0..6]).unsqueeze())
        };
        let by_hand = half(0..4, 0) + half(4..8, 1);
        z.to_data().assert_approx_eq::<f32>(&by_hand.into_data(), Tolerance::absolute(1e-5));
        let a =
            gated.attention.forward(y.clone(), &gated.key_value(z.clone()), Some(&encoded.bias));
        let expected = sigmoid(gated.gate.forward(a.clone())) * a;
        gated
            .forward(y, &gated.key_value(z), &encoded.bias)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }

    /// The directional derivative by autodiff against central differences, for the inputs and every
    /// parameter of both fusions.
    #[test]
    fn gradients_agree_with_finite_differences() {
        type A = Autodiff<Flex>;
        let device = Default::default();
        let mut init = WeightInit::new(4);
        let coarse: CoarseFusion<A> = config(3).init_coarse(&mut init, &device);
        let gated: GatedAttention<A> = config(3).init_gated(&mut init, &device);
        let fine: FineFusion<A> = config(3).init_fine(&mut init, &device);
        let weights = Tensor::<A, 3>::from_data(random([2, 4, 6]).into_data(), &device);
        let y0 = random([2, 4, 6]).into_data();
        let loss = |y: Tensor<A, 3>, fine: &FineFusion<A>, gated: &GatedAttention<A>| {
            let encoded = encoded::<A>(3);
            let a =
                gated.forward(y.clone(), &gated.key_value(coarse.forward(&encoded)), &encoded.bias);
            let f =
                fine.forward(y, &fine.key_value(&encoded), &encoded.bias.clone().repeat_dim(0, 3));
            ((a + f) * weights.clone()).sum()
        };
        let y = Tensor::<A, 3>::from_data(y0.clone(), &device).require_grad();
        let grads = loss(y.clone(), &fine, &gated).backward();

        let step = 1e-2f32;
        let scalar = |t: Tensor<A, 1>| t.into_scalar();
        let central = |plus: f32, minus: f32| (plus - minus) / (2.0 * step);
        let check = |name: &str, by_grad: f32, by_difference: f32| {
            let close =
                approx::relative_eq!(by_grad, by_difference, max_relative = 2e-2, epsilon = 2e-3);
            assert!(close, "{name}: {by_grad} by autodiff, {by_difference} by differences");
            assert!(by_grad.abs() > 1e-3, "{name}: a gradient of {by_grad} shows nothing");
        };

        let direction = WeightInit::new(77)
            .normal::<B, 3>([2, 4, 6], 1.0, &Default::default())
            .val()
            .into_data();
        let moved = |sign: f32| {
            Tensor::<A, 3>::from_data(y0.clone(), &device)
                + Tensor::from_data(direction.clone(), &device).mul_scalar(sign * step)
        };
        let dot = (y.grad(&grads).unwrap() * Tensor::from_data(direction.clone(), &device.clone()))
            .sum()
            .into_scalar();
        let numeric = central(
            scalar(loss(moved(1.0), &fine, &gated)),
            scalar(loss(moved(-1.0), &fine, &gated)),
        );
        check("input", dot, numeric);

        let g = fine.gate_context.val();
        let direction = Tensor::<A, 3>::ones_like(&g);
        let with = |sign: f32| FineFusion {
            gate_context: Param::from_tensor(
                (g.clone() + direction.clone().mul_scalar(sign * step)).detach(),
            ),
            ..fine.clone()
        };
        let dot = g.grad(&grads).unwrap().sum().into_scalar();
        let numeric = central(
            scalar(loss(y.clone(), &with(1.0), &gated)),
            scalar(loss(y.clone(), &with(-1.0), &gated)),
        );
        check("fine gate", dot, numeric);

        let w = gated.gate.weight.val();
        let with = |sign: f32| GatedAttention {
            gate: Linear {
                weight: Param::from_tensor(
                    (w.clone() + w.ones_like().mul_scalar(sign * step)).detach(),
                ),
                bias: gated.gate.bias.clone(),
            },
            ..gated.clone()
        };
        let dot = w.grad(&grads).unwrap().sum().into_scalar();
        let numeric = central(
            scalar(loss(y.clone(), &fine, &with(1.0))),
            scalar(loss(y.clone(), &fine, &with(-1.0))),
        );
        check("coarse gate", dot, numeric);
    }
}
