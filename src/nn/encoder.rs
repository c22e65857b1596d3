//! A transformer text encoder that hands out every layer's output.

use std::ops::Range;

use burn::{
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::{Bool, Int, Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Attention, AttentionConfig, Dropout, FeedForward, WeightInit, attention::laid_out, padding_bias,
};
use crate::error::{Error, Result};

/// Shape of the text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEncoderConfig {
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

/// What the encoder makes of a batch of queries.
#[derive(Debug, Clone)]
pub struct EncoderOutput<B: Backend> {
    /// `E_1, .., E_S`, each normalised, `[batch, tokens, d_model]`.
    pub layers: Vec<Tensor<B, 3>>,
    /// Scores to add so that padding is not seen, `[batch, 1, 1, tokens]`.
    pub bias: Tensor<B, 4>,
}

/// What the lowest layers make of a batch of queries.
#[derive(Debug, Clone)]
pub struct EncoderPrefix<B: Backend> {
    /// Their outputs, each normalised, `[batch, tokens, d_model]`.
    pub layers: Vec<Tensor<B, 3>>,
    /// What the layer above reads, `[batch, tokens, d_model]`.
    pub hidden: Tensor<B, 3>,
}

/// One pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct EncoderLayer<B: Backend> {
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
pub struct TextEncoder<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    layers: Vec<EncoderLayer<B>>,
    norms: Vec<LayerNorm<B>>,
    dropout: Dropout,
}

impl TextEncoderConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("max_tokens", self.max_tokens),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            ("n_heads", self.n_heads),
            ("n_layers", self.n_layers),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::config(*name, "at least 1", "0", "choose another size"));
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Err(Error::config(
                "n_heads",
                format!("a divisor of d_model = {}", self.d_model),
                self.n_heads.to_string(),
                "change one of the two",
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(
                "dropout",
                "a probability in [0, 1)",
                self.dropout.to_string(),
                "0.1 is usual",
            ));
        }
        Ok(())
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> TextEncoder<B> {
        TextEncoder {
            tokens: init.embedding(self.vocabulary, self.d_model, device),
            positions: init.embedding(self.max_tokens, self.d_model, device),
            layers: (0..self.n_layers).map(|_| EncoderLayer::init(self, init, device)).collect(),
            norms: (0..self.n_layers).map(|_| init.layer_norm(self.d_model, device)).collect(),
            dropout: Dropout::new(self.dropout),
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, f) = (self.d_model, self.d_ff);
        let layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d;
        (self.vocabulary + self.max_tokens) * d + self.n_layers * (layer + 2 * d)
    }
}

