//! The network: text encoder, fusion, identifier decoder.

use burn::{
    module::Module,
    tensor::{Bool, Int, Tensor, backend::Backend},
};

use super::CartConfig;
use crate::{
    error::{Error, Result},
    nn::{
        AlignmentHead, AlignmentInput, Decoder, EncoderOutput, LexicalHead, TextEncoder, WeightInit,
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
        let (wrong, remedy) =
            (found != expected, "build the configuration with CartConfig::for_encoder");
        Error::model("text encoder").expected(expected).found(found).fix_if(wrong, remedy)?;
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
        let guided = self.alignment.as_ref().is_some_and(|config| config.guided);
        let decoder = if guided { decoder.without_opinion() } else { decoder };
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

    /// Queries as vectors of length 1 in the space of the candidates, `[batch, D]`; absent where
    /// the network has no alignment.
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

    /// The decoder.
    pub fn decoder(&self) -> &Decoder<B> {
        &self.decoder
    }

    /// The device that its parameters are on.
    pub fn device(&self) -> B::Device {
        self.decoder.device()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{identifier::LevelSizes, model::Preset, nn::FusionMode};

    fn config() -> CartConfig {
        CartConfig::new(30, LevelSizes::new(vec![4, 3, 2]).unwrap()).with_width(16, 24, 2)
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
        let config = CartConfig::new(30_522, LevelSizes::new(vec![64, 128, 128, 128, 2]).unwrap());
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
