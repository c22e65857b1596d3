//! The encoder of T5 and mT5.
//!
//! Source: Raffel et al. 2020 (arXiv 1910.10683); the gated blocks are those of version 1.1
//! (Shazeer 2020, arXiv 2002.05202).

use burn::{
    module::Module,
    nn::{Embedding, Linear, RmsNorm, RmsNormConfig},
    tensor::{Bool, Int, Tensor, TensorData, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Pooling,
    family::{Family, check_sizes, fields},
};
use crate::{
    error::{Result, ensure_in, named},
    nn::{
        Activation, Attention, Dropout, WeightInit,
        init::{apply, as_dtype},
    },
    storage::count,
};

/// Shape of a T5 encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct T5Config {
    /// Rows of the table of word embeddings.
    pub vocabulary: usize,
    /// Most tokens of a query; a choice, since positions are relative.
    pub max_tokens: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Width of a head, whatever the width of the layers.
    pub d_kv: usize,
    /// Inner width of the feed-forward blocks.
    pub d_ff: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers S.
    pub n_layers: usize,
    /// Number of classes of distances between tokens.
    pub buckets: usize,
    /// Distance from which on all are in one class.
    pub max_distance: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// Whether the activation gates another linear layer (version 1.1).
    pub gated: bool,
    /// What keeps the norms' divisions from zero.
    pub norm_epsilon: f64,
    /// Dropout everywhere.
    pub dropout: f64,
    /// How one vector of a query is made.
    pub pooling: Pooling,
}

