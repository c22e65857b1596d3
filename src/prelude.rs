//! What most programs need: `use cart_retrieval::prelude::*;`.

pub use crate::{
    data::{
        Caption, CaptionFilter, Captions, DataFolder, ItemCaption, Splits, TextTokenizer,
        TokenizerConfig,
    },
    decode::BeamConfig,
    error::{Error, Result},
    features::Features,
    index::{CandidateIndex, HealthThresholds},
    model::{CartConfig, LossConfig, Preset, Scope},
    nn::FusionMode,
    quantizer::{
        CoarseToFine, CoarseToFineConfig, FineConfig, HierarchicalConfig, Quantizer,
        RqKMeansConfig, RqVaeConfig,
    },
    recipe::{Recipe, Settings},
    retrieve::{Hit, LiveRetriever, Retriever, RetrieverParts},
    train::{TrainConfig, Trainer, TrainingCaptions, TrainingData},
};
