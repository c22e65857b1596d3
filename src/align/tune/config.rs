//! Settings of the fine-tuning of a text encoder.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
    /// Whether to train once more, on all captions, after captions kept out have chosen how far to go.
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
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self) -> Result<()> {
        let problem = |name: &str, expected: &str, found: String| {
            Err(Error::config(name)
                .expected(expected)
                .found(found)
                .fix("change it, or keep the default"))
        };
        if self.batch_size < 2 {
            return problem("tuning batch_size", "at least 2", self.batch_size.to_string());
        }
        for (name, value) in [
            ("tuning learning_rate", self.learning_rate),
            ("tuning map_learning_rate", self.map_learning_rate),
            ("tuning temperature", self.temperature),
        ] {
            if !(value > 0.0 && value <= 1.0) {
                return problem(name, "a number in (0, 1]", value.to_string());
            }
        }
        if !(0.0..1.0).contains(&self.word_dropout) {
            return problem(
                "tuning word_dropout",
                "a share in [0, 1)",
                self.word_dropout.to_string(),
            );
        }
        if self.shares.is_empty() || self.shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return problem(
                "tuning shares",
                "at least one number in [0, 1]",
                format!("{:?}", self.shares),
            );
        }
        if !(0.0..0.9).contains(&self.validation_share) {
            return problem(
                "tuning validation_share",
                "a share in [0, 0.9)",
                self.validation_share.to_string(),
            );
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return problem("tuning weight_decay", "at least 0", self.weight_decay.to_string());
        }
        Ok(())
    }
}