/// The feed-forward block, without biases.
#[derive(Module, Debug)]
pub struct T5FeedForward<B: Backend> {
    inner: Linear<B>,
    gated: Option<Linear<B>>,
    outer: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

/// One pre-norm transformer layer, whose norms divide by the root mean square only.
#[derive(Module, Debug)]
pub struct T5Layer<B: Backend> {
    attention: Attention<B>,
    attention_norm: RmsNorm<B>,
    feed_forward: T5FeedForward<B>,
    feed_forward_norm: RmsNorm<B>,
    dropout: Dropout,
}

/// A pre-norm transformer encoder with relative positions: the score of a key gets a bias by its
/// distance, the same in all layers. What a layer hands out is its output through the norm behind
/// the last layer, so that the last one is what T5 itself hands out.
#[derive(Module, Debug)]
pub struct T5Encoder<B: Backend> {
    tokens: Embedding<B>,
    /// The bias of every class of distances, `[buckets, heads]`.
    distances: Embedding<B>,
    layers: Vec<T5Layer<B>>,
    final_norm: RmsNorm<B>,
    dropout: Dropout,
    max_distance: usize,
    #[module(skip)]
    pooling: Pooling,
}

impl T5Config {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        check_sizes(
            &named!(self, vocabulary, max_tokens, d_model, d_kv, d_ff, n_heads, n_layers),
            None,
            &named!(self, dropout),
        )?;
        let remedy = "T5 has 32 buckets up to a distance of 128";
        ensure_in("buckets", self.buckets as f64, "[4, inf)", remedy)?;
        let distance = format!("({}, inf)", self.buckets / 4);
        ensure_in("max_distance", self.max_distance as f64, &distance, remedy)?;
        ensure_in("norm_epsilon", self.norm_epsilon, "(0, inf)", remedy)
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> T5Encoder<B> {
        T5Encoder {
            tokens: init.embedding(self.vocabulary, self.d_model, device),
            distances: init.embedding(self.buckets, self.n_heads, device),
            layers: (0..self.n_layers).map(|_| self.init_layer(init, device)).collect(),
            final_norm: self.norm(device),
            dropout: Dropout::new(self.dropout),
            max_distance: self.max_distance,
            pooling: self.pooling,
        }
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> RmsNorm<B> {
        RmsNormConfig::new(self.d_model).with_epsilon(self.norm_epsilon).init(device)
    }

    fn init_layer<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> T5Layer<B> {
        let (d, f, inner) = (self.d_model, self.d_ff, self.n_heads * self.d_kv);
        let mut linear = |d_input, d_output| init.linear_without_bias(d_input, d_output, device);
        T5Layer {
            attention: Attention {
                query: linear(d, inner),
                key: linear(d, inner),
                value: linear(d, inner),
                output: linear(inner, d),
                dropout: Dropout::new(self.dropout),
                n_heads: self.n_heads,
            },
            attention_norm: self.norm(device),
            feed_forward: T5FeedForward {
                inner: linear(d, f),
                gated: self.gated.then(|| linear(d, f)),
                outer: linear(f, d),
                dropout: Dropout::new(self.dropout),
                activation: self.activation,
            },
            feed_forward_norm: self.norm(device),
            dropout: Dropout::new(self.dropout),
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, f, heads) = (self.d_model, self.d_ff, self.n_heads);
        let matrices = 2 + usize::from(self.gated);
        let layer = count(&[&[4, d, heads, self.d_kv], &[matrices, d, f], &[2, d]]);
        count(&[&[self.vocabulary, d], &[self.buckets, heads], &[d], &[self.n_layers, layer]])
    }
}

impl<B: Backend> T5FeedForward<B> {
    /// Applies the block.
    ///
    /// # Shapes
    /// - input and output: `[batch, n, d_model]`
    pub fn forward(&self, input: Tensor<B, 3>) -> Tensor<B, 3> {
        let dtype = input.dtype();
        let mut hidden = self.activation.forward(apply(&self.inner, input.clone()));
        if let Some(gated) = &self.gated {
            hidden = hidden * apply(gated, input);
        }
        as_dtype(apply(&self.outer, self.dropout.forward(hidden)), dtype)
    }
}

impl<B: Backend> T5Layer<B> {
    fn n_heads(&self) -> usize {
        self.attention.n_heads()
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, tokens, d_model]`
    /// - `bias`: `[batch, heads, tokens, tokens]`
    pub fn forward(&self, x: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(x.clone());
        let context = self.attention.key_value(normed.clone());
        let attended = self.attention.forward_unscaled(normed, &context, Some(bias));
        let x = x + self.dropout.forward(attended);
        let normed = self.feed_forward_norm.forward(x.clone());
        x + self.dropout.forward(self.feed_forward.forward(normed))
    }
}

/// The class of the distance from a query to a key: half of the classes for keys before and at the
/// query, half for those behind it; of each half, one half for single distances, the other for
/// ranges that grow by a factor.
fn bucket(query: usize, key: usize, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let behind = if key > query { half } else { 0 };
    let distance = query.abs_diff(key);
    let single = half / 2;
    if distance < single {
        return behind + distance;
    }
    // In single precision, as the reference implementation rounds.
    let ratio = (distance as f32 / single as f32).ln();
    let whole = (max_distance as f64 / single as f64).ln() as f32;
    let range = single + (ratio / whole * (half - single) as f32) as usize;
    behind + range.min(half - 1)
}

impl<B: Backend> Family<B> for T5Encoder<B> {
    fields!();

    fn embed_words(&self, words: Tensor<B, 3>, _: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        self.dropout.forward(words)
    }

    fn bias(&self, padding: &Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, _, n] = padding.dims();
        let [buckets, heads] = self.distances.weight.dims();
        let class = |query: usize, key| bucket(query, key, buckets, self.max_distance) as i64;
        let classes: Vec<i64> =
            (0..n).flat_map(|query| (0..n).map(move |key| class(query, key))).collect();
        let classes = TensorData::new(classes, [1, n * n]);
        let classes = Tensor::<B, 2, Int>::from_data(classes, &padding.device());
        let distances = self.distances.forward(classes).swap_dims(1, 2);
        distances.reshape([1, heads, n, n]) + padding.clone()
    }

    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        self.layers[at].forward(hidden, bias)
    }

    fn layer_output(&self, _at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.dropout.forward(self.final_norm.forward(hidden))
    }

    fn hidden_state(&self, at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let is_last = at + 1 == self.layers.len();
        if is_last { self.layer_output(at, hidden) } else { hidden }
    }

    fn pooling(&self) -> Pooling {
        self.pooling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of `_relative_position_bucket` in transformers, of keys before the query.
    #[test]
    fn distances_have_the_classes_of_the_reference() {
        let classes = |buckets, max_distance, distances: &[usize]| -> Vec<usize> {
            distances.iter().map(|&d| bucket(d, 0, buckets, max_distance)).collect()
        };
        let distances = [
            0, 1, 2, 3, 7, 8, 9, 11, 12, 15, 16, 22, 23, 31, 32, 33, 45, 46, 63, 64, 65, 90, 91,
            127, 128, 199,
        ];
        assert_eq!(
            classes(32, 128, &distances),
            [
                0, 1, 2, 3, 7, 8, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 13, 13, 14, 14, 14, 15,
                15, 15, 15
            ]
        );
        assert_eq!(
            classes(8, 16, &distances),
            [0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]
        );
        assert_eq!(bucket(3, 3, 32, 128), 0);
        assert_eq!(bucket(3, 4, 32, 128), 17);
        assert_eq!(bucket(0, 500, 32, 128), 31);
    }
}
