//! Recipes: everything a training needs beside the data, as one TOML file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cart_retrieval::{
    align::{CandidateSpaceConfig, SpaceTuning},
    data::{DataFolder, LeakAuditConfig},
    nn::AlignmentConfig,
    prelude::*,
    pretrained::PretrainedText,
    quantizer::{HealthThresholds, IdentifierConfig, RqKMeansConfig},
};
use serde::{Deserialize, Serialize};

use super::automatic::{Choice, Facts, Rows};

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
    /// Files of the data folder with captions of captioners, to train on as well.
    #[serde(default)]
    pub generated: Vec<PathBuf>,
    /// What the weights of those captions are multiplied by, in the space and in the training; 0
    /// leaves them out.
    #[serde(default = "whole")]
    pub generated_weight: f32,
    /// Texts more for each item, of two of its training captions each; the decoder alone trains on
    /// them.
    #[serde(default)]
    pub mixed: usize,
    /// Captions to query with.
    pub queries: CaptionFilter,
    /// Captions to choose the best model by; none keeps the last model.
    pub validation: Option<CaptionFilter>,
    /// Items to train on and items to find, where they differ (unseen candidates).
    #[serde(default)]
    pub splits: Option<SplitRecipe>,
    /// Which queries among the training texts, or nearly so, are refused, told or counted.
    #[serde(default)]
    pub audit: LeakAuditConfig,
    /// What to train on and ask while settings are chosen.
    #[serde(default)]
    pub tuning: Option<TuningRecipe>,
    /// The text tokenizer, trained on the training captions; not used with a pretrained encoder.
    #[serde(default)]
    pub tokenizer: TokenizerConfig,
    /// A pretrained text encoder, with its tokenizer; without it, one is trained from scratch.
    pub text: Option<TextRecipe>,
    /// The network.
    pub model: ModelRecipe,
    /// The space of the text encoder, in which candidates get identifiers; without it they get them
    /// in the space of their features.
    #[serde(default)]
    pub space: Option<CandidateSpaceConfig>,
    /// How the text encoder is tuned in that space first, if it is.
    #[serde(default)]
    pub space_tuning: Option<SpaceTuning>,
    /// How queries are compared with the candidates' vectors, if they are.
    #[serde(default)]
    pub alignment: Option<AlignmentRecipe>,
    /// Fewest unique tokens that the network has room for.
    #[serde(default)]
    pub unique_capacity: usize,
    /// How many of them a candidate has.
    #[serde(default)]
    pub identifiers: IdentifierRecipe,
    /// The identifiers.
    pub quantizer: CoarseToFineConfig,
    /// No coarse K-Means (an ablation): its codes become the first level of the RQ-VAE, which then
    /// sees whole vectors.
    #[serde(default)]
    pub without_coarse: bool,
    /// What makes a quantizer too unhealthy to train on.
    #[serde(default)]
    pub health: HealthThresholds,
    /// The training.
    pub training: TrainConfig,
    /// The search.
    #[serde(default)]
    pub beam: BeamConfig,
    /// Whether settings that the recipe leaves out follow the data ([`Recipe::for_data`]).
    #[serde(default, skip_serializing_if = "Automatic::is_off")]
    pub automatic: Automatic,
}

/// Whether settings that a recipe leaves out follow the data.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Automatic {
    /// The recipe has all settings.
    #[default]
    Off,
    /// They do. So far they are those of some other data, in place of these.
    Open(Box<toml::Table>),
    /// They follow the data that were given.
    Fitted(Box<Fitted>),
}

/// What the settings of an automatic recipe followed from.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The recipe as it was written.
    written: toml::Table,
    /// What was chosen, in words.
    pub reasons: Vec<String>,
    /// Whether some candidate has a caption that is held out, to ask with.
    pub asks: bool,
}

impl From<bool> for Automatic {
    fn from(on: bool) -> Self {
        if on { Self::Open(Box::default()) } else { Self::Off }
    }
}

impl From<Automatic> for bool {
    fn from(automatic: Automatic) -> Self {
        !automatic.is_off()
    }
}

impl Automatic {
    fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// The recipe as it was written.
    fn written(&mut self) -> Option<&mut toml::Table> {
        match self {
            Self::Off => None,
            Self::Open(written) => Some(written),
            Self::Fitted(fitted) => Some(&mut fitted.written),
        }
    }
}

fn whole() -> f32 {
    1.0
}

