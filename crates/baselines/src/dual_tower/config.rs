//! Settings and data of the dual tower.

use cart_retrieval::{
    Error, Result,
    data::{ItemCaption, TextTokenizer},
    expert::TextEncoderConfig,
    features::Features,
};
use serde::{Deserialize, Serialize};

/// Settings of the dual tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DualTowerConfig {
    /// The text encoder, as CART's.
    pub encoder: TextEncoderConfig,
    /// Width of the shared space.
    pub projection: usize,
    /// Passes over the training captions.
    pub epochs: usize,
    /// Captions per step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Factor of the learning rate for the text encoder; a pretrained one wants less than 1.
    #[serde(default = "one")]
    pub encoder_lr: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Share of a caption's tokens that are dropped, redrawn at every step.
    pub word_dropout: f64,
    /// Seed of weights, order and dropout.
    pub seed: u64,
}

fn one() -> f64 {
    1.0
}

impl DualTowerConfig {
    /// A tower over this encoder, with usual settings.
    pub fn new(encoder: impl Into<TextEncoderConfig>) -> Self {
        Self {
            encoder: encoder.into(),
            projection: 256,
            epochs: 30,
            batch_size: 64,
            learning_rate: 1e-3,
            encoder_lr: one(),
            weight_decay: 0.01,
            word_dropout: 0.0,
            seed: 0,
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        self.encoder.validate()?;
        if self.epochs == 0 || self.batch_size == 0 || self.projection == 0 {
            return Err(Error::config("dual tower")
                .expected("at least one epoch, caption per step and dimension")
                .found("0")
                .fix("keep the defaults"));
        }
        Ok(())
    }
}

/// What a dual tower is trained on.
#[derive(Debug, Clone, Copy)]
pub struct TowerData<'a> {
    /// The encoder's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Training captions; their items are rows of `items`.
    pub captions: &'a [ItemCaption],
    /// Features of the candidates, `[N, D]`.
    pub items: &'a Features,
}
