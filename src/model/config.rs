//! Shape of the network, with presets.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, ensure_in},
    identifier::LevelSizes,
    nn::{
        AlignmentConfig, AlignmentInput, DecoderConfig, FusionMode, ScratchEncoderConfig,
        TextEncoderConfig,
    },
    storage::count,
};

/// Sizes to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// d = 128, 2 + 2 layers: minutes on a laptop.
    Tiny,
    /// d = 384, 6 + 4 layers: the size of a MiniLM encoder.
    Small,
    /// d = 768, 12 + 6 layers: the size of a BERT-base encoder.
    Base,
}

/// Shape of the network.
///
/// # Example
/// ```
/// use cart_retrieval::{identifier::LevelSizes, model::{CartConfig, Preset}};
/// let vocabulary = LevelSizes::new(vec![32, 64, 64, 2])?;
/// let config = CartConfig::new(2000, vocabulary).with_preset(Preset::Tiny).with_dropout(0.2);
/// println!("{}", config.num_params());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CartConfig {
    /// Number of tokens of the text tokenizer.
    pub text_vocabulary: usize,
    /// Sizes of the identifier's levels.
    pub vocabulary: LevelSizes,
    /// Most tokens of a query.
    pub max_tokens: usize,
    /// Width of all layers; with a text encoder of its own, of the decoder's.
    pub d_model: usize,
    /// Inner width of the feed-forward blocks.
    pub d_ff: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of encoder layers S.
    pub encoder_layers: usize,
    /// Number of decoder layers.
    pub decoder_layers: usize,
    /// Which fusions are on.
    pub fusion: FusionMode,
    /// Dropout everywhere.
    pub dropout: f64,
    /// Whether the decoder starts from the query: from its learned start vector plus a linear map
    /// of the pooled query, which is zero at first. An alignment loss then teaches the same vector
    /// where the candidates lie. Ours, off unless asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub query_start: bool,
    /// Seed of the initial weights.
    pub seed: u64,
    /// The text encoder, if it is not one from scratch of the sizes above. Its vocabulary and its
    /// number of layers must be those above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<TextEncoderConfig>,
    /// How queries are compared with the candidates' vectors, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentConfig>,
}

impl CartConfig {
    /// The tiny preset for these vocabularies.
    pub fn new(text_vocabulary: usize, vocabulary: LevelSizes) -> Self {
        Self {
            text_vocabulary,
            vocabulary,
            max_tokens: 64,
            d_model: 128,
            d_ff: 256,
            n_heads: 4,
            encoder_layers: 2,
            decoder_layers: 2,
            fusion: FusionMode::Both,
            dropout: 0.1,
            query_start: false,
            seed: 0,
            text_encoder: None,
            alignment: None,
        }
    }