/// Which part of a recipe's captions queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The queries that are reported.
    Test,
    /// Those that settings are chosen by.
    Tuning,
}

/// Names of the splits of items.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecipe {
    /// Trained on.
    pub train: String,
    /// Asked while settings are chosen; a set may have no such split.
    pub tuning: Option<String>,
    /// Asked for the report.
    pub test: String,
}

/// Captions for choosing settings; absent filters are those of the test.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningRecipe {
    pub train: CaptionFilter,
    pub queries: CaptionFilter,
}

/// How queries are compared with the candidates' vectors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignmentRecipe {
    pub scales: Vec<f32>,
    pub guided: bool,
    pub learn_scales: bool,
    pub learn_map: bool,
    pub words: Option<f32>,
}

impl Default for AlignmentRecipe {
    fn default() -> Self {
        let AlignmentConfig { scales, guided, learn_scales, learn_map, words, .. } =
            AlignmentConfig::new(1);
        Self { scales, guided, learn_scales, learn_map, words }
    }
}

/// How many identifiers a candidate has, and whether all of them are trained on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentifierRecipe {
    pub clusters: usize,
    pub codes: usize,
    pub train_all: bool,
}

impl Default for IdentifierRecipe {
    fn default() -> Self {
        let IdentifierConfig { clusters, codes } = IdentifierConfig::default();
        Self { clusters, codes, train_all: false }
    }
}

impl IdentifierRecipe {
    pub fn config(&self) -> IdentifierConfig {
        IdentifierConfig { clusters: self.clusters, codes: self.codes }
    }
}

/// A pretrained text encoder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRecipe {
    /// Its folder, with config.json, tokenizer.json and safetensors weights.
    pub pretrained: PathBuf,
    /// Another dropout than the model's own while training.
    pub dropout: Option<f64>,
}

/// Sizes of the network; with a pretrained text encoder, of the decoder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    pub max_tokens: usize,
    pub d_model: usize,
    pub d_ff: usize,
    pub n_heads: usize,
    /// Left out with a pretrained text encoder, which has its own number.
    #[serde(default)]
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    #[serde(default)]
    pub fusion: FusionMode,
    pub dropout: f64,
    #[serde(default)]
    pub query_start: bool,
}

