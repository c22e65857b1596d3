//! Settings of the search.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    model::Scope,
};

/// Settings of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeamConfig {
    /// Prefixes kept per query and level.
    pub width: usize,
    /// Tokens that probabilities are normalised over; as in training.
    pub scope: Scope,
    /// Factor of the decoder's logits, to which the candidates' geometry is added: 1 uses them as
    /// trained, 0 uses the geometry alone. A guided decoder that was trained on few captions is
    /// overconfident; choose the weight on validation queries (ours). Without guidance this is only
    /// a temperature, and must be above 0.
    pub decoder_weight: f32,
    /// Weight of the cosine between query and candidate that is added to the log-probability of
    /// every answer; 0 leaves them as they are. It needs a network with an alignment.
    pub rerank: f32,
    /// Factors of the log-probabilities by level of the identifier, one for each, at least 0; without any,
    /// all levels count 1. Less for a level whose tokens say little, as a unique token's (ours).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub level_weights: Vec<f32>,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self {
            width: 20,
            scope: Scope::Legal,
            decoder_weight: 1.0,
            rerank: 0.0,
            level_weights: Vec::new(),
        }
    }
}

impl BeamConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] for a width of zero, and for weights below 0 or not finite.
    pub fn validate(&self) -> Result<()> {
        if self.width == 0 {
            return Err(Error::config("beam width")
                .expected("at least 1")
                .found("0")
                .fix("10 to 20 are usual"));
        }
        let weights =
            [("weight of the decoder", self.decoder_weight), ("weight of the rerank", self.rerank)];
        let levels = self.level_weights.iter().map(|&weight| ("weight of a level", weight));
        for (name, weight) in weights.into_iter().chain(levels) {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::config(name)
                    .expected("at least 0")
                    .found(weight.to_string())
                    .fix("choose it on validation queries"));
            }
        }
        Ok(())
    }

    /// The factor of a level's log-probabilities.
    pub(super) fn level_weight(&self, level: usize) -> f32 {
        self.level_weights.get(level).copied().unwrap_or(1.0)
    }
}
