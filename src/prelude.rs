//! What most programs need: `use cart_retrieval::prelude::*;`.

pub use crate::{
    data::{CaptionFilter, Captions, ItemCaption, Splits, TextTokenizer, TokenizerConfig},
    decode::BeamConfig,
    error::{Error, Result},
    features::Features,
    model::{CartConfig, LossConfig, Preset, Scope},
    nn::FusionMode,
    quantizer::{CandidateIndex, CoarseToFine, CoarseToFineConfig, FineConfig, Quantizer},
    retrieve::{Hit, Retriever},
    train::{TrainConfig, Trainer, TrainingData},
};
