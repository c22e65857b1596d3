//! Pretrained text encoders: against transformers, from damaged folders, in an index, in training.
//!
//! The tiny models are made by `tests/fixtures/make_text_models.py` and `make_vision_models.py`,
//! and what is compared for their settings by `make_settings.py`.

mod clap;
mod clip;
mod faults;
#[cfg(feature = "hub")]
mod hub;
mod imagebind;
mod index;
mod parity;
mod reference;
mod settings;

use std::path::{Path, PathBuf};

use burn::backend::Flex;
use cart_retrieval::{
    data::TextTokenizer,
    nn::TextEncoder,
    pretrained::{LoadReport, PretrainedText},
};

type B = Flex;

/// One model of every family and kind.
const MODELS: [&str; 6] = ["bert", "roberta", "t5", "t5_gated", "clip", "clip_gelu"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/text").join(name)
}

fn load(folder: &Path) -> (TextEncoder<B>, TextTokenizer, LoadReport) {
    PretrainedText::open(folder).unwrap().load(&Default::default()).unwrap()
}