impl Recipe {
    /// Reads a recipe.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_with(path, &[])
    }

    /// Reads a recipe and replaces settings, given as `table.key=value` with a TOML value.
    pub fn read_with(path: &Path, settings: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        let mut table: toml::Table =
            toml::from_str(&text).with_context(|| format!("the recipe {}", path.display()))?;
        for setting in settings {
            replace(&mut table, setting)?;
        }
        let subject = || format!("the recipe {}", path.display());
        let automatic = table.get("automatic").and_then(toml::Value::as_bool).unwrap_or(false);
        let recipe = if automatic {
            // Checks names and values; the sizes follow once there are data.
            let some = Facts::of_some_data(table.contains_key("text"));
            let settings = filled(&table, &Choice::of(&some)?).with_context(subject)?;
            Self::from_table(settings).with_context(subject)?.written_as(table)
        } else {
            Self::from_table(table).with_context(subject)?
        };
        Ok(recipe)
    }

    fn from_table(table: toml::Table) -> Result<Self> {
        let recipe: Self = table.try_into()?;
        ensure!(
            recipe.beam.scope == recipe.training.loss.scope,
            "[beam] and [training.loss] name different scopes; a beam scores well only what the \
             loss trained"
        );
        ensure!(
            (recipe.model.encoder_layers == 0) == recipe.text.is_some(),
            "[model] needs encoder_layers for an encoder from scratch, and must leave it out \
             beside [text], whose \
             encoder has its own number"
        );
        recipe.validate()?;
        Ok(recipe)
    }

    fn written_as(mut self, table: toml::Table) -> Self {
        self.automatic = Automatic::Open(Box::new(table));
        self
    }

    /// The settings that an automatic recipe leaves out, chosen for these data; any other recipe
    /// stays as it is.
    ///
    /// # Errors
    /// When nothing tells the candidates apart, or the recipe's own settings contradict the chosen
    /// ones.
    pub fn for_data(mut self, data: &DataFolder) -> Result<Self> {
        let Some(written) = self.automatic.written().cloned() else {
            return Ok(self);
        };
        let mut each = vec![0_usize; data.items.len()];
        let mut words = 0;
        let all = data.select(&CaptionFilter::default())?;
        for caption in &all {
            each[caption.item as usize] += 1;
            words = words.max(caption.text.split_whitespace().count());
        }
        let facts = Facts {
            rows: Rows::of(data.items.as_slice(), data.items.dim(), None),
            captions: all.len(),
            described: each.iter().filter(|&&count| count > 0).count(),
            several: each.iter().filter(|&&count| count > 1).count(),
            words,
            pretrained: self.text.is_some(),
        };
        let choice = Choice::of(&facts)?;
        let mut recipe = Self::from_table(filled(&written, &choice)?).context("the recipe")?;
        let asks = facts.several > 0 || written.contains_key("queries");
        let reasons = choice.reasons;
        recipe.automatic = Automatic::Fitted(Box::new(Fitted { written, reasons, asks }));
        Ok(recipe)
    }

    /// What an automatic recipe chose for its data.
    pub fn fitted(&self) -> Option<&Fitted> {
        match &self.automatic {
            Automatic::Fitted(fitted) => Some(fitted),
            Automatic::Off | Automatic::Open(_) => None,
        }
    }

    /// Takes the quantizer for one that was written, which nothing replaces.
    pub fn without_repairs(mut self) -> Self {
        if let Some(written) = self.automatic.written() {
            written.entry("quantizer").or_insert_with(|| toml::Table::new().into());
        }
        self
    }

    /// Whether quantizers that do not suit the candidates are replaced, rather than refused.
    pub fn repairs_quantizer(&self) -> bool {
        self.fitted().is_some_and(|fitted| !fitted.written.contains_key("quantizer"))
    }

    /// Checks what can be checked without data.
    fn validate(&self) -> Result<()> {
        let tuning = self.tuning.iter().flat_map(|tuning| [&tuning.train, &tuning.queries]);
        for filter in [&self.train, &self.queries].into_iter().chain(&self.validation).chain(tuning)
        {
            filter.validate()?;
        }
        ensure!(
            self.generated_weight.is_finite() && self.generated_weight >= 0.0,
            "generated_weight: expected a finite number of at least 0, found {}",
            self.generated_weight
        );
        self.audit.validate().context("[audit]")?;
        self.identifiers.config().validate().context("[identifiers]")?;
        self.quantizer.validate().context("[quantizer]")?;
        let levels = self.quantizer.fine.sizes().len() + 2;
        // Without passes, nothing is trained: the pipeline asks then for no training at all.
        let training = TrainConfig { epochs: self.training.epochs.max(1), ..self.training.clone() };
        training.validate(levels).context("[training]")?;
        self.beam.validate().context("[beam]")?;
        if let Some(space) = &self.space {
            space.validate().context("[space]")?;
        }
        if let Some(tuning) = &self.space_tuning {
            tuning.validate().context("[space_tuning]")?;
        }
        let ModelRecipe { d_model, n_heads, decoder_layers, .. } = self.model;
        ensure!(
            n_heads > 0 && d_model % n_heads == 0 && decoder_layers > 0,
            "[model]: expected a width that the heads divide and at least one decoder layer, found {d_model}, \
             {n_heads} heads and {decoder_layers} layers"
        );
        Ok(())
    }

    /// Takes a pretrained text encoder in place of the recipe's.
    pub fn with_encoder(mut self, folder: &Path) -> Self {
        let dropout = self.text.and_then(|text| text.dropout);
        if let Some(written) = self.automatic.written() {
            let mut text = toml::Table::new();
            text.insert("pretrained".into(), folder.to_string_lossy().into_owned().into());
            text.extend(dropout.map(|dropout| ("dropout".into(), dropout.into())));
            written.insert("text".into(), text.into());
        }
        self.text = Some(TextRecipe { pretrained: folder.to_path_buf(), dropout });
        self.model.encoder_layers = 0;
        self
    }

    /// Opens the pretrained text encoder, if the recipe has one.
    pub fn pretrained(&self) -> Result<Option<PretrainedText>> {
        let Some(text) = &self.text else {
            return Ok(None);
        };
        let open = || -> cart_retrieval::Result<PretrainedText> {
            let pretrained =
                PretrainedText::open(&text.pretrained)?.with_max_tokens(self.model.max_tokens)?;
            Ok(match text.dropout {
                Some(dropout) => pretrained.with_dropout(dropout),
                None => pretrained,
            })
        };
        Ok(Some(open().context("the recipe's [text]")?))
    }

    /// Sets the seed of all parts.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        if let (Some(written), Ok(seed)) = (self.automatic.written(), i64::try_from(seed)) {
            written.insert("seed".into(), seed.into());
        }
        self
    }

    /// Replaces the fine quantizer by residual K-Means of the same sizes.
    pub fn with_rq_kmeans(mut self) -> Self {
        let sizes = self.quantizer.fine.sizes().to_vec();
        self.quantizer.fine = FineConfig::RqKmeans(RqKMeansConfig::new(sizes));
        self.without_repairs()
    }

    /// The identifiers' settings, seeded.
    pub fn quantizer(&self) -> CoarseToFineConfig {
        self.quantizer.clone().with_seed(self.seed)
    }

    /// The training's settings, seeded.
    pub fn training(&self) -> TrainConfig {
        TrainConfig { seed: self.seed, ..self.training.clone() }
    }

    /// The network's settings for a tokenizer, identifiers and a pretrained text encoder, if any.
    pub fn model(
        &self,
        tokenizer: &TextTokenizer,
        index: &CandidateIndex,
        pretrained: Option<&PretrainedText>,
    ) -> CartConfig {
        let model = &self.model;
        let vocabulary = index.vocabulary().clone();
        let config = match pretrained {
            Some(text) => CartConfig::for_encoder(text.config().clone(), vocabulary)
                .with_decoder_layers(model.decoder_layers),
            None => CartConfig::new(tokenizer.vocabulary(), vocabulary)
                .with_layers(model.encoder_layers, model.decoder_layers),
        };
        config
            .with_width(model.d_model, model.d_ff, model.n_heads)
            .with_max_tokens(model.max_tokens)
            .with_fusion(model.fusion)
            .with_dropout(model.dropout)
            .with_query_start(model.query_start)
            .with_seed(self.seed)
    }

    /// Captions to train on and to query with.
    pub fn filters(&self, part: Part) -> Result<(&CaptionFilter, &CaptionFilter)> {
        match (part, &self.tuning) {
            (Part::Tuning, Some(tuning)) => Ok((&tuning.train, &tuning.queries)),
            (Part::Tuning, None) if self.splits.is_none() => {
                bail!("the recipe has no [tuning] captions")
            }
            _ => Ok((&self.train, &self.queries)),
        }
    }

    /// The tokenizer of the training captions.
    pub fn tokenizer(&self, train: &[ItemCaption]) -> Result<TextTokenizer> {
        let texts = train.iter().map(|caption| caption.text.as_str());
        Ok(TextTokenizer::train(texts, &self.tokenizer, self.model.max_tokens)?)
    }
}

