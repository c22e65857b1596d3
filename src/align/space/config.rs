//! How candidates become vectors: the settings.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, ensure_all_in, ensure_in};

/// How candidates become vectors.
///
/// The vector of a candidate is `features * R(f) + texts * c`, scaled to length 1: `R` a ridge
/// regression from its feature row to the mean vector of its training texts, `c` that mean itself
/// where the candidate has texts, both of length 1. Texts count by their weights: in that mean; and
/// a candidate whose texts all weigh less than others' has its `c` and its part in the regression
/// multiplied by the largest of them, relative to the largest of all. Where a map was tuned
/// together with the text encoder ([`EncoderTuning`](crate::align::EncoderTuning)), `R` lies half
/// way between the regression's and that map's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSpaceConfig {
    /// Weight of what the features say.
    pub features: f32,
    /// Weight of what the training texts say. At 0, candidates that have texts are treated like
    /// those that have none: right where the candidates to find are none of the training.
    pub texts: f32,
    /// Kernels of the regression to choose from, by how well texts find their held-out item:
    /// `exp(gamma (cosine - 1))` between rows; 0 is a linear map. Features of an encoder trained on
    /// texts are best mapped linearly or nearly so, others are not.
    pub gammas: Vec<f64>,
    /// Most rows that a kernel compares with.
    pub landmarks: usize,
    /// Penalties of the regression to choose from likewise.
    pub penalties: Vec<f64>,
    /// Parts that the items are divided into for that choice and for the held-out vectors.
    pub folds: usize,
    /// Seed of the division.
    pub seed: u64,
}

impl Default for TextSpaceConfig {
    fn default() -> Self {
        Self {
            features: 1.0,
            texts: 1.0,
            gammas: vec![0.0, 1.0, 2.0],
            landmarks: 2048,
            penalties: vec![0.1, 0.3, 1.0, 3.0],
            folds: 5,
            seed: 0,
        }
    }
}

impl TextSpaceConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self) -> Result<()> {
        let weight = |w: f32| w >= 0.0 && w.is_finite();
        if !weight(self.features) || !weight(self.texts) || self.features + self.texts == 0.0 {
            return Err(Error::config("space weights")
                .expected("features and texts of at least 0, not both 0")
                .found(format!("{} and {}", self.features, self.texts))
                .fix("1 and 1 are usual"));
        }
        let usual = "0.3, 1, 3 and 10 are usual";
        ensure_all_in("space penalties", &self.penalties, "(0, inf)", usual)?;
        ensure_all_in("space gammas", &self.gammas, "[0, inf)", "0, 1 and 2 are usual")?;
        ensure_in("space landmarks", self.landmarks as f64, "[1, inf)", "2048 is usual")?;
        ensure_in("space folds", self.folds as f64, "[2, inf)", "5 is usual")
    }
}
