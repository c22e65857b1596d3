//! Text encoders that hand out every layer's output, of several families.

mod bert;
mod clip;
mod config;
pub(crate) mod family;
mod output;
mod scratch;
mod t5;

pub use bert::{BertConfig, BertEncoder};
use burn::{
    module::Module,
    tensor::{Bool, Int, Tensor, backend::Backend},
};
pub use clip::{ClipLayer, ClipTextConfig, ClipTextEncoder};
pub use config::TextEncoderConfig;
pub(super) use family::layer_params;
use family::{Family, FreezeLowest, each, map_each};
pub use output::{EncoderOutput, EncoderPrefix, Pooling};
pub use scratch::{ScratchEncoder, ScratchEncoderConfig};
pub use t5::{T5Config, T5Encoder, T5FeedForward, T5Layer};

use super::padding_bias;

/// A text encoder that hands out every layer's output.
///
/// | family | layer i hands out |
/// |---|---|
/// | scratch | its output through a norm of its own |
/// | bert | its output, which the layer's last norm has normalised |
/// | t5, clip | its output through the norm behind the last layer, which all share |
///
/// The last one is the reference implementation's `last_hidden_state`.
#[derive(Module, Debug)]
pub enum TextEncoder<B: Backend> {
    /// Trained from scratch.
    Scratch(ScratchEncoder<B>),
    /// BERT and its kin.
    Bert(BertEncoder<B>),
    /// The encoder of T5.
    T5(T5Encoder<B>),
    /// The text tower of CLIP.
    Clip(ClipTextEncoder<B>),
}

impl<B: Backend> TextEncoder<B> {
    /// Encodes queries.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, tokens]`
    /// - `padding`, true where there is no token: `[batch, tokens]`
    ///
    /// # Panics
    /// When there are more tokens than the encoder has positions for.
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncoderOutput<B> {
        let prefix = self.prefix(0, tokens, padding.clone());
        self.finish(prefix, padding)
    }

    /// Encodes vectors in the places of the words' embeddings: what a map makes of a query that is
    /// no text.
    ///
    /// # Shapes
    /// - `words`: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// When there are more tokens than the encoder has positions for.
    pub fn forward_words(&self, words: Tensor<B, 3>) -> EncoderOutput<B> {
        let ([batch, tokens, _], device) = (words.dims(), words.device());
        let padding = Tensor::<B, 2, Int>::zeros([batch, tokens], &device).equal_elem(1);
        let hidden = each!(TextEncoder, self, encoder => encoder.embed_words(words, &padding));
        self.finish(EncoderPrefix { layers: Vec::new(), hidden }, padding)
    }

    /// Runs the lowest layers only.
    ///
    /// # Shapes
    /// As [`TextEncoder::forward`].
    ///
    /// # Panics
    /// When there are more tokens than positions, or fewer than `layers` layers.
    pub fn prefix(
        &self,
        layers: usize,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncoderPrefix<B> {
        let hidden = each!(TextEncoder, self, encoder => encoder.embed(tokens, &padding));
        let start = EncoderPrefix { layers: Vec::new(), hidden };
        if layers == 0 { start } else { self.run(layers, start, &padding_bias(padding)) }
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
        let whole = if prefix.layers.len() < self.n_layers() {
            self.run(self.n_layers(), prefix, &bias)
        } else {
            prefix
        };
        EncoderOutput { layers: whole.layers, bias, pooling: self.pooling() }
    }

    /// Runs the layers from a prefix to number `to`; `padding` is `[batch, 1, 1, tokens]`.
    fn run(&self, to: usize, below: EncoderPrefix<B>, padding: &Tensor<B, 4>) -> EncoderPrefix<B> {
        let EncoderPrefix { mut layers, mut hidden } = below;
        each!(TextEncoder, self, encoder => {
            let bias = encoder.bias(padding);
            for at in layers.len()..to {
                hidden = encoder.layer(at, hidden, &bias);
                layers.push(encoder.layer_output(at, hidden.clone()));
            }
        });
        EncoderPrefix { layers, hidden }
    }

    /// The hidden states that the reference implementation (`transformers`, with
    /// `output_hidden_states`) shows behind each layer: not always what the layers hand out.
    ///
    /// # Shapes
    /// As [`TextEncoder::forward`]; returns `[batch, tokens, d_model]` each.
    ///
    /// # Panics
    /// When there are more tokens than the encoder has positions for.
    pub fn hidden_states(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> Vec<Tensor<B, 3>> {
        each!(TextEncoder, self, encoder => {
            let mut hidden = encoder.embed(tokens, &padding);
            let bias = encoder.bias(&padding_bias(padding));
            let layers = (0..encoder.n_layers()).map(|at| {
                hidden = encoder.layer(at, hidden.clone(), &bias);
                encoder.hidden_state(at, hidden.clone())
            });
            layers.collect()
        })
    }

    /// Number of layers S.
    pub fn n_layers(&self) -> usize {
        each!(TextEncoder, self, encoder => encoder.n_layers())
    }

    /// The longest text it has positions for, in tokens; none for families that take any length
    /// (T5).
    pub fn max_tokens(&self) -> Option<usize> {
        each!(TextEncoder, self, encoder => encoder.max_tokens())
    }

    /// Number of attention heads.
    pub fn n_heads(&self) -> usize {
        each!(TextEncoder, self, encoder => encoder.n_heads())
    }

    /// Number of tokens it has embeddings for.
    pub fn vocabulary(&self) -> usize {
        each!(TextEncoder, self, encoder => encoder.tokens().weight.dims()[0])
    }

    /// The table of token embeddings, `[vocabulary, d_model]`.
    pub fn token_embeddings(&self) -> Tensor<B, 2> {
        each!(TextEncoder, self, encoder => encoder.tokens().weight.val())
    }

    /// Width of the layers.
    pub fn d_model(&self) -> usize {
        each!(TextEncoder, self, encoder => encoder.tokens().weight.dims()[1])
    }

    /// How one vector of a query is made.
    pub fn pooling(&self) -> Pooling {
        each!(TextEncoder, self, encoder => encoder.pooling())
    }

    /// The family's name.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Scratch(_) => "scratch",
            Self::Bert(_) => "bert",
            Self::T5(_) => "t5",
            Self::Clip(_) => "clip",
        }
    }

    /// Makes the token embeddings constants of the training.
    pub fn freeze_token_embeddings(self) -> Self {
        map_each!(TextEncoder => TextEncoder, self, encoder => encoder.freeze_token_embeddings())
    }

    /// Makes the embeddings and the lowest layers, with the norms of their outputs, constants of
    /// the training.
    ///
    /// A norm or a table that all layers share is frozen with the lowest layer.
    pub fn freeze_layers(self, layers: usize) -> Self {
        self.map(&mut FreezeLowest { count: layers, path: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::families;
