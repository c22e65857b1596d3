//! Attention from few queries to many tokens, without keys and values.
//!
//! A score is `(W_q y)_h . (W_k e)_h = (W_k,h^T (W_q y)_h) . e`, and a head's context is
//! `(sum_t p_t W_v e_t)_h = W_v,h (sum_t p_t e_t)`: the projections can be taken on the side of the
//! queries. A key's bias adds the same to all scores of a query, which the softmax takes out; a
//! value's bias comes once per unit of probability. An identifier has some five positions, a query
//! up to forty tokens in each of the encoder's layers, so this saves most of the arithmetic of the
//! cross-attentions while training. It is exact, up to rounding. (The paper has the formulas of the
//! attention only; the order of computation is ours.)

use burn::tensor::{Tensor, activation::softmax, backend::Backend};

use super::{
    Attention,
    init::{apply, as_dtype, widened},
};

/// Contexts laid out for [`Attention::forward_absorbed`].
#[derive(Debug, Clone)]
pub(super) struct Absorbed<B: Backend> {
    /// `[batch, experts, tokens, d_context]`
    context: Tensor<B, 4>,
    /// `[batch, heads * n, experts, tokens]`
    bias: Tensor<B, 4>,
}

impl<B: Backend> Absorbed<B> {
    /// Contexts of one or more experts for `n` queries each.
    ///
    /// # Shapes
    /// - `layers`: `[batch, tokens, d_context]` each
    /// - `bias`: `[batch, 1, 1, tokens]`
    pub(super) fn new(
        layers: Vec<Tensor<B, 3>>,
        bias: &Tensor<B, 4>,
        heads: usize,
        n: usize,
    ) -> Self {
        let (experts, [batch, _, _, tokens]) = (layers.len(), bias.dims());
        let bias = bias.clone().repeat_dim(1, heads * n * experts);
        Self {
            context: Tensor::stack(layers, 1),
            bias: bias.reshape([batch, heads * n, experts, tokens]),
        }
    }
}

/// Whether folding takes fewer multiplications than making keys and values, per query and expert.
pub(super) fn is_cheaper(
    n: usize,
    tokens: usize,
    d_model: usize,
    d_context: usize,
    heads: usize,
) -> bool {
    let prepared = 2 * tokens * d_context * d_model + 2 * n * tokens * d_model;
    let absorbed = 2 * n * d_context * d_model + 2 * n * heads * tokens * d_context;
    absorbed < prepared
}

impl<B: Backend> Attention<B> {
    /// Attends from queries to every expert's context; what [`Attention::forward`] gives for keys
    /// and values of it, for all experts at once.
    ///
    /// # Shapes
    /// - `queries`: `[batch, n, d_model]`
    /// - returns: `[experts * batch, n, d_model]`
    pub(super) fn forward_absorbed(&self, queries: Tensor<B, 3>, to: &Absorbed<B>) -> Tensor<B, 3> {
        let wanted = queries.dtype();
        let [batch, n, d_model] = queries.dims();
        let [_, experts, tokens, d_context] = to.context.dims();
        let heads = self.n_heads;
        let d_head = d_model / heads;
        let scale = (d_head as f64).sqrt().recip();

        // Queries in the space of the context: [heads, batch * n, d_head] x [heads, d_head,
        // d_context].
        let projected =
            apply(&self.query, queries).reshape([batch * n, heads, d_head]).swap_dims(0, 1);
        let key = self.key.weight.val().mul_scalar(scale);
        let key = key.reshape([d_context, heads, d_head]).permute([1, 2, 0]);
        let absorbed = projected
            .matmul(key)
            .reshape([heads, batch, n, d_context])
            .swap_dims(0, 1)
            .reshape([batch, heads * n, d_context]);

        let dtype = absorbed.dtype();
        let context = as_dtype(to.context.clone(), dtype);
        let flat = context.clone().reshape([batch, experts * tokens, d_context]);
        let scores =
            absorbed.matmul(flat.swap_dims(1, 2)).reshape([batch, heads * n, experts, tokens]);
        let weights = self.dropout.forward(softmax(widened(scores) + to.bias.clone(), 3));
        let weights = as_dtype(weights.swap_dims(1, 2), dtype);

        // [batch, experts, heads * n, d_context], then heads first for the values' projection.
        let mixed = weights
            .clone()
            .matmul(context)
            .reshape([batch, experts, heads, n, d_context])
            .permute([2, 1, 0, 3, 4])
            .reshape([heads, experts * batch * n, d_context]);
        let value = self.value.weight.val();
        let value = value.reshape([d_context, heads, d_head]).swap_dims(0, 1);
        let mut attended = mixed.matmul(value);
        if let Some(bias) = &self.value.bias {
            let bias = bias.val().reshape([heads, 1, d_head]);
            attended = match self.dropout.is_active::<B>(&bias.device()) {
                // Probabilities that were dropped took their share of the bias with them.
                true => {
                    let total = weights
                        .sum_dim(3)
                        .reshape([batch, experts, heads, n])
                        .permute([2, 1, 0, 3])
                        .reshape([heads, experts * batch * n, 1]);
                    attended + total.matmul(bias)
                }
                false => attended + bias,
            };
        }
        let joined = attended.swap_dims(0, 1).reshape([experts * batch, n, d_model]);
        as_dtype(self.project(joined), wanted)
    }
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::Tolerance};

    use super::*;
    use crate::nn::{AttentionConfig, WeightInit, padding_bias};

    type B = Flex;

    /// Twin: keys and values made for every expert; biases and padding are not zero.
    #[test]
    fn equals_attention_with_keys_and_values() {
        let device = Default::default();
        let mut init = WeightInit::new(5);
        let attention: Attention<B> =
            AttentionConfig { d_model: 12, d_context: 10, n_heads: 3, dropout: 0.3 }
                .init(&mut init, &device);
        let with_bias = |linear: &burn::nn::Linear<B>, init: &mut WeightInit| burn::nn::Linear {
            bias: Some(init.normal([12], 1.0, &Default::default())),
            ..linear.clone()
        };
        let attention = Attention {
            query: with_bias(&attention.query, &mut init),
            key: with_bias(&attention.key, &mut init),
            value: with_bias(&attention.value, &mut init),
            output: with_bias(&attention.output, &mut init),
            ..attention
        };
        let layers: Vec<Tensor<B, 3>> =
            (0..3).map(|_| init.normal([2, 4, 10], 1.0, &device).val()).collect();
        let queries: Tensor<B, 3> = init.normal([2, 5, 12], 1.0, &device).val();
        let padding = burn::tensor::TensorData::new(
            vec![false, false, true, true, false, false, false, false],
            [2, 4],
        );
        let bias = padding_bias::<B>(Tensor::from_data(padding, &device));
        let expected: Vec<_> = layers
            .iter()
            .map(|layer| {
                let context = attention.key_value(layer.clone());
                attention.forward(queries.clone(), &context, Some(&bias))
            })
            .collect();
        let found = attention.forward_absorbed(queries, &Absorbed::new(layers, &bias, 3, 5));
        found.into_data().assert_approx_eq::<f32>(
            &Tensor::cat(expected, 0).into_data(),
            Tolerance::absolute(1e-5),
        );
    }

    #[test]
    fn pays_for_short_identifiers_and_not_for_many_beams() {
        assert!(is_cheaper(5, 32, 384, 384, 6));
        assert!(is_cheaper(5, 12, 384, 384, 6));
        assert!(!is_cheaper(20, 12, 384, 384, 6));
        assert!(!is_cheaper(5, 3, 384, 384, 6));
    }
}
