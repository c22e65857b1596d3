//! The network: text encoder, fusion, identifier decoder.

use std::sync::OnceLock;

use burn::{
    module::Module,
    tensor::{Bool, Int, Tensor, backend::Backend},
};

use super::CartConfig;
use crate::{
    error::{Error, Result},
    nn::{
        AlignmentHead, AlignmentInput, Decoder, DecoderState, EncoderOutput, LexicalHead, Memory,
        TextEncoder, WeightInit,
    },
    storage::ensure_held,
};

/// Reads a query and generates the identifier of the candidate it means.
#[derive(Module, Debug)]
pub struct Cart<B: Backend> {
    pub(super) encoder: TextEncoder<B>,
    decoder: Decoder<B>,
    alignment: Option<AlignmentHead<B>>,
}

/// Queries encoded once.
#[derive(Debug, Clone)]
pub struct EncodedQueries<B: Backend> {
    output: EncoderOutput<B>,
    /// Keys and values for the decoder on its device, made when it first steps.
    memory: OnceLock<Memory<B>>,
    /// Queries in the space of the candidates, `[queries, D]`, and the factors of their cosines.
    aligned: Option<(Tensor<B, 2>, Tensor<B, 1>)>,
}

/// Queries in the space of the candidates, as numbers.
#[derive(Debug)]
pub(crate) struct Aligned {
    /// Vectors of length 1, `[queries, D]`.
    pub(crate) queries: Vec<f32>,
    /// Factors of their cosines, `[levels]`.
    pub(crate) scales: Vec<f32>,
}

impl<B: Backend> EncodedQueries<B> {
    /// Number of queries.
    pub fn len(&self) -> usize {
        self.output.bias.dims()[0]
    }

    /// The device they are on.
    pub fn device(&self) -> B::Device {
        self.output.bias.device()
    }

    /// What the encoder made of them.
    pub fn output(&self) -> &EncoderOutput<B> {
        &self.output
    }

    /// Queries as vectors of length 1 in the space of the candidates, `[queries, D]`, and the factors
    /// of their cosines, `[levels]`; absent where the network has no alignment.
    pub fn aligned(&self) -> Option<(&Tensor<B, 2>, &Tensor<B, 1>)> {
        self.aligned.as_ref().map(|(queries, scales)| (queries, scales))
    }