impl<B: Backend> EncoderLayer<B> {
    fn init(config: &TextEncoderConfig, init: &mut WeightInit, device: &B::Device) -> Self {
        let TextEncoderConfig { d_model, d_ff, n_heads, dropout, .. } = *config;
        Self {
            attention_norm: init.layer_norm(d_model, device),
            attention: AttentionConfig::new(d_model, n_heads, dropout).init(init, device),
            feed_forward_norm: init.layer_norm(d_model, device),
            feed_forward: FeedForward::init(d_model, d_ff, dropout, init, device),
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

impl<B: Backend> TextEncoder<B> {
    /// Number of attention heads.
    pub fn n_heads(&self) -> usize {
        self.layers.first().map_or(1, |layer| layer.attention.n_heads())
    }

    /// Encodes queries.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, tokens]`
    /// - `padding`, true where there is no token: `[batch, tokens]`
    ///
    /// # Panics
    /// When there are more tokens than `max_tokens`.
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncoderOutput<B> {
        let prefix = self.prefix(0, tokens, padding.clone());
        self.finish(prefix, padding)
    }

    /// Runs the lowest layers only.
    ///
    /// # Shapes
    /// As [`TextEncoder::forward`].
    ///
    /// # Panics
    /// When there are more tokens than `max_tokens`, or fewer than `layers` layers.
    pub fn prefix(
        &self,
        layers: usize,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncoderPrefix<B> {
        let [_, length] = tokens.dims();
        let [max_tokens, _] = self.positions.weight.dims();
        assert!(length <= max_tokens, "{length} tokens exceed max_tokens = {max_tokens}");
        let positions = self.positions.weight.val().narrow(0, 0, length).unsqueeze::<3>();
        let hidden = self.dropout.forward(self.tokens.forward(tokens) + positions);
        let start = EncoderPrefix { layers: Vec::new(), hidden };
        if layers == 0 {
            return start;
        }
        let bias = laid_out(&padding_bias(padding), self.n_heads(), length);
        self.run(0..layers, start, &bias)
    }

    /// Runs the layers above a prefix.
    ///
    /// # Shapes
    /// - `padding`, true where there is no token: `[batch, tokens]`
    pub fn finish(
        &self,
        prefix: EncoderPrefix<B>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncoderOutput<B> {
        let bias = padding_bias(padding);
        let done = prefix.layers.len();
        if done == self.layers.len() {
            return EncoderOutput { layers: prefix.layers, bias };
        }
        let [_, length, _] = prefix.hidden.dims();
        let all = laid_out(&bias, self.n_heads(), length);
        let whole = self.run(done..self.layers.len(), prefix, &all);
        EncoderOutput { layers: whole.layers, bias }
    }

    fn run(
        &self,
        layers: Range<usize>,
        below: EncoderPrefix<B>,
        bias: &Tensor<B, 4>,
    ) -> EncoderPrefix<B> {
        let EncoderPrefix { layers: mut done, mut hidden } = below;
        for (layer, norm) in self.layers[layers.clone()].iter().zip(&self.norms[layers]) {
            hidden = layer.forward(hidden, bias);
            done.push(norm.forward(hidden.clone()));
        }
        EncoderPrefix { layers: done, hidden }
    }

    /// Number of layers S.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Width of the layers.
    pub fn d_model(&self) -> usize {
        self.tokens.weight.dims()[1]
    }

    /// Makes the word embeddings constants of the training.
    pub fn freeze_words(self) -> Self {
        Self { tokens: self.tokens.no_grad(), ..self }
    }

    /// Makes the embeddings and the lowest layers, with the norms of their outputs, constants of the
    /// training.
    pub fn freeze_layers(self, layers: usize) -> Self {
        fn lowest<B: Backend, M: Module<B>>(modules: Vec<M>, count: usize) -> Vec<M> {
            let freeze =
                |(at, module): (usize, M)| if at < count { module.no_grad() } else { module };
            modules.into_iter().enumerate().map(freeze).collect()
        }
        Self {
            tokens: self.tokens.no_grad(),
            positions: self.positions.no_grad(),
            layers: lowest::<B, _>(self.layers, layers),
            norms: lowest::<B, _>(self.norms, layers),
            dropout: self.dropout,
        }
    }
}

impl<B: Backend> EncoderPrefix<B> {
    /// The batch twice, for two passes of different dropout.
    pub fn doubled(self) -> Self {
        let twice = |tensor: Tensor<B, 3>| Tensor::cat(vec![tensor; 2], 0);
        Self { layers: self.layers.into_iter().map(twice).collect(), hidden: twice(self.hidden) }
    }
}

impl<B: Backend> EncoderOutput<B> {
    /// Mean of the last layer over the tokens that are there.
    ///
    /// # Shapes
    /// - returns: `[batch, d_model]`
    pub fn mean_pooled(&self) -> Tensor<B, 2> {
        let last = self.layers.last().expect("an encoder has layers").clone();
        let [batch, tokens, d_model] = last.dims();
        let present = self.bias.clone().equal_elem(0.0).float().reshape([batch, tokens, 1]);
        let count = present.clone().sum_dim(1).clamp_min(1.0);
        (last * present).sum_dim(1).div(count).reshape([batch, d_model])
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::Flex,
        tensor::{TensorData, Tolerance},
    };

    use super::*;

    fn config() -> TextEncoderConfig {
        TextEncoderConfig {
            vocabulary: 20,
            max_tokens: 8,
            d_model: 12,
            d_ff: 16,
            n_heads: 3,
            n_layers: 3,
            dropout: 0.1,
        }
    }

    fn batch(rows: &[(&[i64], usize)]) -> (Tensor<Flex, 2, Int>, Tensor<Flex, 2, Bool>) {
        let width = rows.iter().map(|(row, pad)| row.len() + pad).max().unwrap();
        let mut tokens = Vec::new();
        let mut padding = Vec::new();
        for (row, _) in rows {
            for at in 0..width {
                tokens.push(row.get(at).copied().unwrap_or(0));
                padding.push(at >= row.len());
            }
        }
        let (shape, device) = ([rows.len(), width], Default::default());
        (
            Tensor::from_data(TensorData::new(tokens, shape), &device),
            Tensor::from_data(TensorData::new(padding, shape), &device),
        )
    }

    #[test]
    fn padding_changes_nothing_in_any_layer() {
        let encoder: TextEncoder<Flex> =
            config().init(&mut WeightInit::new(5), &Default::default());
        let (tokens, padding) = batch(&[(&[1, 2, 3], 0)]);
        let alone = encoder.forward(tokens, padding);
        let (tokens, padding) = batch(&[(&[1, 2, 3], 3), (&[4, 5, 6, 7, 8, 9], 0)]);
        let padded = encoder.forward(tokens, padding);
        assert_eq!(alone.layers.len(), 3);
        for (a, b) in alone.layers.iter().zip(&padded.layers) {
            b.clone()
                .slice([0..1, 0..3])
                .into_data()
                .assert_approx_eq::<f32>(&a.to_data(), Tolerance::absolute(1e-5));
        }
        padded
            .mean_pooled()
            .narrow(0, 0, 1)
            .into_data()
            .assert_approx_eq::<f32>(&alone.mean_pooled().into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn the_configuration_counts_its_parameters() {
        let encoder: TextEncoder<Flex> =
            config().init(&mut WeightInit::new(5), &Default::default());
        assert_eq!(encoder.num_params(), config().num_params());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for bad in [
            TextEncoderConfig { n_heads: 5, ..config() },
            TextEncoderConfig { n_layers: 0, ..config() },
            TextEncoderConfig { dropout: 1.0, ..config() },
            TextEncoderConfig { dropout: f64::NAN, ..config() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
