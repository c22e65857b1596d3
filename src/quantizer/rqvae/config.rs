//! Settings of the RQ-VAE.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    identifier::Vocabulary,
};

/// How inputs are brought to zero mean and unit scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Standardise {
    /// One scale for all dimensions: distances keep their proportions.
    #[default]
    Global,
    /// A scale for each dimension.
    PerDimension,
}

/// How codebooks learn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Codebooks {
    /// By the gradient of the codebook term.
    Gradient,
    /// As moving averages of the latents assigned to them.
    Ema {
        /// Share of the old average that stays at each step.
        decay: f64,
    },
}

/// Settings of the RQ-VAE.
///
/// # Example
/// ```
/// use cart_retrieval::quantizer::{Codebooks, RqVaeConfig};
/// let config = RqVaeConfig {
///     latent: 32,
///     codebooks: Codebooks::Gradient,
///     ..RqVaeConfig::new(vec![64, 64, 64])
/// };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RqVaeConfig {
    /// Number of codes of each level.
    pub sizes: Vec<usize>,
    /// Width of the latent space.
    #[serde(default = "defaults::latent")]
    pub latent: usize,
    /// Widths of the encoder's hidden layers; the decoder mirrors them.
    #[serde(default = "defaults::hidden")]
    pub hidden: Vec<usize>,
    /// Weight beta of the commitment term.
    #[serde(default = "defaults::commitment")]
    pub commitment: f64,
    /// How codebooks learn.
    #[serde(default = "defaults::codebooks")]
    pub codebooks: Codebooks,
    /// How inputs are scaled.
    #[serde(default)]
    pub standardise: Standardise,
    /// Passes over the data.
    #[serde(default = "defaults::epochs")]
    pub epochs: usize,
    /// Embeddings per step.
    #[serde(default = "defaults::batch")]
    pub batch: usize,
    /// Learning rate of AdamW.
    #[serde(default = "defaults::learning_rate")]
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    /// Most embeddings that codebooks are initialised from.
    #[serde(default = "defaults::init_sample")]
    pub init_sample: usize,
    /// Epochs after which unused codes are restarted, again and again; 0 never restarts.
    #[serde(default = "defaults::restart_every")]
    pub restart_every: usize,
    /// Code sequences kept at each level when embeddings are encoded, of which the one of least error in the latent space is
    /// taken; 1 takes the nearest code at each level, as the training does. The training is the same with any.
    #[serde(default = "defaults::encode_beam")]
    pub encode_beam: usize,
    /// Seed of weights, order and restarts.
    #[serde(default)]
    pub seed: u64,
}

mod defaults {
    use super::Codebooks;

    pub fn latent() -> usize {
        64
    }
    pub fn hidden() -> Vec<usize> {
        vec![256]
    }
    pub fn commitment() -> f64 {
        0.25
    }
    pub fn codebooks() -> Codebooks {
        Codebooks::Ema { decay: 0.99 }
    }
    pub fn epochs() -> usize {
        100
    }
    pub fn batch() -> usize {
        256
    }
    pub fn learning_rate() -> f64 {
        1e-3
    }
    pub fn weight_decay() -> f64 {
        1e-2
    }
    pub fn init_sample() -> usize {
        65_536
    }
    pub fn restart_every() -> usize {
        2
    }
    pub fn encode_beam() -> usize {
        1
    }
}

impl RqVaeConfig {
    /// Default settings with these numbers of codes per level.
    pub fn new(sizes: Vec<usize>) -> Self {
        Self {
            sizes,
            latent: defaults::latent(),
            hidden: defaults::hidden(),
            commitment: defaults::commitment(),
            codebooks: defaults::codebooks(),
            standardise: Standardise::Global,
            epochs: defaults::epochs(),
            batch: defaults::batch(),
            learning_rate: defaults::learning_rate(),
            weight_decay: defaults::weight_decay(),
            init_sample: defaults::init_sample(),
            restart_every: defaults::restart_every(),
            encode_beam: defaults::encode_beam(),
            seed: 0,
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        let problem = |name: &str, expected: &str, found: String, remedy: &str| {
            Err(Error::config(format!("RQ-VAE, {name}"))
                .expected(expected)
                .found(found)
                .fix(remedy))
        };
        if self.sizes.is_empty() {
            return problem("sizes", "at least one level", "none".into(), "3 or 4 are usual");
        }
        if let Some(size) =
            self.sizes.iter().find(|&&size| !(2..=Vocabulary::MAX_LEVEL).contains(&size))
        {
            return problem(
                "sizes",
                "2 to 65536 codes at each level",
                size.to_string(),
                "a level with one code carries no information; leave it out",
            );
        }
        for (name, value) in [
            ("latent", self.latent),
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("init_sample", self.init_sample),
            ("encode_beam", self.encode_beam),
        ] {
            if value == 0 {
                return problem(name, "at least 1", "0".into(), "keep the default");
            }
        }
        if self.hidden.contains(&0) {
            return problem("hidden", "widths of at least 1", "0".into(), "remove that layer");
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.learning_rate) || self.learning_rate > 1.0 {
            let found = self.learning_rate.to_string();
            return problem("learning_rate", "a rate in (0, 1]", found, "1e-3 is usual");
        }
        for (name, value) in [("commitment", self.commitment), ("weight_decay", self.weight_decay)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return problem(name, "at least 0", value.to_string(), "keep the default");
            }
        }
        if let Codebooks::Ema { decay } = self.codebooks
            && !(0.0..1.0).contains(&decay)
        {
            return problem("decay", "a share in [0, 1)", decay.to_string(), "0.99 is usual");
        }
        Ok(())
    }
}
