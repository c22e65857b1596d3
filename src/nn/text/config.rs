//! The shape of a text encoder of any family.

use burn::tensor::backend::Backend;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{BertConfig, ClipTextConfig, Pooling, ScratchEncoderConfig, T5Config, TextEncoder};
use crate::{error::Result, nn::WeightInit};

/// The shape of a text encoder of any family.
///
/// Written down, the key `family` names it; without that key it is `scratch`.
///
/// # Example
/// ```
/// use cart_retrieval::nn::{ScratchEncoderConfig, TextEncoderConfig};
/// let scratch = ScratchEncoderConfig {
///     vocabulary: 100, max_tokens: 16, d_model: 8, d_ff: 16, n_heads: 2, n_layers: 1, dropout: 0.1,
/// };
/// let config = TextEncoderConfig::from(scratch);
/// assert_eq!((config.d_model(), config.n_layers()), (8, 1));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum TextEncoderConfig {
    /// Trained from scratch.
    Scratch(ScratchEncoderConfig),
    /// BERT and its kin.
    Bert(BertConfig),
    /// The encoder of T5.
    T5(T5Config),
    /// The text tower of CLIP.
    Clip(ClipTextConfig),
}

impl<'de> Deserialize<'de> for TextEncoderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "family", rename_all = "lowercase")]
        enum Tagged {
            Scratch(ScratchEncoderConfig),
            Bert(BertConfig),
            T5(T5Config),
            Clip(ClipTextConfig),
        }
        let mut value = serde_json::Value::deserialize(deserializer)?;
        if let Some(fields) = value.as_object_mut() {
            fields.entry("family").or_insert_with(|| "scratch".into());
        }
        Ok(match serde_json::from_value(value).map_err(D::Error::custom)? {
            Tagged::Scratch(config) => Self::Scratch(config),
            Tagged::Bert(config) => Self::Bert(config),
            Tagged::T5(config) => Self::T5(config),
            Tagged::Clip(config) => Self::Clip(config),
        })
    }
}

impl From<ScratchEncoderConfig> for TextEncoderConfig {
    fn from(config: ScratchEncoderConfig) -> Self {
        Self::Scratch(config)
    }
}

impl From<BertConfig> for TextEncoderConfig {
    fn from(config: BertConfig) -> Self {
        Self::Bert(config)
    }
}

impl From<T5Config> for TextEncoderConfig {
    fn from(config: T5Config) -> Self {
        Self::T5(config)
    }
}

impl From<ClipTextConfig> for TextEncoderConfig {
    fn from(config: ClipTextConfig) -> Self {
        Self::Clip(config)
    }
}

/// Does the same with the configuration of whatever family.
macro_rules! each {
    ($config:expr, $inner:ident => $do:expr) => {
        match $config {
            TextEncoderConfig::Scratch($inner) => $do,
            TextEncoderConfig::Bert($inner) => $do,
            TextEncoderConfig::T5($inner) => $do,
            TextEncoderConfig::Clip($inner) => $do,
        }
    };
}

impl TextEncoderConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        each!(self, config => config.validate())
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> TextEncoder<B> {
        match self {
            Self::Scratch(config) => TextEncoder::Scratch(config.init(init, device)),
            Self::Bert(config) => TextEncoder::Bert(config.init(init, device)),
            Self::T5(config) => TextEncoder::T5(config.init(init, device)),
            Self::Clip(config) => TextEncoder::Clip(config.init(init, device)),
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        each!(self, config => config.num_params())
    }

    /// Number of tokens it has embeddings for.
    pub fn vocabulary(&self) -> usize {
        each!(self, config => config.vocabulary)
    }

    /// Most tokens of a query.
    pub fn max_tokens(&self) -> usize {
        match self {
            Self::Scratch(config) => config.max_tokens,
            Self::Bert(config) => config.max_tokens(),
            Self::T5(config) => config.max_tokens,
            Self::Clip(config) => config.max_tokens,
        }
    }

    /// Width of the layers.
    pub fn d_model(&self) -> usize {
        each!(self, config => config.d_model)
    }

    /// Inner width of the feed-forward blocks.
    pub fn d_ff(&self) -> usize {
        each!(self, config => config.d_ff)
    }

    /// Number of attention heads.
    pub fn n_heads(&self) -> usize {
        each!(self, config => config.n_heads)
    }

    /// Number of layers S.
    pub fn n_layers(&self) -> usize {
        each!(self, config => config.n_layers)
    }

    /// Sets all dropouts.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        match &mut self {
            Self::Scratch(config) => config.dropout = dropout,
            Self::Bert(config) => {
                config.dropout = dropout;
                config.attention_dropout = dropout;
            }
            Self::T5(config) => config.dropout = dropout,
            Self::Clip(config) => {
                config.dropout = dropout;
                config.attention_dropout = dropout;
            }
        }
        self
    }

    /// Sets how one vector of a query is made; an encoder from scratch always takes the mean.
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        match &mut self {
            Self::Scratch(_) => {}
            Self::Bert(config) => config.pooling = pooling,
            Self::T5(config) => config.pooling = pooling,
            Self::Clip(config) => config.pooling = pooling,
        }
        self
    }
}
