//! Settings of the RQ-VAE.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, ensure_in, named},
    identifier::LevelSizes,
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
#[serde(default = "RqVaeConfig::without_sizes", deny_unknown_fields)]
pub struct RqVaeConfig {
    /// Number of codes of each level.
    pub sizes: Vec<usize>,
    /// Width of the latent space.
    pub latent: usize,
    /// Widths of the encoder's hidden layers; the decoder mirrors them.
    pub hidden: Vec<usize>,
    /// Weight beta of the commitment term.
    pub commitment: f64,
    /// How codebooks learn.
    pub codebooks: Codebooks,
    /// How inputs are scaled.
    pub standardise: Standardise,
    /// Passes over the data.
    pub epochs: usize,
    /// Embeddings per step.
    pub batch: usize,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Most embeddings that codebooks are initialised from.
    pub init_sample: usize,
    /// Epochs after which unused codes are restarted, again and again; 0 never restarts.
    pub restart_every: usize,
    /// Code sequences kept at each level when embeddings are encoded, of which the one of least
    /// error in the latent space is taken; 1 takes the nearest code at each level, as the training
    /// does. The training is the same with any.
    pub encode_beam: usize,
    /// Seed of weights, order and restarts.
    pub seed: u64,
}

impl RqVaeConfig {
    /// What a file that leaves settings out starts from; [`validate`](Self::validate) misses the
    /// sizes.
    fn without_sizes() -> Self {
        Self::new(Vec::new())
    }

    /// Default settings with these numbers of codes per level.
    pub fn new(sizes: Vec<usize>) -> Self {
        Self {
            sizes,
            latent: 64,
            hidden: vec![256],
            commitment: 0.25,
            codebooks: Codebooks::Ema { decay: 0.99 },
            standardise: Standardise::Global,
            epochs: 100,
            batch: 256,
            learning_rate: 1e-3,
            weight_decay: 1e-2,
            init_sample: 65_536,
            restart_every: 2,
            encode_beam: 1,
            seed: 0,
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        let within = |error: Error| error.about(|name| format!("RQ-VAE, {name}"));
        self.check().map_err(within)
    }

    fn check(&self) -> Result<()> {
        Error::config("sizes")
            .expected("at least one level")
            .found("none")
            .fix_if(self.sizes.is_empty(), "3 or 4 are usual")?;
        let remedy = "a level with one code carries no information; leave it out";
        let range = format!("[2, {}]", LevelSizes::MAX_LEVEL);
        self.sizes.iter().try_for_each(|&k| ensure_in("sizes", k as f64, &range, remedy))?;
        let default = "keep the default";
        for (name, count) in named!(self, latent, epochs, batch, init_sample, encode_beam) {
            ensure_in(name, count as f64, "[1, inf)", default)?;
        }
        for &width in &self.hidden {
            ensure_in("hidden", width as f64, "[1, inf)", "remove that layer")?;
        }
        ensure_in("learning_rate", self.learning_rate, "(0, 1]", "1e-3 is usual")?;
        for (name, number) in named!(self, commitment, weight_decay) {
            ensure_in(name, number, "[0, inf)", default)?;
        }
        match self.codebooks {
            Codebooks::Gradient => Ok(()),
            Codebooks::Ema { decay } => ensure_in("decay", decay, "[0, 1)", "0.99 is usual"),
        }
    }
}
