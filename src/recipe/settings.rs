//! All settings of an index: training data, queries and parameters.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{counts::Facts, written::Settings};
use crate::{
    align::{EncoderTuning, LateInteractionConfig, TextSpaceConfig},
    data::{CaptionFilter, ItemCaption, LeakAuditConfig, TextTokenizer, TokenizerConfig},
    decode::BeamConfig,
    error::{Error, Result, ensure_in},
    model::CartConfig,
    nn::{AlignmentConfig, FusionMode, ScratchEncoderConfig},
    pretrained::PretrainedText,
    quantizer::{
        CandidateIndex, CoarseToFineConfig, FineConfig, HealthThresholds, IdentifierConfig,
        RqKMeansConfig,
    },
    train::TrainConfig,
};

/// All settings of an index.
///
/// [`Recipe::for_data`] chooses them from the data. A recipe file holds only the settings that
/// should differ from that choice; [`Settings`] reads it.
///
/// # Example
/// ```no_run
/// use cart_retrieval::{data::DataFolder, recipe::Recipe};
/// let data = DataFolder::open("my-data")?;
/// let recipe = Recipe::for_data(&data)?;
/// for reason in recipe.reasons() {
///     println!("{reason}");
/// }
/// println!("{}", recipe.to_toml()?);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Name of the data set, for reports.
    pub dataset: String,
    /// Name of the protocol, for reports.
    pub protocol: String,
    /// Seed of the quantizer, the weights and the order of the captions.
    pub seed: u64,
    /// Files of the data folder with generated captions, used for training too.
    pub generated: Vec<PathBuf>,
    /// Factor of the weights of generated captions, in the space and in training; 0 leaves them
    /// out.
    pub generated_weight: f32,
    /// Minimum number of unique tokens of the network.
    pub unique_capacity: usize,
    /// Trains without the coarse K-Means (an ablation): its codes become the first level of the
    /// RQ-VAE, which then sees whole vectors.
    pub without_coarse: bool,
    /// Captions to train on.
    pub train: CaptionFilter,
    /// Captions to query with.
    pub queries: CaptionFilter,
    /// Captions to choose the best model by; without it, the last model is kept.
    pub validation: Option<CaptionFilter>,
    /// Items to train on and items to find, where they differ (unseen candidates).
    pub splits: Option<SplitSettings>,
    /// Whether queries that equal or nearly equal a training text are refused, reported or counted.
    pub audit: LeakAuditConfig,
    /// Captions to train on and to query with while settings are chosen.
    pub tuning: Option<TuningSettings>,
    /// The text tokenizer, trained on the training captions; not used with a pretrained encoder.
    pub tokenizer: TokenizerConfig,
    /// A pretrained text encoder, with its tokenizer; without it, one is trained from scratch.
    pub text: Option<TextSettings>,
    /// The network.
    pub model: ModelSettings,
    /// The space of the text encoder, in which candidates get identifiers; without it they get them
    /// in the space of their features.
    pub space: Option<TextSpaceConfig>,
    /// How the text encoder is tuned in that space first, if it is.
    pub space_tuning: Option<EncoderTuning>,
    /// How queries are compared with the candidates' vectors, if they are.
    pub alignment: Option<AlignmentSettings>,
    /// Late interaction between queries and the candidates' texts, if there is any; it needs
    /// `[space]`.
    pub late_interaction: Option<LateInteractionConfig>,
    /// Number of identifiers of a candidate.
    pub identifiers: IdentifierSettings,
    /// The quantizer.
    pub quantizer: CoarseToFineConfig,
    /// Thresholds of the health check of the quantizer.
    pub health: HealthThresholds,
    /// The training.
    pub training: TrainConfig,
    /// The search.
    pub beam: BeamConfig,
    /// Where the settings came from.
    #[serde(skip)]
    pub(super) origin: Option<Origin>,
}

/// Origin of the settings of a recipe.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Origin {
    /// Facts about the data.
    pub(super) facts: Facts,
    /// Settings written by the user.
    pub(super) written: Settings,
    /// Reasons of the choice.
    pub(super) reasons: Vec<String>,
}

/// Names of the splits of items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSettings {
    /// Items to train on.
    pub train: String,
    /// Items to find while settings are chosen; a set may have no such split.
    pub tuning: Option<String>,
    /// Items to find for the report.
    pub test: String,
}

/// Captions for choosing settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningSettings {
    /// Captions to train on.
    pub train: CaptionFilter,
    /// Captions to query with.
    pub queries: CaptionFilter,
}

