//! A pretrained text encoder in a folder.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;

use super::{
    fill::fill,
    names::Names,
    report::LoadReport,
    settings::{self, TextSettings},
    weights::Weights,
};
use crate::{
    data::TextTokenizer,
    error::{Error, Result},
    nn::{Pooling, TextEncoder, TextEncoderConfig, WeightInit},
    storage::ensure_held,
};

/// Most tokens of a query, unless told otherwise or the model takes fewer.
const MAX_TOKENS: usize = 512;

/// A pretrained text encoder in a folder, with its tokenizer; not loaded yet.
///
/// # Example
/// ```no_run
/// use burn::backend::Flex;
/// use cart_retrieval::pretrained::PretrainedText;
/// let pretrained = PretrainedText::open("all-MiniLM-L6-v2")?.with_max_tokens(64)?;
/// let (encoder, tokenizer, report) = pretrained.load::<Flex>(&Default::default())?;
/// println!("{} layers of width {}; {report}", encoder.n_layers(), encoder.d_model());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PretrainedText {
    folder: PathBuf,
    config: TextEncoderConfig,
    tokenizer: TextTokenizer,
}

impl PretrainedText {
    /// Reads settings and tokenizer of a folder, those of sentence-transformers included: pooling,
    /// and the longest text.
    ///
    /// # Errors
    /// - [`Error::Io`] when `config.json` or `tokenizer.json` is missing.
    /// - [`Error::Model`] for a model of a family that is not supported, and for a setting that is
    ///   neither followed nor known to change nothing.
    /// - [`Error::Tokenizer`] for a tokenizer that is broken, has tokens without an embedding, or
    ///   contradicts the files next to it.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let TextSettings { folder, config, max_tokens, lower_case, end } =
            settings::text(folder.as_ref())?;
        let path = folder.join("tokenizer.json");
        let limit = config.max_tokens().min(MAX_TOKENS);
        let mut tokenizer = TextTokenizer::from_file(&path, limit)?;
        if tokenizer.token_limit() > config.vocabulary() {
            return Err(Error::tokenizer(path.display().to_string())
                .expected(format!("tokens below {}, which have embeddings", config.vocabulary()))
                .found(format!("a token of number {}", tokenizer.token_limit() - 1))
                .fix("use the tokenizer and weights of one model"));
        }
        let stated = settings::check_tokenizer(&folder, &tokenizer)?;
        if let Some(ends) = end {
            settings::check_end(&folder, &ends, &tokenizer)?;
        }
        if let Some(shorter) = max_tokens.or(stated).filter(|&tokens| tokens < limit) {
            tokenizer = tokenizer.with_max_tokens(shorter)?;
        }
        if lower_case {
            tokenizer = tokenizer.lowercased()?;
        }
        Ok(Self { folder, config, tokenizer })
    }

    /// Sets the most tokens of a query, special ones included; the model's limit unless set.
    ///
    /// # Errors
    /// [`Error::Config`] for more than the model takes, [`Error::Tokenizer`] for fewer than 3.
    pub fn with_max_tokens(self, max_tokens: usize) -> Result<Self> {
        if max_tokens > self.config.max_tokens() {
            return Err(Error::config("max_tokens")
                .expected(format!("at most the model's {}", self.config.max_tokens()))
                .found(max_tokens.to_string())
                .fix("choose a lower limit"));
        }
        Ok(Self { tokenizer: self.tokenizer.with_max_tokens(max_tokens)?, ..self })
    }

    /// Sets all dropouts of the encoder while training; the model's own unless told otherwise.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { config: self.config.with_dropout(dropout), ..self }
    }

    /// Sets how one vector of a query is made; the model's way unless told otherwise.
    pub fn with_pooling(self, pooling: Pooling) -> Self {
        Self { config: self.config.with_pooling(pooling), ..self }
    }

    /// Shape of the encoder.
    pub fn config(&self) -> &TextEncoderConfig {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// [`Error::Model`] naming a tensor that is missing or misshapen, or a file that is damaged;
    /// [`Error::Io`] for one that is missing.
    pub fn load<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<(TextEncoder<B>, TextTokenizer, LoadReport)> {
        self.config.validate()?;
        let weights = Weights::open(&self.folder)?;
        let parameters = || self.config.num_params();
        ensure_held("text encoder", &self.config, parameters, weights.bytes())?;
        let mut encoder = self.config.init::<B>(&mut WeightInit::zeros(), device);
        let names = Names::of(&self.config).ok_or_else(|| {
            let remedy = "load it as part of a training or of an index";
            Error::model("weights")
                .expected("an encoder of a supported pretrained family")
                .found("an encoder trained from scratch")
                .fix(remedy)
        })?;
        let report = fill(&mut encoder, &names, weights)?;
        Ok((encoder, self.tokenizer.clone(), report))
    }
}
