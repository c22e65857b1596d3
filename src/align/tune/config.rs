//! Settings of the fine-tuning of a text encoder.

use serde::{Deserialize, Serialize};

use crate::error::{Result, ensure_all_in, ensure_in, named};

/// Settings of the fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderTuning {
    /// Passes over the training captions; 0 leaves the encoder as it is.
    pub epochs: usize,
    /// Captions per step.
    pub batch_size: usize,
    /// Peak learning rate of the encoder.
    pub learning_rate: f64,
    /// Peak learning rate of the map of the features, which starts from the regression's.
    pub map_learning_rate: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Share of a caption's tokens that are dropped, redrawn at every step.
    pub word_dropout: f64,
    /// Temperature of the contrast before training; it is learned.
    pub temperature: f64,
    /// Shares of the way from the original encoder to the tuned one, to choose from. The weights
    /// are interpolated, and the choice is made by how well held-out captions find their
    /// candidates; half way is often better than either end. Another share replaces the first one
    /// only if it is better by two standard errors, because an encoder tuned on few captions may be
    /// worse for other texts.
    pub shares: Vec<f64>,
    /// Share of the captions that are kept out. At 0, the last of `shares` is taken.
    pub validation_share: f64,
    /// Whether to train once more, on all captions, after captions kept out have chosen how far to
    /// go.
    pub on_all: bool,
    /// Seed of order and dropout.
    pub seed: u64,
}

impl Default for EncoderTuning {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 64,
            learning_rate: 5e-5,
            map_learning_rate: 1e-3,
            weight_decay: 0.01,
            word_dropout: 0.0,
            temperature: 0.05,
            shares: vec![0.0, 0.5, 1.0],
            validation_share: 0.25,
            on_all: true,
            seed: 0,
        }
    }
}

impl EncoderTuning {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`](crate::error::Error::Config) naming the setting that does not fit.
    pub fn validate(&self) -> Result<()> {
        let default = "change it, or keep the default";
        ensure_in("tuning batch_size", self.batch_size as f64, "[2, inf)", default)?;
        for (name, rate) in named!(self, learning_rate, map_learning_rate, temperature) {
            ensure_in(&format!("tuning {name}"), rate, "(0, 1]", default)?;
        }
        ensure_in("tuning word_dropout", self.word_dropout, "[0, 1)", default)?;
        ensure_all_in("tuning shares", &self.shares, "[0, 1]", default)?;
        ensure_in("tuning validation_share", self.validation_share, "[0, 0.9)", default)?;
        ensure_in("tuning weight_decay", self.weight_decay, "[0, inf)", default)
    }
}