/// How queries are compared with the candidates' vectors ([`AlignmentConfig`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignmentSettings {
    /// Factors of the cosine, one for each level or one for all.
    pub scales: Vec<f32>,
    /// Whether the comparison takes part in the scores.
    pub guided: bool,
    /// Whether the factors are trained.
    pub learn_scales: bool,
    /// Whether the map from the query to the vectors is trained.
    pub learn_map: bool,
    /// Weight of the token embeddings, if they take part.
    pub words: Option<f32>,
}

impl Default for AlignmentSettings {
    fn default() -> Self {
        let AlignmentConfig { scales, guided, learn_scales, learn_map, words, .. } =
            AlignmentConfig::new(1);
        Self { scales, guided, learn_scales, learn_map, words }
    }
}

impl AlignmentSettings {
    pub(super) fn config(&self, dim: usize) -> AlignmentConfig {
        let Self { scales, guided, learn_scales, learn_map, words } = self.clone();
        AlignmentConfig { dim, scales, guided, learn_scales, learn_map, words }
    }
}

/// How many identifiers a candidate has, and whether all of them are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentifierSettings {
    /// Clusters a candidate belongs to.
    pub clusters: usize,
    /// Codes of a candidate in each cluster.
    pub codes: usize,
    /// Whether all identifiers of a candidate are trained on, not only its first.
    pub train_all: bool,
}

impl Default for IdentifierSettings {
    fn default() -> Self {
        let IdentifierConfig { clusters, codes } = IdentifierConfig::default();
        Self { clusters, codes, train_all: false }
    }
}

impl IdentifierSettings {
    /// The settings of the assignment.
    pub fn config(&self) -> IdentifierConfig {
        IdentifierConfig { clusters: self.clusters, codes: self.codes }
    }
}

/// A pretrained text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSettings {
    /// Its folder, with `config.json`, `tokenizer.json` and safetensors weights.
    pub pretrained: PathBuf,
    /// Dropout while training, instead of the model's own.
    pub dropout: Option<f64>,
}

/// Sizes of the network; with a pretrained text encoder, of the decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Maximum number of tokens of a text.
    pub max_tokens: usize,
    /// Width of the network.
    pub d_model: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Layers of the text encoder; ignored with a pretrained encoder, which has its own number.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Fusion of the encoder's layers into the decoder.
    pub fusion: FusionMode,
    /// Dropout.
    pub dropout: f64,
    /// Whether the decoder starts from the query's vector.
    pub query_start: bool,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            max_tokens: 40,
            d_model: 128,
            d_ff: 256,
            n_heads: 4,
            encoder_layers: 2,
            decoder_layers: 2,
            fusion: FusionMode::default(),
            dropout: 0.1,
            query_start: false,
        }
    }
}

impl Recipe {
    /// Reasons of the choice, one sentence each; empty for a recipe that was not chosen from data.
    pub fn reasons(&self) -> &[String] {
        self.origin.as_ref().map_or(&[], |origin| &origin.reasons)
    }

