//! The shape of a text encoder of any family.

use burn::tensor::backend::Backend;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    BertConfig, ClipTextConfig, Pooling, ScratchEncoderConfig, T5Config, TextEncoder,
    family::{each, map_each},
};
use crate::{error::Result, nn::WeightInit};

/// The shape of a text encoder of any family.
///
/// Written down, the key `family` names it; without that key it is `scratch`.
///
/// # Example
/// ```
/// use cart_retrieval::expert::{ScratchEncoderConfig, TextEncoderConfig};
/// let scratch = ScratchEncoderConfig {
///     vocabulary: 100, max_tokens: 16, d_model: 8, d_ff: 16, n_heads: 2, n_layers: 1, dropout: 0.1,
/// };
/// let config = TextEncoderConfig::from(scratch);
/// assert_eq!((config.d_model(), config.n_layers()), (8, 1));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase", remote = "Self")]
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

impl Serialize for TextEncoderConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for TextEncoderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut value = serde_json::Value::deserialize(deserializer)?;
        if let Some(fields) = value.as_object_mut() {
            fields.entry("family").or_insert_with(|| "scratch".into());
        }
        Self::deserialize(value).map_err(D::Error::custom)
    }
}

macro_rules! families {
    ($($family:ident($config:ident)),*) => {
        $(impl From<$config> for TextEncoderConfig {
            fn from(config: $config) -> Self {
                Self::$family(config)
            }
        })*
    };
}

families!(Scratch(ScratchEncoderConfig), Bert(BertConfig), T5(T5Config), Clip(ClipTextConfig));

impl TextEncoderConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        each!(TextEncoderConfig, self, config => config.validate())
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> TextEncoder<B> {
        map_each!(TextEncoderConfig => TextEncoder, self, config => config.init(init, device))
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        each!(TextEncoderConfig, self, config => config.num_params())
    }

    /// Number of tokens it has embeddings for.
    pub fn vocabulary(&self) -> usize {
        each!(TextEncoderConfig, self, config => config.vocabulary)
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
        each!(TextEncoderConfig, self, config => config.d_model)
    }

    /// Inner width of the feed-forward blocks.
    pub fn d_ff(&self) -> usize {
        each!(TextEncoderConfig, self, config => config.d_ff)
    }

    /// Number of attention heads.
    pub fn n_heads(&self) -> usize {
        each!(TextEncoderConfig, self, config => config.n_heads)
    }

    /// Number of layers S.
    pub fn n_layers(&self) -> usize {
        each!(TextEncoderConfig, self, config => config.n_layers)
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
