//! Settings of the search.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, ensure_in},
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
    /// Weight of the late interaction between query and candidate (MaxSim of their token states, -1
    /// to 1) that is added to the log-probability of every answer; 0 leaves it out. It needs an
    /// index with token states.
    #[serde(skip_serializing_if = "is_zero")]
    pub late_interaction: f32,
    /// Factors of the log-probabilities by level of the identifier, one for each, at least 0;
    /// without any, all levels count 1. Less for a level whose tokens say little, as a unique
    /// token's (ours).
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
            late_interaction: 0.0,
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
        ensure_in("beam width", self.width as f64, "[1, inf)", "10 to 20 are usual")?;
        let weights = [
            ("weight of the decoder", self.decoder_weight),
            ("weight of the rerank", self.rerank),
            ("weight of the late interaction", self.late_interaction),
        ];
        let levels = self.level_weights.iter().map(|&weight| ("weight of a level", weight));
        for (name, weight) in weights.into_iter().chain(levels) {
            ensure_in(name, weight.into(), "[0, inf)", "choose it on validation queries")?;
        }
        Ok(())
    }

    /// The factor of a level's log-probabilities.
    pub(super) fn level_weight(&self, level: usize) -> f32 {
        self.level_weights.get(level).copied().unwrap_or(1.0)
    }
}

fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

/// Precision of the decoder's products in a search; `f32` or `bf16` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchPrecision {
    /// Numbers of 32 bits.
    #[default]
    F32,
    /// Weights and what they multiply rounded to bf16, sums of 32 bits. 1.5 to 1.7 times as fast
    /// where the processor multiplies such numbers itself; the order of near-ties may change
    /// (docs/performance.md).
    Bf16,
}

impl FromStr for SearchPrecision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::config("precision of the search")
                .expected("f32 or bf16")
                .found(format!("{text:?}"))
                .fix("use one of those")),
        }
    }
}

impl fmt::Display for SearchPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}