    /// Sets the seed of all parts.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        if let Some(origin) = &mut self.origin {
            origin.written.set_seed(seed);
        }
        self
    }

    /// Replaces the fine quantizer by residual K-Means of the same sizes (an ablation).
    pub fn with_rq_kmeans(mut self) -> Self {
        let sizes = self.quantizer.fine.sizes().to_vec();
        self.quantizer.fine = FineConfig::RqKmeans(RqKMeansConfig::new(sizes));
        self.without_repairs()
    }

    /// Keeps the quantizer: if it does not suit the data, it is refused instead of replaced.
    pub fn without_repairs(mut self) -> Self {
        if let Some(origin) = &mut self.origin {
            origin.written.keep_quantizer();
        }
        self
    }

    /// Whether a quantizer that does not suit the data is replaced, not refused: where no setting
    /// of the quantizer was written.
    pub fn repairs_quantizer(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| !origin.written.has("quantizer"))
    }

    /// Whether some candidate has a caption that is kept for queries, as far as the choice knows.
    pub(super) fn holds_out(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.facts.asks)
    }

    /// Whether the captions to query with were chosen, not written.
    pub fn chooses_queries(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| !origin.written.has("queries"))
    }

    /// Opens the pretrained text encoder, if the recipe has one.
    ///
    /// # Errors
    /// As [`PretrainedText::open`].
    pub fn pretrained(&self) -> Result<Option<PretrainedText>> {
        let Some(text) = &self.text else {
            return Ok(None);
        };
        let open = || -> Result<PretrainedText> {
            let pretrained =
                PretrainedText::open(&text.pretrained)?.with_max_tokens(self.model.max_tokens)?;
            Ok(match text.dropout {
                Some(dropout) => pretrained.with_dropout(dropout),
                None => pretrained,
            })
        };
        Ok(Some(open().map_err(|error| error.within("[text] of the recipe"))?))
    }

    /// Checks everything that can be checked without data.
    ///
    /// # Errors
    /// [`Error::Config`] naming the table and the setting.
    pub fn validate(&self) -> Result<()> {
        let within = |table: &'static str| move |error: Error| error.within(table);
        let tuning = self.tuning.iter().flat_map(|tuning| [&tuning.train, &tuning.queries]);
        for filter in [&self.train, &self.queries].into_iter().chain(&self.validation).chain(tuning)
        {
            filter.validate()?;
        }
        let weight = f64::from(self.generated_weight);
        ensure_in("generated_weight", weight, "[0, inf)", "change it, or remove it for 1")?;
        self.audit.validate().map_err(within("[audit]"))?;
        self.identifiers.config().validate().map_err(within("[identifiers]"))?;
        self.quantizer.validate().map_err(within("[quantizer]"))?;
        let levels = self.quantizer.fine.sizes().len() + 2;
        // No passes mean no training, which `TrainConfig` alone would refuse.
        let training = TrainConfig { epochs: self.training.epochs.max(1), ..self.training.clone() };
        training.validate(levels).map_err(within("[training]"))?;
        self.beam.validate().map_err(within("[beam]"))?;
        if let Some(space) = &self.space {
            space.validate().map_err(within("[space]"))?;
        }
        if let Some(tuning) = &self.space_tuning {
            tuning.validate().map_err(within("[space_tuning]"))?;
        }
        if let Some(late) = &self.late_interaction {
            late.validate().map_err(within("[late_interaction]"))?;
        }
        let remedy = "set both to one scope: a beam scores well only what the loss trained";
        Error::config("scope of [beam]")
            .expected(format!("{:?}, as in [training.loss]", self.training.loss.scope))
            .found(format!("{:?}", self.beam.scope))
            .fix_if(self.beam.scope != self.training.loss.scope, remedy)?;
        self.model.validate(self.text.is_some())
    }

    /// The quantizer's settings with the recipe's seed.
    pub fn quantizer_config(&self) -> CoarseToFineConfig {
        self.quantizer.clone().with_seed(self.seed)
    }

    /// The training's settings with the recipe's seed.
    pub fn train_config(&self) -> TrainConfig {
        TrainConfig { seed: self.seed, ..self.training.clone() }
    }

    /// The network's settings for a tokenizer, identifiers and a pretrained text encoder, if any.
    pub fn model_config(
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

    /// Checks that the space has a text encoder that has learned something. Not a part of
    /// [`Recipe::validate`], because a recipe file may leave the encoder to `--encoder`.
    pub(super) fn check_space(&self) -> Result<()> {
        let tuned = self.space_tuning.as_ref().is_some_and(|tuning| tuning.epochs > 0);
        Error::config("[space] without a pretrained text encoder")
            .expected(
                "[space_tuning] with at least one epoch, which trains an encoder from scratch",
            )
            .found("none")
            .fix_if(
                self.space.is_some() && self.text.is_none() && !tuned,
                "add [space_tuning], name a pretrained encoder (`--encoder`), or remove [space]",
            )
    }

    /// The text encoder from scratch of the settings of [`Recipe::model_config`].
    pub(super) fn scratch_encoder(&self, tokenizer: &TextTokenizer) -> ScratchEncoderConfig {
        let ModelSettings { max_tokens, d_model, d_ff, n_heads, encoder_layers, dropout, .. } =
            self.model;
        ScratchEncoderConfig {
            vocabulary: tokenizer.vocabulary(),
            max_tokens,
            d_model,
            d_ff,
            n_heads,
            n_layers: encoder_layers,
            dropout,
        }
    }

    /// The tokenizer of the training captions.
    ///
    /// # Errors
    /// As [`TextTokenizer::train`].
    pub fn train_tokenizer(&self, train: &[ItemCaption]) -> Result<TextTokenizer> {
        let texts = train.iter().map(|caption| caption.text.as_str());
        TextTokenizer::train(texts, &self.tokenizer, self.model.max_tokens)
    }
}

impl ModelSettings {
    fn validate(&self, pretrained: bool) -> Result<()> {
        let Self { d_model, n_heads, encoder_layers, decoder_layers, .. } = *self;
        let default = "change it, or remove it";
        Error::config("n_heads of [model]")
            .expected(format!("a divisor of d_model = {d_model}"))
            .found(n_heads.to_string())
            .fix_if(n_heads == 0 || d_model % n_heads != 0, default)?;
        ensure_in("decoder_layers of [model]", decoder_layers as f64, "[1, inf)", default)?;
        Error::config("encoder_layers of [model]")
            .expected("at least 1 without a pretrained encoder")
            .found("0")
            .fix_if(!pretrained && encoder_layers == 0, default)
    }
}
