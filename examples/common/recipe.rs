//! Recipes: everything a training needs beside the data, as one TOML file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cart_retrieval::{
    data::DataFolder,
    prelude::*,
    quantizer::{HealthThresholds, RqKMeansConfig},
};
use serde::{Deserialize, Serialize};

/// A training of one index.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the data set, for reports.
    pub dataset: String,
    /// What trains and what queries, for reports.
    pub protocol: String,
    /// Seed of quantizer, weights and order.
    pub seed: u64,
    /// Captions to train on.
    pub train: CaptionFilter,
    /// Captions to query with.
    pub queries: CaptionFilter,
    /// Captions to choose the best model by; none keeps the last model.
    pub validation: Option<CaptionFilter>,
    /// The text tokenizer, trained on the training captions.
    #[serde(default)]
    pub tokenizer: TokenizerConfig,
    /// The network.
    pub model: ModelRecipe,
    /// The identifiers.
    pub quantizer: CoarseToFineConfig,
    /// What makes a quantizer too unhealthy to train on.
    #[serde(default)]
    pub health: HealthThresholds,
    /// The training.
    pub training: TrainConfig,
    /// The search.
    #[serde(default)]
    pub beam: BeamConfig,
}

/// Sizes of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    pub max_tokens: usize,
    pub d_model: usize,
    pub d_ff: usize,
    pub n_heads: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    #[serde(default)]
    pub fusion: FusionMode,
    pub dropout: f64,
}

impl Recipe {
    /// Reads a recipe.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        let recipe: Self =
            toml::from_str(&text).with_context(|| format!("the recipe {}", path.display()))?;
        ensure!(
            recipe.beam.scope == recipe.training.loss.scope,
            "the recipe {}: [beam] and [training.loss] name different scopes; a beam scores well \
             only what the loss trained",
            path.display()
        );
        Ok(recipe)
    }

    /// Sets the seed of all parts.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Replaces the fine quantizer by residual K-Means of the same sizes.
    pub fn with_rq_kmeans(mut self) -> Self {
        let sizes = self.quantizer.fine.sizes().to_vec();
        self.quantizer.fine = FineConfig::RqKmeans(RqKMeansConfig::new(sizes));
        self
    }

    /// The identifiers' settings, seeded.
    pub fn quantizer(&self) -> CoarseToFineConfig {
        self.quantizer.clone().with_seed(self.seed)
    }

    /// The training's settings, seeded.
    pub fn training(&self) -> TrainConfig {
        TrainConfig { seed: self.seed, ..self.training.clone() }
    }

    /// The network's settings for a tokenizer and identifiers.
    pub fn model(&self, tokenizer: &TextTokenizer, index: &CandidateIndex) -> CartConfig {
        let model = &self.model;
        CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
            .with_width(model.d_model, model.d_ff, model.n_heads)
            .with_layers(model.encoder_layers, model.decoder_layers)
            .with_max_tokens(model.max_tokens)
            .with_fusion(model.fusion)
            .with_dropout(model.dropout)
            .with_seed(self.seed)
    }

    /// The tokenizer of the training captions.
    pub fn tokenizer(&self, train: &[ItemCaption]) -> Result<TextTokenizer> {
        let texts = train.iter().map(|caption| caption.text.as_str());
        Ok(TextTokenizer::train(texts, &self.tokenizer, self.model.max_tokens)?)
    }

    /// Training and validation captions.
    pub fn captions(&self, data: &DataFolder) -> Result<(Vec<ItemCaption>, Vec<ItemCaption>)> {
        let train = data.select(&self.train).context("the recipe's [train]")?;
        let valid = match &self.validation {
            Some(filter) => data.select(filter).context("the recipe's [validation]")?,
            None => Vec::new(),
        };
        Ok((train, valid))
    }
}
