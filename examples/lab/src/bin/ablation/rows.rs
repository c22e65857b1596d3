//! The rows of the table: the recipe with one part taken away.

use anyhow::{Result, ensure};
use cart_retrieval::{
    members::{Sha256Writer, hex},
    prelude::*,
    quantizer::{HierarchicalConfig, RqKMeansConfig, RqVaeConfig},
    recipe::Recipe,
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// All parts of the method.
    Full,
    /// The decoder reads the last encoder layer only.
    NoFusion,
    /// Coarse fusion alone.
    CoarseFusion,
    /// Fine fusion alone.
    FineFusion,
    /// Hierarchical K-Means in the place of the RQ-VAE, as in the paper.
    NoRqVae,
    /// Residual K-Means in the place of the RQ-VAE (ours).
    RqKmeans,
    /// The RQ-VAE names whole vectors, one level more in the place of the coarse token.
    NoKmeans,
    /// No consistency between two passes with different dropout (R-Drop).
    NoConsistency,
    /// Without the captions of captioners, where the recipe has such.
    NoGenerated,
}

impl Row {
    /// The name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoFusion => "without feature fusion",
            Self::CoarseFusion => "coarse fusion only",
            Self::FineFusion => "fine fusion only",
            Self::NoRqVae => "without RQ-VAE: hierarchical K-Means",
            Self::RqKmeans => "without RQ-VAE: residual K-Means",
            Self::NoKmeans => "without K-Means",
            Self::NoConsistency => "without consistency loss",
            Self::NoGenerated => "without generated captions",
        }
    }

    /// The name in options and files.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// All rows that a recipe can have.
    pub fn of(recipe: &Recipe) -> Vec<Self> {
        let has = |row: &Self| *row != Self::NoGenerated || !recipe.generated.is_empty();
        Self::value_variants().iter().copied().filter(has).collect()
    }

    /// The settings of the row, from those of the full method.
    pub fn of_full(self, full: &Recipe) -> Result<Recipe> {
        let mut recipe = full.clone();
        let sizes = recipe.quantizer.fine.sizes().to_vec();
        match self {
            Self::Full => {}
            Self::NoFusion => recipe.model.fusion = FusionMode::None,
            Self::CoarseFusion => recipe.model.fusion = FusionMode::Coarse,
            Self::FineFusion => recipe.model.fusion = FusionMode::Fine,
            Self::NoRqVae => {
                recipe.quantizer.fine = FineConfig::Hierarchical(HierarchicalConfig::new(sizes));
            }
            Self::RqKmeans => {
                recipe.quantizer.fine = FineConfig::RqKmeans(RqKMeansConfig::new(sizes));
            }
            Self::NoKmeans => recipe.without_coarse = true,
            Self::NoConsistency => recipe.training.loss.r_drop = 0.0,
            Self::NoGenerated => {
                ensure!(
                    !recipe.generated.is_empty(),
                    "the row no-generated: the recipe has no `generated` captions to do without; leave \
                     the row out"
                );
                recipe.generated.clear();
            }
        }
        Ok(recipe)
    }
}

/// The full method with a recipe's sizes: both fusions, K-Means, RQ-VAE, and a consistency loss, of
/// the default weight where the recipe has none.
pub fn full(recipe: &Recipe) -> Recipe {
    let mut full = recipe.clone();
    full.model.fusion = FusionMode::Both;
    full.without_coarse = false;
    if !matches!(full.quantizer.fine, FineConfig::RqVae(_)) {
        let sizes = full.quantizer.fine.sizes().to_vec();
        full.quantizer.fine = FineConfig::RqVae(RqVaeConfig::new(sizes));
    }
    if full.training.loss.r_drop == 0.0 {
        full.training.loss.r_drop = LossConfig::default().r_drop;
    }
    full
}

/// As little training as shows that everything works.
pub fn shortened(mut recipe: Recipe) -> Recipe {
    recipe.training.epochs = recipe.training.epochs.min(1);
    recipe.training.validations = 1;
    recipe.quantizer.coarse.restarts = 1;
    if let FineConfig::RqVae(fine) = &mut recipe.quantizer.fine {
        fine.epochs = fine.epochs.min(10);
    }
    if let Some(tuning) = &mut recipe.space_tuning {
        tuning.epochs = tuning.epochs.min(1);
    }
    recipe
}

/// A checksum of a recipe and of the data that it is used on: results with another one are of
/// another experiment.
pub fn digest(recipe: &Recipe, data: &[u8; 32]) -> Result<String> {
    let mut writer = Sha256Writer::new(std::io::sink());
    serde_json::to_writer(&mut writer, &(env!("CARGO_PKG_VERSION"), data, recipe))?;
    Ok(hex(&writer.finish().1))
}
