//! What a text encoder is tuned on.

use burn::tensor::backend::Backend;

use crate::{
    align::{IdfWeights, TextEmbedder, TextSpaceConfig},
    data::{ItemCaption, TextTokenizer},
    features::Features,
    nn::TextEncoder,
};

/// What an encoder is tuned on.
#[derive(Debug, Clone, Copy)]
pub struct TuningData<'a> {
    /// The encoder's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Training captions; their items are rows of `items`.
    pub captions: &'a [ItemCaption],
    /// Features of the candidates, `[N, D]`.
    pub items: &'a Features,
    /// How the vectors of the candidates are made.
    pub space: &'a TextSpaceConfig,
    /// IDF weights, if a text's vector has a lexical part.
    pub idf_weights: Option<&'a IdfWeights>,
}

impl TuningData<'_> {
    /// Makes vectors of texts with an encoder.
    pub(super) fn embedder<'a, B: Backend>(
        &'a self,
        encoder: &'a TextEncoder<B>,
        device: &B::Device,
    ) -> TextEmbedder<'a, B> {
        let lexical_head = self.idf_weights.map(|weights| weights.head(device));
        TextEmbedder { encoder, tokenizer: self.tokenizer, lexical_head }
    }
}
