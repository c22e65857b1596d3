//! The encoder that is trained from scratch.

use burn::{
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::{Bool, Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::family::{Family, check_sizes, freeze_lowest, layer_params};
use crate::{
    error::Result,
    nn::{
        Attention, AttentionConfig, Dropout, FeedForward, FeedForwardConfig, WeightInit,
        attention::laid_out,
    },
    storage::count,
};

/// Shape of a text encoder that is trained from scratch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchEncoderConfig {
    /// Number of tokens of the tokenizer.
    pub vocabulary: usize,
    /// Most tokens of a query; longer ones are cut by the tokenizer.
    pub max_tokens: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Inner width of the feed-forward blocks.
    pub d_ff: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers S.
    pub n_layers: usize,
    /// Dropout of embeddings, probabilities and residual branches.
    pub dropout: f64,
}

/// One pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct ScratchLayer<B: Backend> {
    attention_norm: LayerNorm<B>,
    attention: Attention<B>,
    feed_forward_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    dropout: Dropout,
}

/// A pre-norm transformer encoder with learned positions (ours: the paper does not name its text
/// encoder's layout). Every layer's output gets a layer norm of its own before it is handed out,
/// since the fusion reads all of them.
#[derive(Module, Debug)]
pub struct ScratchEncoder<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    layers: Vec<ScratchLayer<B>>,
    norms: Vec<LayerNorm<B>>,
    dropout: Dropout,
}

impl ScratchEncoderConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        check_sizes(
            &[
                ("vocabulary", self.vocabulary),
                ("max_tokens", self.max_tokens),
                ("d_model", self.d_model),
                ("d_ff", self.d_ff),
                ("n_heads", self.n_heads),
                ("n_layers", self.n_layers),
            ],
            Some((self.d_model, self.n_heads)),
            &[("dropout", self.dropout)],
        )
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> ScratchEncoder<B> {
        ScratchEncoder {
            tokens: init.embedding(self.vocabulary, self.d_model, device),
            positions: init.embedding(self.max_tokens, self.d_model, device),
            layers: (0..self.n_layers).map(|_| ScratchLayer::init(self, init, device)).collect(),
            norms: (0..self.n_layers).map(|_| init.layer_norm(self.d_model, device)).collect(),
            dropout: Dropout::new(self.dropout),
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, layer) = (self.d_model, layer_params(self.d_model, self.d_ff));
        let layers = self.n_layers;
        count(&[&[self.vocabulary, d], &[self.max_tokens, d], &[layers, layer], &[layers, 2, d]])
    }
}

impl<B: Backend> ScratchLayer<B> {
    fn init(config: &ScratchEncoderConfig, init: &mut WeightInit, device: &B::Device) -> Self {
        let ScratchEncoderConfig { d_model, d_ff, n_heads, dropout, .. } = *config;
        Self {
            attention_norm: init.layer_norm(d_model, device),
            attention: AttentionConfig::new(d_model, n_heads, dropout).init(init, device),
            feed_forward_norm: init.layer_norm(d_model, device),
            feed_forward: FeedForwardConfig { dropout, ..FeedForwardConfig::new(d_model, d_ff) }
                .init(init, device),
            dropout: Dropout::new(dropout),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, tokens, d_model]`
    /// - `bias`: `[batch, heads or 1, tokens or 1, tokens]`
    pub fn forward(&self, x: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(x.clone());
        let context = self.attention.key_value(normed.clone());
        let attended = self.attention.forward(normed, &context, Some(bias));
        let x = x + self.dropout.forward(attended);
        let normed = self.feed_forward_norm.forward(x.clone());
        x + self.dropout.forward(self.feed_forward.forward(normed))
    }
}

impl<B: Backend> Family<B> for ScratchEncoder<B> {
    fn embed_words(&self, words: Tensor<B, 3>, _: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        let [_, length, _] = words.dims();
        let [max_tokens, _] = self.positions.weight.dims();
        assert!(length <= max_tokens, "{length} tokens exceed max_tokens = {max_tokens}");
        let positions = self.positions.weight.val().narrow(0, 0, length).unsqueeze::<3>();
        self.dropout.forward(words + positions)
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.positions.weight.dims()[0])
    }

    fn bias(&self, padding: &Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, _, length] = padding.dims();
        laid_out(padding, self.n_heads(), length)
    }

    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        self.layers[at].forward(hidden, bias)
    }

    fn layer_output(&self, at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.norms[at].forward(hidden)
    }

    fn n_layers(&self) -> usize {
        self.layers.len()
    }

    fn n_heads(&self) -> usize {
        self.layers.first().map_or(1, |layer| layer.attention.n_heads())
    }

    fn tokens(&self) -> &Embedding<B> {
        &self.tokens
    }

    fn freeze_token_embeddings(self) -> Self {
        Self { tokens: self.tokens.no_grad(), ..self }
    }

    fn freeze_layers(self, layers: usize) -> Self {
        Self {
            tokens: self.tokens.no_grad(),
            positions: self.positions.no_grad(),
            layers: freeze_lowest::<B, _>(self.layers, layers),
            norms: freeze_lowest::<B, _>(self.norms, layers),
            dropout: self.dropout,
        }
    }
}
