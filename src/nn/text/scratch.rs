//! The encoder that is trained from scratch.

use burn::{
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::{Bool, Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    ClipLayer,
    family::{Family, add_positions, check_sizes, fields, layer_params},
};
use crate::{
    error::{Result, named},
    nn::{Activation, Dropout, WeightInit},
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

/// A pre-norm transformer encoder with learned positions (ours: the paper does not name its text
/// encoder's layout). Every layer's output gets a layer norm of its own before it is handed out,
/// since the fusion reads all of them.
#[derive(Module, Debug)]
pub struct ScratchEncoder<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    layers: Vec<ClipLayer<B>>,
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
            &named!(self, vocabulary, max_tokens, d_model, d_ff, n_heads, n_layers),
            Some((self.d_model, self.n_heads)),
            &named!(self, dropout),
        )
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> ScratchEncoder<B> {
        ScratchEncoder {
            tokens: init.embedding(self.vocabulary, self.d_model, device),
            positions: init.embedding(self.max_tokens, self.d_model, device),
            layers: (0..self.n_layers).map(|_| self.init_layer(init, device)).collect(),
            norms: (0..self.n_layers).map(|_| init.layer_norm(self.d_model, device)).collect(),
            dropout: Dropout::new(self.dropout),
        }
    }

    fn init_layer<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> ClipLayer<B> {
        let (sizes, dropouts) =
            ((self.d_model, self.d_ff, self.n_heads), (self.dropout, self.dropout));
        ClipLayer::init(sizes, dropouts, Activation::Relu, 1e-5, init, device)
            .with_inner_dropout(self.dropout)
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, layer) = (self.d_model, layer_params(self.d_model, self.d_ff));
        let layers = self.n_layers;
        count(&[&[self.vocabulary, d], &[self.max_tokens, d], &[layers, layer], &[layers, 2, d]])
    }
}

impl<B: Backend> Family<B> for ScratchEncoder<B> {
    fields!();

    fn embed_words(&self, words: Tensor<B, 3>, _: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        add_positions(words, &self.positions, &self.dropout)
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.positions.weight.dims()[0])
    }

    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        self.layers[at].forward(hidden, Some(bias))
    }

    fn layer_output(&self, at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.norms[at].forward(hidden)
    }
}
