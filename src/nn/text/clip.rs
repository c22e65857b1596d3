//! The text tower of CLIP.
//!
//! Source: Radford et al. 2021 (arXiv 2103.00020).

use burn::{
    module::Module,
    nn::{Embedding, LayerNorm, LayerNormConfig},
    tensor::{Bool, Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Pooling,
    family::{Family, add_positions, check_sizes, fields, layer_params},
};
use crate::{
    error::{Result, named},
    nn::{
        Activation, Attention, AttentionConfig, Dropout, FeedForward, FeedForwardConfig,
        WeightInit, causal_bias,
    },
    storage::count,
};

/// Shape of the text tower of CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipTextConfig {
    /// Rows of the table of word embeddings.
    pub vocabulary: usize,
    /// Most tokens of a query: rows of the table of positions.
    pub max_tokens: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Inner width of the feed-forward blocks.
    pub d_ff: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers S.
    pub n_layers: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// What keeps the norms' divisions from zero.
    pub norm_epsilon: f64,
    /// Dropout of embeddings and residual branches; CLIP has none.
    pub dropout: f64,
    /// Dropout of the attention probabilities.
    pub attention_dropout: f64,
    /// How one vector of a query is made.
    pub pooling: Pooling,
}

/// One transformer layer, with its norms before its blocks or behind them.
#[derive(Module, Debug)]
pub struct ClipLayer<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    feed_forward_norm: LayerNorm<B>,
    dropout: Dropout,
}

/// A pre-norm transformer in which a token sees itself and those before it. What a layer hands out
/// is its output through the norm behind the last layer, so that the last one is what CLIP itself
/// hands out.
#[derive(Module, Debug)]
pub struct ClipTextEncoder<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    layers: Vec<ClipLayer<B>>,
    final_norm: LayerNorm<B>,
    dropout: Dropout,
    #[module(skip)]
    pooling: Pooling,
}

impl ClipTextConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        check_sizes(
            &named!(self, vocabulary, max_tokens, d_model, d_ff, n_heads, n_layers),
            Some((self.d_model, self.n_heads)),
            &named!(self, dropout, attention_dropout),
        )
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(
        &self,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> ClipTextEncoder<B> {
        ClipTextEncoder {
            tokens: init.embedding(self.vocabulary, self.d_model, device),
            positions: init.embedding(self.max_tokens, self.d_model, device),
            layers: (0..self.n_layers).map(|_| self.init_layer(init, device)).collect(),
            final_norm: self.norm(device),
            dropout: Dropout::new(self.dropout),
            pooling: self.pooling,
        }
    }

    fn init_layer<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> ClipLayer<B> {
        let sizes = (self.d_model, self.d_ff, self.n_heads);
        let dropouts = (self.dropout, self.attention_dropout);
        ClipLayer::init(sizes, dropouts, self.activation, self.norm_epsilon, init, device)
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNormConfig::new(self.d_model).with_epsilon(self.norm_epsilon).init(device)
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, layer) = (self.d_model, layer_params(self.d_model, self.d_ff));
        count(&[&[self.vocabulary, d], &[self.max_tokens, d], &[2, d], &[self.n_layers, layer]])
    }
}

impl<B: Backend> ClipLayer<B> {
    /// A layer of width, inner width and number of heads; the dropouts are those of the blocks and
    /// of the attention.
    pub fn init(
        (d_model, d_ff, n_heads): (usize, usize, usize),
        dropouts: (f64, f64),
        activation: Activation,
        norm_epsilon: f64,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> Self {
        let norm = || LayerNormConfig::new(d_model).with_epsilon(norm_epsilon).init(device);
        let (dropout, attention_dropout) = dropouts;
        Self {
            attention: AttentionConfig::new(d_model, n_heads, attention_dropout).init(init, device),
            attention_norm: norm(),
            feed_forward: FeedForwardConfig { activation, ..FeedForwardConfig::new(d_model, d_ff) }
                .init(init, device),
            feed_forward_norm: norm(),
            dropout: Dropout::new(dropout),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, tokens, d_model]`
    /// - `bias`, if any: `[batch, heads or 1, tokens, tokens]`
    pub fn forward(&self, x: Tensor<B, 3>, bias: Option<&Tensor<B, 4>>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(x.clone());
        let context = self.attention.key_value(normed.clone());
        let attended = self.attention.forward(normed, &context, bias);
        let x = x + self.dropout.forward(attended);
        let normed = self.feed_forward_norm.forward(x.clone());
        x + self.dropout.forward(self.feed_forward.forward(normed))
    }

    pub(super) fn with_inner_dropout(self, dropout: f64) -> Self {
        Self { feed_forward: self.feed_forward.with_dropout(dropout), ..self }
    }

    pub(super) fn n_heads(&self) -> usize {
        self.attention.n_heads()
    }

    /// Applies the layer with its norms behind the sums, as BERT does.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, tokens, d_model]`
    /// - `bias`: `[batch, heads or 1, tokens or 1, tokens]`
    pub fn forward_post_norm(&self, x: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        let context = self.attention.key_value(x.clone());
        let attended = self.attention.forward(x.clone(), &context, Some(bias));
        let x = self.attention_norm.forward(x + self.dropout.forward(attended));
        let inner = self.feed_forward.forward(x.clone());
        self.feed_forward_norm.forward(x + self.dropout.forward(inner))
    }
}

impl<B: Backend> Family<B> for ClipTextEncoder<B> {
    fields!();

    fn embed_words(&self, words: Tensor<B, 3>, _: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        add_positions(words, &self.positions, &self.dropout)
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.positions.weight.dims()[0])
    }

    fn bias(&self, padding: &Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, _, _, n] = padding.dims();
        let causal = causal_bias(n, &padding.device());
        // Laid out in full, as `laid_out` does and for its reason.
        let (bias, heads) = (padding.clone() + causal, self.n_heads());
        bias.repeat_dim(1, heads).reshape([batch, heads, n, n])
    }

    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        self.layers[at].forward(hidden, Some(bias))
    }

    fn layer_output(&self, _at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.final_norm.forward(hidden)
    }

    fn pooling(&self) -> Pooling {
        self.pooling
    }
}
