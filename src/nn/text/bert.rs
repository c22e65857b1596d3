//! BERT and its kin: MiniLM, RoBERTa, XLM-RoBERTa.
//!
//! Source: Devlin et al. 2019 (arXiv 1810.04805), Liu et al. 2019 (arXiv 1907.11692).

use burn::{
    module::Module,
    nn::{Embedding, LayerNorm, LayerNormConfig},
    tensor::{Bool, Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    ClipLayer, Pooling,
    family::{Family, check_sizes, fields, layer_params},
};
use crate::{
    error::{Error, Result, named},
    nn::{Activation, Dropout, WeightInit},
    storage::count,
};

/// Shape of a BERT encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Rows of the table of word embeddings.
    pub vocabulary: usize,
    /// Rows of the table of positions.
    pub positions: usize,
    /// Row of the first token's position: 0 for BERT. For RoBERTa it is the number of the padding
    /// token plus 1, and positions count the tokens that are there.
    pub first_position: usize,
    /// Rows of the table of token types, of which the first is used; 0 for none.
    pub token_types: usize,
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
    /// Dropout of embeddings and residual branches.
    pub dropout: f64,
    /// Dropout of the attention probabilities.
    pub attention_dropout: f64,
    /// How one vector of a query is made.
    pub pooling: Pooling,
}

/// A post-norm transformer encoder with learned positions. What a layer hands out is its output,
/// which its last norm has normalised.
#[derive(Module, Debug)]
pub struct BertEncoder<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    token_types: Option<Embedding<B>>,
    norm: LayerNorm<B>,
    layers: Vec<ClipLayer<B>>,
    dropout: Dropout,
    first_position: usize,
    #[module(skip)]
    pooling: Pooling,
}

impl BertConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        check_sizes(
            &named!(self, vocabulary, positions, d_model, d_ff, n_heads, n_layers),
            Some((self.d_model, self.n_heads)),
            &named!(self, dropout, attention_dropout),
        )?;
        Error::config("first_position")
            .expected(format!("a row of the table of {} positions", self.positions))
            .found(self.first_position.to_string())
            .fix_if(self.first_position >= self.positions, "it is 0 for BERT, 2 for RoBERTa")
    }

    /// Most tokens of a query.
    pub fn max_tokens(&self) -> usize {
        self.positions.saturating_sub(self.first_position)
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> BertEncoder<B> {
        let d = self.d_model;
        BertEncoder {
            tokens: init.embedding(self.vocabulary, d, device),
            positions: init.embedding(self.positions, d, device),
            token_types: (self.token_types > 0)
                .then(|| init.embedding(self.token_types, d, device)),
            norm: self.norm(device),
            layers: (0..self.n_layers).map(|_| self.init_layer(init, device)).collect(),
            dropout: Dropout::new(self.dropout),
            first_position: self.first_position,
            pooling: self.pooling,
        }
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNormConfig::new(self.d_model).with_epsilon(self.norm_epsilon).init(device)
    }

    fn init_layer<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> ClipLayer<B> {
        let sizes = (self.d_model, self.d_ff, self.n_heads);
        let dropouts = (self.dropout, self.attention_dropout);
        ClipLayer::init(sizes, dropouts, self.activation, self.norm_epsilon, init, device)
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, layer) = (self.d_model, layer_params(self.d_model, self.d_ff));
        let rows = count(&[&[self.vocabulary], &[self.positions], &[self.token_types], &[2]]);
        count(&[&[rows, d], &[self.n_layers, layer]])
    }
}

impl<B: Backend> BertEncoder<B> {
    /// Rows of the table of positions.
    ///
    /// # Shapes
    /// - returns: `[batch or 1, tokens, d_model]`
    fn positions(&self, padding: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        let [_, length] = padding.dims();
        let table = &self.positions;
        if self.first_position == 0 {
            return table.weight.val().narrow(0, 0, length).unsqueeze::<3>();
        }
        // Counts the tokens that are there; padding has the row below the first.
        let present = padding.clone().bool_not().int();
        let number = present.clone().cumsum(1) * present;
        table.forward(number.add_scalar(self.first_position as i64 - 1))
    }
}

impl<B: Backend> Family<B> for BertEncoder<B> {
    fields!();

    fn embed_words(&self, words: Tensor<B, 3>, padding: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        let [_, length, _] = words.dims();
        let max_tokens = Family::<B>::max_tokens(self).expect("it has positions");
        assert!(length <= max_tokens, "{length} tokens exceed max_tokens = {max_tokens}");
        let mut around = self.positions(padding);
        if let Some(types) = &self.token_types {
            around = around + types.weight.val().narrow(0, 0, 1).unsqueeze::<3>();
        }
        self.dropout.forward(self.norm.forward(words + around))
    }

    fn max_tokens(&self) -> Option<usize> {
        Some(self.positions.weight.dims()[0] - self.first_position)
    }

    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        self.layers[at].forward_post_norm(hidden, bias)
    }

    fn pooling(&self) -> Pooling {
        self.pooling
    }
}