    /// The same as numbers.
    pub(crate) fn host_aligned(&self) -> Option<Aligned> {
        let (queries, scales) = self.aligned()?;
        let queries = queries.to_data().iter::<f32>().collect();
        Some(Aligned { queries, scales: scales.to_data().iter::<f32>().collect() })
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl CartConfig {
    /// Initialises the network from the seed in the configuration; the same on every backend.
    ///
    /// # Errors
    /// As [`CartConfig::validate`].
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<Cart<B>> {
        self.validate()?;
        let mut init = WeightInit::new(self.seed);
        let encoder = self.encoder().init(&mut init, device);
        Ok(self.around(encoder, &mut init, device))
    }

    /// Initialises the decoder from the seed, around a text encoder with weights.
    ///
    /// # Errors
    /// As [`CartConfig::validate`]; [`Error::Model`] for an encoder of another shape than the
    /// configuration's.
    pub fn init_around<B: Backend>(
        &self,
        encoder: TextEncoder<B>,
        device: &B::Device,
    ) -> Result<Cart<B>> {
        self.validate()?;
        let config = self.encoder();
        let describe = |vocabulary, d_model, layers, parameters| {
            format!(
                "{vocabulary} tokens, width {d_model}, {layers} layers, {parameters} parameters"
            )
        };
        let expected =
            describe(config.vocabulary(), config.d_model(), config.n_layers(), config.num_params());
        let found = describe(
            encoder.vocabulary(),
            encoder.d_model(),
            encoder.n_layers(),
            encoder.num_params(),
        );
        if found != expected {
            let remedy = "build the configuration with CartConfig::for_encoder";
            return Err(Error::model("text encoder").expected(expected).found(found).fix(remedy));
        }
        Ok(self.around(encoder, &mut WeightInit::new(self.seed), device))
    }

    /// A network whose weights are loaded next, from so many bytes.
    pub(crate) fn init_empty<B: Backend>(
        &self,
        bytes: usize,
        device: &B::Device,
    ) -> Result<Cart<B>> {
        self.validate()?;
        ensure_held("model", self, || self.num_params().total(), bytes)?;
        let mut init = WeightInit::zeros();
        let encoder = self.encoder().init(&mut init, device);
        Ok(self.around(encoder, &mut init, device))
    }

    fn around<B: Backend>(
        &self,
        encoder: TextEncoder<B>,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> Cart<B> {
        let decoder = self.decoder();
        let (d_query, levels) = (decoder.d_context, self.vocabulary.levels());
        let decoder = decoder.init(init, device);
        let input = AlignmentInput { d_model: d_query, vocabulary: encoder.vocabulary(), levels };
        let alignment = self.alignment.as_ref().map(|config| config.init(input, init, device));
        // Guided, the decoder starts with nothing to add.
        let decoder = match &self.alignment {
            Some(config) if config.guided => decoder.without_opinion(),
            _ => decoder,
        };
        let cart = Cart { encoder, decoder, alignment };
        // Makes the lazily initialised norms exist, so that clones share them.
        cart.num_params();
        cart
    }
}

impl<B: Backend> Cart<B> {
    /// Logits of every level, teacher forced.
    ///
    /// # Shapes
    /// - `tokens`, `padding` (true where there is no token): `[batch, tokens]`
    /// - `identifiers`: `[batch, levels]`
    /// - returns: one `[batch, size of the level]` per level
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
        identifiers: Tensor<B, 2, Int>,
    ) -> Vec<Tensor<B, 2>> {
        let encoded = self.encoder.forward(tokens, padding);
        self.decoder.forward(identifiers, &encoded)
    }

    /// The same from encoded queries.
    ///
    /// # Shapes
    /// As [`Cart::forward`].
    pub fn forward_encoded(
        &self,
        encoded: &EncoderOutput<B>,
        identifiers: Tensor<B, 2, Int>,
    ) -> Vec<Tensor<B, 2>> {
        self.decoder.forward(identifiers, encoded)
    }

    /// The head that compares queries with the candidates' vectors, if there is one.
    pub fn alignment(&self) -> Option<&AlignmentHead<B>> {
        self.alignment.as_ref()
    }

    /// Queries as vectors of length 1 in the space of the candidates, `[batch, D]`; absent where the
    /// network has no alignment.
    ///
    /// # Shapes
    /// - `tokens`, `padding`: what `encoded` was made of, `[batch, tokens]`
    pub fn aligned(
        &self,
        encoded: &EncoderOutput<B>,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> Option<Tensor<B, 2>> {
        let head = self.alignment.as_ref()?;
        let pooled = encoded.pooled();
        Some(head.forward(match head.lexical_head() {
            Some(words) => words.append(pooled, self.encoder.token_embeddings(), tokens, padding),
            None => pooled,
        }))
    }

    /// Attaches a lexical head: the IDF weights of the token embeddings.
    ///
    /// # Errors
    /// [`Error::Model`] for a network whose alignment has no lexical head
    /// ([`AlignmentConfig::words`]) or another weight for it, and for a head of another vocabulary.
    ///
    /// [`AlignmentConfig::words`]: crate::nn::AlignmentConfig::words
    pub fn with_lexical_head(self, words: LexicalHead<B>) -> Result<Self> {
        let describe = |words: Option<&LexicalHead<B>>| match words {
            Some(words) => {
                format!("a head of {} tokens and weight {}", words.vocabulary(), words.weight())
            }
            None => "no lexical head".to_string(),
        };
        let expected = describe(self.alignment.as_ref().and_then(AlignmentHead::lexical_head));
        let found = describe(Some(&words));
        match self.alignment {
            Some(head) if expected == found => {
                Ok(Self { alignment: Some(head.with_lexical_head(words)), ..self })
            }
            _ => Err(Error::model("lexical head of the alignment")
                .expected(expected)
                .found(found)
                .fix("give AlignmentConfig the weight that the IDF weights were fitted with")),
        }
    }

    /// The text encoder.
    pub fn encoder(&self) -> &TextEncoder<B> {
        &self.encoder
    }

    /// Changes the text encoder.
    pub fn map_encoder(self, change: impl FnOnce(TextEncoder<B>) -> TextEncoder<B>) -> Self {
        Self { encoder: change(self.encoder), ..self }
    }

    /// Every layer's output for queries.
    ///
    /// # Shapes
    /// As [`Cart::forward`].
    pub fn encode_layers(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncoderOutput<B> {
        self.encoder.forward(tokens, padding)
    }

    /// Encodes queries once for any number of decoder steps.
    ///
    /// # Shapes
    /// As [`Cart::forward`].
    pub fn encode(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> EncodedQueries<B> {
        let output = self.encoder.forward(tokens.clone(), padding.clone());
        let aligned = self.aligned(&output, tokens, padding);
        let aligned = aligned.zip(self.alignment.as_ref().map(AlignmentHead::scales));
        EncodedQueries { output, memory: OnceLock::new(), aligned }
    }

    /// Encodes queries whose words are vectors, with their vectors of length 1 in the space of the candidates where the
    /// network has an alignment.
    ///
    /// # Shapes
    /// - `words`: `[batch, tokens, d_model]`, `aligned`: `[batch, D]`
    pub fn encode_words(
        &self,
        words: Tensor<B, 3>,
        aligned: Option<Tensor<B, 2>>,
    ) -> EncodedQueries<B> {
        let output = self.encoder.forward_words(words);
        let aligned = aligned.zip(self.alignment.as_ref().map(AlignmentHead::scales));
        EncodedQueries { output, memory: OnceLock::new(), aligned }
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder<B> {
        &self.decoder
    }

    /// The decoder's state before the first token.
    pub fn start(&self) -> DecoderState<B> {
        self.decoder.start()
    }

    /// Logits of the next level for every beam; see [`Decoder::step`].
    ///
    /// # Shapes
    /// - `tokens`: `[queries * width]`, absent at the first level
    /// - returns: `[queries * width, size of the level]`
    pub fn step(
        &self,
        encoded: &EncodedQueries<B>,
        tokens: Option<Tensor<B, 1, Int>>,
        state: &mut DecoderState<B>,
    ) -> Tensor<B, 2> {
        // Not within `get_or_init`: a thread that waits in there for others could come here again.
        if encoded.memory.get().is_none() {
            let _ = encoded.memory.set(self.decoder.memory(&encoded.output));
        }
        let memory = encoded.memory.get().expect("set by this thread or another");
        self.decoder.step(encoded.len(), tokens, memory, state)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{identifier::Vocabulary, model::Preset, nn::FusionMode};

    fn config() -> CartConfig {
        CartConfig::new(30, Vocabulary::new(vec![4, 3, 2]).unwrap()).with_width(16, 24, 2)
    }

    #[test]
    fn the_configuration_counts_what_the_network_has() {
        for fusion in [FusionMode::None, FusionMode::Coarse, FusionMode::Fine, FusionMode::Both] {
            for query_start in [false, true] {
                let config = config().with_fusion(fusion).with_layers(3, 1);
                let config = config.with_query_start(query_start);
                let cart = config.init::<Flex>(&Default::default()).unwrap();
                assert_eq!(cart.num_params(), config.num_params().total());
            }
        }
    }

    #[test]
    fn presets_have_the_sizes_they_say() {
        let config = CartConfig::new(30_522, Vocabulary::new(vec![64, 128, 128, 128, 2]).unwrap());
        let millions = |preset| config.clone().with_preset(preset).num_params().total() / 1_000_000;
        assert_eq!(millions(Preset::Tiny), 5);
        assert_eq!(millions(Preset::Small), 43);
        assert!(millions(Preset::Base) > 150);
    }

    #[test]
    fn a_seed_fixes_the_weights() {
        let weights = |seed| {
            let cart = config().with_seed(seed).init::<Flex>(&Default::default()).unwrap();
            let tokens = Tensor::from_ints([[1, 2]], &Default::default());
            let padding = Tensor::from_data([[false, false]], &Default::default());
            let ids = Tensor::from_ints([[1, 2, 0]], &Default::default());
            cart.forward(tokens, padding, ids)[2].to_data()
        };
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }

    #[test]
    fn zero_layers_are_refused() {
        assert!(config().with_layers(2, 0).init::<Flex>(&Default::default()).is_err());
        assert!(config().with_layers(0, 2).init::<Flex>(&Default::default()).is_err());
    }
}