/// What a choice says, with what is written in its place where it is.
fn filled(written: &toml::Table, choice: &Choice) -> Result<toml::Table> {
    let mut settings: toml::Table = toml::from_str(&choice.settings)?;
    merge(&mut settings, written, 0);
    Ok(settings)
}

/// Puts what is written over what was chosen. Filters of captions are replaced whole.
fn merge(chosen: &mut toml::Table, written: &toml::Table, depth: usize) {
    for (key, value) in written {
        let whole = depth == 0 && ["train", "queries", "validation"].contains(&key.as_str());
        match (chosen.get_mut(key), value) {
            (Some(toml::Value::Table(chosen)), toml::Value::Table(written)) if !whole => {
                // Settings of one method mean nothing to another.
                let other = written.get("method").is_some_and(|m| chosen.get("method") != Some(m));
                if other {
                    chosen.clear();
                }
                merge(chosen, written, depth + 1);
            }
            _ => {
                chosen.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Sets `a.b.c=value` in a table; the value `unset` removes the key.
fn replace(table: &mut toml::Table, setting: &str) -> Result<()> {
    let Some((path, value)) = setting.split_once('=') else {
        bail!("--set {setting}: expected table.key=value");
    };
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        let next = at.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next
            .as_table_mut()
            .with_context(|| format!("--set {setting}: {key} is no table of the recipe"))?;
    }
    if value == "unset" {
        at.remove(last);
        return Ok(());
    }
    let parsed: toml::Table = toml::from_str(&format!("value = {value}"))
        .or_else(|_| toml::from_str(&format!("value = {value:?}")))
        .with_context(|| format!("--set {setting}"))?;
    at.insert(last.to_string(), parsed["value"].clone());
    Ok(())
}
