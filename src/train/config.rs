//! Settings of the training.

use serde::{Deserialize, Serialize};

use super::{
    freeze::{Freeze, FrozenCache},
    precision::Precision,
};
use crate::{
    error::{Error, Result, ensure_in, named},
    model::LossConfig,
    optim::{EncoderRates, WarmupCosine},
};

/// Settings of the training.
///
/// # Example
/// ```
/// use cart_retrieval::train::TrainConfig;
/// let config = TrainConfig { epochs: 20, batch_size: 32, ..TrainConfig::default() };
/// assert!(config.validate(4).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training pairs.
    pub epochs: usize,
    /// Pairs per step.
    pub batch_size: usize,
    /// Maximum number of pairs that a device computes at once, to save memory; 0 means all of a
    /// step. Gradients are accumulated, weighted by rows, so that a step still has `batch_size`
    /// pairs. Only rounding and dropout depend on this setting.
    pub micro_batch: usize,
    /// Precision of matrix products.
    pub precision: Precision,
    /// Part of the text encoder that keeps its weights.
    pub freeze: Freeze,
    /// Memory for the cached outputs of frozen layers. Needs `word_dropout` 0, because a caption
    /// must be the same at every step.
    pub frozen_cache: FrozenCache,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate of the text encoder relative to that of all other parameters; below 1 for a
    /// pretrained encoder.
    pub encoder_lr: f64,
    /// Learning rate of an encoder layer relative to that of the layer above it; the embeddings are
    /// below the lowest layer. 1 gives all layers one rate.
    pub layer_decay: f64,
    /// Share of the steps for warm-up.
    pub warmup: f64,
    /// Rate at the end, relative to the peak.
    pub final_rate: f64,
    /// Weight decay of matrices; norms and biases are never decayed.
    pub weight_decay: f64,
    /// Maximum global norm of the gradient; 0 turns clipping off.
    pub clip_norm: f64,
    /// The loss.
    pub loss: LossConfig,
    /// Share of a caption's tokens that are dropped, redrawn at every step.
    pub word_dropout: f64,
    /// Number of validations; one more or less if the steps cannot be divided evenly.
    pub validations: usize,
    /// Maximum number of validation queries; the first ones are used.
    pub validation_queries: usize,
    /// Beam width of the validation; its scope is that of the loss.
    pub validation_beam: usize,
    /// Validations without improvement after which training stops; 0 never stops early.
    pub patience: usize,
    /// Number of consecutive steps with a non-finite loss or gradient after which training ends
    /// with an error; at least 1. Such steps change neither weights nor moments.
    pub max_bad_steps: usize,
    /// Time constant of an exponential moving average of the weights, as a share of the steps. The
    /// average (EMA) is validated, kept and returned; 0 uses the weights themselves. `averaging` in
    /// files.
    #[serde(rename = "averaging")]
    pub ema: f64,
    /// Seed of order, dropout and word dropout.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 64,
            micro_batch: 0,
            precision: Precision::F32,
            freeze: Freeze::Nothing,
            frozen_cache: FrozenCache::default(),
            learning_rate: 1e-3,
            encoder_lr: 1.0,
            layer_decay: 1.0,
            warmup: 0.05,
            final_rate: 0.02,
            weight_decay: 0.01,
            clip_norm: 1.0,
            loss: LossConfig::default(),
            word_dropout: 0.0,
            validations: 20,
            validation_queries: 500,
            validation_beam: 10,
            patience: 0,
            max_bad_steps: 3,
            ema: 0.0,
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// Checks ranges; `levels` is the length of an identifier.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self, levels: usize) -> Result<()> {
        let default = "change it, or keep the default";
        for (name, count) in
            named!(self, epochs, batch_size, validations, validation_beam, max_bad_steps)
        {
            ensure_in(name, count as f64, "[1, inf)", default)?;
        }
        ensure_in("learning_rate", self.learning_rate, "(0, 1]", default)?;
        let remedy = "choose another factor; to keep the encoder, freeze it";
        let rate = self.encoder_lr * self.learning_rate;
        ensure_in("encoder_lr times learning_rate", rate, "(0, 1]", remedy)?;
        ensure_in("layer_decay", self.layer_decay, "(0, 1]", default)?;
        for (name, share) in named!(self, warmup, final_rate, word_dropout) {
            ensure_in(name, share, "[0, 1]", default)?;
        }
        ensure_in("averaging (TrainConfig::ema)", self.ema, "[0, 1]", default)?;
        for (name, number) in named!(self, weight_decay, clip_norm) {
            ensure_in(name, number, "[0, inf)", default)?;
        }
        let frozen = matches!(self.freeze, Freeze::Layers(_) | Freeze::Encoder);
        let remedy = "freeze layers or the encoder, or set frozen_cache.mebibytes to 0";
        Error::config("frozen_cache")
            .expected("frozen layers, whose outputs can be cached")
            .found(format!("freeze = {:?}", self.freeze))
            .fix_if(self.frozen_cache.mebibytes > 0 && !frozen, remedy)?;
        let remedy = "set word_dropout to 0, or frozen_cache.mebibytes to 0";
        Error::config("frozen_cache")
            .expected("captions that are the same at every step")
            .found(format!("word_dropout = {}", self.word_dropout))
            .fix_if(self.frozen_cache.mebibytes > 0 && self.word_dropout > 0.0, remedy)?;
        self.loss.validate(levels)
    }

    /// Learning rates of an encoder with this number of layers.
    pub(super) fn encoder_rates(&self, layers: usize) -> EncoderRates {
        let Self { encoder_lr, layer_decay, .. } = *self;
        EncoderRates { encoder_lr, layer_decay, layers }
    }

    /// Decay of the exponential moving average (EMA) at a step, of `steps` in all; `None` without
    /// an EMA.
    pub(super) fn average_decay(&self, steps: usize) -> Option<f64> {
        let over = self.ema * steps as f64;
        (self.ema > 0.0).then(|| 1.0 - 1.0 / over.max(1.0))
    }

    /// The schedule of the learning rate over `steps` steps.
    pub(super) fn schedule(&self, steps: usize) -> WarmupCosine {
        let warmup = (self.warmup * steps as f64).ceil() as usize;
        WarmupCosine::new(self.learning_rate, warmup, steps, self.final_rate)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::train::IntervalSummary;

    #[test]
    fn keys_of_files_stay() {
        let read = json!({"averaging": 0.5});
        let config: TrainConfig = serde_json::from_value(read).unwrap();
        assert_eq!(config.ema, 0.5);
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["averaging"], json!(0.5));
        assert!(serde_json::from_value::<TrainConfig>(json!({"ema": 0.5})).is_err());
        let read = json!({
            "round": 3, "step": 7, "loss": null,
            "recall_at_1": null, "recall_at_10": null, "mrr_at_10": null,
        });
        let summary: IntervalSummary = serde_json::from_value(read.clone()).unwrap();
        assert_eq!(summary.interval, 3);
        assert_eq!(serde_json::to_value(summary).unwrap(), read);
    }
}