    /// Around a text encoder, a pretrained one as a rule, with a decoder of its width.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::{identifier::LevelSizes, model::CartConfig,
    ///     expert::ScratchEncoderConfig};
    /// let encoder = ScratchEncoderConfig {
    ///     vocabulary: 100, max_tokens: 16, d_model: 32, d_ff: 64, n_heads: 4, n_layers: 3,
    ///     dropout: 0.1,
    /// };
    /// let config = CartConfig::for_encoder(encoder, LevelSizes::new(vec![4, 8, 2])?);
    /// assert_eq!((config.decoder().d_context, config.encoder_layers), (32, 3));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn for_encoder(encoder: impl Into<TextEncoderConfig>, vocabulary: LevelSizes) -> Self {
        let encoder = encoder.into();
        Self {
            max_tokens: encoder.max_tokens(),
            d_model: encoder.d_model(),
            d_ff: encoder.d_ff(),
            n_heads: encoder.n_heads(),
            encoder_layers: encoder.n_layers(),
            ..Self::new(encoder.vocabulary(), vocabulary)
        }
        .with_text_encoder(encoder)
    }

    fn with_text_encoder(self, encoder: TextEncoderConfig) -> Self {
        Self { text_encoder: Some(encoder), ..self }
    }

    /// Compares queries with the candidates' vectors.
    pub fn with_alignment(self, alignment: AlignmentConfig) -> Self {
        Self { alignment: Some(alignment), ..self }
    }

    /// Takes the sizes of a preset.
    pub fn with_preset(self, preset: Preset) -> Self {
        let (d_model, d_ff, n_heads, encoder_layers, decoder_layers) = match preset {
            Preset::Tiny => (128, 256, 4, 2, 2),
            Preset::Small => (384, 1536, 12, 6, 4),
            Preset::Base => (768, 3072, 12, 12, 6),
        };
        Self { d_model, d_ff, n_heads, encoder_layers, decoder_layers, ..self }
    }

    /// Sets which fusions are on.
    pub fn with_fusion(self, fusion: FusionMode) -> Self {
        Self { fusion, ..self }
    }

    /// Sets the dropout.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets whether the decoder starts from the query.
    pub fn with_query_start(self, query_start: bool) -> Self {
        Self { query_start, ..self }
    }

    /// Sets the width, the inner width and the number of heads.
    pub fn with_width(self, d_model: usize, d_ff: usize, n_heads: usize) -> Self {
        Self { d_model, d_ff, n_heads, ..self }
    }

    /// Sets the number of encoder and decoder layers.
    pub fn with_layers(self, encoder_layers: usize, decoder_layers: usize) -> Self {
        Self { encoder_layers, decoder_layers, ..self }
    }

    /// Sets the number of decoder layers.
    pub fn with_decoder_layers(self, decoder_layers: usize) -> Self {
        Self { decoder_layers, ..self }
    }

    /// Sets the most tokens of a query.
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Sets the seed of the initial weights.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] naming the one that does not.
    pub fn validate(&self) -> Result<()> {
        self.encoder().validate()?;
        let layers = self.decoder_layers as f64;
        ensure_in("decoder_layers", layers, "[1, inf)", "2 to 6 are usual")?;
        if let Some(alignment) = &self.alignment {
            alignment.validate(self.vocabulary.levels())?;
        }
        match &self.text_encoder {
            Some(encoder) => self.validate_around(encoder),
            None => Ok(()),
        }
    }

    /// Checks that the sizes fit a text encoder with sizes of its own.
    fn validate_around(&self, encoder: &TextEncoderConfig) -> Result<()> {
        // The decoder's own sizes, which an encoder from scratch would have shared.
        self.scratch().validate()?;
        let sizes = [
            ("text_vocabulary", "", self.text_vocabulary, encoder.vocabulary()),
            ("encoder_layers", "", self.encoder_layers, encoder.n_layers()),
            ("max_tokens", "at most ", self.max_tokens, encoder.max_tokens()),
        ];
        for (name, at_most, found, size) in sizes {
            if found > size || found < size && at_most.is_empty() {
                return Err(Error::config(name)
                    .expected(format!("{at_most}the text encoder's {size}"))
                    .found(found.to_string())
                    .fix("take the sizes of the text encoder: CartConfig::for_encoder does"));
            }
        }
        Ok(())
    }

    /// Shape of the text encoder.
    pub fn encoder(&self) -> TextEncoderConfig {
        self.text_encoder.clone().unwrap_or_else(|| self.scratch().into())
    }

    fn scratch(&self) -> ScratchEncoderConfig {
        ScratchEncoderConfig {
            vocabulary: self.text_vocabulary,
            max_tokens: self.max_tokens,
            d_model: self.d_model,
            d_ff: self.d_ff,
            n_heads: self.n_heads,
            n_layers: self.encoder_layers,
            dropout: self.dropout,
        }
    }

    /// Shape of the decoder.
    pub fn decoder(&self) -> DecoderConfig {
        DecoderConfig {
            vocabulary: self.vocabulary.clone(),
            d_model: self.d_model,
            d_context: self.text_encoder.as_ref().map_or(self.d_model, |text| text.d_model()),
            d_ff: self.d_ff,
            n_heads: self.n_heads,
            n_layers: self.decoder_layers,
            experts: self.encoder_layers,
            fusion: self.fusion,
            dropout: self.dropout,
            query_start: self.query_start,
        }
    }

    /// Number of parameters by part, without building the network.
    pub fn num_params(&self) -> ParameterCount {
        let decoder = self.decoder();
        let alignment = self.alignment.as_ref().map_or(0, |alignment| {
            alignment.num_params(AlignmentInput {
                d_model: decoder.d_context,
                vocabulary: self.encoder().vocabulary(),
                levels: self.vocabulary.levels(),
            })
        });
        ParameterCount {
            alignment,
            encoder: self.encoder().num_params(),
            fusion: decoder.fusion_params(),
            vocabulary: decoder.vocabulary_params(),
            decoder: (decoder.num_params())
                .saturating_sub(decoder.fusion_params())
                .saturating_sub(decoder.vocabulary_params()),
        }
    }
}

/// Number of parameters by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterCount {
    /// The text encoder, embeddings included.
    pub encoder: usize,
    /// Self-attention, feed-forward, norms and positions of the decoder.
    pub decoder: usize,
    /// Cross-attentions and gates.
    pub fusion: usize,
    /// Embeddings and heads of the identifier's levels.
    pub vocabulary: usize,
    /// The map of queries to the space of the candidates.
    #[serde(default)]
    pub alignment: usize,
}

impl ParameterCount {
    /// All parameters.
    pub fn total(self) -> usize {
        let Self { encoder, decoder, fusion, vocabulary, alignment } = self;
        count(&[&[encoder], &[decoder], &[fusion], &[vocabulary], &[alignment]])
    }
}

impl fmt::Display for ParameterCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = |count: usize| count as f64 / 1e6;
        write!(
            f,
            "{:.2} M parameters (encoder {:.2}, decoder {:.2}, fusion {:.2}, identifier levels {:.2})",
            millions(self.total()),
            millions(self.encoder),
            millions(self.decoder),
            millions(self.fusion),
            millions(self.vocabulary)
        )
    }
}
